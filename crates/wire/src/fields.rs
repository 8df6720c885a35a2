//! Reading JSON bodies field by field: a missing field, a wrong type and a text that is too long are three
//! different answers, each with the field's name. `null` counts as absent, unknown fields are ignored.
//!
//! A reader can also be run without a body, to learn what it asks for ([`Recorder`]): that is how the description of
//! the API is made.
//!
//! Decision: ADR 0010, `docs/adr/0010-the-api-describes-itself.md`.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use serde_json::{Map, Value};

/// Why a field is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// Not there.
    Missing(String),
    /// Of another JSON type than the named one.
    WrongType(String, &'static str),
    /// Longer than so many characters or items.
    TooLong(String, usize),
    /// Not one of some words; the second text says which there are.
    NotAWord(String, String),
}

/// What a reader asks of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// A text of at most so many characters.
    Text(usize),
    /// One of these words.
    Word(Vec<String>),
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// An object.
    Object,
    /// A list of anything, of at most so many items.
    List(usize),
    /// A list of at most so many texts of at most so many characters.
    Texts(usize, usize),
    /// A list of at most so many objects.
    Objects(usize),
}

/// What readers asked for: each field by its name, as `src_node.bucket` or `bandwidth_policy[].start`, with whether
/// it had to be there each time.
#[derive(Debug, Default)]
pub struct Recorder {
    asked: Mutex<BTreeMap<String, (FieldKind, bool)>>,
    /// What some fields are to hold, so that readers take the way that depends on them.
    answers: BTreeMap<String, String>,
}

static NOTHING: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

impl Recorder {
    /// Gives these answers, by the names of fields; whatever else is asked for gets a stand-in.
    pub fn with(answers: &[(&str, &str)]) -> Self {
        let answers = answers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Self { answers, ..Self::default() }
    }

    /// Fields that hold whatever is asked for, and remember it here.
    pub fn fields(&self) -> Fields<'_> {
        Fields { map: &NOTHING, place: String::new(), recorder: Some(self), only: None }
    }

    /// What was asked for so far.
    pub fn asked(&self) -> BTreeMap<String, (FieldKind, bool)> {
        self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn note(&self, name: String, asked: FieldKind, required: bool) {
        let mut all = self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match all.get_mut(&name) {
            // The same field may be read in a weaker form first: the stronger one counts within one run.
            Some((known, needed)) => {
                *needed |= required;
                if matches!(asked, FieldKind::Word(_)) {
                    *known = asked;
                }
            }
            None => drop(all.insert(name, (asked, required))),
        }
    }
}

/// An object of a request, with its place for messages.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    place: String,
    recorder: Option<&'a Recorder>,
    /// Only these fields are there.
    only: Option<&'a [&'a str]>,
}

type Read<T> = Result<T, FieldError>;

impl<'a> Fields<'a> {
    /// The root object.
    pub fn root(map: &'a Map<String, Value>) -> Self {
        Self { map, place: String::new(), recorder: None, only: None }
    }

    /// The full name of a field, as `src_node.bucket`.
    pub fn name(&self, field: &str) -> String {
        if self.place.is_empty() { field.to_owned() } else { format!("{}.{field}", self.place) }
    }

    fn allows(&self, field: &str) -> bool {
        self.only.is_none_or(|only| only.contains(&field))
    }

    fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|v| !v.is_null() && self.allows(field))
    }

    /// Records a field while the API is described; true when there is no body.
    fn noted(&self, field: &str, asked: impl FnOnce() -> FieldKind, required: bool) -> bool {
        let Some(recorder) = self.recorder else { return false };
        if self.allows(field) {
            recorder.note(self.name(field), asked(), required);
        }
        true
    }

    fn answer(&self, field: &str) -> Option<&'a str> {
        self.recorder?.answers.get(&self.name(field)).map(String::as_str)
    }

    /// The same object, with only some of its fields.
    pub fn only(&self, fields: &'a [&'a str]) -> Fields<'a> {
        Fields { only: Some(fields), ..self.clone() }
    }

    /// True when the field is there and not null.
    pub fn has(&self, field: &str) -> bool {
        self.recorder.is_some() || self.get(field).is_some()
    }

    /// The first field that is there and not among `known`.
    pub fn unknown(&self, known: &[&str]) -> Option<&'a str> {
        self.map.keys().map(String::as_str).find(|name| !known.contains(name))
    }

    fn wrong(&self, field: &str, want: &'static str) -> FieldError {
        FieldError::WrongType(self.name(field), want)
    }

    fn missing(&self, field: &str) -> FieldError {
        FieldError::Missing(self.name(field))
    }

    /// A text of at most `max` characters.
    ///
    /// # Errors
    /// [`FieldError`] naming the field.
    pub fn opt_text(&self, field: &str, max: usize) -> Read<Option<&'a str>> {
        if self.noted(field, || FieldKind::Text(max), false) {
            return Ok(Some(self.answer(field).unwrap_or_default()).filter(|_| self.allows(field)));
        }
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(s)) if s.chars().count() <= max => Ok(Some(s)),
            Some(Value::String(_)) => Err(FieldError::TooLong(self.name(field), max)),
            Some(_) => Err(self.wrong(field, "a string")),
        }
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// [`FieldError`] naming the field.
    pub fn text(&self, field: &str, max: usize) -> Read<&'a str> {
        if self.noted(field, || FieldKind::Text(max), true) {
            return Ok(self.answer(field).unwrap_or("x"));
        }
        self.opt_text(field, max)?.ok_or_else(|| self.missing(field))
    }

    /// A text that must be there and not be empty.
    ///
    /// # Errors
    /// [`FieldError`] naming the field.
    pub fn filled(&self, field: &str, max: usize) -> Read<&'a str> {
        self.text(field, max).and_then(|t| if t.is_empty() { Err(self.missing(field)) } else { Ok(t) })
    }

    /// One of some words, whatever its case; none when absent or empty.
    ///
    /// # Errors
    /// [`FieldError`] naming the field and the words.
    pub fn opt_one_of<'w>(&self, field: &str, words: &[&'w str]) -> Read<Option<&'w str>> {
        let all = || FieldKind::Word(words.iter().map(|w| (*w).to_owned()).collect());
        if self.noted(field, all, false) {
            let wanted = self.answer(field);
            let found = words.iter().find(|w| wanted == Some(**w)).or(words.first());
            return Ok(found.copied().filter(|_| self.allows(field)));
        }
        match self.opt_text(field, 255)? {
            None | Some("") => Ok(None),
            Some(text) => match words.iter().find(|w| w.eq_ignore_ascii_case(text)) {
                Some(word) => Ok(Some(word)),
                None => {
                    let why = format!("`{text}` is not one of {}", words.join(", "));
                    Err(FieldError::NotAWord(self.name(field), why))
                }
            },
        }
    }

    /// One of some words, which must be there.
    ///
    /// # Errors
    /// [`FieldError`] naming the field.
    pub fn one_of<'w>(&self, field: &str, words: &[&'w str]) -> Read<&'w str> {
        let found = self.opt_one_of(field, words)?;
        if let Some(recorder) = self.recorder {
            recorder.note(self.name(field), FieldKind::Text(0), true);
        }
        found.ok_or_else(|| self.missing(field))
    }

    /// True or false.
    ///
    /// # Errors
    /// [`FieldError`] naming the field.
    pub fn opt_bool(&self, field: &str) -> Read<Option<bool>> {
        if self.noted(field, || FieldKind::Bool, false) {
            return Ok(Some(false));
        }
        match self.get(field) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(_) => Err(self.wrong(field, "true or false")),
        }
    }

    /// A text that some clients write as a number.
    ///
    /// # Errors
    /// [`FieldError`] naming the field.
    pub fn opt_text_or_number(&self, field: &str, max: usize) -> Read<Option<String>> {
        if let Some(Value::Number(n)) = self.get(field) {
            return Ok(Some(n.to_string()));
        }
        Ok(self.opt_text(field, max)?.map(str::to_owned))
    }

    /// True or false, which some clients write as a text.
    ///
    /// # Errors
    /// [`FieldError`] naming the field.
    pub fn opt_bool_or_text(&self, field: &str) -> Read<Option<bool>> {
        match self.get(field) {
            Some(Value::String(s)) if s == "true" => Ok(Some(true)),
            Some(Value::String(s)) if s == "false" => Ok(Some(false)),
            _ => self.opt_bool(field),
        }
    }

    /// True or false, which must be there.
    ///
    /// # Errors
    /// [`FieldError`] naming the field.
    pub fn bool(&self, field: &str) -> Read<bool> {
        if self.noted(field, || FieldKind::Bool, true) {
            return Ok(false);
        }
        self.opt_bool(field)?.ok_or_else(|| self.missing(field))
    }

    /// A whole number; `2097152.0` is one too.
    ///
    /// # Errors
    /// [`FieldError`] naming the field.
    pub fn opt_int(&self, field: &str) -> Read<Option<i64>> {
        if self.noted(field, || FieldKind::Int, false) {
            return Ok(Some(1));
        }
        match self.get(field) {
            None => Ok(None),
            Some(Value::Number(n)) => {
                whole_number(n).map(Some).ok_or_else(|| self.wrong(field, "an integer"))
            }
            Some(_) => Err(self.wrong(field, "an integer")),
        }
    }

    /// A whole number that must be there.
    ///
    /// # Errors
    /// [`FieldError`] naming the field.
    pub fn int(&self, field: &str) -> Read<i64> {
        if self.noted(field, || FieldKind::Int, true) {
            return Ok(1);
        }
        self.opt_int(field)?.ok_or_else(|| self.missing(field))
    }

    /// An object.
    ///
    /// # Errors
    /// [`FieldError`] naming the field.
    pub fn opt_object(&self, field: &str) -> Read<Option<Fields<'a>>> {
        let inner = |map| Fields { map, place: self.name(field), recorder: self.recorder, only: None };
        if self.noted(field, || FieldKind::Object, false) {
            return Ok(Some(inner(&NOTHING)).filter(|_| self.allows(field)));
        }
        match self.get(field) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(inner(map))),
            Some(_) => Err(self.wrong(field, "an object")),
        }
    }

    /// An object that must be there.
    ///
    /// # Errors
    /// [`FieldError`] naming the field.
    pub fn object(&self, field: &str) -> Read<Fields<'a>> {
        self.noted(field, || FieldKind::Object, true);
        self.opt_object(field)?.ok_or_else(|| self.missing(field))
    }

    /// A list of at most `max` items; none when absent.
    ///
    /// # Errors
    /// [`FieldError`] naming the field.
    pub fn opt_list(&self, field: &str, max: usize) -> Read<Option<&'a [Value]>> {
        if self.noted(field, || FieldKind::List(max), false) {
            return Ok(None);
        }
        match self.get(field) {
            None => Ok(None),
            Some(Value::Array(items)) if items.len() <= max => Ok(Some(items)),
            Some(Value::Array(_)) => Err(FieldError::TooLong(self.name(field), max)),
            Some(_) => Err(self.wrong(field, "a list")),
        }
    }

    /// A list of texts.
    ///
    /// # Errors
    /// [`FieldError`] naming the item.
    pub fn opt_texts(&self, field: &str, max: usize, each: usize) -> Read<Option<Vec<String>>> {
        if self.noted(field, || FieldKind::Texts(max, each), false) {
            return Ok(Some(vec![]));
        }
        let Some(items) = self.opt_list(field, max)? else { return Ok(None) };
        let text = |(i, item): (usize, &Value)| match item {
            Value::String(s) if s.chars().count() <= each => Ok(s.clone()),
            Value::String(_) => Err(FieldError::TooLong(format!("{}[{i}]", self.name(field)), each)),
            _ => Err(FieldError::WrongType(format!("{}[{i}]", self.name(field)), "a string")),
        };
        items.iter().enumerate().map(text).collect::<Read<Vec<_>>>().map(Some)
    }

    /// A list of texts that must be there.
    ///
    /// # Errors
    /// [`FieldError`] naming the item.
    pub fn texts(&self, field: &str, max: usize, each: usize) -> Read<Vec<String>> {
        self.noted(field, || FieldKind::Texts(max, each), true);
        self.opt_texts(field, max, each)?.ok_or_else(|| self.missing(field))
    }

    /// A list of objects.
    ///
    /// # Errors
    /// [`FieldError`] naming the item.
    pub fn opt_objects(&self, field: &str, max: usize) -> Read<Option<Vec<Fields<'a>>>> {
        let inner = |map, place| Fields { map, place, recorder: self.recorder, only: None };
        if self.noted(field, || FieldKind::Objects(max), false) {
            return Ok(Some(vec![inner(&NOTHING, format!("{}[]", self.name(field)))]));
        }
        let Some(items) = self.opt_list(field, max)? else { return Ok(None) };
        let object = |(i, item): (usize, &'a Value)| {
            let place = format!("{}[{i}]", self.name(field));
            match item {
                Value::Object(map) => Ok(inner(map, place)),
                _ => Err(FieldError::WrongType(place, "an object")),
            }
        };
        items.iter().enumerate().map(object).collect::<Read<Vec<_>>>().map(Some)
    }
}

fn whole_number(n: &serde_json::Number) -> Option<i64> {
    n.as_i64().or_else(|| n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9.0e15).map(|f| f as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn each_invalid_value_names_its_field() {
        let m = map(r#"{"a": {"b": 5, "long": "xxxx", "n": null, "f": 2.0, "list": ["x", 1]}}"#);
        let a = Fields::root(&m).object("a").unwrap();
        assert_eq!(a.text("b", 9), Err(FieldError::WrongType("a.b".into(), "a string")));
        assert_eq!(a.text("long", 3), Err(FieldError::TooLong("a.long".into(), 3)));
        assert_eq!(a.text("n", 3), Err(FieldError::Missing("a.n".into())));
        assert_eq!(a.opt_int("f"), Ok(Some(2)));
        assert_eq!(a.opt_texts("list", 9, 9), Err(FieldError::WrongType("a.list[1]".into(), "a string")));
        assert_eq!(a.opt_bool("missing"), Ok(None));
    }
}
