//! Runs task groups: creates their members, watches until they are stopped or have ended, and removes deleted groups. The
//! phase in the store says what is to be done, so a crash in between changes nothing.
//!
//! Decision: ADR 0008, `docs/adr/0008-groups-and-sync-tasks-make-tasks.md`.

use std::sync::Arc;
use std::time::Duration;

use model::error::{Error, Kind, Result};
use model::group::{GroupEvent, GroupKind, Phase};
use model::parent::Parent;
use model::selection::{ListFile, Scope, Selection};
use model::spec::TaskSpec;
use model::task::{Priority, Visible};
use store::{BusyGroup, GroupRow, MEMBERS_MAX, NewTask};

use crate::engine::Engine;
use crate::naming::name_members;
use crate::webhooks::EndNotification;

const DAY_MS: i64 = 86_400_000;
/// After members that could not be stored, the next attempt.
const RETRY_DELAY: Duration = Duration::from_secs(5);

impl Engine {
    /// Looks after every group that has something to do.
    pub(crate) async fn step_groups(self: &Arc<Self>, now: i64) -> Result<()> {
        let busy = self.store.read().await?.busy_groups().await?;
        for group in busy {
            match group.phase {
                Phase::Waiting => {
                    let mut tx = self.store.write().await?;
                    let _ = tx.apply_group(&group.id, GroupEvent::Begin, now).await?;
                    tx.commit().await?;
                }
                // Reading a folder of lists may take a while: one job per group, concurrent with the dispatcher.
                Phase::Creating => {
                    if self.in_progress().insert(group.id.clone()) {
                        tokio::spawn(self.clone().create_members(group));
                    }
                }
                Phase::Monitoring => self.watch_members(&group, now).await?,
                Phase::Pausing => self.pause_members(&group, now).await?,
                Phase::Deleting => self.delete_members(&group).await?,
                Phase::Paused | Phase::CreationFailed | Phase::Failed | Phase::Complete => {}
            }
        }
        Ok(())
    }

    /// Creates the members of a group that is in `in_progress`, and removes it from there.
    async fn create_members(self: Arc<Self>, group: BusyGroup) {
        if let Err(failure) = self.make_members(&group).await {
            tracing::error!(group = %group.id, "cannot store the tasks of the group: {failure}");
            tokio::time::sleep(RETRY_DELAY).await;
        }
        self.in_progress().remove(&group.id);
        self.ended.notify_one();
    }

    /// Makes all members in one transaction: they all exist, or none does.
    async fn make_members(&self, group: &BusyGroup) -> Result<()> {
        let mut tx = self.store.read().await?;
        let seen = tx.group_of(&group.project, &group.id).await?;
        let secrets = tx.group_secrets(&group.id).await?.unwrap_or_default();
        // Reading lists may take long: no transaction is open while it does.
        drop(tx);
        let selections = self.selections(&seen, &secrets).await;
        let mut tx = self.store.write().await?;
        let now = self.clock.now_ms();
        // Counted in the transaction that adds them: other groups may have been accepted with this one.
        let (made, waiting) = tx.task_quota(&group.project, now - DAY_MS).await?;
        let selections = match (selections, self.task_quota().exceeded(made, waiting)) {
            (Ok(_), Some(exceeded)) => {
                let m = format!("{exceeded}; hint: retry the group when tasks have ended");
                Err(Error::new(Kind::Conflict, "task_group", m))
            }
            (selections, _) => selections,
        };
        match selections {
            Ok(selections) => {
                if tx.apply_group(&group.id, GroupEvent::MembersCreated, now).await?.is_err() {
                    return Ok(());
                }
                // Its bandwidth and its credentials may have changed while lists were read.
                let group = tx.group_of(&group.project, &group.id).await?;
                let secrets = tx.group_secrets(&group.id).await?.unwrap_or_default();
                // The group tells of its end, not each of its members.
                let common = TaskSpec { notify: None, ..group.spec.clone() };
                let specs: Vec<TaskSpec> = selections
                    .into_iter()
                    .map(|selection| TaskSpec { selection, ..common.clone() })
                    .collect();
                let names = name_members(&specs, now, self.zone_minutes)?;
                for (spec, (id, name)) in specs.into_iter().zip(names) {
                    let task = NewTask {
                        id,
                        project: group.project.clone(),
                        name,
                        spec,
                        secrets: secrets.clone(),
                        priority: Priority::Medium,
                        parent: Parent::Group(group.id.clone()),
                        now,
                    };
                    tx.insert_task(task).await?;
                }
            }
            Err(failure) => {
                tracing::warn!(group = %group.id, "cannot create the tasks of the group: {failure}");
                if tx.apply_group(&group.id, GroupEvent::Fail, now).await?.is_ok() {
                    tx.set_group_error(&group.id, Some(&failure)).await?;
                } else {
                    // It was stopped while members were created: nothing runs, so it is paused.
                    let _ = tx.apply_group(&group.id, GroupEvent::Drained, now).await?;
                }
            }
        }
        tx.commit().await
    }

