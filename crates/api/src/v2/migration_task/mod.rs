//! One Redis migration (dcs-migration.md §2.1, §2.3 to §2.7, §2.11 to §2.15).

pub(crate) mod batch_stop;
pub(crate) mod create;
pub(crate) mod exchange_ip;
pub(crate) mod logs;
pub(crate) mod own;
pub(crate) mod rollback_ip;
pub(crate) mod show;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod sync_stop;
pub(crate) mod update;

use axum::response::{IntoResponse, Response};
use http::StatusCode;

/// 204, which has no body.
pub(crate) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
