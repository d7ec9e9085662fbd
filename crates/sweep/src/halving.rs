//! Which configurations to train on and which to leave, from what they came to so far. The unit is the configuration: what is
//! compared is its mean over seeds. Values are to be low.

use std::collections::BTreeMap;

/// A configuration on its way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Mean over the seeds after each epoch that all seeds have come to, the first epoch first.
    pub values: Vec<f64>,
    /// Epochs that the seed which is ahead has come to; at least as many as there are values.
    pub ahead: usize,
    /// What its schedule has yet to gain.
    pub noise: Noise,
}

/// What a configuration's schedule has yet to take away: what it comes to then looks worse before than it is. One part is the noise of
/// its steps, for SGD η/(B(1 − μ)) (Smith and Le 2018, "A Bayesian perspective on generalization and stochastic gradient descent",
/// section 5), the other the pull of the weight decay λ, which goes with the rate too, as λ times that: it holds a network back from the
/// beginning, and pays late, when others have learned their images by heart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Noise {
    /// What makes noises incomparable, such as the optimizer: only those of one group are held against each other.
    pub group: usize,
    /// The noise to be lost after 0, 1, … epochs; where there is no number, none.
    pub to_lose: Vec<f64>,
    /// λ.
    pub weight_decay: f64,
}

impl Noise {
    /// The noise and the pull to be lost.
    fn after(&self, epochs: u32) -> [f64; 2] {
        let noise = self.to_lose.get(epochs as usize).copied().unwrap_or(0.0);
        [noise, noise * self.weight_decay]
    }
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
        /// The worst value of those that go on and are ahead of it, or of all that go on; not known where it was left before.
        threshold: Option<f64>,
        /// Configurations that came to the rung.
        competitors: usize,
    },
}

/// Asynchronous successive halving (Li et al. 2020, "A system for massively parallel hyperparameter tuning", algorithm 2): of the n
/// configurations that came to a rung the first ⌈n/η⌉ go on to the next one, as Ray Tune counts them: those that are no worse than the
/// quantile 1/η. One verdict for each configuration.
///
/// Those come first that no other one is ahead of, then those that only these are ahead of, and so on; within, lower values. Ahead is
/// who has the lower value and no less to lose, neither of noise nor of pull. Halving as it was published goes by values alone, and so
/// leaves high learning rates and strong decays that the schedule would have made the best; where no schedule lowers the rate, both
/// are the same. Equal values rank by their order.
pub fn verdicts(configurations: &[Progress], rungs: &[u32], reduction: u32) -> Vec<Verdict> {
    let mut verdicts = vec![Verdict::Until(rungs[0]); configurations.len()];
    for pair in rungs.windows(2) {
        let (rung, next) = (pair[0], pair[1]);
        let value = |index: usize| configurations[index].values.get(rung as usize - 1).copied();
        let mut reached: Vec<(f64, usize)> =
            (0..configurations.len()).filter_map(|index| Some((value(index)?, index))).collect();
        reached.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let noise = |index: usize| (configurations[index].noise.group, configurations[index].noise.after(rung));
        let ranked = by_fronts(&reached, noise);
        let best = reached.len().div_ceil(reduction as usize);
        let (first, _) = ranked.split_at(best);
        let mut by_value = first.to_vec();
        by_value.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (rank, &(value, index)) in ranked.iter().enumerate() {
            // One that has gone on already stays on its way, whoever overtakes it since.
            let gone_on = configurations[index].ahead > rung as usize;
            verdicts[index] = if rank < best || gone_on {
                Verdict::Until(next)
            } else {
                let (group, own) = noise(index);
                let no_worse = &by_value[..by_value.partition_point(|(other, _)| *other <= value)];
                let is_ahead = |&&(_, at): &&(f64, usize)| {
                    let (others_group, others) = noise(at);
                    others_group == group && has_as_much(others, own)
                };
                let ahead = no_worse.iter().rev().find(is_ahead).or(by_value.last());
                let threshold = ahead.map(|(value, _)| *value);
                Verdict::Pause { rung, value, threshold, competitors: reached.len() }
            };
        }
    }
    verdicts
}

/// Whether `a` is nowhere less than `b`.
fn has_as_much(a: [f64; 2], b: [f64; 2]) -> bool {
    a[0] >= b[0] && a[1] >= b[1]
}

/// What those of a front have to lose, without those who have nowhere more than another one: the first number rises, the second falls.
#[derive(Default)]
struct Staircase(Vec<[f64; 2]>);

