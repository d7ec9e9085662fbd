//! Colour distortions as one affine map of a pixel, so that all of them cost one pass.

use plan::Augment;

use crate::{
    Manifest,
    elementary::sin_cos,
    rng::{Counter, Purpose},
};

/// Weights of red, green and blue in brightness (ITU-R BT.601).
const LUMA: [f64; 3] = [0.299, 0.587, 0.114];

/// What happens to a pixel's values: from 0 … 255 to normalised, `value[i] = Σⱼ matrix[i][j]·pixel[j] + offset[i]`, then
/// clamped. Gray images use the first row and column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tone {
    pub matrix: [[f32; 3]; 3],
    pub offset: [f32; 3],
    /// Black and white in normalised units where values are clamped to them.
    pub bounds: Option<([f32; 3], [f32; 3])>,
    /// Whether the channels stay apart.
    pub diagonal: bool,
}

/// Mean and deviation per channel; a constant channel is only centred.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Normalizer {
    mean: [f64; 3],
    scale: [f64; 3],
}

impl Normalizer {
    pub fn new(manifest: &Manifest) -> Self {
        Self::of(&manifest.mean, &manifest.std)
    }

    /// By the mean and the deviation of each channel, in units of the full range.
    pub fn of(mean: &[f64], std: &[f64]) -> Self {
        let pick = |values: &[f64], channel: usize| values.get(channel).or(values.first()).copied().unwrap_or(0.0);
        let mean = [0, 1, 2].map(|channel| pick(mean, channel));
        let scale = [0, 1, 2].map(|channel| {
            let deviation = pick(std, channel);
            if deviation > 1e-6 { 1.0 / deviation } else { 1.0 }
        });
        Self { mean, scale }
    }

    /// Deviation 1 in normalised units, of a value in units of the full range.
    pub fn scale(&self, channel: usize) -> f32 {
        self.scale[channel] as f32
    }

