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

/// Backtracks only to the last star, so time is bounded by the product of the lengths.
fn walk(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut back: Option<(usize, usize, bool)> = None;
    while t < text.len() || g < glob.len() {
        let here = match glob.get(g) {
            Some(b'*') => {
                let deep = glob.get(g + 1) == Some(&b'*');
                g += if deep { 2 } else { 1 };
                if deep && glob.get(g) == Some(&b'/') && (t == 0 || text.get(t - 1) == Some(&b'/')) {
                    // `**/` also stands for no directory at all.
                    if walk(&glob[g + 1..], &text[t..]) {
                        return true;
                    }
                }
                back = Some((g, t, deep));
                continue;
            }
            Some(b'?') => text.get(t).is_some_and(|&c| c != b'/'),
            Some(c) => text.get(t) == Some(c),
            None => false,
        };
        if here {
            g += 1;
            t += 1;
            continue;
        }
        match back {
            Some((star, from, deep)) if from < text.len() && (deep || text[from] != b'/') => {
                back = Some((star, from + 1, deep));
                g = star;
                t = from + 1;
            }
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_as_users_expect() {
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
}
