//! Which configurations to train on and which to leave, from what they came to so far. The unit is the configuration: what is
//! compared is its mean over seeds. Values are to be low.

/// A configuration on its way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Mean over the seeds after each epoch that all seeds have come to, the first epoch first.
    pub values: Vec<f64>,
    /// Epochs that the seed which is ahead has come to; at least as many as there are values.
    pub ahead: usize,
}

/// Numbers of epochs at which asynchronous successive halving compares: the first, then each `reduction` times the one before, below
/// `most`; and `most`, where a configuration is done.
pub fn rungs(first: u32, reduction: u32, most: u32) -> Vec<u32> {
    let below = std::iter::successors(Some(first), |rung| rung.checked_mul(reduction));
    below.take_while(|rung| *rung < most).chain([most]).collect()
}

/// What asynchronous successive halving says of a configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Train on to so many epochs.
    Until(u32),
    /// Not among the best of those that came to the same rung. More of them may change that.
    Pause {
        /// Epochs of the rung.
        rung: u32,
        /// What it came to there.
        value: f64,
        /// The worst value that goes on now; not known where it was left before.
        threshold: Option<f64>,
        /// Configurations that came to the rung.
        competitors: usize,
    },
}

/// Asynchronous successive halving (Li et al. 2020, "A system for massively parallel hyperparameter tuning", algorithm 2): of the n
/// configurations that came to a rung the best ⌊n/η⌋, and always the best one, go on to the next one. One verdict for each configuration;
/// equal values rank by their order.
pub fn verdicts(configurations: &[Progress], rungs: &[u32], reduction: u32) -> Vec<Verdict> {
    let mut verdicts = vec![Verdict::Until(rungs[0]); configurations.len()];
    for pair in rungs.windows(2) {
        let (rung, next) = (pair[0], pair[1]);
        let value = |index: usize| configurations[index].values.get(rung as usize - 1).copied();
        let mut reached: Vec<(f64, usize)> =
            (0..configurations.len()).filter_map(|index| Some((value(index)?, index))).collect();
        reached.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let best = (reached.len() / reduction as usize).max(1);
        let threshold = reached.get(best - 1).map(|(value, _)| *value);
        for (rank, &(value, index)) in reached.iter().enumerate() {
            // One that has gone on already stays on its way, whoever overtakes it since.
            let gone_on = configurations[index].ahead > rung as usize;
            verdicts[index] = if rank < best || gone_on {
                Verdict::Until(next)
            } else {
                Verdict::Pause { rung, value, threshold, competitors: reached.len() }
            };
        }
    }
    verdicts
}

/// A configuration that is to be left, and why: its value and the one that it would have had to undercut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leave {
    /// What it came to.
    pub value: f64,
    /// What it should have come to.
    pub threshold: f64,
    /// Configurations that it was compared with.
    pub competitors: usize,
}

/// The median rule (Golovin et al. 2017, "Google Vizier", section 3.2.2): a configuration is left whose best value up to its last epoch
/// is worse than the median of the others' running means up to that epoch. Nothing is said before `minimum_epochs`, nor with fewer
/// than `startup` others that came as far.
pub fn median(own: &[f64], others: &[Progress], minimum_epochs: u32, startup: usize) -> Option<Leave> {
    let epochs = own.len();
    if epochs == 0 || epochs < minimum_epochs as usize {
        return None;
    }
    let so_far = |other: &Progress| Some(other.values.get(..epochs)?.iter().sum::<f64>() / epochs as f64);
    let mut means: Vec<f64> = others.iter().filter_map(so_far).collect();
    if means.len() < startup.max(1) {
        return None;
    }
    means.sort_by(f64::total_cmp);
    let threshold = 0.5 * (means[(means.len() - 1) / 2] + means[means.len() / 2]);
    let value = own.iter().copied().fold(f64::INFINITY, f64::min);
    (value > threshold).then_some(Leave { value, threshold, competitors: means.len() })
}

