//! Where each pixel of a sample comes from: crop, flip, and one affine map.

use plan::Augment;

use crate::{
    color::Tone,
    elementary::sin_cos,
    rng::{Counter, Purpose},
};

/// Height and width, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub height: usize,
    pub width: usize,
}

impl Size {
    pub fn pixels(self) -> usize {
        self.height * self.width
    }
}

/// The part of the image that becomes the sample; what lies outside of the image is black.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Row of the image that becomes the first; negative inside the padding.
    pub top: i64,
    /// Column of the image that becomes the first (the last when flipped).
    pub left: i64,
    pub flip: bool,
}

impl Window {
    /// In the middle. An odd margin leaves the extra pixel below and right, as Pillow and torchvision cut.
    pub fn center(image: Size, sample: Size) -> Self {
        let offset = |image: usize, sample: usize| (image as i64 - sample as i64).div_euclid(2);
        Self { top: offset(image.height, sample.height), left: offset(image.width, sample.width), flip: false }
    }

    /// At random within the padded image.
    pub fn draw(augment: &Augment, image: Size, sample: Size, seed: u64, epoch: u32, index: u32) -> Self {
        let pad = augment.pad;
        let mut rng = Counter::new(seed, Purpose::Crop, epoch, index);
        let mut offset = |image: usize, sample: usize| {
            i64::from(rng.below((image + 2 * pad).saturating_sub(sample) as u32 + 1)) - pad as i64
        };
        let (top, left) = (offset(image.height, sample.height), offset(image.width, sample.width));
        let flip = augment.flip > 0.0 && Counter::new(seed, Purpose::Flip, epoch, index).chance(augment.flip);
        Self { top, left, flip }
    }
}

/// Cuts `window` out of `image` [C, H, W] and writes it through `tone` to `sample` [C, h, w]: one pass.
pub(crate) fn cut(image: &[u8], size: Size, window: Window, tone: &Tone, sample: &mut [f32], sample_size: Size) {
    let channels = image.len() / size.pixels();
    let Size { height, width } = sample_size;
    // Columns of the sample that lie in the image, before flipping.
    let first = (-window.left).clamp(0, width as i64) as usize;
    let last = (size.width as i64 - window.left).clamp(first as i64, width as i64) as usize;
    let plane = sample_size.pixels();
    for row in 0..height {
        let y = window.top + row as i64;
        let inside = (0..size.height as i64).contains(&y) && first < last;
        let span = if inside { first..last } else { 0..0 };
        let start = if inside { y as usize * size.width + (window.left + first as i64) as usize } else { 0 };
        let source = |channel: usize| {
            let from = channel * size.pixels() + start;
            &image[from..from + span.len()]
        };
        // Flipped, the span lies mirrored in the row.
        let place = if window.flip { width - span.end..width - span.start } else { span.clone() };
        if channels == 3 && !tone.diagonal {
            let colors = [source(0), source(1), source(2)];
            for channel in 0..3 {
                let out = &mut sample[channel * plane + row * width..][..width];
                out[..place.start].fill(tone.black(channel));
                out[place.end..].fill(tone.black(channel));
                tone.mix_row(channel, colors, &mut out[place.clone()]);
                if window.flip {
                    out[place.clone()].reverse();
                }
            }
        } else {
            for channel in 0..channels {
                let out = &mut sample[channel * plane + row * width..][..width];
                out[..place.start].fill(tone.black(channel));
                out[place.end..].fill(tone.black(channel));
                if window.flip {
                    tone.row_reversed(channel, source(channel), &mut out[place.clone()]);
                } else {
                    tone.row(channel, source(channel), &mut out[place.clone()]);
                }
            }
        }
    }
}

impl Tone {
    /// What black becomes.
    fn black(&self, channel: usize) -> f32 {
        self.clamp(channel, self.offset[channel])
    }

    #[inline(always)]
    fn clamp(&self, channel: usize, value: f32) -> f32 {
        match &self.bounds {
            Some((low, high)) => value.max(low[channel]).min(high[channel]),
            None => value,
        }
    }

    #[inline(always)]
    fn row(&self, channel: usize, source: &[u8], out: &mut [f32]) {
        let (gain, offset) = (self.matrix[channel][channel], self.offset[channel]);
        match &self.bounds {
            None => out.iter_mut().zip(source).for_each(|(out, &pixel)| *out = f32::from(pixel) * gain + offset),
            Some((low, high)) => {
                let (low, high) = (low[channel], high[channel]);
                out.iter_mut()
                    .zip(source)
                    .for_each(|(out, &pixel)| *out = (f32::from(pixel) * gain + offset).max(low).min(high));
            }
        }
    }

