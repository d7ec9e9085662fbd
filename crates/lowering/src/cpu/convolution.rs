//! Convolutions as matrix products over gathered windows, a block of images a task.
//!
//! For images x [G, C, H, W], `cols` [C·KH·KW, G·OH·OW] holds in each column the values under one window, so that
//! y = w·cols, dw = dy·colsᵀ and dx = the scatter of wᵀ·dy. Small maps are taken several at a time, so that the products
//! are wide enough to be fast.

use graph::operators::Convolution;

use super::{
    Plan,
    fusion::Epilogue,
    linear,
    matrix::{self, Matrix, multiply},
    memory::{Memory, Slot},
    movement::{self, chunk},
    program::Kernel,
    simd,
    winograd::{self, Correlation},
};

/// Least columns of a matrix product, if the batch has as many.
const WIDTH: usize = 256;

/// Extents of one convolution.
#[derive(Clone, Copy, Debug)]
struct Extents {
    images: usize,
    /// Input channels, height and width.
    c: usize,
    h: usize,
    w: usize,
    /// Output channels, height and width.
    o: usize,
    oh: usize,
    ow: usize,
    kh: usize,
    kw: usize,
    stride: usize,
    padding: usize,
    groups: usize,
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

    /// Values of one input image.
    fn input(&self) -> usize {
        self.c * self.h * self.w
    }
    /// Values of one output image.
    fn output(&self) -> usize {
        self.o * self.pixels()
    }
    /// Output pixels of one channel.
    fn pixels(&self) -> usize {
        self.oh * self.ow
    }
    /// Values under one window of one group.
    fn window(&self) -> usize {
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
    fn weights(&self) -> usize {
        self.o * self.window()
    }

    /// A convolution whose single window is the whole image is a linear layer.
    fn is_linear(&self) -> bool {
        self.groups == 1 && self.padding == 0 && (self.kh, self.kw) == (self.h, self.w)
    }

    /// The correlation that minimal filtering serves better, if it does.
    fn winograd(&self) -> Option<Correlation> {
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
        };
        winograd::serves(&c, self.stride, [self.kh, self.kw]).then_some(c)
    }

    /// Output columns whose window column `kx` falls on the image.
    fn inside(&self, kx: usize, size: usize, extent: usize) -> std::ops::Range<usize> {
        let first = self.padding.saturating_sub(kx).div_ceil(self.stride);
        let end = (size + self.padding).saturating_sub(kx).div_ceil(self.stride).min(extent);
        first.min(end)..end
    }

