//! Convolutions and linear layers on tensor cores: packed operands, and how their products are cut into tiles.

use graph::{Operator, operators::Convolution};

use super::{
    forms::{Form, LANES, Margin, kind_written},
    matrix::parts,
    packing::{Packing, padded},
    source::{Call, Epilogue, Plan, THREADS, View},
};
use crate::schedule::Item;

/// A tile of C, its rows of warps, and how near such tiles come to the largest ones per multiply-add: each warp reads its rows of A and
/// columns of B for itself.
struct Tile {
    m: usize,
    n: usize,
    warps_m: usize,
    worth: f64,
}

const TILES: [Tile; 10] = [
    Tile { m: 128, n: 128, warps_m: 2, worth: 1.0 },
    Tile { m: 96, n: 128, warps_m: 2, worth: 0.95 },
    Tile { m: 128, n: 96, warps_m: 2, worth: 0.95 },
    Tile { m: 64, n: 128, warps_m: 2, worth: 0.85 },
    Tile { m: 128, n: 64, warps_m: 2, worth: 0.85 },
    Tile { m: 64, n: 64, warps_m: 2, worth: 0.6 },
    Tile { m: 32, n: 128, warps_m: 1, worth: 0.6 },
    Tile { m: 128, n: 32, warps_m: 4, worth: 0.6 },
    Tile { m: 16, n: 128, warps_m: 1, worth: 0.4 },
    Tile { m: 128, n: 16, warps_m: 4, worth: 0.4 },
];

/// Threads of a block, as `kernels/tensor.cu` has them.
const TENSOR_THREADS: usize = 128;

/// Bytes of a tile's line along K.
const LINE_BYTES: usize = 64;

/// A product as `kernels/tensor.cu` describes it.
struct Product {
    /// What it computes, for profiles.
    what: &'static str,
    m: usize,
    n: usize,
    k: usize,
    groups: usize,
}

impl Product {
    fn tile(&self) -> &'static Tile {
        let cost = |tile: &Tile| {
            let padded = self.m.next_multiple_of(tile.m) * self.n.next_multiple_of(tile.n);
            padded as f64 / tile.worth
        };
        TILES.iter().min_by(|a, b| cost(a).total_cmp(&cost(b))).expect("there are tiles")
    }

    /// Appends the kernels of the product. `problem(precision, parts)` is the problem's type; its fields in order are the packed operands,
    /// the others and the output.
    fn launch(
        &self,
        plan: &mut Plan,
        problem: impl Fn(&str, usize) -> String,
        packed: [View; 2],
        others: &[View],
        output: View,
        epilogue: &Epilogue,
    ) {
        let precision = plan.precision;
        let tile = self.tile();
        let tiles = self.m.div_ceil(tile.m) * self.n.div_ceil(tile.n);
        let parts = parts(tiles * self.groups, self.k.div_ceil(LINE_BYTES / precision.bytes()));
        let problem = problem(precision.kind(), parts);
        let elements = self.groups * self.m * self.n;
        let partial = (parts > 1).then(|| plan.temporary(parts * elements));
        let mut call = Call::new(self.what).with_threads(TENSOR_THREADS);
        call.multiplies(self.groups * self.m * self.n * self.k);
        let mut fields: Vec<String> = packed.iter().map(|&view| call.reads_packed(view, precision)).collect();
        if partial.is_none() {
            fields.extend(others.iter().map(|&view| call.reads(view)));
            fields.push(call.gives(output));
        }
        let (room, last) = match partial {
            Some(partial) => (call.writes(partial), "Keep{}".to_owned()),
            None => ("nullptr".to_owned(), call.epilogue(epilogue)),
        };
        let Tile { m, n, warps_m, .. } = tile;
        let kind = format!("TensorTiles<{}, {m}, {n}, {warps_m}>", precision.kind());
        // Fields that are left out are null: the parts are written instead.
        let body = format!("multiply_packed<{kind}>({problem}{{{}}}, {room}, {last})", fields.join(", "));
        plan.launch(call, [tiles, self.groups * parts, 1], &body);
        if let Some(partial) = partial {
            let mut call = Call::new(self.what);
            let mut fields = vec!["nullptr".to_owned(), "nullptr".to_owned()];
            fields.extend(others.iter().map(|&view| call.reads(view)));
            fields.push(call.gives(output));
            let operands =
                [format!("{problem}{{{}}}", fields.join(", ")), call.reads(partial), call.epilogue(epilogue)];
            let grid = [elements.div_ceil(THREADS), 1, 1];
            plan.launch(call, grid, &format!("combine({})", operands.join(", ")));
        }
    }
}

