//! Linear layers whose weights are trained. The update leaves the new weights in 16 bits too, as tiles that the next step's products read, forward
//! and to the input gradient: half the bytes, and nothing to convert.
//!
//! Tiles are sixteen rows of sixteen words. A word of the weights holds inputs i and i + 16 of each 32, so that words of two rows, taken apart
//! and put together by halves, are words of two outputs for sixteen inputs in a row.

use std::ops::Range;

use graph::operators::Rule;
use pulp::Simd;

use super::{
    super::{
        Plan,
        arithmetic::{self, Arithmetic, Compute},
        fusion::Epilogue,
        matrix::Target,
        memory::{Memory, Slot},
        movement::chunk,
        program::{Kernel, Work},
        transpose::{Aligned, Square, transpose},
        update,
        vector::{load_sixteen, prefetch_all, stream, streamed},
    },
    BLOCK, HALVES, Operand, SIDE, Steps, machine, product,
};
use crate::Precision;

/// Words of a tile.
const TILE: usize = SIDE * SIDE;
/// Inputs that a task of a gradient takes at a time.
const INPUTS: usize = 256;
/// Inputs whose weights a task of the update takes at a time: their gradients stay in the first-level cache.
const UPDATED: usize = 128;
/// Most steps of the depth of one product forward: what they read of a panel stays in the second-level cache.
const STEPS: usize = 16;
/// Most steps of the depth whose weights an input gradient puts together at a time.
const DEPTH: usize = 8;

/// A layer: y [rows, outputs] = x [rows, inputs] wᵀ + b.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Layer {
    pub(in super::super) rows: usize,
    pub(in super::super) inputs: usize,
    pub(in super::super) outputs: usize,
}

/// Whether a layer's weights are kept as tiles too.
pub(in super::super) fn keeps_tiles(precision: Precision, inputs: usize) -> bool {
    precision == Precision::Bf16 && machine().is_some() && inputs.is_multiple_of(HALVES)
}

impl Layer {
    /// Words of its weights as tiles [blocks of 32 outputs, 2, 32 inputs each, rows, words].
    pub(in super::super) fn words(self) -> usize {
        self.blocks() * self.block()
    }
    /// Blocks of 32 outputs.
    fn blocks(self) -> usize {
        self.outputs.div_ceil(BLOCK)
    }
    /// Tiles along the inputs.
    fn across(self) -> usize {
        self.inputs / HALVES
    }
    /// Words of a block.
    fn block(self) -> usize {
        2 * self.across() * TILE
    }
    /// Blocks of 32 rows.
    fn panels(self) -> usize {
        self.rows.div_ceil(BLOCK)
    }
    /// Parts of x: some inputs of a panel each.
    fn parts(self) -> usize {
        self.panels() * self.inputs.div_ceil(INPUTS)
    }
    /// One of them, and where its words go.
    fn part<'a>(self, part: usize, memory: &'a Memory, x: Slot, to: Slot) -> Part<'a> {
        let Self { rows, inputs: stride, .. } = self;
        let per_panel = stride.div_ceil(INPUTS);
        let (panel, inputs) = (part / per_panel, chunk(part % per_panel, INPUTS, stride));
        let words = SIDE * (panel * stride + inputs.start);
        let to = memory.write(to, words..words + SIDE * inputs.len());
        let x = &memory.read(x)[panel * BLOCK * stride..rows.min((panel + 1) * BLOCK) * stride];
        Part { x, stride, inputs, to }
    }
    fn work(self) -> Work {
        Work::plain(self.rows * self.inputs * self.outputs)
    }
}

/// Some inputs of a panel of x.
struct Part<'a> {
    /// Rows so far apart, at most 32.
    x: &'a [f32],
    stride: usize,
    inputs: Range<usize>,
    to: &'a mut [f32],
}

/// Words: values of both rows, those of the first in the low half.
#[inline(always)]
fn joined<S: Simd, A: Arithmetic<S>>(simd: S, arithmetic: A, rows: [&[f32; SIDE]; 2]) -> S::f32s {
    // Tiles exist where registers have sixteen lanes.
    arithmetic.join(simd, rows.map(|row| S::as_simd_f32s(row).0[0]))
}

