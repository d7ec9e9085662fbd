//! Preparations that are interrupted, and what is made of what they leave.

use std::{
    cell::Cell,
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    time::SystemTime,
};

use dataset::{Prepared, Progress, Stage, prepare};
use plan::{Dataset, OnBroken, Source};

use crate::{entry, glyphs};

/// Enough that they are packed in several chunks of 512.
fn many() -> Dataset {
    Dataset { train_images: Some(1500), test_images: Some(200), ..glyphs() }
}

/// Prepares until at least `images` are packed, then ends as a killed process does: without a word to anybody.
fn interrupt(settings: &Dataset, cache: &Path, images: u64) {
    let killed = catch_unwind(AssertUnwindSafe(|| {
        prepare(settings, cache, &|Progress { stage, done, total }| {
            if stage == Stage::Pack && done >= images {
                assert!(done < total, "interrupted before the end");
                resume_unwind(Box::new("killed"));
            }
        })
    }));
    assert!(killed.is_err(), "it was interrupted");
}

/// Prepares, and says how many images were taken over and how many are packed anew.
fn go_on(settings: &Dataset, cache: &Path) -> (Prepared, u64, u64) {
    let (first, total) = (Cell::new(None), Cell::new(0));
    let prepared = prepare(settings, cache, &|progress| {
        if progress.stage == Stage::Pack {
            first.set(first.get().or(Some(progress.done)));
            total.set(progress.total);
        }
    })
    .unwrap();
    let first = first.get().expect("something was left to do");
    (prepared, first, total.get() - first)
}

/// The two files of an entry.
fn bytes(prepared: &Prepared) -> [Vec<u8>; 2] {
    ["data.safetensors", "manifest.json"].map(|name| fs::read(prepared.folder().join(name)).unwrap())
}

fn undisturbed(settings: &Dataset) -> [Vec<u8>; 2] {
    bytes(&prepare(settings, tempfile::tempdir().unwrap().path(), &|_| {}).unwrap())
}

fn unfinished(cache: &Path) -> PathBuf {
    let mut folders = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
    folders.find(|path| path.to_string_lossy().ends_with(".unfinished")).expect("something is unfinished")
}

#[test]
fn what_is_done_is_not_done_again_and_the_bytes_are_the_same() {
    let settings = many();
    let expected = undisturbed(&settings);
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let cache = tempfile::tempdir().unwrap();
        pool.install(|| interrupt(&settings, cache.path(), 1));
        assert!(Prepared::open(&unfinished(cache.path())).is_err(), "a half is no data set");
        assert!(dataset::find(&settings, cache.path()).unwrap().is_none());
        // Interrupted once more, further on.
        pool.install(|| interrupt(&settings, cache.path(), 1_000));
        let (prepared, kept, packed) = go_on(&settings, cache.path());
        assert_eq!((kept, packed), (1_024, 1_700 - 1_024));
        assert!(bytes(&prepared) == expected, "with {threads} threads");
        prepared.verify().unwrap();
        let mut names: Vec<_> =
            fs::read_dir(entry(cache.path())).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["data.safetensors", "manifest.json"]);
        assert!(
            fs::read_dir(cache.path())
                .unwrap()
                .all(|entry| { !entry.unwrap().file_name().to_string_lossy().ends_with("unfinished") })
        );
    }
}

#[test]
fn what_was_damaged_meanwhile_is_done_again() {
    let settings = many();
    let expected = undisturbed(&settings);
    // The file of images and the journal of a preparation that was interrupted after 1,024 images, and how many are sound.
    type Damage = (fn(&Path, &Path), u64);
    let damages: [Damage; 8] = [
        (|_, _| {}, 1_024),
        (
            |data, _| {
                let mut bytes = fs::read(data).unwrap();
                // In the last image, whose pixels begin behind the head, the labels and 1,023 images.
                let last = 4096 + 8 * 1_700 + 1_023 * 784;
                bytes[last + 300] ^= 1;
                fs::write(data, bytes).unwrap();
            },
            1_023,
        ),
        (
            |data, _| {
                let length = fs::metadata(data).unwrap().len();
                fs::File::options().write(true).open(data).unwrap().set_len(length - 784 * 24 + 5).unwrap();
            },
            1_000,
        ),
        (|data, _| fs::remove_file(data).unwrap(), 0),
        (|_, journal| fs::remove_file(journal).unwrap(), 0),
        (
            |_, journal| {
                let bytes = fs::read(journal).unwrap();
                fs::write(journal, &bytes[..bytes.len() - 40 * 24 - 7]).unwrap();
            },
            999,
        ),
        (|_, journal| fs::write(journal, "no journal at all, but long enough that it could be one").unwrap(), 0),
        (
            |_, journal| {
                let mut bytes = fs::read(journal).unwrap();
                // The number of channels.
                bytes[24] = 3;
                fs::write(journal, bytes).unwrap();
            },
            0,
        ),
    ];
    for (number, (damage, sound)) in damages.into_iter().enumerate() {
        let cache = tempfile::tempdir().unwrap();
        interrupt(&settings, cache.path(), 1_000);
        let folder = unfinished(cache.path());
        damage(&folder.join("data.safetensors"), &folder.join("journal"));
        let (prepared, kept, packed) = go_on(&settings, cache.path());
        assert_eq!((kept, packed), (sound, 1_700 - sound), "damage {number}");
        assert!(bytes(&prepared) == expected, "damage {number}");
    }
}

