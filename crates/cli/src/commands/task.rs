//! `whimbrel task …`: a client of a running service.

use std::time::Duration;

use http::Method;
use model::error::{Error, Kind, Result, Side};
use serde_json::{Value, json};

use crate::args::{Task, TaskAction};
use crate::client::Client;
use crate::exit::Exit;
use crate::open_store::keys;
use crate::printer::Printer;
use crate::report;

pub(crate) async fn run(args: &Task, printer: &Printer) -> Result<Exit> {
    let client = Client::from_args(&args.service)?;
    match &args.action {
        TaskAction::List { limit } => list(&client, *limit, args.service.json, printer).await,
        TaskAction::Show { id } => {
            let task = client.call(Method::GET, &format!("tasks/{id}"), None).await?;
            let text = if args.service.json {
                task.to_string()
            } else {
                serde_json::to_string_pretty(&task).unwrap_or_default()
            };
            printer.result(&text);
            Ok(Exit::Done)
        }
        TaskAction::Watch { id } => watch(&client, *id, args.service.json, printer).await,
        TaskAction::Create { source, target, cloud_type } => {
            let body = create(source, target, cloud_type)?;
            let made = client.call(Method::POST, "tasks", Some(&body)).await?;
            printer.result(&if args.service.json { made.to_string() } else { made["id"].to_string() });
            Ok(Exit::Done)
        }
        TaskAction::Stop { id } => act(&client, Method::POST, &format!("tasks/{id}/stop"), None).await,
        TaskAction::Start { id, failed_only } => {
            let (s, t) = (keys(Side::Source), keys(Side::Target));
            let body = json!({"src_ak": s.ak, "src_sk": s.sk.expose(), "dst_ak": t.ak, "dst_sk": t.sk.expose(),
                "migrate_failed_object": failed_only});
            act(&client, Method::POST, &format!("tasks/{id}/start"), Some(&body)).await
        }
        TaskAction::Delete { id } => act(&client, Method::DELETE, &format!("tasks/{id}"), None).await,
        TaskAction::Audit { limit } => audit(&client, *limit, args.service.json, printer).await,
    }
}

async fn list(client: &Client, limit: u32, json: bool, printer: &Printer) -> Result<Exit> {
    let tail = format!("tasks?limit={}", limit.clamp(1, 100));
    let found = client.call(Method::GET, &tail, None).await?;
    if json {
        printer.result(&found.to_string());
        return Ok(Exit::Done);
    }
    for task in found["tasks"].as_array().into_iter().flatten() {
        printer.result(&line(task));
    }
    Ok(Exit::Done)
}

async fn audit(client: &Client, limit: u32, json: bool, printer: &Printer) -> Result<Exit> {
    let tail = format!("audit?limit={}", limit.clamp(1, 1000));
    let found = client.call(Method::GET, &tail, None).await?;
    if json {
        printer.result(&found.to_string());
        return Ok(Exit::Done);
    }
    for one in found["lines"].as_array().into_iter().flatten().rev() {
        let text = |key: &str| match one[key].as_str() {
            Some("") | None => "-",
            Some(text) => text,
        };
        printer.result(&format!(
            "{} {} {} {} {} {} {}",
            one["at"],
            one["status"],
            text("address"),
            text("role"),
            text("principal"),
            text("action"),
            text("target")
        ));
    }
    Ok(Exit::Done)
}

async fn act(client: &Client, method: Method, tail: &str, body: Option<&Value>) -> Result<Exit> {
    client.call(method, tail, body).await?;
    Ok(Exit::Done)
}

fn create(source: &str, target: &str, cloud_type: &str) -> Result<Value> {
    let split = |text: &str| -> Result<(String, String, String)> {
        // A region may be an endpoint, so the bucket begins after the last colon that no port follows.
        let at = text.rfind(':').filter(|i| !text[i + 1..].starts_with("//") && !text[..*i].is_empty());
        let (region, rest) = at.map(|i| (&text[..i], &text[i + 1..])).ok_or_else(|| {
            Error::new(Kind::Invalid, "place", format!("`{text}` is not REGION:BUCKET/PREFIX"))
        })?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        Ok((region.to_owned(), bucket.to_owned(), prefix.to_owned()))
    };
    let ((sr, sb, sp), (tr, tb, tp)) = (split(source)?, split(target)?);
    let (s, t) = (keys(Side::Source), keys(Side::Target));
    Ok(json!({
        "task_type": "prefix",
        "src_node": {"cloud_type": cloud_type, "region": sr, "bucket": sb, "object_key": [sp], "ak": s.ak, "sk": s.sk.expose()},
        "dst_node": {"region": tr, "bucket": tb, "save_prefix": tp, "ak": t.ak, "sk": t.sk.expose()},
        "enable_metadata_migration": true,
    }))
}

fn state(code: i64) -> &'static str {
    match code {
        1 => "waiting",
        2 => "running",
        3 => "paused",
        4 => "failed",
        5 => "succeeded",
        6 => "retrying",
        7 => "pausing",
        _ => "unknown",
    }
}

fn line(task: &Value) -> String {
    let n = |key: &str| task[key].as_u64().unwrap_or(0);
    format!(
        "{}  {:9}  {:3.0}%  {}/{} objects  {}  {} failed  {} → {}",
        task["id"],
        state(task["status"].as_i64().unwrap_or(0)),
        task["progress"].as_f64().unwrap_or(0.0) * 100.0,
        n("successful_num") + n("skipped_num"),
        n("total_num"),
        report::bytes(n("complete_size") as f64),
        n("failed_num"),
        task["src_node"]["bucket"].as_str().unwrap_or_default(),
        task["dst_node"]["bucket"].as_str().unwrap_or_default(),
    )
}

async fn watch(client: &Client, id: i64, json: bool, printer: &Printer) -> Result<Exit> {
    let mut said = None;
    loop {
        let task = client.call(Method::GET, &format!("tasks/{id}"), None).await?;
        let code = task["status"].as_i64().unwrap_or(0);
        if printer.draws() {
            printer.progress(&line(&task));
        } else if said.is_none_or(|at: std::time::Instant| at.elapsed() > Duration::from_secs(10)) {
            printer.note(&line(&task));
            said = Some(std::time::Instant::now());
        }
        let exit = match code {
            3 => Exit::Stopped,
            4 => Exit::Differs,
            5 => Exit::Done,
            _ => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        printer.note(&line(&task));
        if let Some(message) = task["error_reason"]["error_msg"].as_str() {
            printer.error(message, None);
        }
        if json {
            printer.result(&task.to_string());
        }
        return Ok(exit);
    }
}
