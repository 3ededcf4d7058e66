//! The open connections: closes those that are stalled, and detects that a client is gone.
//!
//! The HTTP library limits how long the first request of a connection takes to arrive, and how long
//! a connection may be idle. But the first byte of a later request stops the idle timer, and the
//! rest of that request may never arrive.

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

/// How often the connections are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a connection may take to send its last response, in milliseconds.
const CLOSE_TIMEOUT: u64 = 2_000;
/// The value of `idle_since` while a request is being processed.
const BUSY: u64 = u64::MAX;

/// The client's end of a connection, as a waiting request observes it.
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
    /// When the connection became idle, in milliseconds since the start, or [`BUSY`].
    idle_since: AtomicU64,
}

/// An entry of the open connections. It is removed when the connection is closed.
pub(crate) struct Tracked {
    number: u64,
    connection: Arc<Connection>,
    connections: Arc<Connections>,
}

impl Connections {
    /// Creates the registry of connections that may be idle for `limit`.
    pub(crate) fn new(limit: Duration) -> Self {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(BUSY / 2);
        Self { start: Instant::now(), limit, next: AtomicU64::new(0), open: Mutex::default() }
    }

    /// Returns the milliseconds since the start plus the limit, so that it is never below the
    /// limit.
    fn now(&self) -> u64 {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(BUSY / 2);
        self.limit.saturating_add(elapsed).min(BUSY - 1)
    }

    /// Registers a new connection.
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
            // Too many open files: only the timeouts of the HTTP library apply.
            Err(error) => tracing::warn!(%error, "cannot track a connection"),
        }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.open.lock().expect("no holder panics")
    }

    /// Closes connections that are idle for too long, until `stop` is cancelled.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let now = self.now();
            for connection in self.all().values() {
                let since = connection.idle_since.load(Ordering::Relaxed);
                if since != BUSY && now.saturating_sub(since) > self.limit {
                    // The error of a connection that its client has just closed is ignored.
                    drop(connection.socket.shutdown(Shutdown::Both));
                }
            }
        }
    }
}

impl Tracked {
    /// Marks the connection as busy with a request.
    pub(crate) fn busy(&self) {
        self.connection.idle_since.store(BUSY, Ordering::Relaxed);
    }

    /// Marks the connection as idle.
    pub(crate) fn idle(&self) {
        self.connection.idle_since.store(self.connections.now(), Ordering::Relaxed);
    }

    /// Marks the connection to be closed soon, although the client may still send data.
    pub(crate) fn close_soon(&self) {
        let (now, limit) = (self.connections.now(), self.connections.limit);
        self.connection
            .idle_since
            .store(now + CLOSE_TIMEOUT - limit.max(CLOSE_TIMEOUT), Ordering::Relaxed);
    }
}

impl Tracked {
    /// Returns the client's end of the connection.
    pub(crate) fn peer(&self) -> Peer {
        Peer(Arc::clone(&self.connection))
    }
}

impl Peer {
    /// Completes when the client has closed its side of the connection, or both sides.
    ///
    /// The socket is registered with the runtime of this thread only while this is awaited.
    pub(crate) async fn closed(&self) {
        #[expect(deprecated, reason = "the new form is unsafe; this socket stays open meanwhile")]
        let registered = AsyncFd::with_interest(self, Interest::READABLE);
        // If the socket cannot be registered, the wait ends by its deadline.
        let Ok(socket) = registered else { return pending().await };
        while let Ok(mut readiness) = socket.ready(Interest::READABLE).await {
            if readiness.ready().is_read_closed() {
                return;
            }
            // The client has sent its next request.
            readiness.clear_ready();
        }
        pending::<()>().await;
    }

    /// Returns whether the client has closed its side, by asking the kernel.
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
