//! Which images are got wrong: pairs of classes that are confused, and the mistakes made with most confidence.

use std::collections::{BTreeMap, BTreeSet};

use crate::analysis::{Analysis, Configuration};
use crate::evidence::Examination;
use crate::study::{Run, Study};

/// Pairs of classes that the page names for each network.
pub const MOST_PAIRS: usize = 5;
/// Pictures of each pair.
pub const MOST_OF_PAIR: usize = 9;
/// Mistakes that the page shows of each network.
pub const MOST_MISTAKES: usize = 16;

/// One class taken for another, over all seeds of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// True class.
    pub actual: usize,
    /// What it was taken for.
    pub predicted: usize,
    /// How often.
    pub images: u64,
    /// Images of the true class, over all seeds.
    pub of: u64,
    /// Images by their place in the test part: those that most seeds get wrong this way first.
    pub places: Vec<u32>,
}

/// One image that a run got wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mistake {
    /// Place in the test part.
    pub place: u32,
    /// True class.
    pub actual: u16,
    /// What the network said.
    pub predicted: u16,
    /// How sure it was, in [0, 1].
    pub confidence: f64,
    /// What it gave the true class, in [0, 1].
    pub probability_of_truth: f64,
}

/// The most frequent confusions of a configuration, at most `most`.
pub fn confused(study: &Study, configuration: &Configuration<'_>, most: usize) -> Vec<Pair> {
    let mut pairs: BTreeMap<(u16, u16), BTreeMap<u32, u64>> = BTreeMap::new();
    let mut support: BTreeMap<u16, u64> = BTreeMap::new();
    for run in &configuration.done {
        let Some(predictions) = study.predictions.get(&run.id).filter(|p| p.correct().is_some()) else { continue };
        for (place, (&actual, &predicted)) in (0..).zip(predictions.actual.iter().zip(&predictions.predicted)) {
            *support.entry(actual).or_default() += 1;
            if actual != predicted {
                *pairs.entry((actual, predicted)).or_default().entry(place).or_default() += 1;
            }
        }
    }
    let mut pairs: Vec<Pair> = pairs
        .into_iter()
        .map(|((actual, predicted), places)| {
            let images = places.values().sum();
            let mut places: Vec<(u32, u64)> = places.into_iter().collect();
            places.sort_by_key(|&(place, seeds)| (std::cmp::Reverse(seeds), place));
            Pair {
                actual: actual.into(),
                predicted: predicted.into(),
                images,
                of: support[&actual],
                places: places.into_iter().map(|(place, _)| place).take(MOST_OF_PAIR).collect(),
            }
        })
        .collect();
    pairs.sort_by_key(|pair| (std::cmp::Reverse(pair.images), pair.actual, pair.predicted));
    pairs.truncate(most);
    pairs
}

/// The run of a configuration whose weights were examined.
pub fn examined<'s>(study: &'s Study, configuration: &Configuration<'s>) -> Option<(&'s Run, &'s Examination)> {
    configuration.done.iter().find_map(|run| Some((*run, study.examinations.get(&run.id)?)))
}

/// The mistakes made with most confidence, at most `most`.
pub fn worst(examination: &Examination, most: usize) -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = (0..examination.places.len())
        .filter(|&index| examination.predicted[index] != examination.actual[index])
        .map(|index| Mistake {
            place: examination.places[index],
            actual: examination.actual[index],
            predicted: examination.predicted[index],
            confidence: examination.confidence[index],
            probability_of_truth: examination.probability_of_truth[index],
        })
        .collect();
    mistakes.sort_by(|a, b| b.confidence.total_cmp(&a.confidence).then(a.place.cmp(&b.place)));
    mistakes.truncate(most);
    mistakes
}

/// Images that the page will show: the fingerprint of their data and their place in its test part.
pub fn wanted(study: &Study, analysis: &Analysis<'_>) -> BTreeSet<(String, u32)> {
    let mut wanted = BTreeSet::new();
    for chosen in analysis.chosen() {
        let Some(fingerprint) = chosen.any().map(|run| &run.provenance.data_fingerprint) else { continue };
        let pairs = confused(study, chosen, MOST_PAIRS).into_iter().flat_map(|pair| pair.places);
        let mistakes = examined(study, chosen).map(|(_, examination)| worst(examination, MOST_MISTAKES));
        let places = pairs.chain(mistakes.into_iter().flatten().map(|mistake| mistake.place));
        wanted.extend(places.map(|place| (fingerprint.clone(), place)));
    }
    wanted
}

/// Name of a class.
pub fn class_name(classes: &[String], class: usize) -> String {
    classes.get(class).map_or_else(|| class.to_string(), |name| crate::text::visible(name))
}

/// Names of the classes that a configuration's networks tell apart, as far as they are known.
pub fn class_names<'s>(study: &'s Study, configuration: &Configuration<'_>) -> &'s [String] {
    configuration
        .done
        .iter()
        .filter_map(|run| study.predictions.get(&run.id))
        .map(|predictions| predictions.classes.as_slice())
        .max_by_key(|classes| classes.len())
        .unwrap_or(&[])
}
