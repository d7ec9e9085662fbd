//! Batches that come by a feed: the same steps as those that the host loads, and none that overtakes its batch.

use std::sync::Arc;

use graph::{Autograd, Network, State, step::Variables};
use lowering::cuda::{CudaCompiler, CudaError, Device, Feed, Images, Session, StepResult, program};
use plan::{Model, Train};

use crate::{device, emulator, support::random::sample};

const BATCH: usize = 3;
const LABEL_WORDS: usize = BATCH;

/// Labels, targets and images of a step.
fn batch(step: usize) -> (Vec<u32>, Vec<f32>, Vec<f32>) {
    let (mut labels, mut targets, mut images) = (Vec::new(), vec![0.0; BATCH * 10], Vec::new());
    for i in 0..BATCH {
        let (label, pixels) = sample((step * BATCH + i) as u64 % 7, 784);
        labels.push(label as u32);
        targets[i * 10 + label] = 1.0;
        images.extend(pixels);
    }
    (labels, targets, images)
}

/// What some steps of LeNet-5 came to, and its weights behind them.
type End = (Vec<StepResult>, Vec<Vec<f32>>);

/// Trains, with batches by a feed or written by the host; results are read after every `read_every` steps.
fn train(device: &Arc<Device>, by_feed: bool, steps: usize, read_every: usize) -> Result<End, CudaError> {
    let settings = Train { learning_rate: 0.05, ..Train::default() };
    let network = Network::new(&Model::default(), [1, 28, 28], 10).expect("LeNet-5");
    let variables = Variables::for_training(&network, &settings);
    for (stream, parameter) in (0..).zip(&variables.parameters) {
        let limit = (1.0 / parameter.fan_in as f32).sqrt();
        let values = crate::support::random::uniform(stream, parameter.values.elements());
        parameter.values.write().iter_mut().zip(values).for_each(|(w, value)| *w = value * limit);
    }
    let session = Session::new(device)?;
    let (mut graph, of_step) = variables.training_graph(BATCH, &settings);
    graph.compile((Autograd, CudaCompiler::new(&session)), ());
    let mut feed = Feed::new(&session, 10, None)?;
    let states = [&variables.hyper, &variables.key, &of_step.targets, &of_step.images];
    let words = states.iter().map(|state| state.elements()).sum::<usize>() + LABEL_WORDS;
    let mut results = Vec::new();
    for step in 0..steps {
        let (labels, targets, images) = batch(step);
        variables.set_hyper(&settings, settings.learning_rate / (1.0 + step as f64), step as u64 + 1);
        variables.key.write().fill(step as f32);
        if by_feed {
            let floats = [&variables.hyper.read()[..], &variables.key.read(), &targets, &images].concat();
            let sent = floats.iter().map(|value| value.to_bits()).chain(labels);
            feed.room(words)?.iter_mut().zip(sent).for_each(|(word, sent)| *word = sent);
            feed.send(words, &states)?;
            program(&graph).run()?;
            feed.note(words - LABEL_WORDS, &of_step.loss, &of_step.logits)?;
            feed.done()?;
            if (step + 1) % read_every == 0 || feed.must_be_read(BATCH) {
                results.extend(feed.results()?);
            }
        } else {
            of_step.targets.write().copy_from_slice(&targets);
            of_step.images.write().copy_from_slice(&images);
            program(&graph).run()?;
            session.borrow_mut().pull([&of_step.loss, &of_step.logits])?;
            let ahead = |(row, label): (&[f32], u32)| {
                let own = row[label as usize];
                Some((0..).zip(row).filter(|&(k, &v)| v > own || (v == own && k < label)).count() as u32)
            };
            let ahead = of_step.logits.read().chunks_exact(10).zip(labels).map(ahead).collect();
            results.push(StepResult { loss: of_step.loss.read()[0], ahead });
        }
    }
    results.extend(feed.results()?);
    session.borrow_mut().pull(variables.persistent())?;
    Ok((results, variables.persistent().map(|state| state.read().to_vec()).collect()))
}

#[test]
fn a_fed_step_is_the_one_that_the_host_loads() {
    let Some(device) = device("fed steps") else { return };
    let expected = train(&device, false, 7, 1).unwrap();
    assert_eq!(expected.0.len(), 7);
    assert!(expected.0.iter().any(|step| step.ahead.iter().any(|ahead| *ahead != Some(0))), "ranks are not all alike");
    for read_every in [1, 3, 100] {
        assert_eq!(train(&device, true, 7, read_every).unwrap(), expected, "read after every {read_every}");
    }
}

