//! Where values live, whatever the device: one arena whose layout is decided at compile time, and the states.

use std::ops::Range;

use graph::State;

/// A value's place, fixed at compile time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot(pub(crate) usize);

/// What a slot stands for.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// Values that live within a step: elements, first and last step that touches them.
    Arena { elements: usize, first: usize, last: usize },
    /// A state's own buffer.
    State(State),
}

/// Arena offsets are multiples of this, in f32: a cache line.
const ALIGNMENT: usize = 16;

/// Offsets of the arena places (0 for states) and the arena's length, both in f32.
///
/// Largest first, each at the lowest offset where it overlaps nothing that lives at the same time: for networks, whose
/// sizes fall steeply, within a few percent of the most that is alive at once.
pub(crate) fn layout(places: &[Place]) -> (Vec<usize>, usize) {
    let mut offsets = vec![0; places.len()];
    let arena = |i: usize| match places[i] {
        Place::Arena { elements, first, last } => Some((elements.next_multiple_of(ALIGNMENT), first, last)),
        Place::State(_) => None,
    };
    let mut order: Vec<usize> = (0..places.len()).filter(|&i| arena(i).is_some()).collect();
    order.sort_by_key(|&i| arena(i).map(|(elements, first, _)| (std::cmp::Reverse(elements), first, i)));
    let mut placed: Vec<(Range<usize>, usize, usize)> = Vec::new();
    let mut length = 0;
    for i in order {
        let Some((elements, first, last)) = arena(i) else { continue };
        let mut neighbours: Vec<&Range<usize>> =
            placed.iter().filter(|(_, f, l)| *f <= last && first <= *l).map(|(range, ..)| range).collect();
        neighbours.sort_by_key(|range| range.start);
        let mut offset = 0;
        for range in neighbours {
            if offset + elements <= range.start {
                break;
            }
            offset = offset.max(range.end);
        }
        offsets[i] = offset;
        placed.push((offset..offset + elements, first, last));
        length = length.max(offset + elements);
    }
    (offsets, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lives_at_the_same_time_does_not_overlap() {
        let mut seed = 1_u64;
        let mut next = |n: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % n
        };
        for _ in 0..50 {
            let places: Vec<Place> = (0..40)
                .map(|_| {
                    let first = next(30);
                    Place::Arena { elements: 1 + next(500), first, last: first + next(8) }
                })
                .collect();
            let (offsets, length) = layout(&places);
            let spans: Vec<(Range<usize>, usize, usize)> = places
                .iter()
                .zip(&offsets)
                .map(|(place, &offset)| match *place {
                    Place::Arena { elements, first, last } => (offset..offset + elements, first, last),
                    Place::State(_) => unreachable!("none was made"),
                })
                .collect();
            for (i, (a, first, last)) in spans.iter().enumerate() {
                assert!(a.end <= length && a.start % ALIGNMENT == 0);
                for (b, f, l) in &spans[..i] {
                    assert!(last < f || l < first || a.end <= b.start || b.end <= a.start, "{a:?} and {b:?}");
                }
            }
        }
    }

    #[test]
    fn memory_is_used_again() {
        let place = |first, last| Place::Arena { elements: 100, first, last };
        assert_eq!(layout(&[place(0, 1), place(2, 3), place(4, 5)]).1, 112);
    }
}
