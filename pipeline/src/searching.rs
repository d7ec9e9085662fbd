//! Searches whose configurations are decided while a sweep runs: the experiment's space and the database's results, put before the
//! Parzen estimator of `sweep`.

use std::collections::HashMap;

use plan::{Distribution, Experiment, Objective, Sampler, SamplerKind, Search, Trial};
use serde_json::Value as Json;
use store::{RunStatus, Standing, Suggestion};
use sweep::{
    cma, front,
    tpe::{Coordinates, Dimension, Known, Point, propose},
};

use crate::adaptive;

/// A search with the hash that its decisions are kept under.
#[derive(Clone, Debug)]
pub struct Searching {
    /// The search.
    pub search: Search,
    /// Hash of what it is.
    pub identity: String,
    /// Hashes of the configurations that the plan has decided, in the order of the search's points.
    pub startup: Vec<String>,
}

/// The searches of an experiment; `configuration` hashes a trial without its seed.
pub fn searches(experiment: &Experiment, trials: &[(&Trial, String)]) -> Vec<Searching> {
    let searching = |search: &Search| {
        let mut startup: Vec<String> = Vec::new();
        for (_, configuration) in trials.iter().filter(|(trial, _)| trial.variant == search.variant) {
            if !startup.contains(configuration) {
                startup.push(configuration.clone());
            }
        }
        let identity = experiment.search_identity(search, &startup);
        Searching { search: search.clone(), identity, startup }
    };
    experiment.searches.iter().map(searching).collect()
}

/// A configuration of a search: where it is, and its hash.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Its coordinates.
    pub point: Point,
    /// Its hash.
    pub configuration: String,
}

impl Searching {
    /// The coordinates of values, one for each key of the space.
    pub fn point(&self, values: &[Json]) -> anyhow::Result<Point> {
        let coordinate = |(key, value): (&plan::Parameter, &Json)| {
            if value.is_null() {
                return Ok(f64::NAN);
            }
            let coordinate = key.distribution.coordinate(value);
            coordinate.ok_or_else(|| anyhow::anyhow!("{}: {value} is not of its distribution", key.key))
        };
        self.search.space.iter().zip(values).map(coordinate).collect()
    }

    /// What the plan has decided.
    pub fn planned(&self) -> anyhow::Result<Vec<Tried>> {
        let points = self.search.startup.iter().zip(&self.startup);
        points.map(|(values, hash)| Ok(Tried { point: self.point(values)?, configuration: hash.clone() })).collect()
    }

    /// The values of a decision.
    pub fn values(suggestion: &Suggestion) -> anyhow::Result<Vec<Json>> {
        Ok(serde_json::from_str(&suggestion.point)?)
    }

    /// The next point, from where all trials stand: its values, and how many results were known and how many were not yet. `None` where
    /// the space has no more, or an evolution strategy waits for a generation to be complete.
    pub fn next(
        &self,
        tried: &[Tried],
        standings: &[Standing],
        objectives: &[Objective],
        sampler: &Sampler,
    ) -> Option<(Vec<Json>, u32, u32)> {
        let mut of: HashMap<&str, Vec<&Standing>> = HashMap::new();
        for standing in standings {
            of.entry(&standing.configuration).or_default().push(standing);
        }
        let scored: Vec<(Option<Score>, &Tried)> = tried
            .iter()
            .map(|tried| {
                let trials = of.get(tried.configuration.as_str());
                (trials.and_then(|trials| score(objectives, trials)), tried)
            })
            .collect();
        if sampler.kind == SamplerKind::CmaEs {
            return self.evolved(&scored, sampler);
        }
        let pending: Vec<Point> =
            scored.iter().filter(|(score, _)| score.is_none()).map(|(_, tried)| tried.point.clone()).collect();
        let ranked = ranked(scored.iter().filter_map(|(score, tried)| Some((score.as_ref()?, *tried))).collect());
        let space: Vec<Dimension> = self.search.space.iter().map(|key| dimension(&key.distribution)).collect();
        let counts = (ranked.len() as u32, pending.len() as u32);
        let values = |point: &[f64]| -> Vec<Json> {
            let of = |(key, at): (&plan::Parameter, &f64)| {
                if at.is_nan() { Json::Null } else { key.distribution.value(*at) }
            };
            self.search.space.iter().zip(point).map(of).collect()
        };
        let settle = |point: &mut Point| {
            let exist = plan::Parameter::exist(&self.search.space, &values(point));
            point.iter_mut().zip(exist).filter(|(_, exists)| !exists).for_each(|(at, _)| *at = f64::NAN);
        };
        let known = Known { ranked: &ranked, pending: &pending };
        let coordinates = if objectives.len() > 1 { Coordinates::InTurns } else { Coordinates::Together };
        let values = values(&propose(&space, &settle, coordinates, known, sampler.seed, tried.len() as u64)?);
        Some((values, counts.0, counts.1))
    }

