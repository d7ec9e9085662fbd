//! Loss and accuracies from logits.

/// Metrics of a split.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean cross-entropy with hard labels.
    pub loss: f64,
    /// Share of images whose class is ranked first, in [0, 1].
    pub top1: f64,
    /// Share of images whose class is among the first five, in [0, 1].
    pub top5: f64,
    /// Class ranked first for each image, in the split's order.
    pub predictions: Vec<u16>,
}

/// Running sums over images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Σ loss.
    pub loss: f64,
    /// Images whose class is ranked first.
    pub top1: u64,
    /// Images whose class is among the first five.
    pub top5: u64,
    /// Images.
    pub images: u64,
}

/// What one training step came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepScores {
    /// Mean cross-entropy of the batch, as computed: in 32 bits.
    pub loss: f32,
    /// Images whose class was ranked first.
    pub top1: u64,
    /// Images whose class was among the first five.
    pub top5: u64,
    /// Images.
    pub images: u64,
}

/// log Σ eˡ.
fn log_sum_exp(row: &[f32]) -> f64 {
    let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    largest + row.iter().map(|&v| (f64::from(v) - largest).exp()).sum::<f64>().ln()
}

/// Probabilities of logits.
pub(crate) fn softmax(row: &[f32]) -> Vec<f64> {
    let sum = log_sum_exp(row);
    row.iter().map(|&v| (f64::from(v) - sum).exp()).collect()
}

/// Position of the first largest value.
pub(crate) fn first_largest(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (i, &v)| if v > row[best] { i } else { best })
}

impl Scores {
    /// Ranks: an image counts for top k if fewer than k classes score higher, ties going to the lower class.
    pub(crate) fn rank(&mut self, logits: &[f32], label: usize) {
        let own = logits[label];
        let ahead = logits.iter().enumerate().filter(|&(i, &v)| v > own || (v == own && i < label)).count();
        self.top1 += u64::from(ahead < 1 && !own.is_nan());
        self.top5 += u64::from(ahead < 5 && !own.is_nan());
        self.images += 1;
    }

    /// Adds a training step.
    pub(crate) fn step(&mut self, step: &StepScores) {
        self.loss += f64::from(step.loss) * step.images as f64;
        self.top1 += step.top1;
        self.top5 += step.top5;
        self.images += step.images;
    }

    /// Ranks and adds the cross-entropy of a hard label.
    pub(crate) fn add(&mut self, logits: &[f32], label: usize) {
        self.rank(logits, label);
        self.loss += log_sum_exp(logits) - f64::from(logits[label]);
    }

    /// Means over the images.
    pub(crate) fn evaluation(&self, predictions: Vec<u16>) -> Evaluation {
        let images = self.images as f64;
        Evaluation {
            loss: self.loss / images,
            top1: self.top1 as f64 / images,
            top5: self.top5 as f64 / images,
            predictions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_loss_of_known_logits() {
        let mut scores = Scores::default();
        let logits = [0.0, 3.0, 1.0, 2.0, -1.0, -2.0, -3.0];
        for (label, top1, top5) in [(1, 1, 1), (3, 1, 2), (4, 1, 3), (5, 1, 3)] {
            scores.rank(&logits, label);
            assert_eq!((scores.top1, scores.top5), (top1, top5), "label {label}");
        }
        let mut scores = Scores::default();
        scores.add(&[0.0, 0.0], 1);
        assert!((scores.loss - 2.0_f64.ln()).abs() < 1e-12);
        assert_eq!((scores.top1, scores.top5), (0, 1), "a tie goes to the lower class");
        assert_eq!(first_largest(&[1.0, 2.0, 2.0]), 1);
    }

    #[test]
    fn nan_logits_are_never_right() {
        let mut scores = Scores::default();
        scores.rank(&[f32::NAN; 3], 0);
        assert_eq!((scores.top1, scores.top5), (0, 0));
    }
}
