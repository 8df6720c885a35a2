//! Addresses of this service behind which a registered Redis stands, wherever a cut-over puts it. Bytes pass as they are;
//! whoever is connected when instances change places is cut off, and finds the other one when it comes back.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;

/// Connections of one instance at once; others wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 10_000;
/// Time limit of a connect to the server of an instance.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves an instance until `stop`.
pub async fn serve(engine: Arc<Engine>, id: String, listener: TcpListener, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let client = match accepted {
            Ok((client, _)) => client,
            Err(e) => {
                tracing::warn!(instance = %id, "cannot accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (engine, id, stop) = (engine.clone(), id.clone(), stop.clone());
        tokio::spawn(async move {
            relay(&engine, &id, client, &stop).await;
            drop(place);
        });
    }
}

async fn relay(engine: &Engine, id: &str, mut client: TcpStream, stop: &CancellationToken) {
    // Before it is asked where the instance stands, so that no change falls in between.
    let mut redirect_changes = engine.redirect_changes();
    redirect_changes.mark_unchanged();
    let Some(node) = current_node(engine, id).await else { return };
    let Some((host, port)) = node.addrs.first() else { return };
    let opening = node.egress.connect(host, host, *port);
    let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT_TIMEOUT, opening).await else {
        tracing::warn!(instance = %id, "cannot connect to {host}:{port}");
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = redirect_changes.changed() => {}
        () = stop.cancelled() => {}
    }
}

/// Where an instance stands now.
async fn current_node(engine: &Engine, id: &str) -> Option<redis_migration::Node> {
    let redirects = match engine.store().read().await {
        Ok(mut tx) => tx.redirects().await,
        Err(failure) => Err(failure),
    };
    let redirects = match redirects {
        Ok(redirects) => redirects,
        Err(failure) => {
            tracing::error!(instance = %id, "cannot look up the address: {failure}");
            return None;
        }
    };
    let at = redirects.iter().find(|(i, _)| i == id).map_or(id, |(_, stands)| stands);
    engine.resolver().instance(at).map(|instance| instance.node)
}
