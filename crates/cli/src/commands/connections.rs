//! Connections of the API: how many there are, of whom, and which of them give way.

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

use crate::commands::worded::Worded;

/// Connections at once, and those of one address.
const PLACES: u64 = 1024;
const PLACES_EACH: u64 = 512;
/// Further ones that are answered about health only, once.
const RESERVE: u64 = 64;
const RESERVE_EACH: u64 = 8;
/// So long for a request's head, and between two requests; in the reserve, for everything.
const HEAD: Duration = Duration::from_secs(30);
const RESERVE_TIME: Duration = Duration::from_secs(5);
/// Largest head of a request.
const HEAD_MAX: usize = 64 << 10;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// So long the service waits, at its end, for requests that are being answered.
const GRACE: Duration = Duration::from_secs(5);
/// So long an answer may still be read by somebody who gives way.
const LEAVE: Duration = Duration::from_millis(500);
/// So long a new connection waits for one that gives way.
const GIVE_WAY: Duration = Duration::from_millis(50);

/// Who answers.
#[derive(Clone)]
pub(crate) struct Faces {
    pub(crate) all: axum::Router,
    /// For connections beyond the places that there are.
    pub(crate) health: axum::Router,
}

/// Who gives way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// No request on the connection has shown who sends it: it gives way whatever it does, since it may do nothing for long.
    Stranger,
    /// Its caller is known: it gives way between two requests.
    Known,
}

/// Connections that may be asked to leave: strangers before others, then those that wait longest.
#[derive(Clone, Default)]
struct Spare(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    last: u64,
    leave: BTreeMap<(Rank, u64), (IpAddr, CancellationToken)>,
}

impl Spare {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks one to leave, of that address if one is named; false when there is none.
    fn give_way(&self, of: Option<IpAddr>) -> bool {
        let mut waiting = self.waiting();
        let found = waiting.leave.iter().find(|(_, (who, _))| of.is_none_or(|of| of == *who));
        let Some(at) = found.map(|(at, _)| *at) else { return false };
        if let Some((_, leave)) = waiting.leave.remove(&at) {
            leave.cancel();
        }
        true
    }
}

/// One connection among the others.
struct Seat {
    spare: Spare,
    who: IpAddr,
    leave: CancellationToken,
    state: Mutex<State>,
}

struct State {
    rank: Rank,
    /// Where it stands among those that may be asked to leave.
    at: Option<(Rank, u64)>,
}

impl Seat {
    fn new(spare: &Spare, who: IpAddr) -> Arc<Self> {
        let state = Mutex::new(State { rank: Rank::Stranger, at: None });
        let seat = Self { spare: spare.clone(), who, leave: CancellationToken::new(), state };
        seat.may_leave();
        Arc::new(seat)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_leave(&self) {
        let mut state = self.state();
        if state.at.is_none() {
            let mut waiting = self.spare.waiting();
            waiting.last += 1;
            let at = (state.rank, waiting.last);
            waiting.leave.insert(at, (self.who, self.leave.clone()));
            state.at = Some(at);
        }
    }

    fn must_stay(&self) {
        if let Some(at) = self.state().at.take() {
            self.spare.waiting().leave.remove(&at);
        }
    }

    fn is_known(&self) -> bool {
        self.state().rank == Rank::Known
    }

    /// A request has shown who sends it.
    fn known(&self) {
        self.must_stay();
        self.state().rank = Rank::Known;
    }

    fn works(self: &Arc<Self>) -> Busy {
        if self.is_known() {
            self.must_stay();
        }
        Busy(self.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.must_stay();
    }
}

/// A request is being answered.
struct Busy(Arc<Seat>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.may_leave();
    }
}

/// Serves until `stop`, and then until what is being answered is answered.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: watch::Receiver<Option<TlsAcceptor>>,
    faces: Faces,
    stop: CancellationToken,
) {
    let places = CallerLimit::new(PLACES, PLACES_EACH);
    let reserve = CallerLimit::new(RESERVE, RESERVE_EACH);
    let spare = Spare::default();
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
        let (places, reserve, spare) = (places.clone(), reserve.clone(), spare.clone());
        let (faces, tls, stop) = (faces.clone(), tls.borrow().clone(), stop.clone());
        // Waiting for a place holds nobody else up.
        open.spawn(async move {
            let who = caller_of(peer.ip());
            let visit = match place(&places, &spare, who).await {
                Some(share) => Visit { router: faces.all, seat: Some(Seat::new(&spare, who)), _share: share },
                None => match reserve.reserve(who, 1) {
                    Some(share) => Visit { router: faces.health, seat: None, _share: share },
                    None => return,
                },
            };
            let time = if visit.seat.is_some() { Duration::MAX } else { RESERVE_TIME };
            let _ = tokio::time::timeout(time, visit.stay(stream, peer, tls, stop)).await;
        });
    }
    open.close();
    open.wait().await;
}

