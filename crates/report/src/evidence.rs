//! What the database does not hold: true classes, images, and what trained weights say about single images.

use crate::picture::Picture;

/// True classes of a data set's test part, which the database does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// Class of each image of the test part, in its order.
    pub labels: Vec<u16>,
    /// Names of the classes by index; may be empty.
    pub classes: Vec<String>,
}

/// What the weights of a run say about images of the test part, one by one. The vectors are of one length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Examination {
    /// Places of the images in the test part, from 0.
    pub places: Vec<u32>,
    /// Most probable class of each.
    pub predicted: Vec<u16>,
    /// True class of each.
    pub actual: Vec<u16>,
    /// Probability of the most probable class, in [0, 1].
    pub confidence: Vec<f64>,
    /// Probability of the true class, in [0, 1].
    pub probability_of_truth: Vec<f64>,
    /// Filters of the first convolution, where there is one.
    pub filters: Option<Filters>,
}

impl Examination {
    /// Whether the vectors are of one length.
    pub fn sound(&self) -> bool {
        let n = self.places.len();
        [self.predicted.len(), self.actual.len(), self.confidence.len(), self.probability_of_truth.len()] == [n; 4]
    }
}

/// Weights of a convolution.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filters {
    /// [O, C, KH, KW].
    pub shape: [usize; 4],
    /// O·C·KH·KW weights.
    pub weights: Vec<f32>,
}

/// Where a report gets what the database does not hold. Everything may be missing: the page then says less.
pub trait Evidence {
    /// True classes of the test part of the data with this fingerprint.
    fn truth(&self, _fingerprint: &str) -> Option<Truth> {
        None
    }

    /// What the run's weights say about images of the test part.
    fn examine(&self, _run: i64) -> Option<Examination> {
        None
    }

    /// Memory that training one step of the run takes, in bytes: parameters, moments, activations, batches.
    fn memory_bytes(&self, _run: i64) -> Option<u64> {
        None
    }

    /// The image at `place` of the test part of the data with this fingerprint.
    fn picture(&self, _fingerprint: &str, _place: u32) -> Option<Picture> {
        None
    }
}

/// No evidence: what the database holds is all there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl Evidence for Nothing {}
