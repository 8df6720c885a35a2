//! `/console/`: what moves, what needs a person, what changed.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use control::audit::AuditLine;
use control::migrations::MigrationView;
use control::tasks::{TaskQuery, TaskView};
use model::error::{Error, split_hint};
use model::migration::Phase;
use model::task::Visible;

use super::frame::{Frame, Nav};
use super::redis::{badge_of, state_line};
use super::tasks::{NIL, left, progress_cell};
use super::{Look, draw, page, places};
use crate::Console;
use crate::gate::Viewer;
use crate::html::{plain, with_code};
use crate::live::Fragments;
use crate::outcome::{PageError, Reply};

/// Tasks of one state that the page shows.
const RUNNING_ROWS: u64 = 20;
/// Rows of what needs attention.
const ATTENTION_ROWS: usize = 10;
/// Redis migrations that the page shows.
const REDIS_ROWS: u64 = 8;
/// Changes that the page shows.
const CHANGES: u64 = 8;

/// Something that a person should look at.
struct Attention {
    tint: &'static str,
    icon: &'static str,
    name: String,
    link: String,
    what: String,
    hint: String,
}

struct Running {
    name: String,
    id: i64,
    from: String,
    to: String,
    progress: String,
    speed: String,
    left: String,
}

struct RedisRow {
    id: String,
    name: String,
    line: String,
    badge: String,
}

#[derive(Template)]
#[template(path = "overview/kpis.html")]
struct Kpis {
    look: Look,
    speed: (String, String),
    moving: u64,
    running: u64,
    places: u32,
    waiting: u64,
    retrying: u64,
    failed_tasks: u64,
    failed_objects: u64,
    behind: Option<u64>,
    following: usize,
}

#[derive(Template)]
#[template(path = "overview/attention.html")]
struct AttentionList {
    look: Look,
    all: Vec<Attention>,
}

#[derive(Template)]
#[template(path = "overview/running.html")]
struct RunningList {
    look: Look,
    rows: Vec<Running>,
}

#[derive(Template)]
#[template(path = "overview/redis.html")]
struct RedisList {
    look: Look,
    rows: Vec<RedisRow>,
}

/// A line of the changes.
struct Change {
    at: i64,
    target: String,
    who: String,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    f: Frame,
    parts: Fragments,
    changes: Option<Vec<Change>>,
}

