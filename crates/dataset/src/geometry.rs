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
        Self { top, left, flip: Self::draw_flip(augment, seed, epoch, index) }
    }

    /// All of an image that has the sample's size already.
    pub fn whole(augment: &Augment, seed: u64, epoch: u32, index: u32) -> Self {
        Self { top: 0, left: 0, flip: Self::draw_flip(augment, seed, epoch, index) }
    }

    fn draw_flip(augment: &Augment, seed: u64, epoch: u32, index: u32) -> bool {
        augment.flip > 0.0 && Counter::new(seed, Purpose::Flip, epoch, index).chance(augment.flip)
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
            Some((low, high)) => limit(value, low[channel], high[channel]),
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
                    .for_each(|(out, &pixel)| *out = limit(f32::from(pixel) * gain + offset, low, high));
            }
        }
    }

    #[inline(always)]
    fn row_reversed(&self, channel: usize, source: &[u8], out: &mut [f32]) {
        let (gain, offset) = (self.matrix[channel][channel], self.offset[channel]);
        match &self.bounds {
            None => out
                .iter_mut()
                .zip(source.iter().rev())
                .for_each(|(out, &pixel)| *out = f32::from(pixel) * gain + offset),
            Some((low, high)) => {
                let (low, high) = (low[channel], high[channel]);
                out.iter_mut()
                    .zip(source.iter().rev())
                    .for_each(|(out, &pixel)| *out = limit(f32::from(pixel) * gain + offset, low, high));
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
            *out = limit(value, low, high);
        }
    }

    /// One channel of a row from lanes that hold 256 times the value.
    #[inline(always)]
    fn lane_row(&self, channel: usize, lanes: &[u64], out: &mut [f32]) {
        let shift = 16 * channel as u32;
        let (gain, offset) = (self.matrix[channel][channel] / 256.0, self.offset[channel]);
        let (low, high) = self.bounds.map_or((f32::MIN, f32::MAX), |(low, high)| (low[channel], high[channel]));
        for (out, &pixel) in out.iter_mut().zip(lanes) {
            let value = ((pixel >> shift) & 0xffff) as i32 as f32;
            *out = limit(value * gain + offset, low, high);
        }
    }

    /// One channel of a row from all three lanes.
    #[inline(always)]
    fn mix_lane_row(&self, channel: usize, lanes: &[u64], out: &mut [f32]) {
        let ([r, g, b], offset) = (self.matrix[channel].map(|weight| weight / 256.0), self.offset[channel]);
        let (low, high) = self.bounds.map_or((f32::MIN, f32::MAX), |(low, high)| (low[channel], high[channel]));
        for (out, &pixel) in out.iter_mut().zip(lanes) {
            let lane = |shift: u32| ((pixel >> shift) & 0xffff) as i32 as f32;
            *out = limit(lane(0) * r + lane(16) * g + lane(32) * b + offset, low, high);
        }
    }
}

/// Between `low` and `high`. Written so that it becomes two vector instructions, which `f32::max` with its care for NaN does not.
#[inline(always)]
fn limit(value: f32, low: f32, high: f32) -> f32 {
    let value = if value > low { value } else { low };
    if value < high { value } else { high }
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
        [augment.rotation_degrees, augment.scale, augment.shear_degrees, augment.translate]
            .iter()
            .any(|&most| most > 0.0)
    }

    /// Draws rotation, scale, shear and translation.
    pub fn draw(augment: &Augment, size: Size, seed: u64, epoch: u32, index: u32) -> Self {
        let mut rng = Counter::new(seed, Purpose::Affine, epoch, index);
        let mut symmetric = |most: f64| rng.range(-1.0, 1.0) * most;
        let turn = symmetric(augment.rotation_degrees) / 360.0;
        let scale = (1.0 + symmetric(augment.scale)).max(0.05);
        let (shear_sine, shear_cosine) = sin_cos(symmetric(augment.shear_degrees).clamp(-80.0, 80.0) / 360.0);
        let shift =
            [symmetric(augment.translate) * size.width as f64, symmetric(augment.translate) * size.height as f64];
        let (sine, cosine) = sin_cos(turn);
        let shear = shear_sine / shear_cosine;
        // The inverse of rotation · shear · scale: 1/scale · shear⁻¹ · rotation⁻¹.
        let matrix =
            [[(cosine + shear * sine) / scale, (sine - shear * cosine) / scale], [-sine / scale, cosine / scale]];
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
    /// One row of the result.
    row: Vec<u64>,
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

    /// Blends one row of `width` pixels, from the place (`x`, `y`) in steps of (`step_x`, `step_y`), all in fixed point with
    /// [`FRACTION`] bits. Lanes of the result hold 256 times the value.
    fn blend_row(&mut self, width: usize, x: i64, y: i64, step_x: i64, step_y: i64) {
        let one = 1i64 << FRACTION;
        // From here on in the frame's coordinates.
        let (x, y) = (x + one, y + one);
        let (end_x, end_y) = ((self.columns as i64 - 2) << FRACTION, (self.rows as i64 - 2) << FRACTION);
        let (a, b) = (within(x, step_x, end_x, width), within(y, step_y, end_y, width));
        let span = a.0.max(b.0)..a.1.min(b.1).max(a.0.max(b.0));
        self.row.clear();
        self.row.resize(width, 0);
        let (mut x, mut y) = ((x + step_x * span.start as i64) as usize, (y + step_y * span.start as i64) as usize);
        let columns = self.columns;
        for out in &mut self.row[span] {
            let (fx, fy) = (((x >> (FRACTION - 8)) & 255) as u64, ((y >> (FRACTION - 8)) & 255) as u64);
            let start = (y >> FRACTION) * columns + (x >> FRACTION);
            let four = &self.pixels[start..start + columns + 2];
            let both = (fx * fy + 128) >> 8;
            *out = four[0] * (256 + both - fx - fy)
                + four[1] * (fx - both)
                + four[columns] * (fy - both)
                + four[columns + 1] * both;
            // A step back is a wrapping addition.
            x = x.wrapping_add(step_x as usize);
            y = y.wrapping_add(step_y as usize);
        }
    }
}

