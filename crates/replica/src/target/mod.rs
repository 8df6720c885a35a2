//! Where keys and changes go.

pub mod pipeline;
