//! Convolutions: which way is taken, and input gradients for which no better way is known.
//!
//! For these, `cols` [C·KH·KW, G·OH·OW] = wᵀ·dy holds in each column what one window gives back to its pixels, and is
//! scattered there. Small maps are taken several at a time, so that the products are wide enough to be fast.

use graph::operators::Convolution;

use super::{
    Plan, amx, direct,
    fusion::Epilogue,
    linear,
    matrix::{self, Matrix, multiply},
    memory::{Memory, Slot},
    movement::chunk,
    program::{Kernel, Work},
    simd,
    winograd::{self, Correlation},
};
use crate::Precision;

/// Least columns of a matrix product, if the batch has as many.
const WIDTH: usize = 256;

/// Extents of one convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extents {
    pub(super) images: usize,
    /// Input channels, height and width.
    pub(super) c: usize,
    pub(super) h: usize,
    pub(super) w: usize,
    /// Output channels, height and width.
    pub(super) o: usize,
    pub(super) oh: usize,
    pub(super) ow: usize,
    pub(super) kh: usize,
    pub(super) kw: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
    pub(super) groups: usize,
}

impl Extents {
    fn new(a: Convolution, x: &[usize], w: &[usize], y: &[usize]) -> Self {
        let Convolution { stride, padding, groups } = a;
        Self {
            images: x[0],
            c: x[1],
            h: x[2],
            w: x[3],
            o: w[0],
            oh: y[2],
            ow: y[3],
            kh: w[2],
            kw: w[3],
            stride,
            padding,
            groups,
        }
    }

    /// Products of one pass over the batch, forward or to one of the gradients.
    pub(super) fn multiply_adds(&self) -> usize {
        self.images * self.output() * self.c / self.groups * self.kh * self.kw
    }
    /// Values of one input image.
    pub(super) fn input(&self) -> usize {
        self.c * self.h * self.w
    }
    /// Values of one output image.
    pub(super) fn output(&self) -> usize {
        self.o * self.pixels()
    }
    /// Output pixels of one channel.
    pub(super) fn pixels(&self) -> usize {
        self.oh * self.ow
    }
    /// Values under one window of one group.
    pub(super) fn window(&self) -> usize {
        self.c / self.groups * self.kh * self.kw
    }
    /// Images that one matrix product takes. A function of the shapes alone.
    fn block(&self) -> usize {
        WIDTH.div_ceil(self.pixels()).min(self.images)
    }
    /// Values of `cols` for one group of a block.
    fn cols(&self) -> usize {
        self.window() * self.block() * self.pixels()
    }
    /// Values of a block's outputs of one group, channels first.
    fn gathered(&self) -> usize {
        self.o / self.groups * self.block() * self.pixels()
    }
    /// Private memory for both; a block of one image needs no copy of its outputs.
    fn private(&self) -> usize {
        self.cols() + if self.block() > 1 { self.gathered() } else { 0 }
    }
    /// Values of all weights.
    pub(super) fn weights(&self) -> usize {
        self.o * self.window()
    }

    /// A convolution whose single window is the whole image is a linear layer.
    fn is_linear(&self) -> bool {
        self.groups == 1 && self.padding == 0 && (self.kh, self.kw) == (self.h, self.w)
    }

    /// The correlation that minimal filtering serves better, if it does.
    fn winograd(&self, precision: Precision) -> Option<Correlation> {
        let c = Correlation {
            images: self.images,
            groups: self.groups,
            from: self.c / self.groups,
            to: self.o / self.groups,
            h: self.h,
            w: self.w,
            oh: self.oh,
            ow: self.ow,
            padding: self.padding,
            kernel: self.kh,
            sheet: 1,
            precision: winograd::precision(precision, self.kh),
        };
        winograd::serves(&c, self.stride, [self.kh, self.kw]).then(|| c.in_sheets())
    }

    /// Output columns whose window column `kx` falls on the image.
    fn inside(&self, kx: usize, size: usize, extent: usize) -> std::ops::Range<usize> {
        let first = self.padding.saturating_sub(kx).div_ceil(self.stride);
        let end = (size + self.padding).saturating_sub(kx).div_ceil(self.stride).min(extent);
        first.min(end)..end
    }

    /// Copies the output gradients of one group of a block to [channels, images·pixels]; of one image they are so already.
    fn gather_outputs<'a>(&self, dy: &'a [f32], group: usize, images: usize, room: &'a mut [f32]) -> &'a [f32] {
        let (channels, pixels) = (self.o / self.groups, self.pixels());
        let first = group * channels * pixels;
        if images == 1 {
            return &dy[first..first + channels * pixels];
        }
        for image in 0..images {
            let planes = dy[image * self.output() + first..][..channels * pixels].chunks_exact(pixels);
            for (plane, row) in planes.zip(room.chunks_exact_mut(images * pixels)) {
                row[image * pixels..][..pixels].copy_from_slice(plane);
            }
        }
        &room[..channels * images * pixels]
    }

