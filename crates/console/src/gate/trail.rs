//! What is written down of a request: a line of the log, and one of the audit trail.

use axum::response::Response;
use control::audit::AuditLine;
use control::identity::role_name;
use model::printable::{Printable, beginning};

use super::{Asked, Detail, SignsIn, Viewer};
use crate::Console;

/// The longest target of an audit line, bytes.
const TARGET_MAX: usize = 1024;

/// The audit line: of a change, of a sign-in, and of refusals up to their limit; and the log line.
pub(super) fn line(
    console: &Console,
    asked: Asked,
    response: &Response,
    viewer: Option<&Viewer>,
) -> Option<AuditLine> {
    let status = response.status();
    let signs_in = response.extensions().get::<SignsIn>();
    let now = console.control.clock.now_ms();
    let mut target = Printable(beginning(&asked.path, TARGET_MAX)).to_string();
    if let Some(Detail(detail)) = response.extensions().get::<Detail>() {
        target = Printable(beginning(&format!("{target} {detail}"), TARGET_MAX)).to_string();
    }
    let who = match (signs_in, viewer) {
        (Some(signs_in), _) => short(&signs_in.name),
        (None, Some(viewer)) => viewer.principal.name.clone(),
        (None, None) => "-".to_owned(),
    };
    let has_begun = signs_in.is_some_and(|s| s.project.is_some());
    let is_known = viewer.is_some() || has_begun;
    let skipped = if is_known { Some(0) } else { console.log_limit.admit(Some(asked.from), now) };
    if asked.path != "/console/live" && skipped.is_some() {
        let (method, code, who) = (&asked.method, status.as_u16(), Printable(&who));
        tracing::info!(request_id = %asked.id, %method, path = %target, status = code, principal = %who, "request");
    }
    let changes = asked.changes() && (is_known && (signs_in.is_none() || has_begun));
    let left_out = match (changes, status.as_u16()) {
        (true, _) => 0,
        (false, 401 | 403 | 429) => console.control.directory.audit_limit.admit(Some(asked.from), now)?,
        _ => return None,
    };
    if left_out > 0 {
        target.push_str(&format!(" ({left_out} earlier refusals were not recorded)"));
    }
    let project = signs_in.and_then(|s| s.project.clone());
    Some(AuditLine {
        at: now,
        request_id: asked.id,
        project: project.or_else(|| viewer.map(|v| v.project.id.clone())).unwrap_or_default(),
        principal: who,
        action: asked.method.to_string(),
        target,
        status: status.as_u16(),
        address: asked.from.to_canonical().to_string(),
        role: viewer.map(|v| role_name(v.principal.role)).unwrap_or_default().to_owned(),
    })
}

/// The longest name that is written down of somebody who was not recognised, characters.
const CLAIMED_MAX: usize = 64;

/// A name as somebody claims it: short, and one line.
fn short(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(CLAIMED_MAX).collect()
}
