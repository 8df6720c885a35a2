//! Task groups (oms.md §2.4, §3.2).

use model::group::{GroupEvent, GroupKind, Phase};
use model::policy::{Window, check_windows};
use model::spec::TaskSpec;
use model::task::{Event, TaskId, Visible};
use object_migration::report::records::Records;
use runtime::naming::uuid;
use store::{GroupRow, MemberTally, Notification, StoreTx, TaskRow};

use crate::Control;
use crate::bandwidth::RANGE_V2;
use crate::secrets::{GivenSecrets, TaskSecrets};
use crate::task_error::{TaskError, TaskResult};
use crate::tasks::{TaskView, restart};

/// Notes on members that a group shows.
const SHOWN_NOTES: u64 = 5;

/// A group and its members as they are now.
#[derive(Debug)]
pub struct GroupView {
    /// As stored.
    pub group: GroupRow,
    /// Sums of its members that do not run, by state.
    pub tallies: Vec<MemberTally>,
    /// Its members that run.
    pub running: Vec<TaskView>,
    /// The first member that failed.
    pub first_failed: Option<TaskView>,
    /// What became of the lists of failed objects of members that have any.
    pub records: Vec<Records>,
    /// The first notes on members.
    pub notes: Vec<String>,
    /// The notification about its end.
    pub notification: Option<Notification>,
}

impl Control {
    /// Accepts a group, which then makes its members by itself.
    ///
    /// # Errors
    /// As [`Control::create`].
    pub async fn create_group(
        &self,
        project: &str,
        kind: GroupKind,
        spec: &TaskSpec,
        secrets: &TaskSecrets,
    ) -> TaskResult<String> {
        self.check_request(spec)?;
        self.for_project(project).check_places(spec)?;
        self.begin_outgoing(project)?.precheck_group(spec, secrets).await?;
        let id = uuid()?;
        let mut tx = self.engine.store().write().await?;
        self.check_quota(&mut tx, project).await?;
        let open = tx.open_groups(project).await?;
        if open >= self.limits.current().open_groups {
            return Err(TaskError::Quota(format!("{open} task groups are active")));
        }
        tx.insert_group(&id, project, kind, spec, &secrets.to_json(), self.clock.now_ms()).await?;
        tx.commit().await?;
        Ok(id)
    }

    async fn shown_group(&self, tx: &mut StoreTx, group: GroupRow) -> TaskResult<GroupView> {
        let id = group.id.as_str();
        let tallies = tx.member_tallies(id).await?;
        let mut running = Vec::new();
        for member in tx.running_members(id).await? {
            running.push(self.shown(tx, member).await?);
        }
        let first_failed = match tx.first_failed_member(id).await? {
            Some(member) => Some(self.shown(tx, member).await?),
            None => None,
        };
        let records = tx.member_records(id).await?;
        let records = records.into_iter().map(|r| serde_json::from_value(r).unwrap_or_default()).collect();
        let notes = tx.member_notes(id, SHOWN_NOTES).await?;
        let notification = tx.notification(id).await?;
        Ok(GroupView { group, tallies, running, first_failed, records, notes, notification })
    }

    /// The identities of the members of a group that have not succeeded.
    ///
    /// # Errors
    /// [`TaskError::NoSuchGroup`] when the project has none of that identity.
    pub async fn group_members(&self, project: &str, id: &str) -> TaskResult<Vec<TaskId>> {
        let mut tx = self.engine.store().read().await?;
        tx.group_of(project, id).await?;
        let states = tx.member_states(id).await?;
        // Members that have succeeded have nothing left to change.
        let open = states.into_iter().filter(|(_, state)| state.visible() != Visible::Succeeded);
        Ok(open.map(|(member, _)| member).collect())
    }

    /// One group.
    ///
    /// # Errors
    /// [`TaskError::NoSuchGroup`] when the project has none of that identity.
    pub async fn show_group(&self, project: &str, id: &str) -> TaskResult<GroupView> {
        let mut tx = self.engine.store().read().await?;
        let group = tx.group_of(project, id).await?;
        self.shown_group(&mut tx, group).await
    }