impl Staircase {
    /// Whether one of the front has nowhere less.
    fn has_as_much(&self, own: [f64; 2]) -> bool {
        // Of those that have as much of the first number the next one has most of the second.
        self.0.get(self.0.partition_point(|other| other[0] < own[0])).is_some_and(|other| has_as_much(*other, own))
    }

    /// Adds one whom [`Self::has_as_much`] denied.
    fn push(&mut self, own: [f64; 2]) {
        let end = self.0.partition_point(|other| other[0] <= own[0]);
        let start = self.0[..end].partition_point(|other| other[1] > own[1]);
        self.0.splice(start..end, [own]);
    }
}

/// Configurations in the order in which they go on, from their order by value. Takes n log² n comparisons.
fn by_fronts(reached: &[(f64, usize)], noise: impl Fn(usize) -> (usize, [f64; 2])) -> Vec<(f64, usize)> {
    // All of a front have one of the front before ahead of them, so whoever has none of a front ahead has none of the later ones.
    let mut groups: BTreeMap<usize, Vec<Staircase>> = BTreeMap::new();
    let mut ranked: Vec<(usize, (f64, usize))> = Vec::with_capacity(reached.len());
    for &(value, index) in reached {
        let (group, own) = noise(index);
        let fronts = groups.entry(group).or_default();
        let front = match value.is_finite() {
            true => fronts.partition_point(|front| front.has_as_much(own)),
            // What came to no number has nothing to gain.
            false => usize::MAX,
        };
        if front == fronts.len() {
            fronts.push(Staircase::default());
        }
        if let Some(front) = fronts.get_mut(front) {
            front.push(own);
        }
        ranked.push((front, (value, index)));
    }
    // Stable: within a front they stay in the order of their values.
    ranked.sort_by_key(|(front, _)| *front);
    ranked.into_iter().map(|(_, place)| place).collect()
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
        Progress { values: values.to_vec(), ahead: values.len(), noise: Noise::default() }
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
        let mut field: Vec<Progress> = [0.5, 0.2, 0.9, 0.4].map(|value| at(&[value])).into();
        field.push(at(&[]));
        let verdict = verdicts(&field, &rungs, 3);
        assert_eq!(verdict[1], Verdict::Until(3), "the best of four");
        assert_eq!(verdict[3], Verdict::Until(3), "one of three goes on, so of four a second one");
        assert_eq!(verdict[0], Verdict::Pause { rung: 1, value: 0.5, threshold: Some(0.4), competitors: 4 });
        assert_eq!(verdict[4], Verdict::Until(1), "has not begun");

        field[1] = at(&[0.2, 0.19, 0.18]);
        field[4] = at(&[0.1]);
        let verdict = verdicts(&field, &rungs, 3);
        assert_eq!(verdict[4], Verdict::Until(3));
        assert_eq!(verdict[1], Verdict::Until(9), "the best on its rung, if alone");
        assert_eq!(verdict[3], Verdict::Pause { rung: 1, value: 0.4, threshold: Some(0.2), competitors: 5 });
        field[3] = at(&[0.4, 0.4]);
        assert_eq!(verdicts(&field, &rungs, 3)[3], Verdict::Until(3), "on its way");
    }

    #[test]
    fn what_has_noise_to_lose_is_held_against_its_like() {
        let rungs = rungs(1, 2, 2);
        let with = |value: f64, group: usize, noise: f64| Progress {
            noise: Noise { group, to_lose: vec![9.0, noise], weight_decay: 0.0 },
            ..at(&[value])
        };
        // In the order of values, with their fronts: 1, 2 (none has more), 1, 2, 1 (another group), and what is no number.
        let field = [
            with(0.1, 0, 1.0),
            with(0.2, 0, 1.0),
            with(0.3, 0, 2.0),
            with(0.4, 0, 1.5),
            with(0.5, 1, 0.0),
            with(f64::INFINITY, 0, 9.0),
        ];
        let verdict = verdicts(&field, &rungs, 2);
        let goes_on: Vec<bool> = verdict.iter().map(|verdict| *verdict == Verdict::Until(2)).collect();
        assert_eq!(goes_on, [true, false, true, false, true, false]);
        let pause = |value, threshold| Verdict::Pause { rung: 1, value, threshold: Some(threshold), competitors: 6 };
        assert_eq!(verdict[1], pause(0.2, 0.1));
        assert_eq!(verdict[3], pause(0.4, 0.3), "the one that is ahead of it");
        assert_eq!(verdict[5], pause(f64::INFINITY, 0.5), "none goes on that has as much");
        // Where nothing is to be lost, values decide.
        let plain: Vec<Progress> = field.iter().map(|one| at(&one.values)).collect();
        let goes_on = |verdict: &Verdict| *verdict == Verdict::Until(2);
        assert_eq!(verdicts(&plain, &rungs, 2).iter().map(goes_on).collect::<Vec<_>>()[..4], [true, true, true, false]);
    }

    #[test]
    fn what_decay_holds_back_is_held_against_its_like() {
        let rungs = rungs(1, 2, 2);
        let with = |value: f64, noise: f64, weight_decay: f64| Progress {
            noise: Noise { group: 0, to_lose: vec![9.0, noise], weight_decay },
            ..at(&[value])
        };
        // In the order of values, with their fronts: 1, 1 (more decay), 2 (as much noise, less pull), 1 (more noise, as much pull).
        let field = [with(0.1, 1.0, 0.0), with(0.2, 1.0, 0.5), with(0.3, 1.0, 0.4), with(0.4, 2.0, 0.25)];
        let on = |field: &[Progress], reduction| -> Vec<bool> {
            verdicts(field, &rungs, reduction).iter().map(|verdict| *verdict == Verdict::Until(2)).collect()
        };
        assert_eq!(on(&field, 2), [true, true, false, false]);
        assert_eq!(on(&field[1..], 2), [true, false, true], "the third of all is behind the second");
        // Where no rate falls there is no pull to be lost either.
        let constant: Vec<Progress> =
            [(0.1, 0.0), (0.2, 0.0), (0.3, 1.0)].map(|(at, decay)| with(at, 0.0, decay)).into();
        assert_eq!(on(&constant, 2), [true, true, false]);
    }

    /// A number below `most`, in no order.
    fn scrambled(index: usize, salt: u64, most: u64) -> f64 {
        let mut bits =
            (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.wrapping_mul(0xd134_2543_de82_ef95);
        bits = (bits ^ (bits >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((bits ^ (bits >> 32)) % most) as f64
    }

    #[test]
    fn fronts_are_those_that_comparing_all_with_all_gives() {
        for (salt, most, groups) in [(1, 4, 1), (2, 20, 2), (3, 1_000_000, 1), (4, 1, 1)] {
            let own =
                |index: usize| (index % groups, [scrambled(index, salt, most), scrambled(index, salt + 100, most)]);
            let reached: Vec<(f64, usize)> = (0..300).map(|index| ((index / 2) as f64, index)).collect();
            // One more than the last front of those ahead.
            let mut fronts: Vec<usize> = Vec::new();
            for index in 0..reached.len() {
                let (group, mine) = own(index);
                let ahead = (0..index).filter(|&other| own(other).0 == group && has_as_much(own(other).1, mine));
                fronts.push(ahead.map(|other| fronts[other] + 1).max().unwrap_or(0));
            }
            let mut expected = reached.clone();
            expected.sort_by_key(|(_, index)| fronts[*index]);
            assert_eq!(by_fronts(&reached, own), expected, "numbers below {most}");
            assert!(fronts.contains(&1), "there are several fronts");
        }
    }

    #[test]
    fn a_threshold_is_the_largest_value_ahead() {
        let rungs = rungs(1, 3, 3);
        let field: Vec<Progress> = (0..200)
            .map(|index| Progress {
                noise: Noise {
                    group: index % 2,
                    to_lose: vec![9.0, scrambled(index, 5, 9)],
                    weight_decay: scrambled(index, 6, 5),
                },
                ..at(&[scrambled(index, 7, 150)])
            })
            .collect();
        let verdict = verdicts(&field, &rungs, 3);
        let first: Vec<usize> = (0..200).filter(|&index| verdict[index] == Verdict::Until(3)).collect();
        assert_eq!(first.len(), 67);
        let most = first.iter().map(|&index| field[index].values[0]).max_by(f64::total_cmp);
        let mut behind = 0;
        for (index, verdict) in verdict.iter().enumerate() {
            let Verdict::Pause { value, threshold, .. } = *verdict else { continue };
            let noise = |index: usize| (field[index].noise.group, field[index].noise.after(1));
            let ahead = first.iter().filter(|&&other| {
                let (own, others) = (noise(index), noise(other));
                own.0 == others.0 && field[other].values[0] <= value && has_as_much(others.1, own.1)
            });
            let expected = ahead.map(|&other| field[other].values[0]).max_by(f64::total_cmp);
            behind += usize::from(expected.is_some());
            assert_eq!(threshold, expected.or(most), "{index}");
        }
        assert!(behind > 50, "{behind} have one ahead");
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
