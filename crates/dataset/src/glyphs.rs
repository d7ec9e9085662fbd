//! The built-in data set: ten classes of glyphs, drawn from a seed. Needs no file and no network.
//!
//! Each glyph is a handful of polylines that are turned, sheared, stretched, bent and shifted, then stroked with an
//! antialiased pen, lighter than the uneven background, among stray strokes and noise. The label stays plain to the eye, but no single pixel tells much: a linear classifier fails where a small convolutional network
//! does not. All arithmetic is exactly rounded, so the bytes are the same on every machine.

use crate::{
    Part,
    elementary::sin_cos,
    rng::{Counter, Purpose},
    source::{Entry, Feed, Payload, Sink, Survey},
};

/// Names of the ten classes, in the order of their labels.
pub const CLASSES: [&str; 10] =
    ["ring", "cross", "triangle", "square", "zigzag", "spiral", "arrow", "tee", "fork", "wave"];

/// Side of the images where no setting decides, in pixels.
pub const DEFAULT_SIZE: usize = 28;
/// Training images where no setting decides.
pub const DEFAULT_TRAIN_IMAGES: usize = 6000;
/// Test images where no setting decides.
pub const DEFAULT_TEST_IMAGES: usize = 2000;

/// What is drawn: enough to draw any image of the set alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Glyphs {
    pub seed: u64,
    pub size: usize,
    pub channels: usize,
    pub train_images: usize,
    pub test_images: usize,
}

impl Glyphs {
    /// The images in order: labels go round the ten classes, so that every prefix is balanced.
    pub fn survey(&self) -> Survey {
        let part = |part, count| {
            (0..count as u32).map(move |index| Entry { part, label: index % 10, name: format!("glyph {index}").into() })
        };
        Survey {
            classes: CLASSES.map(String::from).to_vec(),
            entries: part(Part::Train, self.train_images).chain(part(Part::Test, self.test_images)).collect(),
            channels: self.channels,
            has_test_part: true,
            broken: Vec::new(),
            ignored_files: 0,
        }
    }

    /// Draws the image at `position` of the survey: [C, H, W].
    pub fn draw(&self, position: u32) -> Vec<u8> {
        let (part, index) = match position.checked_sub(self.train_images as u32) {
            None => (0, position),
            Some(index) => (1, index),
        };
        let mut rng = Counter::new(self.seed, Purpose::Glyph, part, index);
        let glyph = Pose::draw(&mut rng).apply(&template(index % 10));
        let side = self.size;
        let half_pixel = 1.0 / side as f64;
        // Thinner than a pixel and a half would vanish in small images.
        let pen = rng.range(0.055, 0.125).max(0.75 * half_pixel);
        let mut ink = vec![0.0f32; side * side];
        for line in &glyph {
            stroke(&mut ink, side, line, pen, 1.0);
        }
        for _ in 0..1 + rng.below(4) {
            let strength = rng.range(0.3, 0.8);
            stroke(&mut ink, side, &stray(&mut rng), pen * rng.range(0.5, 0.9), strength);
        }
        self.paint(&ink, &mut rng)
    }

    /// Turns coverage into pixels: background, ink, noise.
    fn paint(&self, ink: &[f32], rng: &mut Counter) -> Vec<u8> {
        let side = self.size;
        let contrast = rng.range(0.4, 0.75);
        let paper = rng.range(0.08, 0.92 - contrast);
        let pen = paper + contrast;
        let slope = [rng.range(-0.12, 0.12), rng.range(-0.12, 0.12)];
        let noise = rng.range(0.02, 0.08) as f32;
        let mut pixels = Vec::with_capacity(self.channels * side * side);
        for channel in 0..self.channels {
            // Colours differ by channel, but light stays lighter than dark in each.
            let tint = if self.channels == 1 { (0.0, 0.0) } else { (rng.range(-0.12, 0.12), rng.range(-0.12, 0.12)) };
            let (paper, pen) = ((paper + tint.0) as f32, (pen + tint.1) as f32);
            let mut grain = Grain(Counter::new(self.seed ^ rng.bits64(), Purpose::Glyph, 2, channel as u32));
            for y in 0..side {
                let v = 2.0 * y as f64 / side as f64 - 1.0;
                for x in 0..side {
                    let u = 2.0 * x as f64 / side as f64 - 1.0;
                    let shade = (slope[0] * u + slope[1] * v) as f32;
                    let value = paper + (pen - paper) * ink[y * side + x] + shade + noise * grain.draw();
                    pixels.push((value.clamp(0.0, 1.0) * 255.0 + 0.5) as u8);
                }
            }
        }
        pixels
    }
}

