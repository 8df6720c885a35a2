//! What the calls of DCS have in common: their bodies, their codes and their words (dcs-migration.md §1, §3, §5).

use bytes::Bytes;
use control::migrations::{MigrationError, error_of};
use http::StatusCode;
use model::migration::{CutoverState, Method, MigrationKind, MigrationState, Phase, ResumeMode};
use serde_json::{Map, Value};
use wire::fields::FieldError;

use crate::error::ApiError;
use crate::reply::parse_object;

/// First segments behind the project that belong to DCS.
const PLACES: [&str; 6] = ["migration", "migration-task", "migration-tasks", "instance", "instances", "jobs"];

/// True for paths of DCS.
pub(crate) fn is_dcs(path: &str) -> bool {
    let mut segments = path.split('/').skip(1);
    segments.next() == Some("v2") && segments.nth(1).is_some_and(|s| PLACES.contains(&s))
}

/// An answer of DCS.
pub(crate) fn error(status: StatusCode, code: &str, message: impl Into<String>) -> ApiError {
    ApiError::gateway(status, code, message)
}

/// The code of a refusal: one table.
pub(crate) fn migration_error(denial: MigrationError) -> ApiError {
    let bad = StatusCode::BAD_REQUEST;
    let (status, code, message) = match denial {
        MigrationError::Field(member, why) => {
            (bad, "DCS.4063", format!("Parameter {member} is not valid: {why}"))
        }
        MigrationError::Description => {
            (bad, "DCS.4011", "`description` is longer than 1024 characters".into())
        }
        MigrationError::Remark => (bad, "DCS.4098", "`remark` is longer than 128 characters".into()),
        MigrationError::Period => (bad, "DCS.4025", "`end_time` is before `begin_time`".into()),
        MigrationError::Network(member) => {
            let code = match member {
                "vpc_id" => "DCS.4013",
                "security_group_id" => "DCS.4014",
                _ => "DCS.4016",
            };
            (bad, code, format!("`{member}` must have 1 to 64 characters"))
        }
        MigrationError::TaskId(id) => {
            (bad, "DCS.4070", format!("`{id}` is not a task id (a UUID, or 32 hexadecimal digits)"))
        }
        MigrationError::InstanceId(id) => (bad, "DCS.4061", format!("`{id}` is not an instance id (a UUID)")),
        // Clients compare this text.
        MigrationError::NoTask => (bad, "DCS.4133", "Instance job is not found.".into()),
        MigrationError::NoInstance(id) => {
            let m = format!("Instance {id} does not exist; hint: register it under [[redis]], or use addrs");
            (StatusCode::NOT_FOUND, "DCS.3022", m)
        }
        MigrationError::State(phase, illegal) => {
            let m = format!(
                "The operation is not allowed: {} (status {})",
                error_of(illegal),
                phase_name(phase, MigrationKind::Online)
            );
            (bad, "DCS.4957", m)
        }
        MigrationError::TooManyIds(why) => {
            (bad, "DCS.4855", format!("Invalid migration task id in the request: {why}"))
        }
        MigrationError::UnusableInstance(member, why) => {
            (bad, "DCS.4800", format!("Parameter {member} is not valid: {why}"))
        }
        MigrationError::Password(why) => (bad, "DCS.4080", format!("The password was not accepted: {why}")),
        MigrationError::NotOnThisNode(why) => (bad, "DCS.4027", why),
        MigrationError::ReadOnly(why) => (bad, "DCS.4026", why),
        MigrationError::InUse(why) => (bad, "DCS.4017", why),
        MigrationError::NotRunning(why) => (bad, "DCS.4049", format!("The instance does not answer: {why}")),
        MigrationError::Backup(why) => (bad, "DCS.4087", why),
        MigrationError::Quota(why) => (bad, "DCS.4039", format!("The quota is exceeded: {why}")),
        // Terraform takes this code for "gone" and goes on, and the next one for "try again" (clients.md F5).
        MigrationError::NoBackup(why) => (bad, "DCS.4031", why),
        MigrationError::BackupRuns(why) => (bad, "DCS.4096", why),
        MigrationError::Domain => (bad, "DCS.4840", "`is_exchange_domain` is not supported".into()),
        MigrationError::StillStopping => {
            let m = "The task has not stopped within 60 s; stopping continues.".to_owned();
            (StatusCode::INTERNAL_SERVER_ERROR, "DCS.4842", m)
        }
        MigrationError::Internal(failure) => {
            tracing::error!(kind = ?failure.kind, "request failed: {failure}");
            let m = "Internal error; the service log has details under this request id.".to_owned();
            match crate::error::is_full(&failure) {
                true => (StatusCode::SERVICE_UNAVAILABLE, "DCS.5000", m),
                false => (StatusCode::INTERNAL_SERVER_ERROR, "DCS.5000", m),
            }
        }
    };
    error(status, code, message)
}

/// A fault of a member.
pub(crate) fn field_error(fault: FieldError) -> MigrationError {
    match fault {
        FieldError::Missing(member) => MigrationError::Field(member, "it is required".into()),
        FieldError::WrongType(member, want) => MigrationError::Field(member, format!("it must be {want}")),
        FieldError::TooLong(member, _) if member == "description" => MigrationError::Description,
        FieldError::TooLong(member, _) if member == "remark" => MigrationError::Remark,
        FieldError::TooLong(member, max) => MigrationError::Field(member, format!("it is longer than {max}")),
        FieldError::NotAWord(member, why) => MigrationError::Field(member, why),
    }
}

