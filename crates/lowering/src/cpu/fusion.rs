//! Elementwise operators join the kernel that makes their input, so that values are touched while still in cache.

use std::collections::HashMap;

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

/// Weight gradients of linear layers that only an unclipped update reads, with that update: they need never be stored.
pub(crate) fn joined_updates(items: &[Item]) -> HashMap<usize, usize> {
    let mut readers: HashMap<usize, Vec<usize>> = HashMap::new();
    for (i, item) in items.iter().enumerate() {
        item.inputs.iter().for_each(|&input| readers.entry(input).or_default().push(i));
    }
    let joined = |(i, item): (usize, &Item)| match (&item.operator, readers.get(&i).map(Vec::as_slice)) {
        (Operator::LinearWeightGrad, Some(&[reader])) => match items[reader].operator {
            // Parameter, gradient, hyperparameters and moments; a clip factor would come after them.
            Operator::Update(rule) if items[reader].inputs.len() == 3 + rule.moments() => Some((i, reader)),
            _ => None,
        },
        _ => None,
    };
    items.iter().enumerate().filter_map(joined).collect()
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
