//! `GET /v2/{project_id}/tasks/{task_id}/report?form=csv|parquet|tsv`: what became of each object so far. Ours alone.

use std::collections::HashMap;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use control::{Control, TaskError};
use http::header;
use model::spec::ReportForm;
use tokio_util::io::ReaderStream;

use super::task_id;
use crate::error::{ApiError, OmsVersion};
use crate::reply::Reply;

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
    let file = control
        .report(&project, id, form)
        .await
        .map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    let body = Body::from_stream(ReaderStream::new(tokio::fs::File::from_std(file)));
    let mut response = axum::response::Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    Ok(response)
}
