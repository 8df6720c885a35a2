//! Reading JSON bodies field by field: a missing field, a wrong type and a text that is too long are three
//! different answers, each with the field's name. `null` counts as absent, unknown fields are ignored.

use serde_json::{Map, Value};

/// Why a field is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not there.
    Missing(String),
    /// Of another JSON type than the named one.
    WrongType(String, &'static str),
    /// Longer than so many characters or items.
    TooLong(String, usize),
}

/// An object of a request, with its place for messages.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    place: String,
}

type Read<T> = Result<T, Fault>;

impl<'a> Fields<'a> {
    /// The root object.
    pub fn root(map: &'a Map<String, Value>) -> Self {
        Self { map, place: String::new() }
    }

    /// The full name of a field, as `src_node.bucket`.
    pub fn name(&self, field: &str) -> String {
        if self.place.is_empty() { field.to_owned() } else { format!("{}.{field}", self.place) }
    }

    fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|v| !v.is_null())
    }

    /// A copy with only some of the fields.
    pub fn only(&self, fields: &[&str]) -> Map<String, Value> {
        let kept = fields.iter().filter_map(|f| Some(((*f).to_owned(), self.get(f)?.clone())));
        kept.collect()
    }

    /// True when the field is there and not null.
    pub fn has(&self, field: &str) -> bool {
        self.get(field).is_some()
    }

    fn wrong(&self, field: &str, want: &'static str) -> Fault {
        Fault::WrongType(self.name(field), want)
    }

    fn missing(&self, field: &str) -> Fault {
        Fault::Missing(self.name(field))
    }

    /// A text of at most `max` characters.
    ///
    /// # Errors
    /// [`Fault`] naming the field.
    pub fn opt_text(&self, field: &str, max: usize) -> Read<Option<&'a str>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(s)) if s.chars().count() <= max => Ok(Some(s)),
            Some(Value::String(_)) => Err(Fault::TooLong(self.name(field), max)),
            Some(_) => Err(self.wrong(field, "a string")),
        }
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// [`Fault`] naming the field.
    pub fn text(&self, field: &str, max: usize) -> Read<&'a str> {
        self.opt_text(field, max)?.ok_or_else(|| self.missing(field))
    }

    /// A text that must be there and not be empty.
    ///
    /// # Errors
    /// [`Fault`] naming the field.
    pub fn filled(&self, field: &str, max: usize) -> Read<&'a str> {
        self.text(field, max).and_then(|t| if t.is_empty() { Err(self.missing(field)) } else { Ok(t) })
    }

    /// True or false.
    ///
    /// # Errors
    /// [`Fault`] naming the field.
    pub fn opt_bool(&self, field: &str) -> Read<Option<bool>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(_) => Err(self.wrong(field, "true or false")),
        }
    }

    /// A whole number; `2097152.0` is one too.
    ///
    /// # Errors
    /// [`Fault`] naming the field.
    pub fn opt_int(&self, field: &str) -> Read<Option<i64>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Number(n)) => whole(n).map(Some).ok_or_else(|| self.wrong(field, "a whole number")),
            Some(_) => Err(self.wrong(field, "a whole number")),
        }
    }

    /// A whole number that must be there.
    ///
    /// # Errors
    /// [`Fault`] naming the field.
    pub fn int(&self, field: &str) -> Read<i64> {
        self.opt_int(field)?.ok_or_else(|| self.missing(field))
    }

    /// An object.
    ///
    /// # Errors
    /// [`Fault`] naming the field.
    pub fn opt_object(&self, field: &str) -> Read<Option<Fields<'a>>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { map, place: self.name(field) })),
            Some(_) => Err(self.wrong(field, "an object")),
        }
    }

    /// An object that must be there.
    ///
    /// # Errors
    /// [`Fault`] naming the field.
    pub fn object(&self, field: &str) -> Read<Fields<'a>> {
        self.opt_object(field)?.ok_or_else(|| self.missing(field))
    }

    /// A list of at most `max` items; none when absent.
    ///
    /// # Errors
    /// [`Fault`] naming the field.
    pub fn opt_list(&self, field: &str, max: usize) -> Read<Option<&'a [Value]>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Array(items)) if items.len() <= max => Ok(Some(items)),
            Some(Value::Array(_)) => Err(Fault::TooLong(self.name(field), max)),
            Some(_) => Err(self.wrong(field, "a list")),
        }
    }

    /// A list of texts.
    ///
    /// # Errors
    /// [`Fault`] naming the item.
    pub fn opt_texts(&self, field: &str, max: usize, each: usize) -> Read<Option<Vec<String>>> {
        let Some(items) = self.opt_list(field, max)? else { return Ok(None) };
        let text = |(i, item): (usize, &Value)| match item {
            Value::String(s) if s.chars().count() <= each => Ok(s.clone()),
            Value::String(_) => Err(Fault::TooLong(format!("{}[{i}]", self.name(field)), each)),
            _ => Err(Fault::WrongType(format!("{}[{i}]", self.name(field)), "a string")),
        };
        items.iter().enumerate().map(text).collect::<Read<Vec<_>>>().map(Some)
    }

    /// A list of objects.
    ///
    /// # Errors
    /// [`Fault`] naming the item.
    pub fn opt_objects(&self, field: &str, max: usize) -> Read<Option<Vec<Fields<'a>>>> {
        let Some(items) = self.opt_list(field, max)? else { return Ok(None) };
        let object = |(i, item): (usize, &'a Value)| {
            let place = format!("{}[{i}]", self.name(field));
            match item {
                Value::Object(map) => Ok(Fields { map, place }),
                _ => Err(Fault::WrongType(place, "an object")),
            }
        };
        items.iter().enumerate().map(object).collect::<Read<Vec<_>>>().map(Some)
    }
}

fn whole(n: &serde_json::Number) -> Option<i64> {
    n.as_i64().or_else(|| n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9.0e15).map(|f| f as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn each_fault_names_its_field() {
        let m = map(r#"{"a": {"b": 5, "long": "xxxx", "n": null, "f": 2.0, "list": ["x", 1]}}"#);
        let a = Fields::root(&m).object("a").unwrap();
        assert_eq!(a.text("b", 9), Err(Fault::WrongType("a.b".into(), "a string")));
        assert_eq!(a.text("long", 3), Err(Fault::TooLong("a.long".into(), 3)));
        assert_eq!(a.text("n", 3), Err(Fault::Missing("a.n".into())));
        assert_eq!(a.opt_int("f"), Ok(Some(2)));
        assert_eq!(a.opt_texts("list", 9, 9), Err(Fault::WrongType("a.list[1]".into(), "a string")));
        assert_eq!(a.opt_bool("missing"), Ok(None));
    }
}
