//! `/console/tasks/{id}`: one task, what it does, what became of its objects, and its actions.

pub(crate) mod failed;
pub(crate) mod parts;
pub(crate) mod report;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use control::TaskError;
use control::audit::AuditLine;
use control::bandwidth::{RANGE_V1, RANGE_V2};
use control::secrets::{StoreCredentials, TaskSecrets};
use control::tasks::{MissingCredentials, TaskView};
use http::StatusCode;
use model::policy::{Window, clock_text, minute_of};
use model::task::{TaskId, Visible};
use seal::Secret;

use super::frame::{Frame, Nav};
use super::{Look, page_with, places};
use crate::Console;
use crate::form::Form;
use crate::gate::{Viewer, see_other};
use crate::html::plain;
use crate::live::Fragments;
use crate::outcome::{Message, PageError, Reply};
use crate::text::Text;

/// Lines of the history.
const HISTORY_LINES: u64 = 12;
/// Windows that a form has places for.
const WINDOWS: usize = 5;

/// The word of a kind or side, as it is stored.
pub(crate) fn word(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// One line of the history.
struct Happened {
    at: i64,
    what: String,
    who: String,
}

#[derive(Template)]
#[template(path = "task.html")]
struct TaskPage {
    f: Frame,
    id: TaskId,
    name: String,
    from: String,
    to: String,
    since: String,
    parts: Fragments,
    settings: Vec<(&'static str, String)>,
    history: Vec<Happened>,
    missing: MissingCredentials,
    windows: Vec<(String, String, String)>,
    error: Option<Message>,
    done: &'static str,
    failed: u64,
}

impl TaskPage {
    fn part(&self, name: &str) -> &str {
        self.parts.get(name).map(String::as_str).unwrap_or_default()
    }
}

async fn read(
    console: &Console,
    project: &str,
    id: TaskId,
    look: Look,
) -> Result<(TaskView, Fragments), PageError> {
    let view = console.control.show(project, id).await?;
    let groups = match view.numbers(look.now).failed {
        0 => vec![],
        _ => console.control.failure_groups(project, id).await?,
    };
    let parts = parts::all(look, &view, &groups)?;
    Ok((view, parts))
}

pub(crate) async fn fragments(
    console: &Console,
    project: &str,
    id: TaskId,
    look: Look,
) -> Result<Fragments, PageError> {
    read(console, project, id, look).await.map(|(_, parts)| parts)
}

/// What the rules of a task are, in words.
fn settings(t: Text, view: &TaskView) -> Vec<(&'static str, String)> {
    let spec = &view.task.spec;
    let selected = match spec.selection.entries() {
        _ if spec.selection.list_file().is_some() => t.what_list().to_owned(),
        [one] if one.is_empty() => t.what_bucket().to_owned(),
        [one] => format!("`{one}`"),
        many => t.what_entries(t.int(many.len() as u64)),
    };
    let globs = |globs: &[String]| globs.iter().map(|g| format!("`{g}`")).collect::<Vec<_>>().join(" ");
    let mut out = vec![(t.what(), selected)];
    if !spec.include.is_empty() {
        out.push((t.only_matching(), globs(&spec.include)));
    }
    if !spec.exclude.is_empty() {
        out.push((t.but_not(), globs(&spec.exclude)));
    }
    out.push((t.overwrite(), t.overwrite_rule(spec.overwrite).to_owned()));
    out.push((t.weakest_proof(), t.check_rule(spec.check).to_owned()));
    out.push((t.metadata(), t.metadata_rule(spec.metadata).to_owned()));
    let windows: Vec<String> = spec
        .windows
        .iter()
        .map(|w| format!("{}–{} {}", clock_text(w.start), clock_text(w.end), t.speed(w.max_bandwidth)))
        .collect();
    out.push((t.limit(), if windows.is_empty() { t.none().to_owned() } else { windows.join(", ") }));
    out.push((t.priority(), t.priority_word(view.task.priority).to_owned()));
    let beyond = &spec.extensions;
    let more: Vec<&str> = [
        (beyond.versions, t.every_version()),
        (beyond.acl, t.with_acl()),
        (beyond.delete, t.removes_extras()),
        (beyond.dry_run, t.dry_run()),
    ]
    .iter()
    .filter_map(|(on, word)| on.then_some(*word))
    .collect();
    if !more.is_empty() {
        out.push((t.more(), more.join(", ")));
    }
    if !spec.description.is_empty() {
        out.push((t.description(), spec.description.clone()));
    }
    out
}

/// Changes and turns of a task, newest first.
fn history(t: Text, view: &TaskView, changes: &[AuditLine]) -> Vec<Happened> {
    let task = &view.task;
    let mut out: Vec<Happened> = changes
        .iter()
        .filter_map(|line| {
            let last = line.target.split(' ').next()?.rsplit('/').next()?;
            let what = t.happened(last, &line.action, &line.target)?;
            let face = if line.target.starts_with("/console") { t.console() } else { "API" };
            Some(Happened {
                at: line.at,
                what: what.to_owned(),
                who: format!("{} · {face}", plain(&line.principal)),
            })
        })
        .collect();
    let own = |at: i64, what: &str| Happened { at, what: what.to_owned(), who: String::new() };
    if let Some(at) = task.ended_at {
        out.push(own(at, t.ended_as(task.state.visible())));
    }
    if let Some(at) = task.started_at {
        out.push(own(at, t.began_to_run()));
    }
    // A creation by the API does not name the task in the trail.
    if !out.iter().any(|h| h.what == t.did_create()) {
        out.push(own(task.created_at, t.created()));
    }
    out.sort_by_key(|h| std::cmp::Reverse(h.at));
    out
}

fn task_id(text: &str) -> Result<TaskId, PageError> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or(PageError::NotFound)
}

/// What an action did, as the address of the page says it.
fn done(t: Text, word: &str) -> &'static str {
    match word {
        "stop" => t.done_stop(),
        "start" => t.done_start(),
        "retry" => t.done_retry(),
        "limit" => t.done_limit(),
        "created" => t.done_created(),
        _ => "",
    }
}

