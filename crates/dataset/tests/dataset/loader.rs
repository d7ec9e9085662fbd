//! Splits and undistorted batches.

use dataset::{Draw, Loader, Part, Scratch};
use plan::{Augment, Color, Dataset};

use crate::{glyphs, prepared};

#[test]
fn splits_are_disjoint_stratified_and_keyed_by_the_data_sets_seed() {
    let (_cache, prepared) = prepared(&glyphs());
    let splits = prepared.splits(&glyphs());
    assert_eq!((splits.train.len(), splits.validation.len(), splits.test.len()), (54, 6, 20));
    assert_eq!(splits.test, (60..80).collect::<Vec<_>>());
    let mut all: Vec<u32> = splits.train.iter().chain(&splits.validation).copied().collect();
    all.sort_unstable();
    assert_eq!(all, (0..60).collect::<Vec<_>>());
    let other = prepared.splits(&Dataset { seed: 9, ..glyphs() });
    assert_ne!(other.validation, splits.validation);
    // A limit takes images evenly from the classes.
    let few = prepared.splits(&Dataset {
        train_images: Some(30),
        test_images: Some(10),
        validation_fraction: 0.0,
        ..glyphs()
    });
    let count = |indices: &[u32], class| indices.iter().filter(|&&index| prepared.label(index) == class).count();
    assert!((0..10).all(|class| count(&few.train, class) == 3 && count(&few.test, class) == 1));
    assert!(few.validation.is_empty());
}

#[test]
fn training_without_augmentation_is_the_normalised_image() {
    let (_cache, prepared) = prepared(&Dataset { color: Some(Color::Rgb), ..glyphs() });
    let loader = Loader::new(&prepared, &Augment::default()).unwrap();
    assert_eq!(loader.input_size(), (3, 28, 28));
    let indices = [3, 59, 79, 0];
    let mut images = vec![f32::NAN; 4 * loader.sample_values()];
    let mut targets = vec![f32::NAN; 40];
    let draw = Draw { seed: 0, epoch: 0, label_smoothing: 0.0, partners: &[] };
    loader.fill_training(&indices, &draw, &mut Scratch::default(), &mut images, &mut targets);
    let manifest = prepared.manifest();
    for (n, &index) in indices.iter().enumerate() {
        for (i, &pixel) in prepared.image(index).iter().enumerate() {
            let channel = i / 784;
            let expected = (f64::from(pixel) / 255.0 - manifest.mean[channel]) / manifest.std[channel];
            assert!((f64::from(images[n * 2352 + i]) - expected).abs() < 1e-5);
        }
        let label = prepared.label(index) as usize;
        assert!((0..10).all(|class| targets[n * 10 + class] == if class == label { 1.0 } else { 0.0 }));
    }
    let mut evaluation = vec![0.0; images.len()];
    loader.fill_evaluation(&indices, &mut evaluation);
    assert_eq!(images, evaluation);
}

#[test]
fn the_training_part_is_normalised_to_mean_0_and_deviation_1() {
    let (_cache, prepared) = prepared(&glyphs());
    let loader = Loader::new(&prepared, &Augment::default()).unwrap();
    let indices: Vec<u32> = prepared.indices(Part::Train).collect();
    let mut images = vec![0.0; indices.len() * 784];
    loader.fill_evaluation(&indices, &mut images);
    let n = images.len() as f64;
    let mean = images.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = images.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-5, "mean {mean}, variance {variance}");
}

#[test]
fn label_smoothing_spreads_the_target() {
    let (_cache, prepared) = prepared(&glyphs());
    let loader = Loader::new(&prepared, &Augment::default()).unwrap();
    let mut targets = vec![0.0; 20];
    loader.fill_targets(&[4, 17], 0.2, &mut targets);
    for (target, label) in targets.chunks_exact(10).zip([4, 7]) {
        assert!((target.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((target[label] - 0.82).abs() < 1e-6 && (target[0] - 0.02).abs() < 1e-6);
    }
}

#[test]
fn impossible_augmentation_is_refused_by_key() {
    let (_cache, prepared) = prepared(&glyphs());
    let refusal = |augment: Augment| Loader::new(&prepared, &augment).unwrap_err().to_string();
    assert!(
        refusal(Augment { crop: Some(29), ..Augment::default() }).starts_with("augment.crop: must be between 1 and 28")
    );
    assert!(refusal(Augment { crop: Some(0), ..Augment::default() }).starts_with("augment.crop: "));
    assert!(refusal(Augment { cutout: 29, ..Augment::default() }).starts_with("augment.cutout: "));
    assert!(refusal(Augment { hue: 0.1, ..Augment::default() }).starts_with("augment.hue: needs colour images"));
    assert!(Loader::new(&prepared, &Augment { crop: Some(36), pad: 4, ..Augment::default() }).is_ok());
}
