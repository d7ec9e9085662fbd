//! How far each configuration may be trained now, by one of several rules. The unit is the configuration, of which every seed comes
//! to the same epoch before it is compared. Values are to be low.

use crate::halving::{self, Noise, Progress, Verdict, rungs};

/// How configurations are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Asynchronous successive halving: see [`halving::verdicts`]. Verdicts may change for the better as others do worse.
    Halving {
        /// Epochs of the first rung.
        first: u32,
        /// One of so many goes on, and so many times longer.
        reduction: u32,
    },
    /// Hyperband's brackets (Li et al. 2018, "Hyperband", section 3), each with successive halving of its own: the first as
    /// `Halving`, each other one with a first rung `reduction` times later, and the last without any: it compares nothing and trains
    /// all of its few to the end, whatever early epochs say of them. Configurations are dealt out so that every bracket costs about
    /// as much.
    Hyperband {
        /// Epochs of the first bracket's first rung.
        first: u32,
        /// As for `Halving`.
        reduction: u32,
    },
    /// The median rule: see [`halving::median`].
    Median {
        /// When comparisons are made.
        when: When,
        /// Fewest others that must have come as far.
        startup: usize,
    },
    /// No improvement for some epochs: see [`halving::patience`].
    Patience {
        /// When that is looked at.
        when: When,
        /// Epochs without an improvement that are borne.
        patience: u32,
        /// The least improvement.
        improvement: f64,
    },
    /// Worse than the best other one after the same epoch, over the same seeds, by more than a margin. Where trials of equal seeds see
    /// the same images in the same order, what the seed does to both is no part of the difference.
    Paired {
        /// When comparisons are made.
        when: When,
        /// How much worse is borne.
        margin: f64,
    },
}

/// Epochs after which configurations are compared: `first`, then every `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// The first such epoch.
    pub first: u32,
    /// Epochs between two.
    pub interval: u32,
}

impl When {
    /// The first epoch of comparison after so many epochs, or the last epoch.
    fn next(self, after: u32, most: u32) -> u32 {
        let steps = (after + 1).saturating_sub(self.first).div_ceil(self.interval);
        self.first.saturating_add(steps.saturating_mul(self.interval)).min(most)
    }

    fn is_at(self, epoch: u32) -> bool {
        epoch >= self.first && (epoch - self.first).is_multiple_of(self.interval)
    }
}

/// A configuration, as far as its trials have come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contender {
    /// For each seed the values after its epochs, the first epoch first; the same seeds in the same order for all contenders.
    pub curves: Vec<Vec<f64>>,
    /// It was left before. Rules other than halving do not ask again.
    pub left: bool,
    /// What its schedule has yet to gain. Rules other than halving and hyperband do not ask.
    pub noise: Noise,
}

impl Contender {
    /// Means over seeds.
    fn progress(&self) -> Progress {
        let common = self.curves.iter().map(Vec::len).min().unwrap_or(0);
        let mean =
            |epoch: usize| self.curves.iter().map(|values| values[epoch]).sum::<f64>() / self.curves.len() as f64;
        let ahead = self.curves.iter().map(Vec::len).max().unwrap_or(0);
        Progress { values: (0..common).map(mean).collect(), ahead, noise: self.noise.clone() }
    }
}

/// One verdict for each contender; each is trained for `most` epochs in all.
pub fn verdicts(rule: Rule, contenders: &[Contender], most: u32) -> Vec<Verdict> {
    let field: Vec<Progress> = contenders.iter().map(Contender::progress).collect();
    match rule {
        Rule::Halving { first, reduction } => halving::verdicts(&field, &rungs(first, reduction, most), reduction),
        Rule::Hyperband { first, reduction } => brackets(&field, &rungs(first, reduction, most), reduction),
        Rule::Median { when, startup } => one_by_one(contenders, &field, when, most, |index| {
            let mut others = field.clone();
            let own = others.remove(index);
            halving::median(&own.values, &others, when.first, startup)
        }),
        Rule::Patience { when, patience, improvement } => one_by_one(contenders, &field, when, most, |index| {
            halving::patience(&field[index].values, when.first, patience, improvement)
        }),
        Rule::Paired { when, margin } => {
            one_by_one(contenders, &field, when, most, |index| paired(&field, index, margin))
        }
    }
}

