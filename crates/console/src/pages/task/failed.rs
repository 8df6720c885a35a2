//! `/console/tasks/{id}/failed`: the failed objects of a task, of one cause or of all, in the order of keys.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use control::tasks::FailedObject;
use model::error::{Kind, Side};
use model::key::Key;
use model::task::TaskId;

use super::super::frame::{Frame, Nav};
use super::super::page;
use super::task_id;
use crate::Console;
use crate::form::{Form, query};
use crate::gate::Viewer;
use crate::html::with_code;
use crate::outcome::Reply;
use crate::text::Text;

/// Failed objects of one page.
const FAILED_PAGE: u64 = 100;

fn from_word<T: serde::de::DeserializeOwned>(word: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}

/// A failed object as a row.
struct FailedRow {
    key: String,
    size: u64,
    title: String,
    message: String,
    at: i64,
}

#[derive(Template)]
#[template(path = "task_failed_list.html")]
struct FailedPage {
    f: Frame,
    id: TaskId,
    name: String,
    rows: Vec<FailedRow>,
    next: String,
}

/// A key in an address: its bytes in hexadecimal digits.
fn hex(key: &Key) -> String {
    key.as_bytes().iter().map(|b| format!("{b:02x}")).collect()
}

fn from_hex(text: &str) -> Key {
    let byte = |i: usize| text.get(i..i + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    Key::new(bytes.unwrap_or_default())
}

pub(crate) async fn show(
    State(console): State<Console>,
    Extension(viewer): Extension<Viewer>,
    Path(id): Path<String>,
    RawQuery(fields): RawQuery,
) -> Reply {
    let id = task_id(&id)?;
    let form = Form::parse(fields.unwrap_or_default().as_bytes());
    let (kind, side) = (form.get("kind"), form.get("side"));
    let cause = from_word::<Kind>(kind).zip(from_word::<Side>(side));
    let after = from_hex(form.get("after"));
    let view = console.control.show(viewer.project(), id).await?;
    let found = console.control.failed_objects(viewer.project(), id, cause, &after, FAILED_PAGE + 1).await?;
    let f = Frame::of(&console, &viewer, Nav::Tasks, Text::new(viewer.prefs.lang).failed_objects()).await?;
    let t = f.t;
    let row = |o: &FailedObject| FailedRow {
        key: o.key.to_string(),
        size: o.size,
        title: format!("{}{}", t.side(o.failure.side), t.cause(o.failure.kind)),
        message: with_code(&o.failure.message),
        at: o.at,
    };
    let shown = found.len().min(FAILED_PAGE as usize);
    let last = found.get(..shown).and_then(<[_]>::last).filter(|_| found.len() > shown);
    let next = match last {
        Some(last) => format!("?{}", query(&[("kind", kind), ("side", side), ("after", &hex(&last.key))])),
        None => String::new(),
    };
    let rows = found.iter().take(shown).map(row).collect();
    page(&FailedPage { f, id, name: view.task.name.clone(), rows, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_their_address() {
        for key in [&b"a/b"[..], b"", b"\xff\x00<img>"] {
            assert_eq!(from_hex(&hex(&Key::new(key))), Key::new(key));
        }
        assert!(from_hex("zz").is_empty() && from_hex("1").is_empty() && from_hex("é1").is_empty());
    }
}
