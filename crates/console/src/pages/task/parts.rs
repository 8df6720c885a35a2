//! The parts of a task's page that live updates draw again.

use askama::Template;
use control::tasks::{FailureGroup, TaskNumbers, TaskView, may_succeed_again};
use model::count::Counters;
use model::error::{Error, split_hint};
use model::policy::limit_at;
use model::task::{TaskId, Visible};

use super::super::{Look, draw};
use crate::html::{bar, task_badge, with_code};
use crate::live::Fragments;
use crate::outcome::PageError;
use crate::pages::tasks::estimate;
use crate::text::Text;

#[derive(Template)]
#[template(path = "task/actions.html")]
struct Actions {
    look: Look,
    id: TaskId,
    state: Visible,
    failed: u64,
}

#[derive(Template)]
#[template(path = "task/progress.html")]
struct Progress {
    big: String,
    line: String,
    eta: String,
    eta_note: String,
    bar: String,
    /// Class, word and bytes.
    legend: Vec<(&'static str, &'static str, String)>,
}

/// One number with its unit and what it means.
struct Kpi {
    name: &'static str,
    value: String,
    unit: String,
    note: String,
    is_bad: bool,
}

#[derive(Template)]
#[template(path = "task/kpis.html")]
struct Kpis {
    kpis: Vec<Kpi>,
}

#[derive(Template)]
#[template(path = "task/outcomes.html")]
struct Outcomes {
    look: Look,
    c: Counters,
    /// Copied objects by proof, as text: digest, ETag, CRC-64, size.
    proof: [String; 4],
    deletes: bool,
    is_dry: bool,
}

impl Outcomes {
    fn of(look: Look, view: &TaskView) -> Self {
        let (c, _, _) = view.settled();
        let beyond = &view.task.spec.extensions;
        let proof = c.proof.map(|n| look.t.int(n));
        Self { look, c, proof, deletes: beyond.delete, is_dry: beyond.dry_run }
    }

    fn all(&self) -> u64 {
        self.c.settled().objects
    }
}

/// A cause of failed objects, and what to do about it.
pub(crate) struct Cause {
    objects: u64,
    title: String,
    /// Address of the list of its objects.
    link: String,
    example: String,
    message: String,
    remedy: String,
    may_retry: bool,
}

impl Cause {
    pub(crate) fn of(t: Text, id: TaskId, group: &FailureGroup) -> Self {
        let failure = &group.example.failure;
        let (kind, side) = (super::word(failure.kind), super::word(failure.side));
        Self {
            objects: group.objects,
            title: format!("{}{}", t.side(failure.side), t.cause(failure.kind)),
            link: format!("/console/tasks/{id}/failed?kind={kind}&side={side}"),
            example: group.example.key.to_string(),
            message: with_code(split_hint(&failure.message).0),
            remedy: t.remedy(failure),
            may_retry: may_succeed_again(failure),
        }
    }
}

#[derive(Template)]
#[template(path = "task/failed.html")]
struct Failed {
    look: Look,
    id: TaskId,
    objects: u64,
    causes: Vec<Cause>,
    /// Failed objects can be tried again now.
    may_retry: bool,
}

#[derive(Template)]
#[template(path = "task/problem.html")]
struct Problem {
    look: Look,
    class: &'static str,
    icon: &'static str,
    title: String,
    what: String,
    remedy: String,
    note: String,
}

