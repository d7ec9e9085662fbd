//! A TOML document as a tree whose every value knows where it was written.

use std::fmt;

use toml::de::{DeTable, DeValue};

/// Where a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Line of the experiment file, from 1.
    Line(u32),
    /// A `key=value` of the command line.
    CommandLine,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub value: Value,
    pub place: Place,
    /// The text as typed on the command line, so that a bare word serves where a string is wanted.
    pub typed: Option<String>,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Boolean(bool),
    Integer(i64),
    Float(f64),
    String(String),
    /// Dates have no use here; kept for the message.
    Date(String),
    Array(Vec<Node>),
    Table(Table),
}

/// Keys and values in the order of writing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub entries: Vec<Entry>,
}

/// One key of a table.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub place: Place,
    pub node: Node,
}

/// A syntax error: message and line.
pub(crate) struct SyntaxError {
    pub message: String,
    pub line: u32,
}

impl Node {
    pub(crate) fn new(value: Value, place: Place) -> Self {
        Self { value, place, typed: None }
    }

    pub(crate) fn as_table(&self) -> Option<&Table> {
        if let Value::Table(table) = &self.value { Some(table) } else { None }
    }

    pub(crate) fn as_array(&self) -> Option<&[Node]> {
        if let Value::Array(items) = &self.value { Some(items) } else { None }
    }

    pub(crate) fn as_number(&self) -> Option<f64> {
        match self.value {
            Value::Integer(value) => Some(value as f64),
            Value::Float(value) => Some(value),
            _ => None,
        }
    }

    /// Marks the whole subtree as typed on the command line.
    pub(crate) fn onto_command_line(&mut self) {
        self.place = Place::CommandLine;
        match &mut self.value {
            Value::Array(items) => items.iter_mut().for_each(Self::onto_command_line),
            Value::Table(table) => {
                for entry in &mut table.entries {
                    entry.place = Place::CommandLine;
                    entry.node.onto_command_line();
                }
            }
            _ => {}
        }
    }

    /// Equality of what is meant: 1 and 1.0 are equal, and so are tables whatever the order of their keys.
    pub(crate) fn means_the_same(&self, other: &Self) -> bool {
        if let (Some(a), Some(b)) = (self.as_number(), other.as_number()) {
            return a == b;
        }
        match (&self.value, &other.value) {
            (Value::Boolean(a), Value::Boolean(b)) => a == b,
            (Value::String(a), Value::String(b)) | (Value::Date(a), Value::Date(b)) => a == b,
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.means_the_same(b))
            }
            (Value::Table(a), Value::Table(b)) => {
                a.entries.len() == b.entries.len()
                    && a.entries
                        .iter()
                        .all(|entry| b.get(&entry.key).is_some_and(|other| entry.node.means_the_same(other)))
            }
            _ => false,
        }
    }
}

/// The value as TOML, on one line.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Boolean(value) => write!(f, "{value}"),
            Value::Integer(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value}"),
            Value::String(value) => write!(f, "\"{value}\""),
            Value::Date(value) => f.write_str(value),
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(Self::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Value::Table(table) => {
                let entries: Vec<String> =
                    table.entries.iter().map(|entry| format!("{} = {}", quoted(&entry.key), entry.node)).collect();
                if entries.is_empty() { f.write_str("{}") } else { write!(f, "{{ {} }}", entries.join(", ")) }
            }
        }
    }
}

