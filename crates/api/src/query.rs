//! Parameters of a query string.

use std::collections::HashMap;

use control::TaskError;

/// Names and values.
pub(crate) type Params = HashMap<String, String>;

/// A parameter of the query; one without a value is as none.
pub(crate) fn given<'q>(query: &'q Params, name: &str) -> Option<&'q str> {
    query.get(name).map(String::as_str).filter(|text| !text.is_empty())
}

/// A number of the query within a range.
pub(crate) fn number(query: &Params, name: &str, default: u64, range: (u64, u64)) -> Result<u64, TaskError> {
    let Some(text) = given(query, name) else { return Ok(default) };
    // `parse` would take a sign.
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .filter(|n| (range.0..=range.1).contains(n))
        .ok_or_else(|| TaskError::Range(format!("`{name}` must be a number from {} to {}", range.0, range.1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cl_f10_empty_query_parameter_is_ignored() {
        let query =
            Params::from([("limit".to_owned(), String::new()), ("offset".to_owned(), "7".to_owned())]);
        assert_eq!(given(&query, "limit"), None);
        assert!(matches!(number(&query, "limit", 10, (1, 100)), Ok(10)));
        assert!(matches!(number(&query, "offset", 0, (0, 9)), Ok(7)));
        assert!(number(&query, "offset", 0, (0, 6)).is_err());
        let signed = Params::from([("limit".to_owned(), "+10".to_owned())]);
        assert!(number(&signed, "limit", 10, (1, 100)).is_err());
    }
}