/// What a task is in trouble with, or what a person should know of it; empty when there is nothing.
fn problem(look: Look, view: &TaskView) -> Result<String, PageError> {
    let (t, task) = (look.t, &view.task);
    let state = task.state.visible();
    let failure = task.error.as_ref().map(|e| Error::new(e.kind, "task", e.message.clone()).at(e.side));
    let (class, icon, title, note) = match (state, &failure) {
        (Visible::Failed, Some(f)) => {
            let title =
                format!("{}{}{}{}", t.task_failed_as_a_whole(), t.colon(), t.side(f.side), t.cause(f.kind));
            ("bad", "bad", title, String::new())
        }
        (Visible::Retrying, _) => {
            ("warn", "retry", t.retries_by_itself_title().to_owned(), t.attempts_so_far(task.attempts))
        }
        (Visible::Failed, None) => {
            let failed = view.numbers(look.now).failed;
            let (title, what) = (t.ended_with_failed_objects().to_owned(), t.objects_failed(t.int(failed)));
            let remedy = t.see_causes_then_retry().to_owned();
            return draw(&Problem {
                look,
                class: "bad",
                icon: "bad",
                title,
                what,
                remedy,
                note: String::new(),
            });
        }
        _ if !task.note.is_empty() => ("run", "info", t.note().to_owned(), String::new()),
        _ => return Ok(String::new()),
    };
    let (what, remedy) = match (&failure, state) {
        (Some(f), Visible::Failed) => (with_code(split_hint(&f.message).0), t.remedy(f)),
        (Some(f), _) => (with_code(split_hint(&f.message).0), String::new()),
        (None, _) => (with_code(&task.note), String::new()),
    };
    draw(&Problem { look, class, icon, title, what, remedy, note })
}

fn legend(t: Text, view: &TaskView, n: &TaskNumbers) -> Vec<(&'static str, &'static str, String)> {
    let (settled, _, _) = view.settled();
    let mut legend = vec![("f-done", t.copied_and_proved(), t.bytes(settled.copied.bytes))];
    if settled.skipped.objects > 0 {
        legend.push(("f-skip", t.skipped_equal(), t.bytes(settled.skipped.bytes)));
    }
    if settled.failed.objects > 0 {
        legend.push(("f-bad", t.failed_bytes(), t.bytes(settled.failed.bytes)));
    }
    let rest = n.total_size.saturating_sub(n.complete_size + settled.failed.bytes);
    if n.precount_done && rest > 0 {
        legend.push(("f-wait", t.to_do(), t.bytes(rest)));
    }
    legend
}

fn progress(look: Look, view: &TaskView) -> Result<String, PageError> {
    let (t, n) = (look.t, view.numbers(look.now));
    let (settled, _, _) = view.settled();
    let state = view.task.state.visible();
    let done = n.successful + n.skipped + n.failed;
    let is_counted = n.precount_done && (n.total_num > 0 || state == Visible::Succeeded);
    let (big, line) = match is_counted {
        true => {
            let bytes = t.of(t.bytes(n.complete_size), t.bytes(n.total_size));
            let objects = t.of_objects(t.int(done), t.int(n.total_num));
            (t.percent(n.progress), format!("{bytes} · {objects} · {}", t.counting_complete()))
        }
        false if done == 0 && n.total_num == 0 => (t.state(state).to_owned(), t.not_counted_yet().to_owned()),
        false => {
            let bytes = t.so_far(t.bytes(n.complete_size));
            let objects = t.objects_so_far(t.int(done));
            (
                t.counting().to_owned(),
                format!("{bytes} · {objects} · {}", t.at_least_bytes(t.bytes(n.total_size))),
            )
        }
    };
    let (eta, eta_note) = match state {
        Visible::Running if let Some((left, rate)) = estimate(view, look.now) => {
            (t.about_left(t.duration(left)), t.at_this_speed(t.speed(rate)))
        }
        Visible::Succeeded | Visible::Failed | Visible::Paused => {
            (t.ran(t.duration(n.total_ms)), String::new())
        }
        Visible::Running => (String::new(), t.no_estimate_yet().to_owned()),
        Visible::Retrying => (t.retries_by_itself().to_owned(), String::new()),
        _ => Default::default(),
    };
    let all = if n.total_size > 0 { n.total_size as f64 } else { f64::INFINITY };
    let parts: Vec<(f64, &str)> = match (is_counted, n.total_size) {
        (false, _) => vec![],
        (true, 0) => vec![(n.progress, "f-done")],
        (true, _) => [(settled.copied, "f-done"), (settled.skipped, "f-skip"), (settled.failed, "f-bad")]
            .map(|(tally, class)| (tally.bytes as f64 / all, class))
            .to_vec(),
    };
    let bar = bar("lg", &line, &parts);
    draw(&Progress { big, line, eta, eta_note, bar, legend: legend(t, view, &n) })
}