    #[inline(always)]
    fn row_reversed(&self, channel: usize, source: &[u8], out: &mut [f32]) {
        let (gain, offset) = (self.matrix[channel][channel], self.offset[channel]);
        match &self.bounds {
            None => out.iter_mut().zip(source.iter().rev()).for_each(|(out, &pixel)| *out = f32::from(pixel) * gain + offset),
            Some((low, high)) => {
                let (low, high) = (low[channel], high[channel]);
                out.iter_mut()
                    .zip(source.iter().rev())
                    .for_each(|(out, &pixel)| *out = (f32::from(pixel) * gain + offset).max(low).min(high));
            }
        }
    }

    /// One channel of a row from all three.
    #[inline(always)]
    fn mix_row(&self, channel: usize, [red, green, blue]: [&[u8]; 3], out: &mut [f32]) {
        let ([r, g, b], offset) = (self.matrix[channel], self.offset[channel]);
        let (low, high) = self.bounds.map_or((f32::MIN, f32::MAX), |(low, high)| (low[channel], high[channel]));
        for (((out, &red), &green), &blue) in out.iter_mut().zip(red).zip(green).zip(blue) {
            let value = f32::from(red) * r + f32::from(green) * g + f32::from(blue) * b + offset;
            *out = value.max(low).min(high);
        }
    }
}

/// An affine map from places in the distorted image to places in the original, about the image's centre.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Warp {
    matrix: [[f64; 2]; 2],
    shift: [f64; 2],
}

impl Warp {
    /// Whether any part of it is on.
    pub fn wanted(augment: &Augment) -> bool {
        [augment.rotation_degrees, augment.scale, augment.shear_degrees, augment.translate].iter().any(|&most| most > 0.0)
    }

    /// Draws rotation, scale, shear and translation.
    pub fn draw(augment: &Augment, size: Size, seed: u64, epoch: u32, index: u32) -> Self {
        let mut rng = Counter::new(seed, Purpose::Affine, epoch, index);
        let mut symmetric = |most: f64| rng.range(-1.0, 1.0) * most;
        let turn = symmetric(augment.rotation_degrees) / 360.0;
        let scale = (1.0 + symmetric(augment.scale)).max(0.05);
        let (shear_sine, shear_cosine) = sin_cos(symmetric(augment.shear_degrees).clamp(-80.0, 80.0) / 360.0);
        let shift = [symmetric(augment.translate) * size.width as f64, symmetric(augment.translate) * size.height as f64];
        let (sine, cosine) = sin_cos(turn);
        let shear = shear_sine / shear_cosine;
        // The inverse of rotation · shear · scale: 1/scale · shear⁻¹ · rotation⁻¹.
        let matrix = [
            [(cosine + shear * sine) / scale, (sine - shear * cosine) / scale],
            [-sine / scale, cosine / scale],
        ];
        Self { matrix, shift }
    }
}

/// Room for one image as the warp reads it; kept from sample to sample.
///
/// A pixel is 64 bits of four 16-bit lanes (red, green, blue, nothing), so that one multiplication weighs all channels.
/// Weights add up to 256 and values reach 255: a lane never overflows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lanes {
    pixels: Vec<u64>,
    columns: usize,
    rows: usize,
}

/// Fractional bits of a source coordinate.
const FRACTION: u32 = 16;

impl Lanes {
    /// Lays `image` [C, H, W] out, with a black frame: one pixel above and left, two below and right.
    fn fill(&mut self, image: &[u8], size: Size) {
        let (columns, rows) = (size.width + 3, size.height + 3);
        if (self.columns, self.rows) != (columns, rows) {
            (self.columns, self.rows) = (columns, rows);
            self.pixels.clear();
            self.pixels.resize(columns * rows, 0);
        }
        let plane = size.pixels();
        for row in 0..size.height {
            let out = &mut self.pixels[(row + 1) * columns + 1..][..size.width];
            let line = row * size.width..(row + 1) * size.width;
            if image.len() == plane {
                out.iter_mut().zip(&image[line]).for_each(|(out, &gray)| *out = u64::from(gray));
            } else {
                let red = &image[line.clone()];
                let green = &image[plane..][line.clone()];
                let blue = &image[2 * plane..][line];
                for (((out, &red), &green), &blue) in out.iter_mut().zip(red).zip(green).zip(blue) {
                    *out = u64::from(red) | u64::from(green) << 16 | u64::from(blue) << 32;
                }
            }
        }
    }