    /// Adds the columns of one image of `images` back to the pixels that they were gathered from.
    fn scatter(&self, cols: &[f32], x: &mut [f32], (image, images): (usize, usize)) {
        for (row, values) in cols.chunks_exact(images * self.pixels()).enumerate() {
            let values = &values[image * self.pixels()..][..self.pixels()];
            let (c, ky, kx) = (row / (self.kh * self.kw), row / self.kw % self.kh, row % self.kw);
            let (ys, xs) = (self.inside(ky, self.h, self.oh), self.inside(kx, self.w, self.ow));
            if xs.is_empty() {
                continue;
            }
            for oy in ys {
                let start = (c * self.h + oy * self.stride + ky - self.padding) * self.w + xs.start * self.stride + kx
                    - self.padding;
                let line = &values[oy * self.ow..][xs.clone()];
                if self.stride == 1 {
                    simd::add(&mut x[start..start + line.len()], line);
                } else {
                    for (pixel, &value) in x[start..].iter_mut().step_by(self.stride).zip(line) {
                        *pixel += value;
                    }
                }
            }
        }
    }
}

/// x = [x, w, b].
pub(super) fn forward(
    plan: &mut Plan,
    a: Convolution,
    shapes: &[Vec<usize>],
    x: &[Slot],
    y: Slot,
    output: &[usize],
    epilogue: Epilogue,
) {
    let e = Extents::new(a, &shapes[0], &shapes[1], output);
    if e.is_linear() {
        return linear::forward(plan, e.images, e.input(), e.o, x, y, epilogue);
    }
    if amx::serves(&e, plan.precision) {
        return amx::forward(plan, &e, x, y, epilogue);
    }
    if let Some(c) = e.winograd(plan.precision) {
        return winograd::forward(plan, c, x, y, epilogue);
    }
    direct::forward(plan, e, x, y, epilogue);
}

struct InputGrad {
    e: Extents,
    w: Slot,
    dy: Slot,
    dx: Slot,
    epilogue: Epilogue,
}

impl Kernel for InputGrad {
    fn name(&self) -> &'static str {
        "convolution input gradient"
    }
    fn work(&self) -> Work {
        Work::plain(self.e.multiply_adds())
    }
    fn tasks(&self) -> usize {
        self.e.images.div_ceil(self.e.block())
    }
    fn scratch(&self) -> usize {
        self.e.private() + matrix::room(self.e.window(), self.e.o / self.e.groups)
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let e = &self.e;
        let block = chunk(task, e.block(), e.images);
        let (images, pixels, per_group) = (block.len(), e.pixels(), e.o / e.groups);
        let (scratch, panels) = scratch.split_at_mut(e.private());
        let (cols, room) = scratch.split_at_mut(e.cols());
        let cols = &mut cols[..e.window() * images * pixels];
        let dy = &memory.read(self.dy)[block.start * e.output()..block.end * e.output()];
        let range = block.start * e.input()..block.end * e.input();
        let dx = memory.write(self.dx, range.clone());
        dx.fill(0.0);
        let weights = memory.read(self.w);
        for group in 0..e.groups {
            let w = Matrix::columns(&weights[group * per_group * e.window()..], e.window());
            let dy = Matrix::rows(e.gather_outputs(dy, group, images, room), images * pixels);
            multiply(cols, images * pixels, (e.window(), per_group, images * pixels), w, dy, false, panels);
            for (image, dx) in dx.chunks_exact_mut(e.input()).enumerate() {
                e.scatter(cols, &mut dx[group * e.input() / e.groups..], (image, images));
            }
        }
        self.epilogue.apply(memory, dx, range.start);
    }
}

/// x = [w, dy].
pub(super) fn input_grad(
    plan: &mut Plan,
    a: Convolution,
    shapes: &[Vec<usize>],
    x: &[Slot],
    dx: Slot,
    x_shape: &[usize],
    epilogue: Epilogue,
) {
    let e = Extents::new(a, x_shape, &shapes[0], &shapes[1]);
    if e.is_linear() {
        return linear::input_grad(plan, e.images, &shapes[0], x, dx, epilogue);
    }
    if amx::serves_input_grad(&e, plan.precision) {
        return amx::input_grad(plan, &e, x, dx, epilogue);
    }
    if let Some(c) = e.winograd(plan.precision) {
        return winograd::input_grad(plan, c, x, dx, epilogue);
    }
    let touches: Vec<Slot> = x.iter().copied().chain([dx]).chain(epilogue.slots()).collect();
    plan.push(InputGrad { e, w: x[0], dy: x[1], dx, epilogue }, &touches);
}

/// x = [x, dy].
pub(super) fn weight_grad(
    plan: &mut Plan,
    a: Convolution,
    shapes: &[Vec<usize>],
    x: &[Slot],
    dw: Slot,
    w_shape: &[usize],
) {
    let e = Extents::new(a, &shapes[0], w_shape, &shapes[1]);
    if e.is_linear() {
        return linear::weight_grad(plan, e.images, w_shape, x, dw);
    }
    if amx::serves(&e, plan.precision) {
        return amx::weight_grad(plan, &e, x, dw);
    }
    if let Some(c) = e.winograd(plan.precision) {
        return winograd::weight_grad(plan, c, x, dw);
    }
    direct::weight_grad(plan, e, x, dw);
}
