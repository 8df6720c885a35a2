//! What a task writes down for its user: reports of outcomes, and lists of objects at the target.

pub mod records;
pub mod table;
