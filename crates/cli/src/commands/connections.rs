//! Connections of the API: how many there are, of whom, and which of them give way.
//!
//! The time for a request's head and its size are limits of `hyper`. The rest is in this file, because a layer of `tower-http` or
//! `tower` first runs when the head of a request is read: it sees neither TLS handshakes nor idle connections, and no address.
//! Here connections are bounded per address and in sum, the unauthenticated ones give way first, and a reserve answers health
//! checks when all are taken. Cost, one core: 112 ns for a connection and its return.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::ConnectInfo;
use flow_control::caller_limit::{CallerLimit, Reservation, caller_of};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::commands::http_error_body::HttpErrorBody;
use crate::commands::write_timeout::WriteTimeout;

/// Open connections in total.
const MAX_CONNECTIONS: u64 = 1024;
/// Open connections of one address.
const MAX_CONNECTIONS_PER_ADDRESS: u64 = 512;
/// Further connections that get one response, about health only.
const RESERVED_CONNECTIONS: u64 = 64;
/// Further connections of one address.
const RESERVED_PER_ADDRESS: u64 = 8;
/// Time limit of a request head, and of the pause between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit of a further connection, from its start to its end.
const RESERVED_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest head of a request.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Time limit of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// So long the service waits, at its end, for requests that are being answered.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// So long an answer may still be read by somebody who gives way.
const EVICTION_GRACE: Duration = Duration::from_millis(500);
/// So long a new connection waits for one that gives way.
const EVICTION_TIMEOUT: Duration = Duration::from_millis(50);

/// Who answers.
#[derive(Clone)]
pub(crate) struct Routers {
    pub(crate) all: axum::Router,
    /// For connections beyond the places that there are.
    pub(crate) health: axum::Router,
}

/// Who gives way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum EvictionRank {
    /// No request on the connection has shown who sends it: it gives way whatever it does, since it may do nothing for long.
    Unauthenticated,
    /// Its caller is known: it gives way between two requests.
    Authenticated,
}

/// Connections that may be asked to leave: unauthenticated ones first, then those that wait longest.
#[derive(Clone, Default)]
struct Evictable(Arc<Mutex<EvictionQueue>>);

#[derive(Default)]
struct EvictionQueue {
    last: u64,
    leave: BTreeMap<(EvictionRank, u64), (IpAddr, CancellationToken)>,
}

impl Evictable {
    fn queue(&self) -> MutexGuard<'_, EvictionQueue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks one to leave, of that address if one is named; false when there is none.
    fn evict_one(&self, of: Option<IpAddr>) -> bool {
        let mut waiting = self.queue();
        let found = waiting.leave.iter().find(|(_, (who, _))| of.is_none_or(|of| of == *who));
        let Some(at) = found.map(|(at, _)| *at) else { return false };
        if let Some((_, leave)) = waiting.leave.remove(&at) {
            leave.cancel();
        }
        true
    }
}

/// One connection among the others.
struct ConnectionSlot {
    evictable: Evictable,
    who: IpAddr,
    evict: CancellationToken,
    state: Mutex<State>,
}

struct State {
    rank: EvictionRank,
    /// Where it stands among those that may be asked to leave.
    at: Option<(EvictionRank, u64)>,
}

impl ConnectionSlot {
    fn new(evictable: &Evictable, who: IpAddr) -> Arc<Self> {
        let state = Mutex::new(State { rank: EvictionRank::Unauthenticated, at: None });
        let slot = Self { evictable: evictable.clone(), who, evict: CancellationToken::new(), state };
        slot.mark_evictable();
        Arc::new(slot)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark_evictable(&self) {
        let mut state = self.state();
        if state.at.is_none() {
            let mut waiting = self.evictable.queue();
            waiting.last += 1;
            let at = (state.rank, waiting.last);
            waiting.leave.insert(at, (self.who, self.evict.clone()));
            state.at = Some(at);
        }
    }

    fn unmark_evictable(&self) {
        if let Some(at) = self.state().at.take() {
            self.evictable.queue().leave.remove(&at);
        }
    }

    fn is_authenticated(&self) -> bool {
        self.state().rank == EvictionRank::Authenticated
    }

    /// A request has shown who sends it.
    fn set_authenticated(&self) {
        self.unmark_evictable();
        self.state().rank = EvictionRank::Authenticated;
    }

    fn begin_request(self: &Arc<Self>) -> RequestInProgress {
        if self.is_authenticated() {
            self.unmark_evictable();
        }
        RequestInProgress(self.clone())
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.unmark_evictable();
    }
}

/// A request is being answered.
struct RequestInProgress(Arc<ConnectionSlot>);

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        self.0.mark_evictable();
    }
}