impl OverviewPage {
    fn part(&self, name: &str) -> &str {
        self.parts.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// The tasks of a state, newest first.
async fn in_state(console: &Console, project: &str, state: Visible) -> Result<Vec<TaskView>, PageError> {
    let query = TaskQuery { state: Some(state), limit: RUNNING_ROWS, ..TaskQuery::default() };
    Ok(console.control.task_page(project, &query).await?.tasks)
}

fn failed_task(look: Look, view: &TaskView) -> Attention {
    let (t, task) = (look.t, &view.task);
    let link = format!("/console/tasks/{}", task.id);
    let (what, hint) = match &task.error {
        Some(e) => {
            let failure = Error::new(e.kind, "task", e.message.clone()).at(e.side);
            (with_code(split_hint(&e.message).0), with_code(&t.remedy(&failure)))
        }
        None => {
            let n = view.numbers(look.now);
            (t.has_failed_objects(t.int(n.failed)), t.see_causes().to_owned())
        }
    };
    Attention { tint: "bad", icon: "bad", name: plain(&task.name), link, what, hint }
}

fn attention(
    look: Look,
    failed: &[TaskView],
    retrying: &[TaskView],
    redis: &[MigrationView],
) -> Vec<Attention> {
    let t = look.t;
    let mut all: Vec<Attention> = failed.iter().map(|view| failed_task(look, view)).collect();
    for m in redis.iter().filter(|m| m.row.state.phase == Phase::Failed) {
        let what = with_code(split_hint(m.row.error.as_deref().unwrap_or_default()).0);
        let hint = with_code(split_hint(m.row.error.as_deref().unwrap_or_default()).1.unwrap_or_default());
        let link = format!("/console/redis/{}", m.row.id);
        all.push(Attention { tint: "bad", icon: "bad", name: plain(&m.row.name), link, what, hint });
    }
    for view in retrying {
        let what = view.task.error.as_ref().map(|e| with_code(split_hint(&e.message).0)).unwrap_or_default();
        let link = format!("/console/tasks/{}", view.task.id);
        let name = plain(&view.task.name);
        all.push(Attention {
            tint: "warn",
            icon: "warn",
            name,
            link,
            what,
            hint: t.retries_by_itself_title().to_owned(),
        });
    }
    let ready = |m: &&MigrationView| {
        m.row.state.phase == Phase::Following && m.row.stats.lag_bytes == 0 && m.row.state.cutover.is_none()
    };
    for m in redis.iter().filter(ready) {
        let link = format!("/console/redis/{}#cutover", m.row.id);
        let (what, hint) = (t.nothing_behind().to_owned(), t.can_be_cut_over().to_owned());
        all.push(Attention { tint: "run", icon: "info", name: plain(&m.row.name), link, what, hint });
    }
    all.truncate(ATTENTION_ROWS);
    all
}

fn running_rows(look: Look, tasks: &[TaskView]) -> Vec<Running> {
    let row = |view: &TaskView| {
        let (from, to) = places(&view.task.spec);
        let speed = view.live.as_ref().map_or(NIL.to_owned(), |l| look.t.speed(l.speed.max(0.0) as u64));
        Running {
            name: plain(&view.task.name),
            id: view.task.id,
            from: plain(&from),
            to: plain(&to),
            progress: progress_cell(look.t, view, look.now),
            speed,
            left: left(look.t, view, look.now),
        }
    };
    tasks.iter().map(row).collect()
}

pub(crate) async fn fragments(console: &Console, project: &str, look: Look) -> Result<Fragments, PageError> {
    let control = &console.control;
    let counts = control.task_counts(project).await?;
    let running = in_state(console, project, Visible::Running).await?;
    let failed = in_state(console, project, Visible::Failed).await?;
    let retrying = in_state(console, project, Visible::Retrying).await?;
    let (redis, _) = control.list_migrations(project, "", 0, REDIS_ROWS).await?;
    let live = running.iter().filter_map(|v| v.live.as_ref());
    let bytes: f64 = live.clone().map(|l| l.speed.max(0.0)).sum();
    let speed = look.t.speed(bytes as u64);
    let (value, unit) = speed.split_once(' ').unwrap_or((&speed, ""));
    let following: Vec<u64> = redis
        .iter()
        .filter(|m| m.row.state.phase == Phase::Following)
        .map(|m| m.row.stats.lag_bytes)
        .collect();
    let kpis = Kpis {
        look,
        speed: (value.to_owned(), unit.to_owned()),
        moving: live.count() as u64,
        running: counts.of(Visible::Running),
        places: control.limits.current().running_tasks,
        waiting: counts.of(Visible::Waiting),
        retrying: counts.of(Visible::Retrying),
        failed_tasks: counts.of(Visible::Failed),
        failed_objects: running.iter().chain(&failed).map(|v| v.numbers(look.now).failed).sum(),
        behind: following.iter().max().copied(),
        following: following.len(),
    };
    let redis_row = |m: &MigrationView| RedisRow {
        id: m.row.id.clone(),
        name: plain(&m.row.name),
        line: state_line(look.t, m),
        badge: badge_of(look.t, &m.row.state),
    };
    let parts = [
        ("kpis", draw(&kpis)?),
        ("attention", draw(&AttentionList { look, all: attention(look, &failed, &retrying, &redis) })?),
        ("running", draw(&RunningList { look, rows: running_rows(look, &running) })?),
        ("redis", draw(&RedisList { look, rows: redis.iter().map(redis_row).collect() })?),
    ];
    Ok(parts.into_iter().map(|(name, html)| (name.to_owned(), html)).collect())
}

/// A change in few words; the project and the face say nothing here.
fn change(project: &str, line: &AuditLine) -> Change {
    let target = line.target.replace(&format!("/v2/{project}/"), "").replace("/console/", "");
    Change { at: line.at, target: plain(&format!("{} {target}", line.action)), who: plain(&line.principal) }
}

pub(crate) async fn show(State(console): State<Console>, Extension(viewer): Extension<Viewer>) -> Reply {
    let f = Frame::of(&console, &viewer, Nav::Overview, crate::text::Text::new(viewer.prefs.lang).overview())
        .await?;
    let parts = fragments(&console, viewer.project(), f.look).await?;
    // The role viewer does not read the audit trail.
    let changes = match viewer.may_change() {
        true => {
            let lines = console.control.audit_lines(viewer.project(), false, i64::MAX, CHANGES).await?;
            Some(lines.iter().map(|line| change(viewer.project(), line)).collect())
        }
        false => None,
    };
    page(&OverviewPage { f: f.live("overview", &[]), parts, changes })
}
