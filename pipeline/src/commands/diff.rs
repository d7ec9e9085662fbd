//! `pipeline diff`: what is different between two runs, in their settings and in what they came to.

use std::collections::BTreeMap;

use report::Cell;
use store::{RunId, Store, Value, named};

use crate::{
    cli::{Global, Rows},
    commands::{query::cell, show::flattened},
    exit::Exit,
    output::{rows, text},
};

/// Columns of a run's description that are its result.
const RESULT: [&str; 6] = ["status", "epochs", "tested_epoch", "train_seconds", "peak_memory_bytes", "failure_message"];
/// Columns of its last claim that say by what and where it was made.
const MAKING: [&str; 6] = ["commit_hash", "version", "device", "threads", "os", "cpu"];
/// Columns of its last epoch.
const EPOCH: [&str; 5] = ["learning_rate", "train_loss", "train_top1", "validation_loss", "validation_top1"];

/// Values of a run by part and key.
type Values = BTreeMap<(usize, String), Cell>;
/// Parts, in the order that they are printed in.
const PARTS: [&str; 3] = ["settings", "result", "provenance"];

fn of_run(store: &Store, run: RunId) -> anyhow::Result<Values> {
    let mut values = Values::new();
    let described = store.describe_run(run)?;
    for (key, value) in flattened(&store.canonical(run)?)? {
        values.insert((0, key), value);
    }
    let mut pick = |part: usize, table: &store::Table, row: Option<&Vec<Value>>, wanted: &[&str], prefix: &str| {
        for (column, value) in table.columns.iter().zip(row.into_iter().flatten()) {
            if wanted.contains(&column.name.as_str()) {
                values.insert((part, format!("{prefix}{}", column.name)), cell(value));
            }
        }
    };
    pick(0, &described, described.rows.first(), &["data_fingerprint"], "");
    pick(1, &described, described.rows.first(), &RESULT, "");
    if let Some(curve) = named::find("curve") {
        let epochs = curve.run(store, &[&run.to_string()])?;
        pick(1, &epochs, epochs.rows.last(), &EPOCH, "last epoch ");
    }
    let evaluations = store.run_evaluations(run)?;
    for row in &evaluations.rows {
        pick(1, &evaluations, Some(row), &["loss", "top1", "top5", "images", "seconds"], &format!("{} ", row[0]));
    }
    let claims = store.run_claims(run)?;
    pick(2, &claims, claims.rows.last(), &MAKING, "");
    Ok(values)
}

fn number(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Integer(value) => Some(*value as f64),
        Cell::Real(value) => Some(*value),
        _ => None,
    }
}

/// Prints what differs; nothing but the columns' names where nothing does.
pub fn run(a: i64, b: i64, to: &Rows, global: &Global) -> anyhow::Result<Exit> {
    let store = Store::open_read_only(&global.db)?;
    let (first, second) = (of_run(&store, RunId(a))?, of_run(&store, RunId(b))?);
    let keys: std::collections::BTreeSet<_> = first.keys().chain(second.keys()).collect();
    let mut table = Vec::new();
    for key in keys {
        let (left, right) = (first.get(key).unwrap_or(&Cell::Null), second.get(key).unwrap_or(&Cell::Null));
        if left == right {
            continue;
        }
        let difference = match (number(left), number(right)) {
            (Some(left), Some(right)) => Cell::Real(right - left),
            _ => Cell::Null,
        };
        table.push(vec![text(PARTS[key.0]), text(key.1.clone()), left.clone(), right.clone(), difference]);
    }
    let (a, b) = (format!("run {a}"), format!("run {b}"));
    rows(&["part", "key", &a, &b, "difference"], &table, to)?;
    Ok(Exit::Fine)
}
