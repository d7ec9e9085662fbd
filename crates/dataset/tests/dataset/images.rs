//! Image files: every format and layout, and hostile ones.

use std::{fs, path::Path};

use dataset::{Part, Prepared, prepare};
use image::{DynamicImage, ImageFormat};
use plan::{Color, Dataset, OnBroken, Source};

pub(crate) fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub(crate) fn flat(width: u32, height: u32, color: [u8; 3]) -> DynamicImage {
    image::RgbImage::from_pixel(width, height, image::Rgb(color)).into()
}

pub(crate) fn jpeg(width: u32, height: u32, color: [u8; 3]) -> Vec<u8> {
    encode(&flat(width, height, color), ImageFormat::Jpeg)
}

pub(crate) const RED: [u8; 3] = [200, 30, 40];
pub(crate) const BLUE: [u8; 3] = [20, 60, 210];

pub(crate) type Files = Vec<(String, Vec<u8>)>;

/// Two classes, two training images and one test image each.
pub(crate) fn good() -> Files {
    let mut files = Vec::new();
    for (class, color) in [("red", RED), ("blue", BLUE)] {
        for name in ["train/CLASS/b.jpg", "train/CLASS/a.JPEG", "test/CLASS/1.jpg"] {
            files.push((name.replace("CLASS", class), jpeg(20, 16, color)));
        }
    }
    files
}