fn kpis(look: Look, view: &TaskView, causes: usize) -> Result<String, PageError> {
    let (t, n) = (look.t, view.numbers(look.now));
    let split = |text: String| match text.split_once(' ') {
        Some((value, unit)) => (value.to_owned(), unit.to_owned()),
        None => (text, String::new()),
    };
    let kpi = |name, text: String, note: String| {
        let (value, unit) = split(text);
        Kpi { name, value, unit, note, is_bad: false }
    };
    let mut kpis = Vec::new();
    let average = (n.total_ms > 0).then(|| view.settled().0.copied.bytes * 1000 / n.total_ms.unsigned_abs());
    if let Some(live) = &view.live {
        let note = average.map(|a| t.average(t.speed(a))).unwrap_or_default();
        kpis.push(kpi(t.speed_of(), t.speed(live.speed.max(0.0) as u64), note));
    } else if let Some(average) = average.filter(|a| *a > 0) {
        kpis.push(kpi(t.average_speed(), t.speed(average), String::new()));
    }
    let windows = &view.task.spec.windows;
    let now = match limit_at(windows, look.minute())
        .or((view.task.spec.bandwidth > 0).then_some(view.task.spec.bandwidth))
    {
        Some(limit) => t.speed(limit),
        None => t.none().to_owned(),
    };
    let note = if windows.is_empty() { String::new() } else { t.windows_a_day(windows.len()) };
    kpis.push(kpi(t.limit_now(), now, note));
    let done = t.int(n.successful + n.skipped + n.failed);
    let is_counted = n.precount_done && (n.total_num > 0 || view.task.state.visible() == Visible::Succeeded);
    let note = if is_counted { t.of_all(t.int(n.total_num)) } else { t.not_counted_yet().to_owned() };
    kpis.push(kpi(t.objects(), done, note));
    if let Some(live) = &view.live {
        kpis.push(kpi(t.requests_in_flight(), t.int(u64::from(live.limit)), t.allowed_now().to_owned()));
        kpis.push(kpi(t.tried_again(), t.int(live.retries), t.requests_of_this_run().to_owned()));
    }
    let note = if causes > 0 { t.causes(causes) } else { String::new() };
    let failed = Kpi { is_bad: n.failed > 0, ..kpi(t.failed_objects(), t.int(n.failed), note) };
    kpis.push(failed);
    draw(&Kpis { kpis })
}

fn failed(look: Look, view: &TaskView, groups: &[FailureGroup]) -> Result<String, PageError> {
    let task = &view.task;
    let objects = view.numbers(look.now).failed;
    if objects == 0 && groups.is_empty() {
        return Ok(String::new());
    }
    let causes = groups.iter().map(|g| Cause::of(look.t, task.id, g)).collect();
    let may_retry = look.may_change && task.spec.record_failures && task.state.visible() == Visible::Failed;
    draw(&Failed { look, id: task.id, objects, causes, may_retry })
}

/// All of them by the name of their event.
pub(crate) fn all(look: Look, view: &TaskView, groups: &[FailureGroup]) -> Result<Fragments, PageError> {
    let task = &view.task;
    let state = task.state.visible();
    let failed_objects = view.numbers(look.now).failed;
    let parts = [
        ("badge", task_badge(look.t, state)),
        ("actions", draw(&Actions { look, id: task.id, state, failed: failed_objects })?),
        ("problem", problem(look, view)?),
        ("progress", progress(look, view)?),
        ("kpis", kpis(look, view, groups.len())?),
        ("outcomes", draw(&Outcomes::of(look, view))?),
        ("failed", failed(look, view, groups)?),
        ("said", look.t.task_is(look.t.state(state))),
    ];
    Ok(parts.into_iter().map(|(name, html)| (name.to_owned(), html)).collect())
}
