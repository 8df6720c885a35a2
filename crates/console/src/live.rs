//! Live updates: `GET /console/live?topic=…`, server-sent events.
//!
//! One task for each topic draws its fragments once a second, for all who look at it with the same language, zone and rights. A
//! stream sends the fragments that have changed since it sent them last, and all of them at its beginning, so a lost
//! connection loses nothing. The event `at` comes each second: a page that misses it says that its numbers are old.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use bytes::Bytes;
use flow_control::caller_limit::{CallerLimit, Reservation};
use http::{HeaderValue, header};
use model::task::TaskId;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::Console;
use crate::form::Form;
use crate::format::clock;
use crate::gate::Viewer;
use crate::outcome::{PageError, Reply};
use crate::pages::{Look, overview, redis, task, tasks};
use crate::pieces::Pieces;
use crate::session::SessionId;
use crate::text::Text;

/// Streams at once.
const MAX_STREAMS: u64 = 512;
/// Streams of one project at once.
const MAX_STREAMS_PER_PROJECT: u64 = 256;
/// Streams of one session at once.
const MAX_STREAMS_PER_SESSION: u64 = 6;
/// A topic is drawn so often.
const DRAW_INTERVAL: Duration = Duration::from_secs(1);
/// Batches of events that a slow reader leaves unread before it misses some.
const QUEUE_BATCHES: usize = 4;
/// A browser that lost its stream asks again after so long.
const RETRY_MS: u32 = 3000;

/// What a page shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    Overview,
    Task(TaskId),
    Tasks(tasks::ListQuery),
    Redis(String),
    RedisList,
}

impl Topic {
    fn parse(form: &Form) -> Option<Self> {
        let topic = form.get("topic");
        Some(match topic.split_once(':') {
            None if topic == "overview" => Topic::Overview,
            None if topic == "redis" => Topic::RedisList,
            None if topic == "tasks" => Topic::Tasks(tasks::ListQuery::of(form)),
            Some(("task", id)) => Topic::Task(id.parse().ok()?),
            Some(("redis", id)) => Topic::Redis(control::migrations::canonical(id)?),
            _ => return None,
        })
    }
}

/// A topic as some viewers see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    project: String,
    topic: Topic,
    lang: crate::text::Lang,
    zone: i32,
    may_change: bool,
}

/// Fragments of a page by the name of their event.
pub(crate) type Fragments = BTreeMap<String, String>;

/// What a topic looks like, with the number of the drawing in which each fragment changed last.
#[derive(Debug, Default)]
struct Drawn {
    number: u64,
    fragments: BTreeMap<String, (u64, String)>,
    /// It does not exist any more.
    is_gone: bool,
}

impl Drawn {
    fn next(&self, fresh: Fragments) -> Self {
        let number = self.number + 1;
        let same = |name: &String, text: &String| {
            self.fragments.get(name).filter(|(_, t)| t == text).map(|(n, _)| *n)
        };
        let fragments = fresh
            .into_iter()
            .map(|(name, text)| {
                let at = same(&name, &text).unwrap_or(number);
                (name, (at, text))
            })
            .collect();
        Self { number, fragments, is_gone: false }
    }

    /// The events that changed after a drawing.
    fn events(&self, after: u64) -> String {
        let mut out = String::new();
        for (name, (_, text)) in self.fragments.iter().filter(|(_, (at, _))| *at > after) {
            push_event(&mut out, name, text);
        }
        if self.is_gone {
            push_event(&mut out, "gone", "");
        }
        out
    }
}

/// Adds one event; a line break in its text becomes a second line of data.
fn push_event(out: &mut String, name: &str, text: &str) {
    out.push_str("event: ");
    out.push_str(name);
    for line in text.split(['\n', '\r']) {
        out.push_str("\ndata: ");
        out.push_str(line);
    }
    out.push_str("\n\n");
}

type Topics = HashMap<Key, watch::Receiver<Arc<Drawn>>>;

/// The topics that somebody looks at.
#[derive(Debug)]
pub(crate) struct Hub {
    topics: Arc<Mutex<Topics>>,
    sessions: CallerLimit<SessionId>,
    projects: CallerLimit<String>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            topics: Arc::default(),
            sessions: CallerLimit::new(MAX_STREAMS, MAX_STREAMS_PER_SESSION),
            projects: CallerLimit::new(MAX_STREAMS, MAX_STREAMS_PER_PROJECT),
        }
    }
}

fn locked(topics: &Mutex<Topics>) -> MutexGuard<'_, Topics> {
    topics.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Console {
    /// Looks at a topic; the first who does starts its task.
    fn look_at(&self, key: Key) -> watch::Receiver<Arc<Drawn>> {
        let mut topics = locked(&self.hub.topics);
        if let Some(drawn) = topics.get(&key).filter(|d| d.has_changed().is_ok()) {
            return drawn.clone();
        }
        let (tell, drawn) = watch::channel(Arc::new(Drawn::default()));
        topics.insert(key.clone(), drawn.clone());
        tokio::spawn(draw_until_unseen(self.clone(), key, tell));
        drawn
    }
}

