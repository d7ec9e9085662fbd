//! Properties of the augmentation.

use dataset::{Draw, Loader, Prepared, Scratch};
use plan::{Augment, Color, Dataset, ResizedCrop};

use crate::{glyphs, prepared};

fn colored() -> (tempfile::TempDir, Prepared) {
    prepared(&Dataset { color: Some(Color::Rgb), image_size: Some(24), ..glyphs() })
}

fn sample(prepared: &Prepared, augment: &Augment, seed: u64, epoch: u32, index: u32) -> Vec<f32> {
    let loader = Loader::new(prepared, augment).unwrap();
    let mut image = vec![f32::NAN; loader.sample_values()];
    let draw = Draw { seed, epoch, label_smoothing: 0.0, partners: &[1, 2, 3] };
    loader.training_sample(index, &draw, &mut Scratch::default(), &mut image, &mut vec![0.0; loader.classes()]);
    image
}

fn plain(prepared: &Prepared, index: u32) -> Vec<f32> {
    sample(prepared, &Augment::default(), 0, 0, index)
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Back to [0, 1], per channel.
fn pixels(prepared: &Prepared, values: &[f32]) -> Vec<f64> {
    let manifest = prepared.manifest();
    let plane = values.len() / manifest.channels;
    values.iter().enumerate().map(|(i, &x)| f64::from(x) * manifest.std[i / plane] + manifest.mean[i / plane]).collect()
}

fn mirror(values: &[f32], width: usize) -> Vec<f32> {
    values.chunks_exact(width).flat_map(|row| row.iter().rev().copied()).collect()
}

/// Every augmentation alone, at a strength that shows.
fn each() -> Vec<(&'static str, Augment)> {
    let off = Augment::default;
    vec![
        ("crop", Augment { crop: Some(20), ..off() }),
        ("padded crop", Augment { pad: 3, ..off() }),
        ("resized crop", Augment { resized_crop: Some(ResizedCrop::default()), ..off() }),
        ("flip", Augment { flip: 0.5, ..off() }),
        ("rotation", Augment { rotation_degrees: 30.0, ..off() }),
        ("scale", Augment { scale: 0.3, ..off() }),
        ("shear", Augment { shear_degrees: 20.0, ..off() }),
        ("translate", Augment { translate: 0.2, ..off() }),
        ("brightness", Augment { brightness: 0.4, ..off() }),
        ("contrast", Augment { contrast: 0.4, ..off() }),
        ("saturation", Augment { saturation: 0.6, ..off() }),
        ("hue", Augment { hue: 0.3, ..off() }),
        ("pca", Augment { pca: 0.5, ..off() }),
        ("noise", Augment { noise: 0.1, ..off() }),
        ("cutout", Augment { cutout: 8, ..off() }),
        ("mixup", Augment { mixup: 0.5, ..off() }),
    ]
}

#[test]
fn equal_keys_give_equal_samples_and_other_keys_do_not() {
    let (_cache, prepared) = colored();
    for (name, augment) in each() {
        let all = |seed, first| -> Vec<f32> {
            (first..first + 8).flat_map(|epoch| sample(&prepared, &augment, seed, epoch, 5)).collect()
        };
        assert_eq!(all(1, 0), all(1, 0), "{name}");
        assert_ne!(all(1, 0), all(1, 8), "{name} must change with the epoch");
        assert_ne!(all(1, 0), all(2, 0), "{name} must change with the seed");
        assert!(all(1, 0).iter().all(|x| x.is_finite()), "{name}");
    }
}

#[test]
fn a_sample_does_not_depend_on_its_batch() {
    let (_cache, prepared) = colored();
    let augment =
        Augment { pad: 2, flip: 0.5, rotation_degrees: 10.0, hue: 0.1, noise: 0.05, mixup: 0.3, ..Augment::default() };
    let loader = Loader::new(&prepared, &augment).unwrap();
    let draw = Draw { seed: 4, epoch: 2, label_smoothing: 0.1, partners: &[7, 8, 9] };
    let fill = |indices: &[u32], scratch: &mut Scratch| {
        let mut images = vec![0.0; indices.len() * loader.sample_values()];
        let mut targets = vec![0.0; indices.len() * 10];
        loader.fill_training(indices, &draw, scratch, &mut images, &mut targets);
        (images, targets)
    };
    let mut scratch = Scratch::default();
    let (images, targets) = fill(&[3, 11, 40], &mut scratch);
    for (n, index) in [3, 11, 40].into_iter().enumerate() {
        let (image, target) = fill(&[index], &mut scratch);
        assert_eq!(image, images[n * image.len()..][..image.len()]);
        assert_eq!(target, targets[n * 10..][..10]);
        assert!((target.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}

#[test]
fn switching_one_on_does_not_move_the_draws_of_another() {
    let (_cache, prepared) = colored();
    let crop = Augment { crop: Some(16), flip: 0.5, ..Augment::default() };
    let quiet = Augment { rotation_degrees: 1e-9, brightness: 1e-9, noise: 1e-9, ..crop.clone() };
    for epoch in 0..20 {
        assert!(distance(&sample(&prepared, &crop, 3, epoch, 8), &sample(&prepared, &quiet, 3, epoch, 8)) < 2e-3);
    }
}

#[test]
fn strength_nearly_0_is_nearly_the_identity() {
    let (_cache, prepared) = colored();
    let tiny = 1e-9;
    let augment = Augment {
        rotation_degrees: tiny,
        scale: tiny,
        shear_degrees: tiny,
        translate: tiny,
        brightness: tiny,
        contrast: tiny,
        saturation: tiny,
        hue: tiny,
        pca: tiny,
        noise: tiny,
        ..Augment::default()
    };
    for index in 0..20 {
        assert!(distance(&sample(&prepared, &augment, 1, 0, index), &plain(&prepared, index)) < 2e-3);
    }
}

#[test]
fn a_flip_mirrors_and_two_flips_are_the_identity() {
    let (_cache, prepared) = colored();
    for augment in [
        Augment { flip: 1.0, ..Augment::default() },
        Augment { flip: 1.0, rotation_degrees: 1e-9, ..Augment::default() },
        Augment { flip: 1.0, hue: 1e-9, ..Augment::default() },
    ] {
        let flipped = sample(&prepared, &augment, 0, 0, 6);
        assert!(distance(&flipped, &plain(&prepared, 6)) > 0.1);
        assert!(distance(&mirror(&flipped, 24), &plain(&prepared, 6)) < 2e-3);
    }
    let exact = sample(&prepared, &Augment { flip: 1.0, ..Augment::default() }, 0, 0, 6);
    assert_eq!(mirror(&exact, 24), plain(&prepared, 6));
    // About half of the samples are flipped at one half.
    let half = Augment { flip: 0.5, ..Augment::default() };
    let flips = (0..200).filter(|&epoch| sample(&prepared, &half, 0, epoch, 6) != plain(&prepared, 6)).count();
    assert!((70..130).contains(&flips), "{flips} of 200");
}

#[test]
fn a_crop_is_a_window_of_the_image_and_reaches_every_place() {
    let (_cache, prepared) = colored();
    let whole = plain(&prepared, 9);
    let augment = Augment { crop: Some(22), ..Augment::default() };
    let mut seen = std::collections::BTreeSet::new();
    for epoch in 0..200 {
        let crop = sample(&prepared, &augment, 5, epoch, 9);
        let matches = |top: usize, left: usize| {
            (0..3).all(|c| {
                (0..22).all(|y| crop[(c * 22 + y) * 22..][..22] == whole[(c * 24 + top + y) * 24 + left..][..22])
            })
        };
        let places: Vec<_> = (0..9).map(|at| (at / 3, at % 3)).filter(|&(top, left)| matches(top, left)).collect();
        assert_eq!(places.len(), 1, "each crop lies in exactly one place");
        seen.insert(places[0]);
    }
    assert_eq!(seen.len(), 9);
    let loader = Loader::new(&prepared, &augment).unwrap();
    let mut center = vec![0.0; loader.sample_values()];
    loader.evaluation_sample(9, &mut center);
    assert_eq!(center[..22], whole[24 + 1..][..22]);
    let mut corner = vec![0.0; loader.sample_values()];
    loader.ten_crop_sample(9, 3, &mut corner);
    assert_eq!(corner[..22], whole[2 * 24 + 2..][..22]);
    loader.ten_crop_sample(9, 8, &mut corner);
    assert_eq!(mirror(&corner, 22)[..22], whole[2 * 24 + 2..][..22]);
}

/// A resized crop of the whole image, or of less.
fn resized(area: [f64; 2], ratio: [f64; 2]) -> Augment {
    Augment { resized_crop: Some(ResizedCrop { area, ratio }), ..Augment::default() }
}

#[test]
fn a_resized_crop_of_the_whole_image_is_the_identity() {
    let (_cache, prepared) = colored();
    let whole = resized([1.0, 1.0], [1.0, 1.0]);
    for epoch in 0..10 {
        assert_eq!(sample(&prepared, &whole, 2, epoch, 9), plain(&prepared, 9));
        // What comes after it, comes as without it.
        let follows = Augment { flip: 0.5, brightness: 0.2, rotation_degrees: 10.0, ..Augment::default() };
        let both = Augment { resized_crop: whole.resized_crop, ..follows.clone() };
        assert_eq!(sample(&prepared, &both, 2, epoch, 9), sample(&prepared, &follows, 2, epoch, 9));
    }
}

#[test]
fn a_resized_crop_shows_nothing_but_a_part_of_the_image() {
    let (_cache, prepared) = colored();
    // As many pixels as the sample: every crop is a window of the image, unscaled.
    let exact = Augment { crop: Some(12), ..resized([0.25, 0.25], [1.0, 1.0]) };
    let whole = plain(&prepared, 9);
    let mut seen = std::collections::BTreeSet::new();
    for epoch in 0..400 {
        let crop = sample(&prepared, &exact, 5, epoch, 9);
        let matches = |top: usize, left: usize| {
            (0..36).all(|row| {
                let (c, y) = (row / 12, row % 12);
                crop[row * 12..][..12] == whole[(c * 24 + top + y) * 24 + left..][..12]
            })
        };
        let place = (0..169).map(|at| (at / 13, at % 13)).find(|&(top, left)| matches(top, left));
        seen.insert(place.expect("each crop lies somewhere in the image"));
    }
    assert!(seen.len() > 120, "{} places", seen.len());
    // Scaled ones mix colours that are there: nothing darker, nothing brighter, no black border.
    for index in 0..10 {
        let whole = plain(&prepared, index);
        for epoch in 0..20 {
            let crop = sample(&prepared, &resized([0.08, 1.0], [0.5, 2.0]), 5, epoch, index);
            for (crop, whole) in crop.chunks_exact(576).zip(whole.chunks_exact(576)) {
                let (least, most) = whole.iter().fold((f32::MAX, f32::MIN), |(a, b), &x| (a.min(x), b.max(x)));
                assert!(crop.iter().all(|x| (least..=most).contains(x)));
            }
        }
    }
}

#[test]
fn a_resized_crop_keeps_the_label_and_the_draws_of_the_others() {
    let (_cache, prepared) = colored();
    let augment = Augment { crop: Some(20), ..resized([0.08, 1.0], [0.75, 4.0 / 3.0]) };
    let loader = Loader::new(&prepared, &augment).unwrap();
    assert_eq!(loader.input_size(), (3, 20, 20));
    let draw = Draw { seed: 3, epoch: 1, label_smoothing: 0.0, partners: &[] };
    let (mut image, mut target) = (vec![0.0; loader.sample_values()], vec![0.0; 10]);
    for index in 0..20 {
        loader.training_sample(index, &draw, &mut Scratch::default(), &mut image, &mut target);
        assert!((0..10).all(|class| target[class] == f32::from(class == prepared.label(index) as usize)));
        // Evaluation sees the centre, as ever.
        let (mut centre, mut expected) = (image.clone(), image.clone());
        loader.evaluation_sample(index, &mut centre);
        let plain = Loader::new(&prepared, &Augment { crop: Some(20), ..Augment::default() }).unwrap();
        plain.evaluation_sample(index, &mut expected);
        assert_eq!(centre, expected);
    }
    // The same images are flipped with it and without it.
    let flip = Augment { flip: 0.5, ..Augment::default() };
    let mirrored = |augment: &Augment, epoch| {
        let unflipped = Augment { flip: 0.0, ..augment.clone() };
        sample(&prepared, augment, 7, epoch, 4) != sample(&prepared, &unflipped, 7, epoch, 4)
    };
    let cropped = Augment { flip: 0.5, ..augment };
    assert!((0..40).all(|epoch| mirrored(&flip, epoch) == mirrored(&cropped, epoch)));
    assert!((0..40).any(|epoch| mirrored(&flip, epoch)) && !(0..40).all(|epoch| mirrored(&flip, epoch)));
}

#[test]
fn padding_is_black() {
    let (_cache, prepared) = colored();
    let manifest = prepared.manifest();
    let black = (-manifest.mean[0] / manifest.std[0]) as f32;
    let augment = Augment { crop: Some(32), pad: 4, ..Augment::default() };
    let padded = sample(&prepared, &augment, 0, 0, 2);
    assert!(padded[..4 * 32].iter().all(|&x| (x - black).abs() < 1e-5));
    assert_eq!(padded[4 * 32 + 4..][..24], plain(&prepared, 2)[..24]);
    // Far outside of the image, a warp sees black too.
    let far = Augment { translate: 1.0, ..Augment::default() };
    let values: Vec<f32> = (0..20).flat_map(|epoch| sample(&prepared, &far, 0, epoch, 2)[..576].to_vec()).collect();
    assert!(values.iter().filter(|&&x| (x - black).abs() < 1e-3).count() > values.len() / 3);
}

#[test]
fn rotation_and_scale_keep_the_centre() {
    let (_cache, prepared) = prepared(&Dataset { image_size: Some(25), ..glyphs() });
    let center = 12 * 25 + 12;
    for epoch in 0..10 {
        let augment = Augment { rotation_degrees: 180.0, scale: 0.3, shear_degrees: 20.0, ..Augment::default() };
        let turned = sample(&prepared, &augment, 0, epoch, 3);
        assert!((turned[center] - plain(&prepared, 3)[center]).abs() < 0.05);
        assert!(distance(&turned, &plain(&prepared, 3)) > 0.1, "the rest moves");
    }
}

#[test]
fn contrast_saturation_and_hue_keep_the_brightness_of_the_image() {
    let (_cache, prepared) = colored();
    let brightness = |values: &[f32]| {
        let pixels = pixels(&prepared, values);
        let plane = pixels.len() / 3;
        let mean = |c: usize| pixels[c * plane..][..plane].iter().sum::<f64>() / plane as f64;
        0.299 * mean(0) + 0.587 * mean(1) + 0.114 * mean(2)
    };
    let augments = [
        Augment { contrast: 0.05, ..Augment::default() },
        Augment { saturation: 0.1, ..Augment::default() },
        Augment { hue: 0.02, ..Augment::default() },
    ];
    for augment in augments {
        for epoch in 0..10 {
            let change = brightness(&sample(&prepared, &augment, 0, epoch, 4)) - brightness(&plain(&prepared, 4));
            // Values that leave the range are cut: so little distorted, few do.
            assert!(change.abs() < 4e-3, "{augment:?}: {change}");
        }
    }
}

#[test]
fn jitter_stays_in_the_range_of_pixels() {
    let (_cache, prepared) = colored();
    let augment = Augment { brightness: 0.9, contrast: 0.9, saturation: 0.9, hue: 0.5, pca: 3.0, ..Augment::default() };
    for augment in [augment.clone(), Augment { rotation_degrees: 10.0, ..augment }] {
        for epoch in 0..20 {
            let values = pixels(&prepared, &sample(&prepared, &augment, 0, epoch, 4));
            assert!(values.iter().all(|&x| (-1e-5..=1.0 + 1e-5).contains(&x)));
        }
    }
}

#[test]
fn colour_noise_has_mean_0_and_the_paper_s_spread() {
    let (_cache, prepared) = colored();
    let principal = prepared.manifest().principal.clone().unwrap();
    let augment = Augment { pca: 0.1, ..Augment::default() };
    let before = pixels(&prepared, &plain(&prepared, 0));
    let shifts: Vec<f64> = (0..4000)
        .map(|epoch| {
            let after = pixels(&prepared, &sample(&prepared, &augment, 0, epoch, 0));
            let shift = [0, 576, 1152].map(|at| after[at] - before[at]);
            assert!((after[300] - before[300] - shift[0]).abs() < 1e-5, "a whole channel shifts alike");
            (0..3).map(|c| shift[c] * principal.vectors[0][c]).sum()
        })
        .collect();
    let mean = shifts.iter().sum::<f64>() / shifts.len() as f64;
    let spread = (shifts.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / shifts.len() as f64).sqrt();
    let expected = 0.1 * principal.values[0];
    assert!(
        mean.abs() < 0.1 * expected && (spread / expected - 1.0).abs() < 0.06,
        "{mean} ± {spread}, expected ± {expected}"
    );
}

#[test]
fn pixel_noise_has_its_deviation_and_no_mean() {
    let (_cache, prepared) = colored();
    let augment = Augment { noise: 0.1, ..Augment::default() };
    let before = pixels(&prepared, &plain(&prepared, 0));
    let noise: Vec<f64> = (0..30)
        .flat_map(|epoch| {
            let after = pixels(&prepared, &sample(&prepared, &augment, 0, epoch, 0));
            after.into_iter().zip(before.clone()).map(|(after, before)| after - before).collect::<Vec<_>>()
        })
        .collect();
    let mean = noise.iter().sum::<f64>() / noise.len() as f64;
    let deviation = (noise.iter().map(|x| x * x).sum::<f64>() / noise.len() as f64).sqrt();
    assert!(mean.abs() < 2e-3 && (deviation - 0.1).abs() < 2e-3, "{mean} ± {deviation}");
    let fourth = noise.iter().map(|x| x.powi(4)).sum::<f64>() / noise.len() as f64 / deviation.powi(4);
    assert!((fourth - 3.0).abs() < 0.15, "kurtosis {fourth} of a normal distribution");
}

#[test]
fn cutout_blanks_at_most_its_square_and_nothing_else() {
    let (_cache, prepared) = colored();
    let whole = plain(&prepared, 7);
    for epoch in 0..50 {
        let cut = sample(&prepared, &Augment { cutout: 8, ..Augment::default() }, 0, epoch, 7);
        let blank = |c: usize| (0..576).filter(|i| cut[c * 576 + i] == 0.0).count();
        assert!((16..=64 + 20).contains(&blank(0)), "{}", blank(0));
        assert!(cut.iter().zip(&whole).all(|(a, b)| *a == 0.0 || a == b));
    }
}

#[test]
fn mixup_mixes_images_and_targets_by_the_same_share() {
    let (_cache, prepared) = colored();
    let loader = Loader::new(&prepared, &Augment { mixup: 1.0, ..Augment::default() }).unwrap();
    let draw = Draw { seed: 3, epoch: 1, label_smoothing: 0.0, partners: &[22] };
    let (mut image, mut target) = (vec![0.0; loader.sample_values()], vec![0.0; 10]);
    let mut shares = Vec::new();
    for index in [10, 20, 30, 40, 50] {
        loader.training_sample(index, &draw, &mut Scratch::default(), &mut image, &mut target);
        let share = target[0];
        assert!((target[2] + share - 1.0).abs() < 1e-6, "labels 0 and 2");
        let expected: Vec<f32> = plain(&prepared, index)
            .iter()
            .zip(plain(&prepared, 22))
            .map(|(own, other)| share * own + (1.0 - share) * other)
            .collect();
        assert!(distance(&image, &expected) < 1e-5);
        shares.push(share);
    }
    assert!(shares.windows(2).any(|pair| pair[0] != pair[1]));
}

#[test]
fn a_contact_sheet_is_drawn() {
    let (_cache, prepared) = colored();
    let drawn = |augment: &Augment| {
        let bytes = dataset::preview(&prepared, augment, 1).unwrap();
        image::load_from_memory_with_format(&bytes, image::ImageFormat::Png).unwrap().into_rgb8()
    };
    let sheet = drawn(&Augment { crop: Some(20), rotation_degrees: 20.0, hue: 0.2, ..Augment::default() });
    // Nine columns of pictures enlarged by three, twelve rows.
    assert_eq!(sheet.dimensions(), (9 * 76 + 4, 12 * 76 + 4));
    let first = sheet.get_pixel(4, 4).0;
    assert_eq!(first.map(i32::from), [0, 576, 1152].map(|at| i32::from(prepared.image(0)[at])));
    let cropped = drawn(&Augment { resized_crop: Some(ResizedCrop::default()), crop: Some(20), ..Augment::default() });
    // The originals are those of the other sheet, the versions beside them are not.
    let column = |sheet: &image::RgbImage, n: u32| image::imageops::crop_imm(sheet, 4 + n * 76, 4, 60, 60).to_image();
    assert_eq!(column(&cropped, 0), column(&sheet, 0));
    assert!((1..9).all(|n| column(&cropped, n) != column(&sheet, n)));
    assert!(dataset::preview(&prepared, &Augment { crop: Some(400), ..Augment::default() }, 1).is_err());
}
