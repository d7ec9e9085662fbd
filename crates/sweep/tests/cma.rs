//! CMA-ES on standard test functions, beside Optuna's: `golden/optuna_cmaes.csv`, which `golden/optuna_cmaes.py` writes.

mod functions;

use functions::{branin, hartmann6, rosenbrock};
use sweep::cma::{population, propose};

/// Searches that are longer than this count as this long.
const BUDGET: usize = 300;
const SEEDS: u64 = 40;

type Function = fn(&[f64]) -> f64;
/// The ends of each dimension.
type Space = Vec<(f64, f64)>;

/// A sum of squares whose axes differ in length by a factor of ten.
fn ellipsoid(x: &[f64]) -> f64 {
    x.iter().enumerate().map(|(i, at)| 100_f64.powf(i as f64 / 4.0) * (at - 1.0).powi(2)).sum()
}

/// Trials until the function is at most so much.
fn trials(function: Function, space: &[(f64, f64)], goal: f64, seed: u64) -> usize {
    let mut generations: Vec<Vec<Vec<f64>>> = Vec::new();
    let mut current: Vec<(f64, Vec<f64>)> = Vec::new();
    for number in 0..BUDGET {
        let point = propose(space.len(), &generations, seed, number as u64);
        let at: Vec<f64> = point.iter().zip(space).map(|(unit, (low, high))| low + (high - low) * unit).collect();
        let value = function(&at);
        if value <= goal {
            return number + 1;
        }
        current.push((value, point));
        if current.len() == population(space.len()) {
            current.sort_by(|a, b| a.0.total_cmp(&b.0));
            generations.push(current.drain(..).map(|(_, point)| point).collect());
        }
    }
    BUDGET
}

fn median(mut values: Vec<usize>) -> f64 {
    values.sort_unstable();
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) as f64 / 2.0
}

/// Median trials of Optuna over its seeds.
fn optuna(name: &str) -> f64 {
    let lines = include_str!("golden/optuna_cmaes.csv").lines();
    let rows = lines.filter_map(|line| line.strip_prefix(name)?.rsplit(',').next());
    median(rows.map(|trials| trials.parse().unwrap()).collect())
}

#[test]
fn optima_are_found_in_no_more_trials_than_optuna_takes() {
    let functions: [(&str, Function, Space, f64); 4] = [
        ("branin", branin, vec![(-5.0, 10.0), (0.0, 15.0)], 0.397887 + 0.05),
        ("hartmann6", hartmann6, vec![(0.0, 1.0); 6], -3.32237 + 0.3),
        ("rosenbrock", rosenbrock, vec![(-2.0, 2.0); 2], 0.2),
        ("ellipsoid", ellipsoid, vec![(-5.0, 5.0); 5], 0.1),
    ];
    let mut table = "function      ours  optuna\n".to_owned();
    let mut slower = Vec::new();
    for (name, function, space, goal) in functions {
        let ours = median((0..SEEDS).map(|seed| trials(function, &space, goal, seed)).collect());
        let theirs = optuna(name);
        table += &format!("{name:12} {ours:5} {theirs:7}\n");
        if ours > 1.1 * theirs {
            slower.push(name);
        }
    }
    println!("{table}");
    assert!(
        slower.is_empty(),
        "{slower:?} take more trials, in the median over {SEEDS} seeds, Optuna's over 100:\n{table}"
    );
}
