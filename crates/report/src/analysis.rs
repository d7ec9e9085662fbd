//! From runs to findings: configurations, the choice on validation, the comparison on test.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::importance::{Importance, Sources, importance};
use crate::naming;
use crate::statistics::{
    ALPHA, Estimate, McNemar, POWER, PairedT, Welch, Wilcoxon, holm, mcnemar, paired_t, pairs_needed, welch_t,
    wilcoxon_signed_rank,
};
use crate::study::{Run, Status, Study};

/// Accuracy levels that "epochs to a target" may use.
const TARGETS: [f64; 16] = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.985, 0.99];

/// Runs that differ in the seed only.
#[derive(Clone, Debug)]
pub struct Configuration<'a> {
    /// Identity of the configuration.
    pub key: &'a str,
    /// Network that it competes for (see [`Analysis::networks`]).
    pub network: String,
    /// Swept keys and values, and the variant where that says more than the network's name.
    pub settings: String,
    /// Swept keys and values.
    pub assignments: &'a [(String, Value)],
    /// Finished runs by seed.
    pub done: Vec<&'a Run>,
    /// Runs that have not finished.
    pub unfinished: usize,
    /// Validation accuracy at each run's last epoch.
    pub validation: Option<Estimate>,
    /// Test accuracy.
    pub test: Option<Estimate>,
}

impl<'a> Configuration<'a> {
    /// One finished run to read from what all seeds share.
    pub fn any(&self) -> Option<&'a Run> {
        self.done.first().copied()
    }

    /// Estimate of a quantity over the finished runs.
    pub fn estimate(&self, of: impl Fn(&Run) -> Option<f64>) -> Option<Estimate> {
        Estimate::of(&self.done.iter().filter_map(|run| of(run)).collect::<Vec<_>>())
    }

    /// Network and settings in one line.
    pub fn label(&self) -> String {
        if self.settings.is_empty() { self.network.clone() } else { format!("{} {}", self.network, self.settings) }
    }

    /// Lowest last training loss stands in for validation where nothing was validated.
    fn score(&self) -> (f64, f64) {
        let training = self.estimate(|run| run.epochs.last().map(|epoch| epoch.train_loss));
        let loss = self.estimate(|run| run.tested_epoch().and_then(|epoch| epoch.validation_loss)).or(training);
        (
            self.validation.map_or(f64::NEG_INFINITY, |estimate| estimate.mean),
            loss.map_or(f64::NEG_INFINITY, |estimate| -estimate.mean),
        )
    }
}

/// Two chosen configurations against each other on the test part.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Index of the first configuration.
    pub first: usize,
    /// Index of the second configuration.
    pub second: usize,
    /// Both were tested on the same data.
    pub same_data: bool,
    /// Number of seeds that both have.
    pub shared_seeds: usize,
    /// Mean test accuracy of the first less the second's: over shared seeds where there are any.
    pub difference: Option<f64>,
    /// Paired t-test over shared seeds.
    pub paired: Option<PairedT>,
    /// Wilcoxon's test over shared seeds.
    pub wilcoxon: Option<Wilcoxon>,
    /// Welch's test, where seeds are not shared.
    pub welch: Option<Welch>,
    /// McNemar's test for each shared seed with its p-value after Holm's correction over all of them.
    pub mcnemar: Vec<(u64, McNemar, f64)>,
    /// p-value of the paired (else Welch's) test after Holm's correction over all comparisons.
    pub adjusted_p: Option<f64>,
}

/// What a comparison comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// The difference is real at the 5 % level.
    Real,
    /// It may be chance; about so many more seeds would decide it, where that is within reach.
    Inconclusive(Option<usize>),
    /// One seed only, but McNemar's test says that these two trained networks differ.
    TheseNetworksOnly,
    /// There is no test to be made: too few seeds and no predictions.
    Untested,
}

impl Comparison {
    /// What it comes to.
    pub fn verdict(&self) -> Verdict {
        match self.adjusted_p {
            Some(p) if p < ALPHA => Verdict::Real,
            Some(_) => Verdict::Inconclusive(self.more_seeds()),
            None if self.mcnemar.iter().any(|(.., p)| *p < ALPHA) => Verdict::TheseNetworksOnly,
            None => Verdict::Untested,
        }
    }

