//! `whimbrel`: what goes beyond the compatible APIs, in one object of its own that other services ignore.

use control::TaskError;
use model::count::Counters;
use model::spec::{Extensions, ReportForm, TaskSpec};
use serde_json::{Value, json};
use wire::fields::Fields;

use crate::error::field_error;

/// All that may be written; what is misspelt must not be taken for granted.
const FIELDS: [&str; 9] =
    ["include", "exclude", "versions", "acl", "delete", "delete_most", "dry_run", "reports", "sweep_minutes"];
/// Globs of one list, and their length.
const GLOBS: (usize, usize) = (100, 1024);
/// Length of all globs of a task together, bytes: each key is held against all of them.
const GLOBS_LENGTH: usize = 16 << 10;
/// A sweep each minute at most, each month at least.
const SWEEP_MINUTES: std::ops::RangeInclusive<i64> = 1..=43_200;

/// The object of a request: the rules, then the globs to keep and to drop.
pub(crate) fn read(f: &Fields<'_>) -> Result<(Extensions, Vec<String>, Vec<String>), TaskError> {
    let Some(own) = f.opt_object("whimbrel").map_err(field_error)? else { return Ok(Default::default()) };
    if let Some(name) = own.unknown(&FIELDS) {
        return Err(TaskError::Invalid(
            own.name(name),
            format!("unknown field; supported fields are {}", FIELDS.join(", ")),
        ));
    }
    let flag = |name: &str| own.opt_bool(name).map_err(field_error).map(Option::unwrap_or_default);
    let globs = |name: &str| {
        own.opt_texts(name, GLOBS.0, GLOBS.1).map_err(field_error).map(Option::unwrap_or_default)
    };
    let forms = own.opt_texts("reports", 2, 16).map_err(field_error)?.unwrap_or_default();
    let form = |text: &String| match text.as_str() {
        "csv" => Ok(ReportForm::Csv),
        "parquet" => Ok(ReportForm::Parquet),
        other => {
            let why = format!("`{other}` is neither csv nor parquet");
            Err(TaskError::Invalid(own.name("reports"), why))
        }
    };
    let sweep = own.opt_int("sweep_minutes").map_err(field_error)?;
    if let Some(minutes) = sweep.filter(|m| !SWEEP_MINUTES.contains(m)) {
        let why = format!("{minutes} is not in 1 to 43200");
        return Err(TaskError::Invalid(own.name("sweep_minutes"), why));
    }
    let extensions = Extensions {
        versions: flag("versions")?,
        acl: flag("acl")?,
        delete: flag("delete")?,
        delete_most: flag("delete_most")?,
        dry_run: flag("dry_run")?,
        reports: forms.iter().map(form).collect::<Result<_, _>>()?,
        full_scan_interval_minutes: u32::try_from(sweep.unwrap_or(0)).unwrap_or(0),
    };
    let (include, exclude) = (globs("include")?, globs("exclude")?);
    let length: usize = include.iter().chain(&exclude).map(String::len).sum();
    if length > GLOBS_LENGTH {
        let why = format!("the patterns have {length} bytes in total; the maximum is {GLOBS_LENGTH}");
        return Err(TaskError::Invalid(own.name("include"), why));
    }
    Ok((extensions, include, exclude))
}

/// The rules of a reply.
pub(crate) fn shown(spec: &TaskSpec) -> Value {
    let b = &spec.extensions;
    json!({
        "include": spec.include, "exclude": spec.exclude, "versions": b.versions, "acl": b.acl,
        "delete": b.delete, "delete_most": b.delete_most, "dry_run": b.dry_run, "reports": b.reports, "sweep_minutes": b.full_scan_interval_minutes,
    })
}

/// The rules of a task or group, and what its other fields have no place for: removals, proofs, and the notes.
pub(crate) fn shown_with_results(spec: &TaskSpec, counters: &Counters, notes: &[String]) -> Value {
    let mut out = shown(spec);
    let [digest, etag, crc64, size] = counters.proof;
    out["deleted_num"] = counters.deleted.objects.into();
    out["gone_num"] = counters.gone.objects.into();
    out["proof"] = json!({"digest": digest, "etag": etag, "crc64": crc64, "size": size});
    let notes: Vec<&str> = notes.iter().map(String::as_str).filter(|n| !n.is_empty()).collect();
    out["note"] = Some(notes.join("; ")).filter(|n| !n.is_empty()).into();
    out
}