    /// What each member selects. Prefixes need no listing: the ranges of a task split by themselves.
    async fn selections(&self, group: &GroupRow, secrets: &str) -> Result<Vec<Selection>> {
        let folder = match (&group.spec.selection, group.kind) {
            (Selection::List(folder) | Selection::UrlList(folder), _) => folder,
            (selection, _) => {
                let prefix = |s: Scope| Selection::Prefix(vec![s.prefix().to_owned()]);
                return Ok(selection.scopes().into_iter().map(prefix).collect());
            }
        };
        let keys = match folder.key.ends_with('/') {
            true => self.resolver.lists(&group.spec, secrets, folder).await?,
            // A key without a slash is a single list (OMS §4.4).
            false => vec![folder.key.clone()],
        };
        if keys.is_empty() {
            let m = format!("no .txt file found under `{}` of bucket `{}`", folder.key, folder.bucket);
            return Err(Error::new(Kind::ListMissing, "task_group", m));
        }
        if keys.len() as u64 > MEMBERS_MAX {
            let m = format!("`{}` contains more than {MEMBERS_MAX} list files", folder.key);
            return Err(Error::new(Kind::ListTooLarge, "task_group", m));
        }
        let file = |key: String| ListFile { bucket: folder.bucket.clone(), key };
        Ok(keys
            .into_iter()
            .map(|key| match group.kind {
                GroupKind::UrlList => Selection::UrlList(file(key)),
                GroupKind::List | GroupKind::Prefix => Selection::List(file(key)),
            })
            .collect())
    }

    async fn watch_members(&self, seen: &BusyGroup, now: i64) -> Result<()> {
        let (any_works, _) = self.store.read().await?.member_ends(&seen.id).await?;
        if any_works {
            return Ok(());
        }
        // Looked at again in the unit that decides: a member may have been started since.
        let mut tx = self.store.write().await?;
        let (any_works, failed) = tx.member_ends(&seen.id).await?;
        if any_works {
            return Ok(());
        }
        let group = tx.group_of(&seen.project, &seen.id).await?;
        if tx.apply_group(&group.id, GroupEvent::Ended { failed }, now).await?.is_ok() {
            let records = format!("oms/task_group/{}/", group.id);
            let end = EndNotification {
                project: &group.project,
                about: &group.id,
                name: &group.id,
                spec: &group.spec,
                succeeded: !failed,
                started_at: group.started_at,
                bytes: tx.copied_bytes(&group.id).await?,
                records: (&records, ""),
                now,
            };
            end.put(&mut tx).await?;
            if !failed {
                tx.erase_group_secrets(&group.id).await?;
            }
        }
        tx.commit().await
    }

    async fn pause_members(&self, group: &BusyGroup, now: i64) -> Result<()> {
        // Asked before the members are read, in the unit that decides: a maker commits what it has made, and then leaves.
        let making = self.in_progress().contains(&group.id);
        let mut tx = self.store.write().await?;
        let members = tx.member_states(&group.id).await?;
        let moves = |v: Visible| {
            matches!(v, Visible::Waiting | Visible::Running | Visible::Retrying | Visible::Pausing)
        };
        // Members that were created or started during the stop are stopped too. Its maker says itself when it has come
        // to a stop.
        if making || members.iter().any(|(_, state)| moves(state.visible())) {
            for id in tx.hold_members(&group.id, now).await? {
                self.signal_stop(id);
            }
            return tx.commit().await;
        }
        let _ = tx.apply_group(&group.id, GroupEvent::Drained, now).await?;
        tx.commit().await
    }