/// The JSON object of a body that must be there.
pub(crate) fn object(body: &Bytes) -> Result<Map<String, Value>, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(error(StatusCode::BAD_REQUEST, "DCS.4004", "The request body is empty."));
    }
    object_or_nothing(body)
}

/// The JSON object of a body that may be missing.
pub(crate) fn object_or_nothing(body: &Bytes) -> Result<Map<String, Value>, ApiError> {
    parse_object(body).map_err(|why| {
        error(StatusCode::BAD_REQUEST, "DCS.4005", format!("The request body is not a JSON object: {why}"))
    })
}

fn phase_name(phase: Phase, kind: MigrationKind) -> &'static str {
    match (phase, kind) {
        (Phase::Created, _) => "RUNNING",
        (Phase::Loading, MigrationKind::Import) => "MIGRATING",
        (Phase::Loading, MigrationKind::Online) => "FULLMIGRATING",
        // The misspelling is the word on the wire.
        (Phase::Following, _) => "INCRMIGEATING",
        (Phase::Stopping, _) => "TERMINATING",
        (Phase::Stopped, _) => "TERMINATED",
        (Phase::Succeeded, _) => "SUCCESS",
        (Phase::Failed, _) => "FAILED",
    }
}

/// The status of a task (§3.1).
pub(crate) fn status(state: MigrationState) -> &'static str {
    phase_name(state.phase, state.kind)
}

/// Where a cut-over is (§3.4).
pub(crate) fn task_status(switch: CutoverState) -> &'static str {
    match switch {
        CutoverState::InProgress | CutoverState::Committed | CutoverState::RollingBack => "EXCHANGING",
        CutoverState::Done => "EXCHANGE_SUCCESS",
        CutoverState::Failed => "EXCHANGE_FAILED",
        CutoverState::RolledBack => "ROLLBACK_SUCCESS",
        CutoverState::RollbackFailed => "ROLLBACK_FAILED",
    }
}

/// Words of `migration_method`.
pub(crate) const METHODS: [&str; 2] = ["full_amount_migration", "incremental_migration"];

pub(crate) fn method(word: &str) -> Method {
    if word == METHODS[1] { Method::Incremental } else { Method::Full }
}

pub(crate) fn method_name(method: Method) -> &'static str {
    METHODS[usize::from(method == Method::Incremental)]
}

/// Words of `resume_mode`.
pub(crate) const MODES: [&str; 2] = ["auto", "manual"];

pub(crate) fn mode(word: &str) -> ResumeMode {
    if word == MODES[1] { ResumeMode::Manual } else { ResumeMode::Auto }
}

pub(crate) fn mode_name(mode: ResumeMode) -> &'static str {
    MODES[usize::from(mode == ResumeMode::Manual)]
}

/// ISO 8601 with milliseconds.
pub(crate) fn time_text(ms: i64) -> String {
    // Six digits of fraction, the last three of which are zero.
    let text = crate::time_text::time_text(ms);
    format!("{}Z", &text[..text.len() - 4])
}

/// A number of the query within a range.
pub(crate) fn number(
    query: &crate::query::Params,
    name: &str,
    default: u64,
    range: (u64, u64),
) -> Result<u64, ApiError> {
    let Some(text) = crate::query::given(query, name) else { return Ok(default) };
    let number = text.parse().ok().filter(|n| (range.0..=range.1).contains(n));
    number.ok_or_else(|| {
        migration_error(MigrationError::Field(
            name.into(),
            format!("it must be a number from {} to {}", range.0, range.1),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dcs_paths_are_recognised_and_times_formatted() {
        assert!(
            is_dcs("/v2/p/migration-tasks") && is_dcs("/v2/p/migration/x/task") && !is_dcs("/v2/p/nothing")
        );
        assert!(!is_dcs("/v2/p/tasks") && !is_dcs("/v1/p/jobs"));
        assert_eq!(time_text(1_623_823_975_508), "2021-06-16T06:12:55.508Z");
    }

    /// The words of §3.1, and no other.
    #[test]
    fn every_phase_has_an_api_status() {
        let words: Vec<&str> = Phase::ALL.iter().map(|p| phase_name(*p, MigrationKind::Online)).collect();
        assert_eq!(
            words,
            ["RUNNING", "FULLMIGRATING", "INCRMIGEATING", "TERMINATING", "TERMINATED", "SUCCESS", "FAILED"]
        );
        assert_eq!(phase_name(Phase::Loading, MigrationKind::Import), "MIGRATING");
    }

    #[test]
    fn cl_f05_missing_unfinished_and_unusable_backups_have_distinct_codes() {
        let code = |denial| migration_error(denial).code;
        assert_eq!(code(MigrationError::NoBackup("x".into())), "DCS.4031");
        assert_eq!(code(MigrationError::BackupRuns("x".into())), "DCS.4096");
        assert_eq!(code(field_error(FieldError::TooLong("remark".into(), 128))), "DCS.4098");
        assert_eq!(code(MigrationError::Period), "DCS.4025");
        let full = model::error::Error::new(model::error::Kind::NoSpace, "store", "the disk is full");
        assert_eq!(migration_error(MigrationError::Internal(full)).status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            code(MigrationError::Backup("x".into())),
            "DCS.4087",
            "an import names one that cannot be used"
        );
    }
}