    /// How many more seeds the paired t-test would need for a power of 0.8 if the effect is what it seems.
    pub fn more_seeds(&self) -> Option<usize> {
        let paired = self.paired?;
        let needed = pairs_needed(paired.cohens_d, ALPHA, POWER)?;
        let more = needed.saturating_sub(paired.n).max(1);
        (more <= 1000).then_some(more)
    }
}

/// The chosen configuration of a network against another one of it, on validation.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Index of the chosen configuration.
    pub chosen: usize,
    /// Index of the other one.
    pub other: usize,
    /// Paired t-test over shared seeds.
    pub paired: Option<PairedT>,
    /// p-value after Holm's correction over all such pairs of the network.
    pub adjusted_p: Option<f64>,
}

/// All findings of a report.
#[derive(Debug)]
pub struct Analysis<'a> {
    /// Configurations with a finished run: by network, best on validation first.
    pub configurations: Vec<Configuration<'a>>,
    /// For each network the configuration chosen on validation; best first.
    pub chosen: Vec<usize>,
    /// All pairs of chosen configurations.
    pub comparisons: Vec<Comparison>,
    /// The chosen configuration of each network against its others.
    pub selections: Vec<Selection>,
    /// Highest round validation accuracy that every chosen run reaches.
    pub target: Option<f64>,
    /// Importance of the swept keys by network and objective, greatest first.
    pub importance: Vec<Importance>,
    /// What single keys leave unexplained, by network and objective.
    pub sources: Vec<Sources>,
    /// Whether any run was validated.
    pub validated: bool,
}

impl<'a> Analysis<'a> {
    /// Studies the finished runs. Without any the analysis is empty.
    pub fn of(study: &'a Study) -> Self {
        let mut analysis = Self::without_importance(study);
        (analysis.importance, analysis.sources) = importance(study, &analysis.configurations);
        analysis
    }

    /// All but what keys matter, which takes the most time.
    pub(crate) fn without_importance(study: &'a Study) -> Self {
        let configurations = configurations(study);
        let chosen = choose(&configurations);
        let selections = selections(&configurations, &chosen);
        let validated = configurations.iter().any(|configuration| configuration.validation.is_some());
        let mut analysis = Self {
            importance: Vec::new(),
            sources: Vec::new(),
            target: target(&configurations, &chosen),
            configurations,
            chosen,
            comparisons: Vec::new(),
            selections,
            validated,
        };
        analysis.compare(study);
        analysis
    }

    /// The finished runs of each network's chosen configuration; best network first.
    pub fn chosen_runs(study: &Study) -> Vec<Vec<i64>> {
        let configurations = configurations(study);
        let runs = |index: usize| configurations[index].done.iter().map(|run| run.id).collect();
        choose(&configurations).into_iter().map(runs).collect()
    }

    /// The chosen configurations, best first.
    pub fn chosen(&self) -> impl Iterator<Item = &Configuration<'a>> {
        self.chosen.iter().map(|&index| &self.configurations[index])
    }

    /// The keys that matter to the first objective of a network, the one that matters most first.
    pub fn ranked_keys(&self, network: &str) -> Vec<&str> {
        let of_network = || self.importance.iter().filter(|importance| importance.network == network);
        let first = of_network().next().map(|importance| importance.objective.short);
        let ranked = of_network().filter(|importance| Some(importance.objective.short) == first);
        ranked.map(|importance| importance.key.as_str()).collect()
    }

    /// Names of the networks in the order of [`Self::chosen`].
    pub fn networks(&self) -> Vec<&str> {
        self.chosen().map(|configuration| configuration.network.as_str()).collect()
    }

    /// Configurations of a network, best first.
    pub fn of_network(&self, network: &str) -> impl Iterator<Item = &Configuration<'a>> {
        let network = network.to_owned();
        self.configurations.iter().filter(move |configuration| configuration.network == network)
    }

    /// Keys that take several values, with how many.
    pub fn swept(&self) -> Vec<(String, usize)> {
        let mut values: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for configuration in &self.configurations {
            for (key, value) in configuration.assignments {
                let seen = values.entry(key).or_default();
                if !seen.contains(&value) {
                    seen.push(value);
                }
            }
        }
        values
            .into_iter()
            .filter(|(_, values)| values.len() > 1)
            .map(|(key, values)| (key.to_owned(), values.len()))
            .collect()
    }

    fn compare(&mut self, study: &Study) {
        let mut comparisons = Vec::new();
        for (rank, &first) in self.chosen.iter().enumerate() {
            for &second in &self.chosen[rank + 1..] {
                comparisons.push(compare(study, &self.configurations, first, second));
            }
        }
        let tested: Vec<usize> = (0..comparisons.len()).filter(|&index| raw_p(&comparisons[index]).is_some()).collect();
        let raw: Vec<f64> = tested.iter().filter_map(|&index| raw_p(&comparisons[index])).collect();
        for (index, adjusted) in tested.into_iter().zip(holm(&raw)) {
            comparisons[index].adjusted_p = Some(adjusted);
        }
        self.comparisons = comparisons;
    }
}

