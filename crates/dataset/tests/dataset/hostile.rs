//! Image files and archives that were made to trip a reader up, and what honest tools write that few readers expect.

use std::{fs, io::Write, os::unix, path::Path};

use dataset::{
    Part, Preprocessing, prepare,
    rng::{Counter, Purpose},
};
use image::{DynamicImage, ImageFormat};
use plan::{Dataset, OnBroken};

use crate::{
    damage::damaged,
    images::{BLUE, Files, RED, encode, flat, folder_of, good, is, jpeg, settings, skipping, tar, write},
};

const PROGRESSIVE: &[u8] = include_bytes!("progressive.jpg");

/// One chunk of a PNG.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(data);
    [&(data.len() as u32).to_be_bytes()[..], kind, data, &crc.sum().to_be_bytes()].concat()
}

/// A PNG of `depth` bits and a kind of colour, with chunks before the pixels; each of `rows` without its filter byte.
fn png(width: u32, depth: u8, color: u8, before: &[u8], rows: &[&[u8]]) -> Vec<u8> {
    let size = [width.to_be_bytes(), (rows.len() as u32).to_be_bytes()].concat();
    let header = [&size[..], &[depth, color, 0, 0, 0]].concat();
    let mut pixels = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    rows.iter().for_each(|row| pixels.write_all(&[&[0], *row].concat()).unwrap());
    let pixels = pixels.finish().unwrap();
    let chunks = [chunk(b"IHDR", &header), before.to_vec(), chunk(b"IDAT", &pixels), chunk(b"IEND", &[])];
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunks.concat()].concat()
}

/// The same of so many equal rows.
fn same(width: u32, depth: u8, color: u8, before: &[u8], row: &[u8], rows: usize) -> Vec<u8> {
    png(width, depth, color, before, &vec![row; rows])
}