#[test]
fn ranks_of_known_logits_and_results_that_must_be_read() {
    let Some(device) = device("ranks") else { return };
    let session = Session::new(&device).unwrap();
    let mut feed = Feed::new(&session, 3, None).unwrap();
    // Loss and logits are handed out here, where a step would write them.
    let (loss, logits) = (State::new("loss", &[1]), State::new("logits", &[5, 3]));
    let rows = [[1.0, 2.0, 3.0], [5.0, 5.0, 1.0], [5.0, 5.0, 1.0], [f32::NAN, 1.0, 0.0], [f32::NAN, 1.0, 0.0]];
    let labels = [0, 1, 0, 0, 1];
    let expected = [Some(2), Some(1), Some(0), None, Some(0)];
    for pass in 0..2 {
        for step in 0..64 {
            assert!(!feed.must_be_read(5), "after {step} steps");
            let floats = [&[step as f32][..], rows.as_flattened()].concat();
            let words: Vec<u32> = floats.iter().map(|value| value.to_bits()).chain(labels).collect();
            feed.room(words.len()).unwrap().copy_from_slice(&words);
            feed.send(words.len(), &[&loss, &logits]).unwrap();
            feed.note(16, &loss, &logits).unwrap();
            feed.done().unwrap();
        }
        assert!(feed.must_be_read(5));
        let results = feed.results().unwrap();
        assert_eq!(results.len(), 64, "pass {pass}");
        for (step, result) in results.iter().enumerate() {
            assert_eq!((result.loss, &result.ahead[..]), (step as f32, &expected[..]));
        }
    }
    assert!(feed.results().unwrap().is_empty(), "each is told once");
    feed.note(16, &loss, &logits).unwrap();
    assert!(!feed.must_be_read(5) && feed.must_be_read(6), "a larger batch needs a longer list");
}

/// The driver that forgets to wait is the program that forgot to ask for it.
#[test]
fn a_step_that_could_read_a_batch_before_its_copy_is_refused() {
    for forgotten in ["wait", "synchronize"] {
        let Some(libraries) =
            emulator::with_faults(&format!("forgets to {forgotten}"), &format!("forget={forgotten}\n"))
        else {
            return;
        };
        let device = Device::open(&libraries).unwrap();
        let error = train(&device, true, 5, 100).expect_err("nothing keeps the order").to_string();
        assert!(error.contains("EMULATOR_RACE"), "{forgotten}: {error}");
        assert!(!device.is_lost());
    }
}

/// Words of `kernels/batch.cu`: the pixels of image `image`, from row `top` and column `left` on, times 2.
fn words(image: u32, top: i32, left: i32, flip: bool, blank: [u32; 4], share: f32) -> Vec<u32> {
    let place = [image, top as u32, left as u32, u32::from(flip)].into_iter().chain(blank);
    let matrix = [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.5, 0.0, 2.0]].as_flattened().to_vec();
    let colors = [vec![share], matrix, vec![1.0, -1.0, 0.25], vec![-1.0, -1.0, 3.0], vec![1e9, 21.0, 1e9]].concat();
    place.chain(colors.into_iter().map(f32::to_bits)).collect()
}

#[test]
fn samples_are_cut_by_hand() {
    let Some(device) = device("samples by hand") else { return };
    // Two images of 2 × 3 pixels: 0 … 17, and 100 … 117.
    let pixels: Vec<u8> = (0..18).chain(100..118).collect();
    let images = Images::upload(&device, [2, 3, 2, 3], &pixels).unwrap();
    assert_eq!(images.bytes(), 36);
    let session = Session::new(&device).unwrap();
    let mut feed = Feed::new(&session, 2, Some((images, [2, 2]))).unwrap();
    let mut cut = |parts: usize, samples: &[Vec<u32>]| {
        let words = samples.concat();
        let out = State::new("samples", &[samples.len() / parts, 3, 2, 2]);
        feed.room(words.len()).unwrap().copy_from_slice(&words);
        feed.send(words.len(), &[]).unwrap();
        feed.cut(0, parts, &out).unwrap();
        feed.done().unwrap();
        session.borrow_mut().pull([&out]).unwrap();
        out.read().to_vec()
    };
    let nothing = [0; 4];
    // Channels: 2r + 1; 2g − 1 up to 21; 0.5r + 2b + 0.25 from 3 on.
    assert_eq!(
        cut(1, &[words(0, 0, 1, false, nothing, 1.0), words(0, 0, 1, true, nothing, 1.0)]),
        [
            3., 5., 9., 11., 13., 15., 19., 21., 26.75, 29.25, 34.25, 36.75, 5., 3., 11., 9., 15., 13., 21., 19.,
            29.25, 26.75, 36.75, 34.25
        ]
    );
    // Outside is black, which the bounds hold too; blank is 0.
    assert_eq!(
        cut(1, &[words(0, 1, -1, false, nothing, 1.0), words(1, 0, 0, false, [0, 1, 1, 2], 1.0)]),
        [
            1., 7., 1., 1., -1., 17., -1., -1., 3., 31.75, 3., 3., 201., 0., 207., 209., 21., 0., 21., 21., 274.25, 0.,
            281.75, 284.25
        ]
    );
    let blended = cut(2, &[words(0, 0, 1, false, nothing, 0.25), words(1, 0, 0, false, [0, 1, 1, 2], 0.75)]);
    assert_eq!(blended[..4], [0.25 * 3. + 0.75 * 201., 0.25 * 5., 0.25 * 9. + 0.75 * 207., 0.25 * 11. + 0.75 * 209.]);
}

#[test]
fn images_without_room_are_refused_and_leave_the_device_usable() {
    let Some(libraries) = emulator::with_faults("no room for images", "memory_bytes=1000\n") else { return };
    let device = Device::open(&libraries).unwrap();
    let error = Images::upload(&device, [3, 1, 20, 20], &[7; 1200]).expect_err("there is no room");
    assert!(matches!(error, CudaError::OutOfMemory { wanted_bytes: Some(1200), .. }), "{error:?}");
    let images = Images::upload(&device, [2, 1, 20, 20], &[7; 800]).unwrap();
    drop(images);
    Images::upload(&device, [2, 1, 20, 20], &[7; 800]).expect("the room was given back");
    assert!(!device.is_lost());
}