    /// Fills the columns of one image of `images` from the channels of one group.
    fn gather(&self, x: &[f32], cols: &mut [f32], (image, images): (usize, usize)) {
        let rows = cols.chunks_exact_mut(images * self.pixels());
        for (row, out) in rows.enumerate() {
            let out = &mut out[image * self.pixels()..][..self.pixels()];
            let (c, ky, kx) = (row / (self.kh * self.kw), row / self.kw % self.kh, row % self.kw);
            let plane = &x[c * self.h * self.w..][..self.h * self.w];
            let (ys, xs) = (self.inside(ky, self.h, self.oh), self.inside(kx, self.w, self.ow));
            for (oy, line) in out.chunks_exact_mut(self.ow).enumerate() {
                if !ys.contains(&oy) || xs.is_empty() {
                    line.fill(0.0);
                    continue;
                }
                let source = &plane[(oy * self.stride + ky - self.padding) * self.w..][..self.w];
                let start = xs.start * self.stride + kx - self.padding;
                line[..xs.start].fill(0.0);
                line[xs.end..].fill(0.0);
                let inner = &mut line[xs.clone()];
                if self.stride == 1 {
                    inner.copy_from_slice(&source[start..start + inner.len()]);
                } else {
                    for (value, &pixel) in inner.iter_mut().zip(source[start..].iter().step_by(self.stride)) {
                        *value = pixel;
                    }
                }
            }
        }
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

struct Forward {
    e: Extents,
    x: Slot,
    w: Slot,
    b: Slot,
    y: Slot,
    epilogue: Epilogue,
}

impl Kernel for Forward {
    fn name(&self) -> &'static str {
        "convolution"
    }
    fn tasks(&self) -> usize {
        self.e.images.div_ceil(self.e.block())
    }
    fn scratch(&self) -> usize {
        self.e.private() + matrix::room(self.e.o / self.e.groups, self.e.window())
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let e = &self.e;
        let block = chunk(task, e.block(), e.images);
        let (images, pixels, per_group) = (block.len(), e.pixels(), e.o / e.groups);
        let (scratch, panels) = scratch.split_at_mut(e.private());
        let (cols, room) = scratch.split_at_mut(e.cols());
        let cols = &mut cols[..e.window() * images * pixels];
        let x = &memory.read(self.x)[block.start * e.input()..block.end * e.input()];
        let range = block.start * e.output()..block.end * e.output();
        let out = memory.write(self.y, range.clone());
        let (weights, biases) = (memory.read(self.w), memory.read(self.b));
        for group in 0..e.groups {
            for (image, x) in x.chunks_exact(e.input()).enumerate() {
                e.gather(&x[group * e.input() / e.groups..], cols, (image, images));
            }
            let w = Matrix::rows(&weights[group * per_group * e.window()..], e.window());
            let sizes = (per_group, e.window(), images * pixels);
            let first = group * per_group * pixels;
            let cols = Matrix::rows(cols, images * pixels);
            let biases = &biases[group * per_group..][..per_group];
            if images == 1 {
                let y = &mut out[first..][..per_group * pixels];
                multiply(y, pixels, sizes, w, cols, false, panels);
                for (plane, &bias) in y.chunks_exact_mut(pixels).zip(biases) {
                    plane.iter_mut().for_each(|v| *v += bias);
                }
                continue;
            }
            let y = &mut room[..per_group * images * pixels];
            multiply(y, images * pixels, sizes, w, cols, false, panels);
            for (image, out) in out.chunks_exact_mut(e.output()).enumerate() {
                let planes = out[first..][..per_group * pixels].chunks_exact_mut(pixels);
                for ((plane, row), &bias) in planes.zip(y.chunks_exact(images * pixels)).zip(biases) {
                    plane.iter_mut().zip(&row[image * pixels..]).for_each(|(to, from)| *to = from + bias);
                }
            }
        }
        self.epilogue.apply(memory, out, range.start);
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
    if let Some(c) = e.winograd() {
        return winograd::forward(plan, c, x, y, epilogue);
    }
    let touches: Vec<Slot> = x.iter().copied().chain([y]).chain(epilogue.slots()).collect();
    plan.push(Forward { e, x: x[0], w: x[1], b: x[2], y, epilogue }, &touches);
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
    if let Some(c) = e.winograd() {
        return winograd::input_grad(plan, c, x, dx, epilogue);
    }
    let touches: Vec<Slot> = x.iter().copied().chain([dx]).chain(epilogue.slots()).collect();
    plan.push(InputGrad { e, w: x[0], dy: x[1], dx, epilogue }, &touches);
}

/// Weight gradients of a fixed part of the batch, summed block by block.
struct WeightGrad {
    e: Extents,
    x: Slot,
    dy: Slot,
    partial: Slot,
    parts: usize,
}

impl Kernel for WeightGrad {
    fn name(&self) -> &'static str {
        "convolution weight gradient"
    }
    fn tasks(&self) -> usize {
        self.parts
    }
    fn scratch(&self) -> usize {
        self.e.private() + matrix::room(self.e.o / self.e.groups, self.e.block() * self.e.pixels())
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let e = &self.e;
        let (scratch, panels) = scratch.split_at_mut(e.private());
        let (all_cols, room) = scratch.split_at_mut(e.cols());
        let out = memory.write(self.partial, task * e.weights()..(task + 1) * e.weights());
        let (x, dy) = (memory.read(self.x), memory.read(self.dy));
        let (pixels, per_group) = (e.pixels(), e.o / e.groups);
        let part = chunk(task, e.images.div_ceil(self.parts), e.images);
        if part.is_empty() {
            out.fill(0.0);
        }
        for start in part.clone().step_by(e.block()) {
            let block = start..(start + e.block()).min(part.end);
            let images = block.len();
            let cols = &mut all_cols[..e.window() * images * pixels];
            let x = &x[block.start * e.input()..block.end * e.input()];
            let dy = &dy[block.start * e.output()..block.end * e.output()];
            for group in 0..e.groups {
                for (image, x) in x.chunks_exact(e.input()).enumerate() {
                    e.gather(&x[group * e.input() / e.groups..], cols, (image, images));
                }
                let dy = Matrix::rows(e.gather_outputs(dy, group, images, room), images * pixels);
                let dw = &mut out[group * per_group * e.window()..][..per_group * e.window()];
                let sizes = (per_group, images * pixels, e.window());
                let cols = Matrix::columns(cols, images * pixels);
                multiply(dw, e.window(), sizes, dy, cols, start > part.start, panels);
            }
        }
    }
}

/// Parts that a batch is split into for weight gradients. A function of the shapes alone, so that sums come out the
/// same for any number of threads; fewer for large weights, whose partial sums cost memory.
fn parts(e: &Extents) -> usize {
    let most = if e.weights() <= 32_768 { 16 } else { 8 };
    let size = e.images.div_ceil(most);
    e.images.div_ceil(size)
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
    if let Some(c) = e.winograd() {
        return winograd::weight_grad(plan, c, x, dw);
    }
    let parts = parts(&e);
    if parts == 1 {
        return plan.push(WeightGrad { e, x: x[0], dy: x[1], partial: dw, parts }, &[x[0], x[1], dw]);
    }
    let partial = plan.temporary(parts * e.weights());
    plan.push(WeightGrad { e, x: x[0], dy: x[1], partial, parts }, &[x[0], x[1], partial]);
    movement::reduce(plan, partial, parts, dw, e.weights());
}
