//! Redis migrations: what is asked for, where they are, and the one function between their states
//! (dcs-migration.md §3).

use serde::{Deserialize, Serialize};

/// How a migration gets its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationKind {
    /// From a running server.
    Online,
    /// From backup files.
    Import,
}

/// When a migration is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// When the snapshot is applied.
    #[default]
    Full,
    /// It follows the changes until it is stopped.
    Incremental,
}

/// What becomes of it when a connection is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumeMode {
    /// It connects again, for as long as it takes.
    #[default]
    Auto,
    /// It fails, and a person decides.
    Manual,
}

/// One end, as the request gave it: the exact text comes back in replies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// A registered instance.
    pub id: Option<String>,
    /// Addresses, `host:port[,host:port…]`.
    pub addrs: Option<String>,
    /// Name given by the request.
    pub name: Option<String>,
    /// Database.
    pub db: Option<u32>,
    /// A proxy that serves several databases.
    pub proxy_multi_db: bool,
}

/// One file of a backup, as the request gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFile {
    /// Key in the bucket.
    pub name: String,
    /// Opaque text.
    pub size: Option<String>,
    /// Opaque text.
    pub updated: Option<String>,
}

/// Where a backup is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backup {
    /// Files in a bucket.
    Bucket {
        /// A `[[bucket]]` of the configuration.
        bucket: String,
        /// Files, applied in this order.
        files: Vec<BackupFile>,
    },
    /// A backup that this service made.
    Record(String),
}

/// What happens when the target refuses a library of functions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Libraries {
    /// The migration ends.
    #[default]
    Stop,
    /// Libraries of the target that have the same functions are deleted.
    Replace,
    /// The library is skipped and counted.
    Skip,
}

/// Commands that cannot be skipped: they divide a stream into transactions and databases.
pub const KEPT_COMMANDS: [&str; 5] = ["SELECT", "MULTI", "EXEC", "PING", "REPLCONF"];

/// What goes beyond the compatible API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Own {
    /// Names of commands that are skipped, in upper case.
    pub skip_commands: Vec<String>,
    /// Commands of a backup that affect more than single keys are skipped if they cannot be applied.
    pub leave_out_commands: bool,
    /// Libraries that the target refuses.
    pub functions: Libraries,
}

impl Own {
    /// What the user asked for, with what the operator has set for the source and the target.
    pub fn with(mut self, source: &Own, target: &Own) -> Own {
        self.skip_commands.extend(source.skip_commands.iter().chain(&target.skip_commands).cloned());
        self.leave_out_commands |= target.leave_out_commands;
        if self.functions == Libraries::Stop {
            self.functions = target.functions;
        }
        self
    }
}

/// What a migration is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationSpec {
    /// None before it is configured.
    pub method: Option<Method>,
    /// On a lost connection.
    pub resume: ResumeMode,
    /// Limit, MiB per second; none: as fast as it goes.
    pub bandwidth_mb: Option<u32>,
    /// `vpc` or `vpn`; echoed.
    pub network: String,
    /// Echoed.
    pub vpc: Option<String>,
    /// Echoed.
    pub subnet: Option<String>,
    /// Echoed.
    pub security_group: Option<String>,
    /// Where from; none for imports and before it is configured.
    pub source: Option<Endpoint>,
    /// Where to; none before it is configured.
    pub target: Option<Endpoint>,
    /// What is imported.
    pub backup: Option<Backup>,
    /// What goes beyond the compatible API.
    #[serde(default)]
    pub own: Own,
    /// Identity of the server that was found at the target: it may have several names.
    #[serde(default)]
    pub target_runs: Option<String>,
}

/// Where a migration is. Stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It waits to be configured.
    Created,
    /// A snapshot or a backup is being applied.
    Loading,
    /// Changes are being followed.
    Following,
    /// A stop is requested; it is stopping.
    Stopping,
    /// It is stopped, and can be resumed.
    Stopped,
    /// Done.
    Succeeded,
    /// It cannot go on by itself.
    Failed,
}