/// [`joined`] to the first sixteen places.
#[inline(always)]
fn join<S: Simd, A: Arithmetic<S>>(simd: S, arithmetic: A, low: &[f32; SIDE], high: &[f32; SIDE], to: &mut [f32]) {
    S::as_mut_simd_f32s(&mut to[..SIDE]).0[0] = joined(simd, arithmetic, [low, high]);
}

/// Some values of an output's weights to its row of their tiles, past the caches, which hold them no longer when they are wanted;
/// [`streamed`] comes after the last.
#[inline(always)]
fn keep<S: Simd, A: Arithmetic<S>>(simd: S, arithmetic: A, w: &[f32], row: usize, tiles: &mut [f32]) {
    for ([low, high], tile) in w.as_chunks::<SIDE>().0.as_chunks::<2>().0.iter().zip(tiles.as_chunks_mut::<TILE>().0) {
        stream(simd, joined(simd, arithmetic, [low, high]), &mut tile.as_chunks_mut::<SIDE>().0[row]);
    }
}

/// All weights as tiles, where somebody else has written to them; a block a task.
struct Keep {
    layer: Layer,
    w: Slot,
    tiles: Slot,
}

impl Kernel for Keep {
    fn name(&self) -> &'static str {
        "tiles of weights"
    }
    fn tasks(&self) -> usize {
        self.layer.blocks()
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let Layer { inputs, outputs, .. } = self.layer;
        let size = self.layer.block();
        let range = chunk(task, BLOCK, outputs);
        let w = &memory.read(self.w)[range.start * inputs..range.end * inputs];
        let tiles = memory.write(self.tiles, task * size..(task + 1) * size);
        arithmetic::run(Precision::Bf16, KeepTask { inputs, w, tiles });
    }
}

struct KeepTask<'a> {
    inputs: usize,
    w: &'a [f32],
    tiles: &'a mut [f32],
}

impl Compute for KeepTask<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        let half = self.tiles.len() / 2;
        for (row, w) in self.w.chunks_exact(self.inputs).enumerate() {
            keep(simd, arithmetic, w, row % SIDE, &mut self.tiles[row / SIDE * half..]);
        }
        streamed();
    }
}

/// What makes all tiles from the weights.
pub(in super::super) fn keeper(layer: Layer, w: Slot, tiles: Slot) -> Box<dyn Kernel> {
    Box::new(Keep { layer, w, tiles })
}

/// x as right operands [panels of 32 rows, 32 inputs each, words, rows].
struct Inputs {
    layer: Layer,
    x: Slot,
    y: Slot,
}

impl Kernel for Inputs {
    fn name(&self) -> &'static str {
        "linear inputs"
    }
    fn tasks(&self) -> usize {
        self.layer.parts()
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        arithmetic::run(Precision::Bf16, PackInputs(self.layer.part(task, memory, self.x, self.y)));
    }
}

struct PackInputs<'a>(Part<'a>);

impl Compute for PackInputs<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        let Part { x, stride, inputs, to } = self.0;
        for (input, to) in inputs.step_by(HALVES).zip(to.chunks_exact_mut(SIDE * BLOCK)) {
            for half in 0..2 {
                let mut squares: Aligned<[Square; 2]> = Aligned([[[0.0; SIDE]; SIDE]; 2]);
                for (row, x) in x.chunks_exact(stride).skip(half * SIDE).take(SIDE).enumerate() {
                    for (part, square) in squares.iter_mut().enumerate() {
                        load_sixteen(simd, &x[input + part * SIDE..][..SIDE], &mut square[row]);
                    }
                }
                squares.iter_mut().for_each(|square| transpose(simd, square));
                for word in 0..SIDE {
                    let to = &mut to[word * BLOCK + half * SIDE..];
                    join(simd, arithmetic, &squares[0][word], &squares[1][word], to);
                }
            }
        }
    }
}

/// y, a block of outputs a task.
struct Forward {
    layer: Layer,
    /// Steps of the depth.
    at: Vec<[usize; 2]>,
    panels: Slot,
    tiles: Slot,
    b: Slot,
    y: Slot,
    epilogue: Epilogue,
}

