//! Specs with long lists of keys. Tables of tasks and groups have a short form, which is all that lists and the dispatcher
//! read; the whole stands in a table of its own.

use model::error::{Error, Kind, Result};
use model::selection::Selection;
use model::spec::TaskSpec;
use model::task::TaskId;

use crate::value::{from_json, to_json};
use crate::{StoreTx, args};

/// Bytes of selected keys and prefixes that a list shows of one task or group.
pub const LISTED_KEYS_BYTES: usize = 32 << 10;

/// Whose spec it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SpecOwner<'a> {
    Task(TaskId),
    Group(&'a str),
}

impl std::fmt::Display for SpecOwner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Task(id) => write!(f, "task {id}"),
            Self::Group(id) => write!(f, "group {id}"),
        }
    }
}

/// The first entries that fit; none when all do.
fn beginning(entries: &[String]) -> Option<Vec<String>> {
    let mut left = LISTED_KEYS_BYTES;
    let fits = |entry: &&String| {
        let rest = left.checked_sub(entry.len());
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    let first: Vec<String> = entries.iter().take_while(fits).cloned().collect();
    (first.len() < entries.len()).then_some(first)
}

/// The spec with the beginning of its list of keys; none when the list is short.
fn shortened(spec: &TaskSpec) -> Option<TaskSpec> {
    let first = beginning(spec.selection.entries())?;
    let selection = match &spec.selection {
        Selection::Object(_) => Selection::Object(first),
        Selection::Prefix(_) => Selection::Prefix(first),
        Selection::Keys(_) => Selection::Keys(first),
        Selection::List(_) | Selection::UrlList(_) => return None,
    };
    let mut short = spec.clone();
    short.selection = selection;
    Some(short)
}

impl StoreTx {
    /// Stores a spec that is long; answers the JSON for the row of its owner, and whether that is the short form.
    pub(crate) async fn put_spec(&mut self, owner: SpecOwner<'_>, spec: &TaskSpec) -> Result<(String, bool)> {
        let Some(short) = shortened(spec) else { return Ok((to_json(spec)?, false)) };
        let sql = "INSERT INTO long_specs (owner, spec) VALUES ($1, $2) ON CONFLICT (owner) DO UPDATE SET spec = excluded.spec";
        self.tx.execute(sql, args![owner.to_string(), to_json(spec)?]).await?;
        Ok((to_json(&short)?, true))
    }

    /// A spec whose row has the short form.
    pub(crate) async fn long_spec(&mut self, owner: SpecOwner<'_>) -> Result<TaskSpec> {
        let rows =
            self.tx.query("SELECT spec FROM long_specs WHERE owner = $1", args![owner.to_string()]).await?;
        let lost = || Error::new(Kind::Internal, "store", format!("the spec of {owner} is missing"));
        from_json(rows.first().ok_or_else(lost)?.text(0)?)
    }

    pub(crate) async fn drop_spec(&mut self, owner: SpecOwner<'_>) -> Result<()> {
        self.tx.execute("DELETE FROM long_specs WHERE owner = $1", args![owner.to_string()]).await?;
        Ok(())
    }
}
