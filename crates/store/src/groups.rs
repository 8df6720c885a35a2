//! Task groups and their members.

use model::error::{Error, Kind, Reason, Result};
use model::group::{GroupEvent, GroupIllegal, GroupKind, Phase, next};
use model::spec::TaskSpec;
use model::task::{Event, TaskId, Visible};

use crate::long_specs::SpecOwner;
use crate::tasks::ErrorNote;
use crate::value::{enum_text, from_json, parse_enum};
use crate::{Row, StoreTx, args};

/// Members of one group.
pub const MEMBERS_MAX: u64 = 2000;

/// A stored group.
#[derive(Clone, Debug)]
pub struct GroupRow {
    /// Identity, a UUID.
    pub id: String,
    /// Owner.
    pub project: String,
    /// What its members have in common.
    pub kind: GroupKind,
    /// What its members do; its selection is that of the whole group.
    pub spec: TaskSpec,
    /// Where it is.
    pub phase: Phase,
    /// All members exist.
    pub made: bool,
    /// Accepted at, milliseconds.
    pub created_at: i64,
    /// Last start, milliseconds.
    pub started_at: i64,
    /// Last end or rest, milliseconds.
    pub ended_at: Option<i64>,
    /// Why its members could not be made.
    pub error: Option<ErrorNote>,
}

/// A group that the runtime has to look after.
#[derive(Clone, Debug)]
pub struct BusyGroup {
    /// Identity, a UUID.
    pub id: String,
    /// Owner.
    pub project: String,
    /// Where it is.
    pub phase: Phase,
}

const COLUMNS: &str = "id, project, kind, spec, phase, made, created_at, started_at, ended_at, \
  error_kind, error_side, error_msg, shortened";
/// Place of the mark that the spec stands elsewhere.
const SHORTENED: usize = 12;

fn row(r: &Row) -> Result<GroupRow> {
    let error = match r.opt_text(9)? {
        None => None,
        Some(kind) => Some(ErrorNote {
            kind: parse_enum(kind)?,
            side: parse_enum(r.opt_text(10)?.unwrap_or("here"))?,
            message: r.opt_text(11)?.unwrap_or_default().to_owned(),
        }),
    };
    Ok(GroupRow {
        id: r.text(0)?.to_owned(),
        project: r.text(1)?.to_owned(),
        kind: parse_enum(r.text(2)?)?,
        spec: from_json(r.text(3)?)?,
        phase: parse_enum(r.text(4)?)?,
        made: r.int(5)? != 0,
        created_at: r.int(6)?,
        started_at: r.int(7)?,
        ended_at: r.opt_int(8)?,
        error,
    })
}

/// Builds `SELECT … FROM task_groups …`; made once per distinct text.
macro_rules! select {
    ($tail:literal) => {{
        static SQL: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        let sql: &'static str = SQL.get_or_init(|| format!("SELECT {COLUMNS} FROM task_groups {}", $tail));
        sql
    }};
}

fn context(id: &str) -> String {
    format!("group {id}")
}

