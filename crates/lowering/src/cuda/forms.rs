//! How values lie in the device's memory: which of them are images pixel by pixel in reduced precision (`kernels/forms.cu`), with how wide a
//! margin of zeros, and how threads take them.

use graph::Operator;

use super::{
    source::{Call, Epilogue, Plan, View},
    tensor::margin_for,
};
use crate::{
    Precision,
    fusion::{Group, takes_epilogue},
    schedule::Item,
};

/// Channels that a thread takes at once, and that images of pixels come in multiples of: 16 bytes of bf16.
pub(crate) const LANES: usize = 8;

/// How a value lies in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// f32 in the order of its shape.
    #[default]
    Planes,
    /// [N, top + H + bottom, left + W + right, C] in a reduced precision.
    Pixels(Pixels),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pixels {
    precision: Precision,
    /// [N, C, H, W].
    shape: [usize; 4],
    pub(crate) margin: Margin,
}

/// Rows and columns of zeros around an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Margin {
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) bottom: usize,
    pub(crate) right: usize,
}

impl Margin {
    fn with(self, other: Self) -> Self {
        Self {
            top: self.top.max(other.top),
            left: self.left.max(other.left),
            bottom: self.bottom.max(other.bottom),
            right: self.right.max(other.right),
        }
    }

    /// Whether it is at least as wide as another on every side.
    pub(crate) fn holds(self, other: Self) -> bool {
        self.with(other) == self
    }
}

impl Pixels {
    /// Height and width with the margin.
    pub(crate) fn outer(&self) -> (usize, usize) {
        let Self { shape, margin, .. } = self;
        (margin.top + shape[2] + margin.bottom, margin.left + shape[3] + margin.right)
    }

    /// Values with those of the margin.
    fn values(&self) -> usize {
        self.shape[0] * self.shape[1] * self.outer().0 * self.outer().1
    }

    /// The parameters of `Pixels` and `PixelsOut`.
    fn kind(&self) -> String {
        let Self { precision, shape, margin } = self;
        let (rows, columns) = self.outer();
        format!("{}, {}, {}, {}, {rows}, {columns}", precision.kind(), shape[1], margin.top, margin.left)
    }
}

/// The form of what each kernel's last operator makes, by its first one. Images are pixels where tensor cores take products, a kernel writes
/// each value once, as all that take an epilogue do, and nobody reads them under another shape.
pub(crate) fn forms(items: &[Item], fusion: &[Group], precision: Precision) -> Vec<Form> {
    let mut forms = vec![Form::Planes; items.len()];
    for (head, group) in fusion.iter().enumerate() {
        let Group::Head { members } = group else { continue };
        let Ok(shape) = <[usize; 4]>::try_from(items[head].output.as_slice()) else { continue };
        let suits = shape[1].is_multiple_of(LANES) && shape[2] * shape[3] > 1;
        if precision == Precision::F32 || !suits || !takes_epilogue(&items[head].operator) {
            continue;
        }
        let made: Vec<usize> = [head].iter().chain(members).copied().collect();
        let mut margin = Margin::default();
        let mut reshaped = false;
        for (reader, item) in items.iter().enumerate().filter(|(reader, _)| !made.contains(reader)) {
            for (position, _) in item.inputs.iter().enumerate().filter(|(_, input)| made.contains(input)) {
                reshaped |= matches!(item.operator, Operator::Reshape(_));
                margin = margin.with(margin_for(&items[reader], position));
            }
        }
        if !reshaped {
            forms[head] = Form::Pixels(Pixels { precision, shape, margin });
        }
    }
    forms
}

/// Pixels of a run, as `kernels/forms.cu` has them.
const RUN: usize = 4;

/// How the threads of a kernel take the values of an image: an order of `kernels/forms.cu`.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) kind: String,
    /// Values, or `lanes` channels of a pixel, with those of the margin.
    pub(crate) threads: usize,
    /// The same where a thread takes a run of pixels.
    pub(crate) runs: usize,
    pub(crate) lanes: usize,
    pub(crate) pixels: bool,
}

impl Order {
    /// For values of this shape [N, C, H, W] that are written as `output`, with its margin, beside `inputs`: pixel by pixel if any of them lies so.
    pub(crate) fn new(shape: &[usize], output: Option<View>, inputs: &[View], lanes: usize) -> Self {
        let [n, c, h, w] = shape else { panic!("{shape:?} is no image") };
        if let Some(Form::Pixels(pixels)) = output.map(|view| view.form) {
            return Self::by_pixels(shape, lanes, pixels.margin, pixels.outer());
        }
        if inputs.iter().any(|input| input.form != Form::Planes) {
            return Self::by_pixels(shape, lanes, Margin::default(), (*h, *w));
        }
        let (kind, threads) = (format!("PlaneOrder<{n}, {c}, {h}, {w}>"), n * c * h * w);
        Self { kind, threads, runs: threads, lanes: 1, pixels: false }
    }

