//! Notices of ended tasks and groups: durable with the end that they tell of.

use model::error::Result;
use serde::{Deserialize, Serialize};

use crate::value::{enum_text, parse_enum};
use crate::{Row, StoreTx, args};

/// What became of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It has still to be posted.
    Due,
    /// It arrived.
    Delivered,
    /// It was tried often enough.
    GivenUp,
}

/// A stored notification.
#[derive(Clone, Debug)]
pub struct Notification {
    /// Identity of the task or group.
    pub about: String,
    /// Topic.
    pub topic: String,
    /// What is posted, JSON.
    pub body: String,
    /// Attempts so far.
    pub attempts: u32,
    /// What became of it.
    pub state: DeliveryState,
    /// Code of the last trouble (OMS §4.11).
    pub code: String,
}

fn row(r: &Row) -> Result<Notification> {
    Ok(Notification {
        about: r.text(0)?.to_owned(),
        topic: r.text(1)?.to_owned(),
        body: r.text(2)?.to_owned(),
        attempts: u32::try_from(r.int(3)?).unwrap_or(0),
        state: parse_enum(r.text(4)?)?,
        code: r.text(5)?.to_owned(),
    })
}

impl StoreTx {
    /// Writes down a notification; one about an earlier end of the same task is replaced.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_notification(
        &mut self,
        project: &str,
        about: &str,
        topic: &str,
        body: &str,
        now: i64,
    ) -> Result<()> {
        self.drop_notification(about).await?;
        let sql = "INSERT INTO notices (about, topic, body, next_at, state, project) VALUES ($1, $2, $3, $4, $5, $6)";
        self.tx.execute(sql, args![about, topic, body, now, enum_text(DeliveryState::Due), project]).await?;
        self.wakes = true;
        Ok(())
    }

    /// Forgets the notification about a task that starts again or goes away.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drop_notification(&mut self, about: &str) -> Result<()> {
        self.tx.execute("DELETE FROM notices WHERE about = $1", args![about]).await?;
        Ok(())
    }

    /// The notification about a task or group.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn notification(&mut self, about: &str) -> Result<Option<Notification>> {
        let sql = "SELECT about, topic, body, attempts, state, code FROM notices WHERE about = $1";
        self.tx.query(sql, args![about]).await?.first().map(row).transpose()
    }

    /// Notices that are due: at most `each` of one project, the longest waiting first. The first of each project comes
    /// before the second of any. A notification that is being posted stays due, so it counts for its project.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn due_notifications(&mut self, now: i64, max: u64, each: u64) -> Result<Vec<Notification>> {
        let sql = "SELECT about, topic, body, attempts, state, code FROM ( \
                     SELECT about, topic, body, attempts, state, code, next_at, \
                       ROW_NUMBER() OVER (PARTITION BY project ORDER BY next_at, about) AS turn \
                     FROM notices WHERE state = $1 AND next_at <= $2 \
                   ) AS due WHERE turn <= $4 ORDER BY turn, next_at, about LIMIT $3";
        self.tx
            .query(sql, args![enum_text(DeliveryState::Due), now, max, each])
            .await?
            .iter()
            .map(row)
            .collect()
    }

    /// Notes how an attempt to post `tried` went; a due notification is tried again at `next_at`. One about a later end of the same
    /// task, which has taken its place since, is not touched.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record_attempt(
        &mut self,
        tried: &Notification,
        state: DeliveryState,
        code: &str,
        next_at: i64,
    ) -> Result<()> {
        let sql = "UPDATE notices SET attempts = attempts + 1, state = $2, code = $3, next_at = $4 \
                   WHERE about = $1 AND body = $5 AND attempts = $6 AND state = $7";
        let args = args![
            tried.about.as_str(),
            enum_text(state),
            code,
            next_at,
            tried.body.as_str(),
            tried.attempts,
            enum_text(DeliveryState::Due)
        ];
        self.tx.execute(sql, args).await?;
        // Its place is for the next notification of the project.
        self.wakes = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[tokio::test]
    async fn f18_delivered_notification_does_not_complete_a_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::embedded(dir.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        tx.put_notification("p", "1", "topic", "the first end", 1).await.unwrap();
        let first = tx.due_notifications(1, 10, 10).await.unwrap().remove(0);
        // While it is posted the task starts again and ends again.
        tx.put_notification("p", "1", "topic", "the second end", 2).await.unwrap();
        tx.record_attempt(&first, DeliveryState::Delivered, "", 3).await.unwrap();
        let second = tx.due_notifications(3, 10, 10).await.unwrap().remove(0);
        assert_eq!((second.body.as_str(), second.attempts), ("the second end", 0));
        tx.record_attempt(&second, DeliveryState::Due, "OMS.0161", 4).await.unwrap();
        let again = tx.due_notifications(4, 10, 10).await.unwrap().remove(0);
        assert_eq!(again.attempts, 1);
        tx.record_attempt(&again, DeliveryState::Delivered, "", 5).await.unwrap();
        assert!(tx.due_notifications(5, 10, 10).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn sec_f18_notifications_of_one_project_do_not_delay_another() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::embedded(dir.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        for i in 0..50 {
            tx.put_notification("loud", &format!("loud-{i:02}"), "t", "{}", i).await.unwrap();
        }
        tx.put_notification("quiet", "quiet-1", "t", "{}", 60).await.unwrap();
        tx.put_notification("quiet", "quiet-2", "t", "{}", 61).await.unwrap();
        tx.commit().await.unwrap();
        let due = async || {
            let due = store.read().await.unwrap().due_notifications(100, 3, 2).await.unwrap();
            due.into_iter().map(|n| n.about).collect::<Vec<_>>()
        };
        assert_eq!(due().await, ["loud-00", "quiet-1", "loud-01"]);
        assert_eq!(store.read().await.unwrap().due_notifications(100, 99, 2).await.unwrap().len(), 4);
        let mut tx = store.write().await.unwrap();
        let posted = tx.due_notifications(100, 2, 2).await.unwrap();
        tx.record_attempt(&posted[0], DeliveryState::Due, "OMS.0161", 1000).await.unwrap();
        tx.record_attempt(&posted[1], DeliveryState::Delivered, "", 100).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(due().await, ["loud-01", "quiet-2", "loud-02"]);
    }
}
