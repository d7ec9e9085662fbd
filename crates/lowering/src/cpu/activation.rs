//! Elementwise operators that found no neighbour to join.

use super::{
    Plan,
    fusion::Epilogue,
    memory::{Memory, Slot},
    movement::{CHUNK, chunk},
    program::Kernel,
};
use crate::schedule::Item;

struct Elementwise {
    x: Slot,
    y: Slot,
    elements: usize,
    epilogue: Epilogue,
}

impl Kernel for Elementwise {
    fn name(&self) -> &'static str {
        "elementwise"
    }
    fn tasks(&self) -> usize {
        self.elements.div_ceil(CHUNK)
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let range = chunk(task, CHUNK, self.elements);
        let y = memory.write(self.y, range.clone());
        y.copy_from_slice(&memory.read(self.x)[range.clone()]);
        self.epilogue.apply(memory, y, range.start);
    }
}

pub(super) fn elementwise(plan: &mut Plan, item: &Item, x: &[Slot], y: Slot, epilogue: Epilogue) {
    let (main, first) = Epilogue::first(item, x);
    let epilogue = first.then(epilogue);
    let touches: Vec<Slot> = [main, y].into_iter().chain(epilogue.slots()).collect();
    plan.push(Elementwise { x: main, y, elements: item.output.iter().product(), epilogue }, &touches);
}
