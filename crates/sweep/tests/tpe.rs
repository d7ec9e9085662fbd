//! The Parzen estimator on standard test functions, beside Optuna's: `golden/optuna.csv`, which `golden/optuna.py` writes.

mod functions;

use functions::{branin, hartmann6, rosenbrock};
use sweep::tpe::{Coordinates, Dimension, Known, Point, propose};

/// Searches that are longer than this count as this long.
const BUDGET: usize = 300;
const STARTUP: usize = 10;
const SEEDS: u64 = 20;

struct Function {
    name: &'static str,
    space: Vec<Dimension>,
    optimum: f64,
    tolerance: f64,
    value: fn(&[f64]) -> f64,
}

fn number(low: f64, high: f64) -> Dimension {
    Dimension::Number { low, high, log: false, whole: false }
}

fn sphere(x: &[f64]) -> f64 {
    x[0] * x[0] + x[1] * x[1] + [3.0, 0.0, 2.0, 1.0][x[2] as usize]
}

fn functions() -> [Function; 4] {
    let function = |name, space, optimum, tolerance, value| Function { name, space, optimum, tolerance, value };
    [
        function("branin", vec![number(-5.0, 10.0), number(0.0, 15.0)], 0.397887, 0.05, branin),
        function("hartmann6", vec![number(0.0, 1.0); 6], -3.32237, 0.3, hartmann6),
        function("rosenbrock", vec![number(-2.0, 2.0); 2], 0.0, 0.2, rosenbrock),
        function("sphere", vec![number(-5.0, 5.0), number(-5.0, 5.0), Dimension::Category(4)], 0.0, 0.1, sphere),
    ]
}

/// Trials until the function is within its tolerance of the optimum.
fn trials(function: &Function, seed: u64) -> usize {
    let mut results: Vec<(f64, Point)> = Vec::new();
    for number in 0..BUDGET {
        results.sort_by(|a, b| a.0.total_cmp(&b.0));
        let ranked: Vec<Point> = results.iter().map(|(_, point)| point.clone()).collect();
        // Without results the estimator draws from its prior.
        let ranked = if number < STARTUP { &[][..] } else { &ranked[..] };
        let known = Known { ranked, pending: &[] };
        let point = propose(&function.space, &|_| {}, Coordinates::Together, known, seed, number as u64).unwrap();
        let value = (function.value)(&point);
        if value <= function.optimum + function.tolerance {
            return number + 1;
        }
        results.push((value, point));
    }
    BUDGET
}

fn median(mut values: Vec<usize>) -> f64 {
    values.sort_unstable();
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) as f64 / 2.0
}

/// Median trials of Optuna over its seeds.
fn optuna(name: &str) -> f64 {
    let rows = include_str!("golden/optuna.csv").lines().filter_map(|line| line.strip_prefix(name)?.rsplit(',').next());
    median(rows.map(|trials| trials.parse().unwrap()).collect())
}

#[test]
fn optima_are_found_in_no_more_trials_than_optuna_takes() {
    let mut table = "function      ours  optuna\n".to_owned();
    let mut slower = Vec::new();
    for function in functions() {
        let ours: Vec<usize> = (0..SEEDS).map(|seed| trials(&function, seed)).collect();
        let (ours, theirs) = (median(ours), optuna(function.name));
        table += &format!("{:12} {ours:5} {theirs:7}\n", function.name);
        if ours > 1.1 * theirs {
            slower.push(function.name);
        }
    }
    println!("{table}");
    assert!(slower.is_empty(), "{slower:?} take more trials, in the median over {SEEDS} seeds:\n{table}");
}

#[test]
fn a_dimension_that_exists_beside_one_category_only_is_searched_there() {
    // In the first category 1, in the second the square of what exists there only: the optimum lies at its ⅓.
    let space = [Dimension::Category(2), number(0.0, 1.0)];
    let settle = |point: &mut Point| {
        if point[0] == 0.0 {
            point[1] = f64::NAN;
        }
    };
    let value = |point: &Point| if point[0] == 0.0 { 0.05 } else { (point[1] - 1.0 / 3.0).abs() };
    for seed in 0..5 {
        let mut ranked: Vec<Point> = Vec::new();
        for number in 0..60 {
            let point =
                propose(&space, &settle, Coordinates::Together, Known { ranked: &ranked, pending: &[] }, seed, number)
                    .unwrap();
            assert_eq!(point[0] == 0.0, point[1].is_nan(), "{point:?}");
            ranked.push(point);
            ranked.sort_by(|a, b| value(a).total_cmp(&value(b)));
        }
        assert_eq!(
            ranked.iter().filter(|point| point[0] == 0.0).count(),
            1,
            "there is one point without the other dimension"
        );
        assert!(value(&ranked[0]) < 0.01, "{:?}", ranked[0]);
    }
}
