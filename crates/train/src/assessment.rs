//! What a network does on a split, class by class, and whether its probabilities can be believed.

use crate::{
    Evaluation, Scores,
    metrics::{first_largest, softmax},
};

/// Bins of the calibration error.
const BINS: usize = 15;

/// Images whose confidence falls into one bin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bin {
    images: u64,
    right: u64,
    confidence: f64,
}

/// Everything that is known of a network on a split once each image has been looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    classes: usize,
    scores: Scores,
    predictions: Vec<u16>,
    confusion: Vec<u64>,
    bins: [Bin; BINS],
}

/// How well one class is told from the others. Shares are in [0, 1] and absent where nothing can be shared out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassScores {
    /// Images of the class.
    pub support: u64,
    /// Share of right ones among the images that were taken for this class.
    pub precision: Option<f64>,
    /// Share of the class' images that were recognized.
    pub recall: Option<f64>,
    /// Harmonic mean of precision and recall.
    pub f1: Option<f64>,
}

/// One class taken for another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Confusion {
    /// What the images show.
    pub class: usize,
    /// What they were taken for.
    pub predicted: usize,
    /// How many.
    pub images: u64,
    /// Their share of the class' images, in (0, 1].
    pub share: f64,
}

impl Assessment {
    /// Of no image yet.
    pub(crate) fn new(classes: usize) -> Self {
        Self {
            classes,
            scores: Scores::default(),
            predictions: Vec::new(),
            confusion: vec![0; classes * classes],
            bins: [Bin::default(); BINS],
        }
    }

    /// Counts one image by its logits, or by the logarithms of its probabilities.
    pub(crate) fn add(&mut self, logits: &[f32], label: usize) {
        self.scores.add(logits, label);
        let predicted = first_largest(logits);
        self.predictions.push(predicted as u16);
        self.confusion[label * self.classes + predicted] += 1;
        let confidence = softmax(logits)[predicted];
        // (m − 1)/15 < confidence ≤ m/15, as Guo et al. 2017, section 2.
        let bin = ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
        let bin = &mut self.bins[bin];
        bin.images += 1;
        bin.right += u64::from(predicted == label);
        bin.confidence += confidence;
    }

    /// Loss, accuracies and predictions.
    pub fn evaluation(&self) -> Evaluation {
        self.scores.evaluation(self.predictions.clone())
    }

    /// Number of classes K.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Images of each class by what they were taken for: [K, K], a row for each true class.
    pub fn confusion(&self) -> &[u64] {
        &self.confusion
    }

    /// Expected calibration error in [0, 1]: the mean distance between confidence and accuracy, over 15 bins of equal width,
    /// each weighted by its images (Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3). 0 without images.
    pub fn calibration_error(&self) -> f64 {
        let apart: f64 = self.bins.iter().map(|bin| (bin.confidence - bin.right as f64).abs()).sum();
        apart / (self.scores.images.max(1)) as f64
    }

    /// Precision, recall and F1 of each class.
    pub fn class_scores(&self) -> Vec<ClassScores> {
        let k = self.classes;
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        (0..k)
            .map(|class| {
                let right = self.confusion[class * k + class];
                let support = self.confusion[class * k..][..k].iter().sum();
                let taken = (0..k).map(|row| self.confusion[row * k + class]).sum();
                ClassScores {
                    support,
                    precision: share(right, taken),
                    recall: share(right, support),
                    f1: share(2 * right, support + taken),
                }
            })
            .collect()
    }

    /// Precision, recall and F1 averaged over the classes that occur or were predicted, each counting alike and an undefined share
    /// as 0: the "macro avg" of scikit-learn's report. 0 without images.
    pub fn macro_scores(&self) -> [f64; 3] {
        let seen = |scores: &ClassScores| scores.recall.is_some() || scores.precision.is_some();
        let classes: Vec<ClassScores> = self.class_scores().into_iter().filter(seen).collect();
        [
            |scores: &ClassScores| scores.precision,
            |scores: &ClassScores| scores.recall,
            |scores: &ClassScores| scores.f1,
        ]
        .map(|share| classes.iter().filter_map(share).sum::<f64>() / classes.len().max(1) as f64)
    }

