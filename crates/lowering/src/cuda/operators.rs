//! The kernels of each operator.

use graph::{
    Operator,
    operators::{Convolution, Pool, Rule},
};

use super::{
    forms::{Form, LANES, Order},
    matrix::Product,
    source::{Call, Epilogue, Plan, THREADS, View},
    tensor,
};
use crate::{Precision, schedule::Item};

/// Values of a channel that one block sums.
const CHANNEL_RANGE: usize = 8192;
/// Ranges of a channel at most.
const MOST_RANGES: usize = 64;
/// The same where a block sums many channels of each pixel.
const PIXEL_RANGE: usize = 512;
const MOST_PIXEL_RANGES: usize = 256;
/// Runs of [`LANES`] channels that such a block takes at most, a power of two.
const MOST_CHUNKS: usize = 16;
/// Type of a position within a window.
const POSITION: &str = "unsigned short";
/// Values of a parameter whose update goes with those of others, at the end.
const SMALL_PARAMETER: usize = 1 << 20;
/// Parameters that one kernel updates at most: it may have 4 KB of arguments.
const MOST_STEPS: usize = 40;
/// Values of a gradient whose squares one block sums, as `kernels/update.cu` has it.
const SQUARE_RANGE: usize = 8192;

/// Appends the kernels of one operator; `again` says that its gradient comes later. Exhaustive: an operator without a lowering does not
/// compile.
pub(crate) fn kernel(plan: &mut Plan, item: &Item, x: &[View], output: Option<View>, epilogue: Epilogue, again: bool) {
    let y = || output.expect("the operator has a value");
    let shapes = &item.shapes;
    let e = &epilogue;
    match &item.operator {
        Operator::Source(_) | Operator::Reshape(_) | Operator::Row(_) => unreachable!("these are views"),
        Operator::Gradient => unreachable!("autograd comes before lowering"),
        Operator::Fill(value, shape) => fill(plan, *value, y(), elements(shape)),
        Operator::Add | Operator::Activation(_) | Operator::ActivationGrad(_) | Operator::Dropout(_) => {
            let (main, all) = Epilogue::alone(item, x, epilogue);
            if main.form != Form::Planes || y().form != Form::Planes {
                plan.image_map("elementwise", &item.output, main, y(), &all);
            } else {
                let all = all.in_planes(plan);
                map(plan, "elementwise", main, y(), elements(&item.output), &all);
            }
        }
        Operator::ChannelSum => channel_sum(plan, &shapes[0], x[0], y()),
        Operator::Stack => {
            let channels = shapes[0][0];
            let second = View { offset: y().offset + channels, ..y() };
            map(plan, "copy", x[0], y(), channels, &Epilogue::default());
            map(plan, "copy", x[1], second, channels, &Epilogue::default());
        }
        Operator::Store => {
            let from = plan.planes(x[0]);
            map(plan, "copy", from, x[1], elements(&shapes[1]), &Epilogue::default());
        }
        Operator::Convolution(_)
        | Operator::ConvolutionInputGrad(..)
        | Operator::ConvolutionWeightGrad(..)
        | Operator::Linear
        | Operator::LinearInputGrad
        | Operator::LinearWeightGrad
            if plan.precision != Precision::F32 =>
        {
            tensor::kernel(plan, item, x, y(), epilogue);
        }
        Operator::Convolution(a) => {
            let windows = Windows::new(*a, &shapes[0], &shapes[1], &item.output);
            windows.forward(plan, &[x[0], x[1], x[2], y()], e);
        }
        Operator::ConvolutionInputGrad(a, shape) => {
            Windows::new(*a, shape, &shapes[0], &shapes[1]).input_grad(plan, &[x[0], x[1], y()], e);
        }
        Operator::ConvolutionWeightGrad(a, shape) => {
            Windows::new(*a, &shapes[0], shape, &shapes[1]).weight_grad(plan, &[x[0], x[1], y()], e);
        }
        Operator::Linear => {
            let (rows, inputs, outputs) = (shapes[0][0], shapes[0][1], item.output[1]);
            let product = Product { m: rows, n: outputs, k: inputs, groups: 1 };
            linear(plan, "linear", "LinearForward", &product, [rows, inputs, outputs], &[x[0], x[1], x[2], y()], e);
        }
        Operator::LinearInputGrad => {
            let (rows, inputs, outputs) = (shapes[1][0], shapes[0][1], shapes[0][0]);
            let product = Product { m: rows, n: inputs, k: outputs, groups: 1 };
            let operands = [x[0], x[1], y()];
            linear(plan, "linear dx", "LinearInputGrad", &product, [rows, inputs, outputs], &operands, e);
        }
        Operator::LinearWeightGrad => {
            let (rows, inputs, outputs) = (shapes[0][0], shapes[0][1], shapes[1][1]);
            let product = Product { m: outputs, n: inputs, k: rows, groups: 1 };
            let operands = [x[0], x[1], y()];
            linear(plan, "linear dw", "LinearWeightGrad", &product, [rows, inputs, outputs], &operands, e);
        }
        Operator::MaxPool(pool) if again => {
            assert!(pool.size <= 256, "positions within a window have 16 bits");
            let output = pool.output_shape(&shapes[0]);
            let order = Order::new(&output, Some(y()), &[x[0]], LANES);
            let windows = order.without_margin(&output);
            // Halves of a word.
            let positions = plan.temporary(elements(&output).div_ceil(2));
            let mut call = Call::new("max pool");
            let operands = [call.takes(x[0]), call.writes_as(POSITION, positions), call.gives(y()), call.epilogue(e)];
            let kinds = [&windows_of(*pool, &shapes[0]), &windows.kind, &order.kind].map(String::as_str).join(", ");
            let body = format!("max_pool_with_positions<{kinds}>({})", operands.join(", "));
            plan.launch_over(call, order.threads, &body);
            plan.positions.insert((x[0], pool.size, pool.stride), (positions, windows));
        }
        Operator::MaxPool(pool) => pooling(plan, "max pool", "max_pool", *pool, &shapes[0], x[0], y(), e),
        Operator::MaxPoolGrad(pool) => {
            let (positions, windows) = plan.positions[&(x[0], pool.size, pool.stride)].clone();
            let mut call = Call::new("max pool dx");
            let first = call.reads_as(POSITION, positions);
            let kind = windows_of(*pool, &shapes[0]);
            pooling_grad(plan, call, "max_pool_grad", (&kind, &windows), Some(first), (&shapes[0], x[1], y()), e);
        }
        Operator::AveragePool(pool) => {
            pooling(plan, "average pool", "average_pool", *pool, &shapes[0], x[0], y(), e);
        }
        Operator::AveragePoolGrad(pool, shape) => {
            let windows = Order::new(&shapes[0], None, &[x[0], y()], LANES);
            let kind = windows_of(*pool, shape);
            let call = Call::new("average pool dx");
            pooling_grad(plan, call, "average_pool_grad", (&kind, &windows), None, (shape, x[0], y()), e);
        }
        Operator::BatchStatistics => batch_statistics(plan, &shapes[0], x[0], y()),
        Operator::BatchNormalize => {
            let order = Order::new(&shapes[0], Some(y()), &[x[0]], LANES);
            let mut call = Call::new("batch norm");
            let mut operands = vec![call.takes(x[0])];
            operands.extend(x[1..].iter().map(|&view| call.reads(view)));
            operands.extend([call.gives(y()), call.epilogue(e)]);
            let body = format!("batch_normalize<{}>({})", order.kind, operands.join(", "));
            plan.launch_over(call, order.runs, &body);
        }
        Operator::BatchNormalizeParameterGrad => batch_parameter_grad(plan, &shapes[0], x, y()),
        Operator::BatchNormalizeInputGrad => {
            let order = Order::new(&shapes[0], Some(y()), &[x[0], x[4]], LANES);
            let mut call = Call::new("batch norm dx");
            let mut operands = vec![call.takes(x[0])];
            operands.extend(x[1..4].iter().map(|&view| call.reads(view)));
            operands.extend([call.takes(x[4]), call.gives(y()), call.epilogue(e)]);
            let count = elements(&shapes[0]) / shapes[0][1];
            let body = format!("batch_input_grad<{}, {count}>({})", order.kind, operands.join(", "));
            plan.launch_over(call, order.runs, &body);
        }
        Operator::UpdateRunning(momentum, count) => update_running(plan, *momentum, *count, shapes[0][0], x),
        Operator::LocalResponse(a) => {
            let order = Order::new(&shapes[0], Some(y()), &[x[0]], 1);
            let mut call = Call::new("local response");
            let (from, to) = (call.takes(x[0]), call.gives(y()));
            let (alpha, beta, k) = (call.float(a.alpha), call.float(a.beta), call.float(a.k));
            let last = call.epilogue(e);
            let kind = responses(&shapes[0], a.size);
            let body = format!("local_response<{kind}, {}>({from}, {to}, {alpha}, {beta}, {k}, {last})", order.kind);
            plan.launch_over(call, order.threads, &body);
        }
        Operator::LocalResponseGrad(a) => {
            let order = Order::new(&shapes[0], Some(y()), &[x[0], x[1]], 1);
            let kind = responses(&shapes[0], a.size);
            // Denominators lie as threads take them.
            let d = plan.temporary(elements(&shapes[0]));
            let inside = Order::new(&shapes[0], None, &[x[0], x[1], y()], 1);
            let exact = format!("<Exact, {}, 0, 0, {}, {}>", shapes[0][1], shapes[0][2], shapes[0][3]);
            let mut call = Call::new("local response dx");
            let from = call.takes(x[0]);
            let to = if order.pixels {
                format!("PixelsOut{exact}{{{}}}", call.writes_as("unsigned", d))
            } else {
                call.gives(d)
            };
            let (alpha, k) = (call.float(a.alpha), call.float(a.k));
            let body = format!("denominators<{kind}, {}>({from}, {to}, {alpha}, {k})", inside.kind);
            plan.launch_over(call, inside.threads, &body);
            let mut call = Call::new("local response dx");
            let from = call.takes(x[0]);
            let d =
                if order.pixels { format!("Pixels{exact}{{{}}}", call.reads_as("unsigned", d)) } else { call.takes(d) };
            let (dy, dx) = (call.takes(x[1]), call.gives(y()));
            let (alpha, beta) = (call.float(a.alpha), call.float(a.beta));
            let last = call.epilogue(e);
            let body = format!(
                "local_response_grad<{kind}, {}>({from}, {d}, {dy}, {dx}, {alpha}, {beta}, {last})",
                order.kind
            );
            plan.launch_over(call, order.threads, &body);
        }
        Operator::CrossEntropy => {
            let (rows, classes) = (shapes[0][0], shapes[0][1]);
            let losses = plan.temporary(rows);
            let mut call = Call::new("cross entropy");
            let body = format!(
                "cross_entropy_rows<{classes}>({}, {}, {})",
                call.reads(x[0]),
                call.reads(x[1]),
                call.writes(losses)
            );
            plan.launch(call, [rows, 1, 1], &body);
            let mut call = Call::new("cross entropy");
            let body = format!("mean_loss<{rows}>({}, {})", call.reads(losses), call.writes(y()));
            plan.launch(call, [1, 1, 1], &body);
        }
        Operator::CrossEntropyGrad => {
            let (rows, classes) = (shapes[0][0], shapes[0][1]);
            let mut call = Call::new("cross entropy dx");
            let operands = [call.reads(x[0]), call.reads(x[1]), call.reads(x[2]), call.writes(y())].join(", ");
            plan.launch(call, [rows, 1, 1], &format!("cross_entropy_grad<{rows}, {classes}>({operands})"));
        }
        Operator::ClipFactor => clip_factor(plan, x, shapes, y()),
        Operator::Update(rule) => {
            let step = Step::new(*rule, x, elements(&shapes[0]));
            if step.is_small() {
                // Its gradient takes no room worth speaking of until the end.
                plan.steps.push(step);
            } else {
                update(plan, &[step]);
            }
        }
    }
}

