//! What the source has done so far, and which of its states a state of the target is.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use redis_proto::resp::command;

/// Databases that are written to.
pub(crate) const DATABASES: u32 = 3;
/// Groups of keys: all keys of a group are in one slot, and its states are compared together.
pub(crate) const GROUPS: [&str; 2] = ["a", "b"];

/// One key of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Name {
    List,
    Count,
    Text,
    /// The three that only transactions change.
    FirstOfThree,
    SecondOfThree,
    ThirdOfThree,
    /// The one that expires.
    Session,
}

impl Name {
    /// All that last, in the order in which they are read.
    pub(crate) const LASTING: [Self; 6] =
        [Self::List, Self::Count, Self::Text, Self::FirstOfThree, Self::SecondOfThree, Self::ThirdOfThree];

    pub(crate) fn is_list(self) -> bool {
        matches!(self, Self::List | Self::FirstOfThree)
    }
}

/// A key in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct KeyRef {
    pub(crate) db: u32,
    pub(crate) group: usize,
    pub(crate) name: Name,
}

impl KeyRef {
    pub(crate) fn key(self) -> String {
        format!("{{{}}}{:?}", GROUPS[self.group], self.name)
    }
}

/// What the target shows of a key that expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) value: String,
    /// Milliseconds that it still has; -1: it lasts.
    pub(crate) left: i64,
}

/// What a step does to the key that expires.
#[derive(Clone, Debug)]
struct Life {
    step: u64,
    /// None: it is deleted.
    value: Option<String>,
    /// It expires no earlier than this long after that.
    expires: Option<(Instant, i64)>,
}

type State = BTreeMap<KeyRef, Vec<String>>;

/// The commands of one step.
struct Script<'o> {
    out: &'o mut Vec<u8>,
    count: usize,
}

impl Script<'_> {
    fn say(&mut self, words: &[&str]) {
        let words: Vec<&[u8]> = words.iter().map(|w| w.as_bytes()).collect();
        command(self.out, &words);
        self.count += 1;
    }
}

/// Everything that the source was told, in its order.
#[derive(Debug, Default)]
pub(crate) struct History {
    state: State,
    steps: u64,
    /// Which step leads to a state, by the digest of all keys that last.
    steps_by_digest: HashMap<u64, u64>,
    lives: HashMap<KeyRef, Vec<Life>>,
}

