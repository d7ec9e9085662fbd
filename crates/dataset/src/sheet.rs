//! A contact sheet: originals beside what the augmentation makes of them.

use plan::Augment;

use crate::{DatasetError, Draw, Loader, Part, Prepared, Scratch};

/// Rows of a sheet: at most so many images.
const ROWS: usize = 12;
/// Distorted versions beside each original.
const VERSIONS: u32 = 8;
/// White space round each picture, in pixels.
const GAP: usize = 4;
/// Pictures smaller than this are enlarged by a whole factor, in pixels.
const READABLE: usize = 64;

/// Draws a contact sheet, as the bytes of a PNG file: in each row a training image as it was prepared, then that image as eight
/// epochs of training with `seed` would see it. The rows go round the classes.
///
/// # Errors
/// An augmentation that does not fit the images.
pub fn preview(prepared: &Prepared, augment: &Augment, seed: u64) -> Result<Vec<u8>, DatasetError> {
    let loader = Loader::new(prepared, augment)?;
    let original = Loader::new(prepared, &Augment::default())?;
    let samples = choose(prepared);
    let (_, image_height, image_width) = original.input_size();
    let (_, height, width) = loader.input_size();
    let side = height.max(width).max(image_height).max(image_width);
    let factor = READABLE.div_ceil(side).max(1);
    let cell = side * factor + GAP;
    let columns = 1 + VERSIONS as usize;
    let mut sheet = Sheet::white(columns * cell + GAP, samples.len() * cell + GAP);
    let partners: Vec<u32> = prepared.indices(Part::Train).collect();
    let mut scratch = Scratch::default();
    let mut target = vec![0.0; loader.classes()];
    for (row, &index) in samples.iter().enumerate() {
        let place = |column: usize| Place { left: GAP + column * cell, top: GAP + row * cell, factor };
        let mut values = vec![0.0; original.sample_values()];
        original.evaluation_sample(index, &mut values);
        paste(&mut sheet, &original, &values, &place(0));
        for epoch in 0..VERSIONS {
            let draw = Draw { seed, epoch, label_smoothing: 0.0, partners: &partners };
            let mut values = vec![0.0; loader.sample_values()];
            loader.training_sample(index, &draw, &mut scratch, &mut values, &mut target);
            paste(&mut sheet, &loader, &values, &place(1 + epoch as usize));
        }
    }
    Ok(sheet.png())
}

/// Rows of red, green and blue.
struct Sheet {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Sheet {
    fn white(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![255; width * height * 3] }
    }

    fn png(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().expect("memory takes all bytes");
        writer.write_image_data(&self.pixels).expect("the pixels are those of the size");
        writer.finish().expect("memory takes all bytes");
        bytes
    }
}

/// One training image of each class in turn.
fn choose(prepared: &Prepared) -> Vec<u32> {
    let groups = crate::splits::group(
        &prepared.indices(Part::Train).collect::<Vec<_>>(),
        |index| prepared.label(index),
        prepared.classes(),
    );
    let rounds = groups.iter().map(Vec::len).max().unwrap_or(0);
    (0..rounds).flat_map(|round| groups.iter().filter_map(move |group| group.get(round))).take(ROWS).copied().collect()
}

struct Place {
    left: usize,
    top: usize,
    factor: usize,
}

/// Undoes the normalisation of a sample and pastes it.
fn paste(sheet: &mut Sheet, loader: &Loader, values: &[f32], place: &Place) {
    let (channels, height, width) = loader.input_size();
    let manifest = loader.prepared().manifest();
    let pixel = |channel: usize, at: usize| {
        let channel = channel.min(channels - 1);
        let deviation = if manifest.std[channel] > 1e-6 { manifest.std[channel] } else { 1.0 };
        let value = f64::from(values[channel * height * width + at]) * deviation + manifest.mean[channel];
        (value * 255.0).round().clamp(0.0, 255.0) as u8
    };
    for y in 0..height * place.factor {
        for x in 0..width * place.factor {
            let at = y / place.factor * width + x / place.factor;
            let start = ((place.top + y) * sheet.width + place.left + x) * 3;
            sheet.pixels[start..][..3].copy_from_slice(&[0, 1, 2].map(|channel| pixel(channel, at)));
        }
    }
}