fn elements(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Blocks for one thread per value.
fn over(values: usize) -> [usize; 3] {
    [values.div_ceil(THREADS), 1, 1]
}

fn fill(plan: &mut Plan, value: f32, y: View, n: usize) {
    let mut call = Call::new("fill");
    let body = format!("fill({}, {}, {})", call.writes(y), call.int(n), call.float(value));
    plan.launch(call, over(n), &body);
}

fn map(plan: &mut Plan, what: &'static str, x: View, y: View, n: usize, epilogue: &Epilogue) {
    let mut call = Call::new(what);
    let operands = [call.reads(x), call.writes(y), call.int(n), call.epilogue(epilogue)].join(", ");
    plan.launch(call, over(n), &format!("map({operands})"));
}

fn linear(
    plan: &mut Plan,
    what: &'static str,
    problem: &str,
    product: &Product,
    [rows, inputs, outputs]: [usize; 3],
    operands: &[View],
    epilogue: &Epilogue,
) {
    let problem = |parts: usize| format!("{problem}<{rows}, {inputs}, {outputs}, {parts}>");
    product.launch(plan, what, problem, operands, epilogue);
}

/// Extents of a convolution: of `kernels/convolution.cu`'s `Windows`.
struct Windows {
    a: Convolution,
    x: Vec<usize>,
    w: Vec<usize>,
    y: Vec<usize>,
}

impl Windows {
    fn new(a: Convolution, x: &[usize], w: &[usize], y: &[usize]) -> Self {
        Self { a, x: x.to_vec(), w: w.to_vec(), y: y.to_vec() }
    }

    fn launch(
        &self,
        plan: &mut Plan,
        what: &'static str,
        problem: &str,
        product: &Product,
        operands: &[View],
        e: &Epilogue,
    ) {
        let Self { a, x, w, y } = self;
        let extents = [x[0], x[1], x[2], x[3], y[1], y[2], y[3], w[2], w[3], a.stride, a.padding, a.groups];
        let extents = extents.map(|extent| extent.to_string()).join(", ");
        let problem = |parts: usize| format!("{problem}<Windows<{extents}>, {parts}>");
        product.launch(plan, what, problem, operands, e);
    }

    /// Channels in and out of a group, taps of a window.
    fn group(&self) -> (usize, usize, usize) {
        (self.x[1] / self.a.groups, self.y[1] / self.a.groups, self.w[2] * self.w[3])
    }

    fn forward(&self, plan: &mut Plan, operands: &[View], e: &Epilogue) {
        let (c, o, taps) = self.group();
        let product = Product { m: o, n: self.y[0] * self.y[2] * self.y[3], k: c * taps, groups: self.a.groups };
        self.launch(plan, "convolution", "ConvolutionForward", &product, operands, e);
    }

    fn input_grad(&self, plan: &mut Plan, operands: &[View], e: &Epilogue) {
        let (c, o, taps) = self.group();
        let product = Product { m: c, n: self.x[0] * self.x[2] * self.x[3], k: o * taps, groups: self.a.groups };
        self.launch(plan, "convolution dx", "ConvolutionInputGrad", &product, operands, e);
    }

    fn weight_grad(&self, plan: &mut Plan, operands: &[View], e: &Epilogue) {
        let (c, o, taps) = self.group();
        let product = Product { m: o, n: c * taps, k: self.y[0] * self.y[2] * self.y[3], groups: self.a.groups };
        self.launch(plan, "convolution dw", "ConvolutionWeightGrad", &product, operands, e);
    }
}

/// `kernels/pooling.cu`'s `Pool` over images of this shape.
fn windows_of(pool: Pool, shape: &[usize]) -> String {
    format!("Pool<{}, {}, {}, {}, {}, {}>", shape[0], shape[1], shape[2], shape[3], pool.size, pool.stride)
}

/// Pools images of this shape.
#[expect(clippy::too_many_arguments, reason = "a kernel's names, shape and operands")]
fn pooling(
    plan: &mut Plan,
    what: &'static str,
    function: &str,
    pool: Pool,
    shape: &[usize],
    x: View,
    y: View,
    epilogue: &Epilogue,
) {
    let order = Order::new(&pool.output_shape(shape), Some(y), &[x], LANES);
    let mut call = Call::new(what);
    let operands = [call.takes(x), call.gives(y), call.epilogue(epilogue)].join(", ");
    let body = format!("{function}<{}, {}>({operands})", windows_of(pool, shape), order.kind);
    plan.launch_over(call, order.threads, &body);
}

/// A gradient over images of this shape, from that of their windows.
fn pooling_grad(
    plan: &mut Plan,
    mut call: Call,
    function: &str,
    (pool, windows): (&str, &Order),
    positions: Option<String>,
    (shape, dy, dx): (&[usize], View, View),
    epilogue: &Epilogue,
) {
    // As the windows are taken: their positions lie so.
    let order = Order::alike(windows, shape, dx);
    let operands: Vec<String> =
        positions.into_iter().chain([call.takes(dy), call.gives(dx), call.epilogue(epilogue)]).collect();
    let body = format!("{function}<{pool}, {}, {}>({})", windows.kind, order.kind, operands.join(", "));
    plan.launch_over(call, order.threads, &body);
}

/// `kernels/batch_norm.cu`'s `Channels`, and the number of ranges.
fn channels(shape: &[usize]) -> (String, usize) {
    let ranges = (shape[0] * elements(&shape[2..])).div_ceil(CHANNEL_RANGE).clamp(1, MOST_RANGES);
    (channel_ranges(shape, ranges), ranges)
}

fn channel_ranges(shape: &[usize], ranges: usize) -> String {
    format!("Channels<{}, {}, {}, {ranges}>", shape[0], shape[1], elements(&shape[2..]))
}

/// `kernels/pixels.cu`'s `PixelRanges`, the number of ranges, and the grid.
fn pixel_ranges(shape: &[usize]) -> (String, usize, [usize; 3]) {
    let pixels = shape[0] * elements(&shape[2..]);
    let all = shape[1] / LANES;
    let chunks = (0..).map(|power| 1 << power).take_while(|chunks| *chunks <= MOST_CHUNKS);
    let chunks = chunks.filter(|chunks| all.is_multiple_of(*chunks)).max().expect("one divides all");
    // Fewer channels a block, more pixels.
    let ranges = (pixels * chunks).div_ceil(PIXEL_RANGE * MOST_CHUNKS).clamp(1, MOST_PIXEL_RANGES);
    let [n, c, h, w] = shape else { panic!("{shape:?} is no image") };
    let kind = format!("PixelRanges<Extents<{n}, {c}, {h}, {w}>, {ranges}, {chunks}>");
    (kind, ranges, [ranges, all / chunks, 1])
}

/// Launches a kernel that sums ranges of each channel: `along_planes` or `along_pixels`, with operands that `operands` names. Gives `sums`
/// values for each channel and range, and how many ranges there are; they are in `whole` if there is one range.
#[expect(clippy::too_many_arguments, reason = "kernels' names, shape and operands")]
fn sum_ranges(
    plan: &mut Plan,
    what: &'static str,
    [along_planes, along_pixels]: [&str; 2],
    shape: &[usize],
    images: &[View],
    sums: usize,
    whole: Option<View>,
    operands: impl Fn(&mut Call) -> Vec<String>,
) -> (View, usize) {
    let mut call = Call::new(what);
    let pixels = images.iter().any(|image| image.form != Form::Planes);
    let (kind, ranges, grid, function) = if pixels {
        let (kind, ranges, grid) = pixel_ranges(shape);
        (kind, ranges, grid, along_pixels)
    } else {
        let (kind, ranges) = channels(shape);
        (kind, ranges, [shape[1], ranges, 1], along_planes)
    };
    let partial = whole.filter(|_| ranges == 1).unwrap_or_else(|| plan.temporary(sums * shape[1] * ranges));
    let mut operands = operands(&mut call);
    operands.push(call.writes(partial));
    plan.launch(call, grid, &format!("{function}<{kind}>({})", operands.join(", ")));
    (partial, ranges)
}

fn channel_sum(plan: &mut Plan, shape: &[usize], x: View, y: View) {
    let functions = ["channel_parts", "pixel_parts"];
    let (partial, ranges) =
        sum_ranges(plan, "channel sum", functions, shape, &[x], 1, Some(y), |call| vec![call.takes(x)]);
    add_ranges(plan, "channel sum", shape[1], ranges, partial, y);
}

/// Sums of each of `rows` over its ranges.
fn add_ranges(plan: &mut Plan, what: &'static str, rows: usize, ranges: usize, partial: View, y: View) {
    if partial == y {
        return;
    }
    let mut call = Call::new(what);
    let body = format!("channel_sum<Channels<1, {rows}, 1, {ranges}>>({}, {})", call.reads(partial), call.writes(y));
    plan.launch(call, [rows, 1, 1], &body);
}

fn batch_statistics(plan: &mut Plan, shape: &[usize], x: View, y: View) {
    let functions = ["moment_parts", "pixel_moment_parts"];
    let (partial, ranges) =
        sum_ranges(plan, "batch statistics", functions, shape, &[x], 2, None, |call| vec![call.takes(x)]);
    let mut call = Call::new("batch statistics");
    let kind = channel_ranges(shape, ranges);
    let body = format!("moments<{kind}>({}, {})", call.reads(partial), call.writes(y));
    plan.launch(call, [shape[1], 1, 1], &body);
}

/// x = [x, statistics, dy].
fn batch_parameter_grad(plan: &mut Plan, shape: &[usize], x: &[View], y: View) {
    let functions = ["batch_parameter_parts", "pixel_parameter_parts"];
    let (partial, ranges) =
        sum_ranges(plan, "batch norm parameters", functions, shape, &[x[0], x[2]], 2, Some(y), |call| {
            vec![call.takes(x[0]), call.reads(x[1]), call.takes(x[2])]
        });
    add_ranges(plan, "batch norm parameters", 2 * shape[1], ranges, partial, y);
}

/// x = [mean, variance, statistics].
fn update_running(plan: &mut Plan, momentum: f32, count: usize, channels: usize, x: &[View]) {
    let unbiased = count as f64 / (count.max(2) - 1) as f64;
    let mut call = Call::new("running statistics");
    let operands = [call.changes(x[0]), call.changes(x[1]), call.reads(x[2])].join(", ");
    let numbers = [call.int(channels), call.float(momentum), call.float(unbiased as f32)].join(", ");
    plan.launch(call, over(channels), &format!("update_running({operands}, {numbers})"));
}

fn responses(shape: &[usize], size: usize) -> String {
    format!("Responses<{}, {size}>", shape[1])
}

/// x = [gradients…, hyper].
fn clip_factor(plan: &mut Plan, x: &[View], shapes: &[Vec<usize>], y: View) {
    let (&hyper, gradients) = x.split_last().expect("hyper is an input");
    let ranges = |i: usize| elements(&shapes[i]).div_ceil(SQUARE_RANGE);
    let all: usize = (0..gradients.len()).map(ranges).sum();
    let partial = plan.temporary(all);
    let mut from = 0;
    for (i, &g) in gradients.iter().enumerate() {
        let mut call = Call::new("gradient norm");
        let part = View { offset: partial.offset + from, ..partial };
        let body = format!("squares({}, {}, {})", call.reads(g), call.writes(part), call.int(elements(&shapes[i])));
        plan.launch(call, [ranges(i), 1, 1], &body);
        from += ranges(i);
    }
    let mut call = Call::new("gradient norm");
    let operands = [call.reads(partial), call.reads(hyper), call.writes(y), call.int(all)].join(", ");
    plan.launch(call, [1, 1, 1], &format!("clip_factor({operands})"));
}

/// A step of the optimizer for one parameter.
pub(crate) struct Step {
    rule: Rule,
    /// [parameter, gradient, hyper, moments…, clip factor].
    x: Vec<View>,
    elements: usize,
}

impl Step {
    pub(crate) fn new(rule: Rule, x: &[View], elements: usize) -> Self {
        Self { rule, x: x.to_vec(), elements }
    }

    /// Whether it takes less time than the launch of its kernel.
    pub(crate) fn is_small(&self) -> bool {
        self.elements <= SMALL_PARAMETER
    }

    fn blocks(&self) -> usize {
        self.elements.div_ceil(THREADS)
    }

    /// The call of its device function for value `i`.
    fn call(&self, call: &mut Call, i: &str) -> String {
        let Self { rule, x, elements } = self;
        let clip = x.get(3 + rule.moments());
        let (function, first, decay) = match *rule {
            Rule::Sgd { nesterov, decay, .. } => ("sgd", nesterov, decay),
            Rule::Adam { decoupled, decay, .. } => ("adam", decoupled, decay),
        };
        let kind = [first, decay, rule.averages(), clip.is_some()].map(|on| on.to_string()).join(", ");
        let mut operands = vec![i.to_owned(), call.changes(x[0]), call.reads(x[1]), call.reads(x[2])];
        operands.extend(x[3..3 + rule.moments()].iter().map(|&moment| call.changes(moment)));
        if !rule.averages() {
            operands.push("nullptr".to_owned());
        }
        operands.push(clip.map_or_else(|| "nullptr".to_owned(), |&clip| call.reads(clip)));
        operands.push(call.int(*elements));
        format!("{function}<{kind}>({})", operands.join(", "))
    }
}

/// Appends the kernels of these steps, as few as there may be: each block works on one of the parameters.
pub(crate) fn update(plan: &mut Plan, steps: &[Step]) {
    for steps in steps.chunks(MOST_STEPS) {
        let mut call = Call::new("update");
        let (mut body, mut blocks) = (String::new(), 0);
        for step in steps {
            let at = format!("((int)blockIdx.x - {blocks}) * THREADS + (int)threadIdx.x");
            blocks += step.blocks();
            let update = step.call(&mut call, &at);
            let otherwise = if body.is_empty() { "" } else { "; else " };
            body += &format!("{otherwise}if (blockIdx.x < {blocks}) {update}");
        }
        plan.launch(call, [blocks, 1, 1], &body);
    }
}
