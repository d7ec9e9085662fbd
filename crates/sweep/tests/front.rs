//! The Parzen estimator with two objectives, on standard test functions (Zitzler, Deb and Thiele 2000, "Comparison of multiobjective
//! evolutionary algorithms", section 4), against random search: by the area that their fronts enclose.

use std::f64::consts::PI;

use sweep::front::{fronts, ranked};
use sweep::tpe::{Dimension, Known, Point, propose};

type Function = fn(&[f64]) -> Vec<f64>;

const DIMENSIONS: usize = 5;
const TRIALS: usize = 120;
const STARTUP: usize = 10;
const SEEDS: u64 = 10;
/// What is worse than this in either objective encloses nothing.
const REFERENCE: [f64; 2] = [1.1, 4.0];

/// Everything behind the first objective is one and the same sum.
fn rest(x: &[f64]) -> f64 {
    1.0 + 9.0 * x[1..].iter().sum::<f64>() / (x.len() - 1) as f64
}

fn zdt1(x: &[f64]) -> Vec<f64> {
    let g = rest(x);
    vec![x[0], g * (1.0 - (x[0] / g).sqrt())]
}

fn zdt2(x: &[f64]) -> Vec<f64> {
    let g = rest(x);
    vec![x[0], g * (1.0 - (x[0] / g).powi(2))]
}

fn zdt3(x: &[f64]) -> Vec<f64> {
    let g = rest(x);
    vec![x[0], g * (1.0 - (x[0] / g).sqrt() - x[0] / g * (10.0 * PI * x[0]).sin())]
}

/// Area between the front and the reference.
fn enclosed(points: &[Vec<f64>]) -> f64 {
    let mut front: Vec<&Vec<f64>> = fronts(points)[0].iter().map(|index| &points[*index]).collect();
    front.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let (mut area, mut above) = (0.0, REFERENCE[1]);
    for point in front.into_iter().filter(|point| point[0] < REFERENCE[0] && point[1] < REFERENCE[1]) {
        area += (REFERENCE[0] - point[0]) * (above - point[1]);
        above = point[1];
    }
    area
}

/// What a search encloses; results count from the `startup`th configuration on.
fn search(function: Function, seed: u64, startup: usize) -> f64 {
    let space = [Dimension::Number { low: 0.0, high: 1.0, log: false, whole: false }; DIMENSIONS];
    let mut tried: Vec<Point> = Vec::new();
    let mut values: Vec<Vec<f64>> = Vec::new();
    for number in 0..TRIALS {
        let order = if number < startup { Vec::new() } else { ranked(&values) };
        let known: Vec<Point> = order.into_iter().map(|index| tried[index].clone()).collect();
        let point = propose(&space, &|_| {}, Known { ranked: &known, pending: &[] }, seed, number as u64).unwrap();
        values.push(function(&point));
        tried.push(point);
    }
    enclosed(&values)
}

#[test]
fn fronts_of_two_objectives_enclose_more_than_random_search_finds() {
    let functions: [(&str, Function); 3] = [("zdt1", zdt1), ("zdt2", zdt2), ("zdt3", zdt3)];
    for (name, function) in functions {
        let mut both: Vec<(f64, f64)> =
            (0..SEEDS).map(|seed| (search(function, seed, STARTUP), search(function, seed, TRIALS))).collect();
        println!("{name}: {both:.2?}");
        let won = both.iter().filter(|(ours, random)| ours > random).count();
        assert!(won >= SEEDS as usize - 1, "{name}: {won} of {SEEDS} enclose more: {both:.2?}");
        both.sort_by(|a, b| a.0.total_cmp(&b.0));
        let worst = both[0].0;
        let mean = both.iter().map(|(_, random)| random).sum::<f64>() / SEEDS as f64;
        assert!(worst > mean, "{name}: the worst search encloses {worst:.2}, random search on average {mean:.2}");
    }
}