/// Bracket b compares on the rungs from the b-th on.
fn brackets(field: &[Progress], rungs: &[u32], reduction: u32) -> Vec<Verdict> {
    let mut verdicts = vec![Verdict::Until(rungs[0]); field.len()];
    let bracket_of = dealt(field.len(), rungs.len(), reduction);
    for bracket in 0..rungs.len() {
        let members: Vec<usize> = (0..field.len()).filter(|index| bracket_of[*index] == bracket).collect();
        let own: Vec<Progress> = members.iter().map(|index| field[*index].clone()).collect();
        for (index, verdict) in members.into_iter().zip(halving::verdicts(&own, &rungs[bracket..], reduction)) {
            verdicts[index] = verdict;
        }
    }
    verdicts
}

/// The bracket of each configuration, which depends on its place alone. A bracket of s rungs before the end has a share of η^s/(s + 1)
/// (Li et al. 2018, algorithm 1, line 3): those that leave early are many. Each configuration goes to the bracket that lacks most.
fn dealt(count: usize, brackets: usize, reduction: u32) -> Vec<usize> {
    let share = |bracket: usize| {
        let rungs = (brackets - 1 - bracket) as i32;
        f64::from(reduction).powi(rungs) / f64::from(rungs + 1)
    };
    let all: f64 = (0..brackets).map(share).sum();
    let mut have = vec![0.0; brackets];
    (1..=count)
        .map(|dealt| {
            let lacks = |bracket: usize| dealt as f64 * share(bracket) / all - have[bracket];
            // The first of equals.
            let bracket = (0..brackets).rev().max_by(|a, b| lacks(*a).total_cmp(&lacks(*b))).unwrap_or(0);
            have[bracket] += 1.0;
            bracket
        })
        .collect()
}

/// Rules that ask each configuration once after each epoch of comparison.
fn one_by_one(
    contenders: &[Contender],
    field: &[Progress],
    when: When,
    most: u32,
    leave: impl Fn(usize) -> Option<halving::Leave>,
) -> Vec<Verdict> {
    let verdict = |(index, progress): (usize, &Progress)| {
        let come = progress.values.len() as u32;
        let is_compared = progress.ahead == progress.values.len() && come < most && when.is_at(come);
        let leave = if is_compared && !contenders[index].left { leave(index) } else { None };
        match leave {
            Some(leave) => Verdict::Pause {
                rung: come,
                value: leave.value,
                threshold: Some(leave.threshold),
                competitors: leave.competitors + 1,
            },
            None if contenders[index].left => {
                let value = progress.values.last().copied().unwrap_or(f64::INFINITY);
                Verdict::Pause { rung: come, value, threshold: None, competitors: 1 }
            }
            // The seeds that are behind come to the same epoch first.
            None if progress.ahead as u32 > come && when.is_at(progress.ahead as u32) => {
                Verdict::Until(progress.ahead as u32)
            }
            None => Verdict::Until(when.next(progress.ahead as u32, most)),
        }
    };
    field.iter().enumerate().map(verdict).collect()
}