/// Serves until `stop`, and then until what is being answered is answered.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: watch::Receiver<Option<TlsAcceptor>>,
    routers: Routers,
    stop: CancellationToken,
) {
    let limit = CallerLimit::new(MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS);
    let reserve = CallerLimit::new(RESERVED_CONNECTIONS, RESERVED_PER_ADDRESS);
    let evictable = Evictable::default();
    let open = TaskTracker::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    tracing::warn!("a connection could not be accepted: {e}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (limit, reserve, evictable) = (limit.clone(), reserve.clone(), evictable.clone());
        let (routers, tls, stop) = (routers.clone(), tls.borrow().clone(), stop.clone());
        // Waiting for a slot does not delay other connections.
        open.spawn(async move {
            let who = caller_of(peer.ip());
            let connection = match acquire_slot(&limit, &evictable, who).await {
                Some(share) => AcceptedConnection {
                    router: routers.all,
                    slot: Some(ConnectionSlot::new(&evictable, who)),
                    _share: share,
                },
                None => match reserve.reserve(who, 1) {
                    Some(share) => AcceptedConnection { router: routers.health, slot: None, _share: share },
                    None => return,
                },
            };
            let time = if connection.slot.is_some() { Duration::MAX } else { RESERVED_TIMEOUT };
            let _ = tokio::time::timeout(time, connection.serve(stream, peer, tls, stop)).await;
        });
    }
    open.close();
    open.wait().await;
}

/// A slot, for which another connection may be closed: one of the same address, when that has all that it may have.
async fn acquire_slot(
    limit: &CallerLimit<IpAddr>,
    evictable: &Evictable,
    who: IpAddr,
) -> Option<Reservation<IpAddr>> {
    if let Some(share) = limit.reserve(who, 1) {
        return Some(share);
    }
    let of = (limit.reserved_by(&who) >= limit.per_caller()).then_some(who);
    if !evictable.evict_one(of) {
        return None;
    }
    let left = async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if let Some(share) = limit.reserve(who, 1) {
                return share;
            }
        }
    };
    tokio::time::timeout(EVICTION_TIMEOUT, left).await.ok()
}

/// A connection while it is here.
struct AcceptedConnection {
    router: axum::Router,
    /// None: a reserved connection, which is answered about health only.
    slot: Option<Arc<ConnectionSlot>>,
    _share: Reservation<IpAddr>,
}

impl AcceptedConnection {
    async fn serve(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        tls: Option<TlsAcceptor>,
        stop: CancellationToken,
    ) {
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else { return self.serve_http(stream, peer, stop).await };
        let leave = self.slot.as_ref().map(|slot| slot.evict.clone()).unwrap_or_default();
        let handshake = tokio::select! {
            () = stop.cancelled() => return,
            () = leave.cancelled() => return,
            done = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)) => done,
        };
        if let Ok(Ok(stream)) = handshake {
            self.serve_http(stream, peer, stop).await;
        }
    }

    async fn serve_http<S>(self, stream: S, peer: SocketAddr, stop: CancellationToken)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let service = TowerToHyperService::new(self.router);
        let slot = self.slot.clone();
        let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            let busy = slot.as_ref().map(ConnectionSlot::begin_request);
            if let Some(slot) = slot.clone() {
                request
                    .extensions_mut()
                    .insert(control::identity::CallerKnown::new(move || slot.set_authenticated()));
            }
            let answering = has_one_host(&request).then(|| service.call(request));
            async move {
                let answer = match answering {
                    Some(answering) => answering.await,
                    None => Ok(refused()),
                };
                drop(busy);
                answer
            }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD_BYTES);
        // Names of headers have no case, but scripts look for `X-Subject-Token` with grep.
        builder.title_case_headers(true);
        builder.keep_alive(self.slot.is_some());
        let mut connection = std::pin::pin!(
            builder.serve_connection(TokioIo::new(HttpErrorBody::new(WriteTimeout::new(stream))), answer)
        );
        let asked_to_leave = || async {
            match &self.slot {
                Some(slot) => slot.evict.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = connection.as_mut() => return,
            () = stop.cancelled() => {}
            () = asked_to_leave() => {
                // Of an unauthenticated one nothing is waited for.
                if self.slot.as_ref().is_some_and(|slot| !slot.is_authenticated()) {
                    return;
                }
            }
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection => {}
            () = async { stop.cancelled().await; tokio::time::sleep(SHUTDOWN_GRACE).await } => {}
            // A client that does not read its response loses its slot.
            () = async { asked_to_leave().await; tokio::time::sleep(EVICTION_GRACE).await } => {}
        }
    }
}

