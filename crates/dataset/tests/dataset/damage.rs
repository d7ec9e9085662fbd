//! Files as failing disks, broken transfers and careless tools leave them.

use dataset::rng::Counter;

/// A copy with some bytes changed, or pieces of at most `longest` bytes cut out, repeated or replaced by others, or the end missing.
pub fn damaged(file: &[u8], longest: u32, random: &mut Counter) -> Vec<u8> {
    let mut damaged = file.to_vec();
    for _ in 0..=random.below(4) {
        let length = damaged.len() as u32;
        let at = random.below(length) as usize;
        let piece = at..(at + 1 + random.below(longest) as usize).min(damaged.len());
        let place = random.below(length) as usize;
        match random.below(6) {
            0 => damaged[at] = random.bits() as u8,
            1 => damaged[at] ^= 1 << random.below(8),
            2 if piece.len() < damaged.len() => drop(damaged.drain(piece)),
            3 => {
                let copy = damaged[piece].to_vec();
                drop(damaged.splice(place..place, copy));
            }
            4 => {
                let place = place.min(damaged.len() - piece.len());
                damaged.copy_within(piece, place);
            }
            _ => damaged.truncate(at.max(1)),
        }
    }
    damaged
}
