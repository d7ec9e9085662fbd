//! Weights in files, and networks made of them.

use std::path::Path;

use dataset::rng::{Counter, Purpose};
use graph::{Network, step::Variables};
use plan::{Architecture, Decay, Layout, Model, Optimizer, Train, Trial};
use train::{Card, Device, Names, Predictor, initialize, load_weights, save_weights};

#[path = "../../dataset/tests/dataset/damage.rs"]
mod damage;

use damage::damaged;

/// A network with random weights, and its card.
fn random(model: &Model, input: [usize; 3], classes: usize) -> (Card, Variables) {
    let network = Network::new(model, input, classes).unwrap();
    let variables = Variables::new(&network, Optimizer::Sgd);
    initialize(&variables, model, 7);
    let card = Card {
        model: model.clone(),
        input,
        image: None,
        classes: (0..classes).map(|class| format!("class {class}")).collect(),
        mean: vec![0.5; input[0]],
        std: vec![0.25; input[0]],
        precision: plan::Precision::F32,
    };
    (card, variables)
}

fn torchvision() -> Model {
    Model { architecture: Architecture::AlexNet, layout: Some(Layout::Torchvision), ..Model::default() }
}

#[test]
fn weights_come_back_under_either_convention_of_names() {
    let folder = tempfile::tempdir().unwrap();
    let ours = (Model::default(), [1, 28, 28], Names::Layers);
    for (model, input, names) in [ours, (torchvision(), [3, 224, 224], Names::Torchvision)] {
        let (card, variables) = random(&model, input, 3);
        let path = folder.path().join("weights.safetensors");
        save_weights(&path, &variables, &card, names).unwrap();
        let (read_card, read) = load_weights(&path).unwrap();
        assert_eq!(read_card, card);
        for (own, other) in variables.parameters.iter().zip(&read.parameters) {
            assert!(*own.values.read() == *other.values.read(), "{}", own.values.name());
        }
    }
}

#[test]
fn other_networks_are_not_saved_under_torchvisions_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let (card, variables) = random(&Model::default(), [1, 28, 28], 10);
    let error = save_weights(&path, &variables, &card, Names::Torchvision).unwrap_err().to_string();
    assert!(error.contains("weights.safetensors") && error.contains("LeNet-5"), "{error}");
    assert!(!path.exists());
}

/// A weights file whose header has this JSON.
fn with_header(whole: &[u8], header: &str) -> Vec<u8> {
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let header = format!("{header:<width$}", width = header.len().next_multiple_of(8));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &whole[8 + length..]].concat()
}

#[test]
fn cards_that_this_program_would_not_write_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let model = Model { architecture: Architecture::AlexNet, width: Some(0.125), ..Model::default() };
    let (card, variables) = random(&model, [3, 32, 32], 4);
    let refusal = |card: &Card| {
        save_weights(&path, &variables, card, Names::Layers).unwrap();
        load_weights(&path).map(|_| ()).expect_err("refused").to_string()
    };
    let model = |change: &dyn Fn(&mut Model)| {
        let mut card = card.clone();
        change(&mut card.model);
        card
    };
    let cases = [
        (model(&|model| model.towers = Some(0)), "model.towers"),
        (model(&|model| model.towers = Some(7)), "model.towers"),
        (model(&|model| model.width = Some(1e300)), "model.width"),
        (model(&|model| model.width = Some(-1.0)), "model.width"),
        (model(&|model| model.dropout = Some(1.0)), "model.dropout"),
        (Card { input: [2, 32, 32], ..card.clone() }, "1 or 3 channels"),
        (Card { input: [3, 32, usize::MAX], ..card.clone() }, "sides from 1 to 4096"),
        (Card { input: [3, 0, 32], ..card.clone() }, "sides from 1 to 4096"),
        (Card { input: [3, 16, 32], ..card.clone() }, "model.architecture"),
        (Card { image: Some([16, 32]), ..card.clone() }, "do not go together"),
        (Card { mean: vec![0.5; 2], ..card.clone() }, "mean and std need 3 values"),
        (Card { std: vec![0.2, -0.2, 0.2], ..card.clone() }, "mean and std need 3 values"),
        (Card { classes: vec!["a".into()], ..card.clone() }, "at least 2 classes"),
        (Card { classes: vec!["a".into(); 5], ..card.clone() }, "fc8.weight"),
    ];
    for (card, reason) in cases {
        let error = refusal(&card);
        assert!(error.contains(reason), "{card:?}: {error}");
    }
}

/// A trial that starts from a file.
fn starting_from(path: &Path, model: &Model) -> Trial {
    Trial {
        variant: None,
        seed: 1,
        settings: plan::Settings {
            model: model.clone(),
            train: Train { initial_weights: Some(path.into()), ..Train::default() },
            ..plan::Settings::default()
        },
        assignments: Vec::new(),
        initial_weights_hash: None,
    }
}

#[test]
fn weights_that_are_no_numbers_are_refused_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let model = Model { architecture: Architecture::AlexNet, width: Some(0.125), ..Model::default() };
    let trial = starting_from(&path, &model);
    let network = Network::new(&model, [3, 32, 32], 4).unwrap();
    for (name, value, reason) in [
        ("conv2.weight", f32::NAN, "conv2.weight holds NaN at 3: weights must be finite"),
        ("fc8.bias", f32::NEG_INFINITY, "fc8.bias holds -inf at 3"),
        ("norm1.running_var", -0.5, "norm1.running_var holds -0.5 at 3: a variance is not negative"),
    ] {
        let (card, variables) = random(&model, [3, 32, 32], 4);
        let states = variables.parameters.iter().map(|parameter| &parameter.values).chain(&variables.running);
        states.filter(|state| state.name() == name).for_each(|state| state.write()[3] = value);
        save_weights(&path, &variables, &card, Names::Layers).unwrap();
        let refusals =
            [load_weights(&path).map(|_| ()).unwrap_err(), train::check_initial_weights(&trial, &network).unwrap_err()];
        for error in refusals.map(|error| error.to_string()) {
            assert!(error.contains("weights.safetensors") && error.contains(reason), "{error}");
        }
    }
}