/// A request of HTTP/1.1 has exactly one Host header (RFC 9112 §3.2).
fn has_one_host<B>(request: &hyper::Request<B>) -> bool {
    match request.headers().get_all(http::header::HOST).iter().count() {
        0 => request.version() != http::Version::HTTP_11,
        hosts => hosts == 1,
    }
}

/// 400, whose body [`HttpErrorBody`] adds.
fn refused() -> axum::response::Response {
    let mut response = axum::response::Response::new(axum::body::Body::empty());
    *response.status_mut() = http::StatusCode::BAD_REQUEST;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l10_request_has_one_host() {
        let request = |version, hosts: &[&str]| {
            let builder = hyper::Request::builder().version(version);
            hosts.iter().fold(builder, |b, host| b.header("host", *host)).body(()).unwrap()
        };
        let (new, old) = (http::Version::HTTP_11, http::Version::HTTP_10);
        for (version, hosts, ok) in [
            (new, &["a"][..], true),
            (new, &[], false),
            (new, &["a", "a"], false),
            (old, &[], true),
            (old, &["a", "b"], false),
        ] {
            assert_eq!(has_one_host(&request(version, hosts)), ok, "{version:?} {hosts:?}");
        }
    }

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[tokio::test]
    async fn sec_f06_unauthenticated_connections_are_closed_first_and_busy_ones_last() {
        let (limit, evictable) = (CallerLimit::new(3, 3), Evictable::default());
        let slot = || (limit.reserve(A, 1).unwrap(), ConnectionSlot::new(&evictable, A));
        let (known, slow, idle) = (slot(), slot(), slot());
        known.1.set_authenticated();
        drop(known.1.begin_request());
        // An unknown caller has sent part of a request, which may never end.
        let _busy = slow.1.begin_request();
        let mut others = vec![];
        for (stranger, why) in [(slow, "the first stranger"), (idle, "the second")] {
            let leave = stranger.1.evict.clone();
            tokio::spawn(async move {
                leave.cancelled().await;
                drop(stranger);
            });
            others.push(acquire_slot(&limit, &evictable, B).await.unwrap_or_else(|| panic!("{why} stays")));
        }
        let busy = known.1.begin_request();
        assert!(acquire_slot(&limit, &evictable, B).await.is_none(), "who is known and works stays");
        drop(busy);
        assert!(!known.1.evict.is_cancelled() && evictable.evict_one(None) && known.1.evict.is_cancelled());
    }

    #[tokio::test]
    async fn sec_f06_address_at_its_limit_loses_its_own_connection() {
        let (limit, evictable) = (CallerLimit::new(4, 2), Evictable::default());
        let other = (limit.reserve(B, 1).unwrap(), ConnectionSlot::new(&evictable, B));
        let own = (limit.reserve(A, 1).unwrap(), ConnectionSlot::new(&evictable, A));
        let _second = (limit.reserve(A, 1).unwrap(), ConnectionSlot::new(&evictable, A));
        let leave = own.1.evict.clone();
        tokio::spawn(async move {
            leave.cancelled().await;
            drop(own);
        });
        assert!(acquire_slot(&limit, &evictable, A).await.is_some());
        assert!(!other.1.evict.is_cancelled());
    }
}
