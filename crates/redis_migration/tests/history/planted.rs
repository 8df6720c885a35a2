//! Faults of a migration that the checker must find: commands that are changed on their way to the target.

use std::sync::Mutex;
use std::time::Duration;

use crate::link::Change;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// Two commands change places.
    Reorder,
    /// One command of a transaction comes later than the others.
    TornTransaction,
    /// A command is applied twice.
    DoubleApply,
    /// A database is taken for another.
    WrongDatabase,
    /// A key lasts that should expire.
    LostExpiry,
}

impl Planted {
    pub(crate) const ALL: [Self; 5] =
        [Self::Reorder, Self::TornTransaction, Self::DoubleApply, Self::WrongDatabase, Self::LostExpiry];
}

type Words = Vec<Vec<u8>>;

/// One fault, at a share of the commands that it can happen to.
pub(crate) struct Fault {
    planted: Planted,
    /// Where the server is.
    port: u16,
    state: Mutex<State>,
}

struct State {
    random: fastrand::Rng,
    /// The database that was selected last.
    db: Vec<u8>,
    /// A command that goes behind the next one.
    waits: Option<Words>,
}

impl Fault {
    pub(crate) fn new(planted: Planted, port: u16, seed: u64) -> Self {
        let state = State { random: fastrand::Rng::with_seed(seed), db: b"0".to_vec(), waits: None };
        Self { planted, port, state: Mutex::new(state) }
    }

    fn later(&self, db: &[u8], words: Words) {
        let (port, db) = (self.port, db.to_vec());
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            let mut out = Vec::new();
            redis_proto::resp::command(&mut out, &[b"SELECT", &db]);
            redis_proto::resp::command(&mut out, &words.iter().map(Vec::as_slice).collect::<Vec<_>>());
            // The run may be over meanwhile.
            let _ = testkit::redis::Connection::try_to(port).and_then(|mut to| to.try_many(&out, 2));
        });
    }
}

fn is(words: &Words, name: &[u8]) -> bool {
    words.first().is_some_and(|first| first.eq_ignore_ascii_case(name))
}

fn names(words: &Words, name: &str) -> bool {
    words.iter().any(|w| w.ends_with(name.as_bytes()))
}

impl Change for Fault {
    fn change(&self, mut words: Words) -> Vec<Words> {
        let mut state = self.state.lock().unwrap();
        if is(&words, b"SELECT") {
            state.db.clone_from(&words[1]);
        }
        if let Some(held) = state.waits.take() {
            return if is(&words, b"EXEC") { vec![held, words] } else { vec![words, held] };
        }
        let drawn = state.random.u32(0..10) == 0;
        match self.planted {
            _ if !drawn => {}
            Planted::Reorder if is(&words, b"RPUSH") => {
                state.waits = Some(words);
                return vec![];
            }
            Planted::TornTransaction if is(&words, b"SET") && names(&words, "ThirdOfThree") => {
                let nothing = vec![b"EXISTS".to_vec(), words[1].clone()];
                self.later(&state.db, words);
                return vec![nothing];
            }
            Planted::DoubleApply if is(&words, b"RPUSH") => words.push(words[2].clone()),
            Planted::DoubleApply if is(&words, b"INCR") => {
                words = vec![b"INCRBY".to_vec(), words[1].clone(), b"2".to_vec()];
            }
            Planted::WrongDatabase if is(&words, b"SELECT") && words[1] != b"0" => {
                words[1] = if words[1] == b"1" { b"2".to_vec() } else { b"1".to_vec() };
            }
            Planted::LostExpiry if is(&words, b"SET") && names(&words, "Session") => words.truncate(3),
            Planted::LostExpiry if is(&words, b"PEXPIREAT") => {
                words = vec![b"EXISTS".to_vec(), words[1].clone()];
            }
            _ => {}
        }
        vec![words]
    }
}
