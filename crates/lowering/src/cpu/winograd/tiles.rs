//! Tiles of images, channels innermost.

use std::ops::Range;

use pulp::Simd;

use super::{
    super::{
        memory::{Memory, Slot},
        transpose::{self, transpose},
    },
    Correlation, SIDE,
    transform::{self, both_ways},
};

/// Where transformed values go.
pub(super) enum Destination<'a> {
    /// Memory of the calling thread.
    Private(&'a mut [f32]),
    /// A slot from an offset on, of which other tasks write other parts.
    Shared(&'a Memory, Slot, usize),
}

/// Transformed values of tiles [products, block, stride].
pub(super) struct Values<'a> {
    pub(super) destination: Destination<'a>,
    pub(super) block: usize,
    pub(super) stride: usize,
}

impl Values<'_> {
    /// Writes the products of one register of channels of one tile.
    #[inline(always)]
    fn put<S: Simd, const POINTS: usize>(
        &mut self,
        tile: usize,
        channel: usize,
        products: [[S::f32s; POINTS]; POINTS],
    ) {
        let at = tile * self.stride + channel;
        for (i, &product) in products.as_flattened().iter().enumerate() {
            let at = i * self.block * self.stride + at;
            let to = match &mut self.destination {
                Destination::Private(values) => &mut values[at..at + S::F32_LANES],
                Destination::Shared(memory, slot, from) => memory.write(*slot, *from + at..*from + at + S::F32_LANES),
            };
            S::as_mut_simd_f32s(to).0[0] = product;
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
                        let mut square = [[0.0; transpose::SIDE]; transpose::SIDE];
                        for (lane, pixels) in square.iter_mut().enumerate() {
                            if let Some(plane) = planes(channels.start + group + lane) {
                                match plane[x..].first_chunk() {
                                    Some(there) => *pixels = *there,
                                    None => pixels[..f.w - x].copy_from_slice(&plane[x..f.w]),
                                }
                            }
                        }
                        transpose(simd, &mut square);
                        for (pixel, values) in line.iter_mut().zip(&square) {
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

/// A square of pixels of one register of channels, from an interleaved image.
#[inline(always)]
fn square<S: Simd, const SIDE: usize, const N: usize>(
    simd: S,
    pixels: &[S::f32s],
    across: usize,
    corner: usize,
    n: usize,
) -> [[S::f32s; SIDE]; SIDE] {
    let mut square = [[simd.splat_f32s(0.0); SIDE]; SIDE];
    for (row, values) in square.iter_mut().enumerate() {
        let line = &pixels[(corner + row * across) * N..][..SIDE * N];
        for (column, value) in values.iter_mut().enumerate() {
            *value = line[column * N + n];
        }
    }
    square
}

/// Bᵀ d B of the tiles given of two registers of channels of one sheet, to `values` from position `first` on.
#[expect(clippy::too_many_arguments, reason = "a sheet's parts and where they go")]
#[inline(always)]
pub(super) fn data_of_channels<S: Simd, const N: usize, const POINTS: usize>(
    simd: S,
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
    let pixels = S::as_simd_f32s(image).0;
    for (position, tile) in tiles.enumerate() {
        let corner = tile / across * SIDE * wide + tile % across * SIDE;
        for n in 0..N {
            let square = square::<S, POINTS, N>(simd, pixels, wide, corner, n);
            let products = both_ways!(simd, square, POINTS, POINTS, transform::data::<S, POINTS>);
            values.put::<S, POINTS>(first + position, channel + n * S::F32_LANES, products);
        }
    }
}

/// G g Gᵀ of the tiles of two registers of channels of one sheet's output gradients, to `values` from position `first` on.
#[inline(always)]
pub(super) fn gradients_of_channels<S: Simd, const N: usize, const POINTS: usize>(
    simd: S,
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
    let pixels = S::as_simd_f32s(image).0;
    for tile in 0..down * across {
        let corner = tile / across * SIDE * wide + tile % across * SIDE;
        for n in 0..N {
            let square = square::<S, SIDE, N>(simd, pixels, wide, corner, n);
            let products = both_ways!(simd, square, SIDE, POINTS, transform::filter::<S, SIDE, POINTS>);
            values.put::<S, POINTS>(first + tile, channel + n * S::F32_LANES, products);
        }
    }
}
