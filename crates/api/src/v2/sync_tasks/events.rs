//! `POST /v2/{project_id}/sync-tasks/{sync_task_id}/events`: keys that changed at the source. The answer comes when
//! they are durable.

use axum::extract::{Path, State};
use bytes::Bytes;
use control::sync::EVENT_MAX;
use control::{Control, TaskError};
use storage::s3::list_parser::percent_decode;
use wire::fields::Fields;

use crate::error::{ApiError, OmsVersion, field_error};
use crate::reply::{Reply, empty, object};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let map = object(OmsVersion::V2, &body)?;
    let take = async { control.sync_events(&project, &id, &keys(&Fields::root(&map))?).await };
    take.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    empty()
}

/// One to ten keys, encoded as forms are: `+` is a space.
pub(crate) fn keys(f: &Fields<'_>) -> Result<Vec<String>, TaskError> {
    let wrong = |field: String, why: &str| TaskError::Invalid(field, why.to_owned());
    let texts = f.texts("object_keys", 100_000, 4096).map_err(field_error)?;
    if texts.is_empty() || texts.len() > EVENT_MAX {
        return Err(wrong("object_keys".into(), "must contain 1 to 10 keys"));
    }
    let key = |(i, text): (usize, &String)| {
        let field = format!("object_keys[{i}]");
        let bytes = text.as_bytes();
        let escaped =
            |at: usize| bytes.get(at + 1..at + 3).is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit));
        let whole = bytes.iter().enumerate().filter(|(_, b)| **b == b'%').all(|(at, _)| escaped(at));
        let key = String::from_utf8(percent_decode(bytes, true))
            .ok()
            .filter(|k| whole && !k.is_empty() && k.len() <= 1024);
        key.ok_or_else(|| wrong(field, "is not a URL-encoded key of 1 to 1,024 bytes"))
    };
    texts.iter().enumerate().map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_keys_are_form_decoded() {
        let read = |keys: serde_json::Value| {
            let map = serde_json::Map::from_iter([("object_keys".to_owned(), keys)]);
            super::keys(&Fields::root(&map))
        };
        let keys = read(serde_json::json!(["a+b%2Bc", "%E6%97%A5/x"])).unwrap();
        assert_eq!(keys, ["a b+c", "日/x"]);
        for bad in [
            serde_json::json!([]),
            serde_json::json!(["%zz"]),
            serde_json::json!(["%FF"]),
            serde_json::json!(vec!["x"; 11]),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