/// Appends the kernels of a convolution, a linear layer, or a gradient of one.
pub(crate) fn kernel(plan: &mut Plan, item: &Item, x: &[View], y: View, epilogue: Epilogue) {
    let shapes = &item.shapes;
    let is_linear = matches!(item.operator, Operator::Linear | Operator::LinearInputGrad | Operator::LinearWeightGrad);
    let e = &if is_linear { epilogue.in_planes(plan) } else { epilogue };
    match &item.operator {
        Operator::Convolution(a) => Blocks::new(*a, &shapes[0], &shapes[1], &item.output).forward(plan, x, y, e),
        Operator::ConvolutionInputGrad(a, shape) => {
            Blocks::new(*a, shape, &shapes[0], &shapes[1]).input_grad(plan, x, y, e);
        }
        Operator::ConvolutionWeightGrad(a, shape) => {
            Blocks::new(*a, &shapes[0], shape, &shapes[1]).weight_grad(plan, x, y, e);
        }
        Operator::Linear => {
            let (rows, inputs, outputs) = (shapes[0][0], shapes[0][1], item.output[1]);
            let packed = [plan.packed(x[0], Packing::matrix(rows, inputs)), weight(plan, x[1], inputs, outputs)];
            let product = Product { what: "linear", m: rows, n: outputs, k: padded(inputs), groups: 1 };
            let problem = linear("PackedLinearForward", rows, inputs, outputs);
            product.launch(plan, problem, packed, &[x[2]], y, e);
        }
        Operator::LinearInputGrad => {
            let (rows, inputs, outputs) = (shapes[1][0], shapes[0][1], shapes[0][0]);
            let packed = [weight(plan, x[0], inputs, outputs), plan.packed(x[1], Packing::matrix(rows, outputs))];
            let product = Product { what: "linear dx", m: rows, n: inputs, k: padded(outputs), groups: 1 };
            let problem = linear("PackedLinearInputGrad", rows, inputs, outputs);
            product.launch(plan, problem, packed, &[], y, e);
        }
        Operator::LinearWeightGrad => {
            let (rows, inputs, outputs) = (shapes[0][0], shapes[0][1], shapes[1][1]);
            let packed =
                [plan.packed(x[0], Packing::matrix(rows, inputs)), plan.packed(x[1], Packing::matrix(rows, outputs))];
            let product = Product { what: "linear dw", m: outputs, n: inputs, k: rows, groups: 1 };
            let problem = linear("PackedLinearWeightGrad", rows, inputs, outputs);
            product.launch(plan, problem, packed, &[], y, e);
        }
        other => unreachable!("{other:?} is no product"),
    }
}

fn weight(plan: &mut Plan, w: View, inputs: usize, outputs: usize) -> View {
    plan.packed(w, Packing::matrix(outputs, inputs))
}

fn linear(name: &'static str, rows: usize, inputs: usize, outputs: usize) -> impl Fn(&str, usize) -> String {
    let (inputs_padded, outputs_padded) = (padded(inputs), padded(outputs));
    move |precision, parts| {
        format!("{name}<{precision}, {rows}, {inputs}, {inputs_padded}, {outputs}, {outputs_padded}, {parts}>")
    }
}

