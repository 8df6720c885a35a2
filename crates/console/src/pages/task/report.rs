//! `/console/tasks/{id}/report`: what became of each object so far, as a CSV file.

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use control::report::ReportFile;
use http::{HeaderValue, header};
use model::spec::ReportForm;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::task_id;
use crate::Console;
use crate::gate::Viewer;
use crate::outcome::Reply;
use crate::pieces::Pieces;

/// A report is sent in pieces of so many bytes.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that wait for a slow reader.
const QUEUE_PIECES: usize = 2;
/// A browser that takes no piece for so long is not waited for.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) async fn show(
    State(console): State<Console>,
    Extension(viewer): Extension<Viewer>,
    Path(id): Path<String>,
) -> Reply {
    let id = task_id(&id)?;
    let report = console.control.report(viewer.project(), id, Some(ReportForm::Csv)).await?;
    let length = report.length;
    let (pieces, reader) = mpsc::channel(QUEUE_PIECES);
    tokio::spawn(send(report, pieces));
    let mut response = Response::new(Body::new(Pieces(reader)));
    let headers = response.headers_mut();
    // With a length, a report that ends early is not taken for a complete one.
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    if let Ok(name) = HeaderValue::from_str(&format!("attachment; filename=\"{id}.csv\"")) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// Sends a report until its reader leaves or stops reading; the report's place is free then.
async fn send(report: ReportFile, pieces: mpsc::Sender<Bytes>) {
    let Ok(file) = report.file.try_clone() else { return };
    let mut file = tokio::fs::File::from_std(file);
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(n @ 1..) = file.read(&mut piece).await {
        let some = Bytes::copy_from_slice(&piece[..n]);
        if !matches!(timeout(PIECE_TIMEOUT, pieces.send(some)).await, Ok(Ok(()))) {
            return;
        }
    }
}
