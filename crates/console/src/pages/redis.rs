//! `/console/redis`: the list of Redis migrations, and one with its phases, lag, log, cut-over and way back.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use control::migrations::{EndpointView, Level, LogLine, MigrationError, MigrationView, canonical};
use http::StatusCode;
use model::error::split_hint;
use model::migration::{CutoverState, Method, MigrationEvent, MigrationKind, MigrationState, Phase, next};

use super::frame::{Frame, Nav};
use super::{Look, draw, page, page_with};
use crate::Console;
use crate::form::Form;
use crate::gate::{Viewer, see_other};
use crate::html::{badge, plain, with_code};
use crate::live::Fragments;
use crate::outcome::{Message, PageError, Reply};
use crate::text::Text;

/// Migrations of one page.
const PAGE_MIGRATIONS: u64 = 50;
/// Lines of the log.
const LOG_LINES: u64 = 50;

/// The state of a migration as icon and word: that of a cut-over, where there is one.
pub(crate) fn badge_of(t: Text, state: &MigrationState) -> String {
    let (class, icon) = match (state.cutover, state.phase) {
        (Some(CutoverState::Done), _) => ("s-ok", "check"),
        (Some(c), _) if c.is_in_progress() => ("s-run", "swap"),
        (Some(CutoverState::RollbackFailed), _) | (_, Phase::Failed) => ("s-bad", "bad"),
        (_, Phase::Following) => ("s-run", "sync"),
        (_, Phase::Loading) => ("s-run", "play"),
        (_, Phase::Stopping | Phase::Stopped) => ("", "pause"),
        (_, Phase::Succeeded) => ("s-ok", "check"),
        (_, Phase::Created) => ("", "clock"),
    };
    badge(class, icon, t.migration_state(state))
}

/// One line about a migration, for lists.
pub(crate) fn state_line(t: Text, m: &MigrationView) -> String {
    match m.row.state.phase {
        Phase::Following => t.behind_by(t.bytes(m.row.stats.lag_bytes), t.duration(ms(m.row.stats.lag_ms))),
        Phase::Loading => t.full_copy_percent(m.row.stats.percent),
        _ => t.keys_at_target(t.int(m.row.stats.target_keys)),
    }
}

fn ms(lag: u64) -> i64 {
    i64::try_from(lag).unwrap_or(i64::MAX)
}

fn end_text(t: Text, end: &Option<EndpointView>) -> String {
    let Some(end) = end else { return t.backup_files().to_owned() };
    let addrs: Vec<String> = end.addrs.iter().map(|(host, port)| format!("{host}:{port}")).collect();
    match &end.name {
        Some(name) => plain(name),
        None => plain(&addrs.join(", ")),
    }
}

struct ListRow {
    id: String,
    name: String,
    from: String,
    to: String,
    badge: String,
    line: String,
    created: i64,
}

#[derive(Template)]
#[template(path = "redis_list.html")]
struct ListPage {
    f: Frame,
    rows: Vec<ListRow>,
    text: String,
    next: String,
    is_first: bool,
}

pub(crate) async fn list(
    State(console): State<Console>,
    Extension(viewer): Extension<Viewer>,
    RawQuery(fields): RawQuery,
) -> Reply {
    let form = Form::parse(fields.unwrap_or_default().as_bytes());
    let offset = form.get("offset").parse::<u32>().map_or(0, u64::from);
    let text: String = form.text("q").chars().take(64).collect();
    let found = console.control.list_migrations(viewer.project(), &text, offset, PAGE_MIGRATIONS).await?;
    let f = Frame::of(&console, &viewer, Nav::Redis, "Redis").await?;
    let t = f.t;
    let (migrations, total) = found;
    let shown = offset + migrations.len() as u64;
    let row = |m: &MigrationView| ListRow {
        id: m.row.id.clone(),
        name: plain(&m.row.name),
        from: end_text(t, &m.source),
        to: end_text(t, &m.target),
        badge: badge_of(t, &m.row.state),
        line: state_line(t, m),
        created: m.row.created_at,
    };
    let next = if shown < total {
        let offset = shown.to_string();
        format!("/console/redis?{}", crate::form::query(&[("q", &text), ("offset", &offset)]))
    } else {
        String::new()
    };
    let rows = migrations.iter().map(row).collect();
    page(&ListPage { f: f.live("redis", &[]), rows, text, next, is_first: offset == 0 })
}

pub(crate) async fn list_fragments(
    console: &Console,
    project: &str,
    look: Look,
) -> Result<Fragments, PageError> {
    let (migrations, _) = console.control.list_migrations(project, "", 0, PAGE_MIGRATIONS).await?;
    let mut out = Fragments::new();
    for m in &migrations {
        out.insert(format!("state-{}", m.row.id), badge_of(look.t, &m.row.state));
        out.insert(format!("line-{}", m.row.id), state_line(look.t, m));
    }
    Ok(out)
}

