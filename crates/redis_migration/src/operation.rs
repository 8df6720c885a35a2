//! What the apply step asks a target to do.
//!
//! ```text
//! Command ──> Applier ──> Operation ──┬──> TransactionEncoder   one server: transactions with the checkpoint
//!             (decides)               └──> ClusterWriter        a cluster: the batch of each slot
//! ```
//!
//! The applier knows the source's command and decides what it means. An encoder knows only operations: it chooses the place, the
//! transaction and the names of keys, and writes each of them once, into the buffer that is sent.

use model::error::Result;
use redis_proto::resp::{Command, command, header, text};

use crate::checkpoint::suspects::{KeyRef, encode_key_ref};
use crate::target::functions::LibraryCommand;

/// The script that checks the keys of a change before it.
pub(crate) const CHECK_SCRIPT: &[u8] = include_bytes!("stream/check_expiry.lua");
/// The script that follows databases which change places.
const SWAP_SCRIPT: &[u8] = include_bytes!("stream/swap_suspects.lua");

/// A command of the source, in the form in which it is at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CommandForm<'a> {
    /// As it was received: its bytes are passed on.
    Received(Command<'a>),
    /// Only part of it, or other words for it.
    Built(&'a [&'a [u8]]),
}

impl<'a> CommandForm<'a> {
    /// Its name and arguments.
    pub(crate) fn args(&self) -> Vec<&'a [u8]> {
        match self {
            CommandForm::Received(command) => command.args().collect(),
            CommandForm::Built(args) => args.to_vec(),
        }
    }

    /// Appends it to what is sent.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            CommandForm::Received(command) => out.extend_from_slice(command.raw),
            CommandForm::Built(args) => command(out, args),
        }
    }
}

/// A command that concerns a whole server instead of some of its keys.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ServerCommand<'a> {
    /// `FLUSHALL`, `FLUSHDB`.
    Flush(CommandForm<'a>),
    /// `SCRIPT`.
    Scripts(CommandForm<'a>),
    /// `FUNCTION`.
    Libraries(&'a LibraryCommand),
}

/// A check of the keys of a change, by a script at the target, in the same transaction as the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExpiryCheck<'a> {
    /// The keys, at the target.
    pub(crate) keys: Vec<&'a [u8]>,
    /// What becomes suspect when one of them is missing, as the source calls it.
    pub(crate) key_refs: Vec<KeyRef>,
    /// A key that expires within this time counts as missing, ms.
    pub(crate) near_ms: i64,
    /// Suspects are read again even when the source says that they never expire.
    pub(crate) always_refetch: bool,
}

impl ExpiryCheck<'_> {
    /// Appends the check; `list` names the list of suspects, `change` is made by the script itself when the keys are there.
    pub(crate) fn encode(&self, db: u32, list: &[u8], change: &[&[u8]], out: &mut Vec<u8>) {
        let words = 4 + self.keys.len() + 4 + self.key_refs.len() + change.len();
        header(out, b'*', words as u64);
        text(out, b"EVAL");
        text(out, CHECK_SCRIPT);
        number(out, self.keys.len() as u64 + 1);
        text(out, list);
        for key in &self.keys {
            text(out, key);
        }
        number(out, u64::from(db));
        number(out, self.near_ms.unsigned_abs());
        number(out, u64::from(self.always_refetch));
        number(out, self.key_refs.len() as u64);
        for (db, key) in &self.key_refs {
            text(out, &encode_key_ref(*db, key));
        }
        for word in change {
            text(out, word);
        }
    }
}

/// One thing that a target is to do; databases are those of the target.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation<'a> {
    /// A transaction of the source begins: what follows is not divided.
    Begin,
    /// It ends.
    End,
    /// A database that the next command names.
    RequireDb(u32),
    /// `SET key value` without options.
    Set {
        /// Where.
        db: u32,
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// Any other command about keys.
    Data {
        /// Where.
        db: u32,
        /// Its name in upper case.
        name: &'a [u8],
        /// The command.
        command: CommandForm<'a>,
    },
    /// Commands that build the value of one key.
    Value {
        /// Where.
        db: u32,
        /// The key of all of them.
        key: &'a [u8],
        /// The commands, encoded.
        bytes: &'a [u8],
        /// How many they are.
        count: u64,
    },
    /// A command about the whole server. No database: the one that is selected.
    Server {
        /// Where, as far as that matters.
        db: Option<u32>,
        /// The command.
        command: ServerCommand<'a>,
    },
    /// Keys are checked before the change that follows.
    Check {
        /// Where.
        db: u32,
        /// The check.
        check: &'a ExpiryCheck<'a>,
    },
    /// Keys are checked, and the change is made with the check.
    CheckedChange {
        /// Where.
        db: u32,
        /// The check.
        check: &'a ExpiryCheck<'a>,
        /// The change.
        change: &'a [&'a [u8]],
    },
    /// Keys become suspect.
    Suspect {
        /// Which, as the source calls them.
        key_refs: &'a [KeyRef],
        /// They are read again even when the source says that they never expire.
        always_refetch: bool,
    },
    /// Keys are not suspect any more.
    ClearSuspects(&'a [KeyRef]),
    /// Two databases of the source changed places, and suspects with them.
    SwapSuspects(u32, u32),
    /// A command about one key of the migration itself.
    Internal {
        /// Where.
        db: u32,
        /// The key.
        key: &'a [u8],
        /// Name and arguments.
        args: &'a [&'a [u8]],
    },
}

/// Writes operations for a target.
pub(crate) trait Encoder {
    /// Takes the next operation.
    ///
    /// # Errors
    /// [`model::error::Kind::Unsupported`] for a command that the target has no place for.
    fn push(&mut self, operation: Operation<'_>) -> Result<()>;
}

/// Appends the command that lists keys as suspect.
pub(crate) fn encode_suspects(list: &[u8], key_refs: &[KeyRef], always_refetch: bool, out: &mut Vec<u8>) {
    // A key that must be read again in any case stays so.
    let flags: &[&[u8]] = if always_refetch { &[] } else { &[b"NX"] };
    header(out, b'*', (2 + flags.len() + 2 * key_refs.len()) as u64);
    text(out, b"ZADD");
    text(out, list);
    flags.iter().for_each(|flag| text(out, flag));
    for (db, key) in key_refs {
        number(out, u64::from(always_refetch));
        text(out, &encode_key_ref(*db, key));
    }
}

/// Appends the command that takes keys off the list.
pub(crate) fn encode_cleared(list: &[u8], key_refs: &[KeyRef], out: &mut Vec<u8>) {
    header(out, b'*', 2 + key_refs.len() as u64);
    text(out, b"ZREM");
    text(out, list);
    for (db, key) in key_refs {
        text(out, &encode_key_ref(*db, key));
    }
}

/// Appends the command that exchanges two databases in the list.
pub(crate) fn encode_swapped(list: &[u8], (a, b): (u32, u32), out: &mut Vec<u8>) {
    command(out, &[b"EVAL", SWAP_SCRIPT, b"1", list, a.to_string().as_bytes(), b.to_string().as_bytes()]);
}

/// Appends a number as an argument.
fn number(out: &mut Vec<u8>, n: u64) {
    text(out, n.to_string().as_bytes());
}