    /// The next point of an evolution strategy: its generations follow on what the plan has decided.
    fn evolved(&self, scored: &[(Option<Score>, &Tried)], sampler: &Sampler) -> Option<(Vec<Json>, u32, u32)> {
        let space = &self.search.space;
        let drawn = scored.get(self.search.startup.len()..).unwrap_or_default();
        let mut generations: Vec<Vec<Point>> = Vec::new();
        for generation in drawn.chunks_exact(cma::population(space.len())) {
            let known: Vec<(&Score, &Tried)> =
                generation.iter().map(|(score, tried)| Some((score.as_ref()?, *tried))).collect::<Option<_>>()?;
            let unit = |point: Point| {
                space.iter().zip(point).map(|(key, at)| dimension(&key.distribution).unit(at)).collect::<Point>()
            };
            generations.push(ranked(known).into_iter().map(unit).collect());
        }
        let known = scored.iter().filter(|(score, _)| score.is_some()).count();
        // Whole numbers may come to a point that was tried: then it is the next one's turn.
        let values = (0..TURNS).find_map(|turn| {
            let number = scored.len() as u64 + (turn << 32);
            let point = cma::propose(space.len(), &generations, sampler.seed, number);
            let at = space
                .iter()
                .zip(point)
                .map(|(key, unit)| key.distribution.value(dimension(&key.distribution).at(unit)));
            let values: Vec<Json> = at.collect();
            let point = self.point(&values).ok()?;
            (!scored.iter().any(|(_, tried)| tried.point == point)).then_some(values)
        })?;
        Some((values, known as u32, (scored.len() - known) as u32))
    }
}

/// How often a point that was tried is drawn anew.
const TURNS: u64 = 1000;

/// Points with a result, the best first.
fn ranked(mut known: Vec<(&Score, &Tried)>) -> Vec<Point> {
    known.sort_by_key(|(score, _)| (score.class, score.missing));
    let mut ranked: Vec<Point> = Vec::with_capacity(known.len());
    for alike in known.chunk_by(|(a, _), (b, _)| (a.class, a.missing) == (b.class, b.missing)) {
        let values: Vec<Vec<f64>> = alike.iter().map(|(score, _)| score.values.clone()).collect();
        ranked.extend(front::ranked(&values).into_iter().map(|place| alike[place].1.point.clone()));
    }
    ranked
}

/// How a configuration did: what was trained to its end comes before what was left, what was left late before what was left early, and
/// what failed comes last.
struct Score {
    class: u8,
    missing: u32,
    /// One for each objective; all to be low.
    values: Vec<f64>,
}

/// What a trial came to, as a number that is to be low.
fn reached(objective: Objective, standing: &Standing) -> f64 {
    match objective {
        Objective::ValidationLoss | Objective::ValidationTop1 => {
            standing.validations.last().map_or(f64::INFINITY, |validation| adaptive::low(objective, validation))
        }
        Objective::TrainSeconds => standing.train_seconds.unwrap_or(f64::INFINITY),
        Objective::MacsPerImage => standing.macs_per_image as f64,
        Objective::Parameters => standing.parameters as f64,
    }
}

/// A configuration's score, a mean over its seeds after the last epoch; none while any of them is under way.
fn score(objectives: &[Objective], trials: &[&Standing]) -> Option<Score> {
    let is_over = |trial: &&Standing| matches!(trial.status, RunStatus::Done | RunStatus::Failed | RunStatus::Pruned);
    if !trials.iter().all(is_over) {
        return None;
    }
    let with = |status| trials.iter().filter(move |trial: &&&Standing| trial.status == status);
    let means = |status| {
        let mean = |objective: &Objective| {
            with(status).map(|trial| reached(*objective, trial)).sum::<f64>() / with(status).count() as f64
        };
        objectives.iter().map(mean).collect()
    };
    let diverged = trials.iter().any(|trial| trial.failure_kind.as_deref() == Some("not-finite"));
    Some(if with(RunStatus::Pruned).count() > 0 && !diverged {
        let epochs = with(RunStatus::Pruned).map(|trial| trial.validations.len()).max().unwrap_or(0);
        Score { class: 1, missing: u32::MAX - epochs as u32, values: means(RunStatus::Pruned) }
    } else if with(RunStatus::Done).count() > 0 && !diverged {
        Score { class: 0, missing: 0, values: means(RunStatus::Done) }
    } else {
        Score { class: 2, missing: 0, values: vec![f64::INFINITY; objectives.len()] }
    })
}

fn dimension(distribution: &Distribution) -> Dimension {
    let number = |low, high, log, whole| Dimension::Number { low, high, log, whole };
    match distribution {
        Distribution::Uniform { low, high } => number(*low, *high, false, false),
        Distribution::LogUniform { low, high } => number(*low, *high, true, false),
        Distribution::Integer { low, high } => number(*low as f64, *high as f64, false, true),
        Distribution::LogInteger { low, high } => number(*low as f64, *high as f64, true, true),
        Distribution::Choice(values) => Dimension::Category(values.len()),
    }
}
