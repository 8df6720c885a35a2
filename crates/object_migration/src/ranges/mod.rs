//! Ranges of the key space: which are worked on at once, how they are split, and how one of them is worked through.

pub(crate) mod key_distribution;
pub(crate) mod runner;
pub(crate) mod scheduler;
pub(crate) mod window;
