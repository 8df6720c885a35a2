//! The sentences of the console in English and Simplified Chinese.
//!
//! One table: each key has both languages, so none can be missing. A key that is not used is a warning of the compiler, and so is a
//! place of a sentence that one of the languages leaves out; both fail the checks of a change. Names, keys, codes and units stay as they are.

mod causes;
mod sentences;
mod words;

/// A language.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Lang {
    #[default]
    En,
    Zh,
}

impl Lang {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "en" => Some(Lang::En),
            "zh" => Some(Lang::Zh),
            _ => None,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Lang::En => "en",
            Lang::Zh => "zh",
        }
    }
}

/// The sentences in one language.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text(Lang);

impl Text {
    pub(crate) const fn new(lang: Lang) -> Self {
        Self(lang)
    }

    pub(crate) fn lang(self) -> Lang {
        self.0
    }

    /// The language of a page, as HTML names it.
    pub(crate) fn tag(self) -> &'static str {
        match self.0 {
            Lang::En => "en",
            Lang::Zh => "zh-CN",
        }
    }

    pub(crate) fn is_zh(self) -> bool {
        self.0 == Lang::Zh
    }
}

/// Words and sentences without places: `key: "English", "中文";`
macro_rules! word_table {
    ($($key:ident: $en:literal, $zh:literal;)*) => {
        impl $crate::text::Text {
            $(pub(crate) fn $key(self) -> &'static str {
                if self.is_zh() { $zh } else { $en }
            })*
        }

        #[cfg(test)]
        pub(super) const ALL: &[(&str, &str, &str)] = &[$((stringify!($key), $en, $zh)),*];
    };
}
pub(crate) use word_table;

/// Sentences with places: `key(name, …): "English {name}", "中文 {name}";` Both languages must use all places.
macro_rules! sentence_table {
    ($($key:ident($($place:ident),+): $en:literal, $zh:literal;)*) => {
        impl $crate::text::Text {
            $(pub(crate) fn $key(self, $($place: impl std::fmt::Display),+) -> String {
                if self.is_zh() { format!($zh, $($place = $place),+) } else { format!($en, $($place = $place),+) }
            })*
        }

        #[cfg(test)]
        pub(super) const ALL: &[(&str, &str, &str)] = &[$((stringify!($key), $en, $zh)),*];
    };
}
pub(crate) use sentence_table;

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = &'static (&'static str, &'static str, &'static str)> {
        words::ALL.iter().chain(sentences::ALL).chain(causes::ALL)
    }

    /// Names of places in the order of the alphabet.
    fn places(text: &str) -> Vec<&str> {
        let mut found: Vec<&str> =
            text.split('{').skip(1).filter_map(|p| p.split_once('}')).map(|(n, _)| n).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn both_languages_have_each_sentence_with_the_same_places() {
        let mut keys = std::collections::BTreeSet::new();
        for (key, en, zh) in all() {
            assert!(keys.insert(key), "{key} is there twice");
            assert!(!en.is_empty() && !zh.is_empty(), "{key}");
            assert_eq!(places(en), places(zh), "{key}");
        }
        assert!(keys.len() > 200, "{}", keys.len());
    }

    #[test]
    fn chinese_sentences_have_full_width_punctuation() {
        for (key, _, zh) in all() {
            let text: Vec<char> = zh.chars().collect();
            for pair in text.windows(2) {
                let is_chinese = ('\u{4e00}'..='\u{9fff}').contains(&pair[0]);
                assert!(!(is_chinese && matches!(pair[1], ',' | ';' | ':' | '?' | '!' | '.')), "{key}: {zh}");
            }
        }
    }

    #[test]
    fn sentences_do_not_beg_or_boast() {
        for (key, en, _) in all() {
            let text = en.to_lowercase();
            for word in ["please", "oops", "successfully", "sorry", "unfortunately"] {
                assert!(!text.contains(word), "{key}: {en}");
            }
        }
    }
}