/// EXIF data that say nothing but how the image is to be turned.
fn exif(orientation: u8, little_endian: bool) -> Vec<u8> {
    if little_endian {
        [&b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"[..], &[orientation, 0, 0, 0, 0, 0, 0, 0]].concat()
    } else {
        [&b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01"[..], &[0, orientation, 0, 0, 0, 0, 0, 0]].concat()
    }
}

/// What a network sees of an image file, in gray values; an error must name the file.
fn gray(name: &str, bytes: &[u8], side: usize) -> Result<Vec<u8>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let preprocessing = Preprocessing::new([side, side], [1, side, side], &[0.0], &[1.0]).unwrap();
    let mut sample = vec![f32::NAN; side * side];
    preprocessing.sample(&path, &mut sample).map_err(|error| {
        let text = error.to_string();
        assert!(text.starts_with(&format!("{}: ", path.display())), "{text}");
        text
    })?;
    Ok(sample.into_iter().map(|value| (value * 255.0).round() as u8).collect())
}

/// Dark at the top, light at the bottom, with one light corner: no two ways to turn it look alike.
fn lopsided() -> DynamicImage {
    image::GrayImage::from_fn(16, 16, |x, y| image::Luma([if y >= 8 || x >= 8 && y < 4 { 220 } else { 20 }])).into()
}

#[test]
fn every_orientation_of_exif_is_applied_in_every_format_that_has_it() {
    let plain = gray("plain.png", &encode(&lopsided(), ImageFormat::Png), 16).unwrap();
    let at = |x: usize, y: usize| plain[y * 16 + x];
    for orientation in 1..=8 {
        // Where the pixel (x, y) of the upright image lies in the stored one (EXIF 2.3, tag 274).
        let upright: Vec<u8> = (0..256)
            .map(|i| (i % 16, i / 16))
            .map(|(x, y)| match orientation {
                1 => at(x, y),
                2 => at(15 - x, y),
                3 => at(15 - x, 15 - y),
                4 => at(x, 15 - y),
                5 => at(y, x),
                6 => at(y, 15 - x),
                7 => at(15 - y, 15 - x),
                _ => at(15 - y, x),
            })
            .collect();
        for little_endian in [true, false] {
            let exif = exif(orientation, little_endian);
            let jpeg = encode(&lopsided(), ImageFormat::Jpeg);
            let length = (exif.len() as u16 + 8).to_be_bytes();
            let app1 = [&[0xff, 0xe1], &length[..], b"Exif\0\0", &exif].concat();
            let turned = gray("x.jpg", &[&jpeg[..2], &app1, &jpeg[2..]].concat(), 16).unwrap();
            assert!(turned.iter().zip(&upright).all(|(a, b)| a.abs_diff(*b) < 30), "JPEG, orientation {orientation}");
            let rows: Vec<&[u8]> = plain.chunks_exact(16).collect();
            let turned = gray("x.png", &png(16, 8, 0, &chunk(b"eXIf", &exif), &rows), 16).unwrap();
            assert_eq!(turned, upright, "PNG, orientation {orientation}");
        }
    }
    // An orientation that does not exist turns nothing.
    let rows: Vec<&[u8]> = plain.chunks_exact(16).collect();
    assert_eq!(gray("x.png", &png(16, 8, 0, &chunk(b"eXIf", &exif(9, true)), &rows), 16).unwrap(), plain);
}

#[test]
fn pngs_of_every_depth_and_kind_are_read() {
    let wide = |values: [u16; 4]| values.map(u16::to_be_bytes).concat();
    let palette = [chunk(b"PLTE", &[200, 30, 40, 20, 60, 210]), chunk(b"tRNS", &[255, 0])].concat();
    let cases: [(&str, Vec<u8>, [u8; 4]); 8] = [
        // To the nearest of 256 steps: 0x7fff is below the middle between 127 and 128, 0x8000 above.
        ("gray 16", same(4, 16, 0, &[], &wide([0, 0x7fff, 0x8000, 0xffff]), 4), [0, 127, 128, 255]),
        ("gray and opacity 16", same(2, 16, 4, &[], &wide([0x1234, 0, 0x4000, 0xffff]), 2), [255, 64, 255, 64]),
        ("gray 1", same(4, 1, 0, &[], &[0b0110_0000], 4), [0, 255, 255, 0]),
        ("gray 2", same(4, 2, 0, &[], &[0b0001_1011], 4), [0, 85, 170, 255]),
        ("gray 4", same(4, 4, 0, &[], &[0x0f, 0x3c], 4), [0, 255, 51, 204]),
        // The second colour of the palette is transparent: white shines through.
        ("palette", same(4, 1, 3, &palette, &[0b0101_0000], 4), [82, 255, 82, 255]),
        ("gray, one value transparent", same(4, 8, 0, &chunk(b"tRNS", &[0, 7]), &[7, 8, 9, 7], 4), [255, 8, 9, 255]),
        ("colour and opacity", same(2, 8, 6, &[], &[0, 0, 0, 51, 9, 9, 9, 0], 2), [204, 255, 204, 255]),
    ];
    for (name, bytes, expected) in cases {
        let side = if name.contains("opacity") { 2 } else { 4 };
        assert_eq!(gray("x.png", &bytes, side).unwrap()[..4], expected, "{name}");
    }
}

#[test]
fn progressive_jpegs_are_read_and_their_cuts_are_refused() {
    let whole = gray("x.jpg", PROGRESSIVE, 8).unwrap();
    assert!(whole.iter().all(|value| value.abs_diff(82) <= 3), "{whole:?}");
    for length in 0..PROGRESSIVE.len() - 1 {
        assert!(gray("x.jpg", &PROGRESSIVE[..length], 8).is_err(), "the first {length} bytes");
    }
}

#[test]
fn cut_files_are_refused_or_whole_whatever_the_format_and_the_cut() {
    let image = DynamicImage::from(image::RgbImage::from_fn(24, 24, |x, y| image::Rgb([x as u8 * 9, y as u8 * 9, 70])));
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
        let bytes = encode(&image, format);
        let whole = gray("x.png", &bytes, 12).unwrap();
        for length in (0..bytes.len()).step_by(bytes.len().div_ceil(300)).chain(bytes.len() - 30..bytes.len()) {
            // What is missing may be of no use, such as the empty last chunk of a PNG.
            if let Ok(values) = gray("x.png", &bytes[..length], 12) {
                assert_eq!(values, whole, "{format:?}, the first {length} of {} bytes", bytes.len());
            }
        }
        let half = gray("x.png", &bytes[..bytes.len() / 2], 12).unwrap_err();
        assert!(half.contains("truncated") || half.contains("corrupt"), "{half}");
    }
}

