//! Image files outside of a data set.

use std::{fs, path::Path};

use dataset::{Loader, Part, Preprocessing, prepare};
use plan::{Augment, Color, Dataset, Source};

/// Two classes of a few smooth pictures in three sizes, for training and for the test.
fn write_pictures(folder: &Path) {
    for (label, class) in ["a", "b"].into_iter().enumerate() {
        for (part, count) in [("train", 4), ("test", 2)] {
            let folder = folder.join(part).join(class);
            fs::create_dir_all(&folder).unwrap();
            for i in 0..count {
                let (width, height) = [(64, 48), (30, 80), (36, 36)][i % 3];
                let picture = image::RgbImage::from_fn(width, height, |x, y| {
                    image::Rgb([(x * 3) as u8, (y * 2 + label as u32 * 90) as u8, ((x + y) * (i as u32 + 1)) as u8])
                });
                picture.save(folder.join(format!("{i}.png"))).unwrap();
            }
        }
    }
}

#[test]
fn a_file_becomes_what_the_data_set_made_of_it() {
    for (color, crop) in [(Color::Rgb, Some(24)), (Color::Rgb, None), (Color::Gray, Some(31))] {
        let folder = tempfile::tempdir().unwrap();
        let set = folder.path().join("set");
        write_pictures(&set);
        let settings = Dataset {
            source: Source::Images,
            path: Some(set.clone()),
            image_size: Some(36),
            color: Some(color),
            ..Dataset::default()
        };
        let prepared = prepare(&settings, &folder.path().join("cache"), &|_| {}).unwrap();
        let loader = Loader::new(&prepared, &Augment { crop, ..Augment::default() }).unwrap();
        let (c, h, w) = loader.input_size();
        let manifest = prepared.manifest();
        let image = [manifest.height, manifest.width];
        let preprocessing = Preprocessing::new(image, [c, h, w], &manifest.mean, &manifest.std).unwrap();
        assert_eq!(preprocessing.sample_values(), loader.sample_values());
        let files = ["test/a/0.png", "test/a/1.png", "test/b/0.png", "test/b/1.png"];
        for (index, file) in prepared.indices(Part::Test).zip(files) {
            let (mut expected, mut got) = (vec![0.0; loader.sample_values()], vec![0.0; loader.sample_values()]);
            loader.evaluation_sample(index, &mut expected);
            preprocessing.sample(&set.join(file), &mut got).unwrap();
            assert!(expected.iter().any(|&value| value != expected[0]), "{file} is not flat");
            assert_eq!(got, expected, "{file}, {color:?}, {crop:?}");
        }
    }
}

#[test]
fn what_is_no_image_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let preprocessing = Preprocessing::new([8, 8], [1, 8, 8], &[0.5], &[0.25]).unwrap();
    let mut sample = vec![0.0; 64];
    let text = folder.path().join("notes.png");
    fs::write(&text, "words").unwrap();
    let error = preprocessing.sample(&text, &mut sample).unwrap_err().to_string();
    assert!(error.contains("notes.png") && error.contains("not a JPEG"), "{error}");
    let missing = preprocessing.sample(&folder.path().join("none.png"), &mut sample).unwrap_err().to_string();
    assert!(missing.contains("none.png"), "{missing}");
}

#[test]
fn only_squares_are_cut_out_of_any_image() {
    let folder = tempfile::tempdir().unwrap();
    let preprocessing = Preprocessing::new([4, 6], [3, 4, 6], &[0.0; 3], &[1.0; 3]).unwrap();
    let mut sample = vec![0.0; 72];
    let right = folder.path().join("right.png");
    image::RgbImage::from_pixel(6, 4, image::Rgb([255, 0, 51])).save(&right).unwrap();
    preprocessing.sample(&right, &mut sample).unwrap();
    for (channel, value) in [1.0, 0.0, 0.2].into_iter().enumerate() {
        assert!((sample[channel * 24] - value).abs() < 1e-6, "channel {channel}: {}", sample[channel * 24]);
    }
    let other = folder.path().join("other.png");
    image::RgbImage::new(6, 6).save(&other).unwrap();
    let error = preprocessing.sample(&other, &mut sample).unwrap_err().to_string();
    assert!(error.contains("other.png: has 6×6 pixels") && error.contains("6×4"), "{error}");
    assert!(Preprocessing::new([4, 4], [3, 4, 4], &[0.0], &[1.0]).is_err());
}
