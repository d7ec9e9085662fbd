//! Preparing, finding again, repairing.

use std::{fs, io::Write as _};

use dataset::{Part, Prepared, prepare};
use plan::{Color, Dataset};

use crate::{entry, glyphs, packs, prepared};

#[test]
fn a_second_run_only_opens() {
    let cache = tempfile::tempdir().unwrap();
    assert!(dataset::find(&glyphs(), cache.path()).unwrap().is_none());
    let (first, packed) = packs(&glyphs(), cache.path());
    assert!(packed);
    let (second, packed) = packs(&glyphs(), cache.path());
    assert!(!packed, "nothing is left to do");
    assert_eq!(first.manifest(), second.manifest());
    let found = dataset::find(&glyphs(), cache.path()).unwrap().expect("it is prepared");
    assert_eq!(found.folder(), first.folder());
    second.verify().unwrap();
}

#[test]
fn the_file_is_safetensors() {
    let (_cache, prepared) = prepared(&Dataset { color: Some(Color::Rgb), image_size: Some(20), ..glyphs() });
    let bytes = fs::read(prepared.folder().join("data.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let images = tensors.tensor("train_images").unwrap();
    assert_eq!((images.dtype(), images.shape()), (safetensors::Dtype::U8, &[60, 3, 20, 20][..]));
    assert_eq!(&images.data()[1200..2400], prepared.image(1));
    let labels = tensors.tensor("test_labels").unwrap();
    assert_eq!((labels.dtype(), labels.shape()), (safetensors::Dtype::I64, &[20][..]));
    assert_eq!(u32::from(labels.data()[8]), prepared.labels(Part::Test)[1]);
    assert_eq!(tensors.tensor("test_images").unwrap().data()[..1200], *prepared.image(60));
    assert_eq!(tensors.names().len(), 4);
}

#[test]
fn settings_that_shape_the_images_make_a_new_entry() {
    let cache = tempfile::tempdir().unwrap();
    let first = prepare(&glyphs(), cache.path(), &|_| {}).unwrap();
    let fingerprint =
        |settings: Dataset| prepare(&settings, cache.path(), &|_| {}).unwrap().manifest().fingerprint.clone();
    let others = [
        fingerprint(Dataset { seed: 1, ..glyphs() }),
        fingerprint(Dataset { image_size: Some(29), ..glyphs() }),
        fingerprint(Dataset { color: Some(Color::Rgb), ..glyphs() }),
        fingerprint(Dataset { test_images: Some(10), ..glyphs() }),
    ];
    for (index, other) in others.iter().enumerate() {
        assert_ne!(other, &first.manifest().fingerprint);
        assert!(!others[..index].contains(other));
    }
    // How the images are split does not shape them.
    assert_eq!(fingerprint(Dataset { validation_fraction: 0.3, ..glyphs() }), first.manifest().fingerprint);
    assert_eq!(
        fingerprint(Dataset { color: Some(Color::Gray), ..glyphs() }),
        first.manifest().fingerprint,
        "gray glyphs are the default"
    );
}

#[test]
fn a_corrupt_entry_is_prepared_anew() {
    let damages: [fn(&std::path::Path); 6] = [
        |entry| fs::write(entry.join("manifest.json"), "{").unwrap(),
        |entry| fs::remove_file(entry.join("manifest.json")).unwrap(),
        |entry| {
            let manifest = fs::read_to_string(entry.join("manifest.json")).unwrap();
            fs::write(entry.join("manifest.json"), manifest.replacen("0.", "0.0", 1)).unwrap();
        },
        |entry| {
            let file = fs::File::options().write(true).open(entry.join("data.safetensors")).unwrap();
            file.set_len(10_000).unwrap();
        },
        |entry| fs::File::options().append(true).open(entry.join("data.safetensors")).unwrap().write_all(b"x").unwrap(),
        |entry| {
            let mut file = fs::File::options().write(true).open(entry.join("data.safetensors")).unwrap();
            file.write_all(&[0xff; 16]).unwrap();
        },
    ];
    for damage in damages {
        let cache = tempfile::tempdir().unwrap();
        let (first, _) = packs(&glyphs(), cache.path());
        damage(&entry(cache.path()));
        assert!(Prepared::open(first.folder()).is_err());
        let (again, packed) = packs(&glyphs(), cache.path());
        assert!(packed);
        assert_eq!(again.manifest(), first.manifest());
        again.verify().unwrap();
    }
}

#[test]
fn a_changed_pixel_is_found_by_verify() {
    use std::io::{Seek, SeekFrom};
    let (_cache, prepared) = prepared(&glyphs());
    let mut file = fs::File::options().write(true).open(prepared.folder().join("data.safetensors")).unwrap();
    file.seek(SeekFrom::Start(20_000)).unwrap();
    file.write_all(&[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    let message = Prepared::open(prepared.folder()).unwrap().verify().unwrap_err().to_string();
    assert!(message.contains("data.safetensors: corrupt"), "{message}");
}

#[test]
fn two_at_once_prepare_once() {
    let cache = tempfile::tempdir().unwrap();
    let results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| packs(&glyphs(), cache.path()))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|(_, packed)| *packed).count(), 1);
    assert!(results.iter().all(|(prepared, _)| prepared.manifest() == results[0].0.manifest()));
    assert!(
        fs::read_dir(cache.path()).unwrap().all(|entry| !entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .ends_with("unfinished"))
    );
}

#[test]
fn what_a_killed_run_left_is_cleared() {
    let cache = tempfile::tempdir().unwrap();
    let (first, _) = packs(&glyphs(), cache.path());
    let unfinished =
        first.folder().with_file_name(format!("{}.unfinished", first.folder().file_name().unwrap().to_string_lossy()));
    fs::rename(first.folder(), &unfinished).unwrap();
    fs::write(unfinished.join("data.safetensors"), "half").unwrap();
    let (again, packed) = packs(&glyphs(), cache.path());
    assert!(packed && !unfinished.exists());
    assert_eq!(again.manifest(), first.manifest());
}

#[test]
fn bytes_do_not_depend_on_the_number_of_threads() {
    let file = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (_cache, prepared) = pool.install(|| prepared(&Dataset { train_images: Some(1500), ..glyphs() }));
        let read = |name| fs::read(prepared.folder().join(name)).unwrap();
        (read("data.safetensors"), read("manifest.json"))
    };
    assert!(file(1) == file(3));
}

#[test]
fn impossible_settings_are_refused_by_key() {
    let cache = tempfile::tempdir().unwrap();
    let refusal = |settings: Dataset| prepare(&settings, cache.path(), &|_| {}).unwrap_err().to_string();
    assert!(
        refusal(Dataset { image_size: Some(0), ..glyphs() }).starts_with("dataset.image_size: must be between 1 and")
    );
    assert!(refusal(Dataset { train_images: Some(9), ..glyphs() }).starts_with("dataset.train_images: at least 10"));
    assert_eq!(
        refusal(Dataset { source: plan::Source::Idx, ..glyphs() }),
        "dataset.path: is needed by source = \"idx\""
    );
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0, "nothing was written");
}
