//! Checks of the whole configuration.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::error::Result;

use super::{ALL_PROJECTS, Config};
use crate::invalid;
use crate::size::bytes_of;

/// What is wrong with an entry of `limits.inline_endpoints` or `limits.redis_endpoints` that can match nothing; none when it is a
/// host name, an address or a network.
fn endpoint_fault(text: &str) -> Option<&'static str> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    match bare.split_once('/') {
        _ if text.contains("://") => Some("is a URL; hint: write only its host"),
        Some((ip, bits)) => {
            let width = ip.parse::<IpAddr>().ok().map(|ip| if ip.is_ipv4() { 32 } else { 128 });
            let fits = width.is_some_and(|width| bits.parse::<u8>().is_ok_and(|bits| bits <= width));
            (!fits).then_some("is not a network; hint: write it like 10.1.0.0/16")
        }
        None if bare.parse::<IpAddr>().is_ok() => None,
        None if bare.contains('*') => Some("has a wildcard; hint: name each host, or a network"),
        None if bare.contains(':') => Some("has a port; hint: write only the host"),
        None if bare.is_empty() || !bare.chars().all(name) => Some("is not a host name"),
        None => None,
    }
}

/// Whether a name may stand in a path of the API and in a header.
fn is_plain_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

impl Config {
    /// As soon as there are several projects, each section says whose it is.
    fn validate_owners(&self) -> Result<()> {
        let stores = self.stores.iter().map(|s| ("store", &s.region, &s.projects));
        let instances = self.redis_instances.iter().map(|r| ("redis", &r.name, &r.projects));
        let buckets = self.backup_sources.iter().map(|b| ("bucket", &b.name, &b.projects));
        for (section, name, projects) in stores.chain(instances).chain(buckets) {
            let at = |m: String| invalid(format!("[[{section}]] `{name}`: {m}"));
            if let ([first, _, ..], true) = (self.projects.as_slice(), projects.is_empty()) {
                return Err(at(format!(
                    "`projects` is required when there are several projects; hint: add projects = [\"{}\"], or \
                     [\"*\"] for all of them",
                    first.name
                )));
            }
            let strange = projects.iter().find(|p| *p != ALL_PROJECTS && self.project_id(p).is_none());
            if let Some(p) = strange {
                return Err(at(format!("there is no [[project]] with the name `{p}`")));
            }
        }
        for b in &self.backup_sources {
            let region = b.location.split_once(':').map_or("", |(region, _)| region);
            let Some(store) = self.stores.iter().find(|s| s.region == region) else { continue };
            let may = self.owners(&store.projects);
            if let Some(id) = self.owners(&b.projects).iter().find(|id| !may.contains(id)) {
                return Err(invalid(format!(
                    "[[bucket]] `{}` is for project `{id}`, but its [[store]] `{region}` is not; hint: add the \
                     project to the store",
                    b.name
                )));
            }
        }
        Ok(())
    }