    /// The map that only normalises: (pixel / 255 − mean) / deviation.
    pub fn plain(&self) -> Tone {
        self.tone([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [0.0; 3], false)
    }

    /// Normalises after `matrix`·x + `offset`, x in [0, 1].
    fn tone(&self, matrix: [[f64; 3]; 3], offset: [f64; 3], clamp: bool) -> Tone {
        let at = |channel: usize, value: f64| ((value - self.mean[channel]) * self.scale[channel]) as f32;
        Tone {
            matrix: [0, 1, 2].map(|i| [0, 1, 2].map(|j| (matrix[i][j] * self.scale[i] / 255.0) as f32)),
            offset: [0, 1, 2].map(|i| at(i, offset[i])),
            bounds: clamp.then(|| ([0, 1, 2].map(|i| at(i, 0.0)), [0, 1, 2].map(|i| at(i, 1.0)))),
            diagonal: (0..3).all(|i| (0..3).all(|j| i == j || matrix[i][j] == 0.0)),
        }
    }

    /// Draws the colours of one sample. Brightness scales, contrast pulls away from the image's mean brightness, saturation
    /// away from each pixel's gray, hue turns about the gray axis (in YIQ, so brightness stays), then PCA noise is added
    /// (Krizhevsky et al. 2012, section 4.1: Σₖ pₖ·αₖ·λₖ with αₖ normal). One clamp at the end, where any but PCA is on. `luma` tells the
    /// image's mean brightness.
    pub fn draw(
        &self,
        augment: &Augment,
        manifest: &Manifest,
        luma: &dyn Fn() -> f64,
        seed: u64,
        epoch: u32,
        sample: u32,
    ) -> Tone {
        let mut rng = Counter::new(seed, Purpose::Color, epoch, sample);
        // Each has its draw whether it is on or not: switching one on does not move the others.
        let [brightness, contrast, saturation, hue] =
            [augment.brightness, augment.contrast, augment.saturation, augment.hue]
                .map(|most| rng.range(-1.0, 1.0) * most);
        let jitter =
            [augment.brightness, augment.contrast, augment.saturation, augment.hue].iter().any(|&most| most > 0.0);
        let gain = (1.0 + brightness) * (1.0 + contrast);
        let middle = if contrast == 0.0 { 0.0 } else { luma() };
        let lift = -contrast * middle * (1.0 + brightness);
        let mut matrix = [[gain, 0.0, 0.0], [0.0, gain, 0.0], [0.0, 0.0, gain]];
        let mut offset = [lift; 3];
        if manifest.channels == 3 {
            if saturation != 0.0 {
                matrix = product(&saturate(1.0 + saturation), &matrix);
            }
            if hue != 0.0 {
                matrix = product(&turn_hue(hue), &matrix);
            }
            if let (Some(principal), true) = (&manifest.principal, augment.pca > 0.0) {
                let mut rng = Counter::new(seed, Purpose::Pca, epoch, sample);
                for (value, vector) in principal.values.iter().zip(&principal.vectors) {
                    let weight = rng.normal() * augment.pca * value;
                    offset.iter_mut().zip(vector).for_each(|(offset, component)| *offset += weight * component);
                }
            }
        }
        self.tone(matrix, offset, jitter)
    }
}

/// Mean brightness of an image [C, H, W], in [0, 1].
pub(crate) fn mean_luma(image: &[u8], channels: usize) -> f64 {
    let plane = image.len() / channels;
    let mean = |pixels: &[u8]| {
        // Pieces short enough for 32 bits, which the compiler turns into vector code.
        let sum: u64 =
            pixels.chunks(1 << 16).map(|piece| u64::from(piece.iter().map(|&p| u32::from(p)).sum::<u32>())).sum();
        sum as f64 / plane as f64 / 255.0
    };
    if channels == 1 {
        return mean(image);
    }
    image.chunks_exact(plane).zip(LUMA).map(|(pixels, weight)| weight * mean(pixels)).sum()
}

fn product(a: &[[f64; 3]; 3], b: &[[f64; 3]; 3]) -> [[f64; 3]; 3] {
    [0, 1, 2].map(|i| [0, 1, 2].map(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

/// Gray + `factor`·(colour − gray).
fn saturate(factor: f64) -> [[f64; 3]; 3] {
    [0, 1, 2].map(|i| [0, 1, 2].map(|j| (1.0 - factor) * LUMA[j] + if i == j { factor } else { 0.0 }))
}

/// Turns the chroma plane by `turns` of the full circle; brightness stays. With the chroma basis U = B − Y, V = R − Y in
/// BT.601's scaling (0.492, 0.877), which makes equal turns look alike.
fn turn_hue(turns: f64) -> [[f64; 3]; 3] {
    let (sine, cosine) = sin_cos(turns);
    let (u_scale, v_scale) = (0.492, 0.877);
    let to_yuv = [
        LUMA,
        [-LUMA[0] * u_scale, -LUMA[1] * u_scale, (1.0 - LUMA[2]) * u_scale],
        [(1.0 - LUMA[0]) * v_scale, -LUMA[1] * v_scale, -LUMA[2] * v_scale],
    ];
    let to_rgb = [
        [1.0, 0.0, 1.0 / v_scale],
        [1.0, -LUMA[2] / LUMA[1] / u_scale, -LUMA[0] / LUMA[1] / v_scale],
        [1.0, 1.0 / u_scale, 0.0],
    ];
    let turn = [[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]];
    product(&to_rgb, &product(&turn, &to_yuv))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(matrix: &[[f64; 3]; 3], color: [f64; 3]) -> [f64; 3] {
        matrix.map(|row| (0..3).map(|j| row[j] * color[j]).sum())
    }

    fn luma(color: [f64; 3]) -> f64 {
        (0..3).map(|i| LUMA[i] * color[i]).sum()
    }

    fn close(a: [f64; 3], b: [f64; 3]) -> bool {
        (0..3).all(|i| (a[i] - b[i]).abs() < 1e-12)
    }

    #[test]
    fn hue_and_saturation_keep_brightness_and_gray() {
        let color = [0.8, 0.3, 0.1];
        for matrix in [turn_hue(0.2), turn_hue(-0.5), saturate(0.3), saturate(1.7)] {
            assert!((luma(apply(&matrix, color)) - luma(color)).abs() < 1e-12);
            assert!(close(apply(&matrix, [0.4; 3]), [0.4; 3]));
            assert!(!close(apply(&matrix, color), color));
        }
        assert!(close(apply(&turn_hue(0.0), color), color));
        assert!(close(apply(&turn_hue(1.0), color), color));
        assert!(close(apply(&turn_hue(0.25), apply(&turn_hue(-0.25), color)), color));
        assert!(close(apply(&saturate(1.0), color), color));
        assert!(close(apply(&saturate(0.0), color), [luma(color); 3]));
    }

    #[test]
    fn brightness_of_an_image_weighs_its_channels() {
        assert!((mean_luma(&[255, 255, 0, 0, 0, 0], 3) - 0.299).abs() < 1e-12);
        assert!((mean_luma(&[0, 255], 1) - 0.5).abs() < 1e-12);
    }
}
