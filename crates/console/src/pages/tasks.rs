//! `/console/tasks`: the list, by pages after a position.

mod live;

use askama::Template;
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use control::tasks::{TaskCounts, TaskQuery, TaskView};
use model::task::{TaskId, Visible};

use super::frame::{Frame, Nav};
use super::{Look, draw, page, places};
use crate::Console;
use crate::form::{Form, query};
use crate::gate::{Detail, Viewer, see_other};
use crate::html::{bar, task_badge};
use crate::live::Fragments;
use crate::outcome::{PageError, Reply};
use crate::text::Text;

pub(crate) use live::{SeenRows, fragments};

/// Tasks of one page.
const PAGE_TASKS: u64 = 50;
/// Longest search text, characters.
const SEARCH_MAX: usize = 255;

/// The states in the order of the chips.
const CHIPS: [(Visible, &str); 7] = [
    (Visible::Running, "running"),
    (Visible::Waiting, "waiting"),
    (Visible::Retrying, "retrying"),
    (Visible::Pausing, "pausing"),
    (Visible::Paused, "paused"),
    (Visible::Failed, "failed"),
    (Visible::Succeeded, "succeeded"),
];

/// Which tasks a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ListQuery {
    state: Option<&'static str>,
    text: String,
    after: Option<(i64, TaskId)>,
}

impl ListQuery {
    pub(crate) fn of(form: &Form) -> Self {
        let state = CHIPS.iter().map(|(_, word)| *word).find(|word| *word == form.get("state"));
        let after = form.get("after").split_once('-');
        let after = after.and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)));
        Self { state, text: form.text("q").chars().take(SEARCH_MAX).collect(), after }
    }

    fn visible(&self) -> Option<Visible> {
        CHIPS.iter().find(|(_, word)| Some(*word) == self.state).map(|(state, _)| *state)
    }

    fn query(&self) -> TaskQuery {
        let text = self.text.clone();
        TaskQuery { state: self.visible(), text, after: self.after, limit: PAGE_TASKS }
    }

    fn link(state: &str, text: &str, after: &str) -> String {
        let fields = query(&[("state", state), ("q", text), ("after", after)]);
        if fields.is_empty() { "/console/tasks".to_owned() } else { format!("/console/tasks?{fields}") }
    }

    fn after_text(after: Option<(i64, TaskId)>) -> String {
        after.map(|(at, id)| format!("{at}-{id}")).unwrap_or_default()
    }
}

/// The cells of a row that change while it is looked at.
#[derive(Debug)]
pub(crate) struct Cells {
    pub(crate) state: String,
    pub(crate) progress: String,
    pub(crate) objects: String,
    pub(crate) speed: String,
    pub(crate) left: String,
    pub(crate) failed: String,
    pub(crate) action: String,
}

/// A row of the list.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: TaskId,
    pub(crate) name: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) created: i64,
    /// It may change while it is looked at: what has succeeded does not.
    pub(crate) is_open: bool,
    pub(crate) cells: Cells,
}

#[derive(Template)]
#[template(path = "task_action.html")]
struct Action<'a> {
    look: Look,
    id: TaskId,
    name: &'a str,
    state: Visible,
}

#[derive(Template)]
#[template(path = "task_failed_cell.html")]
struct FailedCell {
    look: Look,
    id: TaskId,
    failed: u64,
}