    /// A page of groups, newest first, and how many match.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_groups(
        &self,
        project: &str,
        phase: Option<Phase>,
        offset: u64,
        limit: u64,
    ) -> TaskResult<(Vec<GroupView>, u64)> {
        let mut tx = self.engine.store().read().await?;
        let (groups, total) = tx.list_groups(project, phase, offset, limit).await?;
        let mut shown = Vec::with_capacity(groups.len());
        for group in groups {
            shown.push(self.shown_group(&mut tx, group).await?);
        }
        Ok((shown, total))
    }

    /// Begins a change of a group: it is there, and its phase allows it.
    async fn change_group(
        &self,
        project: &str,
        id: &str,
        event: GroupEvent,
    ) -> TaskResult<(StoreTx, GroupRow)> {
        let mut tx = self.engine.store().write().await?;
        let group = tx.group_of(project, id).await?;
        let applied = tx.apply_group(id, event, self.clock.now_ms()).await?;
        applied.map_err(TaskError::GroupIllegal)?;
        Ok((tx, group))
    }

    /// Pauses a group with all its members.
    ///
    /// # Errors
    /// [`TaskError::GroupIllegal`] when it neither makes nor watches members.
    pub async fn stop_group(&self, project: &str, id: &str) -> TaskResult<()> {
        let (mut tx, _) = self.change_group(project, id, GroupEvent::Stop).await?;
        let at_work = tx.hold_members(id, self.clock.now_ms()).await?;
        tx.commit().await?;
        for task in at_work {
            self.engine.signal_stop(task);
        }
        Ok(())
    }

    /// Resumes a paused group with new credentials of the target, and of the source where they are given (oms.md §2.4).
    ///
    /// # Errors
    /// [`TaskError::GroupIllegal`] when it is not paused; [`TaskError::Missing`] without credentials of the target.
    pub async fn start_group(&self, project: &str, id: &str, given: GivenSecrets) -> TaskResult<()> {
        let (mut tx, _) = self.change_group(project, id, GroupEvent::Start).await?;
        if given.target.is_none() {
            return Err(TaskError::Missing("dst_ak".into()));
        }
        let held = tx.group_secrets(id).await?.map(|text| TaskSecrets::from_json(&text));
        let secrets = given.over(held).ok_or_else(|| TaskError::Missing("src_ak".into()))?;
        self.run_members(&mut tx, id, &secrets, false, |v| v == Visible::Paused).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Runs again what failed; the stored credentials are used where none are given.
    ///
    /// # Errors
    /// [`TaskError::GroupIllegal`] when it did not fail; [`TaskError::Missing`] when no credentials are held any more.
    pub async fn retry_group(
        &self,
        project: &str,
        id: &str,
        given: GivenSecrets,
        failed_only: bool,
    ) -> TaskResult<()> {
        let (mut tx, _) = self.change_group(project, id, GroupEvent::Retry).await?;
        let held = tx.group_secrets(id).await?.map(|text| TaskSecrets::from_json(&text));
        let missing = if given.target.is_none() { "dst_ak" } else { "src_ak" };
        let secrets = given.over(held).ok_or_else(|| TaskError::Missing(missing.into()))?;
        tx.set_group_error(id, None).await?;
        tx.drop_notification(id).await?;
        self.run_members(&mut tx, id, &secrets, failed_only, |v| v == Visible::Failed).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn run_members(
        &self,
        tx: &mut StoreTx,
        id: &str,
        secrets: &TaskSecrets,
        failed_only: bool,
        which: impl Fn(Visible) -> bool,
    ) -> TaskResult<()> {
        tx.set_group_secrets(id, &secrets.to_json()).await?;
        let members: Vec<TaskRow> = tx.members(id).await?;
        for member in members.iter().filter(|m| which(m.state.visible())) {
            // A member that failed as a whole has no failed objects: it begins again.
            let only = failed_only && member.counters.failed.objects > 0 && member.error.is_none();
            restart(tx, member, secrets, only, self.clock.now_ms()).await?;
        }
        Ok(())
    }

    /// Replaces the bandwidth windows of a group; its members share them.
    ///
    /// # Errors
    /// [`TaskError::GroupIllegal`] when it is complete or goes away.
    pub async fn update_group(&self, project: &str, id: &str, windows: Vec<Window>) -> TaskResult<()> {
        check_windows(&windows, RANGE_V2).map_err(TaskError::Windows)?;
        let (mut tx, mut group) = self.change_group(project, id, GroupEvent::Update).await?;
        group.spec.windows.clone_from(&windows);
        tx.set_group_spec(id, &group.spec).await?;
        for mut member in tx.members(id).await? {
            member.spec.windows.clone_from(&windows);
            tx.set_spec(member.id, &member.spec).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Deletes a group with its members, but nothing that they migrated.
    ///
    /// # Errors
    /// [`TaskError::GroupIllegal`] while it works.
    pub async fn delete_group(&self, project: &str, id: &str) -> TaskResult<()> {
        let (mut tx, _) = self.change_group(project, id, GroupEvent::Delete).await?;
        // A group that was only accepted has no members; those of any other do not run now.
        let now = self.clock.now_ms();
        for (member, _) in tx.member_states(id).await? {
            let _ = tx.apply(member, Event::Hold, now).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}
