//! Who trains, who validates, who tests; and in which order.

use crate::{
    Part, Prepared,
    rng::{Counter, Purpose},
};

/// Indices of the images of each part, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splits {
    /// For training.
    pub train: Vec<u32>,
    /// Held back from the training part, for every choice.
    pub validation: Vec<u32>,
    /// For the one test at the end.
    pub test: Vec<u32>,
}

impl Prepared {
    /// Splits by `settings`: limits the parts to `train_images` and `test_images`, evenly over the classes, then holds
    /// `validation_fraction` of the training part back, in the shares that the classes have. All by `settings.seed` alone,
    /// so that every trial of an experiment chooses on the same images.
    pub fn splits(&self, settings: &plan::Dataset) -> Splits {
        let part = |part, limit: Option<usize>, epoch| {
            let indices: Vec<u32> = self.indices(part).collect();
            match limit {
                Some(limit) if limit < indices.len() => self.subset(&indices, limit, settings.seed, epoch),
                _ => indices,
            }
        };
        let part_train = part(Part::Train, settings.train_images, 0);
        let test = part(Part::Test, settings.test_images, 1);
        let groups = group(&part_train, |index| self.label(index), self.classes());
        let (validation, train) = stratify(&groups, settings.validation_fraction, settings.seed, Purpose::Validation);
        Splits { train, validation, test }
    }

    /// `limit` images, as evenly over the classes as they allow.
    fn subset(&self, indices: &[u32], limit: usize, seed: u64, part: u32) -> Vec<u32> {
        let mut groups = group(indices, |index| self.label(index), self.classes());
        for (class, members) in groups.iter_mut().enumerate() {
            Counter::new(seed, Purpose::Subset, part, class as u32).shuffle(members);
        }
        // Round by round, one of each class that has any left.
        let mut chosen = Vec::with_capacity(limit);
        let mut round = 0;
        while chosen.len() < limit {
            chosen.extend(groups.iter().filter_map(|members| members.get(round)).take(limit - chosen.len()));
            round += 1;
        }
        chosen.sort_unstable();
        chosen
    }
}

/// Members of each class, ascending.
pub(crate) fn group(indices: &[u32], label: impl Fn(u32) -> u32, classes: usize) -> Vec<Vec<u32>> {
    let mut groups = vec![Vec::new(); classes];
    for &index in indices {
        groups[label(index) as usize].push(index);
    }
    groups
}

/// Holds `fraction` of all members back, each class by its share (largest remainders get what rounding leaves), but never
/// the last member of a class. Returns (held back, rest), ascending.
pub(crate) fn stratify(groups: &[Vec<u32>], fraction: f64, seed: u64, purpose: Purpose) -> (Vec<u32>, Vec<u32>) {
    let total: usize = groups.iter().map(Vec::len).sum();
    let wanted = (total as f64 * fraction).round() as usize;
    let exact: Vec<f64> = groups.iter().map(|members| members.len() as f64 * fraction).collect();
    let mut quotas: Vec<usize> = exact.iter().map(|&quota| quota.floor() as usize).collect();
    let mut by_remainder: Vec<usize> = (0..groups.len()).collect();
    by_remainder.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(a.cmp(&b)));
    let missing = wanted.saturating_sub(quotas.iter().sum());
    for &class in by_remainder.iter().take(missing) {
        quotas[class] += 1;
    }
    let (mut held, mut rest) = (Vec::new(), Vec::new());
    for (class, members) in groups.iter().enumerate() {
        let mut members = members.clone();
        Counter::new(seed, purpose, 0, class as u32).shuffle(&mut members);
        let quota = quotas[class].min(members.len().saturating_sub(1));
        held.extend_from_slice(&members[..quota]);
        rest.extend_from_slice(&members[quota..]);
    }
    held.sort_unstable();
    rest.sort_unstable();
    (held, rest)
}

/// The order in which epoch `epoch` (from 0) visits the images `train`: a function of seed and epoch alone.
pub fn epoch_order(train: &[u32], seed: u64, epoch: u32) -> Vec<u32> {
    let mut order = train.to_vec();
    Counter::new(seed, Purpose::Order, epoch, 0).shuffle(&mut order);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_back_images_keep_the_shares_of_the_classes() {
        let groups = [(0..100).collect(), (100..130).collect(), (130..135).collect(), vec![135]];
        let (held, rest) = stratify(&groups, 0.1, 3, Purpose::Validation);
        assert_eq!(held.len(), 14);
        let counts: Vec<usize> = groups
            .iter()
            .map(|members: &Vec<u32>| held.iter().filter(|index| members.contains(index)).count())
            .collect();
        assert_eq!(counts, [10, 3, 1, 0]);
        let mut all: Vec<u32> = held.iter().chain(&rest).copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..136).collect::<Vec<_>>());
        assert_eq!(stratify(&groups, 0.1, 3, Purpose::Validation).0, held);
        assert_ne!(stratify(&groups, 0.1, 4, Purpose::Validation).0, held);
        assert!(stratify(&groups, 0.0, 3, Purpose::Validation).0.is_empty());
        assert_eq!(stratify(&groups, 0.99, 3, Purpose::Validation).1.len(), 4, "a class keeps its last image");
    }

    #[test]
    fn an_order_depends_on_seed_and_epoch_alone() {
        let train: Vec<u32> = (10..200).collect();
        let order = epoch_order(&train, 1, 0);
        assert_eq!(order, epoch_order(&train, 1, 0));
        assert_ne!(order, epoch_order(&train, 1, 1));
        assert_ne!(order, epoch_order(&train, 2, 0));
        let mut sorted = order;
        sorted.sort_unstable();
        assert_eq!(sorted, train);
        assert!(epoch_order(&[], 0, 0).is_empty());
    }
}