/// A step of the way, and where it is.
struct Step {
    word: &'static str,
    note: String,
    is_done: bool,
    is_now: bool,
}

#[derive(Template)]
#[template(path = "redis/steps.html")]
struct Steps {
    look: Look,
    steps: Vec<Step>,
}

#[derive(Template)]
#[template(path = "redis/kpis.html")]
struct Kpis {
    look: Look,
    m: MigrationView,
    lag: String,
}

#[derive(Template)]
#[template(path = "redis/actions.html")]
struct Actions {
    look: Look,
    may: Possible,
}

#[derive(Template)]
#[template(path = "redis/log.html")]
struct Log {
    look: Look,
    lines: Vec<LogLine>,
}

#[derive(Template)]
#[template(path = "redis/problem.html")]
struct Problem {
    look: Look,
    what: String,
    hint: String,
}

/// What may be done now.
#[derive(Clone, Copy, Debug)]
struct Possible {
    stop: bool,
    restart: bool,
    cut_over: bool,
    roll_back: bool,
    delete: bool,
}

impl Possible {
    fn of(state: MigrationState) -> Self {
        let may = |event| next(state, event).is_ok();
        Self {
            stop: may(MigrationEvent::Stop) && state.phase != Phase::Stopping,
            restart: may(MigrationEvent::Restart),
            cut_over: may(MigrationEvent::Cutover),
            roll_back: may(MigrationEvent::Rollback),
            delete: may(MigrationEvent::Delete),
        }
    }
}