async fn draw_task(
    console: &Console,
    viewer: &Viewer,
    id: TaskId,
    done: &'static str,
    error: Option<Message>,
    status: StatusCode,
) -> Reply {
    let (control, project) = (&console.control, viewer.project());
    let look = Look::of(viewer, control.clock.now_ms());
    let (view, parts) = read(console, project, id, look).await?;
    let task = &view.task;
    let changes = control.changes_of(project, &id.to_string(), task.created_at, HISTORY_LINES).await?;
    let missing = match task.state.visible() {
        Visible::Paused | Visible::Failed => control.missing_credentials(project, id).await?,
        _ => MissingCredentials::default(),
    };
    let f = Frame::of(console, viewer, Nav::Tasks, &plain(&task.name)).await?;
    let t = f.t;
    let (from, to) = places(&task.spec);
    let n = view.numbers(look.now);
    let since = t.since_and_ran(look.time(task.created_at), t.duration(n.total_ms));
    let mut windows: Vec<_> = task.spec.windows.iter().map(shown_window).collect();
    windows.resize(WINDOWS, Default::default());
    let page = TaskPage {
        id,
        name: task.name.clone(),
        from,
        to,
        since,
        parts,
        settings: settings(t, &view),
        history: history(t, &view, &changes),
        missing,
        windows,
        error,
        done,
        failed: n.failed,
        f: f.live(&format!("task:{id}"), &[]),
    };
    page_with(status, &page)
}

fn shown_window(w: &Window) -> (String, String, String) {
    (clock_text(w.start), clock_text(w.end), format!("{}", w.max_bandwidth >> 20))
}

pub(crate) async fn show(
    State(console): State<Console>,
    Extension(viewer): Extension<Viewer>,
    Path(id): Path<String>,
    RawQuery(fields): RawQuery,
) -> Reply {
    let id = task_id(&id)?;
    let form = Form::parse(fields.unwrap_or_default().as_bytes());
    let done = done(Text::new(viewer.prefs.lang), form.get("done"));
    draw_task(&console, &viewer, id, done, None, StatusCode::OK).await
}

