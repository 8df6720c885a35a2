//! One table from refusals to HTTP status and code. Numbers are shared: `OMS.00nn` in v2 and `S3M.00nn` in v1
//! mean the same (oms.md §7); v1 has no numbers from 1001 on.

use axum::response::{IntoResponse, Response};
use control::TaskError;
use http::{HeaderValue, StatusCode, header};
use model::error::{Error, Kind, Side};
use model::group::GroupIllegal;
use model::policy::WindowError;
use model::task::{Event, Illegal};
use wire::fields::FieldError;

/// The version of the API that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OmsVersion {
    V1,
    V2,
}

/// An error answer.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: String,
    pub(crate) message: String,
}

/// Number and sentence of a rejected request.
fn code_and_sentence(refusal: &TaskError) -> (u16, String) {
    let task = |no: u16, text: &str| (no, text.to_owned());
    match refusal {
        TaskError::Missing(field) => (1004, format!("`{field}` is required")),
        TaskError::MissingQuery(name) => (1007, format!("Query parameter `{name}` is required")),
        TaskError::WrongType(field, want) => (1002, format!("`{field}` must be {want}")),
        TaskError::TooLong(field, max) => (1003, format!("`{field}` is longer than {max}")),
        TaskError::Invalid(field, why) => (64, format!("`{field}`: {why}")),
        TaskError::Description(which) => (78, format!("`description` must not contain any of {which}")),
        TaskError::Threads => task(59, "`thread_num` must be from 0 to 50"),
        TaskError::Source(why) => (57, format!("`src_node`: {why}")),
        TaskError::Target(why) => (58, format!("`dst_node`: {why}")),
        TaskError::SourceRegion(region) => {
            let region = redact(region);
            (79, format!("Source region `{region}` is not supported; hint: list the supported regions"))
        }
        TaskError::TargetRegion(region) => (
            80,
            format!(
                "Destination region `{}` is not supported; hint: list the supported regions",
                redact(region)
            ),
        ),
        TaskError::Windows(WindowError::TooMany) => task(83, "`bandwidth_policy` has more than 5 windows"),
        TaskError::Windows(WindowError::OutOfRange) => task(84, "`max_bandwidth` is out of range"),
        TaskError::Windows(WindowError::Overlap) => task(85, "`bandwidth_policy` has overlapping windows"),
        TaskError::Windows(WindowError::BadTime) => {
            task(87, "`start` and `end` must be hh:mm, and `start` before `end`")
        }
        TaskError::Range(why) => (51, why.clone()),
        TaskError::State(why) => (52, why.clone()),
        TaskError::TaskId(id) => (54, format!("Task id `{id}` is not a number")),
        TaskError::NotFound(what) => (1009, what.clone()),
        TaskError::Illegal(_, Illegal::Complete) => task(70, "The task is complete."),
        TaskError::Illegal(Event::Start, _) => task(65, "The task is already started."),
        TaskError::Illegal(Event::Stop, _) => task(66, "The task is not in progress."),
        TaskError::Illegal(Event::Delete, _) => task(63, "The task is in progress; hint: stop it first"),
        TaskError::Illegal(..) => task(64, "The state of the task does not allow this operation."),
        TaskError::Topic(topic) => (157, format!("No [[notify]] section has topic `{topic}`")),
        TaskError::CdnDomain(domain) => (81, format!("`source_cdn.domain` cannot be used: {domain}")),
        TaskError::CdnKey => task(1032, "`source_cdn.authentication_key` is missing"),
        TaskError::Member => task(1036, "The task is part of a task group; hint: delete the group"),
        TaskError::GroupIllegal(why) => match why {
            GroupIllegal::NotRunning => {
                task(1038, "Only a task group that is creating or monitoring can be paused.")
            }
            GroupIllegal::Finished => task(66, "The task group has ended."),
            GroupIllegal::NotPaused => task(1039, "Only a paused task group can be resumed."),
            GroupIllegal::NotFailed => task(1040, "Only a failed task group can be retried."),
            GroupIllegal::InProgress => task(63, "The task group is in progress; hint: stop it first"),
            GroupIllegal::Closed | GroupIllegal::UnexpectedEvent => {
                task(1036, "The state of the task group does not allow this operation.")
            }
        },
        TaskError::NoSuchGroup(what) | TaskError::NoSuchSync(what) => (1009, what.clone()),
        TaskError::SyncStarted => task(65, "The sync task is already started."),
        TaskError::SyncStopped => task(66, "The sync task is stopped."),
        TaskError::SyncRunning => task(63, "The sync task is running; hint: stop it first"),
        TaskError::BandwidthClosed => task(86, "The task is complete; its bandwidth cannot be changed."),
        TaskError::NoFailedList => task(167, "The task has no list of failed objects to retry."),
        TaskError::FailedListIncomplete => task(308, "The list of failed objects is incomplete."),
        // Answered with the code of the gateway, see `from_task_error`.
        TaskError::Busy(what) => task(308, what),
        TaskError::Quota(why) => (77, format!("{why}; hint: retry later")),
        TaskError::NoSuchObject(key) => (89, format!("Object `{key}` does not exist at the source.")),
        TaskError::Check(failure) => (check_number(failure), sentence(failure)),
        TaskError::Buckets(failure) => (153, sentence(failure)),
        TaskError::BucketRegion(failure) => (155, sentence(failure)),
        TaskError::Internal(f) if is_full(f) => {
            task(1001, "The service cannot write: its disk is full or read-only; hint: retry later")
        }
        TaskError::Internal(_) => {
            task(1001, "Internal error; the service log has details under this request id.")
        }
    }
}

