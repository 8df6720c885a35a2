//! Credentials as every body spells them: in nodes (`ak`), or flat with a side in front (`src_ak`); keys, Azure's
//! connection string, or Google's key file (oms.md §2.2, §2.3).

use control::TaskError;
use control::secrets::StoreCredentials;
use seal::Secret;
use wire::fields::Fields;

use crate::error::field_error;
use crate::v2::tasks::known_value;

/// Refuses credentials that a key service protects: there is none here (oms.md §2.2).
pub(crate) fn no_kms(node: &Fields<'_>, field: &str) -> Result<(), TaskError> {
    match known_value(node, field, &["DEFAULT", "KMS"])? {
        Some("KMS") => Err(TaskError::Invalid(
            node.name(field),
            "no key management service is configured; hint: send the keys in plain text".into(),
        )),
        _ => Ok(()),
    }
}

/// Credentials of a node.
pub(crate) fn node(f: &Fields<'_>) -> Result<StoreCredentials, TaskError> {
    no_kms(f, "crypto_type")?;
    read(f, "", "", true)
}

/// Credentials of a flat body, where a key file or connection string without a side belongs to the source.
pub(crate) fn flat(f: &Fields<'_>, side: &str) -> Result<StoreCredentials, TaskError> {
    no_kms(f, &format!("{side}_crypto_type"))?;
    let other = if side == "src" { "" } else { "dst_" };
    read(f, &format!("{side}_"), other, true)
}

/// As [`flat`], of a body that may leave them out.
pub(crate) fn flat_given(f: &Fields<'_>, side: &str) -> Result<Option<StoreCredentials>, TaskError> {
    let other = if side == "src" { "" } else { "dst_" };
    let names = [
        format!("{side}_ak"),
        format!("{side}_sk"),
        format!("{other}connection_string"),
        format!("{other}json_auth_file"),
    ];
    names.iter().any(|name| f.has(name)).then(|| flat(f, side)).transpose()
}

/// Credentials of somebody who may have none, as for looking at an open bucket.
pub(crate) fn optional(f: &Fields<'_>) -> Result<StoreCredentials, TaskError> {
    no_kms(f, "crypto_type")?;
    read(f, "", "", false)
}

/// An account's shared access signature may stand in place of its key, and is longer than the 100 of oms.md §2.2.
const SK_MAX: usize = 2048;

fn read(f: &Fields<'_>, pair: &str, other: &str, required: bool) -> Result<StoreCredentials, TaskError> {
    let secret = |name: String, max: usize| -> Result<Option<Secret>, TaskError> {
        let text = f.opt_text(&name, max).map_err(field_error)?.filter(|t| !t.is_empty());
        Ok(text.map(Secret::new))
    };
    let connection_string = secret(format!("{other}connection_string"), 2048)?;
    let json_auth = secret(format!("{other}json_auth_file"), 65_535)?;
    let (ak, sk) = (format!("{pair}ak"), format!("{pair}sk"));
    let needed = required && connection_string.is_none() && json_auth.is_none();
    let text = |name: &str, max: usize| match needed {
        true => f.filled(name, max).map_err(field_error),
        false => f.opt_text(name, max).map_err(field_error).map(Option::unwrap_or_default),
    };
    Ok(StoreCredentials {
        ak: text(&ak, 100)?.to_owned(),
        sk: Secret::new(text(&sk, SK_MAX)?),
        token: secret(format!("{pair}security_token"), 16_384)?,
        connection_string,
        json_auth,
    })
}