    fn validate_redis(&self) -> Result<()> {
        let mut ids = BTreeSet::new();
        for r in &self.redis_instances {
            let at = |m: String| invalid(format!("[[redis]] `{}`: {m}", r.name));
            let is_uuid = r.id.len() == 36
                && r.id.bytes().enumerate().all(|(i, b)| match i {
                    8 | 13 | 18 | 23 => b == b'-',
                    _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
                });
            if !is_uuid {
                return Err(at(format!("id `{}` is not a UUID in lower case", r.id)));
            }
            if !ids.insert(&r.id) {
                return Err(at(format!("id `{}` is used twice", r.id)));
            }
            if r.addrs.trim().is_empty() {
                return Err(at("`addrs` is empty".into()));
            }
            let kept = |name: &&String| {
                model::migration::KEPT_COMMANDS.iter().any(|kept| name.eq_ignore_ascii_case(kept))
            };
            if let Some(name) = r.skip_commands.iter().find(kept) {
                return Err(at(format!("skip_commands: `{name}` cannot be skipped")));
            }
            if r.cert.is_some() != r.key.is_some() {
                return Err(at("`cert` and `key` must be set together".into()));
            }
            if !r.tls && (r.ca.is_some() || r.cert.is_some()) {
                return Err(at("`ca`, `cert` and `key` need `tls = true`".into()));
            }
            if let Some(listen) = &r.listen
                && listen.parse::<std::net::SocketAddr>().is_err()
            {
                return Err(at(format!("listen `{listen}` is not an address such as 127.0.0.1:6390")));
            }
        }
        let mut names = BTreeSet::new();
        for b in &self.backup_sources {
            let at = |m: String| invalid(format!("[[bucket]] `{}`: {m}", b.name));
            if b.name.is_empty() || !names.insert(&b.name) {
                return Err(at("names must be unique and not empty".into()));
            }
            if b.ak.is_some() != b.sk.is_some() {
                return Err(at("`ak` and `sk` must be set together".into()));
            }
            let directory = b.location.starts_with('/') || b.location.starts_with("fs:///");
            let store = b.location.split_once(':').map(|(s, _)| s);
            if !directory && !store.is_some_and(|s| self.stores.iter().any(|known| known.region == s)) {
                return Err(at(format!(
                    "location `{}` is neither a directory nor STORE:BUCKET/PREFIX with a [[store]]",
                    b.location
                )));
            }
        }
        Ok(())
    }

    pub(crate) fn validate(&self) -> Result<()> {
        self.validate_service()?;
        self.validate_stores()?;
        self.validate_notify()?;
        self.validate_redis()?;
        self.validate_projects()?;
        self.validate_owners()?;
        self.validate_access_keys()?;
        self.validate_users()
    }

    /// Addresses, audit, database and limits.
    fn validate_service(&self) -> Result<()> {
        self.listen.parse::<std::net::SocketAddr>().map_err(|_| {
            invalid(format!("listen: `{}` is not an address such as 127.0.0.1:8790", self.listen))
        })?;
        if let Some(at) = &self.metrics_listen
            && at.parse::<std::net::SocketAddr>().is_err()
        {
            return Err(invalid(format!("metrics_listen: `{at}` is not an address such as 127.0.0.1:8791")));
        }
        if self.audit.file.as_deref().is_some_and(str::is_empty) {
            return Err(invalid("audit.file: must name a file"));
        }
        let sqlite = self.database == "sqlite";
        if !sqlite && !self.database.starts_with("postgres://") && !self.database.starts_with("postgresql://")
        {
            // It may hold a password.
            return Err(invalid("database: the value is neither `sqlite` nor a postgres:// URL"));
        }
        if let Some(direct) = &self.database_direct
            && (sqlite || !direct.starts_with("postgres://") && !direct.starts_with("postgresql://"))
        {
            return Err(invalid("database_direct: must be a postgres:// URL, and `database` must be one"));
        }
        if !(-14 * 60..=14 * 60).contains(&self.time_zone_minutes) {
            return Err(invalid("time_zone_minutes: must be from -840 to 840"));
        }
        if bytes_of(&self.limits.memory).is_none_or(|b| b < 16 << 20) {
            return Err(invalid(format!(
                "limits.memory: `{}` is not a size of at least 16MiB",
                self.limits.memory
            )));
        }
        let lists = [
            ("inline_endpoints", &self.limits.allowed_endpoints),
            ("redis_endpoints", &self.limits.allowed_redis_endpoints),
        ];
        for (name, list) in lists {
            if let Some((entry, fault)) = list.iter().find_map(|e| Some((e, endpoint_fault(e)?))) {
                return Err(invalid(format!("limits.{name}: `{entry}` {fault}")));
            }
        }
        if self.limits.running_tasks == 0 {
            return Err(invalid("limits.running_tasks: must be at least 1"));
        }
        Ok(())
    }

