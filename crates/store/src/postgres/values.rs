//! Our values as parameters and columns of PostgreSQL.
//!
//! Text there cannot hold NUL, which names of objects and messages may have. It is stored as U+10FFFF and `0`, and
//! U+10FFFF itself as U+10FFFF and `1`, so equal texts stay equal and others different.

use std::borrow::Cow;
use std::error::Error as StdError;

use model::error::{Error, Kind, Result};
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, Kind as TypeKind, ToSql, Type, to_sql_checked};

use crate::{Row, Value};

const ESCAPE: char = '\u{10FFFF}';

/// Arguments of one statement with their types.
pub(super) struct Bound {
    values: Vec<Value>,
}

impl Bound {
    pub(super) fn new(mut values: Vec<Value>) -> Self {
        for value in &mut values {
            if let Value::Text(text) = value
                && let Cow::Owned(escaped) = escape(text)
            {
                *text = escaped;
            }
        }
        Self { values }
    }

    pub(super) fn params(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.values.iter().map(|value| (value as &(dyn ToSql + Sync), type_of(value))).collect()
    }
}

fn type_of(value: &Value) -> Type {
    match value {
        Value::Int(_) => Type::INT8,
        Value::Text(_) => Type::TEXT,
        Value::Blob(_) => Type::BYTEA,
        // Type 0 leaves it to the server to infer.
        Value::Null => Type::new(String::new(), 0, TypeKind::Simple, String::new()),
    }
}

fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\0' => out.extend([ESCAPE, '0']),
            ESCAPE => out.extend([ESCAPE, '1']),
            other => out.push(other),
        }
    }
    Cow::Owned(out)
}

fn unescape(text: &str) -> String {
    if !text.contains(ESCAPE) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ESCAPE => out.push(if chars.next() == Some('0') { '\0' } else { ESCAPE }),
            other => out.push(other),
        }
    }
    out
}

impl ToSql for Value {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(v) => v.to_sql(ty, out),
            Value::Text(v) => v.as_str().to_sql(ty, out),
            Value::Blob(v) => v.as_slice().to_sql(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> std::result::Result<Self, Box<dyn StdError + Sync + Send>> {
        match *ty {
            Type::INT8 => i64::from_sql(ty, raw).map(Value::Int),
            Type::INT4 => i32::from_sql(ty, raw).map(|v| Value::Int(v.into())),
            Type::BOOL => bool::from_sql(ty, raw).map(|v| Value::Int(v.into())),
            Type::NUMERIC => {
                whole_numeric(raw).map(Value::Int).ok_or_else(|| "a number that is not whole".into())
            }
            Type::BYTEA => Ok(Value::Blob(raw.to_vec())),
            Type::TEXT | Type::VARCHAR | Type::NAME => {
                <&str as FromSql>::from_sql(ty, raw).map(|v| Value::Text(unescape(v)))
            }
            // Functions that answer nothing.
            Type::VOID => Ok(Value::Null),
            _ => Err(format!("a column of type {ty}").into()),
        }
    }

    fn from_sql_null(_: &Type) -> std::result::Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Value::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A NUMERIC without fraction, as `SUM` of integers gives it: digits of base 10,000, the first of weight `weight`.
fn whole_numeric(raw: &[u8]) -> Option<i64> {
    let field = |i: usize| raw.get(2 * i..2 * i + 2).map(|b| i16::from_be_bytes([b[0], b[1]]));
    let (digits, weight, sign) = (field(0)?, field(1)?, field(2)?);
    if digits > weight.checked_add(1)? || !(0..=1).contains(&(sign >> 14)) {
        return None;
    }
    let mut value = 0i64;
    for i in 0..=weight {
        let digit = if i < digits { field(4 + usize::try_from(i).ok()?)? } else { 0 };
        value = value.checked_mul(10_000)?.checked_add(digit.into())?;
    }
    Some(if sign == 0 { value } else { -value })
}

/// Converts a row of the server.
pub(super) fn row(row: &tokio_postgres::Row) -> Result<Row> {
    let value = |i| {
        row.try_get::<_, Value>(i)
            .map_err(|e| Error::new(Kind::Internal, "store", format!("column {i}: {e}")))
    };
    (0..row.len()).map(value).collect::<Result<_>>().map(Row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_with_nul_round_trips_and_stays_distinct() {
        for text in ["", "a", "\0", "a\0b", "\u{10FFFF}", "\u{10FFFF}0", "\0\u{10FFFF}1"] {
            let escaped = escape(text);
            assert!(!escaped.contains('\0'));
            assert_eq!(unescape(&escaped), text);
        }
        assert_ne!(escape("\0"), escape("\u{10FFFF}0"));
    }

    #[test]
    fn whole_numbers_of_any_size_are_read_and_fractions_refused() {
        let raw = |fields: &[i16]| fields.iter().flat_map(|f| f.to_be_bytes()).collect::<Vec<u8>>();
        assert_eq!(whole_numeric(&raw(&[0, 0, 0, 0])), Some(0));
        assert_eq!(whole_numeric(&raw(&[1, 0, 0, 0, 42])), Some(42));
        assert_eq!(whole_numeric(&raw(&[2, 1, 0, 0, 1, 2345])), Some(12_345));
        assert_eq!(whole_numeric(&raw(&[1, 2, 0, 0, 3])), Some(300_000_000));
        assert_eq!(whole_numeric(&raw(&[1, 0, 0x4000, 0, 7])), Some(-7));
        assert_eq!(whole_numeric(&raw(&[1, -1, 0, 1, 5000])), None, "one half");
        assert_eq!(whole_numeric(&raw(&[0, 0, -0x4000, 0])), None, "not a number");
        assert_eq!(whole_numeric(&raw(&[1, 6, 0, 0, 1])), None, "too large");
    }
}
