//! Fully connected layers as matrix products, split by rows or by columns of the result.

use super::{
    Plan,
    fusion::Epilogue,
    matrix::{self, Matrix, multiply},
    memory::{Memory, Slot},
    movement::chunk,
    program::Kernel,
    simd,
};

/// How a result [rows, columns] is split into tasks: wide ones by columns, so that each weight is read once.
#[derive(Clone, Copy)]
struct Tiles {
    rows: usize,
    columns: usize,
    height: usize,
    width: usize,
}

impl Tiles {
    fn new(rows: usize, columns: usize) -> Self {
        let (height, width) = if columns >= 512 { (rows, 256) } else { (rows.div_ceil(8).max(8), columns) };
        Self { rows, columns, height, width }
    }

    fn count(&self) -> usize {
        self.rows.div_ceil(self.height) * self.columns.div_ceil(self.width)
    }

    /// Ranges of rows and columns.
    fn tile(&self, task: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let across = self.columns.div_ceil(self.width);
        (chunk(task / across, self.height, self.rows), chunk(task % across, self.width, self.columns))
    }
}

/// y = a·b (+ bias), both operands by strides.
struct Product {
    name: &'static str,
    a: (Slot, usize, usize),
    b: (Slot, usize, usize),
    depth: usize,
    bias: Option<Slot>,
    y: Slot,
    tiles: Tiles,
    epilogue: Epilogue,
}

impl Product {
    /// Room for a tile that is narrower than the result.
    fn private(&self) -> usize {
        if self.tiles.width < self.tiles.columns { self.tiles.height * self.tiles.width } else { 0 }
    }
}

impl Kernel for Product {
    fn name(&self) -> &'static str {
        self.name
    }
    fn tasks(&self) -> usize {
        self.tiles.count()
    }
    fn scratch(&self) -> usize {
        self.private() + matrix::room(self.tiles.height, self.depth)
    }
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]) {
        let (rows, columns) = self.tiles.tile(task);
        let view = |(slot, row_stride, column_stride): (Slot, usize, usize), row: usize, column: usize| Matrix {
            values: &memory.read(slot)[row * row_stride + column * column_stride..],
            row_stride,
            column_stride,
        };
        let (a, b) = (view(self.a, rows.start, 0), view(self.b, 0, columns.start));
        let sizes = (rows.len(), self.depth, columns.len());
        let whole = columns.len() == self.tiles.columns;
        let (private, panels) = scratch.split_at_mut(self.private());
        // Rows of a column tile are far apart in y: compute in private memory, then copy row by row.
        let out = if whole {
            memory.write(self.y, rows.start * self.tiles.columns..rows.end * self.tiles.columns)
        } else {
            &mut private[..rows.len() * columns.len()]
        };
        multiply(out, columns.len(), sizes, a, b, false, panels);
        if let Some(bias) = self.bias {
            let bias = &memory.read(bias)[columns.clone()];
            out.chunks_exact_mut(columns.len()).for_each(|row| simd::add(row, bias));
        }
        if whole {
            self.epilogue.apply(memory, out, rows.start * self.tiles.columns);
            return;
        }
        for (row, values) in rows.zip(out.chunks_exact_mut(columns.len())) {
            let offset = row * self.tiles.columns + columns.start;
            self.epilogue.apply(memory, values, offset);
            memory.write(self.y, offset..offset + columns.len()).copy_from_slice(values);
        }
    }
}

fn push(plan: &mut Plan, product: Product) {
    let mut touches = vec![product.a.0, product.b.0, product.y];
    touches.extend(product.bias);
    touches.extend(product.epilogue.slots());
    plan.push(product, &touches);
}

/// x = [x, w, b] → y [rows, outputs] = x wᵀ + b.
pub(super) fn forward(
    plan: &mut Plan,
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: &[Slot],
    y: Slot,
    epilogue: Epilogue,
) {
    push(
        plan,
        Product {
            name: "linear",
            a: (x[0], inputs, 1),
            b: (x[1], 1, inputs),
            depth: inputs,
            bias: Some(x[2]),
            y,
            tiles: Tiles::new(rows, outputs),
            epilogue,
        },
    );
}

/// x = [w, dy] → dx [rows, inputs] = dy w.
pub(super) fn input_grad(plan: &mut Plan, rows: usize, w_shape: &[usize], x: &[Slot], y: Slot, epilogue: Epilogue) {
    let (outputs, inputs) = (w_shape[0], w_shape[1..].iter().product());
    push(
        plan,
        Product {
            name: "linear input gradient",
            a: (x[1], outputs, 1),
            b: (x[0], inputs, 1),
            depth: outputs,
            bias: None,
            y,
            tiles: Tiles::new(rows, inputs),
            epilogue,
        },
    );
}

/// x = [x, dy] → dw [outputs, inputs] = dyᵀ x.
pub(super) fn weight_grad(plan: &mut Plan, rows: usize, w_shape: &[usize], x: &[Slot], y: Slot) {
    let (outputs, inputs) = (w_shape[0], w_shape[1..].iter().product());
    let height = outputs.div_ceil(16).max(8);
    push(
        plan,
        Product {
            name: "linear weight gradient",
            a: (x[1], 1, outputs),
            b: (x[0], inputs, 1),
            depth: rows,
            bias: None,
            y,
            tiles: Tiles { rows: outputs, columns: inputs, height, width: inputs },
            epilogue: Epilogue::default(),
        },
    );
}