/// Draws a topic once a second until nobody looks at it any more.
async fn draw_until_unseen(console: Console, key: Key, tell: watch::Sender<Arc<Drawn>>) {
    let mut ticks = tokio::time::interval(DRAW_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = tasks::SeenRows::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = console.settings.stop.cancelled() => break,
        }
        {
            let mut topics = locked(&console.hub.topics);
            // The hub itself is one of those who look.
            if tell.receiver_count() <= 1 {
                topics.remove(&key);
                return;
            }
        }
        let before = tell.borrow().clone();
        match draw(&console, &key, &mut seen).await {
            Ok(fragments) => drop(tell.send_replace(Arc::new(before.next(fragments)))),
            Err(PageError::NotFound) => {
                let number = before.number + 1;
                tell.send_replace(Arc::new(Drawn { number, is_gone: true, ..Drawn::default() }));
                break;
            }
            // Nothing is sent: the page says that its numbers are old.
            Err(error) => tracing::warn!("live updates of {:?} failed: {error:?}", key.topic),
        }
    }
    locked(&console.hub.topics).remove(&key);
}

async fn draw(console: &Console, key: &Key, seen: &mut tasks::SeenRows) -> Result<Fragments, PageError> {
    let t = Text::new(key.lang);
    let now = console.control.clock.now_ms();
    let look = Look { t, zone: key.zone, now, may_change: key.may_change };
    let project = key.project.as_str();
    let mut fragments = match &key.topic {
        Topic::Overview => overview::fragments(console, project, look).await?,
        Topic::Task(id) => task::fragments(console, project, *id, look).await?,
        Topic::Tasks(query) => tasks::fragments(console, project, query, look, seen).await?,
        Topic::Redis(id) => redis::fragments(console, project, id, look).await?,
        Topic::RedisList => redis::list_fragments(console, project, look).await?,
    };
    fragments.insert("at".to_owned(), t.live_at(clock(now, key.zone)));
    Ok(fragments)
}

/// Writes the events of one viewer until the viewer leaves, the session ends or the service stops.
async fn send(
    console: Console,
    viewer: Viewer,
    mut drawn: watch::Receiver<Arc<Drawn>>,
    events: mpsc::Sender<Bytes>,
    _place: (Reservation<SessionId>, Reservation<String>),
) {
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!("retry: {RETRY_MS}\n");
    push_event(&mut text, "hello", &format!("{{\"version\":\"{version}\"}}"));
    if events.send(text.into()).await.is_err() {
        return;
    }
    let mut sent = 0;
    loop {
        let state = drawn.borrow_and_update().clone();
        let text = state.events(sent);
        if !text.is_empty() && events.send(text.into()).await.is_err() {
            return;
        }
        sent = state.number;
        let changed = tokio::select! {
            changed = drawn.changed() => changed,
            () = events.closed() => return,
        };
        let now = console.viewer(viewer.session, viewer.prefs, false);
        let is_same =
            now.is_some_and(|v| v.project == viewer.project && v.may_change() == viewer.may_change());
        if state.is_gone || changed.is_err() || !is_same {
            return;
        }
    }
}

pub(crate) async fn stream(
    State(console): State<Console>,
    Extension(viewer): Extension<Viewer>,
    RawQuery(query): RawQuery,
) -> Reply {
    let form = Form::parse(query.unwrap_or_default().as_bytes());
    let topic = Topic::parse(&form).ok_or(PageError::NotFound)?;
    let session = console.hub.sessions.reserve(viewer.session, 1).ok_or(PageError::Busy)?;
    let project = console.hub.projects.reserve(viewer.project.id.clone(), 1).ok_or(PageError::Busy)?;
    let key = Key {
        project: viewer.project.id.clone(),
        topic,
        lang: viewer.prefs.lang,
        zone: viewer.prefs.zone,
        may_change: viewer.may_change(),
    };
    let drawn = console.look_at(key);
    let (events, reader) = mpsc::channel(QUEUE_BATCHES);
    tokio::spawn(send(console.clone(), viewer, drawn, events, (session, project)));
    let mut response = Response::new(Body::new(Pieces(reader)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragments(all: &[(&str, &str)]) -> Fragments {
        all.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect()
    }

    #[test]
    fn only_changed_fragments_are_sent() {
        let first = Drawn::default().next(fragments(&[("a", "1"), ("b", "<p>x\n</p>")]));
        assert_eq!(first.events(0), "event: a\ndata: 1\n\nevent: b\ndata: <p>x\ndata: </p>\n\n");
        let second = first.next(fragments(&[("a", "2"), ("b", "<p>x\n</p>")]));
        assert_eq!(second.events(first.number), "event: a\ndata: 2\n\n");
        assert_eq!(second.events(0).matches("event:").count(), 2, "who comes later gets all");
        assert_eq!(second.events(second.number), "");
    }

    #[test]
    fn text_cannot_forge_an_event() {
        let mut out = String::new();
        push_event(&mut out, "a", "x\n\nevent: state\r\n\rdata: y");
        assert!(out.lines().skip(1).all(|l| l.is_empty() || l.starts_with("data: ")), "{out}");
        assert_eq!(out.matches("\n\n").count(), 1);
    }

    #[test]
    fn topics_are_of_a_closed_set() {
        let of = |query: &str| Topic::parse(&Form::parse(query.as_bytes()));
        assert_eq!(of("topic=task:12"), Some(Topic::Task(12)));
        assert_eq!(of("topic=redis"), Some(Topic::RedisList));
        for bad in ["", "topic=", "topic=task:x", "topic=redis:1", "topic=secrets:1"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
