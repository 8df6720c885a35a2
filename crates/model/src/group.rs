//! The life of a task group, and the one function between its phases (OMS §3.2).

use serde::{Deserialize, Serialize};

/// What the members of a group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupKind {
    /// Prefixes of a bucket.
    Prefix,
    /// Every list file of a folder.
    List,
    /// Every URL list of a folder.
    UrlList,
}

/// Where a group is. Stored; the numbers are OMS's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Accepted. Set by create.
    Waiting = 0,
    /// Its members are being made. Set by the runtime, and by start and retry where they are not made yet.
    Creating = 1,
    /// All members exist. Set by the runtime, start and retry.
    Monitoring = 2,
    /// No member moves bytes. Set by the runtime.
    Paused = 3,
    /// The members could not be made. Set by the runtime.
    CreationFailed = 4,
    /// A member failed. Set by the runtime.
    Failed = 5,
    /// Every member succeeded. Set by the runtime.
    Complete = 6,
    /// A pause is requested; members are stopping. Set by stop.
    Pausing = 7,
    /// Asked to go away. Set by delete; the row goes with its members.
    Deleting = 8,
}

impl Phase {
    /// All of them, each at the index that is its number.
    pub const ALL: [Phase; 9] = [
        Phase::Waiting,
        Phase::Creating,
        Phase::Monitoring,
        Phase::Paused,
        Phase::CreationFailed,
        Phase::Failed,
        Phase::Complete,
        Phase::Pausing,
        Phase::Deleting,
    ];
}

/// Something that happened to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupEvent {
    /// The user asked to pause.
    Stop,
    /// The user asked to resume.
    Start,
    /// The user asked to run again what failed.
    Retry,
    /// The user changed the bandwidth.
    Update,
    /// The user asked to delete.
    Delete,
    /// The runtime makes the members now.
    Begin,
    /// All members exist.
    MembersCreated,
    /// The members cannot be made.
    Fail,
    /// No member runs any more, after a stop.
    Drained,
    /// Every member has ended.
    Ended {
        /// At least one of them failed.
        failed: bool,
    },
}

/// Why an event is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupIllegal {
    /// Stop of a group that is neither creating nor monitoring.
    NotRunning,
    /// Stop of a group that has ended.
    Finished,
    /// Start of a group that is not paused.
    NotPaused,
    /// Retry of a group that did not fail.
    NotFailed,
    /// Delete of a group that is creating, monitoring or pausing.
    InProgress,
    /// Anything on a group that goes away, or a change of one that is complete.
    Closed,
    /// An event of the runtime that does not fit.
    UnexpectedEvent,
}

/// The phase after `event`. `made` says that all members exist.
pub fn next(phase: Phase, event: GroupEvent, made: bool) -> Result<Phase, GroupIllegal> {
    use GroupEvent as E;
    use Phase::*;
    let going = if made { Monitoring } else { Creating };
    match (event, phase) {
        // Deleting twice changes nothing.
        (E::Delete, Deleting) => Ok(Deleting),
        (E::Stop | E::Start | E::Retry | E::Update, Deleting) => Err(GroupIllegal::Closed),

        (E::Stop, Creating | Monitoring) => Ok(Pausing),
        (E::Stop, Failed | Complete) => Err(GroupIllegal::Finished),
        (E::Stop, _) => Err(GroupIllegal::NotRunning),

        (E::Start, Paused) => Ok(going),
        (E::Start, _) => Err(GroupIllegal::NotPaused),

        (E::Retry, CreationFailed) => Ok(Creating),
        (E::Retry, Failed) => Ok(going),
        (E::Retry, _) => Err(GroupIllegal::NotFailed),

        (E::Update, Complete) => Err(GroupIllegal::Closed),
        (E::Update, phase) => Ok(phase),

        (E::Delete, Creating | Monitoring | Pausing) => Err(GroupIllegal::InProgress),
        (E::Delete, _) => Ok(Deleting),

        (E::Begin, Waiting) => Ok(Creating),
        (E::MembersCreated, Creating) => Ok(Monitoring),
        (E::MembersCreated, Pausing) => Ok(Pausing),
        (E::Fail, Creating) => Ok(CreationFailed),
        (E::Drained, Pausing) => Ok(Paused),
        (E::Ended { failed }, Monitoring) => Ok(if failed { Failed } else { Complete }),
        (E::Begin | E::MembersCreated | E::Fail | E::Drained | E::Ended { .. }, _) => {
            Err(GroupIllegal::UnexpectedEvent)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use GroupEvent as E;
    use GroupIllegal as No;
    use Phase::*;

    /// OMS §3.2, every action in every state.
    #[test]
    fn group_actions_match_the_table() {
        let rows: [(E, [Result<Phase, No>; 9]); 5] = [
            (
                E::Stop,
                [
                    Err(No::NotRunning),
                    Ok(Pausing),
                    Ok(Pausing),
                    Err(No::NotRunning),
                    Err(No::NotRunning),
                    Err(No::Finished),
                    Err(No::Finished),
                    Err(No::NotRunning),
                    Err(No::Closed),
                ],
            ),
            (
                E::Start,
                [
                    Err(No::NotPaused),
                    Err(No::NotPaused),
                    Err(No::NotPaused),
                    Ok(Monitoring),
                    Err(No::NotPaused),
                    Err(No::NotPaused),
                    Err(No::NotPaused),
                    Err(No::NotPaused),
                    Err(No::Closed),
                ],
            ),
            (
                E::Retry,
                [
                    Err(No::NotFailed),
                    Err(No::NotFailed),
                    Err(No::NotFailed),
                    Err(No::NotFailed),
                    Ok(Creating),
                    Ok(Monitoring),
                    Err(No::NotFailed),
                    Err(No::NotFailed),
                    Err(No::Closed),
                ],
            ),
            (
                E::Update,
                [
                    Ok(Waiting),
                    Ok(Creating),
                    Ok(Monitoring),
                    Ok(Paused),
                    Ok(CreationFailed),
                    Ok(Failed),
                    Err(No::Closed),
                    Ok(Pausing),
                    Err(No::Closed),
                ],
            ),
            (
                E::Delete,
                [
                    Ok(Deleting),
                    Err(No::InProgress),
                    Err(No::InProgress),
                    Ok(Deleting),
                    Ok(Deleting),
                    Ok(Deleting),
                    Ok(Deleting),
                    Err(No::InProgress),
                    Ok(Deleting),
                ],
            ),
        ];
        for (event, wanted) in rows {
            for (phase, want) in Phase::ALL.into_iter().zip(wanted) {
                assert_eq!(next(phase, event, true), want, "{event:?} in {phase:?}");
            }
        }
        assert_eq!(next(Paused, E::Start, false), Ok(Creating), "creation goes on where it was interrupted");
    }

    #[test]
    fn pausing_group_always_ends_paused() {
        assert_eq!(next(Pausing, E::Ended { failed: false }, true), Err(No::UnexpectedEvent));
        assert_eq!(next(Pausing, E::Drained, true), Ok(Paused));
    }
}
