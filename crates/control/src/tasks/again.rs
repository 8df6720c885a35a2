//! Starting a task again as it was accepted, with the credentials that are stored with it where none are given.

use model::error::Side;
use model::spec::Location;
use model::task::TaskId;

use super::restart;
use crate::Control;
use crate::catalogue::StoreLocation;
use crate::secrets::{StoreCredentials, TaskSecrets};
use crate::task_error::{TaskError, TaskResult};

/// The ends of a task whose credentials must be given before it can start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissingCredentials {
    /// Of the source.
    pub source: bool,
    /// Of the target.
    pub target: bool,
}

impl MissingCredentials {
    /// True when nothing is missing.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

impl StoreCredentials {
    /// True when there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.ak.is_empty() && self.connection_string.is_none() && self.json_auth.is_none()
    }
}

impl Control {
    /// True when a place is asked with keys: directories and lists of URLs are not.
    fn asks_for_keys(&self, project: &str, place: &Location, side: Side) -> bool {
        let is_list = place.region.is_empty() && place.bucket.is_empty();
        let found = self.catalogue.for_project(project).find(place, side);
        !is_list && !matches!(found, Some(StoreLocation::Directory(_)))
    }

    /// Which credentials a start of this task needs: those of ended tasks are erased.
    ///
    /// # Errors
    /// [`TaskError::NotFound`] when the project has no such task.
    pub async fn missing_credentials(&self, project: &str, id: TaskId) -> TaskResult<MissingCredentials> {
        let mut tx = self.engine.store().read().await?;
        let task = tx.task_of(project, id).await?;
        if tx.has_secrets(id).await? {
            return Ok(MissingCredentials::default());
        }
        Ok(MissingCredentials {
            source: self.asks_for_keys(project, &task.spec.source, Side::Source),
            target: self.asks_for_keys(project, &task.spec.target, Side::Target),
        })
    }

    /// Starts a paused or failed task with the credentials that are stored with it; given ones replace those of their side.
    ///
    /// # Errors
    /// As [`Control::start`]; [`TaskError::Missing`] when credentials are neither stored nor given.
    pub async fn start_again(
        &self,
        project: &str,
        id: TaskId,
        given: TaskSecrets,
        failed_only: bool,
    ) -> TaskResult<()> {
        let mut tx = self.engine.store().write().await?;
        let task = tx.task_of(project, id).await?;
        let stored = tx.task_secrets(id).await?.map(|text| TaskSecrets::from_json(&text));
        let was_stored = stored.is_some();
        let mut secrets = stored.unwrap_or_default();
        for (side, place, mine, theirs) in [
            (Side::Source, &task.spec.source, &mut secrets.source, given.source),
            (Side::Target, &task.spec.target, &mut secrets.target, given.target),
        ] {
            if !theirs.is_empty() {
                *mine = theirs;
            } else if !was_stored && self.asks_for_keys(project, place, side) {
                let name = if side == Side::Source { "source" } else { "target" };
                return Err(TaskError::Missing(format!("the access key of the {name}")));
            }
        }
        restart(&mut tx, &task, &secrets, failed_only, self.clock.now_ms()).await?;
        tx.commit().await?;
        Ok(())
    }
}
