//! Clouds and regions.

pub(crate) mod cloud_type;
pub(crate) mod data_center;
