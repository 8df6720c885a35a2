//! The source's only writer and the target's only reader, each in a thread of its own.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis_migration::checkpoint::Checkpoint;
use redis_migration::checkpoint::keys::KeyNames;
use redis_proto::resp::{Reply, command};
use testkit::redis::Connection;

use crate::model::{DATABASES, GROUPS, History, KeyRef, Name, Session};

/// What both of them, and the run, know.
pub(crate) struct Shared {
    pub(crate) history: Mutex<History>,
    /// The port of the source; whoever holds the lock stops the writer.
    pub(crate) source: Mutex<u16>,
    /// The port of the target.
    pub(crate) target: AtomicU16,
    /// States of the target that were compared.
    pub(crate) compared: AtomicU64,
    pub(crate) written: AtomicBool,
    pub(crate) over: AtomicBool,
    /// The first thing that was wrong.
    pub(crate) wrong: Mutex<Option<String>>,
}

/// Writes steps until told to stop.
pub(crate) fn write(shared: Arc<Shared>, seed: u64) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut to: Option<(u16, Connection)> = None;
        while !shared.written.load(Ordering::SeqCst) {
            {
                let port = *shared.source.lock().unwrap();
                if to.as_ref().is_none_or(|(at, _)| *at != port) {
                    to = Some((port, Connection::to(port)));
                }
                let source = shared.source.lock().unwrap();
                if *source != port {
                    continue;
                }
                let (mut out, mut count) = (Vec::new(), 0);
                let mut history = shared.history.lock().unwrap();
                for _ in 0..random.u32(1..12) {
                    count += history.next(&mut random, &mut out);
                }
                drop(history);
                for reply in to.as_mut().unwrap().1.many(&out, count) {
                    assert!(!matches!(reply, Reply::Error(_)), "{reply:?}");
                }
            }
            std::thread::sleep(Duration::from_micros(random.u64(0..10_000)));
        }
    })
}

/// A state of the target.
struct Shown {
    checkpoint: Option<Checkpoint>,
    lasting: BTreeMap<KeyRef, Vec<String>>,
    sessions: BTreeMap<KeyRef, Session>,
}

fn text(reply: &Reply) -> Option<String> {
    reply.text().map(|t| String::from_utf8_lossy(t).into_owned())
}

/// Reads everything at one moment.
fn look(to: &mut Connection) -> io::Result<Shown> {
    let (mut out, mut count) = (Vec::new(), 0);
    let mut say = |words: &[&[u8]]| {
        command(&mut out, words);
        count += 1;
    };
    let mut places = vec![];
    say(&[b"MULTI"]);
    say(&[b"SELECT", b"0"]);
    say(&[b"GET", &KeyNames::new("test").checkpoint]);
    for db in 0..DATABASES {
        say(&[b"SELECT", db.to_string().as_bytes()]);
        for group in 0..GROUPS.len() {
            for name in Name::LASTING {
                let place = KeyRef { db, group, name };
                match name.is_list() {
                    true => say(&[b"LRANGE", place.key().as_bytes(), b"0", b"-1"]),
                    false => say(&[b"GET", place.key().as_bytes()]),
                }
                places.push(place);
            }
            let place = KeyRef { db, group, name: Name::Session };
            say(&[b"GET", place.key().as_bytes()]);
            say(&[b"PTTL", place.key().as_bytes()]);
            places.push(place);
        }
    }
    say(&[b"EXEC"]);
    let replies = to.try_many(&out, count)?;
    let Some(Reply::Array(all)) = replies.into_iter().next_back() else {
        return Err(io::Error::other("the transaction was refused"));
    };
    let mut values = all.iter().skip(1);
    let checkpoint = values.next().and_then(text).and_then(|m| Checkpoint::parse(&m));
    let (mut lasting, mut sessions) = (BTreeMap::new(), BTreeMap::new());
    for place in places {
        if place.group == 0 && place.name == Name::List {
            values.next();
        }
        let value = values.next().unwrap();
        if place.name == Name::Session {
            let left = values.next().and_then(Reply::number).unwrap();
            if let Some(value) = text(value) {
                sessions.insert(place, Session { value, left });
            }
            continue;
        }
        let words: Vec<String> = match value.array() {
            Some(items) => items.iter().filter_map(text).collect(),
            None => text(value).into_iter().collect(),
        };
        if !words.is_empty() {
            lasting.insert(place, words);
        }
    }
    Ok(Shown { checkpoint, lasting, sessions })
}

/// How far the target was when it was looked at before.
#[derive(Default)]
struct Before {
    step: u64,
    position: Option<(String, u64)>,
}

impl Before {
    /// Checks a state; answers whether it is one of a stream that is followed.
    fn check(&mut self, shown: &Shown, history: &History, until: Instant) -> Result<bool, String> {
        let Some(Checkpoint::Applied(position, ..)) = &shown.checkpoint else {
            // A snapshot is being applied: the target shows parts of a state.
            return Ok(false);
        };
        let step = history.step_of(&shown.lasting)?;
        if step < self.step {
            return Err(format!("the target went back from step {} to {step}", self.step));
        }
        self.step = step;
        if let Some((replid, offset)) = &self.position
            && *replid == position.replid
            && position.offset < *offset
        {
            return Err(format!("the offset went back from {offset} to {}", position.offset));
        }
        self.position = Some((position.replid.clone(), position.offset));
        for db in 0..DATABASES {
            for group in 0..GROUPS.len() {
                let place = KeyRef { db, group, name: Name::Session };
                history.check_session(place, step, shown.sessions.get(&place), until)?;
            }
        }
        Ok(true)
    }
}

/// Looks at the target until all is over.
pub(crate) fn read(shared: Arc<Shared>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let (mut to, mut before): (Option<(u16, Connection)>, _) = (None, Before::default());
        while !shared.over.load(Ordering::SeqCst) {
            let port = shared.target.load(Ordering::SeqCst);
            if to.as_ref().is_none_or(|(at, _)| *at != port) {
                to = Connection::try_to(port).ok().map(|c| (port, c));
            }
            let Some((_, connection)) = &mut to else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            match look(connection) {
                // It is killed, or kills its clients.
                Err(_) => to = None,
                Ok(shown) => {
                    let until = Instant::now();
                    let checked = before.check(&shown, &shared.history.lock().unwrap(), until);
                    match checked {
                        Ok(true) => _ = shared.compared.fetch_add(1, Ordering::SeqCst),
                        Ok(false) => {}
                        Err(what) => {
                            shared.wrong.lock().unwrap().get_or_insert(what);
                            return;
                        }
                    }
                }
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    })
}

/// Whose stream the checkpoint at the target is in.
pub(crate) fn replid(shared: &Shared) -> Option<String> {
    let mut to = Connection::try_to(shared.target.load(Ordering::SeqCst)).ok()?;
    match look(&mut to).ok()?.checkpoint? {
        Checkpoint::Applied(position, ..) => Some(position.replid),
        Checkpoint::FullSync(_) => None,
    }
}

/// The step that the target shows.
///
/// # Errors
/// What is wrong with its state.
pub(crate) fn last_step(shared: &Shared) -> Result<u64, String> {
    let mut to = Connection::to(shared.target.load(Ordering::SeqCst));
    let shown = look(&mut to).map_err(|e| e.to_string())?;
    let mut before = Before::default();
    before.check(&shown, &shared.history.lock().unwrap(), Instant::now())?;
    Ok(before.step)
}
