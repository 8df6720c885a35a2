//! Identities and names of tasks (OMS §1.5).

use model::error::{Error, Kind, Result};
use model::spec::TaskSpec;
use model::task::TaskId;
use object_migration::report::records::stamp;
use store::StoreTx;

/// Milliseconds after now whose stamps are tried for a name that is free.
const TRIED_MS: i64 = 20;

/// A 15-digit identity: two digits of the year, two of the month, eleven random.
pub fn task_id(now_ms: i64, random: u64) -> TaskId {
    let t = model::instant::utc(now_ms);
    let head = i64::from(t.year() % 100) * 100 + i64::from(u8::from(t.month()));
    head * 100_000_000_000 + i64::try_from(random % 100_000_000_000).unwrap_or(0)
}

/// A new identity and the unique name that goes with it: `<source>-<target>-<stamp>_<3 digits>`.
///
/// # Errors
/// When the system gives no random bytes.
pub fn name_task(spec: &TaskSpec, now_ms: i64, zone_minutes: i32) -> Result<(TaskId, String)> {
    let random = u64::from_le_bytes(seal::random::<8>()?);
    let name = name(spec, now_ms, zone_minutes, random / 100_000_000_000);
    Ok((task_id(now_ms, random), name))
}

/// As [`name_task`], for the unit that inserts the task: an identity and a name that no task has. A name holds a millisecond and
/// three digits, and two tasks may draw the same.
///
/// # Errors
/// [`Kind::Conflict`] when there is none; when the database fails.
pub async fn free_name(
    tx: &mut StoreTx,
    spec: &TaskSpec,
    now_ms: i64,
    zone_minutes: i32,
) -> Result<(TaskId, String)> {
    for later in 0..TRIED_MS {
        let (id, name) = name_task(spec, now_ms + later, zone_minutes)?;
        if !tx.is_task(id, &name).await? {
            return Ok((id, name));
        }
    }
    let m = "no name is free for the task; hint: try again in a second";
    Err(Error::new(Kind::Conflict, "task", m))
}

/// Identities and names of the members of a group, all different: the three digits count, and every thousand members the
/// stamp goes on by a millisecond.
///
/// # Errors
/// When the system gives no random bytes.
pub fn name_members(specs: &[TaskSpec], now_ms: i64, zone_minutes: i32) -> Result<Vec<(TaskId, String)>> {
    let first = u64::from_le_bytes(seal::random::<8>()?);
    let named = |(i, spec): (u64, &TaskSpec)| {
        let later = i64::try_from(i / 1000).unwrap_or(0);
        let name = name(spec, now_ms + later, zone_minutes, (first / 100_000_000_000 + i) % 1000);
        // The identities count too: eleven digits hold them all.
        (task_id(now_ms, (first % 99_000_000_000) + i), name)
    };
    Ok((0..).zip(specs).map(named).collect())
}

fn name(spec: &TaskSpec, now_ms: i64, zone_minutes: i32, digits: u64) -> String {
    let stamp = stamp(now_ms + i64::from(zone_minutes) * 60_000);
    let to = &spec.target.bucket;
    let from = if spec.source.bucket.is_empty() { "url" } else { &spec.source.bucket };
    format!("{from}-{to}-{stamp}_{:03}", digits % 1000)
}

/// A random UUID, lower case with hyphens.
///
/// # Errors
/// When the system gives no random bytes.
pub fn uuid() -> Result<String> {
    let mut b = seal::random::<16>()?;
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn f20_used_name_is_not_assigned_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = store::Store::embedded(dir.path()).await.unwrap();
        let spec = r#"{"face":"v2","selection":{"kind":"prefix","entries":[""]},"source":{"region":"r"},"target":{"region":"r"}}"#;
        let spec: TaskSpec = serde_json::from_str(spec).unwrap();
        let now = 1_768_465_800_000;
        let mut tx = store.write().await.unwrap();
        // All thousand names of one millisecond.
        for digits in 0..1000u64 {
            let task = store::NewTask {
                id: i64::try_from(digits).unwrap(),
                project: "p".into(),
                name: name(&spec, now, 0, digits),
                spec: spec.clone(),
                secrets: "{}".into(),
                priority: model::task::Priority::Medium,
                parent: model::parent::Parent::None,
                now,
            };
            tx.insert_task(task).await.unwrap();
        }
        let (id, free) = free_name(&mut tx, &spec, now, 0).await.unwrap();
        assert!(free.contains(&stamp(now + 1)), "{free}");
        assert!(!tx.is_task(id, &free).await.unwrap());
    }

    #[test]
    fn ids_have_15_digits_and_fit_a_double() {
        for random in [0, 1, u64::MAX] {
            let id = task_id(1_768_465_800_000, random);
            assert_eq!(id.to_string().len(), 15);
            assert!(id.to_string().starts_with("2601") && id < 1 << 53);
        }
        let id = uuid().unwrap();
        assert_eq!((id.len(), &id[14..15]), (36, "4"));
    }
}