/// Credentials of one side of a form.
pub(crate) fn credentials(form: &Form, side: &str) -> StoreCredentials {
    let field = |name: &str| form.text(&format!("{side}_{name}")).to_owned();
    let secret = |text: String| (!text.is_empty()).then(|| Secret::new(text));
    let json = field("json");
    // A key file and a connection string are pasted into the same field.
    let (json_auth, connection_string) = match json.starts_with('{') {
        true => (secret(json), None),
        false => (None, secret(json)),
    };
    StoreCredentials {
        ak: field("ak"),
        sk: Secret::new(field("sk")),
        token: secret(field("token")),
        connection_string,
        json_auth,
    }
}

/// The windows of a form: rows without any text are left out.
fn windows(form: &Form) -> Vec<Window> {
    let rows = form.all("from").zip(form.all("until")).zip(form.all("most"));
    rows.filter(|((from, until), most)| ![from, until, most].iter().all(|t| t.trim().is_empty()))
        .take(WINDOWS + 1)
        .map(|((from, until), most)| Window {
            start: minute_of(from.trim()).unwrap_or(u16::MAX),
            end: minute_of(until.trim()).unwrap_or(u16::MAX),
            max_bandwidth: most.trim().parse::<u64>().unwrap_or(0).saturating_mul(1 << 20),
        })
        .collect()
}

async fn change(
    console: &Console,
    viewer: &Viewer,
    id: TaskId,
    action: &str,
    form: &Form,
) -> Result<Option<&'static str>, TaskError> {
    let (control, project) = (&console.control, viewer.project());
    let given = || TaskSecrets {
        source: credentials(form, "src"),
        target: credentials(form, "dst"),
        ..TaskSecrets::default()
    };
    match action {
        "stop" => control.stop(project, id).await.map(|()| Some("stop")),
        "start" => control.start_again(project, id, given(), false).await.map(|()| Some("start")),
        "retry" => control.start_again(project, id, given(), true).await.map(|()| Some("retry")),
        "limit" => {
            let range = (RANGE_V2.0, RANGE_V1.1);
            control.set_windows(project, id, windows(form), range).await.map(|()| Some("limit"))
        }
        "delete" => {
            let view = control.show(project, id).await?;
            if form.get("name") != plain(&view.task.name) {
                return Ok(None);
            }
            control.delete(project, id).await.map(|()| Some("delete"))
        }
        _ => Err(TaskError::NotFound(String::new())),
    }
}

pub(crate) async fn act(
    State(console): State<Console>,
    Extension(viewer): Extension<Viewer>,
    Path((id, action)): Path<(String, String)>,
    Extension(form): Extension<Form>,
) -> Reply {
    let id = task_id(&id)?;
    let t = Text::new(viewer.prefs.lang);
    let refused = match change(&console, &viewer, id, &action, &form).await {
        Ok(Some("delete")) => return Ok(see_other("/console/tasks?did=delete")),
        Ok(Some(done)) => return Ok(see_other(&format!("/console/tasks/{id}?done={done}"))),
        Ok(None) => Message { what: t.name_does_not_match().to_owned(), hint: String::new() },
        Err(TaskError::NotFound(_)) => return Err(PageError::NotFound),
        Err(refused) => Message::of_task(t, &refused),
    };
    draw_task(&console, &viewer, id, "", Some(refused), StatusCode::CONFLICT).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_a_form_leave_out_empty_rows() {
        let form =
            Form::parse(b"from=08:00&until=20:00&most=100&from=&until=&most=&from=x&until=21:00&most=-1");
        let read = windows(&form);
        assert_eq!(read.len(), 2);
        assert_eq!(read[0], Window { start: 480, end: 1200, max_bandwidth: 100 << 20 });
        assert_eq!(
            (read[1].start, read[1].max_bandwidth),
            (u16::MAX, 0),
            "refused by the check of the whole set"
        );
    }
}