#[test]
fn damaged_files_are_decoded_or_refused_and_nothing_worse() {
    let image = DynamicImage::from(image::RgbImage::from_fn(24, 24, |x, y| image::Rgb([x as u8 * 9, y as u8 * 9, 70])));
    let formats = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP];
    let mut files: Vec<Vec<u8>> = formats.into_iter().map(|format| encode(&image, format)).collect();
    files.extend([PROGRESSIVE.to_vec(), include_bytes!("cmyk.jpg").to_vec(), include_bytes!("palette.png").to_vec()]);
    files.push(include_bytes!("../pillow/420.jpg").to_vec());
    files.push(include_bytes!("../pillow/restarts.jpg").to_vec());
    files.push(include_bytes!("../pillow/turned.jpg").to_vec());
    let mut random = Counter::new(1, Purpose::Other, 0, 0);
    let (mut decoded, mut refused) = (0, 0);
    for file in &files {
        for _ in 0..150 {
            match gray("x.png", &damaged(file, 40, &mut random), 12) {
                Ok(values) => decoded += usize::from(values.len() == 144),
                Err(text) => {
                    assert!(!text.contains("panicked"), "{text}");
                    refused += 1;
                }
            }
        }
    }
    assert_eq!(decoded + refused, 150 * files.len());
    assert!(decoded > 100 && refused > 100, "{decoded} decoded, {refused} refused");
}

#[test]
fn sizes_are_read_from_1_to_the_formats_largest_and_0_is_refused() {
    for (width, height) in [(1, 1), (20_000, 1), (1, 20_000), (60_000, 2)] {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp] {
            let values = gray("x.png", &encode(&flat(width, height, RED), format), 3).unwrap();
            assert!(values.iter().all(|value| value.abs_diff(82) <= 2), "{width}×{height} {format:?}: {values:?}");
        }
    }
    let empty = gray("x.png", &png(0, 8, 0, &[], &[]), 3).unwrap_err();
    assert!(empty.contains("corrupt image") || empty.contains("0×0 pixels"), "{empty}");
    let mut none = jpeg(8, 8, RED);
    let frame = none.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    none[frame + 5..frame + 9].fill(0);
    assert!(gray("x.jpg", &none, 3).is_err());
    // 65,535 × 65,535 pixels, by the header: refused before memory is taken.
    none[frame + 5..frame + 9].fill(0xff);
    let huge = gray("x.jpg", &none, 3).unwrap_err();
    assert!(huge.contains("65535×65535 pixels, more than the"), "{huge}");
}