/// A place, for which another may have to give way: one of the same address, when that has all that it may have.
async fn place(places: &CallerLimit<IpAddr>, spare: &Spare, who: IpAddr) -> Option<Reservation<IpAddr>> {
    if let Some(share) = places.reserve(who, 1) {
        return Some(share);
    }
    let of = (places.reserved_by(&who) >= places.per_caller()).then_some(who);
    if !spare.give_way(of) {
        return None;
    }
    let left = async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if let Some(share) = places.reserve(who, 1) {
                return share;
            }
        }
    };
    tokio::time::timeout(GIVE_WAY, left).await.ok()
}

/// A connection while it is here.
struct Visit {
    router: axum::Router,
    /// None: in the reserve.
    seat: Option<Arc<Seat>>,
    _share: Reservation<IpAddr>,
}

impl Visit {
    async fn stay(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        tls: Option<TlsAcceptor>,
        stop: CancellationToken,
    ) {
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else { return self.speak(stream, peer, stop).await };
        let leave = self.seat.as_ref().map(|seat| seat.leave.clone()).unwrap_or_default();
        let handshake = tokio::select! {
            () = stop.cancelled() => return,
            () = leave.cancelled() => return,
            done = tokio::time::timeout(HANDSHAKE, tls.accept(stream)) => done,
        };
        if let Ok(Ok(stream)) = handshake {
            self.speak(stream, peer, stop).await;
        }
    }

    async fn speak<S>(self, stream: S, peer: SocketAddr, stop: CancellationToken)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let service = TowerToHyperService::new(self.router);
        let seat = self.seat.clone();
        let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            let busy = seat.as_ref().map(Seat::works);
            if let Some(seat) = seat.clone() {
                request.extensions_mut().insert(api::Recognised::new(move || seat.known()));
            }
            let answering = service.call(request);
            async move {
                let answer = answering.await;
                drop(busy);
                answer
            }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_MAX);
        // Names of headers have no case, but scripts look for `X-Subject-Token` with grep.
        builder.title_case_headers(true);
        builder.keep_alive(self.seat.is_some());
        let mut connection =
            std::pin::pin!(builder.serve_connection(TokioIo::new(Worded::new(stream)), answer));
        let asked_to_leave = || async {
            match &self.seat {
                Some(seat) => seat.leave.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = connection.as_mut() => return,
            () = stop.cancelled() => {}
            () = asked_to_leave() => {
                // Of a stranger nothing is waited for.
                if self.seat.as_ref().is_some_and(|seat| !seat.is_known()) {
                    return;
                }
            }
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection => {}
            () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => {}
            // Whoever does not read its answer does not keep its place.
            () = async { asked_to_leave().await; tokio::time::sleep(LEAVE).await } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[tokio::test]
    async fn sec_f06_strangers_give_way_first_and_who_works_last() {
        let (places, spare) = (CallerLimit::new(3, 3), Spare::default());
        let seat = || (places.reserve(A, 1).unwrap(), Seat::new(&spare, A));
        let (known, slow, idle) = (seat(), seat(), seat());
        known.1.known();
        drop(known.1.works());
        // A stranger whose request is under way, which may never come to its end.
        let _busy = slow.1.works();
        let mut others = vec![];
        for (stranger, why) in [(slow, "the first stranger"), (idle, "the second")] {
            let leave = stranger.1.leave.clone();
            tokio::spawn(async move {
                leave.cancelled().await;
                drop(stranger);
            });
            others.push(place(&places, &spare, B).await.unwrap_or_else(|| panic!("{why} stays")));
        }
        let busy = known.1.works();
        assert!(place(&places, &spare, B).await.is_none(), "who is known and works stays");
        drop(busy);
        assert!(!known.1.leave.is_cancelled() && spare.give_way(None) && known.1.leave.is_cancelled());
    }

    #[tokio::test]
    async fn sec_f06_an_address_with_all_its_places_gives_way_itself() {
        let (places, spare) = (CallerLimit::new(4, 2), Spare::default());
        let other = (places.reserve(B, 1).unwrap(), Seat::new(&spare, B));
        let own = (places.reserve(A, 1).unwrap(), Seat::new(&spare, A));
        let _second = (places.reserve(A, 1).unwrap(), Seat::new(&spare, A));
        let leave = own.1.leave.clone();
        tokio::spawn(async move {
            leave.cancelled().await;
            drop(own);
        });
        assert!(place(&places, &spare, A).await.is_some());
        assert!(!other.1.leave.is_cancelled());
    }
}
