//! Accepting a task: identity, quota, checks at both ends, one transaction.

use model::policy::check_windows;
use model::selection::Selection;
use model::spec::TaskSpec;
use model::task::{Priority, TaskId};
use store::NewTask;

use crate::Control;
use crate::bandwidth::{RANGE_V1, RANGE_V2};
use crate::refusal::{Answer, Refusal};
use crate::secrets::TaskSecrets;

/// A task as a face understood it.
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

/// Characters that a description may not have (OMS §2.3).
const FORBIDDEN: [char; 6] = ['^', '<', '>', '&', '"', '\''];

/// A 15-digit identity: two digits of the year, two of the month, eleven random (OMS §1.5).
pub fn task_id(now_ms: i64, random: u64) -> TaskId {
    let t = time::OffsetDateTime::from_unix_timestamp(now_ms.div_euclid(1000))
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let head = i64::from(t.year() % 100) * 100 + i64::from(u8::from(t.month()));
    head * 100_000_000_000 + i64::try_from(random % 100_000_000_000).unwrap_or(0)
}

impl Control {
    /// Accepts a task, which then starts by itself.
    ///
    /// # Errors
    /// The refusal that the first failing check gives; nothing was created then.
    pub async fn create(&self, request: Request) -> Answer<Accepted> {
        let Request { project, spec, secrets, priority } = request;
        if spec.description.chars().any(|c| FORBIDDEN.contains(&c)) {
            return Err(Refusal::Description);
        }
        let range = if spec.face == model::spec::Face::V1 { RANGE_V1 } else { RANGE_V2 };
        check_windows(&spec.windows, range).map_err(Refusal::Windows)?;
        check_selection(&spec.selection)?;
        if self.catalogue.find(&spec.target, model::failure::Side::Target).is_none() {
            return Err(Refusal::TargetRegion(spec.target.region.clone()));
        }
        let urls = matches!(spec.selection, Selection::UrlList(_));
        if !urls && self.catalogue.find(&spec.source, model::failure::Side::Source).is_none() {
            return Err(Refusal::SourceRegion(spec.source.region.clone()));
        }
        let now = self.clock.now_ms();
        let quota = self.engine.store().read().await?.task_quota(&project, now - 86_400_000).await?;
        if quota.0 >= self.limits.tasks_per_day {
            return Err(Refusal::Quota(format!("{} tasks were created within 24 hours", quota.0)));
        }
        if quota.1 >= self.limits.waiting_tasks {
            return Err(Refusal::Quota(format!("{} tasks are waiting", quota.1)));
        }
        self.precheck(&spec, &secrets).await?;

        let random = u64::from_le_bytes(seal::random::<8>()?);
        let id = task_id(now, random);
        let local = now + i64::from(self.zone_minutes) * 60_000;
        let stamp = copy::records::stamp(local);
        let to = &spec.target.bucket;
        let from = if spec.source.bucket.is_empty() { "url" } else { &spec.source.bucket };
        let name = format!("{from}-{to}-{stamp}_{:03}", random / 100_000_000_000 % 1000);
        let task =
            NewTask { id, project, name: name.clone(), spec, secrets: secrets.to_json(), priority, now };
        let mut unit = self.engine.store().write().await?;
        unit.insert_task(task).await?;
        unit.save().await?;
        Ok(Accepted { id, name })
    }
}

fn check_selection(selection: &Selection) -> Answer<()> {
    let entries = selection.entries();
    if let Some(file) = selection.list_file() {
        if file.bucket.is_empty() || file.key.is_empty() {
            return Err(Refusal::Source("list_file must name a bucket and a key".into()));
        }
        return Ok(());
    }
    if entries.is_empty() {
        return Err(Refusal::Source(
            "object_key must name at least one key; [\"\"] means the whole bucket".into(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_have_fifteen_digits_and_fit_a_double() {
        for random in [0, 1, u64::MAX] {
            let id = task_id(1_768_465_800_000, random);
            assert_eq!(id.to_string().len(), 15 - 1 + usize::from(id >= 100_000_000_000_000));
            assert!(id.to_string().starts_with("2601") && id < 1 << 53);
        }
    }
}
