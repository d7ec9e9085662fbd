//! The Parzen estimator with two objectives, on standard test functions (Zitzler, Deb and Thiele 2000, "Comparison of multiobjective
//! evolutionary algorithms", section 4; Fonseca and Fleming 1995, "An overview of evolutionary algorithms in multiobjective
//! optimization", section 3), by the area that their fronts enclose: beside random search, and beside Optuna's, which
//! `golden/optuna_front.py` writes to `golden/optuna_front.csv`.

use std::f64::consts::PI;

use sweep::front::{fronts, ranked};
use sweep::tpe::{Coordinates, Dimension, Known, Point, propose};

type Function = fn(&[f64]) -> Vec<f64>;

const DIMENSIONS: usize = 5;
/// Trials after which fronts are compared.
const AFTER: [usize; 2] = [100, 200];
const STARTUP: usize = 10;
const SEEDS: u64 = 20;
/// Seeds of Optuna's searches.
const THEIR_SEEDS: usize = 10;
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

/// Both objectives depend on how the coordinates go together; from [0, 1] to [-2, 2].
fn fonseca(x: &[f64]) -> Vec<f64> {
    let shift = 1.0 / (x.len() as f64).sqrt();
    let one = |sign: f64| 1.0 - (-x.iter().map(|at| (4.0 * at - 2.0 + sign * shift).powi(2)).sum::<f64>()).exp();
    vec![one(-1.0), 3.6 * one(1.0)]
}

const FUNCTIONS: [(&str, Function); 4] = [("zdt1", zdt1), ("zdt2", zdt2), ("zdt3", zdt3), ("fonseca", fonseca)];

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

/// What a search encloses after numbers of trials; results count from the `startup`th configuration on.
fn search(function: Function, seed: u64, startup: usize) -> [f64; 2] {
    let space = [Dimension::Number { low: 0.0, high: 1.0, log: false, whole: false }; DIMENSIONS];
    let mut tried: Vec<Point> = Vec::new();
    let mut values: Vec<Vec<f64>> = Vec::new();
    for number in 0..AFTER[1] {
        let order = if number < startup { Vec::new() } else { ranked(&values) };
        let ranked: Vec<Point> = order.into_iter().map(|index| tried[index].clone()).collect();
        let known = Known { ranked: &ranked, pending: &[] };
        let point = propose(&space, &|_| {}, Coordinates::InTurns, known, seed, number as u64).unwrap();
        values.push(function(&point));
        tried.push(point);
    }
    AFTER.map(|trials| enclosed(&values[..trials]))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    0.5 * (values[(values.len() - 1) / 2] + values[values.len() / 2])
}

/// Medians over the seeds of the better of Optuna's samplers.
fn optuna(name: &str) -> [f64; 2] {
    let rows: Vec<Vec<&str>> =
        include_str!("golden/optuna_front.csv").lines().map(|line| line.split(',').collect()).collect();
    let of = |sampler: &str, column: usize| {
        let chosen = rows.iter().filter(|row| row[0] == name && row[1] == sampler);
        let values: Vec<f64> = chosen.map(|row| row[column].parse().unwrap()).collect();
        assert_eq!(values.len(), THEIR_SEEDS, "{name} {sampler}");
        median(values)
    };
    [3, 4].map(|column| of("default", column).max(of("multivariate", column)))
}

#[test]
fn fronts_of_two_objectives_enclose_as_much_as_optunas_and_more_than_random_search_finds() {
    let mut table = "function      trials   ours  optuna  random\n".to_owned();
    let mut behind = Vec::new();
    for (name, function) in FUNCTIONS {
        let search = |seed| (search(function, seed, STARTUP), search(function, seed, AFTER[1]));
        let both: Vec<([f64; 2], [f64; 2])> = std::thread::scope(|scope| {
            let searches: Vec<_> = (0..SEEDS).map(|seed| scope.spawn(move || search(seed))).collect();
            searches.into_iter().map(|search| search.join().unwrap()).collect()
        });
        let optuna = optuna(name);
        for (place, trials) in AFTER.into_iter().enumerate() {
            let ours = median(both.iter().map(|(ours, _)| ours[place]).collect());
            let random = median(both.iter().map(|(_, random)| random[place]).collect());
            let theirs = optuna[place];
            table += &format!("{name:12} {trials:7} {ours:6.3} {theirs:7.3} {random:7.3}\n");
            if ours < 0.9 * theirs {
                behind.push((name, trials));
            }
        }
        let won = both.iter().filter(|(ours, random)| ours[1] > random[1]).count();
        assert!(won >= SEEDS as usize - 1, "{name}: {won} of {SEEDS} enclose more than random search: {both:.2?}");
    }
    println!("{table}");
    assert!(behind.is_empty(), "{behind:?} enclose less, in the median over seeds:\n{table}");
}
