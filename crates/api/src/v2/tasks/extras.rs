//! Parts that tasks, groups and sync tasks share: a source CDN, and who is told at the end (oms.md §2.2).

use control::TaskError;
use control::tasks::TaskView;
use model::spec::{Notify, SourceCdn, TaskSpec};
use seal::Secret;
use serde_json::{Value, json};
use storage::cdn::Auth;
use store::{DeliveryState, Notification};
use wire::fields::Fields;

use super::known_value;
use crate::error::field_error;
use crate::v2::credentials::no_kms;

/// `source_cdn`: present means that objects are downloaded through it.
pub(crate) fn cdn(f: &Fields<'_>) -> Result<Option<SourceCdn>, TaskError> {
    let Some(cdn) = f.opt_object("source_cdn").map_err(field_error)? else { return Ok(None) };
    no_kms(&cdn, "crypto_type")?;
    let names = Auth::NAMES.map(|(name, _)| name);
    let kind = cdn.one_of("authentication_type", &names).map_err(field_error)?;
    let protocol = cdn.one_of("protocol", &["http", "https"]).map_err(field_error)?;
    let domain = cdn.filled("domain", 255).map_err(field_error)?;
    if domain.contains(['/', '?', '#', '@', ' ']) {
        return Err(TaskError::CdnDomain(domain.to_owned()));
    }
    let key = cdn_key(f)?;
    if Auth::named(kind).is_some_and(Auth::needs_key) && key.expose().is_empty() {
        return Err(TaskError::CdnKey);
    }
    Ok(Some(SourceCdn { domain: domain.into(), protocol: protocol.into(), authentication_type: kind.into() }))
}

/// The key inside `source_cdn`.
pub(crate) fn cdn_key(f: &Fields<'_>) -> Result<Secret, TaskError> {
    let Some(cdn) = f.opt_object("source_cdn").map_err(field_error)? else { return Ok(Secret::default()) };
    Ok(Secret::new(cdn.opt_text("authentication_key", 255).map_err(field_error)?.unwrap_or_default()))
}

/// The key of a start; one official example misspells its name.
pub(crate) fn cdn_key_given(f: &Fields<'_>) -> Result<Option<Secret>, TaskError> {
    no_kms(f, "source_cdn_crypto_type")?;
    let text = |name: &str| f.opt_text(name, 255).map_err(field_error);
    let key = match text("source_cdn_authentication_key")? {
        Some(key) => Some(key),
        None => text("src_cdn_authentication_key")?,
    };
    Ok(key.filter(|key| !key.is_empty()).map(Secret::new))
}

/// As [`cdn_key_given`]; refused without a key where the CDN needs one.
pub(crate) fn cdn_key_again(f: &Fields<'_>, spec: &TaskSpec) -> Result<Secret, TaskError> {
    let key = cdn_key_given(f)?;
    let needed =
        spec.cdn.as_ref().and_then(|c| Auth::named(&c.authentication_type)).is_some_and(Auth::needs_key);
    if needed && key.is_none() {
        return Err(TaskError::CdnKey);
    }
    Ok(key.unwrap_or_default())
}

/// `source_cdn` of a reply, without its key.
pub(crate) fn shown_cdn(spec: &TaskSpec) -> Option<Value> {
    let cdn = spec.cdn.as_ref()?;
    Some(json!({
        "domain": cdn.domain, "protocol": cdn.protocol, "authentication_type": cdn.authentication_type
    }))
}

/// `smn_config`.
pub(crate) fn notify(f: &Fields<'_>) -> Result<Option<Notify>, TaskError> {
    let Some(smn) = f.opt_object("smn_config").map_err(field_error)? else { return Ok(None) };
    let conditions = smn.texts("trigger_conditions", 10, 100).map_err(field_error)?;
    if let Some(other) = conditions.iter().find(|c| !["SUCCESS", "FAILURE"].contains(&c.as_str())) {
        let why = format!("`{other}` is neither SUCCESS nor FAILURE");
        return Err(TaskError::Invalid(smn.name("trigger_conditions"), why));
    }
    let has = |word: &str| conditions.iter().any(|c| c == word);
    let template = smn.opt_text("message_template_name", 255).map_err(field_error)?.filter(|t| !t.is_empty());
    Ok(Some(Notify {
        topic_urn: smn.filled("topic_urn", 1024).map_err(field_error)?.to_owned(),
        success: has("SUCCESS"),
        failure: has("FAILURE"),
        language: known_value(&smn, "language", &["zh-cn", "en-us"])?.unwrap_or("en-us").to_owned(),
        template: template.map(str::to_owned),
    }))
}

/// What became of the notification, once that is known.
pub(crate) fn delivery(notification: Option<&Notification>) -> Option<(bool, String, String)> {
    let notification = notification?;
    match notification.state {
        DeliveryState::Due if notification.attempts == 0 => None,
        // The topic's name is told when something went wrong with it (oms.md §2.2, SmnInfo).
        DeliveryState::Delivered => Some((true, String::new(), String::new())),
        DeliveryState::Due | DeliveryState::GivenUp => {
            Some((false, notification.code.clone(), notification.topic.clone()))
        }
    }
}

/// `smn_info` of a task.
pub(crate) fn smn_info(shown: &TaskView) -> Option<Value> {
    let (result, code, topic) = delivery(shown.notification.as_ref())?;
    Some(json!({"notify_result": result, "notify_error_message": code, "topic_name": topic}))
}
