//! Several objectives at once: which points are at the front, and in which order the others come behind it. Values are to be low.

use std::cmp::Ordering;

/// Whether `a` is nowhere worse than `b` and somewhere better.
pub fn dominates(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| a <= b) && a.iter().zip(b).any(|(a, b)| a < b)
}

/// Indices of points, the best first: by fronts (Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II",
/// section III.A), and within a front by the volume that each adds to those before it. The first ones are what a search by several
/// objectives takes for good (Ozaki et al. 2020, "Multiobjective tree-structured Parzen estimator", section 4.1).
pub fn ranked(points: &[Vec<f64>]) -> Vec<usize> {
    if points.iter().all(|point| point.len() == 1) {
        let mut ranked: Vec<usize> = (0..points.len()).collect();
        ranked.sort_by(|a, b| points[*a][0].total_cmp(&points[*b][0]));
        return ranked;
    }
    let mut ranked = Vec::with_capacity(points.len());
    for front in fronts(points) {
        ranked.extend(by_volume(points, front));
    }
    ranked
}

/// Indices of points, front by front: of no point is another one of its front better in all.
pub fn fronts(points: &[Vec<f64>]) -> Vec<Vec<usize>> {
    // In this order none is better than one before it, so each point goes to the first front that has none better (Zhang et al. 2015,
    // "An efficient approach to nondominated sorting", section III).
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|a, b| {
        let first_other = points[*a].iter().zip(&points[*b]).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
        first_other.unwrap_or(Ordering::Equal)
    });
    let mut fronts: Vec<Vec<usize>> = Vec::new();
    for index in order {
        let is_behind =
            |front: &&mut Vec<usize>| front.iter().rev().any(|other| dominates(&points[*other], &points[index]));
        match fronts.iter_mut().find(|front| !is_behind(front)) {
            Some(front) => front.push(index),
            None => fronts.push(vec![index]),
        }
    }
    for front in &mut fronts {
        front.sort_unstable();
    }
    fronts
}

/// Points of a front that are put in order one by one; the order of the others says little and costs as much.
const ORDERED: usize = 32;

/// The points of a front, each the one that adds most to the volume which those before it dominate.
fn by_volume(points: &[Vec<f64>], mut front: Vec<usize>) -> Vec<usize> {
    let reference: Vec<f64> = (0..points[front[0]].len())
        .map(|objective| {
            let values = points.iter().map(|point| point[objective]).filter(|value| value.is_finite());
            let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
            // The ends are to count for something too.
            if high > low { high + 0.1 * (high - low) } else { high + 1.0 }
        })
        .collect();
    let mut chosen: Vec<Vec<f64>> = Vec::new();
    let mut ordered = Vec::with_capacity(front.len());
    while !front.is_empty() && ordered.len() < ORDERED {
        let gains: Vec<f64> = front.iter().map(|index| gain(&points[*index], &chosen, &reference)).collect();
        // The first of equals.
        let best = (0..front.len()).rev().max_by(|a, b| gains[*a].total_cmp(&gains[*b])).unwrap_or(0);
        let index = front.remove(best);
        chosen.push(points[index].clone());
        ordered.push(index);
    }
    ordered.extend(front);
    ordered
}

/// Volume between a point and the reference that none of the others dominates (While, Bradstreet and Barone 2012, "A fast way of
/// calculating exact hypervolumes", section III).
fn gain(point: &[f64], others: &[Vec<f64>], reference: &[f64]) -> f64 {
    let whole: f64 = point.iter().zip(reference).map(|(value, end)| (end - value).max(0.0)).product();
    if !whole.is_finite() || whole == 0.0 {
        return 0.0;
    }
    // The part of each other's volume that lies within this one's.
    let limited: Vec<Vec<f64>> =
        others.iter().map(|other| other.iter().zip(point).map(|(a, b)| a.max(*b)).collect()).collect();
    whole - volume(&limited, reference)
}

/// Volume that points dominate up to the reference.
pub fn volume(points: &[Vec<f64>], reference: &[f64]) -> f64 {
    let is_ahead = |a: usize, b: usize| dominates(&points[a], &points[b]) || (a < b && points[a] == points[b]);
    let front: Vec<Vec<f64>> = (0..points.len())
        .filter(|index| !(0..points.len()).any(|other| is_ahead(other, *index)))
        .map(|index| points[index].clone())
        .collect();
    (0..front.len()).map(|index| gain(&front[index], &front[index + 1..], reference)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fronts_lie_behind_each_other() {
        let points = [[1.0, 5.0], [2.0, 2.0], [5.0, 1.0], [3.0, 3.0], [2.0, 2.0], [6.0, 6.0]].map(Vec::from);
        assert_eq!(fronts(&points), [vec![0, 1, 2, 4], vec![3], vec![5]]);
        assert!(!dominates(&points[1], &points[4]), "equal points do not");
        assert_eq!(ranked(&[]), Vec::<usize>::new());
    }

    #[test]
    fn the_first_points_of_a_front_are_spread_over_it() {
        let points: Vec<Vec<f64>> = [0.0, 0.3, 0.31, 0.32, 0.7, 1.0].iter().map(|x| vec![*x, 1.0 - x]).collect();
        let order = ranked(&points);
        assert!([1, 2, 3].contains(&order[0]) && order[1] == 4, "the near ones come late: {order:?}");
        // One objective alone: its order.
        let points: Vec<Vec<f64>> = [0.3, 0.1, 0.2].iter().map(|x| vec![*x]).collect();
        assert_eq!(ranked(&points), [1, 2, 0]);
    }

    #[test]
    fn volumes_are_those_of_unions_of_boxes() {
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
        let flat = [[0.0, 0.5], [0.5, 0.0], [0.6, 0.6], [0.5, 0.0]].map(Vec::from);
        near(volume(&flat, &[1.0, 1.0]), 0.75);
        // Three slabs of a cube: by inclusion and exclusion 3 · ½ − 3 · ¼ + ⅛.
        let cube = [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.5]].map(Vec::from);
        near(volume(&cube, &[1.0; 3]), 0.875);
        near(gain(&[0.25, 0.25], &flat, &[1.0, 1.0]), 0.0625);
        near(gain(&[1.5, 0.0], &[], &[1.0, 1.0]), 0.0);
    }

    #[test]
    fn what_is_no_number_comes_last() {
        let points = [[f64::INFINITY, 1.0], [1.0, 2.0], [0.5, 3.0], [f64::INFINITY, f64::INFINITY]].map(Vec::from);
        assert_eq!(ranked(&points).last(), Some(&3));
    }
}
