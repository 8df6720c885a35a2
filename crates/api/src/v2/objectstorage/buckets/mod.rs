//! Reads of buckets before a task is created (oms.md §2.6). They are POST requests because the body has credentials.

pub(crate) mod cdn_info;
pub(crate) mod list;
pub(crate) mod objects;
pub(crate) mod prefix;
pub(crate) mod regions;
pub(crate) mod url_source_list_file;

use control::TaskError;
use control::buckets::StoreAccount;
use wire::fields::Fields;

use crate::error::field_error;
use crate::v2::credentials;
use crate::v2::vendors::VENDORS;

/// The account that every one of these bodies names.
pub(crate) fn account(f: &Fields<'_>) -> Result<StoreAccount, TaskError> {
    let known: Vec<&str> = VENDORS.iter().copied().chain(["HEC"]).collect();
    let cloud_type = f.one_of("cloud_type", &known).map_err(field_error)?;
    let app_id = f.opt_text("app_id", 255).map_err(field_error)?.unwrap_or_default();
    Ok(StoreAccount {
        cloud_type: cloud_type.to_owned(),
        app_id: app_id.to_owned(),
        keys: credentials::optional(f)?,
    })
}