/// An error as a sentence of the API: with a capital letter, and "Destination" for the target side.
fn sentence(failure: &Error) -> String {
    let text = failure.to_string();
    if let Some(rest) = text.strip_prefix("target ").filter(|_| failure.side == Side::Target) {
        return format!("Destination {rest}");
    }
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

/// The disk of the service is full or read-only.
pub(crate) fn is_full(failure: &Error) -> bool {
    matches!(failure.kind, Kind::NoSpace | Kind::ReadOnly)
}

fn check_number(failure: &Error) -> u16 {
    match (failure.side, failure.kind) {
        (Side::Target, Kind::NoBucket | Kind::NotFound | Kind::Connect) => 1020,
        (Side::Target, _) => 58,
        (_, Kind::NoBucket | Kind::NotFound | Kind::Connect) => 1014,
        _ => 57,
    }
}

/// v1 has no number above 1000: the nearest of its own.
fn old_number(no: u16) -> u16 {
    match no {
        1001 => 1,
        1002 | 1003 => 61,
        1009 => 54,
        1014 => 57,
        1020 => 58,
        77 => 75,
        n if n > 1000 => 64,
        n => n,
    }
}

impl ApiError {
    /// The response of a version of the API to a rejected request.
    pub(crate) fn from_task_error(version: OmsVersion, refusal: &TaskError) -> Self {
        if let TaskError::Busy(what) = refusal {
            let m = format!("The throttling threshold has been reached: {what}; hint: retry in 30 seconds.");
            return Self::gateway(StatusCode::TOO_MANY_REQUESTS, "APIGW.0308", m);
        }
        let (no, message) = code_and_sentence(refusal);
        if let TaskError::Internal(failure) = refusal {
            tracing::error!(kind = ?failure.kind, "request failed: {failure}");
        }
        let status = match refusal {
            TaskError::Internal(f) if is_full(f) => StatusCode::SERVICE_UNAVAILABLE,
            TaskError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            TaskError::NoSuchGroup(_) | TaskError::NoSuchSync(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        };
        let code = match version {
            OmsVersion::V1 => format!("S3M.{:04}", old_number(no)),
            OmsVersion::V2 => format!("OMS.{no:04}"),
        };
        Self { status, code, message }
    }

    /// An answer of the gateway (auth.md §2.5).
    pub(crate) fn gateway(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into() }
    }

    /// The body is not JSON.
    pub(crate) fn not_json(version: OmsVersion, why: &str) -> Self {
        let prefix = if version == OmsVersion::V1 { "S3M" } else { "OMS" };
        Self {
            status: StatusCode::BAD_REQUEST,
            code: format!("{prefix}.0067"),
            message: format!("The request body is not a JSON object: {why}"),
        }
    }
}

/// The error of a field as a rejected request.
pub(crate) fn field_error(error: FieldError) -> TaskError {
    match error {
        FieldError::Missing(field) => TaskError::Missing(field),
        FieldError::WrongType(field, want) => TaskError::WrongType(field, want),
        FieldError::TooLong(field, max) => TaskError::TooLong(field, max),
        FieldError::NotAWord(field, why) => TaskError::Invalid(field, why),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // `request_id` is added where the id is known: in the outermost layer.
        let message: String = self.message.chars().take(1024).collect();
        let mut body = serde_json::json!({"error_code": self.code, "error_msg": message});
        if self.code.starts_with("DCS.") {
            body["error_ext_msg"] = serde_json::Value::Null;
        }
        let mut response = (self.status, body.to_string()).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// One of each refusal, and of each case within that has a number of its own.
/// An endpoint written as a region, without who asks there.
fn redact(region: &str) -> String {
    match region.rsplit_once('@') {
        Some((_, host)) if region.contains("://") => format!("…@{host}"),
        _ => region.to_owned(),
    }
}

#[cfg(test)]
pub(crate) fn every_refusal() -> Vec<TaskError> {
    vec![
        TaskError::Missing("a".into()),
        TaskError::MissingQuery("a".into()),
        TaskError::WrongType("a".into(), "b"),
        TaskError::TooLong("a".into(), 1),
        TaskError::Invalid("a".into(), "b".into()),
        TaskError::Description("a"),
        TaskError::Threads,
        TaskError::Source("a".into()),
        TaskError::Target("a".into()),
        TaskError::SourceRegion("a".into()),
        TaskError::TargetRegion("a".into()),
        TaskError::Windows(WindowError::TooMany),
        TaskError::Windows(WindowError::OutOfRange),
        TaskError::Windows(WindowError::Overlap),
        TaskError::Windows(WindowError::BadTime),
        TaskError::Range("a".into()),
        TaskError::State("a".into()),
        TaskError::TaskId("a".into()),
        TaskError::NotFound("a".into()),
        TaskError::NoSuchGroup("a".into()),
        TaskError::NoSuchSync("a".into()),
        TaskError::Illegal(Event::Start, Illegal::Complete),
        TaskError::Illegal(Event::Start, Illegal::AlreadyStarted),
        TaskError::Illegal(Event::Stop, Illegal::NotRunning),
        TaskError::Illegal(Event::Delete, Illegal::InProgress),
        TaskError::GroupIllegal(GroupIllegal::NotRunning),
        TaskError::GroupIllegal(GroupIllegal::NotPaused),
        TaskError::GroupIllegal(GroupIllegal::NotFailed),
        TaskError::GroupIllegal(GroupIllegal::Closed),
        TaskError::Member,
        TaskError::SyncStarted,
        TaskError::SyncStopped,
        TaskError::SyncRunning,
        TaskError::Topic("a".into()),
        TaskError::CdnDomain("a".into()),
        TaskError::CdnKey,
        TaskError::BandwidthClosed,
        TaskError::NoFailedList,
        TaskError::FailedListIncomplete,
        TaskError::Busy("too many calls wait for stores"),
        TaskError::Quota("a".into()),
        TaskError::NoSuchObject("a".into()),
        TaskError::Buckets(Error::new(Kind::Connect, "a", "b")),
        TaskError::BucketRegion(Error::new(Kind::Connect, "a", "b")),
        TaskError::Check(Error::new(Kind::NoBucket, "a", "b").at(Side::Source)),
        TaskError::Check(Error::new(Kind::NoBucket, "a", "b").at(Side::Target)),
        TaskError::Internal(Error::new(Kind::Internal, "a", "b")),
        TaskError::GroupIllegal(GroupIllegal::Finished),
        TaskError::GroupIllegal(GroupIllegal::InProgress),
        TaskError::GroupIllegal(GroupIllegal::UnexpectedEvent),
        TaskError::Check(Error::new(Kind::BadCredentials, "a", "b").at(Side::Source)),
        TaskError::Check(Error::new(Kind::BadCredentials, "a", "b").at(Side::Target)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_differ_by_api_version() {
        let of = |version, r: TaskError| ApiError::from_task_error(version, &r).code;
        assert_eq!(of(OmsVersion::V2, TaskError::Illegal(Event::Stop, Illegal::NotRunning)), "OMS.0066");
        assert_eq!(of(OmsVersion::V1, TaskError::Illegal(Event::Delete, Illegal::InProgress)), "S3M.0063");
        assert_eq!(of(OmsVersion::V2, TaskError::NotFound("x".into())), "OMS.1009");
        assert_eq!(of(OmsVersion::V1, TaskError::NotFound("x".into())), "S3M.0054");
        assert_eq!(of(OmsVersion::V2, TaskError::Windows(WindowError::Overlap)), "OMS.0085");
    }

    /// What an action answers: the code, or nothing where it is accepted.
    fn code(refusal: Option<TaskError>) -> String {
        refusal.map_or_else(|| "ok".to_owned(), |r| ApiError::from_task_error(OmsVersion::V2, &r).code)
    }

    /// oms.md §3.1, state by state: waiting, executing, stopped, failed, succeeded, retrying, pausing.
    #[test]
    fn cl_f08_task_actions_have_an_error_code_in_every_state() {
        use model::task::{Desired, Lifecycle, Observed, next};
        let states = [
            (Desired::Run, Observed::Waiting),
            (Desired::Run, Observed::Running),
            (Desired::Pause, Observed::Paused),
            (Desired::Run, Observed::Failed),
            (Desired::Run, Observed::Succeeded),
            (Desired::Run, Observed::Retrying),
            (Desired::Pause, Observed::Running),
        ];
        let table = [
            (Event::Start, ["OMS.0065", "OMS.0065", "ok", "ok", "OMS.0070", "OMS.0065", "OMS.0065"]),
            (Event::Stop, ["OMS.0066", "ok", "OMS.0066", "OMS.0066", "OMS.0066", "ok", "OMS.0066"]),
            (Event::Delete, ["ok", "OMS.0063", "ok", "ok", "ok", "OMS.0063", "OMS.0063"]),
        ];
        for (event, wanted) in table {
            for ((desired, observed), want) in states.into_iter().zip(wanted) {
                let refused = next(Lifecycle { desired, observed }, event).err();
                assert_eq!(
                    code(refused.map(|why| TaskError::Illegal(event, why))),
                    want,
                    "{event:?} in {observed:?}"
                );
            }
        }
    }

    /// oms.md §3.2, phase by phase from 0 to 8.
    #[test]
    fn group_actions_have_an_error_code_in_every_phase() {
        use model::group::{GroupEvent, Phase, next};
        let (no, yes) = ("OMS.1039", "ok");
        let table = [
            (
                GroupEvent::Stop,
                [
                    "OMS.1038", yes, yes, "OMS.1038", "OMS.1038", "OMS.0066", "OMS.0066", "OMS.1038",
                    "OMS.1036",
                ],
            ),
            (GroupEvent::Start, [no, no, no, yes, no, no, no, no, "OMS.1036"]),
            (
                GroupEvent::Retry,
                [
                    "OMS.1040", "OMS.1040", "OMS.1040", "OMS.1040", yes, yes, "OMS.1040", "OMS.1040",
                    "OMS.1036",
                ],
            ),
            (GroupEvent::Update, [yes, yes, yes, yes, yes, yes, "OMS.1036", yes, "OMS.1036"]),
            (GroupEvent::Delete, [yes, "OMS.0063", "OMS.0063", yes, yes, yes, yes, "OMS.0063", yes]),
        ];
        for (event, wanted) in table {
            for (phase, want) in Phase::ALL.into_iter().zip(wanted) {
                let refused = next(phase, event, true).err();
                assert_eq!(code(refused.map(TaskError::GroupIllegal)), want, "{event:?} in {phase:?}");
            }
        }
    }

    #[test]
    fn every_error_code_has_a_chinese_message() {
        for refusal in every_refusal() {
            for version in [OmsVersion::V1, OmsVersion::V2] {
                let code = ApiError::from_task_error(version, &refusal).code;
                assert!(crate::i18n::zh::sentence(&code).is_some(), "{code} for {refusal:?}");
            }
        }
    }

    /// Changed sentences are seen in the review of the snapshot; `INSTA_UPDATE=always cargo test -p api` writes it.
    #[test]
    fn api_error_sentences_are_those_of_the_snapshot() {
        use std::fmt::Write as _;
        let mut catalogue = String::new();
        for refusal in every_refusal() {
            let [v1, v2] = [OmsVersion::V1, OmsVersion::V2].map(|v| ApiError::from_task_error(v, &refusal));
            let chinese = crate::i18n::zh::sentence(&v2.code).unwrap_or("-");
            let (status, english) = (v2.status.as_u16(), v2.message);
            writeln!(catalogue, "{status} {} {}\n  en: {english}\n  zh: {chinese}", v2.code, v1.code)
                .unwrap();
        }
        insta::with_settings!({
            snapshot_path => "../snapshots", prepend_module_to_snapshot => false, omit_expression => true
        }, {
            insta::assert_snapshot!("api_errors", catalogue);
        });
    }

    #[test]
    fn c08_thread_count_error_has_its_own_code() {
        let error = ApiError::from_task_error(OmsVersion::V1, &TaskError::Threads);
        assert_eq!((error.code.as_str(), error.status), ("S3M.0059", StatusCode::BAD_REQUEST));
    }
}