impl Table {
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node)
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<Entry> {
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(index))
    }

    /// Puts a value in the key's place, or at the end.
    pub(crate) fn insert(&mut self, key: &str, node: Node) {
        let place = node.place;
        match self.entries.iter_mut().find(|entry| entry.key == key) {
            Some(entry) => (entry.place, entry.node) = (place, node),
            None => self.entries.push(Entry { key: key.to_owned(), place, node }),
        }
    }

    /// The entry at a key path.
    pub(crate) fn entry_at(&self, path: &[String]) -> Option<&Entry> {
        let (first, rest) = path.split_first()?;
        let entry = self.entry(first)?;
        if rest.is_empty() { Some(entry) } else { entry.node.as_table()?.entry_at(rest) }
    }

    /// Sets the value at a key path and makes the tables on the way. A schedule's name on the way becomes its table, so that
    /// `train.schedule.factor` can be set on `schedule = "plateau"`. Where something else stands on the way, gives its key path.
    pub(crate) fn set(&mut self, path: &[String], node: Node) -> Result<(), Vec<String>> {
        self.set_below(path, 0, node)
    }

    fn set_below(&mut self, path: &[String], depth: usize, node: Node) -> Result<(), Vec<String>> {
        let key = &path[depth];
        if depth + 1 == path.len() {
            self.insert(key, node);
            return Ok(());
        }
        if self.get(key).is_none() {
            self.insert(key, Node::new(Value::Table(Self::default()), node.place));
        }
        let Some(next) = self.get_mut(key) else { return Err(path[..=depth].to_vec()) };
        if let Value::String(name) = &next.value
            && key == "schedule"
        {
            let mut table = Self::default();
            table.insert("kind", Node::new(Value::String(name.clone()), next.place));
            next.value = Value::Table(table);
        }
        match &mut next.value {
            Value::Table(table) => table.set_below(path, depth + 1, node),
            _ => Err(path[..=depth].to_vec()),
        }
    }

    /// Removes what stands at a key path.
    pub(crate) fn remove_at(&mut self, path: &[String]) -> Option<Entry> {
        let (first, rest) = path.split_first()?;
        if rest.is_empty() {
            return self.remove(first);
        }
        match &mut self.get_mut(first)?.value {
            Value::Table(table) => table.remove_at(rest),
            _ => None,
        }
    }

    /// This table with another one laid over it, section by section; lists and schedules are replaced as a whole.
    pub(crate) fn overlaid(&self, over: &Self) -> Self {
        let mut merged = self.clone();
        for entry in &over.entries {
            match (merged.get_mut(&entry.key).map(|node| &mut node.value), &entry.node.value) {
                (Some(Value::Table(below)), Value::Table(above)) if entry.key != "schedule" => {
                    *below = below.overlaid(above)
                }
                _ => merged.insert(&entry.key, entry.node.clone()),
            }
        }
        merged
    }
}

/// Reads a document.
pub(crate) fn parse(text: &str) -> Result<Table, SyntaxError> {
    let lines = Lines::new(text);
    let table = DeTable::parse(text).map_err(|error| SyntaxError {
        message: error.message().to_owned(),
        line: lines.line(error.span().map_or(text.trim_end().len(), |span| span.start)),
    })?;
    convert_table(table.get_ref(), &lines)
}

/// Byte offsets at which lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(index, _)| index + 1)).collect())
    }

    fn line(&self, offset: usize) -> u32 {
        u32::try_from(self.0.partition_point(|start| *start <= offset)).unwrap_or(u32::MAX)
    }
}

fn convert_table(table: &DeTable<'_>, lines: &Lines) -> Result<Table, SyntaxError> {
    let mut entries: Vec<(usize, Entry)> = Vec::with_capacity(table.len());
    for (key, value) in table {
        let place = Place::Line(lines.line(key.span().start));
        let node = convert(value.get_ref(), lines.line(value.span().start), lines)?;
        entries.push((key.span().start, Entry { key: key.get_ref().to_string(), place, node }));
    }
    // The parser keeps keys sorted; the order of writing decides the order of trials.
    entries.sort_by_key(|(start, _)| *start);
    Ok(Table { entries: entries.into_iter().map(|(_, entry)| entry).collect() })
}

fn convert(value: &DeValue<'_>, line: u32, lines: &Lines) -> Result<Node, SyntaxError> {
    let value = match value {
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Integer(integer) => Value::Integer(
            i64::from_str_radix(integer.as_str(), integer.radix())
                .map_err(|_| SyntaxError { message: format!("the whole number {integer} is too large"), line })?,
        ),
        DeValue::Float(float) => Value::Float(
            float.as_str().parse().map_err(|_| SyntaxError { message: format!("{float} is not a number"), line })?,
        ),
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| convert(item.get_ref(), lines.line(item.span().start), lines))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Table(table) => Value::Table(convert_table(table, lines)?),
    };
    Ok(Node::new(value, Place::Line(line)))
}

/// A key as TOML writes it: bare where it can be.
pub(crate) fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { key.to_owned() } else { format!("\"{key}\"") }
}

/// A key path as TOML writes it.
pub(crate) fn dotted(path: &[String]) -> String {
    path.iter().map(|key| quoted(key)).collect::<Vec<_>>().join(".")
}
