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
pub struct End {
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
    /// The library is left out and counted.
    Skip,
}

/// Commands that cannot be left out: they divide a stream into transactions and databases.
pub const KEPT_COMMANDS: [&str; 5] = ["SELECT", "MULTI", "EXEC", "PING", "REPLCONF"];

/// What goes beyond the compatible API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Own {
    /// Names of commands that are left out, in upper case.
    pub skip_commands: Vec<String>,
    /// Commands of a backup that reach beyond single keys are left out where they cannot be applied.
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
    pub source: Option<End>,
    /// Where to; none before it is configured.
    pub target: Option<End>,
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
    /// Asked to stop; it is coming to rest.
    Stopping,
    /// It rests, and can go on.
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
pub enum Switch {
    /// Under way; nothing is decided yet: whatever is interrupted here is undone.
    Exchanging,
    /// Under way and decided: whatever is interrupted here is finished.
    Decided,
    /// Clients are led to the target.
    Exchanged,
    /// It was undone; everything is as before.
    ExchangeFailed,
    /// The way back is under way.
    Returning,
    /// Clients are led to the source again.
    Returned,
    /// The way back failed: clients are still with the target.
    ReturnFailed,
}

impl Switch {
    /// Clients work with the target.
    pub fn stands(self) -> bool {
        matches!(self, Switch::Exchanged | Switch::ReturnFailed)
    }

    /// Clients are being led elsewhere at this moment.
    pub fn is_under_way(self) -> bool {
        matches!(self, Switch::Exchanging | Switch::Decided | Switch::Returning)
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
    pub switch: Option<Switch>,
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
    /// The user leads clients to the target.
    Exchange,
    /// The user leads clients back.
    Rollback,
    /// The user deletes it.
    Delete,
    /// The snapshot is applied; changes follow.
    Loaded,
    /// A new snapshot is needed.
    Resync,
    /// It is done.
    Finished,
    /// It came to rest.
    Rested,
    /// It cannot go on.
    Broke,
    /// The cut-over is decided.
    Decided,
    /// The cut-over is done.
    Exchanged,
    /// The cut-over is undone.
    ExchangeFailed,
    /// The way back is done.
    Returned,
    /// The way back failed.
    ReturnFailed,
}

/// Why something is not allowed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationIllegal {
    /// Backup imports are created anew, not configured, restarted or switched.
    Import,
    /// It works already.
    Working,
    /// It does not work.
    NotWorking,
    /// It waits to be configured first.
    NotConfigured,
    /// Changes are not followed yet, or no more.
    NotFollowing,
    /// There is no cut-over to take back.
    NotExchanged,
    /// A cut-over is under way.
    Exchanging,
    /// Clients work with the target: to begin again would overwrite what they wrote.
    SwitchedOver,
    /// It is coming to rest.
    Stopping,
    /// It is somewhere else by now.
    OutOfPlace,
}

