//! Globs over keys: `*` within a segment, `**` across segments, `?` one character, the rest literal.
//! A glob without `/` is compared with the last segment, as in ignore files.

/// A list of globs to keep and one to drop.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    include: Vec<String>,
    exclude: Vec<String>,
    /// Stands before each key that is asked about.
    prefix: Vec<u8>,
}

impl Filter {
    /// Keeps keys that match any of `include` (or all, when empty) and none of `exclude`.
    pub fn new(include: &[String], exclude: &[String]) -> Self {
        Self { include: include.to_vec(), exclude: exclude.to_vec(), prefix: Vec::new() }
    }

    /// The same, for keys from which `prefix` was taken off.
    #[must_use]
    pub fn within(&self, prefix: &str) -> Self {
        Self { prefix: prefix.as_bytes().to_vec(), ..self.clone() }
    }

    /// True when the key is kept.
    pub fn keeps(&self, key: &[u8]) -> bool {
        if self.include.is_empty() && self.exclude.is_empty() {
            return true;
        }
        let whole;
        let key = if self.prefix.is_empty() {
            key
        } else {
            whole = [&self.prefix, key].concat();
            &whole
        };
        let any = |globs: &[String]| globs.iter().any(|g| matches(g, key));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// True when the key matches the glob.
pub fn matches(glob: &str, key: &[u8]) -> bool {
    if glob.contains('/') {
        return walk(glob.trim_start_matches('/').as_bytes(), key);
    }
    let name = key.strip_suffix(b"/").unwrap_or(key);
    walk(glob.as_bytes(), name.rsplit(|&b| b == b'/').next().unwrap_or(name))
}

fn is_wild(b: u8) -> bool {
    matches!(b, b'*' | b'?')
}

/// The glob is followed once from its beginning to its end, with one row that says which beginnings of the text it matches so
/// far: time is bounded by the product of the lengths, whatever the glob is.
fn walk(glob: &[u8], text: &[u8]) -> bool {
    let Some(first) = glob.iter().position(|b| is_wild(*b)) else { return glob == text };
    let last = glob.iter().rposition(|b| is_wild(*b)).unwrap_or(first);
    // Most keys differ in what stands before the first wildcard or behind the last one.
    let tail = &glob[last + 1..];
    let tail = tail.strip_prefix(b"/").unwrap_or(tail);
    if !text.starts_with(&glob[..first]) || !text.ends_with(tail) {
        return false;
    }
    // `reach[t]`: the glob so far matches the first `t` bytes.
    let mut reach = vec![false; text.len() + 1];
    reach[first] = true;
    let mut rest = &glob[first..];
    while let Some((&b, behind)) = rest.split_first() {
        if let Some(mut behind) = rest.strip_prefix(b"**/") {
            // Once more of the same changes nothing.
            while let Some(more) = behind.strip_prefix(b"**/") {
                behind = more;
            }
            rest = behind;
            // Any folders, or none: what follows begins where a segment begins.
            let mut seen = false;
            for (t, r) in reach.iter_mut().enumerate() {
                let here = *r;
                *r = (t == 0 || text[t - 1] == b'/') && (here || seen);
                seen |= here;
            }
        } else if let Some(behind) = rest.strip_prefix(b"**") {
            rest = behind;
            let mut seen = false;
            for r in &mut reach {
                seen |= *r;
                *r = seen;
            }
        } else if b == b'*' {
            rest = behind;
            let mut before = reach[0];
            for (r, c) in reach[1..].iter_mut().zip(text) {
                *r |= before && *c != b'/';
                before = *r;
            }
        } else {
            rest = behind;
            let mut before = std::mem::take(&mut reach[0]);
            for (r, c) in reach[1..].iter_mut().zip(text) {
                let fits = if b == b'?' { *c != b'/' } else { *c == b };
                before = std::mem::replace(r, before && fits);
            }
        }
        if !reach.contains(&true) {
            return false;
        }
    }
    reach[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_documented() {
        for (glob, key, want) in [
            ("*.log", "a/b/x.log", true),
            ("*.log", "a/x.logs", false),
            ("a/*.log", "a/x.log", true),
            ("a/*.log", "a/b/x.log", false),
            ("a/**", "a/b/c", true),
            ("**/tmp/*", "x/y/tmp/z", true),
            ("**/tmp/*", "tmp/z", true),
            ("x?z", "xyz", true),
            ("x?z", "x/z", false),
            ("*", "", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXbY", false),
        ] {
            assert_eq!(matches(glob, key.as_bytes()), want, "{glob} {key}");
        }
    }

    #[test]
    fn sec_f15_glob_takes_at_most_the_product_of_both_lengths() {
        // Tried one way after the other, these would be 2^40 ways.
        let deep = "a/".repeat(60);
        assert!(!matches(&format!("{}z", "**/".repeat(40)), format!("{deep}y").as_bytes()));
        assert!(matches(&format!("{}z", "**/".repeat(40)), format!("{deep}z").as_bytes()));
        assert!(!matches(&format!("{}b/", "*a".repeat(200)), "a".repeat(1000).as_bytes()));
        assert!(!matches(&format!("/{}b", "**a".repeat(200)), "a".repeat(1000).as_bytes()));
        for (glob, key, want) in [
            // An earlier star is tried again too.
            ("**/tmp/*", "x/tmp/y/tmp/z", true),
            ("**/**/z", "z", true),
            ("**/**/z", "a/b/z", true),
            ("**/**/z", "a/bz", false),
            ("a**/b", "a/b", true),
            ("a**/b", "ax/y/b", true),
            ("a**/b", "ab", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a//b", true),
            ("a/***", "a/b/c", true),
            ("a/?/b", "a///b", false),
            ("a/b", "a/b", true),
            ("a/b*", "a", false),
        ] {
            assert_eq!(matches(glob, key.as_bytes()), want, "{glob} {key}");
        }
    }

    /// The same as [`walk`] in the words of the module's head; it tries one way after the other.
    fn slowly(glob: &[u8], text: &[u8], at: usize) -> bool {
        if let Some(behind) = glob.strip_prefix(b"**/") {
            return (at..=text.len()).any(|t| (t == 0 || text[t - 1] == b'/') && slowly(behind, text, t));
        }
        if let Some(behind) = glob.strip_prefix(b"**") {
            return (at..=text.len()).any(|t| slowly(behind, text, t));
        }
        let Some((&b, behind)) = glob.split_first() else { return at == text.len() };
        if b == b'*' {
            let segment = text[at..].iter().position(|c| *c == b'/').unwrap_or(text.len() - at);
            return (at..=at + segment).any(|t| slowly(behind, text, t));
        }
        let fits = |c: u8| if b == b'?' { c != b'/' } else { c == b };
        text.get(at).is_some_and(|c| fits(*c)) && slowly(behind, text, at + 1)
    }

    #[test]
    fn fuzz_globs() {
        let corpus = [
            "a/**/b*\na/x/bc",
            "**/tmp/*\nx/tmp/y/tmp/z",
            "*.log\na/b.log",
            "x?z\nxyz",
            "a/***\na/b",
            "**/**/z\na/z",
        ];
        testkit::fuzz::fuzz("globs", &corpus.map(|text| text.as_bytes().to_vec()), |input, _| {
            let at = input.iter().position(|b| *b == b'\n').unwrap_or(input.len());
            let glob = String::from_utf8_lossy(&input[..at]).into_owned();
            let text = input.get(at + 1..).unwrap_or_default();
            let found = matches(&glob, text);
            let _ = Filter::new(std::slice::from_ref(&glob), &[]).within("a/").keeps(text);
            // The slow way has a bound of its own.
            let wild = glob.bytes().filter(|b| is_wild(*b)).count();
            if glob.contains('/') && wild <= 6 && text.len() <= 16 {
                let whole = glob.trim_start_matches('/').as_bytes();
                assert_eq!(found, slowly(whole, text, 0), "{glob:?} {:?}", String::from_utf8_lossy(text));
            }
        });
    }
}
