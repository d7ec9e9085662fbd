//! Real data sets, where they are present.

use dataset::{Idx, Part};
use plan::{Dataset, Source};

use crate::{packs, real};

#[test]
fn mnist_is_what_the_world_knows() {
    let Some(path) = real("mnist") else { return };
    let settings = Dataset { source: Source::Idx, path: Some(path.clone()), ..Dataset::default() };
    let cache = tempfile::tempdir().unwrap();
    let (prepared, _) = packs(&settings, cache.path());
    let manifest = prepared.manifest();
    assert_eq!((manifest.train_images, manifest.test_images), (60_000, 10_000));
    assert_eq!((manifest.channels, manifest.height, manifest.width), (1, 28, 28));
    assert_eq!(manifest.classes.len(), 10);
    assert!((manifest.mean[0] - 0.1307).abs() < 5e-5 && (manifest.std[0] - 0.3081).abs() < 5e-5);
    let counts = |part| {
        let mut counts = [0; 10];
        prepared.labels(part).iter().for_each(|&label| counts[label as usize] += 1);
        counts
    };
    assert_eq!(counts(Part::Train), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
    assert_eq!(counts(Part::Test), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
    let images = Idx::read(&path.join("t10k-images-idx3-ubyte.gz"), 3).unwrap();
    assert_eq!(prepared.image(69_999), &images.data[9_999 * 784..]);
    let splits = prepared.splits(&settings);
    assert_eq!((splits.train.len(), splits.validation.len(), splits.test.len()), (54_000, 6_000, 10_000));
    assert!(!packs(&settings, cache.path()).1, "a second run opens only");
}

#[test]
fn cifar_10_as_jpeg_files_in_an_archive() {
    let Some(path) = real("cifar10-jpeg.tar.gz") else { return };
    let settings = Dataset { source: Source::Images, path: Some(path), ..Dataset::default() };
    let cache = tempfile::tempdir().unwrap();
    let (prepared, _) = packs(&settings, cache.path());
    let manifest = prepared.manifest();
    assert_eq!((manifest.train_images, manifest.test_images), (50_000, 10_000));
    assert_eq!((manifest.channels, manifest.height, manifest.width), (3, 32, 32));
    assert_eq!(
        manifest.classes,
        ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    );
    assert!(manifest.broken.is_empty());
    // What is known of CIFAR-10; compression to JPEG moves it a little.
    for (channel, (mean, deviation)) in [(0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616)].into_iter().enumerate() {
        assert!((manifest.mean[channel] - mean).abs() < 0.003, "{:?}", manifest.mean);
        assert!((manifest.std[channel] - deviation).abs() < 0.003, "{:?}", manifest.std);
    }
    let count = |part, label| prepared.labels(part).iter().filter(|&&l| l == label).count();
    assert!((0..10).all(|label| count(Part::Train, label) == 5000 && count(Part::Test, label) == 1000));
    prepared.verify().unwrap();
    assert!(!packs(&settings, cache.path()).1, "a second run opens only");
}