/// Positions of the survey, to be drawn by the workers.
impl Feed for Glyphs {
    fn run(&self, sink: &mut Sink<'_>) -> Result<(), crate::DatasetError> {
        for position in 0..self.train_images + self.test_images {
            if !sink(position, Payload::Glyph(*self, position as u32)) {
                break;
            }
        }
        Ok(())
    }
}

/// Nearly normal noise of deviation 1: the sum of eight random bytes, quick and the same everywhere.
struct Grain(Counter);

impl Grain {
    fn draw(&mut self) -> f32 {
        let sum: u32 = self.0.bits64().to_le_bytes().iter().map(|&byte| u32::from(byte)).sum();
        // Variance of a byte: (256² − 1) / 12.
        (sum as f32 - 1020.0) * (1.0 / 209.02)
    }
}

type Point = [f64; 2];
type Line = Vec<Point>;

/// Points `fraction` of the way round the circle of radius `r` about `center`, from `start` for `turns`.
fn arc(center: Point, r: f64, start: f64, turns: f64, growth: f64) -> Line {
    (0..=24)
        .map(|step| {
            let t = f64::from(step) / 24.0;
            let (sine, cosine) = sin_cos(start + turns * t);
            let r = r * (1.0 + growth * t);
            [center[0] + r * cosine, center[1] + r * sine]
        })
        .collect()
}

/// The undistorted glyph of a class, in [-1, 1]², y down.
fn template(label: u32) -> Vec<Line> {
    match label {
        0 => vec![arc([0.0, 0.0], 0.85, 0.0, 1.0, 0.0)],
        1 => vec![vec![[-0.9, 0.0], [0.9, 0.0]], vec![[0.0, -0.9], [0.0, 0.9]]],
        2 => vec![vec![[0.0, -0.9], [0.85, 0.7], [-0.85, 0.7], [0.0, -0.9]]],
        3 => vec![vec![[-0.75, -0.75], [0.75, -0.75], [0.75, 0.75], [-0.75, 0.75], [-0.75, -0.75]]],
        4 => vec![vec![[-0.75, -0.85], [0.75, -0.85], [-0.75, 0.85], [0.75, 0.85]]],
        5 => vec![arc([0.0, 0.0], 0.12, 0.0, 2.0, 6.5)],
        6 => vec![vec![[0.0, 0.95], [0.0, -0.9]], vec![[-0.65, -0.2], [0.0, -0.9], [0.65, -0.2]]],
        7 => vec![vec![[-0.85, -0.8], [0.85, -0.8]], vec![[0.0, -0.8], [0.0, 0.95]]],
        8 => vec![vec![[-0.75, -0.85], [0.0, 0.0], [0.75, -0.85]], vec![[0.0, 0.0], [0.0, 0.95]]],
        _ => vec![arc([0.0, -0.45], 0.45, -0.05, -0.7, 0.0), arc([0.0, 0.45], 0.45, -0.25, 0.7, 0.0)],
    }
}

/// One drawing's distortion: x ↦ `matrix`·x + `shift`, then a smooth bend.
struct Pose {
    matrix: [[f64; 2]; 2],
    shift: Point,
    /// Per axis: amplitude, frequency along the other axis in turns per unit, phase in turns.
    bend: [[f64; 3]; 2],
}

