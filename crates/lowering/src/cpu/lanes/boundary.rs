//! Between rows of images, as states and matrix products have them, and blocks with an image in each lane.

use super::{
    super::memory::Slot,
    chain::{Id, Room, Step},
};

/// Extents of padded planes.
#[derive(Clone, Copy)]
pub(super) struct Padding {
    pub(super) channels: usize,
    pub(super) h: usize,
    pub(super) w: usize,
    /// Zeros on each side.
    pub(super) zeros: usize,
}

impl Padding {
    /// Calls `visit(first feature of a row of x, first feature of it in y)`.
    #[inline(always)]
    fn rows(&self, mut visit: impl FnMut(usize, usize)) {
        let (ph, pw) = (self.h + 2 * self.zeros, self.w + 2 * self.zeros);
        for c in 0..self.channels {
            for y in 0..self.h {
                visit((c * self.h + y) * self.w, (c * ph + y + self.zeros) * pw + self.zeros);
            }
        }
    }
    /// Features with the zeros.
    pub(super) fn padded(&self) -> usize {
        self.channels * (self.h + 2 * self.zeros) * (self.w + 2 * self.zeros)
    }
}

/// rows [N, F] of a state → [F][lanes], with zeros round the planes and zero images after the last.
pub(super) struct Enter {
    pub(super) x: Slot,
    pub(super) y: Id,
    pub(super) images: usize,
    pub(super) lanes: usize,
    pub(super) padding: Padding,
}

/// y[f][lane] = x[lane][f]; lanes without an image stay as they are.
#[inline(always)]
fn transpose<const L: usize>(x: &[f32], stride: usize, images: usize, y: &mut [f32]) {
    let y = y.as_chunks_mut::<L>().0;
    if images == L {
        let n = y.len();
        let rows: [&[f32]; L] = std::array::from_fn(|lane| &x[lane * stride..][..n]);
        for (f, out) in y.iter_mut().enumerate() {
            *out = std::array::from_fn(|lane| rows[lane][f]);
        }
        return;
    }
    for lane in 0..images {
        let row = &x[lane * stride..][..y.len()];
        y.iter_mut().zip(row).for_each(|(out, &value)| out[lane] = value);
    }
}

impl Step for Enter {
    fn name(&self) -> &'static str {
        "images into lanes"
    }
    fn run(&self, room: &mut Room) {
        let p = &self.padding;
        let features = p.channels * p.h * p.w;
        let first = room.block * self.lanes;
        let images = self.lanes.min(self.images - first);
        let x = &room.memory.read(self.x)[first * features..(first + images) * features];
        let [y] = room.values([self.y]);
        if p.zeros > 0 || images < self.lanes {
            y.fill(0.0);
        }
        p.rows(|from, to| {
            let (x, y) = (&x[from..], &mut y[to * self.lanes..(to + p.w) * self.lanes]);
            match self.lanes {
                4 => transpose::<4>(x, features, images, y),
                8 => transpose::<8>(x, features, images, y),
                _ => transpose::<16>(x, features, images, y),
            }
        });
    }
}

/// Zeros round the planes of a value.
pub(super) struct Pad {
    pub(super) x: Id,
    pub(super) y: Id,
    pub(super) lanes: usize,
    pub(super) padding: Padding,
}

impl Step for Pad {
    fn name(&self) -> &'static str {
        "padding"
    }
    fn run(&self, room: &mut Room) {
        let lanes = self.lanes;
        let [x, y] = room.values([self.x, self.y]);
        y.fill(0.0);
        let row = self.padding.w * lanes;
        self.padding.rows(|from, to| y[to * lanes..][..row].copy_from_slice(&x[from * lanes..][..row]));
    }
}

/// [F][lanes] → rows of F values, `stride` apart; zero images leave nothing.
pub(super) struct Leave {
    pub(super) x: Id,
    pub(super) y: Slot,
    pub(super) images: usize,
    pub(super) lanes: usize,
    pub(super) features: usize,
    pub(super) stride: usize,
}

impl Step for Leave {
    fn name(&self) -> &'static str {
        "lanes into rows"
    }
    fn run(&self, room: &mut Room) {
        let first = room.block * self.lanes;
        let images = self.lanes.min(self.images - first);
        let y = room.memory.write(self.y, first * self.stride..(first + images) * self.stride);
        let [x] = room.values([self.x]);
        for (lane, row) in y.chunks_exact_mut(self.stride).enumerate() {
            let lanes = x[lane..].iter().step_by(self.lanes);
            row[..self.features].iter_mut().zip(lanes).for_each(|(out, &value)| *out = value);
        }
    }
}
