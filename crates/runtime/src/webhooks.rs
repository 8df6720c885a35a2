//! Notifies webhooks of the end of tasks and groups (oms.md §4.11). A notification is stored in the transaction of the end;
//! posting it may happen twice after a crash, so it names what it is about and when that ended.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, header};
use model::error::{Error, Kind, Result};
use model::spec::{Notify, TaskSpec};
use ring::hmac;
use storage::Body;
use storage::checksum::hex;
use storage::http::{Client, collect};
use store::{DeliveryState, Notification, StoreTx, TaskRow};

use crate::engine::Engine;
use crate::environment::Webhook;

/// Attempts before a notification is given up; the last is about half an hour after the first.
const MAX_ATTEMPTS: u32 = 8;
/// Delay after the first failed attempt; it doubles with each further one.
const FIRST_DELAY_MS: i64 = 15_000;
/// Longest delay between two attempts.
const DELAY_MAX_MS: i64 = 3_600_000;
/// Time limit of a request, and of reading its response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Notifications that are posted at once, in total.
const MAX_CONCURRENT: u64 = 32;
/// Notifications of one project that are posted at once.
const MAX_CONCURRENT_PER_PROJECT: u64 = 2;

/// What ended, for its notification.
pub(crate) struct EndNotification<'a> {
    pub(crate) project: &'a str,
    pub(crate) about: &'a str,
    pub(crate) name: &'a str,
    pub(crate) spec: &'a TaskSpec,
    pub(crate) succeeded: bool,
    pub(crate) started_at: i64,
    pub(crate) bytes: u64,
    pub(crate) records: (&'a str, &'a str),
    pub(crate) now: i64,
}

impl EndNotification<'_> {
    /// Stores the notification, if one is requested.
    pub(crate) async fn put(&self, tx: &mut StoreTx) -> Result<()> {
        let Some(notify) = &self.spec.notify else { return Ok(()) };
        if self.succeeded && notify.success || !self.succeeded && notify.failure {
            let body = self.body(notify).to_string();
            tx.put_notification(self.project, self.about, notify.topic(), &body, self.now).await?;
        }
        Ok(())
    }

    fn body(&self, notify: &Notify) -> serde_json::Value {
        let chinese = notify.language == "zh-cn";
        let state = match (self.succeeded, chinese) {
            (true, false) => "succeeded",
            (false, false) => "failed",
            (true, true) => "成功",
            (false, true) => "失败",
        };
        let subject = if chinese {
            format!("迁移任务{}{state}", self.name)
        } else {
            format!("Migration {} {state}", self.name)
        };
        let seconds = (self.now - self.started_at).max(0) / 1000;
        let speed = self.bytes / u64::try_from(seconds).unwrap_or(0).max(1);
        let file = self.spec.selection.list_file();
        let (before, after) = self.records;
        let list = |kind: &str| format!("{before}{kind}_object_lists/{after}");
        let variables = serde_json::json!({
            "Task_Status": state,
            "Task_Name": self.name,
            "Start_Time": self.started_at.to_string(),
            "Total_Time_Used": format!("{seconds} s"),
            "Transferred_Data": format!("{} B", self.bytes),
            "Average_Speed": format!("{speed} B/s"),
            "Source_Bucket": self.spec.source.bucket,
            "Destination_Bucket": self.spec.target.bucket,
            "List_File_Bucket": file.map(|f| f.bucket.as_str()).unwrap_or_default(),
            "List_File_Key": file.map(|f| f.key.as_str()).unwrap_or_default(),
            "Success_object_list_path": list("success"),
            "Skip_object_list_path": list("skip"),
            "Failed_object_list_path": list("failed"),
        });
        let message = format!(
            "{subject}: {} -> {}, {} B, {seconds} s",
            self.spec.source.bucket, self.spec.target.bucket, self.bytes
        );
        serde_json::json!({
            "about": self.about, "ended_at": self.now, "topic_urn": notify.topic_urn, "subject": subject,
            "message": message, "template_name": notify.template, "variables": variables,
        })
    }
}

/// The notification about an ended task.
pub(crate) async fn notify_task_end(
    tx: &mut StoreTx,
    task: &TaskRow,
    succeeded: bool,
    bytes: u64,
    now: i64,
) -> Result<()> {
    let (before, after) = task.parent.record_paths(&task.name);
    let end = EndNotification {
        project: &task.project,
        about: &task.id.to_string(),
        name: &task.name,
        spec: &task.spec,
        succeeded,
        started_at: task.started_at.unwrap_or(now),
        bytes,
        records: (&before, &after),
        now,
    };
    end.put(tx).await
}