    /// As another order takes its own values.
    pub(crate) fn alike(other: &Self, shape: &[usize], output: View) -> Self {
        let own = Self::new(shape, Some(output), &[], other.lanes);
        if other.pixels && !own.pixels {
            return Self::by_pixels(shape, other.lanes, Margin::default(), (shape[2], shape[3]));
        }
        own
    }

    /// The same over what is inside alone.
    pub(crate) fn without_margin(&self, shape: &[usize]) -> Self {
        if !self.pixels {
            return self.clone();
        }
        Self::by_pixels(shape, self.lanes, Margin::default(), (shape[2], shape[3]))
    }

    fn by_pixels(shape: &[usize], lanes: usize, margin: Margin, outer: (usize, usize)) -> Self {
        let [n, c, h, w] = shape else { panic!("{shape:?} is no image") };
        let (top, left, rows, columns) = (margin.top, margin.left, outer.0, outer.1);
        Self {
            kind: format!("PixelOrder<{n}, {c}, {h}, {w}, {lanes}, {top}, {left}, {rows}, {columns}>"),
            threads: n * rows * columns * c / lanes,
            runs: (n * rows * columns).div_ceil(RUN) * c / lanes,
            lanes,
            pixels: true,
        }
    }
}

impl Plan {
    /// A place for a value of this shape that lives within the step.
    pub(crate) fn value(&mut self, shape: &[usize], form: Form) -> View {
        let Form::Pixels(pixels) = form else { return self.temporary(shape.iter().product()) };
        let place = self.temporary((pixels.values() * pixels.precision.bytes()).div_ceil(size_of::<f32>()));
        self.largest = self.largest.max(pixels.values());
        View { form, ..place }
    }

    /// A value in planes: itself, or a copy; the one that there is, where it was asked for since the value was written.
    pub(crate) fn planes(&mut self, x: View) -> View {
        let Form::Pixels(Pixels { shape, .. }) = x.form else { return x };
        if let Some(&copy) = self.copies.get(&(x, None)) {
            return copy;
        }
        let copy = self.temporary(shape.iter().product());
        self.image_map("unpack", &shape, x, copy, &Epilogue::default());
        self.copies.insert((x, None), copy);
        copy
    }

    /// y = epilogue(x) for images, from one form to another.
    pub(crate) fn image_map(&mut self, what: &'static str, shape: &[usize], x: View, y: View, epilogue: &Epilogue) {
        let order = Order::new(shape, Some(y), &[x], LANES);
        let mut call = Call::new(what);
        let operands = [call.takes(x), call.gives(y), call.epilogue(epilogue)].join(", ");
        self.launch_over(call, order.threads, &format!("map_image<{}>({operands})", order.kind));
    }

    /// Zeros around an image whose values another kernel writes.
    pub(crate) fn zero_margin(&mut self, y: View) {
        let Form::Pixels(Pixels { shape, margin, .. }) = y.form else { return };
        if margin == Margin::default() {
            return;
        }
        let order = Order::new(&shape, Some(y), &[], LANES);
        let mut call = Call::new("margin");
        let body = format!("zero_margin<{}>({})", order.kind, call.gives(y));
        self.launch_over(call, order.threads, &body);
    }
}

impl Call {
    /// A value in its form, which is only read.
    pub(crate) fn takes(&mut self, view: View) -> String {
        let kind = kind_read(view.form);
        let name = match view.form {
            Form::Planes => self.reads(view),
            Form::Pixels(pixels) => self.reads_packed(view, pixels.precision),
        };
        format!("{kind}{{{name}}}")
    }

    /// A value in its form, every one of which is written.
    pub(crate) fn gives(&mut self, view: View) -> String {
        let kind = kind_written(view.form);
        let name = match view.form {
            Form::Planes => self.writes(view),
            Form::Pixels(pixels) => self.writes_packed(view, pixels.precision),
        };
        format!("{kind}{{{name}}}")
    }
}

/// The type of an operand.
pub(crate) fn kind_read(form: Form) -> String {
    match form {
        Form::Planes => "Planes".to_owned(),
        Form::Pixels(pixels) => format!("Pixels<{}>", pixels.kind()),
    }
}

/// The type of an output.
pub(crate) fn kind_written(form: Form) -> String {
    match form {
        Form::Planes => "PlanesOut".to_owned(),
        Form::Pixels(pixels) => format!("PixelsOut<{}>", pixels.kind()),
    }
}
