//! `POST /v2/{project_id}/privacy-agreements`: the user accepted the statement. The audit line of the call keeps
//! project, principal and time; nothing ever depends on it.

use crate::reply::{Reply, empty};

pub(crate) async fn handle() -> Reply {
    empty()
}
