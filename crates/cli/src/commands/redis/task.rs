//! `whimbrel redis task …`: a client of a running service's Redis migrations.

use std::time::{Duration, Instant};

use http::Method;
use model::error::{Error, Kind, Result};
use serde_json::{Value, json};

use crate::args::{RedisTask, RedisTaskAction as Action};
use crate::client::Client;
use crate::exit::Exit;
use crate::printer::Printer;

pub(crate) async fn run(args: &RedisTask, printer: &Printer) -> Result<Exit> {
    let client = Client::from_args(&args.service)?;
    let json = args.service.json;
    match &args.action {
        Action::List { limit } => list(&client, *limit, json, printer).await?,
        Action::Show { id } => {
            let (task, stats) = fetch(&client, id).await?;
            let all = json!({"task": task, "stats": stats});
            let text =
                if json { all.to_string() } else { serde_json::to_string_pretty(&all).unwrap_or_default() };
            printer.result(&text);
        }
        Action::Logs { id } => logs(&client, id, json, printer).await?,
        Action::Watch { id } => return watch(&client, id, json, printer).await,
        Action::Create { source, target, name, full_only, bandwidth_mb } => {
            let method = if *full_only { "full_amount_migration" } else { "incremental_migration" };
            let mut body = json!({"migration_method": method, "resume_mode": "auto",
                "source_instance": end(source, "SOURCE"), "target_instance": end(target, "TARGET")});
            if let Some(mb) = bandwidth_mb {
                body["bandwidth_limit_mb"] = mb.to_string().into();
            }
            let (id, started) = create(&client, name, &body).await?;
            printer.result(&if json { started.to_string() } else { id });
        }
        Action::Stop { id } => act(&client, id, "stop").await?,
        Action::Exchange { id } => act(&client, id, "exchange-ip").await?,
        Action::Rollback { id } => act(&client, id, "rollback-ip").await?,
        Action::Start { id } => start(&client, id).await?,
        Action::Delete { id } => delete(&client, id).await?,
    }
    Ok(Exit::Done)
}

async fn list(client: &Client, limit: u32, json: bool, printer: &Printer) -> Result<()> {
    let limit = limit.clamp(1, 1000);
    let found = client.call(Method::GET, &format!("migration-tasks?limit={limit}"), None).await?;
    if json {
        printer.result(&found.to_string());
        return Ok(());
    }
    for task in found["migration_tasks"].as_array().into_iter().flatten() {
        printer.result(&line(task, &Value::Null));
    }
    Ok(())
}

/// Creates a migration and starts it. A migration that cannot be started is deleted.
async fn create(client: &Client, name: &str, body: &Value) -> Result<(String, Value)> {
    let made = json!({"name": name, "vpc_id": "-", "subnet_id": "-", "security_group_id": "-"});
    let made = client.call(Method::POST, "migration/instance", Some(&made)).await?;
    let id = made["instance_id"].as_str().unwrap_or_default().to_owned();
    let started = client.call(Method::POST, &format!("migration/{id}/task"), Some(body)).await;
    if started.is_err() {
        let _ = delete(client, &id).await;
    }
    Ok((id, started?))
}

async fn start(client: &Client, id: &str) -> Result<()> {
    let body = json!({"migration_tasks": [id]});
    let done = client.call(Method::POST, "migration-tasks/batch-restart", Some(&body)).await?;
    let one = &done["migration_tasks"][0];
    if one["result"] == "success" {
        return Ok(());
    }
    let text = |key: &str| one[key].as_str().unwrap_or_default();
    let m = format!("{} {}", text("error_code"), text("error_msg"));
    Err(Error::new(Kind::Invalid, "request", m))
}

async fn delete(client: &Client, id: &str) -> Result<()> {
    let body = json!({"task_id_list": [id]});
    client.call(Method::DELETE, "migration-tasks/delete", Some(&body)).await.map(drop)
}

/// An end by addresses, or by the id of an instance.
fn end(place: &str, side: &str) -> Value {
    let password = std::env::var(format!("WHIMBREL_{side}_PASSWORD")).unwrap_or_default();
    let is_id = place.len() == 36 && place.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
    json!({(if is_id { "id" } else { "addrs" }): place, "password": password})
}

async fn act(client: &Client, id: &str, what: &str) -> Result<()> {
    client.call(Method::POST, &format!("migration-task/{id}/{what}"), None).await.map(drop)
}

async fn fetch(client: &Client, id: &str) -> Result<(Value, Value)> {
    let task = client.call(Method::GET, &format!("migration-task/{id}"), None).await?;
    let stats = client.call(Method::GET, &format!("migration-task/{id}/stats"), None).await?;
    Ok((task, stats))
}

async fn logs(client: &Client, id: &str, json: bool, printer: &Printer) -> Result<()> {
    let found = client.call(Method::GET, &format!("migration-task/{id}/logs?limit=1000"), None).await?;
    if json {
        printer.result(&found.to_string());
        return Ok(());
    }
    for one in found["migration_logs"].as_array().into_iter().flatten().rev() {
        let text = |key: &str| one[key].as_str().unwrap_or_default();
        printer.result(&format!(
            "{} {:5} {} {}",
            text("created_at"),
            text("log_level"),
            text("log_code"),
            text("message")
        ));
    }
    Ok(())
}

/// A status as people read it; the wire has its own words.
fn status(word: &str) -> &str {
    match word {
        "RUNNING" => "created",
        "MIGRATING" => "importing",
        "FULLMIGRATING" => "full",
        "INCRMIGEATING" => "following",
        "TERMINATING" => "stopping",
        "TERMINATED" => "stopped",
        "SUCCESS" => "succeeded",
        "FAILED" => "failed",
        other => other,
    }
}

fn line(task: &Value, stats: &Value) -> String {
    let text = |key: &str| task[key].as_str().unwrap_or_default();
    let number = |key: &str| stats[key].as_str().unwrap_or("0");
    let mut out = format!("{}  {:9}  {}", text("task_id"), status(text("status")), text("task_name"));
    if !stats.is_null() {
        out.push_str(&format!(
            "  {}%  {} of {} keys  lag {} bytes  {} KiB/s",
            number("full_migration_progress"),
            number("target_dbsize"),
            number("source_dbsize"),
            number("offset"),
            number("target_input_kbps")
        ));
    }
    if let Some(word) = task["task_status"].as_str() {
        out.push_str(&format!("  {word}"));
    }
    out
}

async fn watch(client: &Client, id: &str, json: bool, printer: &Printer) -> Result<Exit> {
    let mut said: Option<Instant> = None;
    loop {
        let (task, stats) = fetch(client, id).await?;
        if printer.draws() {
            printer.progress(&line(&task, &stats));
        } else if said.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
            printer.note(&line(&task, &stats));
            said = Some(Instant::now());
        }
        let exit = match task["status"].as_str().unwrap_or_default() {
            "TERMINATED" => Exit::Stopped,
            "FAILED" => Exit::Differs,
            "SUCCESS" => Exit::Done,
            _ => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        printer.note(&line(&task, &stats));
        if let Some(message) = task["error_message"].as_str() {
            printer.error(message, None);
        }
        if json {
            printer.result(&json!({"task": task, "stats": stats}).to_string());
        }
        return Ok(exit);
    }
}
