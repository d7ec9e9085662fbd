//! Steps on one block of images, run one after the other by one task, so that what one leaves in the cache the next finds there.
//!
//! A block is as many images as a vector has lanes. A value is [features][lanes]: for images [C, H, W][lanes], one
//! vector a pixel. Values that only one chain needs live in memory of the thread that runs it, the others in the arena,
//! block after block.

use std::cell::OnceCell;

use pulp::WithSimd;

use super::super::{
    Plan,
    memory::{Memory, Place, Slot, layout},
    program::{Kernel, Part, PartTimes, Work},
    vector::{self, Level},
};

/// A value of the chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(pub(super) usize);

/// What a step finds when it runs.
pub(super) struct Room<'a> {
    pub(super) level: Level,
    /// Number of the block.
    pub(super) block: usize,
    pub(super) memory: &'a Memory,
    private: &'a mut [f32],
    homes: &'a [Home],
}

impl<'a> Room<'a> {
    /// The values of this block, which must differ from each other.
    pub(super) fn values<const N: usize>(&mut self, ids: [Id; N]) -> [&mut [f32]; N] {
        let ranges = ids.map(|id| match &self.homes[id.0] {
            Home::Private(range) => range.clone(),
            Home::Arena(..) => 0..0,
        });
        let mut slices = self.private.get_disjoint_mut(ranges).expect("values of one step live side by side");
        for (slice, id) in slices.iter_mut().zip(ids) {
            if let Home::Arena(slot, elements) = self.homes[id.0] {
                *slice = self.memory.write(slot, self.block * elements..(self.block + 1) * elements);
            }
        }
        slices
    }

    /// Runs a kernel with the vectors that the chain was made for.
    pub(super) fn vectorize<K: WithSimd>(level: Level, kernel: K) -> K::Output {
        vector::run_at(level, kernel)
    }
}

/// One operation on a block.
pub(super) trait Step: Send + Sync {
    /// What it computes, for profiles.
    fn name(&self) -> &'static str;
    /// Computes it for the block of the room.
    fn run(&self, room: &mut Room);
}

/// Where a value lives.
#[derive(Clone, Debug)]
enum Home {
    Private(std::ops::Range<usize>),
    /// Elements of a block.
    Arena(Slot, usize),
}

struct Value {
    elements: usize,
    /// (chain, step) of everything that touches it.
    touched: Vec<(usize, usize)>,
}

/// Chains while they are being collected.
pub(super) struct Chains {
    pub(super) level: Level,
    pub(super) lanes: usize,
    pub(super) blocks: usize,
    values: Vec<Value>,
    chains: Vec<Vec<Box<dyn Step>>>,
    /// Multiply-adds of each step over the batch.
    multiply_adds: Vec<Vec<usize>>,
    /// Slots of the plan that steps of each chain touch beside the values.
    slots: Vec<Vec<Slot>>,
    homes: OnceCell<Vec<Home>>,
}

impl Chains {
    pub(super) fn new(level: Level, lanes: usize, blocks: usize, chains: usize) -> Self {
        let steps = (0..chains).map(|_| Vec::new()).collect();
        let (slots, multiply_adds) = (vec![Vec::new(); chains], vec![Vec::new(); chains]);
        Self { level, lanes, blocks, values: Vec::new(), chains: steps, multiply_adds, slots, homes: OnceCell::new() }
    }

    /// A value of this many features.
    pub(super) fn value(&mut self, features: usize) -> Id {
        self.values.push(Value { elements: features * self.lanes, touched: Vec::new() });
        Id(self.values.len() - 1)
    }

    /// Appends a step to a chain; it touches these values and slots.
    pub(super) fn push(&mut self, chain: usize, step: impl Step + 'static, values: &[Id], slots: &[Slot]) {
        let number = self.chains[chain].len();
        for id in values {
            self.values[id.0].touched.push((chain, number));
        }
        self.slots[chain].extend(slots);
        self.chains[chain].push(Box::new(step));
        self.multiply_adds[chain].push(0);
    }