/// A convolution as one of stride 1 over blocks, without padding: extents of `kernels/tensor_layers.cu`'s `Blocks`.
struct Blocks {
    a: Convolution,
    x: Vec<usize>,
    w: Vec<usize>,
    y: Vec<usize>,
    /// Height and width of windows in blocks.
    taps: (usize, usize),
    /// Rows and columns of zeros before dy.
    margin: (usize, usize),
    /// Height and width of dy with its margins.
    outer: (usize, usize),
    /// First row and column of blocks that hold pixels of x, and how many there are.
    first: (usize, usize),
    held: (usize, usize),
}

impl Blocks {
    fn new(a: Convolution, x: &[usize], w: &[usize], y: &[usize]) -> Self {
        let side = |size: usize, kernel: usize, output: usize| {
            let taps = kernel.div_ceil(a.stride);
            let (first, last) = (a.padding / a.stride, (size - 1 + a.padding) / a.stride);
            let margin = (taps - 1).saturating_sub(first);
            [taps, margin, margin + output.max(last + 1), first, last + 1 - first]
        };
        let (vertical, horizontal) = (side(x[2], w[2], y[2]), side(x[3], w[3], y[3]));
        let both = |i: usize| (vertical[i], horizontal[i]);
        let (taps, margin, outer, first, held) = (both(0), both(1), both(2), both(3), both(4));
        Self { a, x: x.to_vec(), w: w.to_vec(), y: y.to_vec(), taps, margin, outer, first, held }
    }

    /// Rows and columns of zeros that its windows reach around x, if its stride is 1.
    fn margin_of_x(&self) -> Margin {
        let Self { a, x, .. } = self;
        let blocks = self.images().blocks;
        let after = |blocks: usize, size: usize| blocks.saturating_sub(a.padding + size);
        Margin { top: a.padding, left: a.padding, bottom: after(blocks.0, x[2]), right: after(blocks.1, x[3]) }
    }

    /// The same around dy, for the gradient of x.
    fn margin_of_dy(&self) -> Margin {
        let Self { y, margin, outer, .. } = self;
        Margin { top: margin.0, left: margin.1, bottom: outer.0 - margin.0 - y[2], right: outer.1 - margin.1 - y[3] }
    }

    /// x as it is multiplied, and its frame in memory: pixels as they lie where they can be read so, else a copy.
    fn x(&self, plan: &mut Plan, x: View) -> (View, Frame) {
        match x.form {
            Form::Pixels(pixels) if self.takes_pixels_of_x() && pixels.margin.holds(self.margin_of_x()) => {
                let (top, left) = (pixels.margin.top - self.a.padding, pixels.margin.left - self.a.padding);
                (x, Frame { first: (top, left), outer: pixels.outer() })
            }
            _ => {
                let planes = plan.planes(x);
                (plan.packed(planes, self.images()), Frame { first: (0, 0), outer: self.images().blocks })
            }
        }
    }

    /// The same of dy; `margin` is what is read around it.
    fn dy(&self, plan: &mut Plan, dy: View, margin: Margin) -> (View, Frame) {
        match dy.form {
            Form::Pixels(pixels) if self.takes_pixels_of_dy() && pixels.margin.holds(margin) => {
                (dy, Frame { first: (pixels.margin.top, pixels.margin.left), outer: pixels.outer() })
            }
            _ => {
                let planes = plan.planes(dy);
                (plan.packed(planes, self.gradients()), Frame { first: self.margin, outer: self.outer })
            }
        }
    }

    fn wanted_of_x(&self) -> Margin {
        if self.takes_pixels_of_x() { self.margin_of_x() } else { Margin::default() }
    }

    fn takes_pixels_of_x(&self) -> bool {
        self.a.stride == 1 && (self.x[1] / self.a.groups).is_multiple_of(LANES)
    }

    fn takes_pixels_of_dy(&self) -> bool {
        self.outputs().is_multiple_of(LANES)
    }

    fn outputs(&self) -> usize {
        self.y[1] / self.a.groups
    }

    fn images(&self) -> Packing {
        let Self { a, x, y, taps, .. } = self;
        Packing {
            rows: x[0],
            run: x[0],
            padded_run: x[0],
            groups: a.groups,
            channels: x[1] / a.groups,
            source: (x[2], x[3]),
            block: a.stride,
            before: (a.padding, a.padding),
            blocks: (y[2] + taps.0 - 1, y[3] + taps.1 - 1),
        }
    }

