//! Every error code that oms.md §7 and §8.3 document: what makes it, or why it cannot occur here.

use std::fmt::Write as _;

/// What becomes of a documented code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// It is answered; when.
    Answered(&'static str),
    /// It stands in a task, a notification or a record list; when.
    InRecord(&'static str),
    /// It cannot occur; why.
    Never(&'static str),
}

use Code::{Answered, InRecord, Never};

const NEARER: &str = "a more specific code is used";
const BILLING: &str = "there are no account restrictions and no billing";
const EVALUATION: &str = "evaluations are not part of the API; use `whimbrel assess`";
const RECORDS: &str = "errors of a record list use 0304 or 0305";

/// Numbers of `OMS.nnnn` and `S3M.nnnn` (oms.md §7).
pub(crate) static REQUESTS: &[(u16, Code)] = &[
    (1, Answered("v1: internal error (v2: 1001)")),
    (2, Never(NEARER)),
    (4, Never("requests that are not valid HTTP are closed without a response")),
    (5, Answered("v1: the method is not supported, status 405 (v2: 1008)")),
    (14, Never("request input is never passed to an interpreter")),
    (51, Answered("limit, offset, start, a time or a page size is out of range")),
    (52, Answered("the state filter has an unknown value")),
    (53, Never("a failed query uses 1001, a missing permission APIGW.0302")),
    (54, Answered("the task id is not a number; v1: also an unknown task")),
    (55, Never(NEARER)),
    (56, Never("the API has no user ids")),
    (57, Answered("the parameters of the source are not valid, or its keys are wrong")),
    (58, Answered("the keys of the destination are wrong or lack a permission")),
    (59, Answered("v1: `thread_num` is out of range")),
    (60, Never("every region of the catalogue can be a destination; others use 0080")),
    (61, Answered("v1: a field has another type, or is too long")),
    (62, Never("a task that cannot be saved uses 1001")),
    (63, Answered("delete while the task, group or sync task is in progress")),
    (64, Answered("a value is not valid; the message names the field and a remedy")),
    (65, Answered("start of a task that is already started")),
    (66, Answered("stop of a task that is not running; events for a stopped sync task")),
    (67, Answered("the body is not a JSON object")),
    (68, Never("authentication errors use APIGW.0301")),
    (69, Never("encryption of the target is checked when an object is written")),
    (70, Answered("start of a complete task")),
    (72, Never("permission errors use APIGW.0302")),
    (73, Never("a failed deletion uses 1001")),
    (74, Never(NEARER)),
    (75, Answered("v1: too many tasks within 24 hours, or waiting (v2: 0077)")),
    (76, Never("v1: both limits use 0075")),
    (77, Answered("v2: too many tasks within 24 hours, or waiting")),
    (78, Answered("the description has forbidden characters")),
    (79, Answered("the source region is not supported")),
    (80, Answered("the destination region is not supported")),
    (81, Answered("the domain of `source_cdn` cannot be used")),
    (82, Never("each object that cannot be restored fails with that reason")),
    (83, Answered("more than five bandwidth windows")),
    (84, Answered("a window's `max_bandwidth` is out of range")),
    (85, Answered("bandwidth windows overlap")),
    (86, Answered("bandwidth of a complete task")),
    (87, Answered("a window's times are malformed, equal or reversed")),
    (88, Never("v1: parameters that do not match the task type use 0057")),
    (89, Answered("the single selected key does not exist at the source")),
    (151, Never(NEARER)),
    (152, Never("a region that cannot be found uses 0155")),
    (153, Answered("buckets or their contents cannot be listed")),
    (154, Never("connection errors use 0153, 1014 or 1020")),
    (155, Answered("the region of a bucket cannot be determined")),
    (156, InRecord("a notification: the webhook answered with an error")),
    (157, Answered("no `[[notify]]` is configured for the topic")),
    (158, InRecord("a notification: the webhook refused it")),
    (159, Never("webhook errors use 0156, 0158 and 0161")),
    (160, Never("webhook errors use 0156, 0158 and 0161")),
    (161, InRecord("a notification: the webhook cannot be reached")),
    (162, Never("headers that are too long are refused by the HTTP layer")),
    (163, Never("tokens that are too long use APIGW.0301")),
    (167, Answered("retry of failed objects where none are recorded")),
    (168, Never("topics have no regions")),
    (169, Never("a missing topic uses 0157")),
    (201, Never(BILLING)),
    (202, Never(BILLING)),
    (203, Never(BILLING)),
    (204, Never(BILLING)),
    (205, Answered("a request with a viewer's key that creates, changes or deletes, status 403")),
    (206, Never("a key without any permission uses APIGW.0302")),
    (256, Answered("the API version does not exist, status 404")),
    (301, Never("failed objects are always recorded")),
    (302, Never("a failed listing fails the task with its own code")),
    (303, Never(RECORDS)),
    (304, InRecord("a task: a record list could not be written")),
    (305, InRecord("a task: the failed list has reached 100,000 lines")),
    (306, Never("an empty selection fails the task with TRF.0012")),
    (307, Never(RECORDS)),
    (308, Answered("retry of failed objects whose list is incomplete")),
    (1001, Answered("v2: internal error, status 500")),
    (1002, Answered("v2: a field has another JSON type")),
    (1003, Answered("v2: a text or list is too long")),
    (1004, Answered("a required field is missing")),
    (1005, Never("authentication errors use APIGW.0301")),
    (1006, Never("a body that is not JSON uses 0067")),
    (1007, Answered("a required parameter of the query is missing")),
    (1008, Answered("v2: the method is not supported, status 405")),
    (1009, Answered("the resource does not exist in this project")),
    (1010, Never("a wrong type uses 1002")),
    (1011, Never(EVALUATION)),
    (1012, Never(EVALUATION)),
    (1013, Never(EVALUATION)),
    (1014, Answered("the source bucket cannot be reached")),
    (1015, Never(EVALUATION)),
    (1016, Never(EVALUATION)),
    (1017, Never(EVALUATION)),
    (1018, Never(EVALUATION)),
    (1019, Never(EVALUATION)),
    (1020, Answered("the destination bucket cannot be reached")),
    (1021, Never("quota errors use 0077")),
    (1022, Never("several tasks of one source may be created at once")),
    (1023, Never(EVALUATION)),
    (1026, Never("an internal error uses 1001")),
    (1027, Never("failed objects are always retried completely")),
    (1028, Never("failed objects are always retried completely")),
    (1030, Never("failed objects are always retried completely")),
    (1031, Never("a task has one vendor")),
    (1032, Answered("the key of a source CDN is missing")),
    (1033, Never(EVALUATION)),
    (1035, Never("a PREFIX group needs no list files")),
    (
        1036,
        Answered("the state of the group does not permit it; a member can only be deleted with its group"),
    ),
    (1037, Never("quota errors use 0077")),
    (1038, Answered("stop of a group that does not run")),
    (1039, Answered("start of a group that is not paused")),
    (1040, Answered("retry of a group that has not failed")),
    (1041, Never("the credentials of a task determine which buckets it may use")),
    (2004, Answered("the service is not ready, status 503")),
];

/// Numbers of `TRF.nnnn` in `error_reason` (oms.md §8.3).
pub(crate) static CAUSES: &[(u16, Code)] = &[
    (1, InRecord("an internal error of the service")),
    (2, Never("a server that does not answer uses 0061 or 0157")),
    (3, InRecord("waited 30 days without being scheduled")),
    (4, Never("a server error uses 0061 or 0157")),
    (5, Never("a server error uses 0061 or 0157")),
    (6, Never("only the object that differs fails")),
    (7, Never("errors of the destination use 0061")),
    (8, Never("wrong keys use 0057 or 0151")),
    (9, Never("a bucket that cannot be read uses 0155 or 0157")),
    (10, Never("a bucket that cannot be read uses 0058 or 0061")),
    (11, Never("an empty selection uses 0012")),
    (12, InRecord("the selection matches no object")),
    (13, InRecord("the list file is missing")),
    (14, InRecord("the list file is too large, or not a .txt file")),
    (15, Never("an account without blob service is refused at task creation")),
    (16, InRecord("a line of the list is malformed")),
    (17, InRecord("the list file is empty")),
    (18, InRecord("a line of the list is longer than 65,535 bytes")),
    (19, InRecord("the metadata of the list file are wrong")),
    (51, InRecord("no permission at the destination")),
    (52, Never("a missing permission at the destination uses 0051")),
    (53, Never(BILLING)),
    (54, Never("a missing permission at the destination uses 0051")),
    (55, InRecord("the destination is full")),
    (56, Never(BILLING)),
    (57, InRecord("the keys of the destination are wrong")),
    (58, InRecord("the destination bucket is missing")),
    (59, Never("an object that vanishes from the destination is written again")),
    (60, InRecord("the destination refuses an object key")),
    (61, InRecord("another error of the destination")),
    (62, InRecord("some objects failed, for several reasons")),
    (63, Never(BILLING)),
    (64, Never("v2 uses 0202")),
    (151, InRecord("the keys of the source are wrong")),
    (152, InRecord("no permission at the source")),
    (153, Never("a missing permission at the source uses 0152")),
    (154, Never("a missing permission at the source uses 0152")),
    (155, InRecord("the source bucket is missing")),
    (156, InRecord("an object is missing at the source")),
    (157, InRecord("another error of the source")),
    (158, Never("an object is written with the requested encryption or fails")),
    (159, InRecord("the source throttles")),
    (160, Never("an archived object uses 0202")),
    (201, Never("a refused restore is recorded with its object")),
    (202, InRecord("an object is archived and not restored")),
    (301, Never("an archived list file uses 0202")),
];

/// The tables as a page.
pub fn page() -> String {
    let mut out = String::from("# Error codes\n\nWritten by `cargo x gen`; do not edit.\n");
    for (title, prefix, table) in
        [("Codes of requests", "OMS / S3M", REQUESTS), ("Codes of tasks (`error_reason`)", "TRF", CAUSES)]
    {
        let _ = write!(out, "\n## {title}\n\n| {prefix} | used | when, or why not |\n|---|---|---|\n");
        for (number, code) in table {
            let (mark, text) = match code {
                Answered(text) => ("yes", text),
                InRecord(text) => ("inside", text),
                Never(text) => ("no", text),
            };
            let _ = writeln!(out, "| {number:04} | {mark} | {text} |");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::error::{Kind, Side};

    use super::*;
    use crate::error::{ApiError, OmsVersion, every_refusal};
    use crate::v2::tasks::show::trf;

    fn number(code: &str) -> u16 {
        code.rsplit('.').next().unwrap().parse().unwrap()
    }

    fn listed(table: &[(u16, Code)], want: fn(&Code) -> bool) -> BTreeSet<u16> {
        table.iter().filter(|(_, code)| want(code)).map(|(n, _)| *n).collect()
    }

    /// Answers that are made before or behind the refusals of use cases, each driven by a scenario of the SDK tests.
    const ELSEWHERE: [u16; 6] = [5, 67, 205, 256, 1008, 2004];

    #[test]
    fn documented_error_codes_match_the_codes_in_use() {
        for table in [REQUESTS, CAUSES] {
            assert!(table.windows(2).all(|w| w[0].0 < w[1].0), "in order, each once");
        }
        let made: BTreeSet<u16> = every_refusal()
            .iter()
            .flat_map(|r| {
                [OmsVersion::V1, OmsVersion::V2]
                    .map(|version| number(&ApiError::from_task_error(version, r).code))
            })
            .chain(ELSEWHERE)
            .collect();
        assert_eq!(
            made,
            listed(REQUESTS, |c| matches!(c, Answered(_))),
            "what is made is what is documented"
        );
    }

    #[test]
    fn documented_task_error_codes_match_the_codes_in_use() {
        let mut made = BTreeSet::from([62]);
        for side in [Side::Source, Side::Target, Side::Local] {
            for kind in Kind::ALL {
                made.insert(number(trf(kind, side)));
            }
        }
        assert_eq!(made, listed(CAUSES, |c| matches!(c, InRecord(_))), "what is made is what is documented");
    }
}
