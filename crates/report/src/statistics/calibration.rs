//! Whether probabilities can be believed.

/// Bins of a reliability diagram.
pub const BINS: usize = 15;

/// Images whose confidence falls into one bin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// Images.
    pub images: u64,
    /// Mean probability of the predicted class, in [0, 1]; 0 without images.
    pub confidence: f64,
    /// Share of right predictions, in [0, 1]; 0 without images.
    pub accuracy: f64,
}

/// Reliability diagram: [`BINS`] bins of equal width, the m-th holding confidences in ((m − 1)/15, m/15] (Guo et al. 2017, "On
/// Calibration of Modern Neural Networks", section 2).
pub fn reliability(confidences: &[f64], right: &[bool]) -> [Bin; BINS] {
    let mut bins = [Bin::default(); BINS];
    for (&confidence, &right) in confidences.iter().zip(right) {
        let bin = &mut bins[((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1];
        bin.images += 1;
        bin.confidence += confidence;
        bin.accuracy += f64::from(u8::from(right));
    }
    for bin in bins.iter_mut().filter(|bin| bin.images > 0) {
        bin.confidence /= bin.images as f64;
        bin.accuracy /= bin.images as f64;
    }
    bins
}

/// Expected calibration error in [0, 1]: mean distance between confidence and accuracy over the bins, weighted by their images
/// (Guo et al. 2017, equation 3). `None` without images.
pub fn calibration_error(bins: &[Bin]) -> Option<f64> {
    let images: u64 = bins.iter().map(|bin| bin.images).sum();
    let apart: f64 = bins.iter().map(|bin| bin.images as f64 * (bin.confidence - bin.accuracy).abs()).sum();
    (images > 0).then(|| apart / images as f64)
}
