//! `pipeline query`: SQL, named queries, and what the columns mean.

use report::Cell;
use store::{
    RunId, Store, Table, Value,
    named::{self, NamedQuery},
};

use crate::{
    cli::{Global, Rows},
    exit::Exit,
    output::{explanations, rows, text},
    subject,
};

/// A value of the database as it is printed.
pub fn cell(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Integer(value) => Cell::Integer(*value),
        Value::Real(value) => Cell::Real(*value),
        Value::Text(value) => Cell::Text(value.clone()),
        Value::Blob(value) => Cell::Blob(value.clone()),
    }
}

/// Prints a table of the database.
pub fn print(table: &Table, to: &Rows) -> anyhow::Result<()> {
    let columns: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    let values: Vec<Vec<Cell>> = table.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    rows(&columns, &values, to)
}

/// Asks a named query or SQL.
pub fn run(query: &str, arguments: &[String], to: &Rows, global: &Global) -> anyhow::Result<Exit> {
    let store = Store::open_read_only(&global.db)?;
    let table = match named::find(query) {
        Some(named) => {
            check(named, arguments, &store)?;
            named.run(&store, &arguments.iter().map(String::as_str).collect::<Vec<_>>())?
        }
        None if !query.trim().contains(char::is_whitespace) => {
            let names: Vec<&str> = named::all().iter().map(|query| query.name).collect();
            anyhow::bail!("no query is called {query:?}: expected SQL or one of {}", names.join(", "))
        }
        // A named query and its arguments in one pair of quotes.
        None if query.split_whitespace().next().is_some_and(|word| named::find(word).is_some()) => {
            anyhow::bail!("{query:?} is no SQL: write `pipeline query {}`, without quotes", query.trim())
        }
        None => store.query(query, &arguments.iter().map(|text| Value::from(text.as_str())).collect::<Vec<_>>())?,
    };
    print(&table, to)?;
    Ok(Exit::Fine)
}

/// A name that is not there is a mistake, not a question without an answer.
fn check(query: &NamedQuery, arguments: &[String], store: &Store) -> anyhow::Result<()> {
    let required = query.parameters.iter().filter(|parameter| parameter.required).count();
    if arguments.len() < required {
        // What is missing is said with the usage.
        return Ok(());
    }
    for (parameter, argument) in query.parameters.iter().zip(arguments) {
        match parameter.name {
            "EXPERIMENT" => {
                subject::experiment(store, argument)?;
            }
            "RUN" => {
                let run = argument.parse().map(RunId);
                let run = run.map_err(|_| anyhow::anyhow!("{argument:?} is not the number of a run"))?;
                store.canonical(run)?;
            }
            _ => {
                let networks = store.networks()?;
                anyhow::ensure!(
                    networks.contains(argument),
                    "no network is called {argument:?}; there are: {}",
                    networks.join(", ")
                );
            }
        }
    }
    Ok(())
}

/// Explains tables, columns and units.
pub fn schema(to: &Rows) -> anyhow::Result<Exit> {
    let mut table = Vec::new();
    for doc in store::schema() {
        let kind = if doc.view { "view" } else { "table" };
        table.push(vec![text(doc.table.clone()), text(""), text(kind), text(""), text(doc.description)]);
        for column in doc.columns {
            table.push(vec![
                text(doc.table.clone()),
                text(column.name),
                text(column.kind),
                text(column.unit),
                text(column.description),
            ]);
        }
    }
    explanations(&["table", "column", "type", "unit", "description"], &[40, 40, 20, 40, 76], &table, to)?;
    Ok(Exit::Fine)
}
