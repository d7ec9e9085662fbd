//! Kernels that work on one channel of a batch at a time, one after the other in one task, so that what one leaves in the cache
//! the next finds there.

use super::{
    Plan,
    memory::{Memory, Place, Slot},
    program::{Kernel, Part, PartTimes},
};

/// Kernels whose tasks are the channels. Of what another of them writes, each task touches its own channel only.
#[derive(Default)]
pub(super) struct Channels {
    kernels: Vec<Box<dyn Kernel>>,
    times: PartTimes,
}

impl Kernel for Channels {
    fn name(&self) -> &'static str {
        self.kernels[0].name()
    }
    fn tasks(&self) -> usize {
        self.kernels[0].tasks()
    }
    fn scratch(&self) -> usize {
        self.kernels.iter().map(|kernel| kernel.scratch()).max().unwrap_or(0)
    }
    fn start_profile(&self) {
        self.times.start(self.kernels.len());
    }
    fn profile(&self) -> Vec<Part> {
        let kernels = self.kernels.iter().zip(self.times.shares());
        kernels.map(|(kernel, share)| Part { name: kernel.name(), share, work: kernel.work() }).collect()
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        for (i, kernel) in self.kernels.iter().enumerate() {
            self.times.time(i, || kernel.run(task, memory, scratch));
        }
    }
}

impl Plan {
    /// Appends a kernel whose tasks are the channels, which reads some of these slots and writes the others. Where it can, it joins the
    /// kernels that make what it reads: those of the last step, or, if it touches no state, of any.
    ///
    /// Its tasks may touch only their own channel of any slot.
    ///
    /// Returns the step that the kernel is part of.
    pub(super) fn push_by_channel(&mut self, kernel: impl Kernel + 'static, touches: &[Slot]) -> usize {
        let state = |slot: &Slot| matches!(self.places[slot.0], Place::State(_));
        // Values are made by the first step that touches them, or by the one that put them in the place of others.
        let made = |slot: &Slot| match self.places[slot.0] {
            Place::Arena { first, .. } if first < usize::MAX => Some(*self.replaced.get(slot).unwrap_or(&first)),
            _ => None,
        };
        let last = self.steps.len().checked_sub(1);
        let step = match touches.iter().filter_map(made).max() {
            Some(step) if Some(step) == last || !touches.iter().any(state) => Some(step),
            _ => None,
        };
        let joined = step.filter(|&step| match &self.steps[step] {
            Step::ByChannel(channels) => channels.tasks() == kernel.tasks(),
            Step::Alone(_) => false,
        });
        let step = joined.unwrap_or_else(|| {
            self.steps.push(Step::ByChannel(Channels::default()));
            self.steps.len() - 1
        });
        if let Step::ByChannel(channels) = &mut self.steps[step] {
            channels.kernels.push(Box::new(kernel));
        }
        self.touch(step, touches);
        step
    }
}

/// A step of the plan.
pub(crate) enum Step {
    /// A kernel of its own.
    Alone(Box<dyn Kernel>),
    /// Kernels that others may join.
    ByChannel(Channels),
}

impl Step {
    pub(super) fn kernel(&self) -> &dyn Kernel {
        match self {
            Self::Alone(kernel) => &**kernel,
            Self::ByChannel(channels) => channels,
        }
    }
}
