//! Tiles of images, channels innermost.

use std::ops::Range;

use pulp::Simd;

use super::{
    super::{
        arithmetic::Arithmetic,
        memory::{Memory, Slot},
        transpose::{self, Aligned, transpose},
        vector::{load_sixteen, prefetch},
    },
    Correlation, SIDE,
    transform::{Data, Filter, Transform, columns},
};

/// Where transformed values go.
pub(super) enum Destination<'a> {
    /// Memory of the calling thread.
    Private(&'a mut [f32]),
    /// A slot from an offset on, of which other tasks write other parts, past the caches or not.
    Shared { memory: &'a Memory, slot: Slot, from: usize, past: bool },
}

/// So many tiles before a tile's products are written, their cache lines are asked for.
const AHEAD: usize = 2;

/// So many lines before an image's line is copied, its cache lines are asked for: the lines of each plane are short runs of their own, which the
/// processor does not foresee.
const LINES_AHEAD: usize = 3;

/// What a word of two 16-bit operands joins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pairs {
    /// Channels: one register and the next.
    Channels,
    /// A tile and the next of its sheet; of an odd number, the last with zeros.
    Tiles,
}

/// Transformed values of tiles, or words of them: [products, panels, block, channels of a panel].
pub(super) struct Values<'a> {
    pub(super) destination: Destination<'a>,
    /// Tiles that there is room for.
    pub(super) block: usize,
    /// Channels of a panel: whole registers.
    pub(super) panel: usize,
    /// Values of one product.
    pub(super) size: usize,
}

impl Values<'_> {
    /// Where the first product of a register of channels of a tile lies.
    #[inline(always)]
    fn place(&self, tile: usize, channel: usize) -> usize {
        (channel / self.panel * self.block + tile) * self.panel + channel % self.panel
    }
    /// Writes one of its products.
    #[inline(always)]
    fn put<S: Simd>(&mut self, simd: S, place: usize, product: usize, value: S::f32s) {
        let at = product * self.size + place;
        match &mut self.destination {
            Destination::Private(values) => S::as_mut_simd_f32s(&mut values[at..at + S::F32_LANES]).0[0] = value,
            // There are more products than streams that the processor foresees: it would wait for each line that it begins to write.
            Destination::Shared { memory, slot, from, past } => {
                memory.put(simd, *slot, *from + at, value, AHEAD * self.panel, *past);
            }
        }
    }
}

/// Images of a sheet that are there, and where they lie: their planes begin `stride` values apart.
#[derive(Clone, Copy)]
pub(super) struct Images<'a> {
    pub(super) planes: &'a [f32],
    pub(super) count: usize,
    pub(super) stride: usize,
}

/// Planes [channels, h, w] of the images of a sheet within a frame of zeros.
#[derive(Clone, Copy)]
struct Frame {
    h: usize,
    w: usize,
    /// Zeros above and left of the first image.
    padding: usize,
    /// Images down and across.
    sheet: usize,
    /// Distances between them.
    period: [usize; 2],
    /// Width with padding.
    across: usize,
}