/// The steps n in 0 … `width` for which 0 ≤ `start` + n·`step` < `end`: (first, one past the last).
fn within(start: i64, step: i64, end: i64, width: usize) -> (usize, usize) {
    let width = width as i64;
    // The first n with start + n·step ≥ limit, for a positive step.
    let reach = |start: i64, step: i64, limit: i64| (limit - start + step - 1).div_euclid(step).clamp(0, width);
    let (first, last) = match step {
        0 if (0..end).contains(&start) => (0, width),
        0 => (0, 0),
        1.. => (reach(start, step, 0), reach(start, step, end)),
        // Mirrored: end − 1 − start runs up.
        _ => (reach(end - 1 - start, -step, 0), reach(end - 1 - start, -step, end)),
    };
    (first as usize, last.max(first) as usize)
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
    let first = window.left + if window.flip { width as i64 - 1 } else { 0 };
    for row in 0..height {
        let dx = first as f64 - center_x - warp.shift[0];
        let dy = (window.top + row as i64) as f64 - center_y - warp.shift[1];
        let (x, y) = (fixed(xx * dx + xy * dy + center_x), fixed(yx * dx + yy * dy + center_y));
        lanes.blend_row(width, x, y, step_x, step_y);
        for channel in 0..channels {
            let out = &mut sample[channel * plane + row * width..][..width];
            if channels == 3 && !tone.diagonal {
                tone.mix_lane_row(channel, &lanes.row, out);
            } else {
                tone.lane_row(channel, &lanes.row, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_finds_exactly_the_steps_inside() {
        for start in [-50, -7, -1, 0, 1, 5, 19, 20, 33] {
            for step in [-9, -3, -1, 0, 1, 2, 7] {
                let (first, last) = within(start, step, 20, 12);
                for n in 0..12usize {
                    let inside = (0..20).contains(&(start + step * n as i64));
                    assert_eq!(inside, (first..last).contains(&n), "{start} + {n}·{step}");
                }
            }
        }
    }

    #[test]
    fn a_blend_weighs_four_neighbours_and_fades_to_black() {
        let mut lanes = Lanes::default();
        lanes.fill(&[100, 200, 40, 80], Size { height: 2, width: 2 });
        let half = 1i64 << (FRACTION - 1);
        let mut at = |x: i64, y: i64| {
            lanes.blend_row(1, x, y, 0, 0);
            lanes.row[0]
        };
        assert_eq!(at(half, half), (100 + 200 + 40 + 80) * 64);
        assert_eq!(at(0, 0), 100 * 256);
        assert_eq!(at(2 * half, 0), 200 * 256);
        assert_eq!(at(-half, 0), 100 * 128);
        assert_eq!(at(3 * half, 2 * half), 80 * 128);
        assert_eq!(at(-2 * half, 0), 0);
        assert_eq!((at(-1_000_000, 0), at(0, 1 << 40)), (0, 0));
    }
}
