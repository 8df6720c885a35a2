//! `/console/audit`: who did what, newest first.

use askama::Template;
use axum::Extension;
use axum::extract::{RawQuery, State};
use control::audit::AuditLine;

use super::frame::{Frame, Nav};
use super::page;
use crate::Console;
use crate::form::Form;
use crate::gate::Viewer;
use crate::outcome::{PageError, Reply};
use crate::text::Text;

/// Lines of one page.
const PAGE_LINES: u64 = 100;

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    f: Frame,
    lines: Vec<AuditLine>,
    next: Option<i64>,
    is_first: bool,
}

pub(crate) async fn show(
    State(console): State<Console>,
    Extension(viewer): Extension<Viewer>,
    RawQuery(fields): RawQuery,
) -> Reply {
    // As in the API.
    if !viewer.may_change() {
        return Err(PageError::Role);
    }
    let form = Form::parse(fields.unwrap_or_default().as_bytes());
    let before = form.get("before").parse::<i64>().ok().filter(|at| *at > 0);
    let (project, all) = (viewer.project(), viewer.is_admin());
    let lines = console.control.audit_lines(project, all, before.unwrap_or(i64::MAX), PAGE_LINES).await?;
    let next = lines.last().map(|l| l.at).filter(|_| lines.len() as u64 == PAGE_LINES);
    let f = Frame::of(&console, &viewer, Nav::Audit, Text::new(viewer.prefs.lang).audit()).await?;
    page(&AuditPage { f, lines, next, is_first: before.is_none() })
}
