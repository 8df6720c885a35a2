//! What the engine asks of the process that it runs in: stores, registered servers, webhooks and the hook of a cut-over.

use async_trait::async_trait;
use model::error::{Error, Kind, Result, Side};
use model::key::Key;
use model::migration::Own;
use model::selection::ListFile;
use model::spec::TaskSpec;
use redis_migration::Node;
use seal::Secret;
use storage::egress::Egress;
use storage::{Probe, SharedStore};
use store::TaskRow;

/// A store opened for one end of a task.
#[derive(Debug)]
pub struct OpenedStore {
    /// The connector.
    pub store: SharedStore,
    /// What the probe found.
    pub probe: Probe,
    /// Tasks whose ends have the same name share one adaptive limit.
    pub limit_key: String,
}

/// A backup file in its store.
#[derive(Debug)]
pub struct OpenedBackup {
    /// The store.
    pub store: SharedStore,
    /// Its key there.
    pub key: Key,
}

/// A Redis that the operator registered.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Identity.
    pub id: String,
    /// Name.
    pub name: String,
    /// Where it is, and who asks there.
    pub node: Node,
    /// What the operator has set for migrations from it or to it.
    pub own: Own,
    /// Ids of the projects that may use it.
    pub projects: Vec<String>,
}

/// A command of the operator that redirects clients; its standard input is a JSON object, and exit status 0 means that
/// it is done. It may be called again with the same object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook(pub Vec<String>);

/// The webhook of a topic.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// `http://` or `https://`.
    pub url: String,
    /// Signs the body; empty: unsigned.
    pub secret: Secret,
    /// Where the URL may lead.
    pub egress: Egress,
}

/// Opens the two ends of a task: the catalogue of a service, or the URLs of a command line.
#[async_trait]
pub trait StoreResolver: Send + Sync {
    /// Opens one end; `secrets` is the JSON that was sealed with the task.
    async fn open(&self, task: &TaskRow, secrets: &str, side: Side) -> Result<OpenedStore>;

    /// The webhook of a topic.
    fn webhook(&self, topic: &str) -> Option<Webhook> {
        let _ = topic;
        None
    }

    /// Where Redis addresses that users write may lead; nowhere unless this says so.
    fn egress(&self) -> Egress {
        Egress::default()
    }

    /// A registered Redis instance, where the configuration has it.
    fn instance(&self, id: &str) -> Option<Instance> {
        let _ = id;
        None
    }

    /// A file of a bucket of backups.
    async fn backup(&self, bucket: &str, file: &str) -> Result<OpenedBackup> {
        let _ = file;
        Err(Error::new(
            Kind::NoBucket,
            "import",
            format!("no [[bucket]] is configured with the name `{bucket}`"),
        ))
    }

    /// What redirects clients in a cut-over, in addition to the registry.
    fn hook(&self) -> Option<Hook> {
        None
    }

    /// The list files of a folder, for a task group.
    async fn lists(&self, spec: &TaskSpec, secrets: &str, folder: &ListFile) -> Result<Vec<String>> {
        let _ = (spec, secrets, folder);
        Err(Error::new(Kind::Unsupported, "task_group", "task groups are not supported here"))
    }
}
