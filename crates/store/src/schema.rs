//! What the tables, columns and units are, read from the comments of the migrations: the one place that states them.

use crate::file::MIGRATIONS;

/// A table or a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDoc {
    /// Its name.
    pub table: String,
    /// It is a view: a stored query over tables.
    pub view: bool,
    /// What a row of it is.
    pub description: String,
    /// Its columns, in order.
    pub columns: Vec<ColumnDoc>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDoc {
    /// Its name.
    pub name: String,
    /// SQLite's type: INTEGER, REAL, TEXT or BLOB.
    pub kind: String,
    /// Its unit, or what kind of text it is: `s`, `fraction`, `nats per image`, `JSON`, …
    pub unit: String,
    /// What it means.
    pub description: String,
}

/// Every table and view, in the order of the migrations.
pub fn schema() -> Vec<TableDoc> {
    let mut tables = Vec::new();
    for migration in MIGRATIONS.iter() {
        read(migration.sql.as_str(), &mut tables);
    }
    tables
}

/// Adds what one migration makes. The migrations keep to one column per line, with its comment behind it.
fn read(sql: &str, tables: &mut Vec<TableDoc>) {
    let mut comment = String::new();
    let mut open: Option<TableDoc> = None;
    for line in sql.lines() {
        let line = line.trim();
        let (code, remark) = match line.split_once("--") {
            Some((code, remark)) => (code.trim(), remark.trim()),
            None => (line, ""),
        };
        if let Some(table) = &mut open {
            if code.starts_with(')') {
                tables.extend(open.take());
            } else if let Some(column) = column(code, remark, table.view, tables) {
                table.columns.push(column);
            }
            continue;
        }
        if code.is_empty() {
            if let Some(remark) = remark.strip_prefix("COLUMN ") {
                describe_anew(remark, tables);
            } else if line.is_empty() {
                comment.clear();
            } else {
                if !comment.is_empty() {
                    comment.push(' ');
                }
                comment.push_str(remark);
            }
            continue;
        }
        let words: Vec<&str> = code.split_whitespace().collect();
        match words[..] {
            ["CREATE", kind @ ("TABLE" | "VIEW"), name, "("] => {
                open = Some(TableDoc {
                    table: name.to_owned(),
                    view: kind == "VIEW",
                    description: std::mem::take(&mut comment),
                    columns: Vec::new(),
                });
            }
            ["DROP", "TABLE" | "VIEW", name] => {
                let name = name.trim_end_matches(';');
                tables.retain(|table| table.table != name);
            }
            ["ALTER", "TABLE", name, "ADD", "COLUMN", ..] => {
                let added = code
                    .split_once("COLUMN")
                    .and_then(|(_, definition)| column(definition.trim().trim_end_matches(';'), remark, false, tables));
                if let Some(table) = tables.iter_mut().find(|table| table.table == name) {
                    table.columns.extend(added);
                }
            }
            _ => {}
        }
        comment.clear();
    }
}

/// What a column means since a later migration: `COLUMN table.column [unit] meaning`. Views that show the column say the same.
fn describe_anew(remark: &str, tables: &mut [TableDoc]) {
    let Some((name, remark)) = remark.split_once(' ') else { return };
    let Some((table, column)) = name.split_once('.') else { return };
    let Some((unit, description)) = remark.strip_prefix('[').and_then(|rest| rest.split_once(']')) else { return };
    let shown = tables.iter_mut().filter(|known| known.table == table || known.view);
    let mut before = None;
    for known in shown.flat_map(|known| &mut known.columns).filter(|known| known.name == column) {
        if before.get_or_insert_with(|| known.description.clone()) == &known.description {
            description.trim().clone_into(&mut known.description);
            unit.clone_into(&mut known.unit);
        }
    }
}

/// A column from its definition and the remark behind it; `None` for a table's constraints.
fn column(code: &str, remark: &str, view: bool, tables: &[TableDoc]) -> Option<ColumnDoc> {
    let mut words = code.trim_end_matches(',').split_whitespace();
    let name = words.next()?;
    if ["PRIMARY", "FOREIGN", "UNIQUE", "CHECK"].contains(&name) {
        return None;
    }
    // A view's column has no type of its own, so its remark starts with one.
    let (kind, remark) = if view {
        remark.split_once(' ').filter(|(_, rest)| rest.starts_with('[')).unwrap_or(("", remark))
    } else {
        (words.next().unwrap_or(""), remark)
    };
    let (unit, description) = remark.strip_prefix('[').and_then(|rest| rest.split_once(']')).unwrap_or(("", remark));
    let mut column = ColumnDoc {
        name: name.to_owned(),
        kind: kind.to_owned(),
        unit: unit.to_owned(),
        description: description.trim().to_owned(),
    };
    if view && column.unit.is_empty() {
        let source = tables.iter().flat_map(|table| &table.columns).find(|source| source.name == name);
        if let Some(source) = source {
            column.kind.clone_from(&source.kind);
            column.unit.clone_from(&source.unit);
            if column.description.is_empty() {
                column.description.clone_from(&source.description);
            } else {
                column.description = format!("{}; {}", source.description, column.description);
            }
        }
    }
    Some(column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_migrations_add_columns_and_replace_views() {
        let mut tables = Vec::new();
        read(
            "-- Things.\n-- Many.\nCREATE TABLE things (\n    size REAL NOT NULL, -- [m] how long it is\n    PRIMARY KEY (size)\n) STRICT;\n\
             CREATE VIEW long (\n    size -- the long ones\n) AS\nSELECT size FROM things;\n",
            &mut tables,
        );
        assert_eq!(tables[0].description, "Things. Many.");
        assert_eq!(tables[1].columns[0].unit, "m");
        assert_eq!(tables[1].columns[0].description, "how long it is; the long ones");
        read(
            "ALTER TABLE things ADD COLUMN weight REAL; -- [kg] how heavy it is\nDROP VIEW long;\n\
             -- The heavy ones.\nCREATE VIEW heavy (\n    weight,\n    count -- INTEGER [count] how many\n) AS\nSELECT 1;\n",
            &mut tables,
        );
        let names: Vec<&str> = tables.iter().map(|table| table.table.as_str()).collect();
        assert_eq!(names, ["things", "heavy"]);
        assert_eq!(tables[0].columns[1].unit, "kg");
        assert_eq!(tables[1].columns[0].description, "how heavy it is");
        assert_eq!(tables[1].columns[1].kind, "INTEGER");
        read("-- COLUMN things.weight [t] how heavy it was\n-- Why.\nUPDATE things SET weight = 1;\n", &mut tables);
        for column in [&tables[0].columns[1], &tables[1].columns[0]] {
            assert_eq!((column.unit.as_str(), column.description.as_str()), ("t", "how heavy it was"));
        }
    }
}
