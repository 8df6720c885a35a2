//! `/console/syncs`: the sync tasks of the project.

use askama::Template;
use axum::Extension;
use axum::extract::{RawQuery, State};

use super::frame::{Frame, Nav};
use super::{page, places};
use crate::Console;
use crate::form::Form;
use crate::gate::Viewer;
use crate::html::plain;
use crate::outcome::Reply;
use crate::text::Text;

/// Sync tasks of one page.
const PAGE_SYNCS: u64 = 50;

struct Row {
    id: String,
    from: String,
    to: String,
    running: bool,
    batch: Option<i64>,
    created: i64,
}

#[derive(Template)]
#[template(path = "syncs.html")]
struct SyncsPage {
    f: Frame,
    rows: Vec<Row>,
    next: Option<u64>,
    is_first: bool,
}

pub(crate) async fn show(
    State(console): State<Console>,
    Extension(viewer): Extension<Viewer>,
    RawQuery(fields): RawQuery,
) -> Reply {
    let form = Form::parse(fields.unwrap_or_default().as_bytes());
    let offset = form.get("offset").parse::<u32>().map_or(0, u64::from);
    let found = console.control.list_syncs(viewer.project(), None, offset, PAGE_SYNCS).await?;
    let (syncs, total) = found;
    let shown = offset + syncs.len() as u64;
    let rows = syncs
        .into_iter()
        .map(|s| {
            let (from, to) = places(&s.spec);
            Row {
                id: s.id,
                from: plain(&from),
                to: plain(&to),
                running: s.running,
                batch: s.batch_task,
                created: s.created_at,
            }
        })
        .collect();
    let f = Frame::of(&console, &viewer, Nav::Syncs, Text::new(viewer.prefs.lang).syncs()).await?;
    page(&SyncsPage { f, rows, next: (shown < total).then_some(shown), is_first: offset == 0 })
}
