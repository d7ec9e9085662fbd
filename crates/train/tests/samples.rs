//! Samples that a GPU cuts out of images that it holds are those that the processor makes: by the emulator of `tests/emulator`.

#[allow(dead_code, reason = "the lowering's tests use the rest")]
#[path = "../../lowering/tests/cuda/emulator.rs"]
mod emulator;

use std::sync::Arc;

use dataset::{Draw, Loader, Prepared, Recipe, Scratch};
use graph::{Network, State, step::Variables};
use lowering::cuda::{CudaError, Device, Feed, Images, Libraries, SAMPLE_WORDS, Session};
use plan::{Augment, Color, Dataset, Model, ResizedCrop, Train};
use train::{Engine, TrainError, initialize};

const INDICES: [u32; 5] = [3, 0, 17, 3, 41];

fn prepared(color: Color, side: usize) -> (tempfile::TempDir, Prepared) {
    let cache = tempfile::tempdir().unwrap();
    let settings = Dataset {
        train_images: Some(60),
        test_images: Some(20),
        color: Some(color),
        image_size: Some(side),
        ..Dataset::default()
    };
    let prepared = dataset::prepare(&settings, cache.path(), &|_| {}).unwrap();
    (cache, prepared)
}

/// The emulated device, or the real one where `PIPELINE_GPU_TESTS` asks for it: then its absence is a failure. None, said aloud, where
/// there is no C++ compiler.
fn device() -> Option<Arc<Device>> {
    if std::env::var("PIPELINE_GPU_TESTS").is_ok_and(|value| !value.is_empty() && value != "0") {
        let device = Device::open(&Libraries::default());
        return Some(device.unwrap_or_else(|error| panic!("PIPELINE_GPU_TESTS is set, but {error}")));
    }
    emulator::libraries("samples on the device").map(|libraries| Device::open(&libraries).unwrap())
}

/// Writes samples by their position: recipes, or pixels.
type Write<'a, T> = &'a dyn Fn(usize, &mut [T]);

/// Samples as the device cuts them.
fn cut(device: &Arc<Device>, loader: &Loader, parts: usize, write: Write<u32>) -> Vec<f32> {
    let prepared = loader.prepared();
    let manifest = prepared.manifest();
    let shape = [prepared.len(), manifest.channels, manifest.height, manifest.width];
    let images = Images::upload(device, shape, prepared.pixels()).unwrap();
    let (c, h, w) = loader.input_size();
    let session = Session::new(device).unwrap();
    let mut feed = Feed::new(&session, loader.classes(), Some((images, [h, w]))).unwrap();
    let samples = State::new("samples", &[INDICES.len(), c, h, w]);
    let words = INDICES.len() * parts * SAMPLE_WORDS;
    let room = feed.room(words).unwrap();
    room.chunks_exact_mut(parts * SAMPLE_WORDS).enumerate().for_each(|(i, words)| write(i, words));
    feed.send(words, &[]).unwrap();
    feed.cut(0, parts, &samples).unwrap();
    feed.done().unwrap();
    session.borrow_mut().pull([&samples]).unwrap();
    samples.read().to_vec()
}

/// Samples as the loader writes them.
fn written(loader: &Loader, write: Write<f32>) -> Vec<f32> {
    let mut images = vec![f32::NAN; INDICES.len() * loader.sample_values()];
    images.chunks_exact_mut(loader.sample_values()).enumerate().for_each(|(i, image)| write(i, image));
    images
}

#[test]
fn a_device_cuts_the_very_samples_that_the_loader_writes() {
    assert_eq!(SAMPLE_WORDS, Recipe::WORDS);
    let Some(device) = device() else { return };
    let off = Augment::default;
    let all = Augment { crop: Some(22), pad: 3, flip: 0.5, brightness: 0.4, contrast: 0.4, cutout: 8, ..off() };
    let cases = [
        ("nothing", off()),
        ("crop", Augment { crop: Some(20), ..off() }),
        ("padded crop and flip", Augment { pad: 3, flip: 0.5, ..off() }),
        ("brightness", Augment { brightness: 0.4, ..off() }),
        ("contrast", Augment { contrast: 0.4, ..off() }),
        ("cutout", Augment { cutout: 8, ..off() }),
        ("mixup", Augment { mixup: 0.5, ..off() }),
        ("all that gray images have", Augment { mixup: 0.3, ..all.clone() }),
        ("saturation", Augment { saturation: 0.6, ..off() }),
        ("hue", Augment { hue: 0.3, ..off() }),
        ("pca", Augment { pca: 0.5, ..off() }),
        ("all", Augment { saturation: 0.6, hue: 0.2, pca: 0.5, mixup: 0.3, ..all }),
    ];
    for color in [Color::Gray, Color::Rgb] {
        let (_cache, prepared) = prepared(color, 24);
        for (what, augment) in &cases {
            if color == Color::Gray && augment.saturation + augment.hue + augment.pca > 0.0 {
                continue;
            }
            let loader = Loader::new(&prepared, augment).unwrap();
            assert!(loader.has_recipes(), "{what}");
            let draw = Draw { seed: 7, epoch: 2, label_smoothing: 0.1, partners: &[1, 5, 9, 30] };
            let targets = |write: &dyn Fn(usize, &mut [f32])| -> Vec<f32> {
                let mut targets = vec![0.0; INDICES.len() * loader.classes()];
                targets.chunks_exact_mut(loader.classes()).enumerate().for_each(|(i, target)| write(i, target));
                targets
            };
            let room = || vec![0.0; loader.sample_values()];
            let expected = written(&loader, &|i, image| {
                let mut target = vec![0.0; loader.classes()];
                loader.training_sample(INDICES[i], &draw, &mut Scratch::default(), image, &mut target);
            });
            let parts = loader.training_recipes();
            let got = cut(&device, &loader, parts, &|i, words| {
                loader.training_recipe(INDICES[i], &draw, words, &mut vec![0.0; loader.classes()]);
            });
            // Not only near: the same products and sums are rounded in the same order.
            assert!(got == expected, "{what}, {color:?}: {:?}", worst(&got, &expected));
            assert_eq!(
                targets(&|i, target| {
                    loader.training_recipe(INDICES[i], &draw, &mut vec![0; parts * SAMPLE_WORDS], target);
                }),
                targets(&|i, target| {
                    loader.training_sample(INDICES[i], &draw, &mut Scratch::default(), &mut room(), target);
                }),
                "{what}: targets"
            );
            if *what != "crop" {
                continue;
            }
            let expected = written(&loader, &|i, image| loader.evaluation_sample(INDICES[i], image));
            let got = cut(&device, &loader, 1, &|i, words| loader.evaluation_recipe(INDICES[i], words));
            assert!(got == expected, "evaluation, {color:?}");
            let expected = written(&loader, &|i, image| loader.ten_crop_sample(INDICES[i], 2 * i, image));
            let got = cut(&device, &loader, 1, &|i, words| loader.ten_crop_recipe(INDICES[i], 2 * i, words));
            assert!(got == expected, "ten views, {color:?}");
        }
    }
}