fn paired(field: &[Progress], index: usize, margin: f64) -> Option<halving::Leave> {
    let come = field[index].values.len();
    let at = |progress: &Progress| progress.values.get(come - 1).copied();
    let others = field.iter().enumerate().filter(|(other, _)| *other != index);
    let values: Vec<f64> = others.filter_map(|(_, progress)| at(progress)).collect();
    let threshold = values.iter().copied().fold(f64::INFINITY, f64::min) + margin;
    let value = at(&field[index])?;
    (value > threshold).then_some(halving::Leave { value, threshold, competitors: values.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds<const N: usize>(curves: [&[f64]; N]) -> Contender {
        Contender { curves: curves.map(<[f64]>::to_vec).into(), ..Contender::default() }
    }

    const WHEN: When = When { first: 2, interval: 2 };

    #[test]
    fn seeds_come_to_the_same_rung_before_they_are_compared() {
        let halving = Rule::Halving { first: 2, reduction: 2 };
        let field =
            [seeds([&[0.5, 0.4], &[0.5]]), seeds([&[0.9, 0.8], &[0.9, 0.9]]), seeds([&[0.3, 0.2], &[0.3, 0.2]])];
        let verdict = verdicts(halving, &field, 8);
        assert_eq!(verdict[0], Verdict::Until(2), "its second seed is behind");
        assert_eq!(verdict[2], Verdict::Until(4), "the better of two");
        assert!(matches!(verdict[1], Verdict::Pause { rung: 2, competitors: 2, threshold: Some(t), .. } if t == 0.2));
        // One seed has gone on: so does the other, whoever overtakes them since.
        let field = [seeds([&[0.5, 0.4, 0.4], &[0.5, 0.4]]), seeds([&[0.1, 0.1], &[0.1, 0.1]])];
        assert_eq!(verdicts(halving, &field, 8)[0], Verdict::Until(4));
    }

    #[test]
    fn brackets_compare_among_themselves() {
        let rule = Rule::Hyperband { first: 1, reduction: 3 };
        // Rungs 1, 3 and 9: three brackets with shares of 3, 1½ and 1. All have come to one epoch.
        assert_eq!(dealt(11, 3, 3), [0, 1, 0, 2, 0, 1, 0, 2, 0, 1, 0]);
        let field: Vec<Contender> = (0..11).map(|index| seeds([&[f64::from(index)]])).collect();
        let verdict = verdicts(rule, &field, 9);
        assert!(
            [0, 2].iter().all(|index| verdict[*index] == Verdict::Until(3)),
            "the best two of the first bracket's six"
        );
        assert!(matches!(verdict[4], Verdict::Pause { rung: 1, competitors: 6, .. }));
        assert!([1, 5, 9].iter().all(|index| verdict[*index] == Verdict::Until(3)), "compared at 3 epochs first");
        assert!([3, 7].iter().all(|index| verdict[*index] == Verdict::Until(9)), "never compared");
    }

    #[test]
    fn pairs_are_compared_after_the_same_epoch_and_left_once() {
        let rule = Rule::Paired { when: WHEN, margin: 0.1 };
        let mut field = [seeds([&[0.5, 0.3, 0.1]]), seeds([&[0.9, 0.41]]), seeds([&[0.9, 0.35]]), seeds([&[0.9]])];
        let verdict = verdicts(rule, &field, 6);
        assert_eq!(verdict[0], Verdict::Until(4));
        assert!(matches!(verdict[1], Verdict::Pause { rung: 2, value, competitors: 3, .. } if value == 0.41));
        assert_eq!(verdict[2], Verdict::Until(4), "within the margin");
        assert_eq!(verdict[3], Verdict::Until(2), "not compared yet");
        field[1].left = true;
        field[0] = seeds([&[0.5, 0.5]]);
        assert!(matches!(verdicts(rule, &field, 6)[1], Verdict::Pause { .. }), "what is left stays so");
        // A seed that is ahead waits for the others.
        let field = [seeds([&[0.5, 0.3], &[0.5]]), seeds([&[0.1, 0.1], &[0.1, 0.1]])];
        assert_eq!(verdicts(rule, &field, 6)[0], Verdict::Until(2));
    }

    #[test]
    fn epochs_of_comparison_end_with_the_last_one() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(|after| WHEN.next(after, 5)), [2, 2, 4, 4, 5, 5]);
        assert_eq!(When { first: 1, interval: 1 }.next(0, 3), 1);
    }

    #[test]
    fn what_is_not_a_number_is_worse_than_all() {
        let field = [seeds([&[f64::INFINITY, f64::INFINITY]]), seeds([&[0.9, 0.9]])];
        let verdict = verdicts(Rule::Paired { when: WHEN, margin: 10.0 }, &field, 6);
        assert!(matches!(verdict[0], Verdict::Pause { .. }));
        assert_eq!(verdict[1], Verdict::Until(4));
    }
}
