//! Convolutions and their input gradients on blocks: a tile of channels and pixels in registers, nothing gathered.
//!
//! An image in each lane, every value under a window is a vector where it lies. So both are sums over a list of taps (a
//! place in x and a row of packed weights), whatever the kernel, stride and padding; taps outside the image are not in
//! the list.

use graph::operators::Activation;
use pulp::{Simd, WithSimd};

use super::{
    super::{
        Plan,
        memory::{Memory, Slot},
        program::Kernel,
        vector::fma,
    },
    chain::{Id, Room, Step},
    elementwise::activate,
};

/// Most channels of a tile.
pub(super) const CHANNELS: usize = 6;
/// Most pixels of a tile, with sixteen lanes (and twice the registers).
pub(super) const PIXELS: usize = 4;

/// Extents of one convolution; `h` and `w` are without padding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extents {
    pub(super) c: usize,
    pub(super) h: usize,
    pub(super) w: usize,
    pub(super) o: usize,
    pub(super) oh: usize,
    pub(super) ow: usize,
    pub(super) kh: usize,
    pub(super) kw: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
}

impl Extents {
    /// A convolution whose single window is the whole image is a linear layer.
    pub(super) fn is_linear(&self) -> bool {
        self.padding == 0 && (self.kh, self.kw) == (self.h, self.w)
    }
    pub(super) fn taps(&self) -> usize {
        self.c * self.kh * self.kw
    }
    /// Products of one image, forward or to one of the gradients.
    pub(super) fn multiply_adds(&self) -> usize {
        self.o * self.oh * self.ow * self.taps()
    }
}

/// Splits channels evenly into tiles of at most [`CHANNELS`].
pub(super) fn tiles(channels: usize) -> Vec<std::ops::Range<usize>> {
    let count = channels.div_ceil(CHANNELS);
    (0..count).map(|i| i * channels / count..(i + 1) * channels / count).collect()
}

/// Weights of one convolution, repacked once a step.
#[derive(Clone, Copy)]
struct Packing {
    w: Slot,
    packed: Slot,
    e: Extents,
    /// For the input gradient: tiles of input channels, output channels as depth.
    transposed: bool,
}

/// Repacks the weights of all convolutions.
#[derive(Default)]
pub(super) struct Pack(Vec<Packing>);

impl Pack {
    /// Appends the weights of a convolution and returns where they will be.
    pub(super) fn add(&mut self, plan: &mut Plan, w: Slot, e: Extents, transposed: bool) -> Slot {
        let packed = plan.temporary(e.o * e.taps());
        self.0.push(Packing { w, packed, e, transposed });
        packed
    }

    pub(super) fn push(self, plan: &mut Plan) {
        let touches: Vec<Slot> = self.0.iter().flat_map(|p| [p.w, p.packed]).collect();
        if !self.0.is_empty() {
            plan.push(self, &touches);
        }
    }
}