    fn weights(&self) -> Packing {
        let padded_run = padded(self.outputs());
        Packing {
            rows: self.a.groups * padded_run,
            run: self.outputs(),
            padded_run,
            groups: 1,
            channels: self.w[1],
            source: (self.w[2], self.w[3]),
            block: self.a.stride,
            before: (0, 0),
            blocks: self.taps,
        }
    }

    fn gradients(&self) -> Packing {
        Packing {
            rows: self.y[0],
            run: self.y[0],
            padded_run: self.y[0],
            groups: self.a.groups,
            channels: self.outputs(),
            source: (self.y[2], self.y[3]),
            block: 1,
            before: self.margin,
            blocks: self.outer,
        }
    }

    fn problem(
        &self,
        name: &'static str,
        [x_frame, dy_frame]: [Frame; 2],
        output: Option<View>,
    ) -> impl Fn(&str, usize) -> String + use<> {
        let Self { a, x, w, y, taps, first, held, .. } = self;
        let join = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let windows = join(&[x[0], x[1], x[2], x[3], y[1], y[2], y[3], w[2], w[3], a.stride, a.padding, a.groups]);
        let channels = [self.images().padded_channels(), padded(self.outputs())];
        let sides = [*taps, *first, *held].map(|(height, width)| [height, width]);
        let extents = join(&[&channels[..], sides.as_flattened()].concat());
        let frames = [x_frame, dy_frame].map(|frame| {
            let Frame { first, outer } = frame;
            format!("Frame<{}, {}, {}, {}>", first.0, first.1, outer.0, outer.1)
        });
        let blocks = format!("Blocks<Windows<{windows}>, {}, {extents}>", frames.join(", "));
        let output = output.map_or_else(String::new, |view| format!("{}, ", kind_written(view.form)));
        move |precision, parts| format!("{name}<{precision}, {blocks}, {output}{parts}>")
    }

    /// x = [x, w, bias].
    fn forward(&self, plan: &mut Plan, x: &[View], y: View, e: &Epilogue) {
        let (images, frame) = self.x(plan, x[0]);
        let packed = [images, plan.packed(x[1], self.weights())];
        let product = Product {
            what: "convolution",
            m: self.y[0] * self.y[2] * self.y[3],
            n: self.outputs(),
            k: self.taps.0 * self.taps.1 * self.images().padded_channels(),
            groups: self.a.groups,
        };
        let problem = self.problem("PackedConvolutionForward", [frame, Frame::default()], Some(y));
        product.launch(plan, problem, packed, &[x[2]], y, e);
        plan.zero_margin(y);
    }

    /// x = [w, dy].
    fn input_grad(&self, plan: &mut Plan, x: &[View], y: View, e: &Epilogue) {
        let weights = plan.packed(x[0], self.weights());
        let (gradients, frame) = self.dy(plan, x[1], self.margin_of_dy());
        let product = Product {
            what: "convolution dx",
            m: self.x[0] * self.held.0 * self.held.1,
            n: self.a.stride * self.a.stride * self.w[1],
            k: self.taps.0 * self.taps.1 * padded(self.outputs()),
            groups: self.a.groups,
        };
        let problem = self.problem("PackedConvolutionInputGrad", [Frame::default(), frame], Some(y));
        product.launch(plan, problem, [weights, gradients], &[], y, e);
        plan.zero_margin(y);
    }

    /// x = [x, dy].
    fn weight_grad(&self, plan: &mut Plan, x: &[View], y: View, e: &Epilogue) {
        let (images, x_frame) = self.x(plan, x[0]);
        let (gradients, dy_frame) = self.dy(plan, x[1], Margin::default());
        let product = Product {
            what: "convolution dw",
            m: self.outputs(),
            n: self.taps.0 * self.taps.1 * self.images().padded_channels(),
            k: self.y[0] * self.y[2] * self.y[3],
            groups: self.a.groups,
        };
        let problem = self.problem("PackedConvolutionWeightGrad", [x_frame, dy_frame], None);
        product.launch(plan, problem, [images, gradients], &[], y, e);
    }
}

