//! Rows of any query as CSV, JSON, Parquet, Markdown or an aligned table.

use std::collections::HashSet;
use std::io::Write;

use polars::prelude::{Column, DataFrame, NamedFrom, Series};
use polars_io::SerWriter;
use polars_io::csv::write::CsvWriter;
use polars_io::parquet::write::ParquetWriter;
use serde_json::{Number, Value};

use crate::ReportError;
use crate::text;

/// One value of a row, as SQLite knows them.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// No value.
    Null,
    /// A whole number.
    Integer(i64),
    /// A floating-point number.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns for a terminal.
    Table,
    /// Comma-separated values with a header (RFC 4180). Values are exact, also those that a spreadsheet would take for a formula.
    Csv,
    /// An array of objects, one a line.
    Json,
    /// Apache Parquet.
    Parquet,
    /// A Markdown table.
    Markdown,
}

/// Longest value in a terminal's table, in columns.
const LONGEST_CELL: usize = 80;
/// The same of the last column, behind which nothing is pushed away: messages stand there.
const LONGEST_LAST: usize = 400;

/// Rows in the format asked for, as bytes. Column names that occur twice get a number (`name_2`).
pub fn export_table(columns: &[String], rows: &[Vec<Cell>], format: Format) -> Result<Vec<u8>, ReportError> {
    if let Some((row, values)) = rows.iter().enumerate().find(|(_, values)| values.len() != columns.len()) {
        return Err(ReportError::Ragged { row, found: values.len(), expected: columns.len() });
    }
    let names = distinct(columns);
    Ok(match format {
        Format::Table => table(&names, rows).into_bytes(),
        Format::Markdown => markdown(&names, rows).into_bytes(),
        Format::Json => json(&names, rows),
        Format::Csv => {
            let mut frame = frame(&names, rows)?;
            let mut out = Vec::new();
            CsvWriter::new(&mut out).include_header(true).finish(&mut frame)?;
            out
        }
        Format::Parquet => {
            let mut frame = frame(&names, rows)?;
            let mut out = Vec::new();
            ParquetWriter::new(&mut out).finish(&mut frame)?;
            out
        }
    })
}

/// [`export_table`] into a writer.
pub fn write_table(
    columns: &[String],
    rows: &[Vec<Cell>],
    format: Format,
    mut writer: impl Write,
) -> Result<(), ReportError> {
    let bytes = export_table(columns, rows, format)?;
    writer.write_all(&bytes).map_err(|source| ReportError::Write { path: "the output".into(), source })
}

fn distinct(columns: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    columns
        .iter()
        .map(|column| {
            let mut name = column.clone();
            let mut number = 2;
            while !seen.insert(name.clone()) {
                name = format!("{column}_{number}");
                number += 1;
            }
            name
        })
        .collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn plain(cell: &Cell) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Integer(value) => value.to_string(),
        Cell::Real(value) => value.to_string(),
        Cell::Text(value) => value.clone(),
        Cell::Blob(bytes) => hexadecimal(bytes),
    }
}

/// A column's type is what its values have in common: whole numbers, numbers, bytes, or else text.
fn frame(names: &[String], rows: &[Vec<Cell>]) -> Result<DataFrame, ReportError> {
    let columns = names.iter().enumerate().map(|(index, name)| {
        let cells = || rows.iter().map(move |row| &row[index]);
        let all = |test: fn(&Cell) -> bool| cells().all(|cell| *cell == Cell::Null || test(cell));
        let name = name.as_str().into();
        let series = if cells().all(|cell| *cell == Cell::Null) {
            Series::new(name, vec![None::<String>; rows.len()])
        } else if all(|cell| matches!(cell, Cell::Integer(_))) {
            let values: Vec<Option<i64>> =
                cells().map(|cell| if let Cell::Integer(value) = cell { Some(*value) } else { None }).collect();
            Series::new(name, values)
        } else if all(|cell| matches!(cell, Cell::Integer(_) | Cell::Real(_))) {
            let values: Vec<Option<f64>> = cells()
                .map(|cell| match cell {
                    Cell::Integer(value) => Some(*value as f64),
                    Cell::Real(value) => Some(*value),
                    _ => None,
                })
                .collect();
            Series::new(name, values)
        } else {
            let values: Vec<Option<String>> = cells().map(|cell| (*cell != Cell::Null).then(|| plain(cell))).collect();
            Series::new(name, values)
        };
        Column::from(series)
    });
    Ok(DataFrame::new(rows.len(), columns.collect())?)
}

fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Real(value) => text::significant(*value, 6),
        Cell::Blob(bytes) => format!("{} bytes", text::grouped(bytes.len() as u64)),
        other => text::visible(&plain(other)),
    }
}

fn numeric(rows: &[Vec<Cell>], index: usize) -> bool {
    rows.iter().all(|row| matches!(row[index], Cell::Null | Cell::Integer(_) | Cell::Real(_)))
}

fn table(names: &[String], rows: &[Vec<Cell>]) -> String {
    let header: Vec<String> = names.iter().map(|name| text::visible(name)).collect();
    let longest = |column: usize| if column + 1 == names.len() { LONGEST_LAST } else { LONGEST_CELL };
    let cut = |(column, cell): (usize, &Cell)| text::shorten(&shown(cell), longest(column));
    let body: Vec<Vec<String>> = rows.iter().map(|row| row.iter().enumerate().map(cut).collect()).collect();
    let right: Vec<bool> = (0..names.len()).map(|index| numeric(rows, index)).collect();
    text::aligned(&header, &body, &right)
}