impl Kernel for Pack {
    fn name(&self) -> &'static str {
        "weights packed"
    }
    fn tasks(&self) -> usize {
        self.0.len()
    }
    fn run(&self, task: usize, memory: &Memory, _: &mut [f32]) {
        let Packing { w, packed, e, transposed } = self.0[task];
        let window = e.kh * e.kw;
        let w = memory.read(w);
        let mut out = memory.write(packed, 0..e.o * e.taps()).iter_mut();
        let (channels, depth) = if transposed { (e.c, e.o) } else { (e.o, e.c) };
        for tile in tiles(channels) {
            for d in 0..depth {
                for tap in 0..window {
                    for channel in tile.clone() {
                        let (o, c) = if transposed { (d, channel) } else { (channel, d) };
                        *out.next().expect("as many as weights") = w[(o * e.c + c) * window + tap];
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Tap {
    /// Place in a plane of x, from the tile's.
    x: u32,
    /// Row of packed weights of a plane.
    w: u32,
}

/// A run of [`Tap`]s.
type Taps = (u32, u32);

/// Pixels that are computed together.
#[derive(Clone, Copy)]
struct Tile {
    x: u32,
    y: u32,
    pixels: u8,
    /// Taps that fall on the image for all pixels.
    common: Taps,
    /// Whether these are all taps, in the order of the weights.
    whole: bool,
    /// And those for one pixel only.
    extra: [Taps; PIXELS],
}

/// y = Σ taps (+ bias), then an activation.
pub(super) struct Products {
    name: &'static str,
    pub(super) x: Id,
    pub(super) y: Id,
    w: Slot,
    bias: Option<Slot>,
    activation: Option<Activation>,
    channels: Vec<std::ops::Range<usize>>,
    window: usize,
    x_plane: usize,
    y_plane: usize,
    y_step: usize,
    /// Pixels of a row of y.
    width: usize,
    taps: Vec<Tap>,
    rows: Vec<Vec<Tile>>,
}

/// Splits `n` pixels into tiles: all of the largest size for these lanes, then halves.
pub(super) fn split(n: usize, lanes: usize) -> Vec<std::ops::Range<usize>> {
    let largest = match lanes {
        16 => PIXELS,
        1 => 1,
        _ => 2,
    };
    let mut out = Vec::new();
    let mut at = 0;
    while at < n {
        let mut size = largest;
        while size > n - at {
            size /= 2;
        }
        out.push(at..at + size);
        at += size;
    }
    out
}

impl Products {
    /// x is padded already.
    pub(super) fn forward(
        e: Extents,
        lanes: usize,
        (x, y): (Id, Id),
        (w, bias): (Slot, Slot),
        activation: Option<Activation>,
    ) -> Self {
        let (ph, pw) = (e.h + 2 * e.padding, e.w + 2 * e.padding);
        let taps: Vec<Tap> =
            (0..e.kh * e.kw).map(|tap| Tap { x: (tap / e.kw * pw + tap % e.kw) as u32, w: tap as u32 }).collect();
        let row = |oy: usize| {
            let tile = |pixels: std::ops::Range<usize>| Tile {
                x: ((oy * pw + pixels.start) * e.stride) as u32,
                y: (oy * e.ow + pixels.start) as u32,
                pixels: pixels.len() as u8,
                common: (0, taps.len() as u32),
                whole: true,
                extra: [(0, 0); PIXELS],
            };
            // Only neighbours in x make a tile.
            split(e.ow, if e.stride == 1 { lanes } else { 1 }).into_iter().map(tile).collect()
        };
        let rows = (0..e.oh).map(row).collect();
        Self {
            name: "convolution",
            x,
            y,
            w,
            bias: Some(bias),
            activation,
            channels: tiles(e.o),
            window: e.kh * e.kw,
            x_plane: ph * pw,
            y_plane: e.oh * e.ow,
            y_step: 1,
            width: e.ow,
            rows,
            taps,
        }
    }

    /// y is dx, x is dy. Pixels a stride apart see the same taps, so they make the tiles.
    pub(super) fn input_grad(e: Extents, lanes: usize, (dy, dx): (Id, Id), w: Slot) -> Self {
        // The output row (or column) whose window holds pixel `i` at kernel row `k`.
        let reached = |i: usize, k: usize, extent: usize| {
            let at = (i + e.padding).checked_sub(k)?;
            (at % e.stride == 0 && at / e.stride < extent).then_some(at / e.stride)
        };
        let mut taps: Vec<Tap> = Vec::new();
        let mut runs: std::collections::HashMap<Vec<(u32, u32)>, Taps> = std::collections::HashMap::new();
        let mut run = |list: Vec<(u32, u32)>| {
            *runs.entry(list).or_insert_with_key(|list| {
                let first = taps.len() as u32;
                taps.extend(list.iter().map(|&(x, w)| Tap { x, w }));
                (first, taps.len() as u32)
            })
        };
        let mut rows = Vec::new();
        for iy in 0..e.h {
            let mut row = Vec::new();
            for rest in 0..e.stride.min(e.w) {
                for tile in split((e.w - rest).div_ceil(e.stride), lanes) {
                    let column = |i: usize| rest + (tile.start + i) * e.stride;
                    // Where the window's first tap of the first pixel would be; the list is relative to it.
                    let base = ((iy + e.padding) / e.stride * e.ow + (column(0) + e.padding) / e.stride) as u32;
                    let (mut common, mut extra) = (Vec::new(), [const { Vec::new() }; PIXELS]);
                    for ky in 0..e.kh {
                        let Some(oy) = reached(iy, ky, e.oh) else { continue };
                        for kx in 0..e.kw {
                            let found: Vec<(usize, usize)> =
                                (0..tile.len()).filter_map(|i| Some((i, reached(column(i), kx, e.ow)?))).collect();
                            let weights = (ky * e.kw + kx) as u32;
                            let entry = |i: usize, ox: usize| {
                                (((oy * e.ow + ox) as u32).wrapping_sub(i as u32).wrapping_sub(base), weights)
                            };
                            if found.len() == tile.len() {
                                common.push(entry(found[0].0, found[0].1));
                            } else {
                                found.iter().for_each(|&(i, ox)| extra[i].push(entry(i, ox)));
                            }
                        }
                    }
                    row.push(Tile {
                        x: base,
                        y: (iy * e.w + column(0)) as u32,
                        pixels: tile.len() as u8,
                        whole: common.len() == e.kh * e.kw,
                        common: run(common),
                        extra: extra.map(&mut run),
                    });
                }
            }
            rows.push(row);
        }
        Self {
            name: "convolution input gradient",
            x: dy,
            y: dx,
            w,
            bias: None,
            activation: None,
            channels: tiles(e.c),
            window: e.kh * e.kw,
            x_plane: e.oh * e.ow,
            y_plane: e.h * e.w,
            y_step: e.stride,
            width: e.w,
            rows,
            taps,
        }
    }
}

/// A run of taps, over all planes, into the accumulators of `P` neighbouring pixels.
#[inline(always)]
fn accumulate<S: Simd, const M: usize, const P: usize>(
    simd: S,
    p: &Products,
    (taps, at): (&[Tap], u32),
    (x, w): (&[S::f32s], &[[f32; M]]),
    acc: &mut [[S::f32s; P]; M],
) {
    for (x, w) in x.chunks_exact(p.x_plane).zip(w.chunks_exact(p.window)) {
        for tap in taps {
            let b = x[at.wrapping_add(tap.x) as usize..].first_chunk().expect("the pixels are in the plane");
            products(simd, &w[tap.w as usize], b, acc);
        }
    }
}

/// The same for all taps, in the order of the weights.
#[inline(always)]
fn accumulate_whole<S: Simd, const M: usize, const P: usize>(
    simd: S,
    p: &Products,
    (taps, at): (&[Tap], u32),
    (x, w): (&[S::f32s], &[[f32; M]]),
    acc: &mut [[S::f32s; P]; M],
) {
    for (x, w) in x.chunks_exact(p.x_plane).zip(w.chunks_exact(p.window)) {
        for (tap, w) in taps.iter().zip(w) {
            let b = x[at.wrapping_add(tap.x) as usize..].first_chunk().expect("the pixels are in the plane");
            products(simd, w, b, acc);
        }
    }
}

/// acc[m][i] += w[m]·b[i].
#[inline(always)]
fn products<S: Simd, const M: usize, const P: usize>(
    simd: S,
    w: &[f32; M],
    b: &[S::f32s; P],
    acc: &mut [[S::f32s; P]; M],
) {
    let b = *b;
    for m in 0..M {
        let a = simd.splat_f32s(w[m]);
        for i in 0..P {
            acc[m][i] = fma(simd, a, b[i], acc[m][i]);
        }
    }
}

#[inline(always)]
fn tile<S: Simd, const M: usize, const P: usize>(
    simd: S,
    p: &Products,
    t: &Tile,
    x: &[S::f32s],
    w: &[[f32; M]],
    bias: &[f32; M],
    y: &mut [S::f32s],
) {
    let run = |(first, end): Taps| &p.taps[first as usize..end as usize];
    let mut acc = [[simd.splat_f32s(0.0); P]; M];
    for m in 0..M {
        acc[m] = [simd.splat_f32s(bias[m]); P];
    }
    if t.whole {
        accumulate_whole(simd, p, (run(t.common), t.x), (x, w), &mut acc);
    } else {
        accumulate(simd, p, (run(t.common), t.x), (x, w), &mut acc);
    }
    // Loops over many registers are not unrolled, and an array addressed by a variable does not stay in registers while it
    // is summed up: store a copy.
    let acc = if M * P > 12 { std::hint::black_box(acc) } else { acc };
    for m in 0..M {
        for i in 0..P {
            y[m * p.y_plane + t.y as usize + i * p.y_step] = acc[m][i];
        }
    }
    // In y, for the same reason.
    for i in 0..if P > 1 { P } else { 0 } {
        if t.extra[i].0 == t.extra[i].1 {
            continue;
        }
        let at = t.y as usize + i * p.y_step;
        let mut single = [[simd.splat_f32s(0.0); 1]; M];
        for m in 0..M {
            single[m][0] = y[m * p.y_plane + at];
        }
        accumulate(simd, p, (run(t.extra[i]), t.x + i as u32), (x, w), &mut single);
        for m in 0..M {
            y[m * p.y_plane + at] = single[m][0];
        }
    }
}

struct Body<'a> {
    p: &'a Products,
    x: &'a [f32],
    w: &'a [f32],
    bias: &'a [f32],
    y: &'a mut [f32],
}

impl Body<'_> {
    #[inline(always)]
    fn row<S: Simd, const M: usize>(
        &self,
        simd: S,
        row: &[Tile],
        channels: &std::ops::Range<usize>,
        x: &[S::f32s],
        y: &mut [S::f32s],
    ) {
        let p = self.p;
        let rows = self.w.len() / p.channels.last().map_or(1, |last| last.end);
        let w = self.w[channels.start * rows..channels.end * rows].as_chunks::<M>().0;
        let mut bias = [0.0; M];
        if p.bias.is_some() {
            bias.copy_from_slice(&self.bias[channels.clone()]);
        }
        let y = &mut y[channels.start * p.y_plane..channels.end * p.y_plane];
        for t in row {
            match t.pixels {
                1 => tile::<S, M, 1>(simd, p, t, x, w, &bias, y),
                2 => tile::<S, M, 2>(simd, p, t, x, w, &bias, y),
                _ if S::F32_LANES == 16 => tile::<S, M, PIXELS>(simd, p, t, x, w, &bias, y),
                _ => unreachable!("tiles are made for the lanes"),
            }
        }
    }
}

impl WithSimd for Body<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let x = S::as_simd_f32s(self.x).0;
        let y = S::as_mut_simd_f32s(std::mem::take(&mut self.y)).0;
        let p = self.p;
        for (number, row) in p.rows.iter().enumerate() {
            for channels in &p.channels {
                match channels.len() {
                    1 => self.row::<S, 1>(simd, row, channels, x, y),
                    2 => self.row::<S, 2>(simd, row, channels, x, y),
                    3 => self.row::<S, 3>(simd, row, channels, x, y),
                    4 => self.row::<S, 4>(simd, row, channels, x, y),
                    5 => self.row::<S, 5>(simd, row, channels, x, y),
                    _ => self.row::<S, CHANNELS>(simd, row, channels, x, y),
                }
            }
            if let Some(kind) = p.activation {
                for plane in y.chunks_exact_mut(p.y_plane) {
                    activate(simd, kind, &mut plane[number * p.width..][..p.width]);
                }
            }
        }
    }
}

impl Step for Products {
    fn name(&self) -> &'static str {
        self.name
    }
    fn run(&self, room: &mut Room) {
        let w = room.memory.read(self.w);
        let bias = self.bias.map_or(&[][..], |bias| room.memory.read(bias));
        let level = room.level;
        let [x, y] = room.values([self.x, self.y]);
        Room::vectorize(level, Body { p: self, x, w, bias, y });
    }
}