impl Kernel for Forward {
    fn name(&self) -> &'static str {
        "linear"
    }
    fn work(&self) -> Work {
        self.layer.work()
    }
    fn tasks(&self) -> usize {
        self.layer.blocks()
    }
    fn scratch(&self) -> usize {
        BLOCK * BLOCK * self.layer.panels()
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let Layer { rows, outputs, .. } = self.layer;
        let width = BLOCK * self.layer.panels();
        let sums = &mut scratch[..BLOCK * width];
        let tiles = &memory.read(self.tiles)[task * self.layer.block()..][..self.layer.block()];
        arithmetic::run(Precision::Bf16, ForwardTask { kernel: self, tiles, panels: memory.read(self.panels), sums });
        let outputs_here = chunk(task, BLOCK, outputs);
        let bias = &memory.read(self.b)[outputs_here.clone()];
        let mut line = [0.0; BLOCK];
        let line = &mut line[..outputs_here.len()];
        for row in 0..rows {
            for ((value, sums), bias) in line.iter_mut().zip(sums.chunks_exact(width)).zip(bias) {
                *value = sums[row] + bias;
            }
            let from = row * outputs + outputs_here.start;
            self.epilogue.apply(memory, line, from);
            memory.write(self.y, from..from + line.len()).copy_from_slice(line);
        }
    }
}

struct ForwardTask<'a> {
    kernel: &'a Forward,
    tiles: &'a [f32],
    panels: &'a [f32],
    /// [outputs, rows].
    sums: &'a mut [f32],
}

impl Compute for ForwardTask<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, _: S, arithmetic: A) {
        let Self { kernel, tiles: w, panels, sums } = self;
        let tiles = arithmetic.tiles().expect("this kernel is chosen where there are tiles");
        let half = w.len() / 2;
        let left = Operand::words(w, SIDE, half);
        let width = BLOCK * kernel.layer.panels();
        for (part, at) in kernel.at.chunks(STEPS).enumerate() {
            let steps = Steps::new(at);
            for (panel, words) in panels.chunks_exact(kernel.layer.inputs * SIDE).enumerate() {
                let right = Operand::words(words, BLOCK, SIDE);
                let to = Target { values: &mut sums[panel * BLOCK..], stride: width, accumulate: part > 0 };
                product(tiles, [2, 2], [left, right], steps, to);
            }
        }
    }
}

/// x = [x, w, b], with `tiles` of w.
pub(in super::super) fn forward(plan: &mut Plan, layer: Layer, x: &[Slot], tiles: Slot, y: Slot, epilogue: Epilogue) {
    let panels = plan.temporary(layer.panels() * layer.inputs * SIDE);
    plan.push(Inputs { layer, x: x[0], y: panels }, &[x[0], panels]);
    let at = (0..layer.across()).map(|step| [step * 2 * TILE, step * 2 * SIDE * BLOCK]).collect();
    let touches: Vec<Slot> = [panels, tiles, x[2], y].into_iter().chain(epilogue.slots()).collect();
    plan.push(Forward { layer, at, panels, tiles, b: x[2], y, epilogue }, &touches);
}

/// dy as left operands [panels of 32 rows, 2, 32 outputs each, rows, words].
struct Gradients {
    layer: Layer,
    dy: Slot,
    y: Slot,
}

impl Kernel for Gradients {
    fn name(&self) -> &'static str {
        "linear output gradients"
    }
    fn tasks(&self) -> usize {
        2 * self.layer.panels()
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let Layer { rows, outputs, .. } = self.layer;
        let size = self.layer.blocks() * TILE;
        let to = memory.write(self.y, task * size..(task + 1) * size);
        let here = (task * SIDE).min(rows)..((task + 1) * SIDE).min(rows);
        let dy = &memory.read(self.dy)[here.start * outputs..here.end * outputs];
        arithmetic::run(Precision::Bf16, PackGradients { dy, outputs, to });
    }
}

struct PackGradients<'a> {
    /// Rows of so many outputs, at most sixteen.
    dy: &'a [f32],
    outputs: usize,
    to: &'a mut [f32],
}

impl Compute for PackGradients<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        let Self { dy, outputs, to } = self;
        to.fill(0.0);
        for (row, dy) in dy.chunks_exact(outputs).enumerate() {
            for (dy, tile) in dy.chunks(HALVES).zip(to.as_chunks_mut::<TILE>().0) {
                let mut values = [[0.0; SIDE]; 2];
                for (part, values) in values.iter_mut().enumerate() {
                    load_sixteen(simd, dy.get(part * SIDE..).unwrap_or(&[]), values);
                }
                join(simd, arithmetic, &values[0], &values[1], &mut tile[row * SIDE..]);
            }
        }
    }
}