fn worst(got: &[f32], expected: &[f32]) -> Option<(usize, f32, f32)> {
    let differ = got.iter().zip(expected).enumerate().filter(|(_, (a, b))| a != b);
    differ.map(|(i, (&a, &b))| (i, a, b)).max_by(|a, b| (a.1 - a.2).abs().total_cmp(&(b.1 - b.2).abs()))
}

#[test]
fn what_takes_more_than_a_recipe_has_none() {
    let (_cache, prepared) = prepared(Color::Rgb, 24);
    let off = Augment::default;
    for augment in [
        Augment { resized_crop: Some(ResizedCrop::default()), ..off() },
        Augment { rotation_degrees: 10.0, ..off() },
        Augment { scale: 0.1, ..off() },
        Augment { shear_degrees: 10.0, ..off() },
        Augment { translate: 0.1, ..off() },
        Augment { noise: 0.1, ..off() },
    ] {
        assert!(!Loader::new(&prepared, &augment).unwrap().has_recipes(), "{augment:?}");
    }
}

/// Trains three steps and evaluates on a device with so much memory.
fn trains_within(bytes: usize, prepared: &Prepared, settings: &Train, by_recipe: bool) -> Result<(), TrainError> {
    let libraries = emulator::with_faults(&format!("room for {bytes}"), &format!("memory_bytes={bytes}\n")).unwrap();
    let device = Device::open(&libraries)?;
    let loader = Loader::new(prepared, &Augment { mixup: 0.5, ..Augment::default() })?;
    let (c, h, w) = loader.input_size();
    let images = match by_recipe {
        true => Some(Images::upload(&device, [prepared.len(), c, h, w], prepared.pixels())?),
        false => None,
    };
    let variables = Variables::for_training(&Network::new(&Model::default(), [c, h, w], loader.classes())?, settings);
    initialize(&variables, &Model::default(), 1);
    let mut engine = Engine::new(variables, settings, &train::Device::Cuda(device), images, 1)?;
    let draw = Draw { seed: 1, epoch: 0, label_smoothing: 0.0, partners: &INDICES };
    for step in 1..=3 {
        engine.variables.set_hyper(settings, 0.01, step);
        engine.train(&loader, &INDICES, &draw)?;
    }
    let evaluation = engine.evaluate(&loader, &(60..80).collect::<Vec<u32>>(), &|| true)?.expect("it was not stopped");
    assert!(evaluation.loss.is_finite() && evaluation.predictions.len() == 20);
    let losses: Vec<f32> = engine.results()?.iter().map(|step| step.loss).collect();
    assert!(losses.len() == 3 && losses[0] < 4.0 && losses[2] < losses[0], "{losses:?}");
    engine.pull()
}

#[test]
fn what_is_planned_is_enough_and_not_much_more() {
    let Some(libraries) = emulator::libraries("the plan of a device's memory") else { return };
    let (_cache, prepared) = prepared(Color::Gray, 28);
    let image_bytes = prepared.pixels().len();
    let settings = Train { batch_size: INDICES.len(), evaluation_batch_size: 20, ..Train::default() };
    let network = Network::new(&Model::default(), [1, 28, 28], prepared.classes()).unwrap();
    let device = train::Device::Cuda(Device::open(&libraries).unwrap());
    for by_recipe in [true, false] {
        let planned = device.planned_bytes(&network, &settings, 1, by_recipe);
        let bytes = planned + if by_recipe { image_bytes } else { 0 };
        trains_within(bytes, &prepared, &settings, by_recipe).unwrap();
        let short = trains_within(bytes / 20 * 19, &prepared, &settings, by_recipe).unwrap_err();
        assert!(matches!(short, TrainError::Device(CudaError::OutOfMemory { .. })), "{short}");
    }
    // 8 GB hold them, and a thousand trials beside them; what has no memory of its own holds nothing.
    assert!(device.holds(image_bytes, &network, &settings, 1, 1000));
    assert!(!device.holds(image_bytes, &network, &settings, 1, 100_000));
    assert!(!device.holds(7_800_000_000, &network, &settings, 1, 1));
    assert!(!train::Device::Cpu.holds(1, &network, &settings, 1, 1));
}