/// The first configuration of each network, which is its best, best network first.
fn choose(configurations: &[Configuration<'_>]) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::new();
    for (index, configuration) in configurations.iter().enumerate() {
        if !chosen.iter().any(|&other| configurations[other].network == configuration.network) {
            chosen.push(index);
        }
    }
    chosen.sort_by(|&a, &b| better(&configurations[a], &configurations[b]));
    chosen
}

fn raw_p(comparison: &Comparison) -> Option<f64> {
    comparison.paired.map(|test| test.p).or(comparison.welch.map(|test| test.p))
}

fn better(a: &Configuration<'_>, b: &Configuration<'_>) -> std::cmp::Ordering {
    let (a_score, b_score) = (a.score(), b.score());
    b_score.0.total_cmp(&a_score.0).then(b_score.1.total_cmp(&a_score.1)).then_with(|| a.key.cmp(b.key))
}

/// Networks are architectures; where there is only one of them, but several variants, they are variants.
fn configurations(study: &Study) -> Vec<Configuration<'_>> {
    let done = || study.runs.iter().filter(|run| run.status == Status::Done);
    let mut architectures: Vec<&str> = done().map(|run| run.architecture.as_str()).collect();
    architectures.sort_unstable();
    architectures.dedup();
    let mut variants: Vec<Option<&str>> = done().map(|run| run.variant.as_deref()).collect();
    variants.sort_unstable();
    variants.dedup();
    let by_variant = architectures.len() < 2 && variants.len() > 1;

    let mut groups: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    for run in &study.runs {
        groups.entry(&run.configuration).or_default().push(run);
    }
    let mut configurations: Vec<Configuration<'_>> = groups
        .into_iter()
        .filter_map(|(key, runs)| {
            let (mut done, unfinished): (Vec<&Run>, Vec<&Run>) =
                runs.into_iter().partition(|run| run.status == Status::Done);
            done.sort_by_key(|run| (run.seed, run.id));
            let any = *done.first()?;
            let architecture = naming::network(&any.architecture);
            let network = match &any.variant {
                Some(variant) if by_variant => naming::network(variant),
                _ => architecture,
            };
            let mut settings = naming::assignments(&any.assignments);
            if let Some(variant) = any.variant.as_deref().map(naming::network).filter(|variant| *variant != network) {
                settings = format!("{variant} {settings}").trim_end().to_owned();
            }
            let mut configuration = Configuration {
                key,
                network,
                settings,
                assignments: &any.assignments,
                done,
                unfinished: unfinished.len(),
                validation: None,
                test: None,
            };
            configuration.validation = configuration.estimate(Run::validation_top1);
            configuration.test = configuration.estimate(|run| run.test.map(|test| test.top1));
            Some(configuration)
        })
        .collect();
    configurations.sort_by(|a, b| a.network.cmp(&b.network).then_with(|| better(a, b)));
    configurations
}

/// Values of one quantity for the seeds that both have.
fn shared(a: &Configuration<'_>, b: &Configuration<'_>, of: impl Fn(&Run) -> Option<f64>) -> (Vec<f64>, Vec<f64>) {
    let values = |configuration: &Configuration<'_>| -> BTreeMap<u64, f64> {
        configuration
            .done
            .iter()
            .filter_map(|run| Some((run.seed, of(run).filter(|value| value.is_finite())?)))
            .collect()
    };
    let (left, right) = (values(a), values(b));
    left.iter().filter_map(|(seed, value)| Some((*value, *right.get(seed)?))).unzip()
}

