//! Messages of the API in other languages than English.

pub(crate) mod zh;
