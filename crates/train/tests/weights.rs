//! Weights in files, and networks made of them.

use graph::{Network, step::Variables};
use plan::{Architecture, Decay, Layout, Model, Optimizer, Train};
use train::{Card, Device, Names, Predictor, initialize, load_weights, save_weights};

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