/// A tar of the good files, and more entries: kind, name, target of a link, contents.
fn archive(more: &[(tar::EntryType, &str, &str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in good() {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    for &(kind, name, target, bytes) in more {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Prepares the archive `name` in a folder of its own, and looks whether anything was written beside the cache.
fn prepared_from(name: &str, bytes: &[u8], on_broken: OnBroken) -> Result<dataset::Prepared, String> {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("a/b");
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join(name), bytes).unwrap();
    let result = prepare(&Dataset { on_broken, ..settings(&inner.join(name)) }, &inner.join("cache"), &|_| {});
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(folder.path()), ["a"]);
    assert_eq!(names(&folder.path().join("a")), ["b"]);
    assert_eq!(names(&inner), ["cache", name], "nothing is written outside of the cache");
    result.map_err(|error| error.to_string())
}

#[test]
fn links_and_devices_in_archives_are_never_followed() {
    use tar::EntryType;
    let red = jpeg(8, 8, RED);
    let cases: [(EntryType, &str, &str, &str); 7] = [
        (EntryType::Symlink, "train/red/x.jpg", "/etc/passwd", "a link, which is not followed in archives"),
        (EntryType::Symlink, "train/red/x.jpg", "../red/a.JPEG", "a link, which is not followed in archives"),
        (EntryType::Link, "train/red/x.jpg", "/etc/passwd", "a link, which is not followed in archives"),
        (EntryType::Link, "train/red/x.jpg", "train/red/a.JPEG", "a link, which is not followed in archives"),
        (EntryType::Fifo, "train/red/x.jpg", "", "not a plain file"),
        (EntryType::Char, "train/red/x.jpg", "", "not a plain file"),
        (EntryType::Directory, "train/red/x.jpg/", "", "a folder with the name of an image"),
    ];
    for (kind, name, target, reason) in cases {
        let bytes = archive(&[(kind, name, target, b"")]);
        let text = prepared_from("set.tar", &bytes, OnBroken::Refuse).unwrap_err();
        assert!(text.contains("a/b/set.tar/train/red/x.jpg: ") && text.contains(reason), "{text}");
        let prepared = prepared_from("set.tar", &bytes, OnBroken::Skip).unwrap();
        assert_eq!((prepared.len(), prepared.manifest().broken.len()), (6, 1));
        assert!(prepared.manifest().broken[0].reason.contains(reason));
    }
    // A folder that is a link, and a file through it: the file counts by its name, and nothing is written through the link.
    let through =
        [(EntryType::Symlink, "train/green", "../..", &b""[..]), (EntryType::Regular, "train/green/x.jpg", "", &red)];
    let prepared = prepared_from("set.tar", &archive(&through), OnBroken::Refuse).unwrap();
    assert_eq!(prepared.manifest().classes, ["blue", "green", "red"]);
}

#[test]
fn names_that_lead_out_are_seen_in_long_and_extended_headers_too() {
    let red = jpeg(8, 8, RED);
    let long = format!("train/red/{}/../../../../../evil.jpg", "d".repeat(120));
    let mut path = format!("path={long}\n");
    path = format!("{} {path}", path.len() + 4);
    let entries: [(tar::EntryType, &str, &[u8]); 2] = [
        (tar::EntryType::GNULongName, "././@LongLink", long.as_bytes()),
        (tar::EntryType::XHeader, "pax", path.as_bytes()),
    ];
    for (kind, name, contents) in entries {
        let bytes = archive(&[(kind, name, "", contents), (tar::EntryType::Regular, "train/red/x.jpg", "", &red)]);
        let text = prepared_from("set.tar", &bytes, OnBroken::Refuse).unwrap_err();
        assert!(text.contains("evil.jpg: a path that leads out of the archive"), "{kind:?}: {text}");
        assert_eq!(prepared_from("set.tar", &bytes, OnBroken::Skip).unwrap().len(), 6);
    }
}

#[test]
fn names_count_once_however_they_are_written_and_case_tells_them_apart() {
    let mut twice = good();
    twice.push(("./train/./red/a.JPEG".into(), jpeg(8, 8, RED)));
    let text = prepared_from("set.tar", &tar(&twice), OnBroken::Skip).unwrap_err();
    assert!(text.contains("train/red/a.JPEG: twice in the archive"), "{text}");
    // Some file systems take these for one; here they are two images, and two classes.
    let mut cased = good();
    cased.push(("train/red/A.jpeg".into(), jpeg(8, 8, RED)));
    cased.push(("train/Red/a.JPEG".into(), jpeg(8, 8, BLUE)));
    let from_archive = prepared_from("set.tar", &tar(&cased), OnBroken::Refuse).unwrap();
    let from_folder = folder_of(&cased, |settings| settings).unwrap();
    assert_eq!(from_archive.manifest().classes, ["Red", "blue", "red"]);
    assert_eq!(from_archive.labels(Part::Train), [0, 1, 1, 2, 2, 2]);
    assert_eq!(from_archive.manifest().fingerprint, from_folder.manifest().fingerprint);
}

#[test]
fn a_class_without_an_image_is_named() {
    let empty = archive(&[(tar::EntryType::Directory, "train/empty/", "", b"")]);
    let text = prepared_from("set.tar", &empty, OnBroken::Skip).unwrap_err();
    assert!(text.contains("set.tar: class \"empty\" has no training image"), "{text}");
    let folder = write(&good());
    fs::create_dir(folder.path().join("set/train/empty")).unwrap();
    let text = prepare(&settings(&folder.path().join("set")), &folder.path().join("cache"), &|_| {}).unwrap_err();
    assert!(text.to_string().contains("set: class \"empty\" has no training image"), "{text}");
    let broken = [good(), vec![("train/green/x.jpg".into(), Vec::new())]].concat();
    let text = folder_of(&broken, skipping).unwrap_err();
    assert!(text.contains("class \"green\" has no training image that can be read"), "{text}");
}

#[test]
fn damaged_archives_are_named() {
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zipped.write_all(&tar(&good())).unwrap();
    let zipped = zipped.finish().unwrap();
    for cut in [20, zipped.len() / 2, zipped.len() - 9] {
        let text = prepared_from("set.tar.gz", &zipped[..cut], OnBroken::Skip).unwrap_err();
        assert!(text.contains("set.tar.gz: truncated or corrupt archive"), "{cut}: {text}");
    }
    let mut flipped = zipped.clone();
    flipped[zipped.len() - 6] ^= 1;
    let text = prepared_from("set.tar.gz", &flipped, OnBroken::Skip).unwrap_err();
    assert!(text.contains("set.tar.gz: truncated or corrupt archive"), "{text}");
    // A gigabyte, by the header.
    let mut claims = tar(&good());
    let mut header = tar::Header::from_byte_slice(&claims[..512]).clone();
    header.set_size(1 << 30);
    header.set_cksum();
    claims[..512].copy_from_slice(header.as_bytes());
    let text = prepared_from("set.tar", &claims, OnBroken::Skip).unwrap_err();
    assert!(text.contains("set.tar: truncated or corrupt archive"), "{text}");
}

#[test]
fn a_folder_s_links_circles_and_pipes_are_named() {
    let attempt = |change: &dyn Fn(&Path)| {
        let folder = write(&good());
        change(&folder.path().join("set"));
        prepare(&settings(&folder.path().join("set")), &folder.path().join("cache"), &|_| {})
            .map(|prepared| prepared.len())
            .map_err(|error| error.to_string())
    };
    let text = attempt(&|set| unix::fs::symlink("nowhere.jpg", set.join("train/red/x.jpg")).unwrap()).unwrap_err();
    assert!(text.contains("train/red/x.jpg: cannot be read: "), "{text}");
    let text = attempt(&|set| unix::fs::symlink("x.jpg", set.join("train/red/x.jpg")).unwrap()).unwrap_err();
    assert!(text.contains("train/red/x.jpg: cannot be read: "), "{text}");
    let text = attempt(&|set| unix::fs::symlink("..", set.join("train/red/round")).unwrap()).unwrap_err();
    assert!(text.contains("folders more than 6 deep: links in a circle?"), "{text}");
    // Reading from it would wait for ever.
    let text = attempt(&|set| drop(unix::net::UnixListener::bind(set.join("train/red/x.jpg")).unwrap())).unwrap_err();
    assert!(text.contains("train/red/x.jpg: not a plain file"), "{text}");
    // A link to an image is the image.
    assert_eq!(attempt(&|set| unix::fs::symlink("a.JPEG", set.join("train/red/x.jpg")).unwrap()), Ok(7));
}

#[test]
fn parts_under_other_names_are_not_taken_for_classes() {
    for (train, test) in [("Train", "Test"), ("training", "testing"), ("TRAIN", "VAL")] {
        let files: Files = good()
            .into_iter()
            .map(|(name, bytes)| {
                (name.replace("train/", &format!("{train}/")).replace("test/", &format!("{test}/")), bytes)
            })
            .collect();
        let text = folder_of(&files, |settings| settings).unwrap_err();
        assert!(
            text.contains(&format!("the folders {test}, {train} look like parts"))
                || text.contains(&format!("the folders {train}, {test} look like parts")),
            "{text}"
        );
        assert!(text.contains("called train and test"), "{text}");
    }
    // A class may well be called so among others.
    let mut files: Files = (0..4).map(|n| (format!("Train/{n}.jpg"), jpeg(8, 8, RED))).collect();
    files.extend((0..4).map(|n| (format!("bus/{n}.jpg"), jpeg(8, 8, BLUE))));
    assert_eq!(folder_of(&files, |settings| settings).unwrap().manifest().classes, ["Train", "bus"]);
}

#[test]
fn a_class_whose_name_is_no_text_is_named() {
    use std::os::unix::ffi::OsStrExt;
    let folder = write(&good());
    // Shown with a replacement character, both names would be one.
    for name in [b"caf\xe9", b"caf\xe8"] {
        let class = folder.path().join("set/train").join(std::ffi::OsStr::from_bytes(name));
        fs::create_dir(&class).unwrap();
        fs::write(class.join("x.jpg"), jpeg(8, 8, BLUE)).unwrap();
    }
    let text = prepare(&settings(&folder.path().join("set")), &folder.path().join("cache"), &|_| {}).unwrap_err();
    assert!(text.to_string().contains("the class's name is not UTF-8"), "{text}");
}

#[test]
fn what_colours_a_file_holds_is_seen_by_its_contents() {
    let files: Files = vec![
        ("train/cmyk/x.png".into(), include_bytes!("cmyk.jpg").to_vec()),
        ("train/palette/x.jpg".into(), include_bytes!("palette.png").to_vec()),
        ("train/progressive/x.bmp".into(), PROGRESSIVE.to_vec()),
        ("train/progressive/no-ending".into(), PROGRESSIVE.to_vec()),
        ("train/progressive/image.txt".into(), PROGRESSIVE.to_vec()),
    ];
    let prepared = folder_of(&files, |settings| settings).unwrap();
    assert!(is(prepared.image(0), [255, 0, 0]) && is(prepared.image(1), [255, 0, 0]) && is(prepared.image(2), RED));
    assert_eq!((prepared.len(), prepared.manifest().ignored_files), (3, 2), "files of other endings are passed over");
}
