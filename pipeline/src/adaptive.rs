//! How far each trial of a sweep may go now: the records of the database, put before the rules of `sweep`.

use plan::{Objective, Pruner, PrunerKind};
use store::{Pruning, RunStatus, Standing, Validation};
use sweep::{
    halving::{self, Noise, Verdict},
    pruning::{Contender, Rule, When, verdicts},
};

/// How far a trial may go now.
#[derive(Clone, Debug, PartialEq)]
pub enum Goal {
    /// To the end of this epoch.
    Until(u32),
    /// No further, for this reason.
    Left(Pruning),
}

/// What an epoch came to, by an objective of the validation part, as a number that is to be low. Not a number is worse than all.
pub fn low(objective: Objective, validation: &Validation) -> f64 {
    let loss = validation.loss.unwrap_or(f64::INFINITY);
    match objective {
        // Equal shares rank by the loss, which is too small here to outweigh an image.
        Objective::ValidationTop1 => 1.0 - validation.top1.unwrap_or(0.0) + 1e-9 * loss.min(1e3),
        _ => loss,
    }
}

/// Such a number in the objective's own unit, without what breaks ties.
fn shown(objective: Objective, low: f64) -> f64 {
    match objective {
        Objective::ValidationTop1 => ((1.0 - low) * 1e7).round() / 1e7,
        _ => low,
    }
}

fn rule(pruner: &Pruner) -> Rule {
    let when = When { first: pruner.minimum_epochs, interval: pruner.interval_epochs };
    let (first, reduction) = (pruner.minimum_epochs, pruner.reduction_factor);
    match pruner.kind {
        PrunerKind::Halving => Rule::Halving { first, reduction },
        PrunerKind::Hyperband => Rule::Hyperband { first, reduction },
        PrunerKind::Median => Rule::Median { when, startup: pruner.startup_configurations },
        PrunerKind::Patience => Rule::Patience { when, patience: pruner.patience_epochs, improvement: pruner.margin },
        PrunerKind::Paired => Rule::Paired { when, margin: pruner.margin },
    }
}

/// When a pruner compares, and what happens then, for people.
pub fn in_words(pruner: &Pruner, objective: Objective) -> String {
    let (objective, last, first) = (objective.name(), pruner.epochs, pruner.minimum_epochs);
    let every = match pruner.interval_epochs {
        1 => format!("each epoch from the {first}. on"),
        interval => format!("every {interval} epochs from the {first}. on"),
    };
    match pruner.kind {
        PrunerKind::Halving | PrunerKind::Hyperband => {
            let rungs = halving::rungs(first, pruner.reduction_factor, last);
            let rungs: Vec<String> = rungs[..rungs.len() - 1].iter().map(u32::to_string).collect();
            let brackets = if pruner.kind == PrunerKind::Hyperband { " in brackets" } else { "" };
            format!(
                "{}{brackets}: after {} of {last} epochs one in {} configurations of a network goes on, by {objective} among those whose \
                 rate and decay are to fall alike",
                pruner.kind.name(),
                rungs.join(" and "),
                pruner.reduction_factor
            )
        }
        PrunerKind::Median => {
            format!("median: after {every}, configurations worse than the others' median are left, by {objective}")
        }
        PrunerKind::Patience => format!(
            "patience: after {every}, configurations without an improvement for {} epochs are left, by {objective}",
            pruner.patience_epochs
        ),
        PrunerKind::Paired => format!(
            "paired: after {every}, configurations more than {} worse than the best one at the same seeds and epoch are left, by {objective}",
            pruner.margin
        ),
    }
}

/// Indices of equal things together, in the order in which they first occur.
fn groups<'a>(names: impl Iterator<Item = (usize, &'a str)>) -> Vec<Vec<usize>> {
    let mut groups: Vec<(&str, Vec<usize>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for (index, name) in names {
        let place = *places.entry(name).or_insert_with(|| {
            groups.push((name, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(index);
    }
    groups.into_iter().map(|(_, indices)| indices).collect()
}

/// The goal of each trial, in their order. Configurations of one network compete with each other; a seed whose loss was not finite makes
/// its configuration worse than all, one that failed otherwise has no say. `noise` knows what a trial's schedule has yet to gain.
pub fn goals<'n>(
    pruner: &Pruner,
    objective: Objective,
    standings: &[Standing],
    noise: impl Fn(&Standing) -> Option<&'n Noise>,
) -> Vec<Goal> {
    let mut goals = vec![Goal::Until(pruner.epochs); standings.len()];
    for network in groups(standings.iter().map(|standing| standing.network.as_str()).enumerate()) {
        let configurations = groups(network.iter().map(|index| (*index, standings[*index].configuration.as_str())));
        let contenders: Vec<Contender> = configurations
            .iter()
            .map(|trials| Contender {
                curves: trials.iter().filter_map(|index| curve(pruner, objective, &standings[*index])).collect(),
                left: trials.iter().any(|index| standings[*index].status == RunStatus::Pruned),
                noise: trials.first().and_then(|index| noise(&standings[*index])).cloned().unwrap_or_default(),
            })
            .collect();
        for (trials, verdict) in configurations.iter().zip(verdicts(rule(pruner), &contenders, pruner.epochs)) {
            let goal = match verdict {
                Verdict::Until(epoch) => Goal::Until(epoch),
                Verdict::Pause { rung, value, threshold, competitors } => Goal::Left(Pruning {
                    epoch: rung,
                    rule: pruner.kind.name().to_owned(),
                    objective: objective.name().to_owned(),
                    value: shown(objective, value),
                    threshold: threshold.map(|threshold| shown(objective, threshold)),
                    competitors: competitors as u32,
                }),
            };
            trials.iter().for_each(|index| goals[*index] = goal.clone());
        }
    }
    goals
}

fn curve(pruner: &Pruner, objective: Objective, standing: &Standing) -> Option<Vec<f64>> {
    let mut curve: Vec<f64> = standing.validations.iter().map(|validation| low(objective, validation)).collect();
    if standing.status == RunStatus::Failed {
        if standing.failure_kind.as_deref() != Some("not-finite") {
            return None;
        }
        curve.resize(pruner.epochs as usize, f64::INFINITY);
    }
    Some(curve)
}

/// Whether all configurations come to a rung before any goes on from it: where they are known beforehand.
pub fn is_together(pruner: &Pruner, searching: bool) -> bool {
    matches!(pruner.kind, PrunerKind::Halving | PrunerKind::Hyperband) && !searching
}

/// Which of the trials that may go on is taken up first; the least one. Where all configurations are known, those that are behind: they
/// come to the next comparison together. Else those that are ahead, so that a search learns from results.
pub fn turn(pruner: &Pruner, searching: bool, until: u32, position: usize) -> (i64, usize) {
    (if is_together(pruner, searching) { i64::from(until) } else { -i64::from(until) }, position)
}

/// Whether a trial with this goal has something to do that a worker could take up.
pub fn is_open(pruner: &Pruner, standing: &Standing, goal: &Goal) -> Option<u32> {
    let Goal::Until(until) = *goal else { return None };
    let free = matches!(standing.status, RunStatus::Queued | RunStatus::Interrupted | RunStatus::Pruned);
    // After the last epoch there is the test.
    (free && ((standing.validations.len() as u32) < until || until == pruner.epochs)).then_some(until)
}