#[test]
fn image_files_with_gaps_are_gone_on_with_too() {
    let source = tempfile::tempdir().unwrap();
    for number in 0..1_300u32 {
        let folder = source.path().join(["train/a", "train/b", "test/a"][number as usize % 3]);
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{number:04}.bmp"));
        if number % 100 == 7 {
            fs::write(path, "broken").unwrap();
        } else {
            let pixel = image::Rgb([number as u8, (number >> 3) as u8, 200]);
            image::RgbImage::from_fn(5, 4, |x, y| if x > y { pixel } else { image::Rgb([x as u8, 9, 9]) })
                .save(path)
                .unwrap();
        }
    }
    let folder = Dataset {
        source: Source::Images,
        path: Some(source.path().to_path_buf()),
        on_broken: OnBroken::Skip,
        ..Dataset::default()
    };
    let archive = source.path().with_extension("tar");
    let mut tar = tar::Builder::new(fs::File::create(&archive).unwrap());
    tar.append_dir_all("set", source.path()).unwrap();
    tar.finish().unwrap();
    let archived = Dataset { path: Some(archive.clone()), ..folder.clone() };
    // Without a size of their own: the first image tells it, also when gone on.
    for settings in [folder, archived] {
        let expected = undisturbed(&settings);
        let cache = tempfile::tempdir().unwrap();
        interrupt(&settings, cache.path(), 400);
        let (prepared, kept, packed) = go_on(&settings, cache.path());
        assert_eq!(kept + packed, 1_300);
        assert!((400..1_300).contains(&kept), "{kept}");
        assert_eq!(prepared.manifest().broken.len(), 13);
        assert!(bytes(&prepared) == expected, "{:?}", settings.path);
    }
    fs::remove_file(archive).unwrap();
}

/// Every file below `folder` with its time and contents.
fn snapshot(folder: &Path) -> Vec<(PathBuf, SystemTime, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        if path.is_dir() {
            files.push((path.clone(), modified, Vec::new()));
            files.extend(snapshot(&path));
        } else {
            files.push((path.clone(), modified, fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}

#[test]
fn a_second_run_touches_nothing() {
    let source = tempfile::tempdir().unwrap();
    for (class, shade) in [("a", 10), ("b", 200)] {
        fs::create_dir(source.path().join(class)).unwrap();
        for number in 0..5 {
            let image = image::RgbImage::from_pixel(6, 6, image::Rgb([shade, number, 0]));
            image.save(source.path().join(class).join(format!("{number}.png"))).unwrap();
        }
    }
    // Files that are older than a moment can be told by their times.
    std::thread::sleep(std::time::Duration::from_millis(60));
    let images = Dataset { source: Source::Images, path: Some(source.path().to_path_buf()), ..Dataset::default() };
    let cache = tempfile::tempdir().unwrap();
    for settings in [images, glyphs()] {
        prepare(&settings, cache.path(), &|_| {}).unwrap();
        let before = (snapshot(source.path()), snapshot(cache.path()));
        prepare(&settings, cache.path(), &|progress| panic!("nothing is to be done, but {progress:?}")).unwrap();
        assert!((snapshot(source.path()), snapshot(cache.path())) == before);
    }
}

#[test]
fn who_comes_second_is_told_to_wait() {
    let cache = tempfile::tempdir().unwrap();
    let settings = many();
    let waited = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let second = Cell::new(None);
        let prepared = prepare(&settings, cache.path(), &|progress| {
            if progress.stage == Stage::Pack && second.take().is_none() {
                let (settings, cache, waited) = (&settings, cache.path(), &waited);
                second.set(Some(scope.spawn(move || {
                    prepare(settings, cache, &|progress| {
                        assert_eq!(progress.stage, Stage::Wait, "the other one does the work");
                        waited.store(true, std::sync::atomic::Ordering::SeqCst);
                    })
                    .unwrap()
                    .manifest()
                    .clone()
                })));
                while !waited.load(std::sync::atomic::Ordering::SeqCst) {
                    std::thread::yield_now();
                }
            }
        })
        .unwrap();
        let second = second.take().expect("there was a second").join().unwrap();
        assert_eq!(&second, prepared.manifest());
    });
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for cache in [file.clone(), file.join("below")] {
        let message = prepare(&glyphs(), &cache, &|_| {}).unwrap_err().to_string();
        assert!(message.starts_with(&format!("cannot create {}: ", cache.display())), "{message}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"");
}