/// dx [rows, inputs] = dy w, some inputs a task.
struct InputGrad {
    layer: Layer,
    dy: Slot,
    tiles: Slot,
    dx: Slot,
    epilogue: Epilogue,
}

impl InputGrad {
    /// Weights of some outputs as right operands [steps of the depth, words, inputs], and sums [rows, inputs].
    fn room(&self) -> [usize; 2] {
        [DEPTH * SIDE * INPUTS, self.layer.panels() * BLOCK * INPUTS]
    }
}

impl Kernel for InputGrad {
    fn name(&self) -> &'static str {
        "linear input gradient"
    }
    fn work(&self) -> Work {
        self.layer.work()
    }
    fn tasks(&self) -> usize {
        self.layer.inputs.div_ceil(INPUTS)
    }
    fn scratch(&self) -> usize {
        self.room().iter().sum()
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let Layer { inputs: all, .. } = self.layer;
        let inputs = chunk(task, INPUTS, all);
        let [words, sums] = self.room();
        let (words, room) = scratch.split_at_mut(words);
        let sums = &mut room[..sums];
        let (dy, tiles) = (memory.read(self.dy), memory.read(self.tiles));
        let task = InputGradTask { layer: self.layer, inputs: inputs.clone(), dy, tiles, words, sums: &mut *sums };
        arithmetic::run(Precision::Bf16, task);
        for (row, sums) in sums.chunks_exact_mut(INPUTS).enumerate().take(self.layer.rows) {
            let (from, sums) = (row * all + inputs.start, &mut sums[..inputs.len()]);
            self.epilogue.apply(memory, sums, from);
            memory.write(self.dx, from..from + sums.len()).copy_from_slice(sums);
        }
    }
}

struct InputGradTask<'a> {
    layer: Layer,
    inputs: Range<usize>,
    dy: &'a [f32],
    tiles: &'a [f32],
    words: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Compute for InputGradTask<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        let Self { layer, inputs, dy, tiles: w, words, sums } = self;
        let tiles = arithmetic.tiles().expect("this kernel is chosen where there are tiles");
        let (across, blocks) = (layer.across(), layer.blocks());
        let columns = inputs.len() / HALVES;
        // Tiles of these inputs, of one of the two halves of a block of outputs.
        let weights = |block: usize, half: usize| {
            &w[((2 * block + half) * across + inputs.start / HALVES) * TILE..][..columns * TILE]
        };
        for first in (0..blocks).step_by(DEPTH) {
            let here = DEPTH.min(blocks - first);
            for step in 0..here {
                let [low, high] = [0, 1].map(|half| weights(first + step, half).as_chunks::<TILE>().0);
                for (column, (low, high)) in low.iter().zip(high).enumerate() {
                    let to = &mut words[(column * DEPTH + step) * SIDE * BLOCK..][..SIDE * BLOCK];
                    put_together(simd, low, high, to);
                }
            }
            let mut at = [[0; 2]; DEPTH];
            for (step, at) in at[..here].iter_mut().enumerate() {
                *at = [step * 2 * TILE, step * 2 * SIDE * BLOCK];
            }
            let steps = Steps::new(&at[..here]);
            for (panel, dy) in dy.chunks_exact(2 * blocks * TILE).enumerate() {
                let left = Operand::words(&dy[first * TILE..], SIDE, blocks * TILE);
                for (column, words) in words.chunks_exact(DEPTH * SIDE * BLOCK).enumerate().take(columns) {
                    let right = Operand::words(words, BLOCK, SIDE);
                    let values = &mut sums[panel * BLOCK * INPUTS + column * BLOCK..];
                    product(
                        tiles,
                        [2, 2],
                        [left, right],
                        steps,
                        Target { values, stride: INPUTS, accumulate: first > 0 },
                    );
                }
            }
        }
    }
}

