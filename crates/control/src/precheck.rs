//! Short probes before a task is accepted: both buckets exist, their keys are right, and a single named object
//! is there. A probe that merely times out does not block: the task will be patient.

use std::time::Duration;

use model::error::{Error, Kind, Side};
use model::key::Key;
use model::policy::Overwrite;
use model::selection::{Scope, Selection};
use model::spec::{Location, TaskSpec};
use runtime::OpenedStore;

use crate::outgoing::OutgoingCall;
use crate::secrets::TaskSecrets;
use crate::task_error::{TaskError, TaskResult};

/// One probe; a precheck has at most six of them, one after the other.
const PRECHECK_TIMEOUT: Duration = Duration::from_secs(5);

impl OutgoingCall {
    /// As [`OutgoingCall::precheck`], for a group: its lists are read when its members are made.
    pub(crate) async fn precheck_group(&self, spec: &TaskSpec, secrets: &TaskSecrets) -> TaskResult<()> {
        let bucket = TaskSpec { selection: Selection::Prefix(vec![String::new()]), ..spec.clone() };
        match spec.selection {
            Selection::UrlList(_) => {
                let target = self.control.catalogue.open(&spec.target, &secrets.target, Side::Target, false);
                self.probe(target).await.map(drop)
            }
            _ => self.precheck(&bucket, secrets).await,
        }
    }

    pub(crate) async fn precheck(&self, spec: &TaskSpec, secrets: &TaskSecrets) -> TaskResult<()> {
        let below = spec.selection.entries().first().map_or("", String::as_str);
        let prefix = format!("{}{below}", spec.save_prefix);
        let (catalogue, target, keys) = (&self.control.catalogue, &spec.target, &secrets.target);
        if spec.overwrite == Overwrite::Always {
            // The content of the target is not read: keys that may only write suffice.
            self.probe(catalogue.open_below(target, &prefix, keys, Side::Target, false)).await?;
        } else {
            self.probe(catalogue.open_listable(target, &prefix, keys, Side::Target, false)).await?;
        }
        self.precheck_list_file(spec, secrets).await?;
        if matches!(spec.selection, Selection::UrlList(_)) {
            return Ok(());
        }
        let (place, keys) = (&spec.source, &secrets.source);
        let source =
            self.control.catalogue.open_listable(place, below, keys, Side::Source, spec.requester_pays);
        let Some(source) = self.probe(source).await? else { return Ok(()) };
        if let Some(cdn) = &spec.cdn {
            let wrong = |f: Error| TaskError::CdnDomain(format!("{}: {}", cdn.domain, f.message));
            let front = self.control.catalogue.fronted(source.store.clone(), cdn, secrets).map_err(wrong)?;
            match tokio::time::timeout(PRECHECK_TIMEOUT, front.reach()).await {
                Ok(Err(f)) if f.kind != Kind::Timeout => return Err(wrong(f)),
                _ => {}
            }
        }
        if let Selection::Object(entries) = &spec.selection
            && entries.len() == 1
            && let [Scope::Key(key)] = spec.selection.scopes().as_slice()
        {
            let key_there = Key::from(key.as_str());
            let asked = source.store.head(&key_there, None);
            if let Ok(Err(f)) = tokio::time::timeout(PRECHECK_TIMEOUT, asked).await
                && f.kind == Kind::NotFound
            {
                return Err(TaskError::NoSuchObject(key.clone()));
            }
        }
        Ok(())
    }

    /// Checks that the list file of a task, if it has one, can be read.
    async fn precheck_list_file(&self, spec: &TaskSpec, secrets: &TaskSecrets) -> TaskResult<()> {
        let Some(file) = spec.selection.list_file() else { return Ok(()) };
        let place = Location { bucket: file.bucket.clone(), ..spec.target.clone() };
        let files = self.control.catalogue.open(&place, &secrets.target, Side::Target, false);
        let Some(files) = self.probe(files).await? else { return Ok(()) };
        let key = Key::from(file.key.as_str());
        let checked = storage::key_list::check(&files.store, &key);
        match tokio::time::timeout(PRECHECK_TIMEOUT, checked).await {
            Ok(Err(f)) if !f.is_temporary() => Err(TaskError::Source(format!("list_file: {f}"))),
            _ => Ok(()),
        }
    }

    async fn probe(
        &self,
        opening: impl Future<Output = Result<OpenedStore, Error>>,
    ) -> TaskResult<Option<OpenedStore>> {
        match tokio::time::timeout(PRECHECK_TIMEOUT, opening).await {
            Ok(Ok(opened)) => Ok(Some(opened)),
            // Trouble that passes is the task's to wait out; a connection that is refused is the user's to know.
            Ok(Err(f)) if matches!(f.kind, Kind::Timeout | Kind::Throttled | Kind::Unavailable) => Ok(None),
            Ok(Err(f)) => Err(TaskError::Check(f)),
            Err(_) => Ok(None),
        }
    }
}