impl StoreTx {
    /// Accepts a group.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_group(
        &mut self,
        id: &str,
        project: &str,
        kind: GroupKind,
        spec: &TaskSpec,
        secrets: &str,
        now: i64,
    ) -> Result<()> {
        let sealed = self.keys.seal(&context(id), secrets.as_bytes())?;
        let (spec, shortened) = self.put_spec(SpecOwner::Group(id), spec).await?;
        let sql = "INSERT INTO task_groups (id, project, kind, spec, secrets, phase, created_at, started_at, shortened) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8)";
        let (kind, phase) = (enum_text(kind), enum_text(Phase::Waiting));
        let args = args![id, project, kind, spec, sealed, phase, now, shortened];
        self.tx.execute(sql, args).await?;
        self.wakes = true;
        Ok(())
    }

    /// One group of a project.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the project has no such group.
    pub async fn group_of(&mut self, project: &str, id: &str) -> Result<GroupRow> {
        let rows = self.tx.query(select!("WHERE id = $1 AND project = $2"), args![id, project]).await?;
        let Some(found) = rows.first() else {
            let m = format!("task group {id} does not exist");
            return Err(Error::new(Kind::NotFound, "task_group", m).because(Reason::NoSuchGroup));
        };
        let mut group = row(found)?;
        if found.int(SHORTENED)? != 0 {
            group.spec = self.long_spec(SpecOwner::Group(id)).await?;
        }
        Ok(group)
    }

    /// A page of groups, newest first, and how many match; `phase` picks one. Long lists of prefixes are shortened
    /// ([`crate::LISTED_KEYS_BYTES`]).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_groups(
        &mut self,
        project: &str,
        phase: Option<Phase>,
        offset: u64,
        limit: u64,
    ) -> Result<(Vec<GroupRow>, u64)> {
        let phase = phase.map(enum_text).unwrap_or_default();
        let sql = "SELECT COUNT(*) FROM task_groups WHERE project = $1 AND ($2 = '' OR phase = $2)";
        let total = self.tx.query(sql, args![project, phase.as_str()]).await?;
        let total = total.first().map_or(Ok(0), |r| r.count(0))?;
        let sql = select!(
            "WHERE project = $1 AND ($2 = '' OR phase = $2) ORDER BY created_at DESC, id DESC LIMIT $3 OFFSET $4"
        );
        let rows = self.tx.query(sql, args![project, phase.as_str(), limit, offset]).await?;
        Ok((rows.iter().map(row).collect::<Result<_>>()?, total))
    }

    /// How many groups of a project have not ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn open_groups(&mut self, project: &str) -> Result<u64> {
        let sql = "SELECT COUNT(*) FROM task_groups WHERE project = $1 \
                   AND phase IN ('waiting', 'creating', 'monitoring', 'pausing', 'paused', 'deleting')";
        let rows = self.tx.query(sql, args![project]).await?;
        rows.first().map_or(Ok(0), |r| r.count(0))
    }

    /// Groups that the runtime has to look after.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn busy_groups(&mut self) -> Result<Vec<BusyGroup>> {
        let sql = "SELECT id, project, phase FROM task_groups \
                   WHERE phase IN ('waiting', 'creating', 'monitoring', 'pausing', 'deleting') ORDER BY created_at LIMIT 1000";
        let busy = |r: &Row| {
            let (id, project) = (r.text(0)?.to_owned(), r.text(1)?.to_owned());
            Ok(BusyGroup { id, project, phase: parse_enum(r.text(2)?)? })
        };
        self.tx.query(sql, vec![]).await?.iter().map(busy).collect()
    }

    /// Applies an event to a group by [`next`] and stores the result; answers the new phase.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when it is gone.
    pub async fn apply_group(
        &mut self,
        id: &str,
        event: GroupEvent,
        now: i64,
    ) -> Result<std::result::Result<Phase, GroupIllegal>> {
        let rows = self.tx.query("SELECT phase, made FROM task_groups WHERE id = $1", args![id]).await?;
        let Some(r) = rows.first() else {
            let m = format!("task group {id} does not exist");
            return Err(Error::new(Kind::NotFound, "task_group", m).because(Reason::NoSuchGroup));
        };
        let made = r.int(1)? != 0 || event == GroupEvent::MembersCreated;
        let phase = match next(parse_enum(r.text(0)?)?, event, made) {
            Ok(phase) => phase,
            Err(why) => return Ok(Err(why)),
        };
        let starts = matches!(event, GroupEvent::Start | GroupEvent::Retry);
        let ends = matches!(phase, Phase::Paused | Phase::Failed | Phase::Complete | Phase::CreationFailed);
        let sql = "UPDATE task_groups SET phase = $2, made = $3, \
            started_at = CASE WHEN $4 = 1 THEN $5 ELSE started_at END, \
            ended_at = CASE WHEN $6 = 1 THEN COALESCE(ended_at, $5) ELSE NULL END WHERE id = $1";
        self.tx.execute(sql, args![id, enum_text(phase), made, starts, now, ends]).await?;
        self.wakes = true;
        Ok(Ok(phase))
    }

    /// Notes why the members could not be made; none takes the note away.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_group_error(&mut self, id: &str, failure: Option<&Error>) -> Result<()> {
        let sql = "UPDATE task_groups SET error_kind = $2, error_side = $3, error_msg = $4 WHERE id = $1";
        let args = match failure {
            Some(f) => args![id, enum_text(f.kind), enum_text(f.side), f.to_string()],
            None => args![id, None::<String>, None::<String>, None::<String>],
        };
        self.tx.execute(sql, args).await?;
        Ok(())
    }

    /// Stores a changed spec (bandwidth windows).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_group_spec(&mut self, id: &str, spec: &TaskSpec) -> Result<()> {
        let (spec, shortened) = self.put_spec(SpecOwner::Group(id), spec).await?;
        let sql = "UPDATE task_groups SET spec = $2, shortened = $3 WHERE id = $1";
        self.tx.execute(sql, args![id, spec, shortened]).await?;
        Ok(())
    }

    /// Replaces the credentials.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_group_secrets(&mut self, id: &str, secrets: &str) -> Result<()> {
        let sealed = self.keys.seal(&context(id), secrets.as_bytes())?;
        self.tx.execute("UPDATE task_groups SET secrets = $2 WHERE id = $1", args![id, sealed]).await?;
        Ok(())
    }

    /// The credentials, as JSON; none when they were erased.
    ///
    /// # Errors
    /// When the key that sealed them is gone.
    pub async fn group_secrets(&mut self, id: &str) -> Result<Option<String>> {
        let rows = self.tx.query("SELECT secrets FROM task_groups WHERE id = $1", args![id]).await?;
        let Some(sealed) = rows.first().and_then(|r| r.opt_text(0).ok().flatten()) else { return Ok(None) };
        let plain = self.keys.open(&context(id), sealed)?;
        Ok(Some(String::from_utf8_lossy(&plain).into_owned()))
    }

    /// Erases the credentials of a group that has ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn erase_group_secrets(&mut self, id: &str) -> Result<()> {
        self.tx.execute("UPDATE task_groups SET secrets = NULL WHERE id = $1", args![id]).await?;
        Ok(())
    }

    /// Removes a group whose members are gone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_group(&mut self, id: &str) -> Result<()> {
        self.tx.execute("DELETE FROM task_groups WHERE id = $1", args![id]).await?;
        self.drop_spec(SpecOwner::Group(id)).await?;
        self.drop_notification(id).await?;
        Ok(())
    }

    /// Stops every member that runs, and holds those that wait; answers those that may be at work.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn hold_members(&mut self, id: &str, now: i64) -> Result<Vec<TaskId>> {
        let mut at_work = Vec::new();
        for (member, state) in self.member_states(id).await? {
            match state.visible() {
                Visible::Waiting => {
                    let _ = self.apply(member, Event::Hold, now).await?;
                }
                Visible::Running | Visible::Retrying => {
                    let _ = self.apply(member, Event::Stop, now).await?;
                    at_work.push(member);
                }
                _ => {}
            }
        }
        Ok(at_work)
    }
}