    /// The most frequent mistakes, at most `most`; ties in the order of the classes.
    pub fn most_confused(&self, most: usize) -> Vec<Confusion> {
        let k = self.classes;
        let mut pairs: Vec<Confusion> = (0..k * k)
            .filter(|cell| cell / k != cell % k && self.confusion[*cell] > 0)
            .map(|cell| {
                let (class, predicted, images) = (cell / k, cell % k, self.confusion[cell]);
                let support: u64 = self.confusion[class * k..][..k].iter().sum();
                Confusion { class, predicted, images, share: images as f64 / support as f64 }
            })
            .collect();
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.images));
        pairs.truncate(most);
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits whose softmax gives `class` the probability `p` and shares the rest out.
    fn sure(class: usize, p: f32) -> [f32; 3] {
        let mut row = [((1.0 - p) / 2.0).ln(); 3];
        row[class] = p.ln();
        row
    }

    fn example() -> Assessment {
        let mut assessment = Assessment::new(3);
        // (label, predicted, confidence)
        for (label, predicted, p) in
            [(0, 0, 0.9), (0, 0, 0.9), (0, 1, 0.9), (0, 1, 0.5), (1, 1, 0.5), (1, 1, 0.7), (1, 0, 0.5)]
        {
            assessment.add(&sure(predicted, p), label);
        }
        assessment
    }

    #[test]
    fn class_scores_of_a_known_confusion() {
        let assessment = example();
        assert_eq!(assessment.confusion(), [2, 2, 0, 1, 2, 0, 0, 0, 0]);
        let scores = assessment.class_scores();
        let third = 1.0 / 3.0;
        assert_eq!(scores[0].support, 4);
        assert_eq!(scores[0].precision, Some(2.0 * third));
        assert_eq!(scores[0].recall, Some(0.5));
        assert_eq!(scores[0].f1, Some(4.0 / 7.0));
        assert_eq!((scores[1].precision, scores[1].recall), (Some(0.5), Some(2.0 * third)));
        let never = ClassScores { support: 0, precision: None, recall: None, f1: None };
        assert_eq!(scores[2], never, "a class that neither occurs nor is predicted has no scores");
        assert!((assessment.evaluation().top1 - 4.0 / 7.0).abs() < 1e-12);
    }

    /// One case of `tests/golden/evaluation.json`.
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Golden {
        name: String,
        logits: Vec<Vec<f32>>,
        labels: Vec<usize>,
        loss: f64,
        top1: f64,
        top5: f64,
        confusion: Vec<Vec<u64>>,
        precision: Vec<Option<f64>>,
        recall: Vec<Option<f64>>,
        f1: Vec<Option<f64>>,
        support: Vec<u64>,
        #[serde(rename = "macro")]
        averages: [f64; 3],
        calibration_error: f64,
    }

    #[test]
    fn scores_are_those_of_scikit_learn() {
        let text = include_str!("../tests/golden/evaluation.json");
        let mut golden: serde_json::Value = serde_json::from_str(text).unwrap();
        let cases: Vec<Golden> = serde_json::from_value(golden["cases"].take()).unwrap();
        assert_eq!(cases.len(), 6);
        for case in cases {
            let name = &case.name;
            let mut assessment = Assessment::new(case.confusion.len());
            for (logits, &label) in case.logits.iter().zip(&case.labels) {
                assessment.add(logits, label);
            }
            let close = |got: f64, expected: f64| (got - expected).abs() <= 1e-12 * expected.abs().max(1.0);
            let evaluation = assessment.evaluation();
            assert!(close(evaluation.loss, case.loss), "{name}: loss {} is not {}", evaluation.loss, case.loss);
            assert!(close(evaluation.top1, case.top1) && close(evaluation.top5, case.top5), "{name}: {evaluation:?}");
            assert_eq!(assessment.confusion(), case.confusion.concat(), "{name}");
            let got = assessment.calibration_error();
            assert!(close(got, case.calibration_error), "{name}: {got} is not {}", case.calibration_error);
            let scores = assessment.class_scores();
            assert_eq!(scores.iter().map(|scores| scores.support).collect::<Vec<_>>(), case.support, "{name}");
            for (class, scores) in scores.iter().enumerate() {
                let got = [scores.precision, scores.recall, scores.f1];
                for (got, expected) in got.into_iter().zip([case.precision[class], case.recall[class], case.f1[class]])
                {
                    let same = match (got, expected) {
                        (Some(got), Some(expected)) => close(got, expected),
                        (got, expected) => got == expected,
                    };
                    assert!(same, "{name}, class {class}: {got:?} is not {expected:?}");
                }
            }
            for (got, expected) in assessment.macro_scores().into_iter().zip(case.averages) {
                assert!(close(got, expected), "{name}: macro average {got} is not {expected}");
            }
        }
        assert_eq!(Assessment::new(3).macro_scores(), [0.0; 3]);
    }

    #[test]
    fn mistakes_come_with_the_most_frequent_first() {
        let pairs = example().most_confused(9);
        assert_eq!(pairs.iter().map(|p| (p.class, p.predicted, p.images)).collect::<Vec<_>>(), [(0, 1, 2), (1, 0, 1)]);
        assert_eq!(pairs[0].share, 0.5);
        assert_eq!(example().most_confused(1).len(), 1);
    }

    #[test]
    fn calibration_error_by_hand() {
        // Bins: 0.9 (3 images, 2 right), 0.5 (3 images, 1 right), 0.7 (1 image, right).
        let expected = ((2.7_f64 - 2.0).abs() + (1.5_f64 - 1.0).abs() + (0.7_f64 - 1.0).abs()) / 7.0;
        assert!((example().calibration_error() - expected).abs() < 1e-6);
        let mut perfect = Assessment::new(3);
        perfect.add(&sure(1, 1.0 - 1e-7), 1);
        assert!(perfect.calibration_error() < 1e-6);
        assert_eq!(Assessment::new(3).calibration_error(), 0.0);
    }
}