/// Copies planes to `image` [rows, across, WIDTH], with zeros around them and behind the last channel; only the rows given
/// are filled.
#[inline(always)]
fn interleave<S: Simd, const WIDTH: usize>(
    simd: S,
    f: Frame,
    images: Images,
    channels: Range<usize>,
    rows: Range<usize>,
    image: &mut [f32],
) {
    let pixels = image.as_chunks_mut::<WIDTH>().0;
    for row in rows {
        let line = &mut pixels[row * f.across..][..f.across];
        // Rows above the first image wrap around to none.
        let below = row.wrapping_sub(f.padding);
        let (down, y) = (below / f.period[0], below % f.period[0]);
        let first = down.saturating_mul(f.sheet);
        let here = if down < f.sheet && y < f.h { images.count.saturating_sub(first).min(f.sheet) } else { 0 };
        let mut done = 0;
        for n in 0..here {
            let start = f.padding + n * f.period[1];
            line[done..start].iter_mut().for_each(|pixel| pixel.fill(0.0));
            done = start + f.w;
            let planes = &images.planes[(first + n) * images.stride + y * f.w..];
            let planes = |channel: usize| (channel < channels.end).then(|| &planes[channel * f.h * f.w..]);
            if WIDTH.is_multiple_of(transpose::SIDE) {
                // Up to fifteen pixels too many, which what comes behind overwrites.
                for x in (0..f.w).step_by(transpose::SIDE) {
                    let line = &mut line[start + x..];
                    for group in (0..WIDTH).step_by(transpose::SIDE) {
                        let mut square = Aligned([[0.0; transpose::SIDE]; transpose::SIDE]);
                        for (lane, pixels) in square.iter_mut().enumerate() {
                            if let Some(plane) = planes(channels.start + group + lane) {
                                prefetch(plane, x + LINES_AHEAD * f.w);
                                load_sixteen(simd, &plane[x..], pixels);
                            }
                        }
                        transpose(simd, &mut square);
                        for (pixel, values) in line.iter_mut().zip(square.iter()) {
                            pixel[group..group + transpose::SIDE].copy_from_slice(values);
                        }
                    }
                }
            } else {
                let part = &mut line[start..done];
                for lane in 0..WIDTH {
                    match planes(channels.start + lane) {
                        Some(plane) => part.iter_mut().zip(plane).for_each(|(pixel, &value)| pixel[lane] = value),
                        None => part.iter_mut().for_each(|pixel| pixel[lane] = 0.0),
                    }
                }
            }
        }
        line[done..].iter_mut().for_each(|pixel| pixel.fill(0.0));
    }
}

/// [`interleave`] for two registers of channels.
#[inline(always)]
fn interleave_registers<S: Simd>(
    simd: S,
    f: Frame,
    images: Images,
    channels: Range<usize>,
    rows: Range<usize>,
    image: &mut [f32],
) {
    match S::F32_LANES {
        16 => interleave::<S, 32>(simd, f, images, channels, rows, image),
        8 => interleave::<S, 16>(simd, f, images, channels, rows, image),
        _ => interleave::<S, 8>(simd, f, images, channels, rows, image),
    }
}

/// An interleaved image of N registers of channels, as tiles.
#[derive(Clone, Copy)]
struct Pixels<'a, V> {
    values: &'a [V],
    /// Its width, in pixels and in tiles.
    across: usize,
    tiles_across: usize,
}

/// The columns of a tile of register `n` of the channels, transformed.
#[inline(always)]
fn columns_of_tile<S: Simd, T: Transform<FROM, TO>, const N: usize, const FROM: usize, const TO: usize>(
    simd: S,
    pixels: Pixels<S::f32s>,
    (tile, n): (usize, usize),
    half: &mut [[S::f32s; FROM]; TO],
) {
    let Pixels { values, across, tiles_across } = pixels;
    let corner = tile / tiles_across * SIDE * across + tile % tiles_across * SIDE;
    columns::<S, T, FROM, TO>(
        simd,
        #[inline(always)]
        |row, column| values[(corner + row * across + column) * N + n],
        half,
    );
}

/// Transforms tiles and puts their products, or words of them, from position `first` on.
#[expect(clippy::too_many_arguments, reason = "a transform, where its values come from and where they go")]
#[inline(always)]
fn put_tiles<
    S: Simd,
    A: Arithmetic<S>,
    T: Transform<FROM, POINTS>,
    const N: usize,
    const FROM: usize,
    const POINTS: usize,