pub(crate) fn write(files: &[(String, Vec<u8>)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join("set").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

pub(crate) fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        // The builder refuses names such as `../x`; an attacker does not.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn settings(path: &Path) -> Dataset {
    Dataset { source: Source::Images, path: Some(path.to_path_buf()), image_size: Some(8), ..Dataset::default() }
}

pub(crate) fn folder_of(files: &[(String, Vec<u8>)], change: impl Fn(Dataset) -> Dataset) -> Result<Prepared, String> {
    let folder = write(files);
    let settings = change(settings(&folder.path().join("set")));
    let prepared = prepare(&settings, &folder.path().join("cache"), &|_| {}).map_err(|error| error.to_string());
    if prepared.is_err() {
        let left: Vec<_> =
            fs::read_dir(folder.path().join("cache")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(
            left.iter().all(|name| name == "sources" || name.to_string_lossy().ends_with(".lock")),
            "left behind: {left:?}"
        );
    }
    prepared
}

pub(crate) fn skipping(settings: Dataset) -> Dataset {
    Dataset { on_broken: OnBroken::Skip, ..settings }
}

fn close(pixel: u8, expected: u8) -> bool {
    pixel.abs_diff(expected) <= 3
}

fn color(image: &[u8]) -> [u8; 3] {
    let plane = image.len() / 3;
    [image[plane / 2], image[plane + plane / 2], image[2 * plane + plane / 2]]
}

pub(crate) fn is(image: &[u8], expected: [u8; 3]) -> bool {
    color(image).iter().zip(expected).all(|(&pixel, expected)| close(pixel, expected))
}

#[test]
fn folder_and_archives_hold_the_same_whatever_their_order() {
    let files = good();
    let from_folder = folder_of(&files, |settings| settings).unwrap();
    let manifest = from_folder.manifest().clone();
    assert_eq!(manifest.classes, ["blue", "red"]);
    assert_eq!((manifest.train_images, manifest.test_images), (4, 2));
    assert_eq!(from_folder.labels(Part::Train), [0, 0, 1, 1]);
    assert!(is(from_folder.image(0), BLUE) && is(from_folder.image(3), RED) && is(from_folder.image(5), RED));
    let mut shuffled: Files =
        files.iter().rev().map(|(name, bytes)| (format!("./wrapped/{name}"), bytes.clone())).collect();
    shuffled.push(("./wrapped/README.md".into(), b"about".to_vec()));
    shuffled.push(("./wrapped/train/red/.hidden.jpg".into(), b"x".to_vec()));
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("set.tar");
    fs::write(&plain, tar(&shuffled)).unwrap();
    let zipped = folder.path().join("set.tar.gz");
    let mut encoder = flate2::write::GzEncoder::new(fs::File::create(&zipped).unwrap(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &tar(&shuffled)).unwrap();
    encoder.finish().unwrap();
    for path in [plain, zipped] {
        // A file that was written this moment may yet change unseen, so its fingerprint is not remembered.
        let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        fs::File::options().write(true).open(&path).unwrap().set_modified(hour_ago).unwrap();
        let prepared = prepare(&settings(&path), &folder.path().join("cache"), &|_| {}).unwrap();
        assert_eq!(prepared.manifest().fingerprint, manifest.fingerprint);
        assert_eq!(prepared.manifest().ignored_files, 2);
        assert!(
            dataset::find(&settings(&path), &folder.path().join("cache"))
                .unwrap()
                .is_some_and(|found| found.len() == 6)
        );
    }
}

#[test]
fn one_folder_of_classes_is_split_by_seed() {
    let mut files = Files::new();
    for (class, color) in [("red", RED), ("blue", BLUE)] {
        files.extend(
            (0..10u8)
                .map(|n| (format!("{class}/{n}.png"), encode(&flat(8, 8, [color[0], color[1], n]), ImageFormat::Png))),
        );
    }
    let prepared = folder_of(&files, |settings| settings).unwrap();
    assert_eq!((prepared.manifest().train_images, prepared.manifest().test_images), (16, 4));
    assert_eq!(prepared.labels(Part::Test), [0, 0, 1, 1]);
    let other = folder_of(&files, |settings| Dataset { seed: 5, ..settings }).unwrap();
    assert_ne!(prepared.manifest().fingerprint, other.manifest().fingerprint);
    let all = folder_of(&files, |settings| Dataset { test_fraction: 0.0, ..settings }).unwrap();
    assert_eq!((all.manifest().train_images, all.manifest().test_images), (20, 0));
}

#[test]
fn every_format_is_read() {
    let red = flat(20, 16, RED);
    let half = DynamicImage::from(image::RgbaImage::from_pixel(9, 9, image::Rgba([0, 0, 0, 128])));
    let cases: Vec<(&str, Vec<u8>, [u8; 3])> = vec![
        ("jpg", encode(&red, ImageFormat::Jpeg), RED),
        ("png", encode(&red, ImageFormat::Png), RED),
        ("bmp", encode(&red, ImageFormat::Bmp), RED),
        ("webp", encode(&red, ImageFormat::WebP), RED),
        ("png", encode(&red.to_rgb16().into(), ImageFormat::Png), RED),
        (
            "png",
            encode(&DynamicImage::from(image::GrayImage::from_pixel(9, 9, image::Luma([77]))), ImageFormat::Png),
            [77; 3],
        ),
        (
            "jpg",
            encode(&DynamicImage::from(image::GrayImage::from_pixel(9, 9, image::Luma([77]))), ImageFormat::Jpeg),
            [77; 3],
        ),
        // Black of half opacity over white.
        ("png", encode(&half, ImageFormat::Png), [127; 3]),
        // The contents count, not the name.
        ("png", encode(&red, ImageFormat::Jpeg), RED),
        ("jpg", encode(&red, ImageFormat::WebP), RED),
        // As small and as narrow as can be.
        ("png", encode(&flat(1, 1, RED), ImageFormat::Png), RED),
        ("png", encode(&flat(20_000, 1, RED), ImageFormat::Png), RED),
        ("jpg", encode(&flat(3, 2_000, RED), ImageFormat::Jpeg), RED),
        ("png", include_bytes!("palette.png").to_vec(), [255, 0, 0]),
        ("jpg", include_bytes!("cmyk.jpg").to_vec(), [255, 0, 0]),
    ];
    for (number, (ending, bytes, expected)) in cases.into_iter().enumerate() {
        let mut files = good();
        files.push((format!("test/zebra/x.{ending}"), bytes.clone()));
        files.push((format!("train/zebra/x.{ending}"), bytes));
        let prepared = folder_of(&files, |settings| settings).unwrap();
        assert!(is(prepared.image(4), expected), "case {number}: {:?}", color(prepared.image(4)));
        let gray = folder_of(&files, |settings| Dataset { color: Some(Color::Gray), ..settings }).unwrap();
        let [r, g, b] = expected.map(f64::from);
        let luma = (0.299 * r + 0.587 * g + 0.114 * b).round() as u8;
        assert!(close(gray.image(4)[30], luma), "case {number} in gray: {} for {luma}", gray.image(4)[30]);
    }
}

#[test]
fn exif_orientation_is_applied() {
    // Left half red, right half blue; orientation 6 says: turn clockwise, so red comes to the top.
    let mut image = image::RgbImage::from_pixel(16, 16, image::Rgb(RED));
    image.enumerate_pixels_mut().filter(|(x, ..)| *x >= 8).for_each(|(.., pixel)| *pixel = image::Rgb(BLUE));
    let plain = encode(&image.into(), ImageFormat::Jpeg);
    let tiff =
        [b"Exif\0\0II*\0\x08\0\0\0\x01\0".as_slice(), &[0x12, 0x01, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]].concat();
    let mut turned = vec![0xff, 0xd8, 0xff, 0xe1];
    turned.extend((tiff.len() as u16 + 2).to_be_bytes());
    turned.extend(tiff);
    turned.extend(&plain[2..]);
    let files = vec![("train/a/x.jpg".to_string(), turned), ("train/b/x.jpg".to_string(), plain)];
    let prepared = folder_of(&files, |settings| Dataset { image_size: Some(16), ..settings }).unwrap();
    let red = |image: &[u8], x: usize, y: usize| image[y * 16 + x] > 120;
    let [turned, plain] = [prepared.image(0), prepared.image(1)];
    assert!(red(plain, 2, 2) && red(plain, 2, 13) && !red(plain, 13, 2) && !red(plain, 13, 13));
    assert!(red(turned, 2, 2) && red(turned, 13, 2) && !red(turned, 2, 13) && !red(turned, 13, 13));
}

/// Files that are no images, each with what must be said of it.
fn broken() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let whole = jpeg(40, 40, RED);
    let png = encode(&flat(40, 40, RED), ImageFormat::Png);
    let mut bomb = png.clone();
    // 60,000 × 60,000 pixels, by the header.
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    vec![
        ("zero.jpg", Vec::new(), "empty file"),
        ("half.jpg", whole[..whole.len() / 2].to_vec(), "truncated JPEG"),
        ("start.jpg", whole[..3].to_vec(), "truncated JPEG"),
        ("half.png", png[..png.len() / 2].to_vec(), "corrupt image"),
        ("half.webp", encode(&flat(40, 40, RED), ImageFormat::WebP)[..30].to_vec(), "corrupt image"),
        ("half.bmp", encode(&flat(40, 40, RED), ImageFormat::Bmp)[..300].to_vec(), "corrupt image"),
        ("text.jpg", b"hello".to_vec(), "not a JPEG, PNG, BMP or WebP image: it starts with 68 65 6c 6c"),
        ("moving.gif", b"GIF89a".to_vec(), "not a JPEG, PNG, BMP or WebP image"),
        ("bomb.png", bomb, "corrupt image"),
    ]
}

#[test]
fn a_broken_file_is_refused_with_its_path_or_skipped_and_listed() {
    for (name, bytes, reason) in broken() {
        let mut files = good();
        files.push((format!("train/red/{name}"), bytes));
        let message = folder_of(&files, |settings| settings).unwrap_err();
        assert!(message.contains(name) && message.contains("dataset.on_broken"), "{message}");
        let prepared = folder_of(&files, skipping).unwrap();
        let [broken] = &prepared.manifest().broken[..] else { panic!("{name}: {:?}", prepared.manifest().broken) };
        assert_eq!(broken.path, format!("train/red/{name}"));
        if name != "bomb.png" {
            assert!(broken.reason.contains(reason), "{name}: {}", broken.reason);
        }
        assert_eq!((prepared.labels(Part::Train), prepared.labels(Part::Test)), (&[0, 0, 1, 1][..], &[0, 1][..]));
    }
    // Skipping many at once leaves exactly the good set.
    let mut files = good();
    files.extend(
        broken()
            .into_iter()
            .enumerate()
            .map(|(n, (name, bytes, _))| (format!("{}/{name}", ["train/blue", "test/red", "train/red"][n % 3]), bytes)),
    );
    let prepared = folder_of(&files, skipping).unwrap();
    assert_eq!(prepared.manifest().broken.len(), broken().len());
    assert_eq!(prepared.manifest().fingerprint, folder_of(&good(), skipping).unwrap().manifest().fingerprint);
    prepared.verify().unwrap();
}

#[test]
fn hostile_layouts_get_one_clear_message() {
    let red = jpeg(8, 8, RED);
    let refusal = |change: &dyn Fn(&mut Files)| {
        let mut files = good();
        change(&mut files);
        folder_of(&files, |settings| settings).unwrap_err()
    };
    let text = refusal(&|files| files.push(("train/red/x.jpg/inner.txt".into(), b"x".to_vec())));
    assert!(text.contains("x.jpg: a folder with the name of an image"), "{text}");
    let text = refusal(&|files| files.push(("train/empty/notes.txt".into(), b"x".to_vec())));
    assert!(text.contains("class \"empty\" has no training image"), "{text}");
    let text = refusal(&|files| files.push(("test/green/x.jpg".into(), red.clone())));
    assert!(text.contains("class \"green\" is tested but has no training image"), "{text}");
    let text = refusal(&|files| files.push(("train/stray.jpg".into(), red.clone())));
    assert!(text.contains("stray.jpg: an image outside of every class folder"), "{text}");
    let text = refusal(&|files| *files = vec![("a.jpg".into(), red.clone())]);
    assert!(text.contains("no images found but a.jpg: an image outside of every class folder; they are"), "{text}");
    let text = refusal(&|files| files.clear());
    assert!(text.contains("no such file or folder") || text.contains("no images found"), "{text}");
    let text = refusal(&|files| {
        files.iter_mut().for_each(|(name, _)| *name = name.replace(".jpg", ".txt").replace(".JPEG", ".md"))
    });
    assert!(text.contains("has no training image") || text.contains("no images found"), "{text}");
    let text = refusal(&|files| files.retain(|(name, _)| !name.starts_with("train/blue")));
    assert!(text.contains("class \"blue\""), "{text}");
    let text = folder_of(&[good(), vec![("train/red/c.jpg".into(), jpeg(9, 9, RED))]].concat(), |settings| Dataset {
        image_size: None,
        ..settings
    })
    .unwrap_err();
    assert!(text.starts_with("dataset.image_size: is needed, because the images differ in size"), "{text}");
}

#[test]
fn hostile_archives_write_nothing_and_are_named() {
    let red = jpeg(8, 8, RED);
    let attempt = |bytes: Vec<u8>, on_broken| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/set.tar");
        fs::create_dir(folder.path().join("deep")).unwrap();
        fs::write(&path, bytes).unwrap();
        let cache = folder.path().join("deep/cache");
        let result = prepare(&Dataset { on_broken, ..settings(&path) }, &cache, &|_| {});
        let names =
            |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!(names(folder.path()), ["deep"], "nothing is written outside of the cache");
        assert_eq!(names(&folder.path().join("deep")).len(), 2);
        result.map(|prepared| (prepared.len(), prepared.manifest().broken.clone())).map_err(|error| error.to_string())
    };
    for evil in ["../../evil.jpg", "/tmp/evil.jpg", "train/red/../../../evil.jpg"] {
        let mut files = good();
        files.push((evil.to_string(), red.clone()));
        let text = attempt(tar(&files), OnBroken::Refuse).unwrap_err();
        assert!(text.contains("evil.jpg: a path that leads out of the archive"), "{text}");
        let (images, broken) = attempt(tar(&files), OnBroken::Skip).unwrap();
        assert_eq!((images, broken.len()), (6, 1));
    }
    let mut linked = tar::Builder::new(Vec::new());
    for (name, bytes) in good() {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        linked.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    linked.append_link(&mut header, "train/red/link.jpg", "/etc/passwd").unwrap();
    let text = attempt(linked.into_inner().unwrap(), OnBroken::Refuse).unwrap_err();
    assert!(text.contains("link.jpg: a link, which is not followed"), "{text}");
    let mut twice = good();
    twice.push(twice[0].clone());
    let text = attempt(tar(&twice), OnBroken::Skip).unwrap_err();
    assert!(text.contains("b.jpg: twice in the archive"), "{text}");
    let whole = tar(&good());
    let text = attempt(whole[..900].to_vec(), OnBroken::Skip).unwrap_err();
    assert!(text.contains("set.tar: truncated or corrupt archive"), "{text}");
    let text = attempt(b"PK\x03\x04 a zip".repeat(100), OnBroken::Skip).unwrap_err();
    assert!(text.contains("neither a folder nor a .tar or .tar.gz"), "{text}");
    let text = attempt(Vec::new(), OnBroken::Skip).unwrap_err();
    assert!(text.contains("neither a folder nor a .tar or .tar.gz"), "{text}");
}

#[test]
fn a_changed_file_is_noticed() {
    let folder = write(&good());
    let settings = settings(&folder.path().join("set"));
    let cache = folder.path().join("cache");
    let first = prepare(&settings, &cache, &|_| {}).unwrap();
    fs::write(folder.path().join("set/train/red/b.jpg"), jpeg(21, 16, BLUE)).unwrap();
    assert!(dataset::find(&settings, &cache).unwrap().is_none());
    let second = prepare(&settings, &cache, &|_| {}).unwrap();
    assert_ne!(first.manifest().fingerprint, second.manifest().fingerprint);
    assert!(is(second.image(3), BLUE));
}