/// Words of outputs o and o + 16 for 32 inputs in a row, from two tiles whose words hold inputs i and i + 16.
#[inline(always)]
fn put_together<S: Simd>(simd: S, low: &[f32; TILE], high: &[f32; TILE], to: &mut [f32]) {
    let sixteen = simd.splat_u32s(16);
    let (lower, upper) = (simd.splat_u32s(0xffff), simd.splat_u32s(0xffff_0000));
    let rows = |tile| S::as_simd_f32s(tile).0;
    for ((&low, &high), to) in rows(low).iter().zip(rows(high)).zip(S::as_mut_simd_f32s(to).0.as_chunks_mut::<2>().0) {
        let [low, high] = [low, high].map(|words| simd.transmute_u32s_f32s(words));
        let first = simd.or_u32s(simd.and_u32s(low, lower), simd.wrapping_dyn_shl_u32s(high, sixteen));
        let second = simd.or_u32s(simd.wrapping_dyn_shr_u32s(low, sixteen), simd.and_u32s(high, upper));
        *to = [first, second].map(|words| simd.transmute_f32s_u32s(words));
    }
}

/// x = [w, dy], with `tiles` of w.
pub(in super::super) fn input_grad(
    plan: &mut Plan,
    layer: Layer,
    x: &[Slot],
    tiles: Slot,
    dx: Slot,
    epilogue: Epilogue,
) {
    let dy = plan.temporary(2 * layer.panels() * layer.blocks() * TILE);
    plan.push(Gradients { layer, dy: x[1], y: dy }, &[x[1], dy]);
    let touches: Vec<Slot> = [dy, tiles, dx].into_iter().chain(epilogue.slots()).collect();
    plan.push(InputGrad { layer, dy, tiles, dx, epilogue }, &touches);
}

/// x as right operands [panels of 32 rows, 32 inputs each, words of rows, inputs], and dyᵀ as left ones
/// [blocks of 32 outputs, 2, panels, outputs, words of rows].
struct Operands {
    layer: Layer,
    x: Slot,
    dy: Slot,
    right: Slot,
    left: Slot,
}

impl Kernel for Operands {
    fn name(&self) -> &'static str {
        "linear operands"
    }
    fn tasks(&self) -> usize {
        self.layer.parts() + self.layer.blocks()
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let layer = self.layer;
        let Some(block) = task.checked_sub(layer.parts()) else {
            return arithmetic::run(Precision::Bf16, PackRight(layer.part(task, memory, self.x, self.right)));
        };
        let size = 2 * layer.panels() * TILE;
        let to = memory.write(self.left, block * size..(block + 1) * size);
        let pack = PackLeft { layer, dy: memory.read(self.dy), outputs: chunk(block, BLOCK, layer.outputs), to };
        arithmetic::run(Precision::Bf16, pack);
    }
}

struct PackRight<'a>(Part<'a>);

impl Compute for PackRight<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        let Part { x, stride, inputs, to } = self.0;
        for (input, to) in inputs.step_by(HALVES).zip(to.chunks_exact_mut(SIDE * BLOCK)) {
            for half in 0..2 {
                let mut values = [[0.0; SIDE]; BLOCK];
                for (x, values) in x.chunks_exact(stride).zip(&mut values) {
                    load_sixteen(simd, &x[input + half * SIDE..][..SIDE], values);
                }
                for word in 0..SIDE {
                    join(simd, arithmetic, &values[word], &values[SIDE + word], &mut to[word * BLOCK + half * SIDE..]);
                }
            }
        }
    }
}

struct PackLeft<'a> {
    layer: Layer,
    dy: &'a [f32],
    outputs: Range<usize>,
    to: &'a mut [f32],
}

impl Compute for PackLeft<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        let Self { layer, dy, outputs, to } = self;
        let all = layer.outputs;
        for (place, tile) in to.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
            let (half, panel) = (place / layer.panels(), place % layer.panels());
            let first = (outputs.start + half * SIDE).min(outputs.end);
            let last = (first + SIDE).min(outputs.end);
            let mut squares: Aligned<[Square; 2]> = Aligned([[[0.0; SIDE]; SIDE]; 2]);
            let rows = dy.chunks_exact(all).skip(panel * BLOCK).take(BLOCK);
            for (dy, values) in rows.zip(squares.as_flattened_mut()) {
                load_sixteen(simd, &dy[first..last], values);
            }
            squares.iter_mut().for_each(|square| transpose(simd, square));
            for output in 0..SIDE {
                join(simd, arithmetic, &squares[0][output], &squares[1][output], &mut tile[output * SIDE..]);
            }
        }
    }
}

