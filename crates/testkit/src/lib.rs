//! For tests and measurements only: an S3 server in this process that can be scripted, counted and broken.

pub mod content;
pub mod faults;
pub mod keys;
pub mod s3;
pub mod servers;

pub use s3::{Bucket, Options, S3Server};
