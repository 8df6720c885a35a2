//! Values between Rust and SQL, the same for every backend.

use model::error::{Error, Kind, Result};

/// One SQL value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL
    Null,
    /// A 64-bit integer; booleans are 0 and 1.
    Int(i64),
    /// Text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

macro_rules! from {
    ($($t:ty => |$v:ident| $e:expr),* $(,)?) => {
        $(impl From<$t> for Value { fn from($v: $t) -> Self { $e } })*
    };
}

from! {
    i64 => |v| Value::Int(v),
    u64 => |v| Value::Int(i64::try_from(v).unwrap_or(i64::MAX)),
    u32 => |v| Value::Int(i64::from(v)),
    bool => |v| Value::Int(i64::from(v)),
    &str => |v| Value::Text(v.to_owned()),
    String => |v| Value::Text(v),
    Vec<u8> => |v| Value::Blob(v),
    &[u8] => |v| Value::Blob(v.to_vec()),
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(v: Option<T>) -> Self {
        v.map_or(Value::Null, Into::into)
    }
}

/// Builds the arguments of a statement in the order of `$1`, `$2`, …
#[macro_export]
macro_rules! args {
    ($($v:expr),* $(,)?) => { vec![$($crate::Value::from($v)),*] };
}

/// One row, read by position.
#[derive(Clone, Debug, PartialEq)]
pub struct Row(pub Vec<Value>);

impl Row {
    fn wrong(i: usize, want: &str) -> Error {
        Error::new(Kind::Internal, "store", format!("column {i} of a row is not {want}"))
    }

    /// An integer.
    ///
    /// # Errors
    /// When the column is of another type.
    pub fn int(&self, i: usize) -> Result<i64> {
        match self.0.get(i) {
            Some(Value::Int(v)) => Ok(*v),
            Some(Value::Null) => Ok(0),
            _ => Err(Self::wrong(i, "an integer")),
        }
    }

    /// An integer or NULL.
    ///
    /// # Errors
    /// When the column is of another type.
    pub fn opt_int(&self, i: usize) -> Result<Option<i64>> {
        match self.0.get(i) {
            Some(Value::Null) => Ok(None),
            _ => self.int(i).map(Some),
        }
    }

    /// A count that is never negative.
    ///
    /// # Errors
    /// When the column is of another type.
    pub fn count(&self, i: usize) -> Result<u64> {
        self.int(i).map(|v| u64::try_from(v).unwrap_or(0))
    }

    /// Text.
    ///
    /// # Errors
    /// When the column is of another type.
    pub fn text(&self, i: usize) -> Result<&str> {
        match self.0.get(i) {
            Some(Value::Text(v)) => Ok(v),
            _ => Err(Self::wrong(i, "text")),
        }
    }

    /// Text or NULL.
    ///
    /// # Errors
    /// When the column is of another type.
    pub fn opt_text(&self, i: usize) -> Result<Option<&str>> {
        match self.0.get(i) {
            Some(Value::Null) => Ok(None),
            _ => self.text(i).map(Some),
        }
    }

    /// Bytes or NULL.
    ///
    /// # Errors
    /// When the column is of another type.
    pub fn opt_blob(&self, i: usize) -> Result<Option<&[u8]>> {
        match self.0.get(i) {
            Some(Value::Null) => Ok(None),
            Some(Value::Blob(v)) => Ok(Some(v)),
            _ => Err(Self::wrong(i, "bytes")),
        }
    }
}

/// A unit-only enum as the text that serde gives it.
pub(crate) fn enum_text<T: serde::Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(s)) => s,
        _ => String::new(),
    }
}

/// The enum of such a text.
pub(crate) fn parse_enum<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    use serde::de::IntoDeserializer as _;
    T::deserialize(text.into_deserializer())
        .map_err(|e: serde::de::value::Error| Error::new(Kind::Internal, "store", format!("`{text}`: {e}")))
}

/// JSON as text.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::new(Kind::Internal, "store", e.to_string()))
}

/// A value out of JSON text.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::new(Kind::Internal, "store", e.to_string()))
}
