//! Which keys there are, for errors that name the nearest and for overrides by the environment.

use std::collections::BTreeMap;

use model::error::Result;
use toml::{Table, Value};

use crate::invalid;

/// Keys of the file's top level and of each section; sections marked `true` are lists.
const SECTIONS: [(&str, bool, &[&str]); 12] = [
    (
        "",
        false,
        &["listen", "metrics_listen", "data_dir", "database", "database_direct", "time_zone_minutes"],
    ),
    ("tls", false, &["cert", "key"]),
    ("audit", false, &["file", "stdout"]),
    (
        "limits",
        false,
        &[
            "running_tasks",
            "memory",
            "inline_endpoints",
            "redis_endpoints",
            "tasks_per_day",
            "waiting_tasks",
            "open_migrations",
            "running_backups",
            "kept_backups",
            "open_groups",
        ],
    ),
    ("project", true, &["id", "name", "names"]),
    ("access_key", true, &["ak", "sk", "project", "role", "enabled"]),
    ("user", true, &["name", "domain", "password_hash", "password", "role", "projects", "enabled"]),
    (
        "store",
        true,
        &[
            "region",
            "cloud_type",
            "endpoint",
            "path",
            "signing_region",
            "addressing",
            "use",
            "default",
            "order",
            "projects",
        ],
    ),
    (
        "redis",
        true,
        &[
            "id",
            "name",
            "addrs",
            "user",
            "password",
            "tls",
            "ca",
            "cert",
            "key",
            "skip_commands",
            "leave_out_commands",
            "functions",
            "listen",
            "projects",
        ],
    ),
    ("bucket", true, &["name", "location", "ak", "sk", "projects"]),
    ("cutover", false, &["hook"]),
    ("notify", true, &["topic", "webhook", "secret"]),
];

fn known(section: &str) -> &'static [&'static str] {
    SECTIONS.iter().find(|(name, ..)| *name == section).map_or(&[], |(.., keys)| keys)
}

fn nearest<'a>(word: &str, among: impl Iterator<Item = &'a str>) -> String {
    let best = among.map(|k| (strsim::damerau_levenshtein(word, k), k)).min();
    match best {
        Some((distance, key)) if distance <= 4 => format!("; did you mean `{key}`?"),
        _ => String::new(),
    }
}

/// Refuses unknown keys.
pub(crate) fn check(table: &Table) -> Result<()> {
    for (key, value) in table {
        if known("").contains(&key.as_str()) {
            continue;
        }
        let Some((_, list, keys)) = SECTIONS.iter().find(|(name, ..)| !name.is_empty() && name == key) else {
            let sections = SECTIONS.iter().map(|(name, ..)| *name).filter(|n| !n.is_empty());
            let hint = nearest(key, known("").iter().copied().chain(sections));
            return Err(invalid(format!("unknown key `{key}`{hint}")));
        };
        let tables: Vec<&Table> = match (value, list) {
            (Value::Table(t), false) => vec![t],
            (Value::Array(a), true) => a.iter().filter_map(Value::as_table).collect(),
            (_, true) => return Err(invalid(format!("`{key}` is a list: write it as `[[{key}]]`"))),
            (_, false) => return Err(invalid(format!("`{key}` is a section: write it as `[{key}]`"))),
        };
        if let Some(unknown) = tables.iter().flat_map(|t| t.keys()).find(|k| !keys.contains(&k.as_str())) {
            let hint = nearest(unknown, keys.iter().copied());
            return Err(invalid(format!("unknown key `{key}.{unknown}`{hint}")));
        }
    }
    Ok(())
}

/// Applies `WHIMBREL_<KEY>` and `WHIMBREL_<SECTION>__<KEY>`.
pub(crate) fn override_by(table: &mut Table, env: &BTreeMap<String, String>) -> Result<()> {
    for (section, _, keys) in SECTIONS.iter().filter(|(_, list, _)| !list) {
        for key in *keys {
            let name = if section.is_empty() {
                format!("WHIMBREL_{}", key.to_ascii_uppercase())
            } else {
                format!("WHIMBREL_{}__{}", section.to_ascii_uppercase(), key.to_ascii_uppercase())
            };
            let Some(text) = env.get(&name) else { continue };
            // A value that reads as TOML is taken so; anything else is text.
            let value = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
            let value = match value {
                Some(v @ (Value::Integer(_) | Value::Boolean(_) | Value::Array(_))) => v,
                _ => Value::String(text.clone()),
            };
            let at = if section.is_empty() {
                &mut *table
            } else {
                let entry = table.entry(*section).or_insert_with(|| Value::Table(Table::new()));
                entry.as_table_mut().ok_or_else(|| invalid(format!("`{section}` is not a section")))?
            };
            at.insert((*key).to_owned(), value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::SECTIONS;

    /// Each key is in a block of `docs/configuration.md`, or in its text.
    #[test]
    fn every_key_is_documented() {
        let page = include_str!("../../../docs/configuration.md");
        for (section, is_list, keys) in SECTIONS {
            let head = if is_list { format!("[[{section}]]") } else { format!("[{section}]") };
            assert!(section.is_empty() || page.contains(&head), "docs/configuration.md has no {head}");
            for key in keys {
                let is_shown = [format!("\n{key} = "), format!(" {key} = "), format!("`{key}`")];
                assert!(
                    is_shown.iter().any(|text| page.contains(text)),
                    "docs/configuration.md does not show `{key}` of {head}"
                );
            }
        }
    }
}