/// Where an operand's rows and columns lie: `kernels/tensor_layers.cu`'s `Frame`.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    first: (usize, usize),
    outer: (usize, usize),
}

/// The zeros that an operator wants around this input, where it takes pixels.
pub(crate) fn margin_for(item: &Item, position: usize) -> Margin {
    let shapes = &item.shapes;
    match (&item.operator, position) {
        (Operator::Convolution(a), 0) => Blocks::new(*a, &shapes[0], &shapes[1], &item.output).wanted_of_x(),
        (Operator::ConvolutionWeightGrad(a, w), 0) => Blocks::new(*a, &shapes[0], w, &shapes[1]).wanted_of_x(),
        (Operator::ConvolutionInputGrad(a, x), 1) => {
            let blocks = Blocks::new(*a, x, &shapes[0], &shapes[1]);
            if blocks.takes_pixels_of_dy() { blocks.margin_of_dy() } else { Margin::default() }
        }
        _ => Margin::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_follow_the_shape() {
        let tile = |m, n| {
            let tile = Product { what: "linear", m, n, k: 100, groups: 1 }.tile();
            (tile.m, tile.n)
        };
        assert_eq!(tile(4096, 9216), (128, 128));
        assert_eq!(tile(6, 100_000), (16, 128));
        assert_eq!(tile(21_632, 384), (128, 128));
        assert_eq!(tile(387_200, 96), (128, 96));
        assert_eq!(tile(96, 432), (96, 128));
        assert_eq!(tile(128, 10), (128, 16));
        assert_eq!(tile(64, 64), (64, 64));
    }

    #[test]
    fn a_stride_becomes_blocks() {
        let stem = Convolution { stride: 4, padding: 0, groups: 1 };
        let blocks = Blocks::new(stem, &[2, 3, 227, 227], &[96, 3, 11, 11], &[2, 96, 55, 55]);
        assert_eq!((blocks.taps, blocks.images().padded_channels(), blocks.images().blocks), ((3, 3), 48, (57, 57)));
        assert_eq!((blocks.first, blocks.held), ((0, 0), (57, 57)));
        let same = Convolution { stride: 1, padding: 1, groups: 2 };
        let blocks = Blocks::new(same, &[2, 384, 13, 13], &[384, 192, 3, 3], &[2, 384, 13, 13]);
        assert_eq!((blocks.images().blocks, blocks.first, blocks.held), ((15, 15), (1, 1), (13, 13)));
        assert_eq!((blocks.margin, blocks.outer), ((1, 1), (15, 15)));
    }

    #[test]
    fn pixels_have_the_margins_that_windows_reach() {
        let even = |side| Margin { top: side, left: side, bottom: side, right: side };
        let same = Convolution { stride: 1, padding: 2, groups: 2 };
        let blocks = Blocks::new(same, &[2, 96, 27, 27], &[256, 48, 5, 5], &[2, 256, 27, 27]);
        assert_eq!((blocks.wanted_of_x(), blocks.margin_of_dy()), (even(2), even(2)));
        let valid = Convolution { stride: 1, padding: 0, groups: 1 };
        let blocks = Blocks::new(valid, &[2, 16, 9, 9], &[8, 16, 3, 3], &[2, 8, 7, 7]);
        assert_eq!((blocks.wanted_of_x(), blocks.margin_of_dy()), (even(0), even(2)));
        let strided = Convolution { stride: 2, padding: 1, groups: 1 };
        let blocks = Blocks::new(strided, &[2, 16, 8, 8], &[8, 16, 3, 3], &[2, 8, 4, 4]);
        assert_eq!(blocks.wanted_of_x(), even(0), "it takes a copy");
        assert_eq!(blocks.margin_of_dy(), Margin { top: 1, left: 1, bottom: 1, right: 1 });
    }
}