    /// Notes how many products the last step of a chain adds up over the batch.
    pub(super) fn note_work(&mut self, chain: usize, multiply_adds: usize) {
        *self.multiply_adds[chain].last_mut().expect("a step was pushed") = multiply_adds;
    }

    /// Gives every value its place. Call once all steps are there.
    fn settle(&self, plan: &mut Plan) -> Vec<Home> {
        let mut homes: Vec<Home> = self.values.iter().map(|_| Home::Private(0..0)).collect();
        let chain_of = |value: &Value| {
            let &(first, _) = value.touched.first()?;
            value.touched.iter().all(|&(chain, _)| chain == first).then_some(first)
        };
        for chain in 0..self.chains.len() {
            let members: Vec<usize> =
                (0..self.values.len()).filter(|&i| chain_of(&self.values[i]) == Some(chain)).collect();
            let places: Vec<Place> = members
                .iter()
                .map(|&i| {
                    let steps = || self.values[i].touched.iter().map(|&(_, step)| step);
                    let (first, last) = (steps().min().unwrap_or(0), steps().max().unwrap_or(0));
                    Place::Arena { elements: self.values[i].elements, first, last }
                })
                .collect();
            for (&i, offset) in members.iter().zip(layout(&places).0) {
                homes[i] = Home::Private(offset..offset + self.values[i].elements);
            }
        }
        for (i, value) in self.values.iter().enumerate() {
            if chain_of(value).is_none() && !value.touched.is_empty() {
                homes[i] = Home::Arena(plan.temporary(self.blocks * value.elements), value.elements);
            }
        }
        homes
    }

    /// Appends the kernel of one chain, in order.
    pub(super) fn finish(&mut self, chain: usize, plan: &mut Plan) {
        let homes = match self.homes.get() {
            Some(homes) => homes.clone(),
            None => {
                let homes = self.settle(plan);
                self.homes.set(homes.clone()).expect("it was empty");
                homes
            }
        };
        let steps = std::mem::take(&mut self.chains[chain]);
        if steps.is_empty() {
            return;
        }
        let mut touches = std::mem::take(&mut self.slots[chain]);
        for (value, home) in self.values.iter().zip(&homes) {
            if let Home::Arena(slot, _) = home
                && value.touched.iter().any(|&(c, _)| c == chain)
            {
                touches.push(*slot);
            }
        }
        let private = self.values.iter().zip(&homes).filter_map(|(value, home)| match home {
            Home::Private(range) if value.touched.first().is_some_and(|&(c, _)| c == chain) => Some(range.end),
            _ => None,
        });
        let private = private.max().unwrap_or(0);
        let multiply_adds = std::mem::take(&mut self.multiply_adds[chain]);
        let times = PartTimes::default();
        let chain = Chain { level: self.level, blocks: self.blocks, private, homes, steps, multiply_adds, times };
        plan.push(chain, &touches);
    }
}

struct Chain {
    level: Level,
    blocks: usize,
    /// Elements of a thread's own memory.
    private: usize,
    homes: Vec<Home>,
    steps: Vec<Box<dyn Step>>,
    multiply_adds: Vec<usize>,
    times: PartTimes,
}

impl Kernel for Chain {
    fn name(&self) -> &'static str {
        "block of images"
    }
    fn tasks(&self) -> usize {
        self.blocks
    }
    fn scratch(&self) -> usize {
        self.private
    }
    fn start_profile(&self) {
        self.times.start(self.steps.len());
    }
    fn work(&self) -> Work {
        Work::plain(self.multiply_adds.iter().sum())
    }
    fn profile(&self) -> Vec<Part> {
        let steps = self.steps.iter().zip(&self.multiply_adds).zip(self.times.shares());
        steps.map(|((step, &work), share)| Part { name: step.name(), share, work: Work::plain(work) }).collect()
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        for (i, step) in self.steps.iter().enumerate() {
            let private = &mut scratch[..self.private];
            let mut room = Room { level: self.level, block: task, memory, private, homes: &self.homes };
            self.times.time(i, || step.run(&mut room));
        }
    }
}
