//! How images with a stride lie in 16 bits so that rows of tiles can be read where they are, and images whose weight gradients are wanted.
//!
//! With a stride there are *lines*: of each line of the image and each channel the columns modulo the stride, so that what a tap sees along
//! one line of outputs lies one after the other, and what those above and below it see is a row of the tile away. With stride 1 there are
//! *planes*: a line of pixels follows the last one at a distance that leaves its padding once between them, so that what a tap sees at all outputs
//! lies one after the other (with some places between the lines whose sums are not used).

use super::{
    super::convolution::Extents,
    {BLOCK, HALVES, SIDE},
};

/// Distance of rows that are read together: whole cache lines, and an odd number of them, so that they fall into different sets of
/// the cache.
pub(super) fn spread(length: usize, line: usize) -> usize {
    let lines = length.div_ceil(line);
    line * if lines.is_multiple_of(2) { lines + 1 } else { lines }
}

/// One correlation of each group: y [to, oh, ow] from x [from, h, w].
#[derive(Clone, Copy, Debug)]
pub(super) struct Correlation {
    pub(super) images: usize,
    pub(super) groups: usize,
    /// Channels of a group.
    pub(super) from: usize,
    pub(super) to: usize,
    /// Height and width.
    pub(super) x: [usize; 2],
    pub(super) y: [usize; 2],
    pub(super) kernel: [usize; 2],
    /// Above and to the left.
    pub(super) padding: [usize; 2],
    pub(super) stride: usize,
}

impl Correlation {
    pub(super) fn new(e: &Extents) -> Self {
        Self {
            images: e.images,
            groups: e.groups,
            from: e.c / e.groups,
            to: e.o / e.groups,
            x: [e.h, e.w],
            y: [e.oh, e.ow],
            kernel: [e.kh, e.kw],
            padding: [e.padding; 2],
            stride: e.stride,
        }
    }
    /// The correlation that takes gradients of y to gradients of x; of stride 1.
    pub(super) fn backward(&self) -> Self {
        let &Self { from, to, x, y, kernel, padding, .. } = self;
        let padding = [0, 1].map(|i| kernel[i] - 1 - padding[i]);
        Self { from: to, to: from, x: y, y: x, padding, ..*self }
    }
    pub(super) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
    /// Values of a group's images.
    pub(super) fn input(&self) -> usize {
        self.from * self.x[0] * self.x[1]
    }
    pub(super) fn output(&self) -> usize {
        self.to * self.y[0] * self.y[1]
    }
    pub(super) fn multiply_adds(&self) -> usize {
        self.images * self.groups * self.output() * self.from * self.taps()
    }
    /// From one line of a plane to the next.
    pub(super) fn period(&self) -> usize {
        self.x[1] + self.padding[1]
    }
    /// Places of a plane's outputs, with those between its lines.
    pub(super) fn places(&self) -> usize {
        (self.y[0] - 1) * self.period() + self.y[1]
    }
    /// How far the last tap is from the first.
    pub(super) fn reach(&self) -> usize {
        (self.kernel[0] - 1) * self.period() + self.kernel[1] - 1
    }
    /// Columns of a line of x with its padding, or of as many windows as a row of so many values sees.
    pub(super) fn padded_line(&self, row: usize) -> usize {
        (self.x[1] + 2 * self.padding[1]).max(self.stride * row)
    }
    /// Columns of the window of one phase.
    fn blocks(&self) -> usize {
        self.kernel[1].div_ceil(self.stride)
    }
}

/// A value of the window: channel of the group, and tap.
pub(super) type Seen = Option<(usize, usize)>;

/// Images as right operands: rows are words of the depth, columns outputs along a line.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    pub(super) c: Correlation,
    /// Words from one row to the next.
    pub(super) row: usize,
    /// Words of one group of an image.
    pub(super) image: usize,
    /// Where each step of the depth starts, in words.
    pub(super) steps: Vec<usize>,
    /// Words from one line of outputs to the next, and their places, a multiple of a tile's columns.
    pub(super) line: usize,
    pub(super) places: usize,
}

impl Lines {
    pub(super) fn new(c: Correlation) -> Self {
        let places = c.y[1].next_multiple_of(SIDE);
        let row = spread(places + c.blocks() - 1, SIDE);
        let per_line = c.from * c.stride.div_ceil(2);
        let depth = (c.kernel[0] * per_line).next_multiple_of(SIDE);
        let line = c.stride * per_line * row;
        let rows = |block| (0..depth / SIDE).map(move |rows| rows * SIDE * row + block);
        let steps = (0..c.blocks()).flat_map(rows).collect();
        Self { c, row, image: (c.y[0] - 1) * line + depth * row, steps, line, places }
    }

