//! What a browser prefers: language, theme and zone. They are cookies that decide nothing but how a page looks.

use http::{HeaderMap, header};

use crate::text::Lang;

/// The cookie of the language.
pub(crate) const LANG_COOKIE: &str = "whimbrel_lang";
/// The cookie of the theme.
pub(crate) const THEME_COOKIE: &str = "whimbrel_theme";
/// The cookie of the zone, minutes east of UTC; written by `console.js`.
const ZONE_COOKIE: &str = "whimbrel_zone";
/// Zones that there are, minutes east of UTC.
const ZONE_MINUTES: std::ops::RangeInclusive<i32> = -720..=840;

/// Colours of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Theme {
    /// As the system has it.
    #[default]
    Auto,
    Light,
    Dark,
}

impl Theme {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "auto" => Theme::Auto,
            "light" => Theme::Light,
            "dark" => Theme::Dark,
            _ => return None,
        })
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Theme::Auto => "auto",
            Theme::Light => "light",
            Theme::Dark => "dark",
        }
    }

    /// What the link of the page changes to.
    pub(crate) fn next(self) -> Self {
        match self {
            Theme::Auto => Theme::Light,
            Theme::Light => Theme::Dark,
            Theme::Dark => Theme::Auto,
        }
    }
}

/// What a browser prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefs {
    pub(crate) lang: Lang,
    pub(crate) theme: Theme,
    /// Minutes east of UTC.
    pub(crate) zone: i32,
}

/// A cookie of a request; none when it is there twice, since a neighbour may have set one of them.
pub(crate) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut found = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(n, _)| *n == name)
        .map(|(_, value)| value);
    match (found.next(), found.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

/// The best language that is offered: the first of the list with the highest weight that the console has.
fn accepted(headers: &HeaderMap) -> Lang {
    let text = headers.get(header::ACCEPT_LANGUAGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut best = (0.0, Lang::En);
    for part in text.split(',') {
        let (tag, weight) = part.split_once(';').unwrap_or((part, "q=1"));
        let weight: f32 = weight.trim().strip_prefix("q=").and_then(|q| q.parse().ok()).unwrap_or(0.0);
        let lang = match tag.trim().get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("zh") => Lang::Zh,
            Some("en") => Lang::En,
            _ => continue,
        };
        if weight > best.0 {
            best = (weight, lang);
        }
    }
    best.1
}

impl Prefs {
    /// By cookie, then by what the browser accepts; `zone` is that of the service.
    pub(crate) fn of(headers: &HeaderMap, zone: i32) -> Self {
        let lang = cookie(headers, LANG_COOKIE).and_then(Lang::parse);
        let theme = cookie(headers, THEME_COOKIE).and_then(Theme::parse);
        let own = cookie(headers, ZONE_COOKIE).and_then(|z| z.parse().ok());
        Self {
            lang: lang.unwrap_or_else(|| accepted(headers)),
            theme: theme.unwrap_or_default(),
            zone: own.filter(|z| ZONE_MINUTES.contains(z)).unwrap_or(zone),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(cookies: &'static str, accept: &'static str) -> Prefs {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_static(cookies));
        headers.insert(header::ACCEPT_LANGUAGE, HeaderValue::from_static(accept));
        Prefs::of(&headers, 60)
    }

    #[test]
    fn language_is_that_of_the_cookie_then_of_the_browser() {
        for (cookies, accept, want) in [
            ("", "", Lang::En),
            ("", "zh-CN,zh;q=0.9,en;q=0.8", Lang::Zh),
            ("", "de, en;q=0.5, zh;q=0.7", Lang::Zh),
            ("", "en-GB,zh;q=0.9", Lang::En),
            ("whimbrel_lang=en", "zh", Lang::En),
            ("a=b; whimbrel_lang=zh", "en", Lang::Zh),
            ("whimbrel_lang=xx", "zh", Lang::Zh),
        ] {
            assert_eq!(of(cookies, accept).lang, want, "{cookies} {accept}");
        }
    }

    #[test]
    fn theme_and_zone_are_of_their_sets() {
        let prefs = of("whimbrel_theme=dark; whimbrel_zone=-300", "");
        assert_eq!((prefs.theme, prefs.zone), (Theme::Dark, -300));
        let prefs = of("whimbrel_theme=\"><script>; whimbrel_zone=99999", "");
        assert_eq!((prefs.theme, prefs.zone), (Theme::Auto, 60));
    }

    #[test]
    fn cookie_that_is_there_twice_is_not_read() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("s=1; t=2"));
        assert_eq!(
            (cookie(&headers, "s"), cookie(&headers, "t"), cookie(&headers, "u")),
            (Some("1"), Some("2"), None)
        );
        headers.append(header::COOKIE, HeaderValue::from_static("s=3"));
        assert_eq!(cookie(&headers, "s"), None);
    }
}
