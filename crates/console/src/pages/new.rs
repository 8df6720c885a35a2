//! `/console/tasks/new`: from where, to where, by which rules; the pre-check; the equal command and API call.
//!
//! A form that is shown again carries no secret: credentials wait in the session under a random name, and the form says
//! how they end.

mod equal;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use control::TaskError;
use control::create::Request;
use control::secrets::{StoreCredentials, TaskSecrets};
use http::StatusCode;
use model::error::Side;
use model::policy::{Check, MetadataRule, Overwrite, StoragePolicy};
use model::selection::{ListFile, Selection};
use model::spec::{ApiVersion, Extensions, Location, ReportForm, TaskSpec};
use model::task::Priority;

use super::frame::{Frame, Nav};
use super::task::credentials;
use super::{page_with, places};
use crate::Console;
use crate::form::Form;
use crate::gate::{Detail, Viewer, see_other};
use crate::html::plain;
use crate::outcome::{Message, PageError, Reply};
use crate::text::Text;

/// Longest bucket, region, key or pattern, characters.
const NAME_MAX: usize = 1024;
/// Longest description, characters.
const DESCRIPTION_MAX: usize = 255;
/// Longest secret key, key file or connection string, characters.
const SECRET_MAX: usize = 65_535;
/// Entries of a selection.
const ENTRIES_MAX: usize = 500;
/// Patterns of one list.
const GLOBS_MAX: usize = 100;

/// Vendors that a source without a configured store may be of.
const VENDORS: [&str; 11] = [
    "AWS",
    "Azure",
    "Aliyun",
    "Tencent",
    "HuaweiCloud",
    "QingCloud",
    "KingsoftCloud",
    "Baidu",
    "Qiniu",
    "Google",
    "UCloud",
];

/// A place that can be chosen: the value of the form, and what is shown.
struct Choice {
    value: String,
    shown: String,
    is_chosen: bool,
}

/// What is known of the credentials of a side.
struct Kept {
    is_kept: bool,
    says: String,
}

#[derive(Template)]
#[template(path = "new.html")]
struct NewPage {
    f: Frame,
    form: Form,
    draft: String,
    sources: Vec<Choice>,
    targets: Vec<Choice>,
    vendors: Vec<Choice>,
    source_keys: Kept,
    target_keys: Kept,
    error: Option<Message>,
    checked: Option<Checked>,
}

/// What a pre-check found.
struct Checked {
    from: String,
    to: String,
    command: String,
    call: String,
}

impl NewPage {
    fn is(&self, field: &str, value: &str, first: bool) -> &'static str {
        let given = self.form.get(field);
        if given == value || (given.is_empty() && first) { " checked" } else { "" }
    }

    fn ticked(&self, field: &str, unasked: bool) -> &'static str {
        // A form that was sent says which boxes are ticked.
        let on = if self.form.has("do") { self.form.has(field) } else { unasked };
        if on { " checked" } else { "" }
    }

    fn selected(&self, field: &str, value: &str) -> &'static str {
        if self.form.get(field) == value { " selected" } else { "" }
    }
}

fn kept(t: Text, keys: &StoreCredentials) -> Kept {
    let end = |secret: &str| {
        let tail: String = secret.chars().rev().take(2).collect::<Vec<_>>().into_iter().rev().collect();
        // Of a short secret nothing is shown.
        if secret.chars().count() >= 16 { plain(&tail) } else { String::new() }
    };
    let tail = match (&keys.connection_string, &keys.json_auth) {
        (None, None) => end(keys.sk.expose()),
        _ => String::new(),
    };
    let says = if tail.is_empty() { t.key_is_set().to_owned() } else { t.key_is_set_ends_in(tail) };
    Kept { is_kept: !keys.is_empty(), says }
}

/// Credentials of the form, and where the form has none those that wait in the session.
fn secrets_of(console: &Console, viewer: &Viewer, form: &Form) -> TaskSecrets {
    let waiting = console.sessions.draft(viewer.session, form.get("draft")).unwrap_or_default();
    let side = |name: &str, waiting: StoreCredentials| {
        let given = credentials(form, name);
        if given.is_empty() { waiting } else { given }
    };
    TaskSecrets {
        source: side("src", waiting.source),
        target: side("dst", waiting.target),
        ..TaskSecrets::default()
    }
}

/// A text of the form that is not longer than it may be.
fn text(form: &Form, field: &'static str, max: usize) -> Result<String, TaskError> {
    let text = form.text(field);
    match text.chars().count() > max {
        true => Err(TaskError::TooLong(field.to_owned(), max)),
        false => Ok(text.to_owned()),
    }
}

