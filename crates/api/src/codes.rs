//! Every error code that oms.md §7 and §8.3 document: what makes it, or why it cannot occur here.

use std::fmt::Write as _;

/// What becomes of a documented code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// It is answered; when.
    Answered(&'static str),
    /// It stands in a task, a notice or a record list; when.
    Inside(&'static str),
    /// It cannot occur; why.
    Never(&'static str),
}

use Code::{Answered, Inside, Never};

const NEARER: &str = "a nearer code says more";
const BILLING: &str = "there are no accounts to restrict and nothing to pay";
const EVALUATION: &str = "evaluations are no part of the API; `whimbrel assess` makes them";
const RECORDS: &str = "trouble with a list stands under 0304 or 0305";

/// Numbers of `OMS.nnnn` and `S3M.nnnn` (oms.md §7).
pub(crate) static REQUESTS: &[(u16, Code)] = &[
    (1, Answered("v1: internal error (v2: 1001)")),
    (2, Never(NEARER)),
    (4, Never("what is no HTTP request gets no answer of the API")),
    (5, Answered("v1: the method is not supported, status 405 (v2: 1008)")),
    (14, Never("no input reaches an interpreter")),
    (51, Answered("limit, offset, start, a time or a page size is out of range")),
    (52, Answered("the state to list by does not exist")),
    (53, Never("a failed query is 1001, a missing permission the gateway's")),
    (54, Answered("the task id is no number; v1: also an unknown task")),
    (55, Never(NEARER)),
    (56, Never("there are no user ids in the API")),
    (57, Answered("the source's parameters do not fit, or its keys are wrong")),
    (58, Answered("the destination's keys are wrong or lack a permission")),
    (59, Answered("v1: `thread_num` is out of range")),
    (60, Never("every region of the catalogue can be a destination; others are 0080")),
    (61, Answered("v1: a field has another type, or is too long")),
    (62, Never("a task that cannot be saved is 1001")),
    (63, Answered("delete while the task, group or sync task is in progress")),
    (64, Answered("a value is not acceptable; the message names field and remedy")),
    (65, Answered("start of what is started already")),
    (66, Answered("stop of what does not run; events for a stopped sync task")),
    (67, Answered("the body is not a JSON object")),
    (68, Never("authentication is the gateway's: APIGW.0301")),
    (69, Never("whether a target encrypts is known when it is written to")),
    (70, Answered("start of a complete task")),
    (72, Never("permissions are the gateway's: APIGW.0302")),
    (73, Never("a failed deletion is 1001")),
    (74, Never(NEARER)),
    (75, Answered("v1: too many tasks within 24 hours, or waiting (v2: 0077)")),
    (76, Never("v1: both limits are 0075")),
    (77, Answered("v2: too many tasks within 24 hours, or waiting")),
    (78, Answered("the description has forbidden characters")),
    (79, Answered("the source's region is not served")),
    (80, Answered("the destination's region is not served")),
    (81, Answered("the domain of `source_cdn` cannot be used")),
    (82, Never("objects that cannot be restored fail one by one, with that reason")),
    (83, Answered("more than five bandwidth windows")),
    (84, Answered("a window's `max_bandwidth` is out of range")),
    (85, Answered("bandwidth windows overlap")),
    (86, Answered("bandwidth of a complete task")),
    (87, Answered("a window's times are malformed, equal or reversed")),
    (88, Never("v1: type and parameters that do not fit are 0057")),
    (89, Answered("the one key that is named does not exist at the source")),
    (151, Never(NEARER)),
    (152, Never("a region that cannot be found is 0155")),
    (153, Answered("buckets or their contents cannot be listed")),
    (154, Never("no connection is 0153, 1014 or 1020")),
    (155, Answered("nobody can say where a bucket is")),
    (156, Inside("a notice: the webhook answers with an error")),
    (157, Answered("no `[[notify]]` is configured for the topic")),
    (158, Inside("a notice: the webhook refuses it")),
    (159, Never("a webhook's troubles are 0156, 0158 and 0161")),
    (160, Never("a webhook's troubles are 0156, 0158 and 0161")),
    (161, Inside("a notice: the webhook cannot be reached")),
    (162, Never("headers that are too long are the HTTP layer's to refuse")),
    (163, Never("tokens that are too long are unknown: APIGW.0301")),
    (167, Answered("retry of failed objects where none are recorded")),
    (168, Never("topics have no regions")),
    (169, Never("a missing topic is 0157")),
    (201, Never(BILLING)),
    (202, Never(BILLING)),
    (203, Never(BILLING)),
    (204, Never(BILLING)),
    (205, Answered("a viewer's key creates, changes or deletes, status 403")),
    (206, Never("a key without any permission is the gateway's: APIGW.0302")),
    (256, Answered("the API version does not exist, status 404")),
    (301, Never("failed objects are always recorded")),
    (302, Never("a listing that fails fails the task, with its cause")),
    (303, Never(RECORDS)),
    (304, Inside("a task: a record list could not be written")),
    (305, Inside("a task: the failed list has reached 100,000 lines")),
    (306, Never("an empty selection fails the task with TRF.0012")),
    (307, Never(RECORDS)),
    (308, Answered("retry of failed objects whose list is incomplete")),
    (1001, Answered("v2: internal error, status 500")),
    (1002, Answered("v2: a field has another JSON type")),
    (1003, Answered("v2: a text or list is too long")),
    (1004, Answered("a required field is missing")),
    (1005, Never("authentication is the gateway's: APIGW.0301")),
    (1006, Never("a body that is no JSON is 0067")),
    (1007, Answered("a required parameter of the query is missing")),
    (1008, Answered("v2: the method is not supported, status 405")),
    (1009, Answered("there is no such thing in this project")),
    (1010, Never("another type is 1002")),
    (1011, Never(EVALUATION)),
    (1012, Never(EVALUATION)),
    (1013, Never(EVALUATION)),
    (1014, Answered("the source's bucket cannot be reached")),
    (1015, Never(EVALUATION)),
    (1016, Never(EVALUATION)),
    (1017, Never(EVALUATION)),
    (1018, Never(EVALUATION)),
    (1019, Never(EVALUATION)),
    (1020, Answered("the destination's bucket cannot be reached")),
    (1021, Never("quotas are 0077")),
    (1022, Never("several tasks of one source may be created at once")),
    (1023, Never(EVALUATION)),
    (1026, Never("an internal failure is 1001")),
    (1027, Never("failed objects are retried as a whole")),
    (1028, Never("failed objects are retried as a whole")),
    (1030, Never("failed objects are retried as a whole")),
    (1031, Never("a task has one vendor")),
    (1032, Answered("the key of a source CDN is missing")),
    (1033, Never(EVALUATION)),
    (1035, Never("a PREFIX group needs no list files")),
    (1036, Answered("the group's state does not permit it; a member is deleted with its group only")),
    (1037, Never("quotas are 0077")),
    (1038, Answered("stop of a group that does not run")),
    (1039, Answered("start of a group that is not paused")),
    (1040, Answered("retry of a group that has not failed")),
    (1041, Never("credentials decide which buckets a task may use")),
    (2004, Answered("the service is not ready, status 503")),
];

/// Numbers of `TRF.nnnn` in `error_reason` (oms.md §8.3).
pub(crate) static CAUSES: &[(u16, Code)] = &[
    (1, Inside("our own trouble")),
    (2, Never("a server that does not answer is 0061 or 0157")),
    (3, Inside("waited 30 days without being scheduled")),
    (4, Never("a server's error is 0061 or 0157")),
    (5, Never("a server's error is 0061 or 0157")),
    (6, Never("an object that differs fails by itself")),
    (7, Never("trouble at the destination is 0061")),
    (8, Never("wrong keys are 0057 or 0151")),
    (9, Never("a bucket that cannot be asked is 0155 or 0157")),
    (10, Never("a bucket that cannot be asked is 0058 or 0061")),
    (11, Never("an empty selection is 0012")),
    (12, Inside("the selection matches no object")),
    (13, Inside("the list file is missing")),
    (14, Inside("the list file is too large, or no .txt")),
    (15, Never("an account without a blob service is refused when the task is created")),
    (16, Inside("a line of the list is malformed")),
    (17, Inside("the list file is empty")),
    (18, Inside("a line of the list is longer than 65,535 bytes")),
    (19, Inside("the list file's metadata are wrong")),
    (51, Inside("no permission at the destination")),
    (52, Never("a missing permission at the destination is 0051")),
    (53, Never(BILLING)),
    (54, Never("a missing permission at the destination is 0051")),
    (55, Inside("the destination is full")),
    (56, Never(BILLING)),
    (57, Inside("the destination's keys are wrong")),
    (58, Inside("the destination's bucket is missing")),
    (59, Never("a destination's object that vanishes is written again")),
    (60, Inside("the destination refuses a key")),
    (61, Inside("trouble at the destination")),
    (62, Inside("some objects failed, for several reasons")),
    (63, Never(BILLING)),
    (64, Never("v2's number for it is 0202")),
    (151, Inside("the source's keys are wrong")),
    (152, Inside("no permission at the source")),
    (153, Never("a missing permission at the source is 0152")),
    (154, Never("a missing permission at the source is 0152")),
    (155, Inside("the source's bucket is missing")),
    (156, Inside("an object is missing at the source")),
    (157, Inside("trouble at the source")),
    (158, Never("what is written is written with the encryption that was asked for, or fails")),
    (159, Inside("the source throttles")),
    (160, Never("an archived object is 0202")),
    (201, Never("a restore that is refused stands with its object")),
    (202, Inside("an object is archived and not restored")),
    (301, Never("an archived list file is 0202")),
];

/// The tables as a page.
pub fn page() -> String {
    let mut out = String::from("# Error codes\n\nWritten by `cargo x gen`; do not edit.\n");
    for (title, prefix, table) in
        [("Of requests", "OMS / S3M", REQUESTS), ("Of tasks (`error_reason`)", "TRF", CAUSES)]
    {
        let _ = write!(out, "\n## {title}\n\n| {prefix} | answered | when, or why not |\n|---|---|---|\n");
        for (number, code) in table {
            let (mark, text) = match code {
                Answered(text) => ("yes", text),
                Inside(text) => ("inside", text),
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

    use model::failure::{Kind, Side};

    use super::*;
    use crate::error::{Error, Face, every_refusal};
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
    fn every_documented_number_is_accounted_for() {
        for table in [REQUESTS, CAUSES] {
            assert!(table.windows(2).all(|w| w[0].0 < w[1].0), "in order, each once");
        }
        let made: BTreeSet<u16> = every_refusal()
            .iter()
            .flat_map(|r| [Face::V1, Face::V2].map(|face| number(&Error::of(face, r).code)))
            .chain(ELSEWHERE)
            .collect();
        assert_eq!(
            made,
            listed(REQUESTS, |c| matches!(c, Answered(_))),
            "what is made is what is documented"
        );
    }

    #[test]
    fn every_cause_of_a_task_is_accounted_for() {
        let mut made = BTreeSet::from([62]);
        for side in [Side::Source, Side::Target, Side::Here] {
            for kind in Kind::ALL {
                made.insert(number(trf(kind, side)));
            }
        }
        assert_eq!(made, listed(CAUSES, |c| matches!(c, Inside(_))), "what is made is what is documented");
    }
}