    /// The pixel at (`x`, `y`) in fixed point with [`FRACTION`] bits, blended from its four neighbours; lanes hold 256 times
    /// the value.
    #[inline(always)]
    fn blend(&self, x: i64, y: i64) -> u64 {
        let one = 1i64 << FRACTION;
        // Beyond the frame all is black; so is the frame.
        let x = (x + one).clamp(0, (self.columns as i64 - 2) << FRACTION);
        let y = (y + one).clamp(0, (self.rows as i64 - 2) << FRACTION);
        let (fx, fy) = (((x >> (FRACTION - 8)) & 255) as u64, ((y >> (FRACTION - 8)) & 255) as u64);
        let start = (y >> FRACTION) as usize * self.columns + (x >> FRACTION) as usize;
        let upper = &self.pixels[start..start + 2];
        let lower = &self.pixels[start + self.columns..start + self.columns + 2];
        let both = (fx * fy + 128) >> 8;
        upper[0] * (256 + both - fx - fy) + upper[1] * (fx - both) + lower[0] * (fy - both) + lower[1] * both
    }
}

/// Distorts `image` [C, H, W] by `warp`, cuts `window` out and writes it through `tone` to `sample` [C, h, w].
#[expect(clippy::too_many_arguments, reason = "one inner step with one caller")]
pub(crate) fn warp(
    image: &[u8],
    size: Size,
    warp: &Warp,
    window: Window,
    tone: &Tone,
    lanes: &mut Lanes,
    sample: &mut [f32],
    sample_size: Size,
) {
    lanes.fill(image, size);
    let channels = image.len() / size.pixels();
    let Size { height, width } = sample_size;
    let (center_x, center_y) = ((size.width as f64 - 1.0) / 2.0, (size.height as f64 - 1.0) / 2.0);
    let fixed = |value: f64| (value * f64::from(1 << FRACTION)).round() as i64;
    let [[xx, xy], [yx, yy]] = warp.matrix;
    let direction = if window.flip { -1.0 } else { 1.0 };
    let (step_x, step_y) = (fixed(xx * direction), fixed(yx * direction));
    let plane = sample_size.pixels();
    let (low, high) = tone.bounds.unwrap_or(([f32::MIN; 3], [f32::MAX; 3]));
    let matrix = tone.matrix.map(|row| row.map(|value| value / 256.0));
    let first = window.left + if window.flip { width as i64 - 1 } else { 0 };
    for row in 0..height {
        let dx = first as f64 - center_x - warp.shift[0];
        let dy = (window.top + row as i64) as f64 - center_y - warp.shift[1];
        let mut x = fixed(xx * dx + xy * dy + center_x);
        let mut y = fixed(yx * dx + yy * dy + center_y);
        if channels == 1 {
            for out in &mut sample[row * width..(row + 1) * width] {
                let value = lanes.blend(x, y) as f32 * matrix[0][0] + tone.offset[0];
                *out = value.max(low[0]).min(high[0]);
                x += step_x;
                y += step_y;
            }
            continue;
        }
        let (red, rest) = sample[row * width..].split_at_mut(plane);
        let (green, blue) = rest.split_at_mut(plane);
        let outs = red[..width].iter_mut().zip(&mut green[..width]).zip(&mut blue[..width]);
        if tone.diagonal {
            for ((red, green), blue) in outs {
                let pixel = lanes.blend(x, y);
                *red = ((pixel as u16) as f32 * matrix[0][0] + tone.offset[0]).max(low[0]).min(high[0]);
                *green = ((pixel >> 16) as u16 as f32 * matrix[1][1] + tone.offset[1]).max(low[1]).min(high[1]);
                *blue = ((pixel >> 32) as u16 as f32 * matrix[2][2] + tone.offset[2]).max(low[2]).min(high[2]);
                x += step_x;
                y += step_y;
            }
        } else {
            for ((red, green), blue) in outs {
                let pixel = lanes.blend(x, y);
                let color = [pixel as u16 as f32, (pixel >> 16) as u16 as f32, (pixel >> 32) as u16 as f32];
                let mixed = [0, 1, 2].map(|i| {
                    let [r, g, b] = matrix[i];
                    (color[0] * r + color[1] * g + color[2] * b + tone.offset[i]).max(low[i]).min(high[i])
                });
                (*red, *green, *blue) = (mixed[0], mixed[1], mixed[2]);
                x += step_x;
                y += step_y;
            }
        }
    }
}
