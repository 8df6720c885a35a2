//! Tells of changes that other processes make: one connection that listens, and a poll behind it.
//!
//! Behind a pgbouncer in transaction mode LISTEN succeeds and delivers nothing. The listener therefore sends itself a
//! message when it connects and then every 30 s; until one arrives, changes are looked for five times a second. With a
//! working connection the dispatcher's own poll of once a second stands behind it.

use std::sync::Weak;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_postgres::AsyncMessage;

use super::CHANNEL;
use super::pool::Target;

/// Looks while no connection is known to deliver.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Between two messages to itself.
const SELF_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Starts listening; ends with the last owner of `changed`.
pub(crate) fn start(target: Target, changed: Weak<watch::Sender<u64>>) {
    tokio::spawn(async move {
        while wake(&changed) {
            if let Err(why) = listen(&target, &changed).await {
                tracing::debug!("not listening for changes of the database: {why}");
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    });
}

/// Signals that something may have changed; false when no receiver is left.
fn wake(changed: &Weak<watch::Sender<u64>>) -> bool {
    let Some(sender) = changed.upgrade() else { return false };
    sender.send_modify(|n| *n += 1);
    true
}

/// Listens until the connection ends.
async fn listen(target: &Target, changed: &Weak<watch::Sender<u64>>) -> Result<(), String> {
    let (client, mut connection) = target.connect().await.map_err(|f| f.to_string())?;
    let (sender, mut messages) = mpsc::channel(64);
    tokio::spawn(async move {
        // It ends with the connection, and the queue with it.
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if matches!(message, AsyncMessage::Notification(_)) {
                // A full queue means that changes are being looked for anyway.
                let _ = sender.try_send(());
            }
        }
    });
    let send = async |sql: String| client.batch_execute(&sql).await.map_err(|e| e.to_string());
    send(format!("LISTEN {CHANNEL}")).await?;
    loop {
        send(format!("SELECT pg_notify('{CHANNEL}', '')")).await?;
        let (mut delivers, next_check) = (false, Instant::now() + SELF_CHECK_INTERVAL);
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(()) => delivers = true,
                    None => return Err("the connection has ended".to_owned()),
                },
                () = tokio::time::sleep(POLL_INTERVAL), if !delivers => {}
                () = tokio::time::sleep_until(next_check) => break,
            }
            if !wake(changed) {
                return Ok(());
            }
        }
    }
}
