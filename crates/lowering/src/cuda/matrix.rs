//! Products of matrices: which tiles, and into how many parts K is split. Both depend on shapes alone, so that every device adds in the
//! same order.

use super::source::{Call, Epilogue, Plan, THREADS, View};

/// A tile of C, what each thread holds of it, and how near such tiles come to the largest ones per multiply-add.
struct Tile {
    m: usize,
    n: usize,
    k: usize,
    patch: (usize, usize),
    worth: f64,
}

/// Larger patches need fewer reads of shared memory per multiply-add: two values for every 2·TM·TN / (TM + TN) of them.
const TILES: [Tile; 5] = [
    Tile { m: 128, n: 128, k: 8, patch: (8, 8), worth: 1.0 },
    Tile { m: 64, n: 128, k: 8, patch: (8, 4), worth: 0.85 },
    Tile { m: 64, n: 64, k: 16, patch: (4, 4), worth: 0.7 },
    Tile { m: 32, n: 128, k: 16, patch: (4, 4), worth: 0.7 },
    Tile { m: 16, n: 128, k: 16, patch: (2, 4), worth: 0.5 },
];

/// Blocks that a large device runs at once: two for each of an H100's 132 multiprocessors.
const SLOTS: usize = 264;
/// Tiles of K that a part has at least.
const LEAST_PART: usize = 8;
/// Parts of K at most.
const MOST_PARTS: usize = 64;
/// What a wave takes for a tile of K, where 1 is what the whole device takes to write one tile of C and read it again: 0.6 µs and 0.05 µs.
const TILE_COST: usize = 13;
/// What it takes to launch the kernel that adds the parts.
const COMBINE_COST: usize = 40;

/// Into how many parts K is split where C has so many blocks and K so many tiles: as many as end soonest, when blocks run in waves of
/// [`SLOTS`] and the last wave takes as long as a full one.
pub(crate) fn parts(blocks: usize, tiles: usize) -> usize {
    let most = (tiles / LEAST_PART).clamp(1, MOST_PARTS);
    let cost = |&parts: &usize| {
        let products = (blocks * parts).div_ceil(SLOTS) * tiles.div_ceil(parts) * TILE_COST;
        products + if parts > 1 { blocks * parts + COMBINE_COST } else { 0 }
    };
    let best = (1..=most).min_by_key(cost).expect("there is one part at least");
    // No part is empty.
    tiles.div_ceil(tiles.div_ceil(best))
}

/// A product as `kernels/matrix.cu` describes it.
pub(crate) struct Product {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) groups: usize,
}

impl Product {
    fn tile(&self) -> &'static Tile {
        let cost = |tile: &Tile| {
            let padded = self.m.next_multiple_of(tile.m) * self.n.next_multiple_of(tile.n);
            padded as f64 / tile.worth
        };
        TILES.iter().min_by(|a, b| cost(a).total_cmp(&cost(b))).expect("there are tiles")
    }

    fn parts(&self, tile: &Tile) -> usize {
        let blocks = self.m.div_ceil(tile.m) * self.n.div_ceil(tile.n) * self.groups;
        parts(blocks, self.k.div_ceil(tile.k))
    }

    /// Appends the kernels of the product. `problem(parts)` is the problem's type, `operands` are its fields in order, the last of them the
    /// output.
    pub(crate) fn launch(
        &self,
        plan: &mut Plan,
        what: &'static str,
        problem: impl Fn(usize) -> String,
        operands: &[View],
        epilogue: &Epilogue,
    ) {
        let tile = self.tile();
        let parts = self.parts(tile);
        let (output, inputs) = operands.split_last().expect("a product has an output");
        let problem = problem(parts);
        let elements = self.groups * self.m * self.n;
        let partial = (parts > 1).then(|| plan.temporary(parts * elements));
        let fields = |call: &mut Call, output: Option<View>| {
            let mut fields: Vec<String> = inputs.iter().map(|&view| call.reads(view)).collect();
            fields.push(output.map_or_else(|| "nullptr".to_owned(), |view| call.writes(view)));
            format!("{problem}{{{}}}", fields.join(", "))
        };
        let mut call = Call::new(what);
        call.multiplies(self.groups * self.m * self.n * self.k);
        let operands = fields(&mut call, partial.is_none().then_some(*output));
        let (room, last) = match partial {
            Some(partial) => (call.writes(partial), "Keep{}".to_owned()),
            None => ("nullptr".to_owned(), call.epilogue(epilogue)),
        };
        let Tile { m, n, k, patch: (tm, tn), .. } = tile;
        let grid = [self.n.div_ceil(*n), self.m.div_ceil(*m), self.groups * parts];
        plan.launch(call, grid, &format!("multiply<Tiles<{m}, {n}, {k}, {tm}, {tn}>>({operands}, {room}, {last})"));
        if let Some(partial) = partial {
            let mut call = Call::new(what);
            let operands = fields(&mut call, Some(*output));
            let room = call.reads(partial);
            let last = call.epilogue(epilogue);
            plan.launch(call, [elements.div_ceil(THREADS), 1, 1], &format!("combine({operands}, {room}, {last})"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_k_and_none_is_empty() {
        for k in 1..3000 {
            for m in [1, 6, 96, 400] {
                let product = Product { m, n: m * 3, k, groups: 1 };
                let tile = product.tile();
                let parts = product.parts(tile);
                let share = k.div_ceil(tile.k).div_ceil(parts) * tile.k;
                assert!((1..=MOST_PARTS).contains(&parts), "{parts}");
                assert!(share * parts >= k && share * (parts - 1) < k, "{k}: {parts} parts of {share}");
            }
        }
    }

    #[test]
    fn parts_fill_waves() {
        let waves = |blocks: usize, parts: usize| (blocks * parts).div_ceil(SLOTS) as f64 / parts as f64;
        // Weight gradients of AlexNet's convolutions, a batch of 128: (tiles of C, tiles of K).
        for (blocks, tiles) in [(4, 12_100), (38, 2916), (54, 676), (81, 676)] {
            let parts = parts(blocks, tiles);
            let (took, least) = (waves(blocks, parts), blocks as f64 / SLOTS as f64);
            assert!(took < 1.25 * least, "{blocks} blocks in {parts} parts take {took} waves, {least} would do");
        }
        assert_eq!(parts(256, 288), 1, "nearly a wave");
        assert_eq!(parts(4056, 72), 1, "many waves");
        assert_eq!(parts(2, 7), 1, "too little to be shared");
    }

    #[test]
    fn tiles_follow_the_shape() {
        let tile = |m, n| {
            let tile = Product { m, n, k: 100, groups: 1 }.tile();
            (tile.m, tile.n)
        };
        assert_eq!(tile(4096, 9216), (128, 128));
        assert_eq!(tile(6, 100_000), (16, 128));
        assert_eq!(tile(96, 387_200), (128, 128), "by the worths above, though a quarter of it is empty");
        assert_eq!(tile(64, 64), (64, 64));
    }
}