impl Phase {
    /// All of them.
    pub const ALL: [Phase; 7] = [
        Phase::Created,
        Phase::Loading,
        Phase::Following,
        Phase::Stopping,
        Phase::Stopped,
        Phase::Succeeded,
        Phase::Failed,
    ];

    /// Somebody works on it, or should.
    pub fn is_open(self) -> bool {
        matches!(self, Phase::Loading | Phase::Following | Phase::Stopping)
    }
}

/// Where a cut-over is. Stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutoverState {
    /// Under way; nothing is decided yet: whatever is interrupted here is undone.
    #[serde(rename = "exchanging")]
    InProgress,
    /// Under way and decided: whatever is interrupted here is finished.
    #[serde(rename = "decided")]
    Committed,
    /// Clients are redirected to the target.
    #[serde(rename = "exchanged")]
    Done,
    /// It was undone; everything is as before.
    #[serde(rename = "exchange_failed")]
    Failed,
    /// The way back is under way.
    #[serde(rename = "returning")]
    RollingBack,
    /// Clients are redirected to the source again.
    #[serde(rename = "returned")]
    RolledBack,
    /// The way back failed: clients are still with the target.
    #[serde(rename = "return_failed")]
    RollbackFailed,
}

impl CutoverState {
    /// Clients work with the target.
    pub fn is_at_target(self) -> bool {
        matches!(self, CutoverState::Done | CutoverState::RollbackFailed)
    }

    /// Clients are being redirected.
    pub fn is_in_progress(self) -> bool {
        matches!(self, CutoverState::InProgress | CutoverState::Committed | CutoverState::RollingBack)
    }
}

/// Everything that decides what may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigrationState {
    /// How it gets its data.
    pub kind: MigrationKind,
    /// Where it is.
    pub phase: Phase,
    /// Where its cut-over is, if there was any.
    pub cutover: Option<CutoverState>,
}

/// Something that happened to a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationEvent {
    /// The user configures it, which starts it.
    Configure,
    /// The user starts it as it is.
    Restart,
    /// The user stops it.
    Stop,
    /// The user changes what may change while it runs.
    Update,
    /// The user requests a cut-over.
    Cutover,
    /// The user requests a rollback.
    Rollback,
    /// The user deletes it.
    Delete,
    /// The snapshot is applied; changes follow.
    Loaded,
    /// A new snapshot is needed.
    Resync,
    /// It is done.
    Finished,
    /// It stopped.
    Drained,
    /// It cannot go on.
    Failed,
    /// The cut-over is decided.
    CutoverCommitted,
    /// The cut-over is done.
    CutoverDone,
    /// The cut-over is undone.
    CutoverFailed,
    /// The way back is done.
    RollbackDone,
    /// The way back failed.
    RollbackFailed,
}

/// Why something is not allowed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationIllegal {
    /// Backup imports cannot be configured, restarted or cut over; a new one is created instead.
    Import,
    /// It works already.
    AlreadyRunning,
    /// It does not work.
    NotRunning,
    /// It waits to be configured first.
    NotConfigured,
    /// Changes are not followed yet, or no more.
    NotFollowing,
    /// There is no cut-over to take back.
    NotCutOver,
    /// A cut-over is under way.
    CutoverInProgress,
    /// Clients work with the target: to begin again would overwrite what they wrote.
    CutOver,
    /// It is stopping.
    Stopping,
    /// It is somewhere else by now.
    UnexpectedEvent,
}

