//! Libraries of functions on their way to the target.
//!
//! A server refuses a library with a function that another of its libraries has, whatever `REPLACE` says, and a library that its
//! engine cannot load. A policy decides what happens then. Libraries are loaded by commands of their own, outside of
//! transactions: a rejection arrives when no other command is in flight, and a repeated command does no harm.

use std::collections::BTreeSet;

use model::error::{Error, Kind, Result, Side};
use redis_proto::resp::Reply;

use crate::connection::client::Client;
use crate::connection::query_client::QueryClient;
use crate::connection::reply_error::{ReplyError, classify, reply_failure};

/// Libraries of the target that may conflict with one library.
const LIBRARIES_MAX: usize = 64;
/// Operation of the failure that names a library which the target refuses.
pub const FUNCTION: &str = "function";
/// How skipped libraries are named in the summary.
pub(crate) const SKIPPED_LIBRARIES: &str =
    "libraries of functions that the target rejects (skipped by --functions skip)";

/// What happens when the target refuses a library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FunctionPolicy {
    /// The migration ends.
    #[default]
    Stop,
    /// Libraries of the target that have the same functions are deleted.
    Replace,
    /// The library is skipped and counted.
    Skip,
}

impl FunctionPolicy {
    /// Out of the word that users write.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "stop" => Some(FunctionPolicy::Stop),
            "replace" => Some(FunctionPolicy::Replace),
            "skip" => Some(FunctionPolicy::Skip),
            _ => None,
        }
    }
}

/// What became of a command about libraries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LibraryOutcome {
    /// The target rejected it, and it was skipped.
    pub(crate) skipped: bool,
    /// Libraries of the target that were deleted.
    pub(crate) deleted: BTreeSet<String>,
}

impl LibraryOutcome {
    /// Notes for the user about libraries that were deleted.
    pub(crate) fn notes(&self) -> impl Iterator<Item = String> + '_ {
        self.deleted.iter().map(|name| {
            format!(
                "the library `{name}` of the target was deleted: the source has its functions in another one"
            )
        })
    }
}

/// The value behind a name in the reply to `FUNCTION LIST`.
pub(crate) fn field<'r>(parts: &'r [Reply], name: &[u8]) -> Option<&'r Reply> {
    parts.chunks(2).find(|pair| pair[0].text() == Some(name)).and_then(|pair| pair.get(1))
}

/// Name and code of each library in the reply to `FUNCTION LIST WITHCODE`.
pub(crate) fn libraries(list: &Reply) -> impl Iterator<Item = (&[u8], &[u8])> {
    let all = list.array().unwrap_or_default().iter().filter_map(Reply::array);
    all.filter_map(|one| Some((field(one, b"library_name")?.text()?, field(one, b"library_code")?.text()?)))
}

/// The library that has a function, out of the answer to `FUNCTION LIST`.
fn library_of(list: &Reply, function: &[u8]) -> Option<Vec<u8>> {
    list.array()?.iter().filter_map(Reply::array).find_map(|library| {
        let functions = field(library, b"functions")?.array()?;
        let has = functions
            .iter()
            .filter_map(|one| field(one.array()?, b"name")?.text())
            .any(|name| name == function);
        field(library, b"library_name")?.text().filter(|_| has).map(<[u8]>::to_vec)
    })
}

/// A `FUNCTION` command, in a form that can be repeated: the target may have executed it already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LibraryCommand {
    args: Vec<Vec<u8>>,
    /// It deletes one library.
    deletes: bool,
}

impl LibraryCommand {
    /// Out of the source's command; what it loads replaces itself.
    pub(crate) fn parse(args: &[&[u8]]) -> Self {
        let is = |word: &[u8]| args.get(1).is_some_and(|w| w.eq_ignore_ascii_case(word));
        let has = |word: &[u8]| args.iter().skip(2).any(|w| w.eq_ignore_ascii_case(word));
        match args.last() {
            Some(code) if is(b"LOAD") => Self::load(code),
            Some(_) if is(b"RESTORE") && args.len() > 2 && !has(b"FLUSH") => {
                Self::new(&[b"FUNCTION", b"RESTORE", args[2], b"REPLACE"], false)
            }
            _ => Self::new(args, is(b"DELETE")),
        }
    }

    /// Loads a library.
    pub(crate) fn load(code: &[u8]) -> Self {
        Self::new(&[b"FUNCTION", b"LOAD", b"REPLACE", code], false)
    }