fn compare(study: &Study, configurations: &[Configuration<'_>], first: usize, second: usize) -> Comparison {
    let (a, b) = (&configurations[first], &configurations[second]);
    let fingerprint = |configuration: &Configuration<'_>| {
        configuration.any().map(|run| run.provenance.data_fingerprint.clone()).unwrap_or_default()
    };
    let same_data = fingerprint(a) == fingerprint(b);
    // On other data a seed shares nothing but its number.
    let (left, right) =
        if same_data { shared(a, b, |run| run.test.map(|test| test.top1)) } else { (Vec::new(), Vec::new()) };
    let means = a.test.zip(b.test).map(|(a, b)| a.mean - b.mean);
    let mut comparison = Comparison {
        first,
        second,
        same_data,
        shared_seeds: left.len(),
        difference: Estimate::of(&left).zip(Estimate::of(&right)).map(|(a, b)| a.mean - b.mean).or(means),
        paired: None,
        wilcoxon: None,
        welch: None,
        mcnemar: Vec::new(),
        adjusted_p: None,
    };
    if !same_data {
        return comparison;
    }
    if left.len() > 1 {
        comparison.paired = paired_t(&left, &right);
        comparison.wilcoxon = wilcoxon_signed_rank(&left, &right);
    } else {
        let all = |configuration: &Configuration<'_>| -> Vec<f64> {
            configuration.done.iter().filter_map(|run| run.test.map(|test| test.top1)).collect()
        };
        comparison.welch = welch_t(&all(a), &all(b));
        if comparison.welch.is_some() {
            comparison.difference = means;
        }
    }
    let mut tests = Vec::new();
    for run in &a.done {
        let Some(other) = b.done.iter().find(|other| other.seed == run.seed) else { continue };
        let correct = |run: &Run| study.predictions.get(&run.id).and_then(|predictions| predictions.correct());
        if let (Some(left), Some(right)) = (correct(run), correct(other))
            && left.len() == right.len()
        {
            let only = |right_one: bool| {
                left.iter().zip(&right).filter(|(l, r)| **l == right_one && **r != right_one).count() as u64
            };
            tests.push((run.seed, mcnemar(only(true), only(false))));
        }
    }
    let adjusted = holm(&tests.iter().map(|(_, test)| test.p).collect::<Vec<_>>());
    comparison.mcnemar = tests.into_iter().zip(adjusted).map(|((seed, test), p)| (seed, test, p)).collect();
    comparison
}

fn selections(configurations: &[Configuration<'_>], chosen: &[usize]) -> Vec<Selection> {
    let mut all = Vec::new();
    for &best in chosen {
        let mut family: Vec<Selection> = configurations
            .iter()
            .enumerate()
            .filter(|(index, other)| *index != best && other.network == configurations[best].network)
            .map(|(other, configuration)| {
                let (left, right) = shared(&configurations[best], configuration, Run::validation_top1);
                Selection { chosen: best, other, paired: paired_t(&left, &right), adjusted_p: None }
            })
            .collect();
        let adjusted = holm(&family.iter().filter_map(|pair| Some(pair.paired?.p)).collect::<Vec<_>>());
        let tested = family.iter_mut().filter(|pair| pair.paired.is_some());
        for (pair, p) in tested.zip(adjusted) {
            pair.adjusted_p = Some(p);
        }
        all.extend(family);
    }
    all
}

fn target(configurations: &[Configuration<'_>], chosen: &[usize]) -> Option<f64> {
    let reached =
        |run: &&Run| run.epochs.iter().filter_map(|epoch| epoch.validation_top1).fold(f64::NEG_INFINITY, f64::max);
    let lowest =
        chosen.iter().flat_map(|&index| configurations[index].done.iter().map(reached)).fold(f64::INFINITY, f64::min);
    TARGETS.iter().rev().copied().find(|&level| level <= lowest && lowest.is_finite())
}