impl Pose {
    fn draw(rng: &mut Counter) -> Self {
        let (sine, cosine) = sin_cos(rng.range(-0.06, 0.06));
        let size = rng.range(0.58, 0.8);
        let stretch = rng.range(0.8, 1.25);
        let shear = rng.range(-0.2, 0.2);
        let (a, d) = (size * stretch.sqrt(), size / stretch.sqrt());
        // Rotation · shear · stretch.
        let matrix = [[cosine * a, (cosine * shear - sine) * d], [sine * a, (sine * shear + cosine) * d]];
        let room = 0.94 - size;
        let shift = [rng.range(-room, room), rng.range(-room, room)];
        let bend = [(); 2].map(|()| [rng.range(0.02, 0.09), rng.range(0.25, 0.7), rng.uniform()]);
        Self { matrix, shift, bend }
    }

    /// The distorted lines, cut into pieces short enough to bend.
    fn apply(&self, lines: &[Line]) -> Vec<Line> {
        let place = |[x, y]: Point| {
            let p = [0, 1].map(|row| self.matrix[row][0] * x + self.matrix[row][1] * y + self.shift[row]);
            [0, 1].map(|axis| {
                let [amplitude, frequency, phase] = self.bend[axis];
                p[axis] + amplitude * sin_cos(frequency * p[1 - axis] + phase).0
            })
        };
        lines
            .iter()
            .map(|line| {
                let mut bent = vec![place(line[0])];
                for ends in line.windows(2) {
                    let ([x0, y0], [x1, y1]) = (ends[0], ends[1]);
                    let length = ((x1 - x0) * (x1 - x0) + (y1 - y0) * (y1 - y0)).sqrt();
                    let pieces = (length / 0.3).ceil().max(1.0);
                    for piece in 1..=pieces as u32 {
                        let t = f64::from(piece) / pieces;
                        bent.push(place([x0 + (x1 - x0) * t, y0 + (y1 - y0) * t]));
                    }
                }
                bent
            })
            .collect()
    }
}

/// A short stroke somewhere: clutter.
fn stray(rng: &mut Counter) -> Line {
    let from = [rng.range(-1.0, 1.0), rng.range(-1.0, 1.0)];
    let (sine, cosine) = sin_cos(rng.uniform());
    let length = rng.range(0.15, 0.5);
    vec![from, [from[0] + length * cosine, from[1] + length * sine]]
}