impl Engine {
    /// Posts what is due, concurrently with the dispatcher.
    pub(crate) async fn step_webhooks(self: &Arc<Self>, now: i64) -> Result<()> {
        let due = self
            .store
            .read()
            .await?
            .due_notifications(now, MAX_CONCURRENT, MAX_CONCURRENT_PER_PROJECT)
            .await?;
        for notification in due {
            let key = format!("notification {}", notification.about);
            if self.in_progress().insert(key.clone()) {
                let engine = self.clone();
                tokio::spawn(async move {
                    if let Err(failure) = engine.deliver(&notification).await {
                        tracing::error!(about = %notification.about, "cannot record the delivery of a notification: \
                             {failure}");
                    }
                    engine.in_progress().remove(&key);
                });
            }
        }
        Ok(())
    }

    async fn deliver(&self, notification: &Notification) -> Result<()> {
        let posted = match self.resolver.webhook(&notification.topic) {
            Some(webhook) => post(&webhook, &notification.body).await,
            None => Err(Error::new(
                Kind::NotFound,
                "notify",
                format!(
                    "no webhook is configured for topic \
                     `{}`",
                    notification.topic
                ),
            )),
        };
        let now = self.clock.now_ms();
        let mut tx = self.store.write().await?;
        match posted {
            Ok(()) => tx.record_attempt(notification, DeliveryState::Delivered, "", now).await?,
            Err(failure) => {
                tracing::warn!(about = %notification.about, attempt = notification.attempts + 1, "notification not delivered: \
                     {failure}");
                let last = notification.attempts + 1 >= MAX_ATTEMPTS;
                let state = if last { DeliveryState::GivenUp } else { DeliveryState::Due };
                let next_at = now + next_delay(notification.attempts);
                tx.record_attempt(notification, state, code(failure.kind), next_at).await?;
            }
        }
        tx.commit().await
    }
}

/// The delay before the next attempt, milliseconds; `failed` counts the attempts that failed before the last one.
fn next_delay(failed: u32) -> i64 {
    (FIRST_DELAY_MS << failed.min(30)).min(DELAY_MAX_MS)
}

/// The code of a failed delivery (oms.md §4.11).
fn code(kind: Kind) -> &'static str {
    match kind {
        Kind::NotFound => "OMS.0157",
        Kind::Forbidden => "OMS.0158",
        Kind::Unavailable => "OMS.0156",
        _ => "OMS.0161",
    }
}

async fn post(webhook: &Webhook, body: &str) -> Result<()> {
    let bad =
        |e: &dyn std::fmt::Display| Error::new(Kind::Invalid, "notify", format!("invalid webhook URL: {e}"));
    let uri: http::Uri = webhook.url.parse().map_err(|e: http::uri::InvalidUri| bad(&e))?;
    let (scheme, authority) =
        (uri.scheme_str().unwrap_or("http"), uri.authority().map_or("", |a| a.as_str()));
    let client = Client::new(&format!("{scheme}://{authority}"), webhook.egress.clone())?;
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .body(Body::bytes(body.as_bytes().to_vec()))
        .map_err(|e| bad(&e))?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_str(authority).map_err(|e| bad(&e))?);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if !webhook.secret.expose().is_empty() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, webhook.secret.expose().as_bytes());
        let signature = hex(hmac::sign(&key, body.as_bytes()).as_ref());
        headers.insert("x-whimbrel-signature", HeaderValue::from_str(&signature).map_err(|e| bad(&e))?);
    }
    let late = || Error::new(Kind::Timeout, "notify", "the webhook did not answer within 10 s");
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, client.send(request)).await.map_err(|_| late())??;
    let status = answer.status();
    let _ = tokio::time::timeout(REQUEST_TIMEOUT, collect(answer, 64 << 10)).await;
    let kind = match status.as_u16() {
        200..300 => return Ok(()),
        401 | 403 => Kind::Forbidden,
        404 | 410 => Kind::NotFound,
        _ => Kind::Unavailable,
    };
    Err(Error::new(kind, "notify", format!("the webhook answered HTTP {status}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhook_delays_double_up_to_the_maximum() {
        for (failed, seconds) in [
            (0, 15),
            (1, 30),
            (2, 60),
            (3, 120),
            (4, 240),
            (5, 480),
            (6, 960),
            (7, 1920),
            (8, 3600),
            (u32::MAX, 3600),
        ] {
            assert_eq!(next_delay(failed), seconds * 1000, "after {failed} earlier failures");
        }
    }

    #[test]
    fn webhook_attempts_span_half_an_hour() {
        let span: i64 = (0..MAX_ATTEMPTS - 1).map(next_delay).sum();
        assert_eq!(span, 1_905_000, "docs/sync.md and docs/api-compat.md name this time");
    }
}
