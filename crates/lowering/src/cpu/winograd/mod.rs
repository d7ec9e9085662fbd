//! Convolutions with stride 1 and 3×3 or 5×5 kernels by minimal filtering (Lavin & Gray 2016): for 4×4 outputs a tile of 6×6
//! pixels and 36 products with a 3×3 kernel (instead of 144), a tile of 8×8 and 64 products with a 5×5 kernel (instead of 400).
//!
//! Inside, channels are innermost: values of tiles are [products, tiles, channels], weights [products, panels, inputs, outputs
//! of a panel], so that all transforms run over channels in vector lanes and the sum over channels is a matrix product for
//! each of the products.

mod apply;
mod tiles;
mod transform;
mod weight_grad;

pub(super) use apply::{forward, input_grad};
pub(super) use weight_grad::weight_grad;

use super::{matrix::Tile, program::Work};
use crate::Precision;

/// Side of a tile's outputs.
const SIDE: usize = 4;

/// Runs a body for a side of the kernel, with that and the points of a tile's side as constants.
macro_rules! with_kernel {
    ($c:expr, $body:ident::<$S:ident>($($arg:expr),*)) => {
        match $c.kernel {
            3 => $body::<$S, 3, 6>($($arg),*),
            _ => $body::<$S, 5, 8>($($arg),*),
        }
    };
}
use with_kernel;

/// One correlation: y [images, groups·to, oh, ow] from x [images, groups·from, h, w].
#[derive(Clone, Copy, Debug)]
pub(super) struct Correlation {
    pub(super) images: usize,
    pub(super) groups: usize,
    /// Channels of x and y in each group.
    pub(super) from: usize,
    pub(super) to: usize,
    /// Height and width of x.
    pub(super) h: usize,
    pub(super) w: usize,
    /// Height and width of y.
    pub(super) oh: usize,
    pub(super) ow: usize,
    pub(super) padding: usize,
    /// Side of the kernel: 3 or 5.
    pub(super) kernel: usize,
    /// Images down and across a sheet: 1 or 2, as [`Self::in_sheets`] finds best.
    pub(super) sheet: usize,
    /// Arithmetic of the products.
    pub(super) precision: Precision,
}

impl Correlation {
    /// Of these extents, with images laid on sheets of 2×2 where that takes fewer tiles: the last tiles of a 13×13 map reach three
    /// pixels beyond it, those of four such maps side by side, with their padding between them, only one.
    pub(super) fn in_sheets(self) -> Self {
        let [one, four] = [1, 2].map(|sheet| Self { sheet, ..self });
        let tiles = |c: &Self| c.sheets() * c.per_sheet();
        // Few sheets would be few tasks.
        let better = self.images >= 16 && 20 * tiles(&four) <= 19 * tiles(&one);
        if better { four } else { one }
    }
    /// Words of a sum over channels: one each, or with 16-bit operands one for two, a register of channels with the next one.
    fn words(&self, channels: usize) -> usize {
        match self.precision.step() {
            1 => channels,
            step => channels.next_multiple_of(Tile::new().columns) / step,
        }
    }
    /// Values of a tile along one side.
    fn points(&self) -> usize {
        SIDE + self.kernel - 1
    }
    /// Products of a tile: one for each pair of points.
    fn products(&self) -> usize {
        self.points() * self.points()
    }
    /// Images of a sheet.
    fn per(&self) -> usize {
        self.sheet * self.sheet
    }
    /// Sheets of the batch; the last may have fewer images.
    fn sheets(&self) -> usize {
        self.images.div_ceil(self.per())
    }
    /// Distances between images of a sheet, down and across: their padding lies between them once.
    fn period(&self) -> [usize; 2] {
        [self.h + self.padding, self.w + self.padding]
    }
    /// Tiles down and across a sheet.
    fn tiles(&self) -> [usize; 2] {
        let [down, across] = self.period().map(|period| (self.sheet - 1) * period);
        [down + self.oh, across + self.ow].map(|outputs| outputs.div_ceil(SIDE))
    }
    /// Tiles of a sheet.
    fn per_sheet(&self) -> usize {
        self.tiles().iter().product()
    }
    /// Multiply-adds over the batch: what the correlation is defined by, and one for each product of a tile and pair of channels.
    fn work(&self) -> Work {
        let pairs = (self.groups * self.from * self.to) as f64;
        let defined = self.images * self.oh * self.ow * self.kernel * self.kernel;
        let done = self.sheets() * self.per_sheet() * self.products();
        Work { defined_flop: 2.0 * pairs * defined as f64, done_flop: 2.0 * pairs * done as f64 }
    }
    /// Height and width of a sheet with its padding, up to what the last tiles read.
    fn padded(&self) -> [usize; 2] {
        self.tiles().map(|tiles| (tiles - 1) * SIDE + self.points())
    }
    /// The correlation that takes gradients of y to gradients of x: padding and sizes change sides.
    pub(super) fn backward(&self) -> Self {
        let &Self { from, to, h, w, oh, ow, padding, kernel, .. } = self;
        let padding = kernel - 1 - padding;
        Self { from: to, to: from, h: oh, w: ow, oh: h, ow: w, padding, ..*self }.in_sheets()
    }
}

/// Whether minimal filtering serves a convolution, and serves it better than direct products: enough channels to pay for
/// the transforms, and a kernel that there are points for.
pub(super) fn serves(c: &Correlation, stride: usize, kernel: [usize; 2]) -> bool {
    stride == 1
        && matches!(kernel, [3, 3] | [5, 5])
        && c.padding < c.kernel
        && c.from >= 16
        && c.to >= 16
        && c.oh.min(c.ow) >= SIDE
}

/// The arithmetic of products with kernels of a side, where one is asked for. Eight points would magnify rounding to 16 bits to an error of
/// 0.04, and six points for 5×5 kernels have as many products in 16 bits as eight in 32, and more transforms.
pub(super) fn precision(asked: Precision, kernel: usize) -> Precision {
    if kernel == 3 { asked } else { Precision::F32 }
}

/// Distance between the channels of two tiles: whole registers and whole register tiles, and an odd number of cache lines, so
/// that a column of tiles spreads over all sets of the cache.
fn channel_stride(channels: usize) -> usize {
    let Tile { rows, columns } = Tile::new();
    let lines = channels.next_multiple_of(columns).max(channels.next_multiple_of(rows)).div_ceil(16);
    16 * if lines.is_multiple_of(2) { lines + 1 } else { lines }
}
