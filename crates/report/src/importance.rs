//! Which of the varied keys matter, to each objective.

use serde_json::Value;
use store::Distribution;

use crate::analysis::Configuration;
use crate::front::{Measure, objectives};
use crate::statistics::importance::{Key, Shares, shares};
use crate::statistics::variance_explained;
use crate::study::Study;

/// How much a varied key matters to an objective, over the finished runs of a network.
#[derive(Clone, Debug)]
pub struct Importance {
    /// Network.
    pub network: String,
    /// What it matters to.
    pub objective: &'static Measure,
    /// Key path.
    pub key: String,
    /// Number of different values.
    pub values: usize,
    /// How much.
    pub shares: Shares,
}

/// What single keys do not explain of an objective, over the finished runs of a network.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Network.
    pub network: String,
    /// Objective.
    pub objective: &'static Measure,
    /// Share of the variance of the forest's prediction that keys explain only together; `None` for one key alone.
    pub together: Option<f64>,
    /// Share of the variance over runs that is between seeds of one configuration; `None` where no configuration has two.
    pub seeds: Option<f64>,
}

/// By network, then by objective; the keys that matter most first.
pub fn importance(study: &Study, configurations: &[Configuration<'_>]) -> (Vec<Importance>, Vec<Sources>) {
    let (mut all, mut sources) = (Vec::new(), Vec::new());
    let mut networks: Vec<&str> = configurations.iter().map(|configuration| configuration.network.as_str()).collect();
    networks.dedup();
    let measures = objectives(study);
    for network in networks {
        for &objective in &measures {
            // A run counts where it has a value of every objective, as a trial of a study does.
            let scored: Vec<(&Configuration<'_>, Vec<f64>)> = configurations
                .iter()
                .filter(|configuration| configuration.network == network)
                .map(|configuration| {
                    let complete = configuration.done.iter().filter(|run| measures.iter().all(|m| m.of(run).is_some()));
                    (configuration, complete.filter_map(|run| objective.high(run)).collect())
                })
                .filter(|(_, scores): &(_, Vec<f64>)| !scores.is_empty())
                .collect();
            let (points, scores): (Vec<_>, Vec<_>) = scored.into_iter().unzip();
            of_network(study, network, objective, &points, &scores, &mut all, &mut sources);
        }
    }
    (all, sources)
}

fn of_network(
    study: &Study,
    network: &str,
    objective: &'static Measure,
    points: &[&Configuration<'_>],
    scores: &[Vec<f64>],
    all: &mut Vec<Importance>,
    sources: &mut Vec<Sources>,
) {
    let Some(between) = variance_explained(scores) else { return };
    let mut names: Vec<&str> =
        points.iter().flat_map(|point| point.assignments.iter().map(|(key, _)| key.as_str())).collect();
    names.sort_unstable();
    names.dedup();
    let mut found = Vec::new();
    let mut keys = Vec::new();
    for name in names {
        let value = |point: &&Configuration<'_>| -> Option<Value> {
            point.assignments.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
        };
        let values: Vec<Option<Value>> = points.iter().map(value).collect();
        let values: Vec<Option<&Value>> = values.iter().map(Option::as_ref).collect();
        let there: Vec<&Value> = values.iter().copied().flatten().collect();
        let mut different: Vec<String> = there.iter().map(|value| value.to_string()).collect();
        different.sort_unstable();
        different.dedup();
        let exists_always = there.len() == values.len();
        if different.len() < 2 && exists_always {
            continue;
        }
        let recorded = match &study.experiments[..] {
            [experiment] => experiment.distributions.get(name).and_then(|known| Key::new(known, &values)),
            _ => None,
        };
        let Some(key) = recorded.or_else(|| Key::new(&Distribution::of(&there), &values)) else { continue };
        found.push((name, different.len()));
        keys.push(key);
    }
    let shares = shares(&keys, scores);
    let explained: Vec<f64> = shares.iter().filter_map(|shares| shares.variance).collect();
    let mut own: Vec<Importance> = found
        .into_iter()
        .zip(shares)
        .filter(|(_, shares)| shares.variance.is_some() || shares.best.is_some())
        .map(|((key, values), shares)| Importance {
            network: network.to_owned(),
            objective,
            key: key.to_owned(),
            values,
            shares,
        })
        .collect();
    own.sort_by(|a, b| {
        let rank = |importance: &Importance| importance.shares.variance.or(importance.shares.best).unwrap_or(0.0);
        rank(b).total_cmp(&rank(a))
    });
    all.extend(own);
    sources.push(Sources {
        network: network.to_owned(),
        objective,
        together: (explained.len() > 1).then(|| (1.0 - explained.iter().sum::<f64>()).max(0.0)),
        seeds: scores.iter().any(|own| own.len() > 1).then_some(1.0 - between),
    });
}