fn digest(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

impl History {
    pub(crate) fn new() -> Self {
        let mut history = Self::default();
        history.steps_by_digest.insert(digest(&State::new()), 0);
        history
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Draws the next step, takes it over, and writes its commands; answers how many they are.
    pub(crate) fn next(&mut self, random: &mut fastrand::Rng, out: &mut Vec<u8>) -> usize {
        self.steps += 1;
        let n = self.steps.to_string();
        let (db, group) = (random.u32(0..DATABASES), random.usize(0..GROUPS.len()));
        let key_ref = |name| KeyRef { db, group, name };
        let key = |name| key_ref(name).key();
        let mut script = Script { out, count: 0 };
        script.say(&["SELECT", &db.to_string()]);
        match random.u32(0..20) {
            0..6 => {
                script.say(&["RPUSH", &key(Name::List), &n]);
                self.state.entry(key_ref(Name::List)).or_default().push(n);
            }
            6..9 => {
                script.say(&["INCR", &key(Name::Count)]);
                self.add(key_ref(Name::Count), 1);
            }
            9..12 => {
                script.say(&["SET", &key(Name::Text), &n]);
                self.state.insert(key_ref(Name::Text), vec![n]);
            }
            12..16 => self.change_three(key_ref, &mut script),
            16 => self.delete_two(key_ref, &mut script),
            _ => self.change_session(key_ref, random, &mut script),
        }
        let count = script.count;
        let before = self.steps_by_digest.insert(digest(&self.state), self.steps);
        assert_eq!(before, None, "two steps lead to one state");
        count
    }

    /// Three keys in one transaction.
    fn change_three(&mut self, key_ref: impl Fn(Name) -> KeyRef, script: &mut Script<'_>) {
        let n = self.steps.to_string();
        script.say(&["MULTI"]);
        script.say(&["RPUSH", &key_ref(Name::FirstOfThree).key(), &n]);
        script.say(&["INCRBY", &key_ref(Name::SecondOfThree).key(), &n]);
        script.say(&["SET", &key_ref(Name::ThirdOfThree).key(), &n]);
        script.say(&["EXEC"]);
        self.add(key_ref(Name::SecondOfThree), self.steps);
        self.state.entry(key_ref(Name::FirstOfThree)).or_default().push(n.clone());
        self.state.insert(key_ref(Name::ThirdOfThree), vec![n]);
    }

    /// Two keys are deleted in a transaction that also counts.
    fn delete_two(&mut self, key_ref: impl Fn(Name) -> KeyRef, script: &mut Script<'_>) {
        script.say(&["MULTI"]);
        script.say(&["DEL", &key_ref(Name::Text).key(), &key_ref(Name::List).key()]);
        script.say(&["INCR", &key_ref(Name::Count).key()]);
        script.say(&["EXEC"]);
        self.state.remove(&key_ref(Name::Text));
        self.state.remove(&key_ref(Name::List));
        self.add(key_ref(Name::Count), 1);
    }

    /// The key that expires. It is a step of its own in the history of the lasting keys, so that a state says which life the key
    /// has.
    fn change_session(
        &mut self,
        key_ref: impl Fn(Name) -> KeyRef,
        random: &mut fastrand::Rng,
        script: &mut Script<'_>,
    ) {
        let (n, key) = (self.steps.to_string(), key_ref(Name::Session).key());
        let left = random.i64(30..3000);
        let (value, expires) = match random.u32(0..6) {
            0 => (None, None),
            1 => (Some(n), None),
            _ => (Some(n), Some((Instant::now(), left))),
        };
        script.say(&["MULTI"]);
        match (&value, expires) {
            (None, _) => script.say(&["DEL", &key]),
            (Some(v), None) => script.say(&["SET", &key, v]),
            (Some(v), Some((_, ms))) if random.bool() => {
                script.say(&["SET", &key, v, "PX", &ms.to_string()]);
            }
            (Some(v), Some((_, ms))) => {
                script.say(&["SET", &key, v]);
                script.say(&["PEXPIRE", &key, &ms.to_string()]);
            }
        }
        script.say(&["INCR", &key_ref(Name::Count).key()]);
        script.say(&["EXEC"]);
        self.add(key_ref(Name::Count), 1);
        let life = Life { step: self.steps, value, expires };
        self.lives.entry(key_ref(Name::Session)).or_default().push(life);
    }

    fn add(&mut self, key_ref: KeyRef, n: u64) {
        let old = self.state.get(&key_ref).map_or(0, |v| v[0].parse::<u64>().unwrap());
        self.state.insert(key_ref, vec![(old + n).to_string()]);
    }

    /// The step whose state this is.
    ///
    /// # Errors
    /// How it differs from the state that comes nearest, when it is none.
    pub(crate) fn step_of(&self, shown: &BTreeMap<KeyRef, Vec<String>>) -> Result<u64, String> {
        self.steps_by_digest.get(&digest(shown)).copied().ok_or_else(|| {
            let differs = |key_ref: &&KeyRef| shown.get(key_ref) != self.state.get(key_ref);
            let key_refs: Vec<&KeyRef> = self.state.keys().chain(shown.keys()).filter(differs).collect();
            format!(
                "a state that the source never had; compared with its last one, other values at {key_refs:?}"
            )
        })
    }

    /// Checks what was shown, between two moments, of a key that expires, in the state behind `step`.
    pub(crate) fn check_session(
        &self,
        key_ref: KeyRef,
        step: u64,
        shown: Option<&Session>,
        until: Instant,
    ) -> Result<(), String> {
        let life = self.lives.get(&key_ref).and_then(|lives| lives.iter().rev().find(|l| l.step <= step));
        let wrong =
            |what: &str| Err(format!("{what}: {key_ref:?} is {shown:?} behind step {step}, {life:?}"));
        let (value, expires) = match life {
            None => (None, None),
            Some(life) => (life.value.as_ref(), life.expires),
        };
        match (value, shown) {
            (None, None) => Ok(()),
            (None, Some(_)) => wrong("a key that is deleted"),
            (Some(_), None) => match expires {
                Some((from, ms)) if until.duration_since(from).as_millis() as i64 >= ms => Ok(()),
                _ => wrong("a key that has not expired yet is missing"),
            },
            (Some(value), Some(shown)) if *value != shown.value => wrong("an old value"),
            (Some(_), Some(shown)) => match expires {
                None if shown.left != -1 => wrong("a key that lasts expires"),
                Some(_) if shown.left < 0 => wrong("an expiry is lost"),
                Some((_, ms)) if shown.left > ms => wrong("an expiry is later"),
                _ => Ok(()),
            },
        }
    }
}