fn markdown(names: &[String], rows: &[Vec<Cell>]) -> String {
    let mut out = String::new();
    let mut line = |cells: Vec<String>| {
        out.push_str("| ");
        out.push_str(&cells.join(" | "));
        out.push_str(" |\n");
    };
    line(names.iter().map(|name| text::markdown(name)).collect());
    line((0..names.len()).map(|index| if numeric(rows, index) { "---:" } else { "---" }.to_owned()).collect());
    for row in rows {
        line(row.iter().map(|cell| text::markdown(&shown(cell))).collect());
    }
    out
}

fn json(names: &[String], rows: &[Vec<Cell>]) -> Vec<u8> {
    let mut out = b"[".to_vec();
    for (index, row) in rows.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"\n" } else { b",\n" });
        // Written by hand, because a JSON map would sort the columns by name.
        for (column, (name, cell)) in names.iter().zip(row).enumerate() {
            let value = match cell {
                Cell::Null => Value::Null,
                Cell::Integer(value) => Value::from(*value),
                // JSON has no infinities: they become null.
                Cell::Real(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
                Cell::Text(value) => Value::from(value.as_str()),
                Cell::Blob(bytes) => Value::from(hexadecimal(bytes)),
            };
            let lead = if column == 0 { '{' } else { ',' };
            let pair = format!("{lead}{}:{value}", Value::from(name.as_str()));
            // As JSON allows for any character; a terminal obeys more of them than JSON forbids.
            for c in pair.chars() {
                match c {
                    c if text::is_obeyed(c) => out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes()),
                    c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
        }
        out.extend_from_slice(if names.is_empty() { b"{}" } else { b"}" });
    }
    out.extend_from_slice(if rows.is_empty() { b"]\n" } else { b"\n]\n" });
    out
}

#[cfg(test)]
mod tests {
    use polars::prelude::DataType;
    use polars_io::SerReader;
    use polars_io::parquet::read::ParquetReader;

    use super::*;

    fn example() -> (Vec<String>, Vec<Vec<Cell>>) {
        (
            vec!["label".into(), "top1".into(), "epoch".into(), "epoch".into(), "note".into()],
            vec![
                vec![
                    Cell::Text("a,\"b\"\n|c|".into()),
                    Cell::Real(0.5),
                    Cell::Integer(1),
                    Cell::Integer(2),
                    Cell::Null,
                ],
                vec![Cell::Text("<i>".into()), Cell::Integer(1), Cell::Integer(3), Cell::Null, Cell::Null],
            ],
        )
    }

    fn exported(format: Format) -> String {
        let (columns, rows) = example();
        String::from_utf8(export_table(&columns, &rows, format).unwrap()).unwrap()
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        assert_eq!(
            exported(Format::Csv),
            "label,top1,epoch,epoch_2,note\n\"a,\"\"b\"\"\n|c|\",0.5,1,2,\n<i>,1.0,3,,\n"
        );
    }

    #[test]
    fn json_keeps_order_and_types() {
        let text = exported(Format::Json);
        assert!(text.contains(r#","top1":0.5,"epoch":1,"epoch_2":2,"note":null}"#), "{text}");
        let rows: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(rows[0]["label"], "a,\"b\"\n|c|");
        assert_eq!(rows[0]["epoch_2"], 2);
        assert_eq!(rows[1]["epoch_2"], Value::Null);
        assert_eq!(rows.as_array().unwrap().len(), 2);
        let empty = export_table(&["a".into()], &[], Format::Json).unwrap();
        assert_eq!(empty, b"[]\n");
    }

    #[test]
    fn tables_stay_on_their_lines() {
        assert_eq!(exported(Format::Table).lines().count(), 4);
        assert_eq!(
            exported(Format::Markdown),
            "| label | top1 | epoch | epoch\\_2 | note |\n| --- | ---: | ---: | ---: | ---: |\n\
             | a,\"b\" \\|c\\| | 0.5 | 1 | 2 |  |\n| &lt;i&gt; | 1 | 3 |  |  |\n"
        );
    }

    #[test]
    fn parquet_is_read_back_with_types() {
        let (columns, rows) = example();
        let bytes = export_table(&columns, &rows, Format::Parquet).unwrap();
        let frame = ParquetReader::new(std::io::Cursor::new(bytes)).finish().unwrap();
        assert_eq!(frame.height(), 2);
        assert_eq!(frame.column("epoch_2").unwrap().dtype(), &DataType::Int64);
        assert_eq!(frame.column("top1").unwrap().f64().unwrap().get(1), Some(1.0));
        assert_eq!(frame.column("label").unwrap().str().unwrap().get(0), Some("a,\"b\"\n|c|"));
    }

    #[test]
    fn a_ragged_row_is_refused() {
        let error = export_table(&["a".into(), "b".into()], &[vec![Cell::Null]], Format::Csv).unwrap_err();
        assert_eq!(error.to_string(), "row 0 has 1 values where there are 2 columns");
    }
}
