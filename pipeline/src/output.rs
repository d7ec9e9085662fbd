//! Rows on standard output or in a file.

use std::io::Write;

use anyhow::Context;
use report::Cell;

use crate::cli::{Format, Rows};

impl From<Format> for report::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Table => Self::Table,
            Format::Csv => Self::Csv,
            Format::Json => Self::Json,
            Format::Parquet => Self::Parquet,
            Format::Markdown => Self::Markdown,
        }
    }
}

/// Prints rows as asked.
pub fn rows(columns: &[&str], values: &[Vec<Cell>], to: &Rows) -> anyhow::Result<()> {
    let columns: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
    let bytes = report::export_table(&columns, values, to.format.into())?;
    match &to.out {
        Some(path) => std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display())),
        None => {
            let mut out = std::io::stdout().lock();
            out.write_all(&bytes)?;
            Ok(out.flush()?)
        }
    }
}

/// A text cell.
pub fn text(value: impl Into<String>) -> Cell {
    Cell::Text(value.into())
}

/// A whole number; those beyond i64 do not occur.
pub fn integer(value: impl TryInto<i64>) -> Cell {
    value.try_into().map_or(Cell::Null, Cell::Integer)
}

/// Bytes in the unit that reads best.
pub fn bytes(value: usize) -> String {
    let value = value as f64;
    if value < 1e6 {
        format!("{:.0} kB", value / 1e3)
    } else if value < 1e9 {
        format!("{:.1} MB", value / 1e6)
    } else {
        format!("{:.2} GB", value / 1e9)
    }
}
