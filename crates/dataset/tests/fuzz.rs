//! Sources and prepared files with random damage: read or refused, and nothing worse. Alone in its binary, because no allocation of the
//! whole process may be large.
//!
//! `PIPELINE_FUZZ_ROUNDS` (default: 1) says how many times as many cases are tried, `PIPELINE_FUZZ_SEED` which ones.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    io::Write,
    path::Path,
    ptr::null_mut,
};

use dataset::{
    Prepared, Stage, prepare,
    rng::{Counter, Purpose},
};
use flate2::{Compression, write::GzEncoder};
use plan::{Dataset, OnBroken, Source};

#[path = "dataset/damage.rs"]
mod damage;

use damage::damaged;

/// More than any of these sources needs: its files hold some kilobytes. A picture may say that it is large, and memory is asked for
/// before its data run out.
const LARGEST_BYTES: usize = 1 << 30;

/// Has no memory for more than [`LARGEST_BYTES`] at once, which ends the process.
struct Limited;

#[expect(unsafe_code, reason = "an allocator is unsafe to write")]
// SAFETY: the system's allocator does the work, and null says that there is no memory.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST_BYTES {
            return null_mut();
        }
        // SAFETY: the caller keeps the rules of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST_BYTES {
            return null_mut();
        }
        // SAFETY: the caller keeps the rules of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > LARGEST_BYTES {
            return null_mut();
        }
        // SAFETY: the caller keeps the rules of `realloc`, and `alloc` above is the system's.
        unsafe { System.realloc(pointer, layout, size) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the rules of `dealloc`, and `alloc` above is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Limited = Limited;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// A source of random numbers for each case, so that one can be repeated alone.
fn cases(cases: u64) -> impl Iterator<Item = Counter> {
    let seed = number("PIPELINE_FUZZ_SEED", 1);
    (0..cases * number("PIPELINE_FUZZ_ROUNDS", 1)).map(move |case| Counter::new(seed, Purpose::Other, 0, case as u32))
}

/// A folder in memory where there is one: preparations end by waiting for the disk, longer than for all else.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar of these files.
fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A source of some files in a folder, one of which is damaged for each case.
struct Subject {
    name: &'static str,
    settings: Dataset,
    /// Names below the source's folder, and contents.
    files: Vec<(String, Vec<u8>)>,
    /// Whether a checksum covers every byte that counts: what is damaged and yet read, is the original.
    sealed: bool,
}

fn idx(zip: bool) -> Subject {
    let file = |sizes: &[u32], value: &dyn Fn(u32) -> u8| {
        let head = [vec![0, 0, 8, sizes.len() as u8], sizes.iter().flat_map(|size| size.to_be_bytes()).collect()];
        let bytes = [head.concat(), (0..sizes.iter().product()).map(value).collect()].concat();
        if zip { zipped(&bytes) } else { bytes }
    };
    let mut files = Vec::new();
    for (part, images) in [("train", 12), ("t10k", 4)] {
        files.push((format!("{part}-images-idx3-ubyte"), file(&[images, 5, 3], &|i| (i * 37) as u8)));
        files.push((format!("{part}-labels-idx1-ubyte"), file(&[images], &|i| (i % 3) as u8)));
    }
    let name = if zip { "gzipped IDX" } else { "IDX" };
    Subject { name, settings: Dataset { source: Source::Idx, ..Dataset::default() }, files, sealed: zip }
}

fn cifar(zip: bool) -> Subject {
    let names = (1..=5).map(|n| format!("data_batch_{n}.bin")).chain(["test_batch.bin".to_owned()]);
    // Two images a batch, so that every class has one.
    let image = |n: usize| [vec![n as u8 % 10], (0..3072).map(|i| (i * n % 251) as u8).collect()].concat();
    let batch = |n: usize| [image(n), image(n + 5)].concat();
    let names: Vec<_> = names.enumerate().map(|(n, name)| (format!("cifar-10-batches-bin/{name}"), batch(n))).collect();
    let text = (0..10).map(|n| format!("class{n}\n")).collect::<String>().into_bytes();
    let bytes = tar(&[&names[..], &[("cifar-10-batches-bin/batches.meta.txt".to_owned(), text)]].concat());
    let files = vec![("set.tar".to_owned(), if zip { zipped(&bytes) } else { bytes })];
    let name = if zip { "CIFAR-10 as .tar.gz" } else { "CIFAR-10 as .tar" };
    Subject { name, settings: Dataset { source: Source::Cifar, ..Dataset::default() }, files, sealed: zip }
}

fn images(zip: bool) -> Subject {
    let mut files = Vec::new();
    for (n, class) in ["cat", "dog"].into_iter().enumerate() {
        let picture = image::RgbImage::from_fn(6, 5, |x, y| image::Rgb([x as u8 * 40, y as u8 * 50, n as u8 * 200]));
        for (part, format, ending) in [
            ("train", image::ImageFormat::Jpeg, "jpg"),
            ("train", image::ImageFormat::Png, "png"),
            ("train", image::ImageFormat::Bmp, "bmp"),
            ("test", image::ImageFormat::WebP, "webp"),
        ] {
            let mut bytes = std::io::Cursor::new(Vec::new());
            picture.write_to(&mut bytes, format).unwrap();
            files.push((format!("{part}/{class}/x.{ending}"), bytes.into_inner()));
        }
    }
    let bytes = tar(&files);
    let files = vec![("set.tar".to_owned(), if zip { zipped(&bytes) } else { bytes })];
    let name = if zip { "images in a .tar.gz" } else { "images in a .tar" };
    let settings =
        Dataset { source: Source::Images, image_size: Some(4), on_broken: OnBroken::Skip, ..Dataset::default() };
    Subject { name, settings, files, sealed: zip }
}

/// Prepares from `files` in a folder, and looks whether anything was written but into the cache.
fn attempt(subject: &Subject, files: &[(String, Vec<u8>)]) -> Result<(Prepared, tempfile::TempDir), String> {
    let folder = scratch();
    let source = folder.path().join("around/source");
    fs::create_dir_all(&source).unwrap();
    for (name, bytes) in files {
        fs::write(source.join(name), bytes).unwrap();
    }
    let path = if subject.settings.source == Source::Idx { source.clone() } else { source.join("set.tar") };
    let settings = Dataset { path: Some(path), ..subject.settings.clone() };
    let result = prepare(&settings, &folder.path().join("around/cache"), &|_| {});
    let names = |folder: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let mut own: Vec<_> = files.iter().map(|(name, _)| name.clone()).collect();
    own.sort();
    assert_eq!(names(folder.path()), ["around"]);
    assert_eq!(names(&folder.path().join("around")), ["cache", "source"]);
    assert_eq!(names(&source), own, "{}: nothing is written beside the source", subject.name);
    result.map(|prepared| (prepared, folder)).map_err(|error| error.to_string())
}

#[test]
fn damaged_sources_are_read_or_refused() {
    for subject in [idx(false), idx(true), cifar(false), cifar(true), images(false), images(true)] {
        let name = subject.name;
        let (original, _cache) = attempt(&subject, &subject.files).unwrap_or_else(|error| panic!("{name}: {error}"));
        let original = original.manifest();
        assert_eq!(original.broken, []);
        let (mut read, mut refused) = (0, 0);
        for mut random in cases(60) {
            let mut files = subject.files.clone();
            let file = random.below(files.len() as u32) as usize;
            let longest = [8, 64, 600][random.below(3) as usize];
            files[file].1 = damaged(&files[file].1, longest, &mut random);
            match attempt(&subject, &files) {
                Ok((prepared, _cache)) => {
                    prepared.verify().unwrap();
                    let manifest = prepared.manifest();
                    assert!(manifest.images() <= 2 * original.images(), "{name}: {manifest:?}");
                    if subject.sealed {
                        assert_eq!(manifest.fingerprint, original.fingerprint, "{name}: another data set, unnoticed");
                    }
                    read += 1;
                }
                Err(error) => {
                    assert!(!error.contains("panicked") && error.contains("source"), "{name}: {error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 5, "{name}: {refused} refused");
        assert!(read > 5 || subject.sealed, "{name}: {read} read");
    }
}

#[test]
fn damaged_prepared_files_are_prepared_anew_or_found_by_verify() {
    let settings = Dataset { train_images: Some(30), test_images: Some(10), ..Dataset::default() };
    let sound = scratch();
    let first = prepare(&settings, sound.path(), &|_| {}).unwrap();
    let files = ["manifest.json", "data.safetensors"].map(|name| fs::read(first.folder().join(name)).unwrap());
    let name = first.folder().file_name().unwrap();
    let (mut anew, mut found) = (0, 0);
    for mut random in cases(150) {
        let cache = scratch();
        let entry = cache.path().join(name);
        fs::create_dir(&entry).unwrap();
        let [mut manifest, mut data] = files.clone();
        // The manifest, the header with the labels behind it, or anything.
        match random.below(3) {
            0 => manifest = damaged(&manifest, 40, &mut random),
            1 => data = [&damaged(&data[..4096 + 40 * 8], 600, &mut random), &data[4096 + 40 * 8..]].concat(),
            _ => data = damaged(&data, 600, &mut random),
        }
        fs::write(entry.join("manifest.json"), &manifest).unwrap();
        fs::write(entry.join("data.safetensors"), &data).unwrap();
        let same = [manifest, data] == files;
        let packed = std::cell::Cell::new(false);
        let prepared =
            prepare(&settings, cache.path(), &|progress| packed.set(packed.get() | (progress.stage == Stage::Pack)));
        let prepared = prepared.unwrap();
        assert_eq!(prepared.manifest(), first.manifest());
        for part in [dataset::Part::Train, dataset::Part::Test] {
            assert_eq!(prepared.labels(part), first.labels(part), "labels are believed only with their hash");
        }
        if packed.get() {
            prepared.verify().unwrap();
            anew += 1;
        } else if !same {
            assert!(prepared.verify().is_err(), "pixels are not the original's");
            found += 1;
        }
    }
    assert!(anew > 50 && found > 5, "{anew} anew, {found} found");
}

#[test]
fn damaged_leftovers_of_a_killed_preparation_come_to_the_same_bytes() {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    // No size is set: it is taken from the images, and while they are packed from the journal.
    let subject = Subject { settings: Dataset { image_size: None, ..images(false).settings }, ..images(false) };
    let folder = scratch();
    let path = folder.path().join("set.tar");
    fs::write(&path, &subject.files[0].1).unwrap();
    let settings = Dataset { path: Some(path), ..subject.settings };
    let bytes = |prepared: &Prepared| fs::read(prepared.folder().join("data.safetensors")).unwrap();
    let whole = prepare(&settings, &folder.path().join("whole"), &|_| {}).unwrap();
    let half = folder.path().join("half");
    let killed = catch_unwind(AssertUnwindSafe(|| {
        prepare(&settings, &half, &|progress| {
            if progress.stage == Stage::Pack && progress.done >= 4 {
                resume_unwind(Box::new("killed"));
            }
        })
    }));
    assert!(killed.is_err());
    let left = fs::read_dir(&half).unwrap().map(|entry| entry.unwrap().path()).find(|path| {
        path.is_dir() && path.ends_with(format!("{}.unfinished", whole.folder().file_name().unwrap().to_str().unwrap()))
    });
    let left = left.expect("something is unfinished");
    let files = ["journal", "data.safetensors"].map(|name| fs::read(left.join(name)).unwrap());
    for mut random in cases(100) {
        let cache = scratch();
        let unfinished = cache.path().join(left.file_name().unwrap());
        fs::create_dir(&unfinished).unwrap();
        let [mut journal, mut data] = files.clone();
        match random.below(3) {
            0 => data = damaged(&data, 600, &mut random),
            1 => journal = [&damaged(&journal[..48], 8, &mut random), &journal[48..]].concat(),
            _ => journal = damaged(&journal, 80, &mut random),
        }
        fs::write(unfinished.join("journal"), &journal).unwrap();
        fs::write(unfinished.join("data.safetensors"), &data).unwrap();
        let prepared = prepare(&settings, cache.path(), &|_| {}).unwrap();
        assert!(bytes(&prepared) == bytes(&whole));
        prepared.verify().unwrap();
    }
}
