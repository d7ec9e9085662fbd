//! `pipeline show`: everything that is known of a run.

use report::Cell;
use store::{RunId, Store, named};

use crate::{
    cli::{Format, Global, Rows},
    commands::query::cell,
    exit::Exit,
    output::{Table, integer, tables, text},
    runner::run_folder,
};

/// Settings as dotted keys, in the order of the alphabet.
pub fn flattened(canonical: &str) -> anyhow::Result<Vec<(String, Cell)>> {
    fn add(prefix: &str, value: &serde_json::Value, to: &mut Vec<(String, Cell)>) {
        let cell = match value {
            serde_json::Value::Object(fields) if !fields.is_empty() => {
                for (key, value) in fields {
                    add(&if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") }, value, to);
                }
                return;
            }
            serde_json::Value::Null => Cell::Null,
            serde_json::Value::String(value) => text(value),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Cell::Integer(whole),
                (None, Some(real)) => Cell::Real(real),
                (None, None) => text(number.to_string()),
            },
            other => text(other.to_string()),
        };
        to.push((prefix.to_owned(), cell));
    }
    let mut settings = Vec::new();
    add("", &serde_json::from_str(canonical)?, &mut settings);
    settings.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(settings)
}

pub fn cells(table: &store::Table) -> Vec<Vec<Cell>> {
    table.rows.iter().map(|row| row.iter().map(cell).collect()).collect()
}

pub fn names(table: &store::Table) -> Vec<&str> {
    table.columns.iter().map(|column| column.name.as_str()).collect()
}

/// One row as lines of key and value, without what is not there.
fn upright(table: &store::Table) -> Vec<Vec<Cell>> {
    let row = table.rows.first().into_iter().flatten();
    let lines = table.columns.iter().zip(row).filter(|(_, value)| **value != store::Value::Null);
    lines.map(|(column, value)| vec![text(column.name.clone()), cell(value)]).collect()
}

/// Prints a run: what it is, settings, provenance, result, epochs, files.
pub fn run(id: i64, to: &Rows, global: &Global) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        matches!(to.format, Format::Table | Format::Json | Format::Markdown),
        "--format: a run is shown in several tables, as table, markdown or json; `pipeline query` gives one of them alone"
    );
    let store = Store::open_read_only(&global.db)?;
    let run = RunId(id);
    let described = store.describe_run(run)?;
    let varied = store.varied_keys(run)?;
    let settings: Vec<Vec<Cell>> = flattened(&store.canonical(run)?)?
        .into_iter()
        .map(|(key, value)| {
            let mark = if varied.contains(&key) { text("varied") } else { Cell::Null };
            vec![text(key), value, mark]
        })
        .collect();
    let evaluations = store.run_evaluations(run)?;
    let epochs = match named::find("curve") {
        Some(curve) => curve.run(&store, &[&id.to_string()])?,
        None => store::Table::default(),
    };
    let claims = store.run_claims(run)?;
    let upside = to.format == Format::Json;
    let folder = run_folder(&global.db, run);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
        files.push(vec![text(entry.path().display().to_string()), integer(bytes)]);
    }
    files.sort_by_key(|row| format!("{:?}", row[0]));
    let (run_columns, run_rows) =
        if upside { (names(&described), cells(&described)) } else { (vec!["run", ""], upright(&described)) };
    let mut all = vec![
        Table { name: "run", columns: &run_columns, rows: run_rows },
        Table { name: "settings", columns: &["setting", "value", "varied"], rows: settings },
    ];
    let (evaluation_columns, epoch_columns) = (names(&evaluations), names(&epochs));
    // Wider than a terminal, so upright where it is the only one.
    let (claim_columns, claim_rows) = if upside || claims.rows.len() > 1 {
        (names(&claims), cells(&claims))
    } else {
        (vec!["provenance", ""], upright(&claims))
    };
    all.push(Table { name: "evaluations", columns: &evaluation_columns, rows: cells(&evaluations) });
    all.push(Table { name: "epochs", columns: &epoch_columns, rows: cells(&epochs) });
    all.push(Table { name: "claims", columns: &claim_columns, rows: claim_rows });
    all.push(Table { name: "files", columns: &["file", "bytes"], rows: files });
    if !upside {
        // What has no row yet has nothing to say to people.
        all.retain(|table| !table.rows.is_empty());
    }
    tables(&all, to)?;
    Ok(Exit::Fine)
}