    fn validate_stores(&self) -> Result<()> {
        let mut regions = BTreeSet::new();
        for s in &self.stores {
            let at = |m: String| invalid(format!("[[store]] `{}`: {m}", s.region));
            if s.region.is_empty() || s.region.len() > 100 {
                return Err(invalid("[[store]]: `region` must have 1 to 100 characters"));
            }
            if !regions.insert(&s.region) {
                return Err(at(format!("region `{}` is used twice; names are unique", s.region)));
            }
            if s.endpoint.is_empty() == s.path.is_empty() {
                return Err(at("needs either `endpoint` or `path`".into()));
            }
            if !s.endpoint.is_empty()
                && !s.endpoint.starts_with("http://")
                && !s.endpoint.starts_with("https://")
            {
                return Err(at(format!("endpoint `{}` must begin with http:// or https://", s.endpoint)));
            }
            if !["path", "virtual"].contains(&s.addressing.as_str()) {
                return Err(at(format!("addressing `{}` is neither `path` nor `virtual`", s.addressing)));
            }
            if let Some(u) = s.uses.iter().find(|u| !["source", "destination"].contains(&u.as_str())) {
                return Err(at(format!("use `{u}` is neither `source` nor `destination`")));
            }
        }
        Ok(())
    }

    fn validate_notify(&self) -> Result<()> {
        for n in &self.notify {
            if !n.webhook.starts_with("http://") && !n.webhook.starts_with("https://") {
                return Err(invalid(format!(
                    "[[notify]] `{}`: `webhook` must begin with http:// or https://",
                    n.topic
                )));
            }
        }
        Ok(())
    }

    fn validate_projects(&self) -> Result<()> {
        let mut ids = BTreeSet::new();
        for p in &self.projects {
            if !is_plain_word(&p.id) || p.id.contains("..") || p.id == "." {
                return Err(invalid(format!(
                    "[[project]] id `{}` must consist of letters, digits, `-` and `_`",
                    p.id
                )));
            }
            if !ids.insert(&p.id) {
                return Err(invalid(format!("[[project]] id `{}` is used twice", p.id)));
            }
        }
        Ok(())
    }

    fn validate_access_keys(&self) -> Result<()> {
        let mut aks = BTreeSet::new();
        for k in &self.access_keys {
            if !is_plain_word(&k.ak) {
                return Err(invalid(format!(
                    "[[access_key]] `{}`: `ak` must consist of letters, digits, `-`, `_` and `.`",
                    k.ak
                )));
            }
            if !aks.insert(&k.ak) {
                return Err(invalid(format!("[[access_key]] `{}` is listed twice", k.ak)));
            }
            self.project_id(&k.project).ok_or_else(|| {
                invalid(format!(
                    "[[access_key]] `{}`: there is no [[project]] with the name `{}`",
                    k.ak, k.project
                ))
            })?;
        }
        Ok(())
    }

    fn validate_users(&self) -> Result<()> {
        let mut users = BTreeSet::new();
        for u in &self.users {
            if u.name.trim().is_empty() || u.domain.trim().is_empty() {
                return Err(invalid("[[user]]: `name` and `domain` must not be empty"));
            }
            if u.password_hash.as_deref().is_some_and(|hash| hash.trim().is_empty()) {
                return Err(invalid(format!("[[user]] `{}`: `password_hash` is empty", u.name)));
            }
            if !users.insert((&u.domain, &u.name)) {
                return Err(invalid(format!(
                    "[[user]] `{}` is listed twice in domain `{}`",
                    u.name, u.domain
                )));
            }
            for p in &u.projects {
                self.project_id(p).ok_or_else(|| {
                    invalid(format!("[[user]] `{}`: there is no [[project]] with the name `{p}`", u.name))
                })?;
            }
            if u.password.is_some() == u.password_hash.is_some() {
                return Err(invalid(format!("[[user]] `{}` needs `password_hash` or `password`", u.name)));
            }
        }
        Ok(())
    }
}
