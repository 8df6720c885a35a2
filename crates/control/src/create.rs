//! Accepting a task: identity, quota, checks at both ends, one transaction.

use model::parent::Parent;
use model::policy::check_windows;
use model::selection::Selection;
use model::spec::TaskSpec;
use model::task::{Priority, TaskId};
use runtime::StoreResolver;
use runtime::engine::TaskQuota;
use runtime::naming::free_name;
use store::{NewTask, StoreTx};

use crate::Control;
use crate::bandwidth::{RANGE_V1, RANGE_V2};
use crate::secrets::TaskSecrets;
use crate::task_error::{TaskError, TaskResult};

/// A task as the API read it.
#[derive(Debug)]
pub struct Request {
    /// Owner.
    pub project: String,
    /// What to do.
    pub spec: TaskSpec,
    /// Credentials.
    pub secrets: TaskSecrets,
    /// Urgency.
    pub priority: Priority,
}

/// What was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Identity.
    pub id: TaskId,
    /// Unique name.
    pub name: String,
}

/// Characters that a description of a task or group may not have (OMS §2.3).
const FORBIDDEN: &str = "^ < > & \" '";
/// The same of sync tasks (OMS §2.5) and of v1 (OMS §6.2).
const FORBIDDEN_OLDER: &str = "< > ( ) \" ' &";

/// Looks at a description; the characters of `which` stand with spaces between them.
fn check_description(text: &str, which: &'static str) -> TaskResult<()> {
    match text.chars().any(|c| c != ' ' && which.contains(c)) {
        true => Err(TaskError::Description(which)),
        false => Ok(()),
    }
}

/// What can be said of a sync task without asking anybody.
pub(crate) fn check_sync(spec: &TaskSpec) -> TaskResult<()> {
    check_description(&spec.description, FORBIDDEN_OLDER)?;
    check_beyond(spec)
}

impl Control {
    /// Accepts a task, which then starts by itself.
    ///
    /// # Errors
    /// The refusal that the first failing check gives; nothing was created then.
    pub async fn create(&self, request: Request) -> TaskResult<Accepted> {
        let Request { project, spec, secrets, priority } = request;
        self.check_request(&spec)?;
        self.for_project(&project).check_places(&spec)?;
        self.check_quota(&mut self.engine.store().read().await?, &project).await?;
        self.begin_outgoing(&project)?.precheck(&spec, &secrets).await?;

        let mut tx = self.engine.store().write().await?;
        // Checks take their time: what is accepted later is newer, whenever it was asked for.
        let now = self.clock.now_ms();
        let (id, name) = free_name(&mut tx, &spec, now, self.zone_minutes).await?;
        let task = NewTask {
            id,
            project,
            name: name.clone(),
            spec,
            secrets: secrets.to_json(),
            priority,
            parent: Parent::None,
            now,
        };
        // Others may have been accepted while the ends were asked.
        self.check_quota(&mut tx, &task.project).await?;
        tx.insert_task(task).await?;
        tx.commit().await?;
        Ok(Accepted { id, name })
    }

    /// Makes all checks of [`Control::create`] and creates nothing.
    ///
    /// # Errors
    /// The refusal that the first failing check gives.
    pub async fn check_new_task(&self, request: &Request) -> TaskResult<()> {
        let Request { project, spec, secrets, .. } = request;
        self.check_request(spec)?;
        self.for_project(project).check_places(spec)?;
        self.check_quota(&mut self.engine.store().read().await?, project).await?;
        self.begin_outgoing(project)?.precheck(spec, secrets).await
    }

    /// A project's tasks of a day, and those that wait.
    pub(crate) async fn check_quota(&self, tx: &mut StoreTx, project: &str) -> TaskResult<()> {
        let (made, waiting) = tx.task_quota(project, self.clock.now_ms() - 86_400_000).await?;
        let limits = self.limits.current();
        let quota = TaskQuota { per_day: limits.tasks_per_day, waiting: limits.waiting_tasks };
        quota.exceeded(made, waiting).map_or(Ok(()), |why| Err(TaskError::Quota(why)))
    }
}

impl Control {
    /// What can be said of a request without asking anybody.
    pub(crate) fn check_request(&self, spec: &TaskSpec) -> TaskResult<()> {
        let old = spec.api_version == model::spec::ApiVersion::V1;
        check_description(&spec.description, if old { FORBIDDEN_OLDER } else { FORBIDDEN })?;
        let range = if old { RANGE_V1 } else { RANGE_V2 };
        check_windows(&spec.windows, range).map_err(TaskError::Windows)?;
        if let Some(notify) = &spec.notify
            && self.catalogue.webhook(notify.topic()).is_none()
        {
            return Err(TaskError::Topic(notify.topic().to_owned()));
        }
        check_beyond(spec)?;
        if spec.extensions.full_scan_interval_minutes > 0 {
            let why = "only sync tasks support sweep_minutes";
            return Err(TaskError::Invalid("whimbrel.sweep_minutes".into(), why.into()));
        }
        check_selection(&spec.selection)
    }
}

/// Rules beyond the compatible APIs that cannot be kept together.
pub(crate) fn check_beyond(spec: &TaskSpec) -> TaskResult<()> {
    let extensions = &spec.extensions;
    let refused = |field: &str, why: &str| Err(TaskError::Invalid(format!("whimbrel.{field}"), why.into()));
    let lists = spec.selection.list_file().is_some();
    match () {
        () if extensions.versions && (lists || spec.selection.names_keys()) => refused(
            "versions",
            "list files and events cannot select versions; hint: select by prefix or object",
        ),
        () if extensions.versions && spec.cdn.is_some() => {
            refused("versions", "a CDN serves only the newest version; hint: remove source_cdn")
        }
        () if extensions.delete_most && !extensions.delete => refused("delete_most", "it requires `delete`"),
        () if extensions.delete && lists => refused(
            "delete",
            "a list file does not show which objects to delete; hint: select by prefix or object",
        ),
        () if extensions.delete && spec.since_ms > 0 => {
            refused("delete", "it cannot be combined with migrate_since")
        }
        () => Ok(()),
    }
}

fn check_selection(selection: &Selection) -> TaskResult<()> {
    let entries = selection.entries();
    if let Some(file) = selection.list_file() {
        if file.bucket.is_empty() || file.key.is_empty() {
            return Err(TaskError::Source("list_file must name a bucket and a key".into()));
        }
        return Ok(());
    }
    if entries.is_empty() {
        return Err(TaskError::Source(
            "object_key must name at least one key; [\"\"] means the whole bucket".into(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c09_description_length_and_characters_are_checked() {
        for (text, task, older) in [
            ("nightly run 1", true, true),
            ("a (b)", true, false),
            ("a^b", false, true),
            ("a<b", false, false),
            ("it's", false, false),
            ("", true, true),
        ] {
            assert_eq!(check_description(text, FORBIDDEN).is_ok(), task, "{text}");
            assert_eq!(check_description(text, FORBIDDEN_OLDER).is_ok(), older, "{text}");
        }
    }
}
