//! SQL for people: one reading statement, any rows.

use std::fmt;

use sqlx::sqlite::SqliteRow;
use sqlx::{Column as _, Decode, Executor, Row, SqlSafeStr, Sqlite, Statement, TypeInfo, ValueRef};

use crate::session::{Problem, code};
use crate::{Store, StoreError, statement};

/// Rows of a query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Its columns, in order; there too where there are no rows.
    pub columns: Vec<Column>,
    /// Its rows, each with as many values as there are columns.
    pub rows: Vec<Vec<Value>>,
}

/// A column of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
}

/// A value of a query, or a parameter of one.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A whole number.
    Integer(i64),
    /// A number. SQLite has no NaN: it is `Null`.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl Value {
    /// As JSON: bytes become hexadecimal text; infinities, which JSON has no number for, become text.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Integer(number) => (*number).into(),
            Self::Real(number) => {
                serde_json::Number::from_f64(*number).map_or_else(|| self.to_string().into(), serde_json::Value::Number)
            }
            Self::Text(text) => text.as_str().into(),
            Self::Blob(_) => self.to_string().into(),
        }
    }
}

impl fmt::Display for Value {
    /// Nothing for `Null`, the shortest digits that read back the same for numbers, hexadecimal digits for bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Integer(number) => number.fmt(f),
            Self::Real(number) => write!(f, "{number:?}"),
            Self::Text(text) => f.write_str(text),
            Self::Blob(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl Store {
    /// Answers a reading SQL statement. `parameters` stand for `?1`, `?2`, … and must be as many.
    ///
    /// The connection is read-only, so nothing that is asked here can change the database.
    ///
    /// # Errors
    /// [`StoreError::Query`] for writes, several statements, PRAGMA, ATTACH and the like, a wrong number of parameters, and for what
    /// SQLite itself finds wrong, in its words.
    pub fn query(&self, sql: &str, parameters: &[Value]) -> Result<Table, StoreError> {
        statement::check(sql)?;
        self.read(async |connection| {
            let text = sqlx::AssertSqlSafe(sql.to_owned()).into_sql_str();
            let prepared = (&mut *connection).prepare(text).await.map_err(in_words)?;
            let wanted = match prepared.parameters() {
                Some(sqlx::Either::Right(count)) => count,
                Some(sqlx::Either::Left(types)) => types.len(),
                None => 0,
            };
            if wanted != parameters.len() {
                return Err(StoreError::Query(format!(
                    "the query has {wanted} parameter{}, but {} {} given",
                    if wanted == 1 { "" } else { "s" },
                    parameters.len(),
                    if parameters.len() == 1 { "was" } else { "were" },
                ))
                .into());
            }
            let mut query = prepared.query();
            for parameter in parameters {
                query = match parameter {
                    Value::Null => query.bind(None::<i64>),
                    Value::Integer(number) => query.bind(*number),
                    Value::Real(number) => query.bind(*number),
                    Value::Text(text) => query.bind(text.clone()),
                    Value::Blob(bytes) => query.bind(bytes.clone()),
                };
            }
            let columns: Vec<Column> =
                prepared.columns().iter().map(|column| Column { name: column.name().to_owned() }).collect();
            // Turned into values as they come: SQLite's own rows are many times larger.
            let width = columns.len();
            let rows = query
                .try_map(|row: SqliteRow| (0..width).map(|index| value(&row, index)).collect())
                .fetch_all(&mut *connection)
                .await
                .map_err(in_words)?;
            Ok(Table { columns, rows })
        })
    }
}

pub(crate) fn value(row: &SqliteRow, index: usize) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    // The value's own type, not the column's: SQLite's columns may hold any.
    let kind = raw.type_info().into_owned();
    let decoded = match kind.name() {
        "REAL" => Decode::<Sqlite>::decode(raw).map(Value::Real),
        "TEXT" => {
            <&[u8] as Decode<Sqlite>>::decode(raw).map(|bytes| Value::Text(String::from_utf8_lossy(bytes).into_owned()))
        }
        "BLOB" => Decode::<Sqlite>::decode(raw).map(Value::Blob),
        _ => Decode::<Sqlite>::decode(raw).map(Value::Integer),
    };
    decoded.map_err(sqlx::Error::Decode)
}

/// What SQLite says of a person's SQL goes to that person as it is; trouble with the file does not.
fn in_words(error: sqlx::Error) -> Problem {
    const ERROR: i32 = 1;
    const READ_ONLY: i32 = 8;
    match (code(&error), error.as_database_error()) {
        (Some(READ_ONLY), _) => StoreError::Query("queries only read: this one writes".to_owned()).into(),
        (Some(ERROR), Some(database)) => StoreError::Query(database.message().to_owned()).into(),
        _ => error.into(),
    }
}