>(
    simd: S,
    arithmetic: A,
    pairs: Pairs,
    pixels: Pixels<S::f32s>,
    tiles: Range<usize>,
    channel: usize,
    values: &mut Values,
    first: usize,
) {
    let zeros = [[simd.splat_f32s(0.0); FROM]; POINTS];
    let (mut half, mut next) = (zeros, zeros);
    let step = if A::STEP == 2 && pairs == Pairs::Tiles { 2 } else { 1 };
    for (position, tile) in tiles.clone().step_by(step).enumerate() {
        for n in 0..if A::STEP == 2 && pairs == Pairs::Channels { 1 } else { N } {
            columns_of_tile::<S, T, N, FROM, POINTS>(simd, pixels, (tile, n), &mut half);
            let mut to = channel + n * S::F32_LANES;
            if A::STEP == 2 {
                match pairs {
                    Pairs::Channels => {
                        columns_of_tile::<S, T, N, FROM, POINTS>(simd, pixels, (tile, 1), &mut next);
                        to = channel / 2;
                    }
                    Pairs::Tiles if tile + 1 < tiles.end => {
                        columns_of_tile::<S, T, N, FROM, POINTS>(simd, pixels, (tile + 1, n), &mut next);
                    }
                    Pairs::Tiles => next = zeros,
                }
            }
            let place = values.place(first + position, to);
            for row in 0..POINTS {
                let mut products = T::of(simd, half[row]);
                if A::STEP == 2 {
                    let next = T::of(simd, next[row]);
                    for column in 0..POINTS {
                        products[column] = arithmetic.join(simd, [products[column], next[column]]);
                    }
                }
                for column in 0..POINTS {
                    values.put::<S>(simd, place, row * POINTS + column, products[column]);
                }
            }
        }
    }
}

/// Bᵀ d B of the tiles given of two registers of channels of one sheet, to `values` from position `first` on.
#[expect(clippy::too_many_arguments, reason = "a sheet's parts and where they go")]
#[inline(always)]
pub(super) fn data_of_channels<S: Simd, A: Arithmetic<S>, const N: usize, const POINTS: usize>(
    simd: S,
    arithmetic: A,
    pairs: Pairs,
    c: &Correlation,
    images: Images,
    channel: usize,
    tiles: Range<usize>,
    image: &mut [f32],
    values: &mut Values,
    first: usize,
) {
    let across = c.tiles()[1];
    let wide = c.padded()[1];
    let rows = tiles.start / across * SIDE..(tiles.end - 1) / across * SIDE + POINTS;
    let (period, sheet) = (c.period(), c.sheet);
    let frame = Frame { h: c.h, w: c.w, padding: c.padding, sheet, period, across: wide };
    interleave_registers(simd, frame, images, channel..c.from.min(channel + N * S::F32_LANES), rows, image);
    let source = Pixels { values: S::as_simd_f32s(image).0, across: wide, tiles_across: across };
    put_tiles::<S, A, Data, N, POINTS, POINTS>(simd, arithmetic, pairs, source, tiles, channel, values, first);
}

/// G g Gᵀ of the tiles of two registers of channels of one sheet's output gradients, to `values` from position `first` on.
#[expect(clippy::too_many_arguments, reason = "a sheet's parts and where they go")]
#[inline(always)]
pub(super) fn gradients_of_channels<S: Simd, A: Arithmetic<S>, const N: usize, const POINTS: usize>(
    simd: S,
    arithmetic: A,
    c: &Correlation,
    images: Images,
    channel: usize,
    image: &mut [f32],
    values: &mut Values,
    first: usize,
) {
    let [down, across] = c.tiles();
    let wide = across * SIDE;
    let (period, sheet) = (c.period(), c.sheet);
    let frame = Frame { h: c.oh, w: c.ow, padding: 0, sheet, period, across: wide };
    interleave_registers(simd, frame, images, channel..c.to.min(channel + N * S::F32_LANES), 0..down * SIDE, image);
    let source = Pixels { values: S::as_simd_f32s(image).0, across: wide, tiles_across: across };
    let tiles = 0..down * across;
    put_tiles::<S, A, Filter, N, SIDE, POINTS>(simd, arithmetic, Pairs::Tiles, source, tiles, channel, values, first);
}