/// Bytes settled, of how many, and the bar.
pub(crate) fn progress_cell(t: Text, view: &TaskView, now: i64) -> String {
    let n = view.numbers(now);
    let (settled, _, _) = view.settled();
    let is_idle = n.total_num == 0 && view.task.state.visible() != Visible::Succeeded;
    if is_idle || !n.precount_done {
        let said = if is_idle { t.not_counted_yet().to_owned() } else { t.so_far(t.bytes(n.complete_size)) };
        let label = bar("sm", t.not_counted_yet(), &[]);
        return format!(r#"<div class="split small"><span class="muted">{said}</span></div>{label}"#);
    }
    let share = t.percent(n.progress);
    // Of tasks without bytes the objects say how far they are.
    let all = if n.total_size > 0 { n.total_size as f64 } else { f64::INFINITY };
    let part = |bytes: u64| bytes as f64 / all;
    let parts = match n.total_size {
        0 => vec![(n.progress, "f-done")],
        _ => vec![
            (part(settled.copied.bytes), "f-done"),
            (part(settled.skipped.bytes), "f-skip"),
            (part(settled.failed.bytes), "f-bad"),
        ],
    };
    let of = match view.task.state.visible() {
        Visible::Succeeded => t.bytes(n.total_size),
        _ => t.bytes_of(n.complete_size, n.total_size),
    };
    let bar = bar("sm", &t.percent_done(&share), &parts);
    format!(
        r#"<div class="split small"><span class="b">{share}</span><span class="muted">{of}</span></div>{bar}"#
    )
}

/// What is shown where there is nothing to show.
pub(crate) const NIL: &str = r#"<span class="muted nil">–</span>"#;

/// How long a running task still takes, milliseconds, and the bytes per second that this assumes: those of now, else the average,
/// because bytes that a server copies itself do not move here. None: it cannot be said.
pub(crate) fn estimate(view: &TaskView, now: i64) -> Option<(i64, u64)> {
    let n = view.numbers(now);
    let is_counted = view.task.state.visible() == Visible::Running && n.precount_done;
    let average = || view.settled().0.copied.bytes * 1000 / n.total_ms.unsigned_abs().max(1);
    let rate = if n.speed > 0 { n.speed } else { average() };
    let rest = n.total_size.saturating_sub(n.complete_size);
    let left = (rest * 1000).checked_div(rate)?;
    (is_counted && rest > 0).then(|| (i64::try_from(left).unwrap_or(i64::MAX), rate))
}

/// How long a task still takes, or what it waits for, as HTML.
pub(crate) fn left(t: Text, view: &TaskView, now: i64) -> String {
    let n = view.numbers(now);
    match view.task.state.visible() {
        Visible::Running if n.precount_done => {
            estimate(view, now).map_or_else(|| NIL.to_owned(), |(left, _)| t.duration(left))
        }
        Visible::Running if !n.precount_done => t.counting().to_owned(),
        Visible::Retrying => t.retries_by_itself().to_owned(),
        Visible::Failed => t.needs_action().to_owned(),
        Visible::Succeeded => t.took(t.duration(n.total_ms)),
        _ => NIL.to_owned(),
    }
}

impl Row {
    pub(crate) fn of(look: Look, view: &TaskView) -> Result<Self, PageError> {
        let (t, task) = (look.t, &view.task);
        let (n, state) = (view.numbers(look.now), task.state.visible());
        let (from, to) = places(&task.spec);
        let objects = match n.precount_done {
            true => t.of(t.int(n.successful + n.skipped + n.failed), t.int(n.total_num)),
            false => t.not_counted_yet().to_owned(),
        };
        let is_moving = matches!(state, Visible::Running | Visible::Pausing | Visible::Succeeded);
        let cells = Cells {
            state: task_badge(t, state),
            progress: progress_cell(t, view, look.now),
            objects,
            speed: if is_moving && n.speed > 0 { t.speed(n.speed) } else { NIL.to_owned() },
            left: left(t, view, look.now),
            failed: draw(&FailedCell { look, id: task.id, failed: n.failed })?,
            action: draw(&Action { look, id: task.id, name: &task.name, state })?,
        };
        let is_open = state != Visible::Succeeded;
        Ok(Self { id: task.id, name: task.name.clone(), from, to, created: task.created_at, is_open, cells })
    }

    fn fragments(self, out: &mut Fragments) {
        let Cells { state, progress, objects, speed, left, failed, action } = self.cells;
        for (cell, html) in [
            ("state", state),
            ("progress", progress),
            ("objects", objects),
            ("speed", speed),
            ("left", left),
            ("failed", failed),
            ("action", action),
        ] {
            out.insert(format!("{cell}-{}", self.id), html);
        }
    }
}

/// Why the list is empty.
#[derive(Debug, PartialEq, Eq)]
enum Empty {
    No,
    /// The project does not have any task.
    All,
    /// No task matches; the number that would be there without the text.
    Search(u64),
}

/// A chip: its address, word, number, and whether it is chosen.
struct Chip {
    link: String,
    word: String,
    count: String,
    is_current: bool,
}

#[derive(Template)]
#[template(path = "tasks.html")]
struct TasksPage {
    f: Frame,
    project: String,
    chips: Vec<Chip>,
    state: &'static str,
    text: String,
    rows: Vec<Row>,
    next: String,
    is_first: bool,
    empty: Empty,
    said: Option<(&'static str, String)>,
}

fn chips(t: Text, counts: &TaskCounts, asked: &ListQuery) -> Vec<Chip> {
    let all = Chip {
        link: ListQuery::link("", &asked.text, ""),
        word: t.all().to_owned(),
        count: t.int(counts.all()),
        is_current: asked.state.is_none(),
    };
    let one = |(state, word): &(Visible, &str)| Chip {
        link: ListQuery::link(word, &asked.text, ""),
        word: t.state(*state).to_owned(),
        count: t.int(counts.of(*state)),
        is_current: asked.state == Some(word),
    };
    // Pausing lasts a second: it has a chip only while there is one.
    let shown =
        |c: &&(Visible, &str)| c.0 != Visible::Pausing || counts.of(c.0) > 0 || asked.state == Some(c.1);
    std::iter::once(all).chain(CHIPS.iter().filter(shown).map(one)).collect()
}

/// What a change of several tasks did, as the address of the page says it.
fn said(t: Text, form: &Form) -> Option<(&'static str, String)> {
    let number = |name: &str| form.get(name).parse::<u64>().unwrap_or(0);
    let (done, skipped) = (number("done"), number("skipped"));
    let class = if skipped > 0 { "warn" } else { "ok" };
    let done = match form.get("did") {
        "stop" => t.batch_stopped(t.int(done)),
        "start" => t.batch_started(t.int(done)),
        "retry" => t.batch_retried(t.int(done)),
        "delete" => return Some(("ok", t.task_deleted().to_owned())),
        _ => return None,
    };
    let skipped = if skipped > 0 { t.batch_skipped(t.int(skipped)) } else { String::new() };
    Some((class, format!("{done} {skipped}")))
}

pub(crate) async fn show(
    State(console): State<Console>,
    Extension(viewer): Extension<Viewer>,
    RawQuery(fields): RawQuery,
) -> Reply {
    let form = Form::parse(fields.unwrap_or_default().as_bytes());
    let asked = ListQuery::of(&form);
    let control = &console.control;
    let counts = control.task_counts(viewer.project()).await?;
    let found = control.task_page(viewer.project(), &asked.query()).await?;
    let f = Frame::of(&console, &viewer, Nav::Tasks, Text::new(viewer.prefs.lang).tasks()).await?;
    let (t, look) = (f.t, f.look);
    let rows = found.tasks.iter().map(|view| Row::of(look, view)).collect::<Result<Vec<_>, _>>()?;
    let empty = match (rows.is_empty(), counts.all()) {
        (false, _) => Empty::No,
        (true, 0) => Empty::All,
        (true, all) => Empty::Search(asked.visible().map_or(all, |state| counts.of(state))),
    };
    let after = ListQuery::after_text(asked.after);
    let state = asked.state.unwrap_or_default();
    let next = match found.next {
        Some(next) => ListQuery::link(state, &asked.text, &ListQuery::after_text(Some(next))),
        None => String::new(),
    };
    page(&TasksPage {
        f: f.live("tasks", &[("state", state), ("q", &asked.text), ("after", &after)]),
        project: viewer.project.name.clone(),
        chips: chips(t, &counts, &asked),
        state,
        text: asked.text.clone(),
        rows,
        next,
        is_first: asked.after.is_none(),
        empty,
        said: said(t, &form),
    })
}

/// Stops or starts the ticked tasks; what cannot be done is counted.
pub(crate) async fn batch(
    State(console): State<Console>,
    Extension(viewer): Extension<Viewer>,
    Extension(form): Extension<Form>,
) -> Result<Response, PageError> {
    let action = match form.get("do") {
        "stop" => "stop",
        "start" => "start",
        "retry" => "retry",
        _ => return Err(PageError::NotFound),
    };
    let ids: Vec<TaskId> =
        form.all("id").filter_map(|id| id.parse().ok()).take(PAGE_TASKS as usize).collect();
    let (control, project) = (&console.control, viewer.project());
    let (mut done, mut skipped) = (0u64, 0u64);
    for id in &ids {
        let changed = match action {
            "stop" => control.stop(project, *id).await,
            action => control.start_again(project, *id, Default::default(), action == "retry").await,
        };
        match changed {
            Ok(()) => done += 1,
            Err(_) => skipped += 1,
        }
    }
    let (done, skipped) = (done.to_string(), skipped.to_string());
    let fields =
        query(&[("did", action), ("done", &done), ("skipped", &skipped), ("state", form.get("state"))]);
    let mut response = see_other(&format!("/console/tasks?{fields}"));
    let ids: Vec<String> = ids.iter().map(TaskId::to_string).collect();
    response.extensions_mut().insert(Detail(format!("{action} {}", ids.join(","))));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_queries_survive_their_links() {
        let of = |text: &str| ListQuery::of(&Form::parse(text.as_bytes()));
        let asked = of("state=failed&q=+a%26b+&after=12-99");
        assert_eq!((asked.state, asked.text.as_str(), asked.after), (Some("failed"), "a&b", Some((12, 99))));
        let link = ListQuery::link("failed", "a&b", &ListQuery::after_text(asked.after));
        assert_eq!(of(link.split_once('?').unwrap().1), asked);
        assert_eq!(of("state=%3Cimg%3E&after=x"), ListQuery::default());
        assert_eq!(ListQuery::link("", "", ""), "/console/tasks");
    }
}