/// Numbers that sizes, ranges and shapes in a header are replaced by.
const NUMBERS: [&str; 10] =
    ["0", "1", "7", "-1", "18446744073709551615", "4611686018427387904", "1e308", "0.5", "null", "[]"];

#[test]
fn damaged_weights_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let model = Model { architecture: Architecture::AlexNet, width: Some(0.02), ..Model::default() };
    let (card, variables) = random(&model, [1, 24, 24], 2);
    save_weights(&path, &variables, &card, Names::Layers).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&whole[8..8 + length]).unwrap().trim_end();
    let digits: Vec<usize> = header
        .char_indices()
        .filter(|&(at, c)| c.is_ascii_digit() && matches!(header.as_bytes()[at - 1], b':' | b'[' | b','))
        .map(|(at, _)| at)
        .collect();
    let trial = starting_from(&path, &model);
    let network = Network::new(&model, [1, 24, 24], 2).unwrap();
    let (mut read, mut refused) = (0, 0);
    for case in 0..300 {
        let mut random = Counter::new(1, Purpose::Other, 0, case);
        let bytes = match random.below(3) {
            // A number of the header, that of a shape, a range or the card's.
            0 => {
                let at = digits[random.below(digits.len() as u32) as usize];
                let end = header[at..].find(|c: char| !c.is_ascii_digit()).map_or(header.len(), |end| at + end);
                let number = NUMBERS[random.below(NUMBERS.len() as u32) as usize];
                with_header(&whole, &[&header[..at], number, &header[end..]].concat())
            }
            1 => [&damaged(&whole[..8 + length], 60, &mut random), &whole[8 + length..]].concat(),
            _ => damaged(&whole, 600, &mut random),
        };
        std::fs::write(&path, &bytes).unwrap();
        let (started, loaded) = (train::check_initial_weights(&trial, &network), load_weights(&path));
        let started = started.map_err(|error| error.to_string());
        let texts = [started.err(), loaded.as_ref().err().map(ToString::to_string)];
        for text in texts.into_iter().flatten() {
            assert!(["weights.safetensors", "model.", "dataset"].iter().any(|named| text.contains(named)), "{text}");
        }
        match loaded {
            Err(_) => refused += 1,
            Ok((card, variables)) => {
                read += 1;
                // What is believed can be used; compiling takes its time.
                if read <= 6 {
                    let values = card.input.iter().product();
                    let mut predictor = Predictor::new(card, variables, &Device::Cpu, 1).unwrap();
                    let guesses = predictor.guesses(&vec![0.25; values], 1).unwrap();
                    assert!(guesses[0][0].probability.is_finite(), "case {case}");
                }
            }
        }
    }
    assert!(refused > 100 && read > 10, "{refused} refused, {read} read");
}

#[test]
fn guesses_are_ranked_and_do_not_depend_on_their_company() {
    let (card, variables) = random(&Model::default(), [1, 28, 28], 10);
    let mut predictor = Predictor::new(card, variables, &Device::Cpu, 1).unwrap();
    let image = |i: usize| (0..784).map(move |pixel| ((pixel * (i + 3)) % 17) as f32 / 8.0 - 1.0);
    // More than one step's images, and a rest.
    let images: Vec<f32> = (0..train::PREDICTION_BATCH + 3).flat_map(image).collect();
    let guesses = predictor.guesses(&images, 3).unwrap();
    assert_eq!(guesses.len(), train::PREDICTION_BATCH + 3);
    for of_image in &guesses {
        assert_eq!(of_image.len(), 3);
        assert!(of_image.windows(2).all(|pair| pair[0].probability >= pair[1].probability));
    }
    let last = predictor.guesses(&images[images.len() - 784..], 10).unwrap().remove(0);
    assert!((last.iter().map(|guess| guess.probability).sum::<f64>() - 1.0).abs() < 1e-9);
    assert_eq!(last[0].class, guesses.last().unwrap()[0].class);
    assert!(predictor.guesses(&[], 5).unwrap().is_empty());
}

#[test]
fn the_penalty_that_is_recorded_is_keras_l2() {
    let (_, variables) = random(&Model::default(), [1, 28, 28], 10);
    let squares = |wanted: &dyn Fn(&str) -> bool| -> f64 {
        let states = variables.parameters.iter().map(|parameter| &parameter.values);
        let states = states.filter(|state| wanted(state.name()));
        states.map(|state| state.read().iter().map(|&w| f64::from(w).powi(2)).sum::<f64>()).sum()
    };
    // Biases begin at 0, which would hide whether they count.
    variables.parameters[1].values.write().fill(0.5);
    let k = 0.003;
    let recorded = |decay| train::penalty(&variables, &Train { weight_decay: 2.0 * k, decay, ..Train::default() });
    let kernels = k * squares(&|name| name.ends_with(".weight"));
    assert!((recorded(Decay::Weights) / kernels - 1.0).abs() < 1e-12);
    assert!((recorded(Decay::All) / (k * squares(&|_| true)) - 1.0).abs() < 1e-12);
    assert!(recorded(Decay::All) > recorded(Decay::Weights));
}