fn filled(form: &Form, field: &'static str, name: &'static str) -> Result<String, TaskError> {
    let text = text(form, field, NAME_MAX)?;
    if text.is_empty() { Err(TaskError::Missing(name.to_owned())) } else { Ok(text) }
}

fn lines(form: &Form, field: &'static str, max: usize) -> Result<Vec<String>, TaskError> {
    let lines = form.lines(field);
    match lines.len() > max || lines.iter().any(|l| l.chars().count() > NAME_MAX) {
        true => Err(TaskError::TooLong(field.to_owned(), max)),
        false => Ok(lines),
    }
}

/// A place of the form: a store of the configuration, or a vendor's region or an endpoint.
fn place(form: &Form, side: Side, t: Text) -> Result<Location, TaskError> {
    let (store, region, bucket, name) = match side {
        Side::Source => ("src_store", "src_region", "src_bucket", t.source()),
        _ => ("dst_store", "dst_region", "dst_bucket", t.target()),
    };
    let chosen = text(form, store, NAME_MAX)?;
    let (cloud_type, region) = match chosen.as_str() {
        "" => {
            let vendor = VENDORS.iter().find(|v| **v == form.get("src_vendor")).copied().unwrap_or("AWS");
            let vendor = if side == Side::Source { vendor } else { "" };
            let region = text(form, region, NAME_MAX)?;
            if region.is_empty() && vendor != "Azure" {
                return Err(TaskError::Missing(t.region_of(name)));
            }
            (vendor.to_owned(), region)
        }
        chosen => (String::new(), chosen.to_owned()),
    };
    let bucket =
        filled(form, bucket, if side == Side::Source { t.source_bucket() } else { t.target_bucket() })?;
    Ok(Location { cloud_type, region, bucket, app_id: text(form, "app_id", NAME_MAX)? })
}

fn selection(form: &Form, t: Text) -> Result<Selection, TaskError> {
    let entries = lines(form, "entries", ENTRIES_MAX)?;
    let entries = if entries.is_empty() { vec![String::new()] } else { entries };
    Ok(match form.get("what") {
        "object" => Selection::Object(entries),
        "list" => {
            let key = filled(form, "list", t.list_file())?;
            Selection::List(ListFile { bucket: form.text("dst_bucket").to_owned(), key })
        }
        _ => Selection::Prefix(entries),
    })
}

fn priority(form: &Form) -> Priority {
    match form.get("priority") {
        "HIGH" => Priority::High,
        "LOW" => Priority::Low,
        _ => Priority::Medium,
    }
}

/// The request of a form.
fn request(form: &Form, viewer: &Viewer, secrets: TaskSecrets, t: Text) -> Result<Request, TaskError> {
    for field in ["src_sk", "dst_sk", "src_json", "dst_json"] {
        text(form, field, SECRET_MAX)?;
    }
    let overwrite = match form.get("overwrite") {
        "checksum" => Overwrite::Crc64,
        "never" => Overwrite::Never,
        "always" => Overwrite::Always,
        _ => Overwrite::Newer,
    };
    let source = place(form, Side::Source, t)?;
    let target =
        Location { cloud_type: String::new(), app_id: String::new(), ..place(form, Side::Target, t)? };
    let extensions = Extensions {
        versions: form.has("versions"),
        acl: form.has("acl"),
        delete: form.has("delete"),
        delete_most: false,
        dry_run: form.has("dry_run"),
        reports: if form.has("csv") { vec![ReportForm::Csv] } else { vec![] },
        full_scan_interval_minutes: 0,
    };
    let spec = TaskSpec {
        api_version: ApiVersion::V2,
        selection: selection(form, t)?,
        source,
        target,
        save_prefix: text(form, "under", NAME_MAX)?,
        description: text(form, "description", DESCRIPTION_MAX)?,
        overwrite,
        check: if form.get("check") == "none" { Check::None } else { Check::Digest },
        metadata: if form.has("metadata") { MetadataRule::All } else { MetadataRule::ContentType },
        storage: StoragePolicy::Standard,
        since_ms: 0,
        windows: vec![],
        record_failures: true,
        record_outcomes: true,
        requester_pays: form.has("requester_pays"),
        kms: false,
        restore: form.has("restore"),
        cdn: None,
        notify: None,
        include: lines(form, "include", GLOBS_MAX)?,
        exclude: lines(form, "exclude", GLOBS_MAX)?,
        part_size: 0,
        concurrency: 0,
        bandwidth: 0,
        extensions,
        echo: serde_json::Map::from_iter([("task_type".to_owned(), equal::task_type(form).into())]),
    };
    Ok(Request { project: viewer.project().to_owned(), spec, secrets, priority: priority(form) })
}

