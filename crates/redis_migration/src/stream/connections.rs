//! The connections of one session.

use model::error::{Kind, Result, Side};

use crate::connection::client::{Client, KEEP_ALIVE_INTERVAL};
use crate::connection::node::Node;
use crate::connection::query_client::QueryClient;
use crate::connection::server::ServerInfo;
use crate::target::Writer;

/// Why one attempt ended well.
pub(crate) enum SessionEnd {
    Done,
    Stopped,
}

/// Connections of one attempt.
pub(crate) struct Connections {
    /// For queries to the source.
    pub(crate) source: Client,
    /// For queries to the target.
    pub(crate) target: QueryClient,
    /// What the source is.
    pub(crate) source_info: ServerInfo,
    /// What the target is.
    pub(crate) target_info: ServerInfo,
    /// For writing to the target.
    pub(crate) writer: Writer,
    /// The target runs scripts, by which keys are watched there.
    pub(crate) can_run_scripts: bool,
    /// Where the source is asked.
    pub(crate) source_node: Node,
    /// The fencing token of this run.
    pub(crate) token: String,
    /// The fencing token, where an earlier run cannot be disconnected: it is verified again and again.
    pub(crate) token_to_verify: Option<String>,
}

impl Connections {
    /// The connection for queries to the source was idle while the snapshot was loaded: it is opened again if the source
    /// has closed it.
    pub(crate) async fn reconnect_idle_source(&mut self) -> Result<()> {
        let idle = self.source.last_reply_at.elapsed() > KEEP_ALIVE_INTERVAL;
        if idle && self.source.execute(&[b"PING"]).await.is_err_and(|f| f.kind == Kind::Connect) {
            self.source = Client::open(&self.source_node).await.map_err(|f| f.at(Side::Source))?;
        }
        Ok(())
    }
}