/// The state after an event (dcs-migration.md §3.2 and §3.3).
///
/// # Errors
/// [`MigrationIllegal`], when the event is not allowed now.
pub fn next(state: MigrationState, event: MigrationEvent) -> Result<MigrationState, MigrationIllegal> {
    use MigrationEvent as E;
    use MigrationIllegal as No;
    let to = |phase| Ok(MigrationState { phase, ..state });
    let switched = |switch| Ok(MigrationState { switch: Some(switch), ..state });
    let online = state.kind == MigrationKind::Online;
    let by_user = matches!(
        event,
        E::Configure | E::Restart | E::Stop | E::Update | E::Exchange | E::Rollback | E::Delete
    );
    if by_user && state.switch.is_some_and(Switch::is_under_way) {
        return Err(No::Exchanging);
    }
    match (event, state.phase) {
        (E::Configure | E::Restart | E::Exchange | E::Rollback, _) if !online => Err(No::Import),
        (E::Configure | E::Restart, _) if state.switch.is_some_and(Switch::stands) => Err(No::SwitchedOver),
        (E::Restart, Phase::Created) => Err(No::NotConfigured),
        (E::Configure | E::Restart, phase) if phase.is_open() => Err(No::Working),
        (E::Configure | E::Restart, _) => Ok(MigrationState { phase: Phase::Loading, switch: None, ..state }),
        (E::Stop, Phase::Loading | Phase::Following | Phase::Stopping) => to(Phase::Stopping),
        (E::Stop, _) => Err(No::NotWorking),
        (E::Update, Phase::Stopping) => Err(No::Stopping),
        (E::Update, _) => Ok(state),
        (E::Exchange, Phase::Following) => switched(Switch::Exchanging),
        (E::Exchange, _) => Err(No::NotFollowing),
        (E::Rollback, Phase::Succeeded) if state.switch.is_some_and(Switch::stands) => {
            switched(Switch::Returning)
        }
        (E::Rollback, _) => Err(No::NotExchanged),
        (E::Delete, phase) if phase.is_open() => Err(No::Working),
        (E::Delete, _) => Ok(state),

        // Whatever breaks meanwhile, a cut-over is finished or undone first.
        (E::Finished | E::Broke | E::Rested, _) if state.switch.is_some_and(Switch::is_under_way) => {
            Ok(state)
        }
        (E::Loaded, Phase::Loading | Phase::Following) => to(Phase::Following),
        (E::Resync, Phase::Loading | Phase::Following) => to(Phase::Loading),
        (E::Finished, Phase::Loading | Phase::Following) => to(Phase::Succeeded),
        (E::Broke, Phase::Loading | Phase::Following) => to(Phase::Failed),
        // Whoever stopped it waits for that.
        (E::Finished | E::Broke | E::Rested, Phase::Stopping) => to(Phase::Stopped),
        (E::Rested | E::Loaded | E::Resync, phase) if phase.is_open() => Ok(state),

        (E::Decided, Phase::Following) if state.switch == Some(Switch::Exchanging) => {
            switched(Switch::Decided)
        }
        (E::Exchanged, _) if state.switch == Some(Switch::Decided) => {
            Ok(MigrationState { phase: Phase::Succeeded, switch: Some(Switch::Exchanged), ..state })
        }
        (E::ExchangeFailed, _) if state.switch == Some(Switch::Exchanging) => {
            switched(Switch::ExchangeFailed)
        }
        (E::Returned, _) if state.switch == Some(Switch::Returning) => switched(Switch::Returned),
        (E::ReturnFailed, _) if state.switch == Some(Switch::Returning) => switched(Switch::ReturnFailed),
        _ => Err(No::OutOfPlace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MigrationEvent as E;

    fn after(kind: MigrationKind, phase: Phase, switch: Option<Switch>, event: E) -> Option<Phase> {
        next(MigrationState { kind, phase, switch }, event).ok().map(|s| s.phase)
    }

    /// dcs-migration.md §3.3, column by column: Created, Loading, Following, Stopping, Stopped, Succeeded, Failed.
    #[test]
    fn every_action_in_every_phase_of_an_online_migration() {
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
            (E::Exchange, [None, None, Some(Following), None, None, None, None]),
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
    fn imports_are_only_stopped_and_deleted() {
        for event in [E::Configure, E::Restart, E::Exchange, E::Rollback] {
            for phase in Phase::ALL {
                assert_eq!(after(MigrationKind::Import, phase, None, event), None, "{event:?} in {phase:?}");
            }
        }
        assert_eq!(after(MigrationKind::Import, Phase::Loading, None, E::Stop), Some(Phase::Stopping));
    }

    #[test]
    fn a_cut_over_shuts_out_everything_else() {
        let during = MigrationState {
            kind: MigrationKind::Online,
            phase: Phase::Following,
            switch: Some(Switch::Exchanging),
        };
        for event in [E::Configure, E::Restart, E::Stop, E::Update, E::Exchange, E::Rollback, E::Delete] {
            assert_eq!(next(during, event), Err(MigrationIllegal::Exchanging));
        }
        assert_eq!(next(during, E::Broke), Ok(during), "it is undone first");
        let decided = next(during, E::Decided).unwrap();
        assert_eq!(next(decided, E::ExchangeFailed), Err(MigrationIllegal::OutOfPlace));
        assert_eq!(next(decided, E::Broke), Ok(decided));
        let done = next(decided, E::Exchanged).unwrap();
        assert_eq!((done.phase, done.switch), (Phase::Succeeded, Some(Switch::Exchanged)));
        assert_eq!(next(done, E::Restart), Err(MigrationIllegal::SwitchedOver));
        let back = next(next(done, E::Rollback).unwrap(), E::Returned).unwrap();
        assert_eq!(next(back, E::Restart).unwrap().switch, None);
        let failed = next(next(done, E::Rollback).unwrap(), E::ReturnFailed).unwrap();
        assert_eq!(next(failed, E::Configure), Err(MigrationIllegal::SwitchedOver));
        assert!(next(failed, E::Rollback).is_ok(), "it may be tried again");
        let undone = next(during, E::ExchangeFailed).unwrap();
        assert_eq!((undone.phase, undone.switch), (Phase::Following, Some(Switch::ExchangeFailed)));
        assert!(next(undone, E::Exchange).is_ok());
    }

    #[test]
    fn a_stop_wins_over_what_the_engine_reports() {
        for event in [E::Finished, E::Broke, E::Rested] {
            assert_eq!(after(MigrationKind::Online, Phase::Stopping, None, event), Some(Phase::Stopped));
        }
        assert_eq!(after(MigrationKind::Online, Phase::Following, None, E::Resync), Some(Phase::Loading));
        assert_eq!(after(MigrationKind::Online, Phase::Following, None, E::Rested), Some(Phase::Following));
    }
}