    fn new(args: &[&[u8]], deletes: bool) -> Self {
        Self { args: args.iter().map(|word| word.to_vec()).collect(), deletes }
    }

    /// Name and arguments.
    pub(crate) fn args(&self) -> Vec<&[u8]> {
        self.args.iter().map(Vec::as_slice).collect()
    }
}

/// Carries out a `FUNCTION` command at one server.
///
/// # Errors
/// [`Kind::Conflict`] with the operation [`FUNCTION`] when the policy says so; an error of a connection.
pub(crate) async fn run_at(
    client: &mut Client,
    command: &LibraryCommand,
    policy: FunctionPolicy,
    out: &mut LibraryOutcome,
) -> Result<()> {
    for _ in 0..LIBRARIES_MAX {
        let Reply::Error(text) = client.call_reply(&command.args()).await? else { return Ok(()) };
        let why = classify(&text);
        // It was deleted before an interruption, or had been skipped.
        if command.deletes && why == ReplyError::NotFound {
            return Ok(());
        }
        let failure = reply_failure(client.display_url(), "redis", &text);
        if !matches!(failure.kind, Kind::Invalid | Kind::Unsupported | Kind::Conflict) {
            return Err(failure);
        }
        match (policy, why) {
            (FunctionPolicy::Skip, _) => {
                out.skipped = true;
                return Ok(());
            }
            (FunctionPolicy::Replace, ReplyError::FunctionExists(name)) => {
                let list = client.call(&[b"FUNCTION", b"LIST"]).await?;
                let Some(library) = library_of(&list, name.as_bytes()) else { return Err(refused(&failure)) };
                client.execute(&[b"FUNCTION", b"DELETE", &library]).await?;
                out.deleted.insert(String::from_utf8_lossy(&library).into_owned());
            }
            _ => return Err(refused(&failure)),
        }
    }
    let m = format!(
        "{}: one library conflicts with more than {LIBRARIES_MAX} libraries of the target",
        client.display_url()
    );
    Err(Error::new(Kind::Conflict, FUNCTION, m))
}

fn refused(f: &Error) -> Error {
    let m = format!("a library of functions is refused by the target: {}", f.message);
    Error::new(Kind::Conflict, FUNCTION, m)
}

/// Carries out a `FUNCTION` command at every server that may be written.
///
/// # Errors
/// As [`run_at`].
pub(crate) async fn run_at_masters(
    query: &mut QueryClient,
    command: &LibraryCommand,
    policy: FunctionPolicy,
) -> Result<LibraryOutcome> {
    let mut out = LibraryOutcome::default();
    for addr in query.masters() {
        run_at(query.client_at(&addr).await?, command, policy, &mut out)
            .await
            .map_err(|f| f.at(Side::Target))?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn red_13_library_of_a_function_is_found() {
        let text = |t: &str| Reply::Bulk(t.as_bytes().to_vec());
        let function = |name: &str| Reply::Array(vec![text("name"), text(name), text("flags"), Reply::Nil]);
        let library = |name: &str, functions: &[&str]| {
            let functions = functions.iter().map(|f| function(f)).collect();
            Reply::Array(vec![
                text("library_name"),
                text(name),
                text("engine"),
                text("LUA"),
                text("functions"),
                Reply::Array(functions),
            ])
        };
        let list = Reply::Array(vec![library("one", &["a", "b"]), library("two", &["c"])]);
        assert_eq!(library_of(&list, b"c").as_deref(), Some(b"two".as_slice()));
        assert_eq!(library_of(&list, b"d"), None);
    }

    #[test]
    fn red_13_function_library_commands_can_be_repeated() {
        let said = |line: &str| {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            String::from_utf8_lossy(&LibraryCommand::parse(&args).args().join(&b' ')).into_owned()
        };
        assert_eq!(said("FUNCTION LOAD x"), "FUNCTION LOAD REPLACE x");
        assert_eq!(said("function load replace x"), "FUNCTION LOAD REPLACE x");
        assert_eq!(said("FUNCTION RESTORE p APPEND"), "FUNCTION RESTORE p REPLACE");
        assert_eq!(said("FUNCTION RESTORE p FLUSH"), "FUNCTION RESTORE p FLUSH");
        assert_eq!(said("FUNCTION DELETE x"), "FUNCTION DELETE x");
    }
}