/// Lays `line` over `ink` ([side, side], coverage in [0, 1]) with a round pen of half width `pen`; the image spans
/// [-1, 1]². Each piece touches only the pixels round it.
fn stroke(ink: &mut [f32], side: usize, line: &[Point], pen: f64, strength: f64) {
    let scale = side as f64 / 2.0;
    let reach = pen + 1.0 / scale;
    let to_pixel = |u: f64| ((u + 1.0) * scale).floor().clamp(0.0, side as f64 - 1.0) as usize;
    for ends in line.windows(2) {
        let ([x0, y0], [x1, y1]) = (ends[0], ends[1]);
        let (dx, dy) = (x1 - x0, y1 - y0);
        let squared = (dx * dx + dy * dy).max(1e-12);
        for row in to_pixel(y0.min(y1) - reach)..=to_pixel(y0.max(y1) + reach) {
            let y = (row as f64 + 0.5) / scale - 1.0;
            for column in to_pixel(x0.min(x1) - reach)..=to_pixel(x0.max(x1) + reach) {
                let x = (column as f64 + 0.5) / scale - 1.0;
                let t = (((x - x0) * dx + (y - y0) * dy) / squared).clamp(0.0, 1.0);
                let (ex, ey) = (x - x0 - t * dx, y - y0 - t * dy);
                let distance = (ex * ex + ey * ey).sqrt();
                let coverage = (strength * ((pen - distance) * scale + 0.5).clamp(0.0, 1.0)) as f32;
                let pixel = &mut ink[row * side + column];
                *pixel = pixel.max(coverage);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Glyphs = Glyphs { seed: 0, size: 28, channels: 1, train_images: 3000, test_images: 1000 };

    #[test]
    fn drawing_is_a_function_of_seed_and_position() {
        assert_eq!(SMALL.draw(5), SMALL.draw(5));
        assert_ne!(SMALL.draw(5), SMALL.draw(15));
        assert_ne!(SMALL.draw(5), Glyphs { seed: 1, ..SMALL }.draw(5));
        // The first test image is no training image.
        assert_ne!(SMALL.draw(0), SMALL.draw(3000));
        assert_eq!(Glyphs { channels: 3, size: 45, ..SMALL }.draw(1).len(), 3 * 45 * 45);
        let first = blake3::hash(&(0..10).flat_map(|position| SMALL.draw(position)).collect::<Vec<_>>());
        assert_eq!(
            first.to_hex()[..16],
            *FIRST_TEN,
            "the drawing of glyphs changed: every stored result with them is void"
        );
    }

    /// Pins the bytes: they must not change between versions or machines.
    const FIRST_TEN: &str = "5575b19e70bf174b";

    #[test]
    fn tiny_and_large_images_are_drawn_too() {
        for size in [1, 2, 8, 224] {
            let image = Glyphs { size, ..SMALL }.draw(3);
            assert_eq!(image.len(), size * size);
            if size >= 8 {
                assert!(image.iter().max() > image.iter().min());
            }
        }
    }

    /// Multinomial logistic regression by stochastic gradient descent: accuracy on the test part.
    fn linear_accuracy(glyphs: &Glyphs) -> f64 {
        let survey = glyphs.survey();
        let pixels = glyphs.size * glyphs.size;
        let images: Vec<Vec<f32>> = (0..survey.entries.len())
            .map(|position| {
                let image = glyphs.draw(position as u32);
                // Each image to mean 0 and deviation 1: the linear classifier gets every help.
                let mean = image.iter().map(|&p| f32::from(p)).sum::<f32>() / pixels as f32;
                let deviation =
                    (image.iter().map(|&p| (f32::from(p) - mean).powi(2)).sum::<f32>() / pixels as f32).sqrt().max(1.0);
                image.iter().map(|&p| (f32::from(p) - mean) / deviation).collect()
            })
            .collect();
        let mut weights = vec![0.0f32; 10 * (pixels + 1)];
        let logits = |weights: &[f32], image: &[f32]| -> [f32; 10] {
            std::array::from_fn(|class| {
                let row = &weights[class * (pixels + 1)..(class + 1) * (pixels + 1)];
                row[pixels] + row.iter().zip(image).map(|(w, x)| w * x).sum::<f32>()
            })
        };
        for epoch in 0..8 {
            let mut order: Vec<usize> = (0..glyphs.train_images).collect();
            Counter::new(0, Purpose::Order, epoch, 0).shuffle(&mut order);
            let rate = 0.003 / (1.0 + epoch as f32);
            for index in order {
                let image = &images[index];
                let z = logits(&weights, image);
                let top = z.iter().copied().fold(f32::MIN, f32::max);
                let sum: f32 = z.iter().map(|z| (z - top).exp()).sum();
                for class in 0..10 {
                    let target = if survey.entries[index].label == class as u32 { 1.0 } else { 0.0 };
                    let step = rate * ((z[class] - top).exp() / sum - target);
                    let row = &mut weights[class * (pixels + 1)..(class + 1) * (pixels + 1)];
                    row.iter_mut().zip(image).for_each(|(w, x)| *w -= step * x);
                    row[pixels] -= step;
                }
            }
        }
        let right = (glyphs.train_images..images.len()).filter(|&index| {
            let z = logits(&weights, &images[index]);
            let best = (0..10).max_by(|&a, &b| z[a].total_cmp(&z[b])).unwrap();
            best as u32 == survey.entries[index].label
        });
        right.count() as f64 / glyphs.test_images as f64
    }

    #[test]
    fn a_linear_classifier_fails() {
        let accuracy = linear_accuracy(&SMALL);
        assert!(accuracy < 0.75, "a linear classifier reaches {accuracy}");
    }
}