/// No improvement by more than `improvement` in the last `patience` epochs, after `minimum_epochs`.
pub fn patience(own: &[f64], minimum_epochs: u32, patience: u32, improvement: f64) -> Option<Leave> {
    let split = own.len().checked_sub(patience as usize).filter(|split| *split > 0)?;
    if own.len() < minimum_epochs as usize {
        return None;
    }
    let best = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
    let (threshold, value) = (best(&own[..split]) - improvement, best(&own[split..]));
    // Values that are not numbers are no improvement either.
    (value >= threshold || !value.is_finite()).then_some(Leave { value, threshold, competitors: 0 })
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use super::*;

    fn at(values: &[f64]) -> Progress {
        Progress { values: values.to_vec(), ahead: values.len() }
    }

    #[test]
    fn rungs_are_powers_up_to_the_end() {
        assert_eq!(rungs(1, 3, 27), [1, 3, 9, 27]);
        assert_eq!(rungs(1, 3, 20), [1, 3, 9, 20]);
        assert_eq!(rungs(2, 4, 5), [2, 5]);
        assert_eq!(rungs(u32::MAX / 2, 3, u32::MAX), [u32::MAX / 2, u32::MAX]);
    }

    #[test]
    fn the_best_third_goes_on_and_those_that_have_gone_on_stay() {
        let rungs = rungs(1, 3, 9);
        let mut field: Vec<Progress> = [0.5, 0.2, 0.9, 0.4, 0.3].map(|value| at(&[value])).into();
        field.push(at(&[]));
        let verdict = verdicts(&field, &rungs, 3);
        assert_eq!(verdict[1], Verdict::Until(3), "the best of five");
        assert_eq!(verdict[0], Verdict::Pause { rung: 1, value: 0.5, threshold: Some(0.2), competitors: 5 });
        assert_eq!(verdict[5], Verdict::Until(1), "has not begun");

        field[1] = at(&[0.2, 0.19, 0.18]);
        field[5] = at(&[0.1]);
        let verdict = verdicts(&field, &rungs, 3);
        assert_eq!(verdict[5], Verdict::Until(3));
        assert_eq!(verdict[1], Verdict::Until(9), "the best on its rung, if alone");
        assert_eq!(verdict[4], Verdict::Pause { rung: 1, value: 0.3, threshold: Some(0.2), competitors: 6 });
        field[5] = at(&[0.1, 0.1]);
        assert_eq!(verdicts(&field, &rungs, 3)[5], Verdict::Until(3), "on its way");
    }

    #[test]
    fn the_number_of_epochs_falls_to_a_fraction() {
        // 27 configurations whose ranks never change, run until nobody may go on.
        let rungs = rungs(1, 3, 27);
        let mut field: Vec<Progress> = (0..27).map(|_| at(&[])).collect();
        loop {
            let verdict = verdicts(&field, &rungs, 3);
            let next = verdict.iter().enumerate().filter_map(|(index, verdict)| match verdict {
                Verdict::Until(epochs) if field[index].values.len() < *epochs as usize => {
                    Some((*epochs, Reverse(index)))
                }
                _ => None,
            });
            let Some((epochs, Reverse(index))) = next.max() else { break };
            field[index].values.resize(epochs as usize, ((index * 11 + 5) % 27) as f64);
            field[index].ahead = epochs as usize;
        }
        let lengths: Vec<usize> = field.iter().map(|progress| progress.values.len()).collect();
        assert_eq!(lengths[2], 27, "the best is done");
        assert!(lengths.iter().sum::<usize>() < 27 * 27 / 4, "{lengths:?}");
    }

    #[test]
    fn the_median_rule_compares_the_best_with_running_means() {
        let others = [at(&[1.0, 0.5, 0.1]), at(&[0.8, 0.6]), at(&[0.9])];
        assert_eq!(median(&[0.8], &others, 1, 3), None, "better than the median 0.9");
        let leave = median(&[0.95, 0.85], &others, 1, 2).unwrap();
        assert!((leave.threshold - 0.725).abs() < 1e-12 && leave.value == 0.85 && leave.competitors == 2, "{leave:?}");
        assert_eq!(median(&[0.95, 0.85], &others, 3, 2), None, "too early");
        assert_eq!(median(&[0.95, 0.85], &others, 1, 3), None, "too few others");
    }

    #[test]
    fn patience_bears_so_many_epochs() {
        assert_eq!(patience(&[0.5, 0.4, 0.45], 1, 2, 0.0), None);
        assert_eq!(
            patience(&[0.5, 0.4, 0.45, 0.4], 1, 2, 0.0),
            Some(Leave { value: 0.4, threshold: 0.4, competitors: 0 })
        );
        assert_eq!(patience(&[0.5, 0.4, 0.45, 0.39], 1, 2, 0.0), None);
        assert!(patience(&[0.5, 0.4, 0.45, 0.39], 1, 2, 0.05).is_some());
        assert_eq!(patience(&[0.5, 0.6, 0.7], 4, 2, 0.0), None, "too early");
    }
}
