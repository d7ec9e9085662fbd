//! Copies of operands in reduced precision, in the order of `kernels/packing.cu`.

use super::source::{Call, Plan, THREADS, View};
use crate::Precision;

/// Positions and channels of a tile, as `kernels/packing.cu` has them.
const TILE: usize = 64;
/// Values that a thread rounds where nothing is turned over.
const ROW_VALUES: usize = 8;
/// Channels come in multiples of this: a chunk of 16-bit values.
const CHANNELS: usize = 8;

/// How many channels there are with the zeros.
pub(crate) fn padded(channels: usize) -> usize {
    channels.next_multiple_of(CHANNELS)
}

/// What is copied, and into which shape: the parameters of `kernels/packing.cu`'s `Packing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Packing {
    /// Rows of the copy, of which `run` in each `padded_run` are rows of the source.
    pub(crate) rows: usize,
    pub(crate) run: usize,
    pub(crate) padded_run: usize,
    pub(crate) groups: usize,
    /// Channels of a group.
    pub(crate) channels: usize,
    /// Height and width of the source.
    pub(crate) source: (usize, usize),
    /// Side of a block.
    pub(crate) block: usize,
    /// Pixels of padding above and to the left.
    pub(crate) before: (usize, usize),
    /// Height and width in blocks.
    pub(crate) blocks: (usize, usize),
}

impl Packing {
    /// A matrix [rows, columns], with zeros up to a multiple of eight both ways.
    pub(crate) fn matrix(rows: usize, columns: usize) -> Self {
        let padded_run = padded(rows);
        Self {
            rows: padded_run,
            run: rows,
            padded_run,
            groups: 1,
            channels: columns,
            source: (1, 1),
            block: 1,
            before: (0, 0),
            blocks: (1, 1),
        }
    }

    /// Channels of a group of blocks, with the zeros.
    pub(crate) fn padded_channels(&self) -> usize {
        padded(self.block * self.block * self.channels)
    }

    fn elements(&self) -> usize {
        self.rows * self.blocks.0 * self.blocks.1 * self.groups * self.padded_channels()
    }

    fn kind(&self, precision: Precision) -> String {
        let Self { rows, run, padded_run, groups, channels, source, block, before, blocks } = *self;
        let numbers = [rows, run, padded_run, groups, channels, self.padded_channels(), source.0, source.1, block];
        let numbers = numbers.into_iter().chain([before.0, before.1, blocks.0, blocks.1]);
        let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
        format!("Packing<{}, {}>", precision.kind(), numbers.join(", "))
    }
}

impl Plan {
    /// A packed copy of a value; the one that there is, where the same was asked for since the value was written.
    pub(crate) fn packed(&mut self, x: View, packing: Packing) -> View {
        if let Some(&copy) = self.copies.get(&(x, Some(packing))) {
            return copy;
        }
        let precision = self.precision;
        let elements = packing.elements();
        let copy = self.temporary((elements * precision.bytes()).div_ceil(size_of::<f32>()));
        self.largest = self.largest.max(elements);
        let mut call = Call::new("pack");
        let operands = [call.reads(x), call.writes_packed(copy, precision)].join(", ");
        let kind = packing.kind(precision);
        if packing.blocks == (1, 1) && packing.source == (1, 1) && packing.groups == 1 && packing.before == (0, 0) {
            let grid = [elements.div_ceil(THREADS * ROW_VALUES), 1, 1];
            self.launch(call, grid, &format!("pack_rows<{kind}>({operands})"));
        } else {
            let positions = packing.rows * packing.blocks.0 * packing.blocks.1;
            let channels = packing.groups * packing.padded_channels();
            let grid = [positions.div_ceil(TILE), channels.div_ceil(TILE), 1];
            self.launch(call, grid, &format!("pack<{kind}>({operands})"));
        }
        self.copies.insert((x, Some(packing)), copy);
        copy
    }
}
