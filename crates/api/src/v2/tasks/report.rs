//! `GET /v2/{project_id}/tasks/{task_id}/report?form=csv|parquet|tsv`: what became of each object so far. Ours alone.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use control::report::ReportFile;
use control::{Control, TaskError};
use http::header;
use model::spec::ReportForm;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::io::ReaderStream;

use super::task_id;
use crate::error::{ApiError, OmsVersion};
use crate::reply::Reply;

/// A report is sent in pieces of so many bytes.
const PIECE_BYTES: usize = 64 << 10;
/// A client that takes no piece for so long is not waited for.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    Query(query): Query<HashMap<String, String>>,
) -> Reply {
    let id = task_id(OmsVersion::V2, &id)?;
    let (form, kind) = match query.get("form").map_or("csv", String::as_str) {
        "csv" => (Some(ReportForm::Csv), object_migration::report::table::content_type(ReportForm::Csv)),
        "parquet" => {
            (Some(ReportForm::Parquet), object_migration::report::table::content_type(ReportForm::Parquet))
        }
        "tsv" => (None, "text/tab-separated-values; charset=utf-8"),
        other => {
            let why = format!("`{other}` is not one of csv, parquet, tsv");
            return Err(ApiError::from_task_error(OmsVersion::V2, &TaskError::Invalid("form".into(), why)));
        }
    };
    let report = control
        .report(&project, id, form)
        .await
        .map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    let length = report.length;
    let (near, far) = tokio::io::duplex(PIECE_BYTES);
    tokio::spawn(send(report, far));
    let mut response = axum::response::Response::new(Body::from_stream(ReaderStream::new(near)));
    // With a length, a report that ends early is not taken for a complete one.
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    Ok(response)
}

/// Sends a report until its client leaves or stops reading; the report's place is free then.
async fn send(report: ReportFile, mut to: impl AsyncWrite + Unpin) {
    let Ok(file) = report.file.try_clone() else { return };
    let mut file = tokio::fs::File::from_std(file);
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(n @ 1..) = file.read(&mut piece).await {
        if !matches!(timeout(PIECE_TIMEOUT, to.write_all(&piece[..n])).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = to.shutdown().await;
}
