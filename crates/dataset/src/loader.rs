//! Batches: normalised images [N, C, H, W] and target distributions [N, K], drawn from a prepared data set.

mod recipe;

use std::{
    ops::Range,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use plan::Augment;

pub use recipe::Recipe;

use crate::{
    DatasetError, Prepared,
    color::{Normalizer, Tone, mean_luma},
    elementary::{exp, ln},
    geometry::{Lanes, Size, Warp, Window, cut, warp},
    resized_crop::{Region, Scaler},
    rng::{Counter, Purpose},
};

/// What decides how a training sample looks, besides its index.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// Seed of the trial.
    pub seed: u64,
    /// Epoch, from 0.
    pub epoch: u32,
    /// Share of the target spread evenly over all classes, in [0, 1).
    pub label_smoothing: f32,
    /// Images that mixup may mix in: the training split. With none, mixup mixes a sample with itself.
    pub partners: &'a [u32],
}

/// Room that one thread keeps from sample to sample, so that steady loading allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    lanes: Lanes,
    scaler: Scaler,
    partner: Vec<f32>,
}

/// Turns images of a prepared data set into what a network sees. One loader serves any number of threads, each with a
/// [`Scratch`] of its own; what a sample looks like depends on (seed, epoch, sample) alone.
#[derive(Clone, Debug)]
pub struct Loader {
    prepared: Prepared,
    augment: Augment,
    image: Size,
    sample: Size,
    normalizer: Normalizer,
    plain: Tone,
    colored: bool,
    warped: bool,
    /// Mean brightness of each image, as bits; NaN until it is asked for. None where contrast stays.
    brightness: Arc<Vec<AtomicU64>>,
}

impl Loader {
    /// A loader of `prepared` that distorts training images by `augment`.
    ///
    /// # Errors
    /// A crop or cutout that does not fit the images, or colour distortions of gray images.
    pub fn new(prepared: &Prepared, augment: &Augment) -> Result<Self, DatasetError> {
        let manifest = prepared.manifest();
        let image = Size { height: manifest.height, width: manifest.width };
        let sample = match augment.crop {
            None => image,
            Some(side) => Size { height: side, width: side },
        };
        let room = image.height.min(image.width) + 2 * augment.pad;
        if augment.crop.is_some_and(|side| side == 0 || side > room) {
            return Err(DatasetError::setting(
                "augment.crop",
                format!(
                    "must be between 1 and {room}: the images have {}×{} pixels, padding included",
                    image.width + 2 * augment.pad,
                    image.height + 2 * augment.pad
                ),
            ));
        }
        if augment.cutout > sample.height.min(sample.width) {
            return Err(DatasetError::setting(
                "augment.cutout",
                format!("must be at most {}, the side of the sample", sample.height.min(sample.width)),
            ));
        }
        if manifest.channels == 1 {
            for (key, value) in
                [("augment.saturation", augment.saturation), ("augment.hue", augment.hue), ("augment.pca", augment.pca)]
            {
                if value > 0.0 {
                    return Err(DatasetError::setting(
                        key,
                        "needs colour images, but these are gray (dataset.color = \"rgb\" makes them so)",
                    ));
                }
            }
        }
        let normalizer = Normalizer::new(manifest);
        let colors = [augment.brightness, augment.contrast, augment.saturation, augment.hue, augment.pca];
        Ok(Self {
            prepared: prepared.clone(),
            augment: augment.clone(),
            image,
            sample,
            normalizer,
            plain: normalizer.plain(),
            colored: colors.iter().any(|&strength| strength > 0.0),
            warped: Warp::wanted(augment),
            brightness: Arc::new(if augment.contrast > 0.0 {
                (0..prepared.len()).map(|_| AtomicU64::new(f64::NAN.to_bits())).collect()
            } else {
                Vec::new()
            }),
        })
    }

    /// The data set.
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// (C, H, W) of what the network sees.
    pub fn input_size(&self) -> (usize, usize, usize) {
        (self.prepared.manifest().channels, self.sample.height, self.sample.width)
    }

    /// Values of one sample: C·H·W.
    pub fn sample_values(&self) -> usize {
        self.prepared.manifest().channels * self.sample.pixels()
    }

    /// Number of classes K.
    pub fn classes(&self) -> usize {
        self.prepared.classes()
    }

    /// Writes training images to `images` [N, C, H, W], normalised to (x/255 − mean)/deviation, and their target
    /// distributions to `targets` [N, K].
    ///
    /// # Panics
    /// If the slices are not of these sizes, or an index is out of range.
    pub fn fill_training(
        &self,
        indices: &[u32],
        draw: &Draw<'_>,
        scratch: &mut Scratch,
        images: &mut [f32],
        targets: &mut [f32],
    ) {
        assert_eq!(targets.len(), indices.len() * self.classes(), "targets must be [N, K]");
        assert_eq!(images.len(), indices.len() * self.sample_values(), "images must be [N, C, H, W]");
        let samples = images.chunks_exact_mut(self.sample_values()).zip(targets.chunks_exact_mut(self.classes()));
        for (&index, (image, target)) in indices.iter().zip(samples) {
            self.training_sample(index, draw, scratch, image, target);
        }
    }

