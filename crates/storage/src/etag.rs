//! ETags: the cheapest proof there is, when both sides make them of MD5.

use std::fmt;

/// An ETag without its quotes, in the form that comparing needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum Etag {
    /// MD5 of the whole object.
    Md5([u8; 16]),
    /// MD5 of the parts' MD5s, and the number of parts: `hex-N`.
    Parts([u8; 16], u32),
    /// Any other text: equal means unchanged, and no more.
    Other(Box<str>),
    /// A text for conditions, and the MD5 of the whole object, as Azure and Google return them.
    Tagged {
        /// Equal means unchanged.
        tag: Box<str>,
        /// MD5 of the whole object.
        md5: [u8; 16],
    },
    /// The store gives none.
    #[default]
    None,
}

impl Etag {
    /// Reads a header or listing value, with or without quotes or a weak mark.
    pub fn parse(text: &str) -> Self {
        let bare = text.trim().trim_start_matches("W/").trim_matches('"');
        if bare.is_empty() {
            return Etag::None;
        }
        let (hex, parts) = match bare.split_once('-') {
            Some((hex, n)) => (hex, Some(n)),
            None => (bare, None),
        };
        match (unhex(hex), parts.map(str::parse)) {
            (Some(md5), None) => Etag::Md5(md5),
            (Some(md5), Some(Ok(n))) if n > 0 => Etag::Parts(md5, n),
            _ => Etag::Other(bare.into()),
        }
    }

    /// The MD5 of the whole object, when that is known.
    pub fn md5(&self) -> Option<&[u8; 16]> {
        match self {
            Etag::Md5(md5) | Etag::Tagged { md5, .. } => Some(md5),
            _ => None,
        }
    }

    /// A text for conditions, with the MD5 of the whole object where the store told it.
    pub fn tagged(tag: &str, md5: Option<[u8; 16]>) -> Self {
        let tag = tag.trim().trim_start_matches("W/").trim_matches('"');
        match md5 {
            Some(md5) if !tag.is_empty() => Etag::Tagged { tag: tag.into(), md5 },
            Some(md5) => Etag::Md5(md5),
            None if tag.is_empty() => Etag::None,
            None => Etag::Other(tag.into()),
        }
    }

    /// Some when both are MD5-based in the same form: equal content or not. None when they cannot be compared.
    pub fn proves(&self, other: &Etag) -> Option<bool> {
        match (self, other) {
            (Etag::Parts(a, n), Etag::Parts(b, m)) if n == m => Some(a == b),
            _ => Some(self.md5()? == other.md5()?),
        }
    }

    /// The same text, whatever it is known to prove: the object is unchanged.
    pub fn same_text(&self, other: &Etag) -> bool {
        self == other || self.to_string().eq_ignore_ascii_case(&other.to_string())
    }

    /// The same tag, known to be no digest: an object that is encrypted with a key service or a customer's key has
    /// an ETag that looks like an MD5 and is none (AWS "Checking object integrity": ETags).
    pub fn opaque(self) -> Self {
        match self {
            Etag::None => Etag::None,
            tag => Etag::Other(tag.to_string().into()),
        }
    }

    /// True for [`Etag::None`].
    pub fn is_none(&self) -> bool {
        matches!(self, Etag::None)
    }

    /// Number of parts of a multipart ETag.
    pub fn parts(&self) -> Option<u32> {
        match self {
            Etag::Parts(_, n) => Some(*n),
            _ => None,
        }
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Etag::Md5(md5) => f.write_str(&crate::checksum::hex(md5)),
            Etag::Parts(md5, n) => write!(f, "{}-{n}", crate::checksum::hex(md5)),
            Etag::Other(text) | Etag::Tagged { tag: text, .. } => f.write_str(text),
            Etag::None => Ok(()),
        }
    }
}

fn unhex(hex: &str) -> Option<[u8; 16]> {
    let bytes = hex.as_bytes();
    if bytes.len() != 32 {
        return None;
    }
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        b'A'..=b'F' => Some(c - b'A' + 10),
        _ => None,
    };
    let mut out = [0; 16];
    for (slot, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *slot = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etag_forms_are_distinguished() {
        let md5 = "d41d8cd98f00b204e9800998ecf8427e";
        assert!(matches!(Etag::parse(&format!("\"{md5}\"")), Etag::Md5(_)));
        assert_eq!(Etag::parse(&format!("\"{md5}-3\"")).parts(), Some(3));
        assert!(matches!(Etag::parse("\"abc-def\""), Etag::Other(_)));
        assert_eq!(Etag::parse("\"\""), Etag::None);
        assert_eq!(Etag::parse(md5).to_string(), md5);
        assert_eq!(Etag::parse(&format!("{md5}-12")).to_string(), format!("{md5}-12"));
    }

    #[test]
    fn etags_of_different_part_layouts_are_not_compared() {
        let a = Etag::parse("d41d8cd98f00b204e9800998ecf8427e");
        let b = Etag::parse("d41d8cd98f00b204e9800998ecf8427e-1");
        assert_eq!(a.proves(&b), None);
        assert_eq!(a.proves(&a), Some(true));
    }
}