/// The state after an event (dcs-migration.md §3.2 and §3.3).
///
/// # Errors
/// [`MigrationIllegal`], when the event is not allowed now.
pub fn next(state: MigrationState, event: MigrationEvent) -> Result<MigrationState, MigrationIllegal> {
    use MigrationEvent as E;
    use MigrationIllegal as No;
    let to = |phase| Ok(MigrationState { phase, ..state });
    let switched = |switch| Ok(MigrationState { cutover: Some(switch), ..state });
    let online = state.kind == MigrationKind::Online;
    let by_user = matches!(
        event,
        E::Configure | E::Restart | E::Stop | E::Update | E::Cutover | E::Rollback | E::Delete
    );
    if by_user && state.cutover.is_some_and(CutoverState::is_in_progress) {
        return Err(No::CutoverInProgress);
    }
    match (event, state.phase) {
        (E::Configure | E::Restart | E::Cutover | E::Rollback, _) if !online => Err(No::Import),
        (E::Configure | E::Restart, _) if state.cutover.is_some_and(CutoverState::is_at_target) => {
            Err(No::CutOver)
        }
        (E::Restart, Phase::Created) => Err(No::NotConfigured),
        (E::Configure | E::Restart, phase) if phase.is_open() => Err(No::AlreadyRunning),
        (E::Configure | E::Restart, _) => {
            Ok(MigrationState { phase: Phase::Loading, cutover: None, ..state })
        }
        (E::Stop, Phase::Loading | Phase::Following | Phase::Stopping) => to(Phase::Stopping),
        (E::Stop, _) => Err(No::NotRunning),
        (E::Update, Phase::Stopping) => Err(No::Stopping),
        (E::Update, _) => Ok(state),
        (E::Cutover, Phase::Following) => switched(CutoverState::InProgress),
        (E::Cutover, _) => Err(No::NotFollowing),
        (E::Rollback, Phase::Succeeded) if state.cutover.is_some_and(CutoverState::is_at_target) => {
            switched(CutoverState::RollingBack)
        }
        (E::Rollback, _) => Err(No::NotCutOver),
        (E::Delete, phase) if phase.is_open() => Err(No::AlreadyRunning),
        (E::Delete, _) => Ok(state),

        // Whatever breaks meanwhile, a cut-over is finished or undone first.
        (E::Finished | E::Failed | E::Drained, _)
            if state.cutover.is_some_and(CutoverState::is_in_progress) =>
        {
            Ok(state)
        }
        (E::Loaded, Phase::Loading | Phase::Following) => to(Phase::Following),
        (E::Resync, Phase::Loading | Phase::Following) => to(Phase::Loading),
        (E::Finished, Phase::Loading | Phase::Following) => to(Phase::Succeeded),
        (E::Failed, Phase::Loading | Phase::Following) => to(Phase::Failed),
        // The request that stopped it waits for that.
        (E::Finished | E::Failed | E::Drained, Phase::Stopping) => to(Phase::Stopped),
        (E::Drained | E::Loaded | E::Resync, phase) if phase.is_open() => Ok(state),

        (E::CutoverCommitted, Phase::Following) if state.cutover == Some(CutoverState::InProgress) => {
            switched(CutoverState::Committed)
        }
        (E::CutoverDone, _) if state.cutover == Some(CutoverState::Committed) => {
            Ok(MigrationState { phase: Phase::Succeeded, cutover: Some(CutoverState::Done), ..state })
        }
        (E::CutoverFailed, _) if state.cutover == Some(CutoverState::InProgress) => {
            switched(CutoverState::Failed)
        }
        (E::RollbackDone, _) if state.cutover == Some(CutoverState::RollingBack) => {
            switched(CutoverState::RolledBack)
        }
        (E::RollbackFailed, _) if state.cutover == Some(CutoverState::RollingBack) => {
            switched(CutoverState::RollbackFailed)
        }
        _ => Err(No::UnexpectedEvent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MigrationEvent as E;

    fn after(kind: MigrationKind, phase: Phase, switch: Option<CutoverState>, event: E) -> Option<Phase> {
        next(MigrationState { kind, phase, cutover: switch }, event).ok().map(|s| s.phase)
    }

    /// dcs-migration.md §3.3, column by column: Created, Loading, Following, Stopping, Stopped, Succeeded, Failed.
    #[test]
    fn online_migration_actions_match_the_table_in_every_phase() {
        use Phase::{Created, Failed, Following, Loading, Stopped, Stopping, Succeeded};
        let (go, stop) = (Some(Loading), Some(Stopping));
        let table = [
            (E::Configure, [go, None, None, None, go, go, go]),
            (E::Restart, [None, None, None, None, go, go, go]),
            (E::Stop, [None, stop, stop, stop, None, None, None]),
            (
                E::Update,
                [Some(Created), go, Some(Following), None, Some(Stopped), Some(Succeeded), Some(Failed)],
            ),
            (E::Cutover, [None, None, Some(Following), None, None, None, None]),
            (E::Rollback, [None; 7]),
            (E::Delete, [Some(Created), None, None, None, Some(Stopped), Some(Succeeded), Some(Failed)]),
        ];
        for (event, wanted) in table {
            for (phase, want) in Phase::ALL.into_iter().zip(wanted) {
                assert_eq!(after(MigrationKind::Online, phase, None, event), want, "{event:?} in {phase:?}");
            }
        }
    }

    #[test]
    fn imports_allow_only_stop_and_delete() {
        for event in [E::Configure, E::Restart, E::Cutover, E::Rollback] {
            for phase in Phase::ALL {
                assert_eq!(after(MigrationKind::Import, phase, None, event), None, "{event:?} in {phase:?}");
            }
        }
        assert_eq!(after(MigrationKind::Import, Phase::Loading, None, E::Stop), Some(Phase::Stopping));
    }

    #[test]
    fn cutover_excludes_all_other_actions() {
        let during = MigrationState {
            kind: MigrationKind::Online,
            phase: Phase::Following,
            cutover: Some(CutoverState::InProgress),
        };
        for event in [E::Configure, E::Restart, E::Stop, E::Update, E::Cutover, E::Rollback, E::Delete] {
            assert_eq!(next(during, event), Err(MigrationIllegal::CutoverInProgress));
        }
        assert_eq!(next(during, E::Failed), Ok(during), "it is undone first");
        let decided = next(during, E::CutoverCommitted).unwrap();
        assert_eq!(next(decided, E::CutoverFailed), Err(MigrationIllegal::UnexpectedEvent));
        assert_eq!(next(decided, E::Failed), Ok(decided));
        let done = next(decided, E::CutoverDone).unwrap();
        assert_eq!((done.phase, done.cutover), (Phase::Succeeded, Some(CutoverState::Done)));
        assert_eq!(next(done, E::Restart), Err(MigrationIllegal::CutOver));
        let back = next(next(done, E::Rollback).unwrap(), E::RollbackDone).unwrap();
        assert_eq!(next(back, E::Restart).unwrap().cutover, None);
        let failed = next(next(done, E::Rollback).unwrap(), E::RollbackFailed).unwrap();
        assert_eq!(next(failed, E::Configure), Err(MigrationIllegal::CutOver));
        assert!(next(failed, E::Rollback).is_ok(), "it may be tried again");
        let undone = next(during, E::CutoverFailed).unwrap();
        assert_eq!((undone.phase, undone.cutover), (Phase::Following, Some(CutoverState::Failed)));
        assert!(next(undone, E::Cutover).is_ok());
    }

    #[test]
    fn stop_request_overrides_engine_reports() {
        for event in [E::Finished, E::Failed, E::Drained] {
            assert_eq!(after(MigrationKind::Online, Phase::Stopping, None, event), Some(Phase::Stopped));
        }
        assert_eq!(after(MigrationKind::Online, Phase::Following, None, E::Resync), Some(Phase::Loading));
        assert_eq!(after(MigrationKind::Online, Phase::Following, None, E::Drained), Some(Phase::Following));
    }
}