    /// Writes the centres of images to `images` [N, C, H, W], normalised and not distorted.
    ///
    /// # Panics
    /// If `images` is not of this size, or an index is out of range.
    pub fn fill_evaluation(&self, indices: &[u32], images: &mut [f32]) {
        assert_eq!(images.len(), indices.len() * self.sample_values(), "images must be [N, C, H, W]");
        for (&index, image) in indices.iter().zip(images.chunks_exact_mut(self.sample_values())) {
            self.evaluation_sample(index, image);
        }
    }

    /// Writes the target distributions of undistorted images to `targets` [N, K]: `label_smoothing` spread over all classes
    /// (Szegedy et al. 2016, section 7), the rest on the image's own.
    ///
    /// # Panics
    /// If `targets` is not of this size, or an index is out of range.
    pub fn fill_targets(&self, indices: &[u32], label_smoothing: f32, targets: &mut [f32]) {
        assert_eq!(targets.len(), indices.len() * self.classes(), "targets must be [N, K]");
        for (&index, target) in indices.iter().zip(targets.chunks_exact_mut(self.classes())) {
            self.target(index, label_smoothing, target);
        }
    }

    fn target(&self, index: u32, label_smoothing: f32, target: &mut [f32]) {
        target.fill(label_smoothing / target.len() as f32);
        target[self.prepared.label(index) as usize] += 1.0 - label_smoothing;
    }

    /// Writes one training image to `image` [C, H, W] and its target distribution to `target` (K values).
    ///
    /// With mixup (Zhang et al. 2018) the sample is λ of itself and 1 − λ of a partner, as that looks in this epoch; λ is
    /// drawn from Beta(α, α) for each sample, partner and λ by the sample's own key.
    ///
    /// # Panics
    /// If a slice is too short, or `index` is out of range.
    pub fn training_sample(
        &self,
        index: u32,
        draw: &Draw<'_>,
        scratch: &mut Scratch,
        image: &mut [f32],
        target: &mut [f32],
    ) {
        let Scratch { lanes, scaler, partner: other } = scratch;
        self.distort(index, draw, lanes, scaler, image);
        self.target(index, draw.label_smoothing, target);
        let Some((share, partner)) = self.mixed(index, draw) else { return };
        other.resize(self.sample_values(), 0.0);
        self.distort(partner, draw, lanes, scaler, other);
        image.iter_mut().zip(&*other).for_each(|(own, other)| *own = share * *own + (1.0 - share) * other);
        self.mixed_target(index, share, partner, draw.label_smoothing, target);
    }

    /// With mixup, the sample's share and the partner that has the rest.
    fn mixed(&self, index: u32, draw: &Draw<'_>) -> Option<(f32, u32)> {
        if self.augment.mixup <= 0.0 {
            return None;
        }
        let mut rng = Counter::new(draw.seed, Purpose::Mixup, draw.epoch, index);
        let share = rng.beta(self.augment.mixup, self.augment.mixup) as f32;
        let partner = draw.partners.get(rng.below(draw.partners.len() as u32) as usize).copied().unwrap_or(index);
        Some((share, partner))
    }

    fn mixed_target(&self, index: u32, share: f32, partner: u32, label_smoothing: f32, target: &mut [f32]) {
        target.fill(label_smoothing / target.len() as f32);
        target[self.prepared.label(index) as usize] += share * (1.0 - label_smoothing);
        target[self.prepared.label(partner) as usize] += (1.0 - share) * (1.0 - label_smoothing);
    }

    /// Writes the centre of one image to `image` [C, H, W], normalised.
    ///
    /// # Panics
    /// If `image` is too short, or `index` is out of range.
    pub fn evaluation_sample(&self, index: u32, image: &mut [f32]) {
        let window = Window::center(self.image, self.sample);
        cut(self.prepared.image(index), self.image, window, &self.plain, image, self.sample);
    }

    /// Writes one of the paper's ten views to `image` [C, H, W]: `view` 0 to 4 are the four corners and the centre, 5 to 9
    /// the same flipped (Krizhevsky et al. 2012, section 4.1).
    ///
    /// # Panics
    /// If `view` is above 9, `image` is too short, or `index` is out of range.
    pub fn ten_crop_sample(&self, index: u32, view: usize, image: &mut [f32]) {
        cut(self.prepared.image(index), self.image, self.view(view), &self.plain, image, self.sample);
    }

    fn view(&self, view: usize) -> Window {
        assert!(view < 10, "there are ten views");
        let center = Window::center(self.image, self.sample);
        let bottom = self.image.height as i64 - self.sample.height as i64;
        let right = self.image.width as i64 - self.sample.width as i64;
        let (top, left) = [(0, 0), (0, right), (bottom, 0), (bottom, right), (center.top, center.left)][view % 5];
        Window { top, left, flip: view >= 5 }
    }