/// The optimizer's step with dw [outputs, inputs] = dyᵀ x, which is never stored; a block of outputs a task.
struct Update {
    layer: Layer,
    /// Steps of the depth.
    at: Vec<[usize; 2]>,
    left: Slot,
    right: Slot,
    tiles: Slot,
    rule: Rule,
    /// Inputs of [`update::apply`].
    x: Vec<Slot>,
}

impl Kernel for Update {
    fn name(&self) -> &'static str {
        "linear weight gradient and update"
    }
    fn work(&self) -> Work {
        self.layer.work()
    }
    fn tasks(&self) -> usize {
        self.layer.blocks()
    }
    fn scratch(&self) -> usize {
        BLOCK * UPDATED
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let sums = &mut scratch[..BLOCK * UPDATED];
        arithmetic::run(Precision::Bf16, UpdateTask { kernel: self, task, memory, sums });
    }
}

struct UpdateTask<'a> {
    kernel: &'a Update,
    task: usize,
    memory: &'a Memory,
    /// Gradients [outputs, inputs] of some inputs.
    sums: &'a mut [f32],
}

impl Compute for UpdateTask<'_> {
    type Output = ();
    #[inline(always)]
    fn compute<S: Simd, A: Arithmetic<S>>(self, simd: S, arithmetic: A) {
        let Self { kernel, task, memory, sums } = self;
        let tiles = arithmetic.tiles().expect("this kernel is chosen where there are tiles");
        let layer = kernel.layer;
        let outputs = chunk(task, BLOCK, layer.outputs);
        let steps = Steps::new(&kernel.at);
        let size = 2 * layer.panels() * TILE;
        let left = &memory.read(kernel.left)[task * size..(task + 1) * size];
        let right = memory.read(kernel.right);
        for first in (0..layer.inputs).step_by(UPDATED) {
            let inputs = first..(first + UPDATED).min(layer.inputs);
            let next = inputs.end..(inputs.end + UPDATED).min(layer.inputs);
            for column in (0..inputs.len()).step_by(BLOCK) {
                let left = Operand::words(left, SIDE, size / 2);
                let right = Operand::words(&right[(first + column) * SIDE..], BLOCK, SIDE);
                let to = Target { values: &mut sums[column..], stride: UPDATED, accumulate: false };
                product(tiles, [2, 2], [left, right], steps, to);
            }
            for (row, output) in outputs.clone().enumerate() {
                let place =
                    |inputs: &Range<usize>| output * layer.inputs + inputs.start..output * layer.inputs + inputs.end;
                for slot in update::states(kernel.rule, &kernel.x) {
                    prefetch_all(memory.part(slot, place(&next)));
                }
                let here = place(&inputs);
                let g = &sums[row * UPDATED..][..inputs.len()];
                update::apply(kernel.rule, &kernel.x, memory, here.clone(), g);
                let w = memory.part(kernel.x[0], here);
                let tile = ((2 * task + row / SIDE) * layer.across() + first / HALVES) * TILE;
                let to = memory.write(kernel.tiles, tile..tile + inputs.len() / HALVES * TILE);
                keep(simd, arithmetic, w, row % SIDE, to);
            }
        }
        streamed();
    }
}

/// x = [x, dy]; `update` = [w, anything, hyper, moments…], with `tiles` of w.
pub(in super::super) fn update(plan: &mut Plan, layer: Layer, x: &[Slot], rule: Rule, update: &[Slot], tiles: Slot) {
    let right = plan.temporary(layer.panels() * layer.inputs * SIDE);
    let left = plan.temporary(layer.blocks() * 2 * layer.panels() * TILE);
    plan.push(Operands { layer, x: x[0], dy: x[1], right, left }, &[x[0], x[1], right, left]);
    let at = (0..layer.panels()).map(|panel| [panel * 2 * TILE, panel * 2 * layer.inputs * SIDE]).collect();
    let touches: Vec<Slot> = [left, right, tiles].into_iter().chain(update.iter().copied()).collect();
    plan.push(Update { layer, at, left, right, tiles, rule, x: update.to_vec() }, &touches);
}
