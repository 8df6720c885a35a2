//! A model of object stores: one store in memory whose behaviour is data, behind the trait that the engine uses.
//!
//! What real servers do wrong, each in its own way, is a field of [`Behaviour`]. A test draws one, runs the engine against it,
//! and looks at the objects afterwards.

mod behaviour;
mod store;

pub use behaviour::{Behaviour, EtagKind, KeptChecksums, Listing, ModelFault, Start};
pub use store::{Headers, Model, Object, headers_len};
