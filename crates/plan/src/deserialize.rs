//! Settings out of a document's tree, through serde, with errors that know the key path and the place.

use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor, value::StrDeserializer};

use crate::document::{Entry, Node, Place, Table, Value};
use crate::suggest;

/// What is wrong, and where.
#[derive(Debug)]
pub(crate) struct ReadError {
    /// Key path from the root of what was read; list items as `[index]` on the key before.
    pub path: Vec<String>,
    pub place: Option<Place>,
    message: String,
    siblings: Option<&'static [&'static str]>,
}

impl ReadError {
    fn new(message: String) -> Self {
        Self { path: Vec::new(), place: None, message, siblings: None }
    }

    /// The message, now that the whole path is known.
    pub(crate) fn message(&self) -> String {
        match self.siblings {
            Some(siblings) => suggest::unknown_key(&self.path, siblings),
            None => self.message.clone(),
        }
    }

    fn below(mut self, entry: &Entry) -> Self {
        self.place = self.place.or(Some(entry.node.place));
        match self.path.first_mut() {
            Some(first) if first.starts_with('[') => first.insert_str(0, &entry.key),
            _ => self.path.insert(0, entry.key.clone()),
        }
        self
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(got: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let got = match got {
            de::Unexpected::Signed(value) => value.to_string(),
            de::Unexpected::Float(value) => value.to_string(),
            de::Unexpected::Bool(value) => value.to_string(),
            de::Unexpected::Seq => "a list".to_owned(),
            de::Unexpected::Map => "a table".to_owned(),
            other => other.to_string(),
        };
        Self::new(format!("must be {expected}, got {got}"))
    }

    fn unknown_field(_: &str, siblings: &'static [&'static str]) -> Self {
        Self { siblings: Some(siblings), ..Self::new(String::new()) }
    }

    fn unknown_variant(name: &str, names: &'static [&'static str]) -> Self {
        Self::new(suggest::unknown_name(name, names))
    }

    fn missing_field(name: &'static str) -> Self {
        Self::new(format!("`{name}` is missing"))
    }
}

/// Reads a table into a type.
pub(crate) fn read_table<T: DeserializeOwned>(table: &Table) -> Result<T, ReadError> {
    T::deserialize(TableReader(table))
}

/// Reads a value into a type.
pub(crate) fn read<T: DeserializeOwned>(node: &Node) -> Result<T, ReadError> {
    T::deserialize(Reader(node))
}

struct Reader<'a>(&'a Node);

impl Reader<'_> {
    fn refuse<T>(&self, expected: &str) -> Result<T, ReadError> {
        Err(ReadError::new(format!("must be {expected}, got {}", self.0)))
    }

    fn text(&self) -> Option<&str> {
        match &self.0.value {
            Value::String(text) => Some(text),
            _ => self.0.typed.as_deref(),
        }
    }
}

/// Whole numbers of one width: negative and too large ones get a message of their own.
macro_rules! whole_numbers {
    ($($method:ident $visit:ident $type:ty;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            match self.0.value {
                Value::Integer(value) => match <$type>::try_from(value) {
                    Ok(value) => visitor.$visit(value),
                    Err(_) if value < 0 => self.refuse("a whole number ≥ 0"),
                    Err(_) => self.refuse(&format!("at most {}", <$type>::MAX)),
                },
                _ => self.refuse("a whole number"),
            }
        })*
    };
}

impl<'de> de::Deserializer<'de> for Reader<'_> {
    type Error = ReadError;

    whole_numbers! {
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(text) | Value::Date(text) => visitor.visit_str(text),
            Value::Array(items) => visitor.visit_seq(Items { items, next: 0 }),
            Value::Table(table) => TableReader(table).deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.0.value {
            Value::Boolean(value) => visitor.visit_bool(value),
            _ => self.refuse("true or false"),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.0.as_number() {
            Some(value) => visitor.visit_f64(value),
            None => self.refuse("a number"),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.text() {
            Some(text) => visitor.visit_str(text),
            None => self.refuse("a string, in quotes"),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match self.text() {
            Some(text) => {
                let name: StrDeserializer<'_, ReadError> = text.into_deserializer();
                visitor.visit_enum(name)
            }
            None => self.refuse(&format!("one of {}", names.join(", "))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Array(items) => visitor.visit_seq(Items { items, next: 0 }),
            _ => self.refuse("a list"),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Array(items) if items.len() == length => visitor.visit_seq(Items { items, next: 0 }),
            _ => self.refuse(&format!("a list of {length} values")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Table(table) => TableReader(table).deserialize_map(visitor),
            _ => self.refuse("a table"),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_map(visitor)
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple_struct identifier ignored_any
    }
}

struct TableReader<'a>(&'a Table);

impl<'de> de::Deserializer<'de> for TableReader<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_map(Entries { entries: &self.0.entries, next: 0 })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Entries<'a> {
    entries: &'a [Entry],
    next: usize,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        let Some(entry) = self.entries.get(self.next) else { return Ok(None) };
        self.next += 1;
        let name: StrDeserializer<'_, ReadError> = entry.key.as_str().into_deserializer();
        seed.deserialize(name).map(Some).map_err(|mut error| {
            error.place = Some(entry.place);
            error.below(entry)
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let entry = &self.entries[self.next - 1];
        seed.deserialize(Reader(&entry.node)).map_err(|error| error.below(entry))
    }
}

struct Items<'a> {
    items: &'a [Node],
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        let Some(item) = self.items.get(self.next) else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        seed.deserialize(Reader(item)).map(Some).map_err(|mut error| {
            error.place = error.place.or(Some(item.place));
            error.path.insert(0, format!("[{index}]"));
            error
        })
    }
}