#[derive(Template)]
#[template(path = "redis.html")]
struct RedisPage {
    f: Frame,
    id: String,
    name: String,
    from: String,
    to: String,
    parts: Fragments,
    facts: Vec<(&'static str, String)>,
    is_online: bool,
    error: Option<Message>,
    done: &'static str,
}

impl RedisPage {
    fn part(&self, name: &str) -> &str {
        self.parts.get(name).map(String::as_str).unwrap_or_default()
    }
}

fn steps(t: Text, m: &MigrationView) -> Vec<Step> {
    let (state, stats) = (m.row.state, &m.row.stats);
    let is_incremental = m.row.spec.method == Some(Method::Incremental);
    let past_load = matches!(state.phase, Phase::Following | Phase::Succeeded) || state.cutover.is_some();
    let load_note = match state.phase {
        Phase::Loading => format!("{} %", stats.percent),
        Phase::Created => String::new(),
        _ if past_load => t.keys(t.int(stats.target_keys)),
        _ => String::new(),
    };
    let step = |word, note, is_done, is_now| Step { word, note, is_done, is_now };
    let mut out = vec![
        step(t.step_check(), String::new(), state.phase != Phase::Created, state.phase == Phase::Created),
        step(t.step_load(), load_note, past_load, state.phase == Phase::Loading),
    ];
    if is_incremental {
        let note = match state.phase {
            Phase::Following if stats.lag_bytes == 0 => t.nothing_behind().to_owned(),
            Phase::Following => t.bytes_behind(t.bytes(stats.lag_bytes)),
            _ => String::new(),
        };
        let is_cut = state.cutover.is_some_and(CutoverState::is_at_target);
        let moving = state.cutover.is_some_and(CutoverState::is_in_progress);
        out.push(step(t.step_follow(), note, is_cut, state.phase == Phase::Following && !moving));
        let note = if is_cut { t.way_back_is_open().to_owned() } else { String::new() };
        out.push(step(t.step_cut_over(), note, is_cut, moving));
    }
    out
}

async fn read(
    console: &Console,
    project: &str,
    id: &str,
    look: Look,
) -> Result<(MigrationView, Fragments), PageError> {
    let control = &console.control;
    let mut m = control.show_migration(project, id).await?;
    let (_, stats) = control.migration_stats(project, id).await?;
    m.row.stats = stats;
    let (lines, _) = control.migration_logs(project, id, "", 0, LOG_LINES).await?;
    let problem = match &m.row.error {
        Some(error) => {
            let (what, hint) = split_hint(error);
            draw(&Problem { look, what: with_code(what), hint: with_code(hint.unwrap_or_default()) })?
        }
        None => String::new(),
    };
    let parts = [
        ("badge", badge_of(look.t, &m.row.state)),
        ("actions", draw(&Actions { look, may: Possible::of(m.row.state) })?),
        ("problem", problem),
        ("steps", draw(&Steps { look, steps: steps(look.t, &m) })?),
        ("kpis", draw(&Kpis { look, m: m.clone(), lag: look.t.duration(ms(m.row.stats.lag_ms)) })?),
        ("log", draw(&Log { look, lines })?),
        ("said", look.t.migration_is(look.t.migration_state(&m.row.state))),
    ];
    Ok((m, parts.into_iter().map(|(name, html)| (name.to_owned(), html)).collect()))
}

pub(crate) async fn fragments(
    console: &Console,
    project: &str,
    id: &str,
    look: Look,
) -> Result<Fragments, PageError> {
    read(console, project, id, look).await.map(|(_, parts)| parts)
}

async fn draw_migration(
    console: &Console,
    viewer: &Viewer,
    id: &str,
    done: &'static str,
    error: Option<Message>,
    status: StatusCode,
) -> Reply {
    let id = canonical(id).ok_or(PageError::NotFound)?;
    let look = Look::of(viewer, console.control.clock.now_ms());
    let (m, parts) = read(console, viewer.project(), &id, look).await?;
    let f = Frame::of(console, viewer, Nav::Redis, &plain(&m.row.name)).await?;
    let t = f.t;
    let limit = m.row.spec.bandwidth_mb.map_or(t.none().to_owned(), |mb| format!("{mb} MiB/s"));
    let mut facts = vec![
        (t.how(), t.method(m.row.spec.method).to_owned()),
        (t.limit(), limit),
        (t.created(), look.time(m.row.created_at)),
    ];
    if !m.row.description.is_empty() {
        facts.push((t.description(), m.row.description.clone()));
    }
    let page = RedisPage {
        name: plain(&m.row.name),
        from: end_text(t, &m.source),
        to: end_text(t, &m.target),
        parts,
        facts,
        is_online: m.row.state.kind == MigrationKind::Online,
        error,
        done,
        f: f.live(&format!("redis:{id}"), &[]),
        id,
    };
    page_with(status, &page)
}

pub(crate) async fn show(
    State(console): State<Console>,
    Extension(viewer): Extension<Viewer>,
    Path(id): Path<String>,
    RawQuery(fields): RawQuery,
) -> Reply {
    let form = Form::parse(fields.unwrap_or_default().as_bytes());
    let t = Text::new(viewer.prefs.lang);
    let done = match form.get("done") {
        "stop" => t.redis_stop_asked(),
        "restart" => t.redis_restarted(),
        "cutover" => t.cutover_asked(),
        "rollback" => t.rollback_asked(),
        _ => "",
    };
    draw_migration(&console, &viewer, &id, done, None, StatusCode::OK).await
}

/// Runs an action; false: the typed name is another one.
async fn change(
    console: &Console,
    viewer: &Viewer,
    id: &str,
    action: &str,
    form: &Form,
) -> Result<bool, MigrationError> {
    let (control, project) = (&console.control, viewer.project());
    let one = [id.to_owned()];
    let first = |items: Vec<control::migrations::BatchItem>| {
        items.into_iter().next().and_then(|item| item.error).map_or(Ok(true), Err)
    };
    if matches!(action, "cutover" | "delete") {
        let view = control.show_migration(project, id).await?;
        if form.get("name") != plain(&view.row.name) {
            return Ok(false);
        }
    }
    match action {
        "stop" => control.stop_migration(project, id).await.map(|_| true),
        "restart" => first(control.restart_migrations(project, &one).await?),
        "cutover" => control.cut_over(project, id, &[], false).await.map(|()| true),
        "rollback" => control.roll_back(project, id).await.map(|()| true),
        "delete" => control.delete_migrations(project, &one).await.map(|()| true),
        _ => Err(MigrationError::NoTask),
    }
}

pub(crate) async fn act(
    State(console): State<Console>,
    Extension(viewer): Extension<Viewer>,
    Path((id, action)): Path<(String, String)>,
    Extension(form): Extension<Form>,
) -> Reply {
    let id = canonical(&id).ok_or(PageError::NotFound)?;
    let t = Text::new(viewer.prefs.lang);
    let refused = match change(&console, &viewer, &id, &action, &form).await {
        Ok(true) if action == "delete" => return Ok(see_other("/console/redis")),
        Ok(true) => return Ok(see_other(&format!("/console/redis/{id}?done={action}"))),
        Ok(false) => Message { what: t.name_does_not_match().to_owned(), hint: String::new() },
        Err(MigrationError::NoTask | MigrationError::TooManyIds(_)) => return Err(PageError::NotFound),
        Err(refused) => Message::of_migration(t, &refused),
    };
    draw_migration(&console, &viewer, &id, "", Some(refused), StatusCode::CONFLICT).await
}