    /// One distorted image, before mixup.
    fn distort(&self, index: u32, draw: &Draw<'_>, lanes: &mut Lanes, scaler: &mut Scaler, out: &mut [f32]) {
        let Draw { seed, epoch, .. } = *draw;
        let out = &mut out[..self.sample_values()];
        let pixels = self.prepared.image(index);
        // A resized crop comes first; to all that follows it is the image.
        let (pixels, size, window) = match &self.augment.resized_crop {
            None => (pixels, self.image, Window::draw(&self.augment, self.image, self.sample, seed, epoch, index)),
            Some(ranges) => {
                let region = Region::draw(ranges, self.image, seed, epoch, index);
                let scaled = scaler.scale(pixels, self.image, region, self.sample);
                (scaled, self.sample, Window::whole(&self.augment, seed, epoch, index))
            }
        };
        let tone = if self.colored {
            let manifest = self.prepared.manifest();
            let luma = || match self.augment.resized_crop {
                None => self.luma(index),
                Some(_) => mean_luma(pixels, manifest.channels),
            };
            self.normalizer.draw(&self.augment, manifest, &luma, seed, epoch, index)
        } else {
            self.plain
        };
        if self.warped {
            let map = Warp::draw(&self.augment, size, seed, epoch, index);
            warp(pixels, size, &map, window, &tone, lanes, out, self.sample);
        } else {
            cut(pixels, size, window, &tone, out, self.sample);
        }
        if self.augment.noise > 0.0 {
            self.add_noise(Counter::new(seed, Purpose::Noise, epoch, index), out);
        }
        if self.augment.cutout > 0 {
            self.blank(Counter::new(seed, Purpose::Cutout, epoch, index), out);
        }
    }

    /// Mean brightness of an image, in [0, 1]: found once, since its pixels are many.
    fn luma(&self, index: u32) -> f64 {
        let known = &self.brightness[index as usize];
        let luma = f64::from_bits(known.load(Ordering::Relaxed));
        if !luma.is_nan() {
            return luma;
        }
        let luma = mean_luma(self.prepared.image(index), self.prepared.manifest().channels);
        known.store(luma.to_bits(), Ordering::Relaxed);
        luma
    }

    /// Gaussian noise; values may leave the range of the pixels, which keeps the mean.
    fn add_noise(&self, mut rng: Counter, out: &mut [f32]) {
        let plane = self.sample.pixels();
        for (channel, values) in out.chunks_exact_mut(plane).enumerate() {
            let strength = self.augment.noise as f32 * self.normalizer.scale(channel);
            for eight in values.chunks_mut(8) {
                let bits = rng.block();
                let draws = bits.iter().flat_map(|&bits| [bits & 0xfff, bits >> 20]);
                eight.iter_mut().zip(draws).for_each(|(value, draw)| *value += strength * QUANTILES[draw as usize]);
            }
        }
    }

    /// Cutout (DeVries & Taylor 2017): a square about a random pixel is set to the mean; it may hang over the edge.
    fn blank(&self, rng: Counter, out: &mut [f32]) {
        let (rows, columns) = self.hole(rng);
        for plane in out.chunks_exact_mut(self.sample.pixels()) {
            for row in rows.clone() {
                plane[row * self.sample.width..][columns.clone()].fill(0.0);
            }
        }
    }

    /// Its rows and columns.
    fn hole(&self, mut rng: Counter) -> (Range<usize>, Range<usize>) {
        let side = self.augment.cutout;
        let mut span = |length: usize| {
            let center = rng.below(length as u32) as usize;
            center.saturating_sub(side / 2)..(center + side - side / 2).min(length)
        };
        (span(self.sample.height), span(self.sample.width))
    }
}

/// The normal distribution in 4096 equally likely steps, of deviation 1: a draw is a look-up.
static QUANTILES: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let steps = 4096;
    // Walks the distribution function up from the far tail and notes where it passes the middle of each step.
    let (start, width) = (-8.0, 1.0 / 1024.0);
    let density = |x: f64| exp(-0.5 * x * x - 0.5 * ln(std::f64::consts::TAU));
    let mut quantiles = Vec::with_capacity(steps);
    let (mut x, mut mass) = (start, 0.0);
    while quantiles.len() < steps {
        let next = mass + width * density(x + 0.5 * width);
        let wanted = (quantiles.len() as f64 + 0.5) / steps as f64;
        if next > wanted {
            quantiles.push(x + width * (wanted - mass) / (next - mass));
        } else {
            (x, mass) = (x + width, next);
        }
    }
    let variance = quantiles.iter().map(|q| q * q).sum::<f64>() / steps as f64;
    quantiles.iter().map(|q| (q / variance.sqrt()) as f32).collect()
});
