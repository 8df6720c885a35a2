//! Reading listings: one from its beginning to its end, and the pages that are handed to whoever works on them.

pub(crate) mod feed;
pub(crate) mod lister;
