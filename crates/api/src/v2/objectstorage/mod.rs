//! Clouds, regions and buckets.

pub(crate) mod buckets;
pub(crate) mod cloud_type;
pub(crate) mod data_center;
