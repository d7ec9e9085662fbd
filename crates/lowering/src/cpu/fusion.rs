//! Elementwise operators join the kernel that makes their input, so that values are touched while still in cache.

use std::collections::{HashMap, HashSet};

use graph::{
    Operator,
    operators::{Activation, Dropout},
};

use super::{
    memory::{Memory, Slot},
    simd,
};
pub(crate) use crate::fusion::{Group, groups};
use crate::{fusion::primary, schedule::Item};

/// The items that read each item, in order.
pub(crate) fn readers(items: &[Item]) -> Vec<Vec<usize>> {
    let mut readers = vec![Vec::new(); items.len()];
    for (i, item) in items.iter().enumerate() {
        item.inputs.iter().for_each(|&input| readers[input].push(i));
    }
    readers
}

/// Weight gradients of linear layers that only an unclipped update reads, with that update: they need never be stored.
pub(crate) fn joined_updates(items: &[Item], readers: &[Vec<usize>]) -> HashMap<usize, usize> {
    let joined = |(i, item): (usize, &Item)| match (&item.operator, &readers[i][..]) {
        (Operator::LinearWeightGrad, &[reader]) => match items[reader].operator {
            // Parameter, gradient, hyperparameters and moments; a clip factor would come after them.
            Operator::Update(rule) if items[reader].inputs.len() == 3 + rule.moments() => Some((i, reader)),
            _ => None,
        },
        _ => None,
    };
    items.iter().enumerate().filter_map(joined).collect()
}

/// Normalizations whose values, after the members of their group, are only pooled, with what gradients need of them: whoever reads them makes them
/// from what was normalized, which is read for the gradient anyway, so they need never be stored.
pub(crate) fn remade(items: &[Item], readers: &[Vec<usize>], groups: &[Group]) -> HashSet<usize> {
    let is_remade = |&normalize: &usize| {
        let (Operator::BatchNormalize, Group::Head { members }) = (&items[normalize].operator, &groups[normalize])
        else {
            return false;
        };
        let value = members.last().copied().unwrap_or(normalize);
        let suits = |&reader: &usize| {
            let item = &items[reader];
            match item.operator {
                Operator::MaxPool(_) => true,
                Operator::MaxPoolGrad(_) => item.inputs[1] != value,
                // Taken as soon as there is that of pooling, with the same values.
                Operator::ActivationGrad(_) => {
                    let pool = item.inputs[1];
                    matches!(items[pool].operator, Operator::MaxPoolGrad(_))
                        && items[pool].inputs[0] == value
                        && matches!(&groups[pool], Group::Head { members } if members.first() == Some(&reader))
                }
                _ => false,
            }
        };
        let Some(&last) = readers[value].last() else { return false };
        // What it takes to make them must be the same when the last of them is read.
        let is_written = |item: &Item| {
            item.operator.writes().iter().any(|&state| items[normalize].inputs.contains(&item.inputs[state]))
        };
        members.iter().all(|&member| matches!(items[member].operator, Operator::Activation(_)))
            && readers[value].iter().all(suits)
            && !items[normalize..=last].iter().any(is_written)
    };
    (0..items.len()).filter(is_remade).collect()
}

/// Whether the gradient of what was normalized may take the place of that of the normalized values, because nobody else reads these from then on.
pub(crate) fn takes_place_of_gradient(items: &[Item], readers: &[Vec<usize>], item: usize) -> bool {
    let Operator::BatchNormalizeInputGrad = items[item].operator else { return false };
    let dy = items[item].inputs[4];
    let reads_before = |reader: usize| {
        reader < item
            && matches!(items[reader].operator, Operator::BatchNormalizeParameterGrad)
            && items[reader].inputs[..2].iter().all(|&input| input != dy)
    };
    readers[dy].iter().all(|&reader| reader == item || reads_before(reader))
        && items[item].inputs[..4].iter().all(|&input| input != dy)
        && !matches!(items[dy].operator, Operator::Source(_) | Operator::Reshape(_))
}

/// One elementwise operation on values that are already in place.
#[derive(Clone, Copy, Debug)]
enum Elementwise {
    Activation(Activation),
    ActivationGrad(Activation, Slot),
    Dropout(Dropout, Slot),
    Add(Slot),
}

/// What a kernel does to its output before it lets go of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Epilogue(Vec<Elementwise>);

impl Epilogue {
    /// The members of a group, in order.
    pub(crate) fn new(items: &[Item], members: &[usize], slot: &dyn Fn(usize) -> Slot) -> Self {
        Self(members.iter().map(|&member| Self::operation(&items[member], primary(&items[member]), slot)).collect())
    }

    /// A single operator whose main input is copied to the output first.
    pub(crate) fn first(item: &Item, x: &[Slot]) -> (Slot, Self) {
        let main = primary(item).unwrap_or(item.inputs[0]);
        let slot = |input: usize| {
            let position = item.inputs.iter().position(|&i| i == input);
            x[position.expect("it is one of the inputs")]
        };
        (slot(main), Self(vec![Self::operation(item, Some(main), &slot)]))
    }

    fn operation(item: &Item, main: Option<usize>, slot: &dyn Fn(usize) -> Slot) -> Elementwise {
        match item.operator {
            Operator::Activation(kind) => Elementwise::Activation(kind),
            Operator::ActivationGrad(kind) => Elementwise::ActivationGrad(kind, slot(item.inputs[0])),
            Operator::Dropout(dropout) => Elementwise::Dropout(dropout, slot(item.inputs[1])),
            Operator::Add => {
                let other = if Some(item.inputs[0]) == main { item.inputs[1] } else { item.inputs[0] };
                Elementwise::Add(slot(other))
            }
            ref other => unreachable!("{other:?} is not elementwise"),
        }
    }

    /// This one, then another.
    pub(crate) fn then(mut self, next: Self) -> Self {
        self.0.extend(next.0);
        self
    }

    /// Slots that it reads.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.0.iter().filter_map(|operation| match operation {
            Elementwise::Activation(_) => None,
            Elementwise::ActivationGrad(_, slot) | Elementwise::Dropout(_, slot) | Elementwise::Add(slot) => {
                Some(*slot)
            }
        })
    }

    /// Transforms `out`, which holds the output's values from `offset` on.
    pub(crate) fn apply(&self, memory: &Memory, out: &mut [f32], offset: usize) {
        for operation in &self.0 {
            match *operation {
                Elementwise::Activation(kind) => simd::activation(kind, out),
                Elementwise::ActivationGrad(kind, y) => {
                    simd::activation_grad(kind, memory.part(y, offset..offset + out.len()), out);
                }
                Elementwise::Dropout(dropout, key) => {
                    let key = memory.read(key);
                    let words = dropout.words(std::array::from_fn(|i| f64::from(key[i])));
                    simd::dropout(words, dropout.threshold(), dropout.scale() as f32, offset as u32, out);
                }
                Elementwise::Add(other) => simd::add(out, memory.part(other, offset..offset + out.len())),
            }
        }
    }
}