    /// The two values that a word of a step multiplies.
    pub(super) fn seen(&self, step: usize, word: usize) -> [Seen; 2] {
        let c = &self.c;
        let [kh, kw] = c.kernel;
        let (steps, pairs) = (self.steps.len() / c.blocks(), c.stride.div_ceil(2));
        let (block, row) = (step / steps, step % steps * SIDE + word);
        let (ky, channel, pair) = (row / (c.from * pairs), row / pairs % c.from, row % pairs);
        [0, 1].map(|part| {
            let phase = 2 * pair + part;
            let kx = block * c.stride + phase;
            (ky < kh && phase < c.stride && kx < kw).then_some((channel, ky * kw + kx))
        })
    }
}

/// Images as left operands of a weight gradient: rows are values of the window, columns outputs, two of them a word.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    pub(super) c: Correlation,
    /// Values of 16 bits from one row to the next.
    pub(super) row: usize,
    /// Of one group of an image.
    pub(super) image: usize,
    /// Rows of the product, without those that fill up its last tile.
    pub(super) rows: usize,
    /// How far later the rows start for other taps (planes), or other columns of the window (lines).
    pub(super) shifts: Vec<usize>,
    /// Lines of outputs, and places of each: a multiple of the values of a tile's row.
    pub(super) lines: usize,
    pub(super) places: usize,
    /// Values of 16 bits from one line of outputs to the next.
    line: usize,
    /// From one row of outputs to the next within a line of outputs.
    pub(super) period: usize,
}

impl Rows {
    pub(super) fn new(c: Correlation) -> Self {
        let [kh, kw] = c.kernel;
        if c.stride == 1 {
            let places = c.places().next_multiple_of(HALVES);
            let row = spread(places + c.reach(), HALVES);
            let shifts = (0..kh).flat_map(|ky| (0..kw).map(move |kx| ky * c.period() + kx)).collect();
            let image = c.from.next_multiple_of(BLOCK) * row;
            return Self { c, row, image, rows: c.from, shifts, lines: 1, places, line: 0, period: c.period() };
        }
        let places = c.y[1].next_multiple_of(HALVES);
        let row = spread(places + c.blocks() - 1, HALVES);
        let per_line = c.from * c.stride;
        let line = c.stride * per_line * row;
        let rows = kh * per_line;
        let image = (c.y[0] - 1) * line + rows.next_multiple_of(BLOCK) * row;
        Self { c, row, image, rows, shifts: (0..c.blocks()).collect(), lines: c.y[0], places, line, period: row }
    }

    /// Places of an image.
    pub(super) fn positions(&self) -> usize {
        self.lines * self.places
    }

    /// Steps of the depth of one image: where they start in it, and at which of its places.
    pub(super) fn steps(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
        (0..self.lines).flat_map(move |line| {
            (0..self.places).step_by(HALVES).map(move |place| [line * self.line + place, line * self.places + place])
        })
    }

    /// The value of the window that a row of a shift of lines is about. (Of planes it is a channel, and shifts are taps.)
    pub(super) fn seen(&self, shift: usize, row: usize) -> Seen {
        let c = &self.c;
        let [kh, kw] = c.kernel;
        let (ky, channel, phase) = (row / (c.from * c.stride), row / c.stride % c.from, row % c.stride);
        let kx = shift * c.stride + phase;
        (ky < kh && kx < kw).then_some((channel, ky * kw + kx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn correlation(from: usize, [h, w]: [usize; 2], kernel: [usize; 2], padding: usize, stride: usize) -> Correlation {
        let y = [(h + 2 * padding - kernel[0]) / stride + 1, (w + 2 * padding - kernel[1]) / stride + 1];
        Correlation { images: 2, groups: 1, from, to: 40, x: [h, w], y, kernel, padding: [padding; 2], stride }
    }

    #[test]
    fn lines_see_every_value_of_the_window_once() {
        for c in [correlation(3, [227, 227], [11, 11], 0, 4), correlation(5, [30, 20], [5, 4], 2, 3)] {
            let (words, rows) = (Lines::new(c), Rows::new(c));
            let mut counts = [vec![0; c.from * c.taps()], vec![0; c.from * c.taps()]];
            for step in 0..words.steps.len() {
                for (channel, tap) in (0..SIDE).flat_map(|word| words.seen(step, word)).flatten() {
                    counts[0][channel * c.taps() + tap] += 1;
                }
            }
            for shift in 0..rows.shifts.len() {
                for (channel, tap) in (0..rows.rows.next_multiple_of(BLOCK)).filter_map(|row| rows.seen(shift, row)) {
                    counts[1][channel * c.taps() + tap] += 1;
                }
            }
            assert!(counts.iter().flatten().all(|&count| count == 1), "{c:?}");
        }
    }
}
