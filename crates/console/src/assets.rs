//! Files that pages load, embedded in the program. Their hash is in their name, so browsers keep them for ever.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

struct Asset {
    /// `console.0123456789abcdef.css`
    name: String,
    kind: &'static str,
    bytes: &'static [u8],
}

const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const JS: &str = "text/javascript; charset=utf-8";

fn hash(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

static ASSETS: LazyLock<[Asset; 5]> = LazyLock::new(|| {
    let asset = |stem: &str, end: &str, kind, bytes: &'static [u8]| {
        let name = format!("{stem}.{}.{end}", &hash(bytes)[..16]);
        Asset { name, kind, bytes }
    };
    [
        asset("console", "css", CSS, include_bytes!("../assets/console.css")),
        asset("console", "js", JS, include_bytes!("../assets/console.js")),
        asset("htmx", "js", JS, include_bytes!("../vendor/htmx.min.js")),
        asset("sse", "js", JS, include_bytes!("../vendor/sse.min.js")),
        asset("icon", "svg", SVG, include_bytes!("../assets/icon.svg")),
    ]
});

/// The path of a file, by its place in the list: style, own script, htmx, its extension, icon.
fn path(at: usize) -> String {
    ASSETS.get(at).map(|a| format!("/console/assets/{}", a.name)).unwrap_or_default()
}

/// The paths that a page names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paths {
    pub(crate) css: &'static str,
    pub(crate) js: &'static str,
    pub(crate) htmx: &'static str,
    pub(crate) sse: &'static str,
    /// Without it browsers ask for `/favicon.ico`, which the API refuses and audits.
    pub(crate) icon: &'static str,
}

static PATHS: LazyLock<[String; 5]> = LazyLock::new(|| [path(0), path(1), path(2), path(3), path(4)]);

/// The paths that a page names.
pub(crate) fn paths() -> Paths {
    let [css, js, htmx, sse, icon] = &*PATHS;
    Paths { css, js, htmx, sse, icon }
}

pub(crate) async fn serve(Path(name): Path<String>) -> Response {
    let Some(asset) = ASSETS.iter().find(|a| a.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut response = asset.bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    let year = "public, max-age=31536000, immutable";
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(year));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendored_files_are_those_of_the_readme() {
        let readme = include_str!("../vendor/README.md");
        for (file, bytes) in [
            ("htmx.min.js", &include_bytes!("../vendor/htmx.min.js")[..]),
            ("sse.min.js", include_bytes!("../vendor/sse.min.js")),
        ] {
            let row = readme.lines().find(|l| l.starts_with(&format!("| `{file}`"))).unwrap();
            assert!(row.contains(&hash(bytes)), "{file}: {}", hash(bytes));
        }
    }

    #[test]
    fn files_keep_their_budgets() {
        let size = |at: usize| ASSETS[at].bytes.len();
        assert!(size(0) <= 22 << 10, "style: {}", size(0));
        assert!(size(1) <= 6 << 10, "script: {}", size(1));
    }
}
