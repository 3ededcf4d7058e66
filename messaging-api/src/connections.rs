//! The open connections, so that one whose client stops in the middle of a request is cut off.
//!
//! The HTTP library bounds the time that the first request of a connection takes to arrive, and how
//! long a connection may be idle; but the first byte of a later request ends the idleness, and the
//! rest of it may never come.

use std::{
    any::Any,
    collections::HashMap,
    future::pending,
    io::ErrorKind,
    mem::MaybeUninit,
    net::Shutdown,
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actix_web::{dev::Extensions, rt::net::TcpStream};
use socket2::{SockRef, Socket};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// How often the connections are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a connection that is to be closed gets for its last answer, in milliseconds.
const LINGER: u64 = 2_000;
/// Stands for "a request is being answered".
const BUSY: u64 = u64::MAX;

/// The client's end of a connection, as far as a waiting request must know it.
#[derive(Clone)]
pub(crate) struct Peer(Arc<Connection>);

/// All connections of a node.
pub(crate) struct Connections {
    start: Instant,
    /// Milliseconds that a connection may be idle.
    limit: u64,
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Connection>>>,
}

struct Connection {
    socket: Socket,
    /// Milliseconds since the start when it last had nothing to do, or [`BUSY`].
    idle_since: AtomicU64,
}

/// A connection's place among the open ones, which it leaves when it is closed.
pub(crate) struct Tracked {
    number: u64,
    connection: Arc<Connection>,
    connections: Arc<Connections>,
}

impl Connections {
    /// Connections that may be idle for `limit`.
    pub(crate) fn new(limit: Duration) -> Self {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(BUSY / 2);
        Self { start: Instant::now(), limit, next: AtomicU64::new(0), open: Mutex::default() }
    }

    /// Milliseconds since some moment before the start, so that it is never smaller than the limit.
    fn now(&self) -> u64 {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(BUSY / 2);
        self.limit.saturating_add(elapsed).min(BUSY - 1)
    }

    /// Takes note of a new connection.
    pub(crate) fn track(self: &Arc<Self>, io: &dyn Any, data: &mut Extensions) {
        let Some(stream) = io.downcast_ref::<TcpStream>() else { return };
        match SockRef::from(stream).try_clone() {
            Ok(socket) => {
                let connection =
                    Arc::new(Connection { socket, idle_since: AtomicU64::new(self.now()) });
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                self.all().insert(number, Arc::clone(&connection));
                data.insert(Tracked { number, connection, connections: Arc::clone(self) });
            }
            // Too many open files: the connection is bounded by its other timeouts alone.
            Err(error) => tracing::warn!(%error, "a connection cannot be watched"),
        }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.open.lock().expect("no holder panics")
    }

    /// Cuts off connections that have been idle for too long, until it is stopped.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            let now = self.now();
            for connection in self.all().values() {
                let since = connection.idle_since.load(Ordering::Relaxed);
                if since != BUSY && now.saturating_sub(since) > self.limit {
                    // It may be closed by its client at this very moment.
                    drop(connection.socket.shutdown(Shutdown::Both));
                }
            }
        }
    }
}

impl Tracked {
    /// A request has arrived.
    pub(crate) fn busy(&self) {
        self.connection.idle_since.store(BUSY, Ordering::Relaxed);
    }

    /// The request is answered.
    pub(crate) fn idle(&self) {
        self.connection.idle_since.store(self.connections.now(), Ordering::Relaxed);
    }

    /// The request is answered, and whatever the client goes on to send is not wanted.
    pub(crate) fn close_soon(&self) {
        let (now, limit) = (self.connections.now(), self.connections.limit);
        self.connection.idle_since.store(now + LINGER - limit.max(LINGER), Ordering::Relaxed);
    }
}

impl Tracked {
    /// Returns the client's end of the connection.
    pub(crate) fn peer(&self) -> Peer {
        Peer(Arc::clone(&self.connection))
    }
}

impl Peer {
    /// Completes when the client has closed its side of the connection, or all of it.
    ///
    /// The socket is registered with the runtime of this thread for as long as this is awaited.
    pub(crate) async fn closed(&self) {
        #[expect(deprecated, reason = "the new form is unsafe; this socket stays open meanwhile")]
        let registered = AsyncFd::with_interest(self, Interest::READABLE);
        // A socket that cannot be registered is not observed: the wait then ends by its deadline.
        let Ok(socket) = registered else { return pending().await };
        while let Ok(mut readiness) = socket.ready(Interest::READABLE).await {
            if readiness.ready().is_read_closed() {
                return;
            }
            // A further request of the same client has arrived.
            readiness.clear_ready();
        }
        pending::<()>().await;
    }

    /// Returns whether the client has closed its side, as the kernel knows it now.
    pub(crate) fn is_closed(&self) -> bool {
        match self.0.socket.peek(&mut [MaybeUninit::uninit()]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }
}

impl AsRawFd for &Peer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.socket.as_raw_fd()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.connections.all().remove(&self.number);
    }
}
