//! Rows on standard output or in a file.

use std::{
    io::{IsTerminal, Write},
    path::Path,
};

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

/// Rows under their columns.
pub struct Table<'a> {
    /// Key of the table where several are printed as one JSON object.
    pub name: &'a str,
    /// Names of the columns.
    pub columns: &'a [&'a str],
    /// Values, as many in each row as there are columns.
    pub rows: Vec<Vec<Cell>>,
}

fn render(columns: &[&str], values: &[Vec<Cell>], format: Format) -> anyhow::Result<Vec<u8>> {
    let columns: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
    Ok(report::export_table(&columns, values, format.into())?)
}

fn emit(bytes: &[u8], to: &Rows) -> anyhow::Result<()> {
    match &to.out {
        Some(path) => write_whole(path, bytes).with_context(|| format!("cannot write {}", path.display())),
        None => {
            let mut out = std::io::stdout().lock();
            if out.is_terminal() {
                anyhow::ensure!(
                    to.format != Format::Parquet,
                    "--format parquet is not for a terminal: name a file with --out"
                );
                // All other formats have nothing that a terminal obeys anyway; CSV is exact wherever else it goes.
                let text = String::from_utf8_lossy(bytes);
                out.write_all(harmless(&text).as_bytes())?;
            } else {
                out.write_all(bytes)?;
            }
            Ok(out.flush()?)
        }
    }
}

/// Text that may hold names out of files and databases, line by line without what a terminal would obey.
fn harmless(text: &str) -> String {
    text.split('\n').map(report::visible).collect::<Vec<_>>().join("\n")
}

/// Writes beside the file, then renames: it is whole or as it was. What is not a file, such as a pipe, is written to.
pub fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return std::fs::write(path, bytes);
    }
    // A link stays a link: what it leads to is replaced.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, &path)).inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}

/// Prints rows as asked.
pub fn rows(columns: &[&str], values: &[Vec<Cell>], to: &Rows) -> anyhow::Result<()> {
    emit(&render(columns, values, to.format)?, to)
}

/// Prints explanations, whose words a table must not cut off: there a text that is longer than its column's width, in characters, goes on
/// in rows of its own. Other formats keep each row whole.
pub fn explanations(columns: &[&str], widths: &[usize], values: &[Vec<Cell>], to: &Rows) -> anyhow::Result<()> {
    match to.format {
        Format::Table => rows(columns, &values.iter().flat_map(|row| wrapped(row, widths)).collect::<Vec<_>>(), to),
        _ => rows(columns, values, to),
    }
}

/// A row as several, none of whose texts is longer than its width unless one word is.
fn wrapped(row: &[Cell], widths: &[usize]) -> Vec<Vec<Cell>> {
    let lines: Vec<Vec<String>> = row
        .iter()
        .zip(widths)
        .map(|(cell, &width)| {
            let mut lines = vec![String::new()];
            let Cell::Text(text) = cell else { return lines };
            for word in text.split(' ') {
                match lines.last_mut() {
                    Some(line) if line.is_empty() => line.push_str(word),
                    Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                        line.push(' ');
                        line.push_str(word);
                    }
                    _ => lines.push(word.to_owned()),
                }
            }
            lines
        })
        .collect();
    let height = lines.iter().map(Vec::len).max().unwrap_or(1);
    (0..height)
        .map(|line| {
            let at = |(column, cell): (usize, &Cell)| match (cell, line) {
                (Cell::Text(_), _) => text(lines[column].get(line).map_or("", String::as_str)),
                (other, 0) => other.clone(),
                _ => Cell::Null,
            };
            row.iter().enumerate().map(at).collect()
        })
        .collect()
}

/// Prints tables as asked: one as [`rows`] does, several apart by an empty line or, as JSON, as one object.
pub fn tables(tables: &[Table], to: &Rows) -> anyhow::Result<()> {
    if let [table] = tables {
        return rows(table.columns, &table.rows, to);
    }
    let mut out = Vec::new();
    for (i, table) in tables.iter().enumerate() {
        let json = to.format == Format::Json;
        match (json, i) {
            (true, _) => write!(out, "{}{}: ", if i == 0 { "{" } else { ",\n" }, serde_json::to_string(table.name)?)?,
            (false, 0) => {}
            (false, _) => out.push(b'\n'),
        }
        let bytes = render(table.columns, &table.rows, to.format)?;
        out.extend_from_slice(if json { bytes.trim_ascii_end() } else { &bytes });
    }
    if to.format == Format::Json {
        out.extend_from_slice(b"}\n");
    }
    emit(&out, to)
}

/// Prints a line. Where nobody reads it any more that is an error like any other, not a panic as with `println!`.
pub fn line(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", harmless(text))?;
    Ok(out.flush()?)
}

/// Tells on standard error.
pub fn tell(text: &str) {
    eprintln!("{}", harmless(text));
}

/// "1 run", "2 runs".
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_lines_and_nothing_to_obey() {
        assert_eq!(harmless("a\u{1b}[31mb\nc\u{202e}\u{9b}d\n"), "a\\u{1b}[31mb\nc\\u{202e}\\u{9b}d\n");
    }
}
