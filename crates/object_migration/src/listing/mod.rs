//! Reading listings: one from its beginning to its end, and the pages for the runners of ranges.

pub(crate) mod feed;
pub(crate) mod lister;
