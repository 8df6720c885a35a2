//! Fields of a form or a query, as they were sent.

/// Fields of one form or query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Form(Vec<(String, String)>);

/// Fields that are read; what comes after them is left out.
const FIELDS_MAX: usize = 500;

impl Form {
    /// Reads `application/x-www-form-urlencoded`.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        Self(
            form_urlencoded::parse(bytes)
                .take(FIELDS_MAX)
                .map(|(n, v)| (n.into_owned(), v.into_owned()))
                .collect(),
        )
    }

    /// The first value of a field; empty when there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    /// The first value without spaces around it.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).trim()
    }

    /// All values of a field.
    pub(crate) fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// True when a box is ticked.
    pub(crate) fn has(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }

    /// Lines of a field that are not empty.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        self.get(name).lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect()
    }
}

/// A query out of fields; those without a value are left out.
pub(crate) fn query(fields: &[(&str, &str)]) -> String {
    let mut out = form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields.iter().filter(|(_, v)| !v.is_empty()) {
        out.append_pair(name, value);
    }
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_and_bounded() {
        let form = Form::parse(b"a=1&b=x+y%26&a=2&c=&t=+z+&l=a%0D%0A%0D%0Ab");
        assert_eq!((form.get("a"), form.get("b"), form.get("c"), form.text("t")), ("1", "x y&", "", "z"));
        assert_eq!(form.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(form.lines("l"), ["a", "b"]);
        assert!(form.has("b") && !form.has("c") && !form.has("d"));
        let many = Form::parse("x=1&".repeat(5000).as_bytes());
        assert_eq!(many.all("x").count(), FIELDS_MAX);
        assert_eq!(query(&[("q", "a&b"), ("n", "")]), "q=a%26b");
    }
}
