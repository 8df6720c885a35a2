//! For tests and measurements only: an S3 server in this process that can be scripted, counted and broken, and real servers.

pub mod content;
pub mod faults;
pub mod fuzz;
pub mod keys;
pub mod model;
pub mod redis;
pub mod s3;
pub mod script;
pub mod servers;

pub use s3::{Bucket, Checksums, Options, S3Server};
pub use script::{Call, Script, Step};