    async fn delete_members(&self, group: &BusyGroup) -> Result<()> {
        let mut tx = self.store.write().await?;
        let members = tx.member_states(&group.id).await?;
        for (member, _) in &members {
            tx.delete_task(*member).await?;
        }
        tx.delete_group(&group.id).await?;
        tx.commit().await?;
        for (member, _) in members {
            self.delete_files(member);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model::policy::Window;
    use model::task::Event;

    use super::*;

    /// An engine whose ledger holds a group of two prefixes that is making its members.
    async fn creating(dir: &std::path::Path) -> (Arc<Engine>, BusyGroup) {
        let engine = crate::test_support::engine(dir).await;
        let spec = r#"{"face":"v2","selection":{"kind":"prefix","entries":["a","b"]},"source":{"region":"r"},"target":{"region":"r"}}"#;
        let spec: TaskSpec = serde_json::from_str(spec).unwrap();
        let mut tx = engine.store.write().await.unwrap();
        tx.insert_group("g", "p", GroupKind::Prefix, &spec, "old", 1).await.unwrap();
        tx.apply_group("g", GroupEvent::Begin, 1).await.unwrap().unwrap();
        let group = tx.busy_groups().await.unwrap().remove(0);
        tx.commit().await.unwrap();
        (engine, group)
    }

    #[tokio::test]
    async fn f20_members_use_the_current_windows_and_credentials_of_their_group() {
        let dir = tempfile::tempdir().unwrap();
        let (engine, seen) = creating(dir.path()).await;
        let mut tx = engine.store.write().await.unwrap();
        let mut group = tx.group_of("p", "g").await.unwrap();
        let maker = engine.clone();
        let making = tokio::spawn(async move { maker.make_members(&seen).await });
        // It has read the group, and waits for the ledger.
        tokio::time::sleep(Duration::from_millis(100)).await;
        group.spec.windows = vec![Window { start: 0, end: 1439, max_bandwidth: 1 << 20 }];
        tx.set_group_spec("g", &group.spec).await.unwrap();
        tx.set_group_secrets("g", "new").await.unwrap();
        tx.commit().await.unwrap();
        making.await.unwrap().unwrap();
        let mut tx = engine.store.read().await.unwrap();
        let members = tx.members("g").await.unwrap();
        assert_eq!(members.len(), 2);
        for member in members {
            assert_eq!(member.spec.windows, group.spec.windows);
            assert_eq!(tx.task_secrets(member.id).await.unwrap().as_deref(), Some("new"));
        }
    }

    #[tokio::test]
    async fn h5_groups_do_not_exceed_the_quota_of_tasks() {
        let dir = tempfile::tempdir().unwrap();
        let (engine, first) = creating(dir.path()).await;
        engine.set_task_quota(crate::engine::TaskQuota { per_day: 1000, waiting: 2 });
        let mut tx = engine.store.write().await.unwrap();
        let spec = tx.group_of("p", "g").await.unwrap().spec;
        // Accepted while no task was waiting.
        tx.insert_group("h", "p", GroupKind::Prefix, &spec, "old", 2).await.unwrap();
        tx.apply_group("h", GroupEvent::Begin, 2).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        engine.make_members(&first).await.unwrap();
        engine.make_members(&BusyGroup { id: "h".into(), ..first }).await.unwrap();
        let mut tx = engine.store.read().await.unwrap();
        assert_eq!(tx.member_states("g").await.unwrap().len(), 2);
        assert!(tx.member_states("h").await.unwrap().is_empty());
        let refused = tx.group_of("p", "h").await.unwrap();
        assert_eq!(refused.phase, Phase::CreationFailed);
        assert!(refused.error.unwrap().message.contains("2 tasks are waiting"));
    }

    #[tokio::test]
    async fn f20_group_does_not_end_while_a_member_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let (engine, group) = creating(dir.path()).await;
        engine.make_members(&group).await.unwrap();
        let mut tx = engine.store.write().await.unwrap();
        let members = tx.members("g").await.unwrap();
        for member in &members {
            tx.must_apply(member.id, Event::Claim, 2).await.unwrap();
            tx.must_apply(member.id, Event::Fail, 3).await.unwrap();
        }
        tx.commit().await.unwrap();
        let mut tx = engine.store.write().await.unwrap();
        let (watcher, seen) = (engine.clone(), group.clone());
        let watching = tokio::spawn(async move { watcher.watch_members(&seen, 4).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        tx.must_apply(members[0].id, Event::Start, 4).await.unwrap();
        tx.commit().await.unwrap();
        watching.await.unwrap().unwrap();
        let phase = engine.store.read().await.unwrap().group_of("p", "g").await.unwrap().phase;
        assert_eq!(phase, Phase::Monitoring);
    }
}