/// The stores that may be chosen; a form without any choice takes the first.
fn choices(console: &Console, viewer: &Viewer, form: &Form, side: Side, t: Text) -> Vec<Choice> {
    let field = if side == Side::Source { "src_store" } else { "dst_store" };
    let stores = console.control.catalogue.for_project(viewer.project()).stores();
    let fits = stores.into_iter().filter(|s| if side == Side::Source { s.is_source } else { s.is_target });
    let mut all: Vec<Choice> = fits
        .map(|s| {
            let at = if s.endpoint.is_empty() { t.directory().to_owned() } else { s.endpoint };
            let shown = format!("{} · {at}", plain(&s.region));
            Choice { is_chosen: form.get(field) == s.region, value: s.region, shown }
        })
        .collect();
    let is_chosen = form.has("do") && form.get(field).is_empty();
    all.push(Choice { value: String::new(), shown: t.another_place().to_owned(), is_chosen });
    all
}

async fn draw_form(
    console: &Console,
    viewer: &Viewer,
    form: Form,
    draft: String,
    secrets: &TaskSecrets,
    said: (StatusCode, Option<Message>, Option<Checked>),
) -> Reply {
    let t = Text::new(viewer.prefs.lang);
    let f = Frame::of(console, viewer, Nav::Tasks, t.new_migration()).await?;
    let vendor = |v: &&str| Choice {
        value: (*v).to_owned(),
        shown: (*v).to_owned(),
        is_chosen: form.get("src_vendor") == *v,
    };
    let (status, error, checked) = said;
    let page = NewPage {
        f,
        draft,
        sources: choices(console, viewer, &form, Side::Source, t),
        targets: choices(console, viewer, &form, Side::Target, t),
        vendors: VENDORS.iter().map(vendor).collect(),
        source_keys: kept(t, &secrets.source),
        target_keys: kept(t, &secrets.target),
        form,
        error,
        checked,
    };
    page_with(status, &page)
}

pub(crate) async fn show(State(console): State<Console>, Extension(viewer): Extension<Viewer>) -> Reply {
    if !viewer.may_change() {
        return Err(PageError::Role);
    }
    let none = TaskSecrets::default();
    draw_form(&console, &viewer, Form::default(), String::new(), &none, (StatusCode::OK, None, None)).await
}

pub(crate) async fn submit(
    State(console): State<Console>,
    Extension(viewer): Extension<Viewer>,
    Extension(form): Extension<Form>,
) -> Reply {
    let (control, t) = (&console.control, Text::new(viewer.prefs.lang));
    let secrets = secrets_of(&console, &viewer, &form);
    let starts = form.get("do") == "start";
    let asked = request(&form, &viewer, secrets.clone(), t);
    let refused = match asked {
        Err(refused) => refused,
        Ok(request) if starts => match control.create(request).await {
            Ok(accepted) => {
                console.sessions.drop_draft(viewer.session, form.get("draft"));
                let mut response = see_other(&format!("/console/tasks/{}?done=created", accepted.id));
                response.extensions_mut().insert(Detail(format!("created {}", accepted.id)));
                return Ok(response);
            }
            Err(refused) => refused,
        },
        Ok(request) => match control.check_new_task(&request).await {
            Ok(()) => {
                let (from, to) = places(&request.spec);
                let checked = Checked {
                    from: plain(&from),
                    to: plain(&to),
                    command: equal::command(&request.spec),
                    call: equal::call(viewer.project(), &request.spec, &request.priority),
                };
                let draft = keep(&console, &viewer, &form, &secrets)?;
                return draw_form(
                    &console,
                    &viewer,
                    form,
                    draft,
                    &secrets,
                    (StatusCode::OK, None, Some(checked)),
                )
                .await;
            }
            Err(refused) => refused,
        },
    };
    let draft = keep(&console, &viewer, &form, &secrets)?;
    let message = Some(Message::of_task(t, &refused));
    draw_form(&console, &viewer, form, draft, &secrets, (StatusCode::UNPROCESSABLE_ENTITY, message, None))
        .await
}

/// Lets the credentials wait for the next form; the old ones are forgotten.
fn keep(console: &Console, viewer: &Viewer, form: &Form, secrets: &TaskSecrets) -> Result<String, PageError> {
    console.sessions.drop_draft(viewer.session, form.get("draft"));
    if secrets.source.is_empty() && secrets.target.is_empty() {
        return Ok(String::new());
    }
    Ok(console.sessions.keep_draft(viewer.session, secrets.clone())?)
}
