//! The servers of a pool: finds the one that has a shard, sends commands to it, and recovers when
//! it fails.
//!
//! A command that may have been executed is never sent again. One that certainly was not (refused,
//! redirected, never sent) is sent again until its time is up.

mod cluster;
mod connect;
mod connection_index;
mod function;
mod node;
mod replicas;
mod sentinel;
mod server_info;
mod session;
mod topology;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::select_ok;
use redis::{Cmd, Value};
use storage_traits::{Result, StoreError, domain::Incarnation, pool::Durability};
use tokio::{sync::Notify, time::timeout};

pub(crate) use self::{
    connection_index::connection_index,
    function::Function,
    session::{Event, Session},
};
use self::{node::Node, topology::Topology};
use crate::{
    error::{ErrorChain, Recovery, classify, overloaded, unavailable, unexpected},
    keys::{Keys, Shard, shard_of},
    options::RedisOptions,
};

/// Durability before the first connection.
const UNKNOWN: u8 = u8::MAX;
/// Maximum number of calls in flight.
const MAX_CALLS: usize = 8_192;
/// How long to wait before a command is sent again, unless a connection is made before.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How often a call loads the functions before it fails.
const MAX_LOADS: usize = 3;

/// Whether a call waits until the required replicas have its change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replication {
    /// The call changes something that its caller is told is stored.
    Wait,
    /// The call only reads, or applies what is due.
    Skip,
}

/// The servers of a pool.
pub(crate) struct Servers {
    pub(crate) options: RedisOptions,
    pub(crate) keys: Keys,
    topology: Topology,
    calls_in_flight: AtomicUsize,
    closed: AtomicBool,
    durability: AtomicU8,
    /// Notified when a session starts.
    connected: Notify,
}

/// Counts a call among those in flight until it is dropped.
struct CallPermit<'s>(&'s AtomicUsize);

impl Drop for CallPermit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Servers {
    pub(crate) fn new(options: RedisOptions) -> Self {
        Self {
            keys: Keys::new(&options.prefix),
            topology: Topology::new(&options),
            calls_in_flight: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            durability: AtomicU8::new(UNKNOWN),
            connected: Notify::new(),
            options,
        }
    }

    /// Connects to every master that can be reached.
    ///
    /// # Errors
    /// [`StoreError::Unexpected`] if a master does not meet the requirements.
    pub(crate) async fn connect_all(&self) -> Result<()> {
        for shard in self.distinct_shards().await {
            match timeout(self.options.timeout, self.session(shard)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error @ StoreError::Unexpected { .. })) => return Err(error),
                Ok(Err(error)) => {
                    let error = ErrorChain(&error);
                    tracing::warn!(%error, "cannot reach redis; calls will try to connect again");
                }
                Err(_) => {
                    tracing::warn!("redis does not respond; calls will try to connect again");
                }
            }
        }
        Ok(())
    }

    /// Returns what an acknowledgement means, as far as is known: the least of all servers that the
    /// pool has connected to.
    pub(crate) fn durability(&self) -> Durability {
        match self.durability.load(Ordering::Relaxed) {
            // A server that keeps less than the options demand is never connected to.
            UNKNOWN => self.options.durability,
            known if known == Durability::Memory as u8 => Durability::Memory,
            known if known == Durability::OsBuffer as u8 => Durability::OsBuffer,
            _ => Durability::Fsync,
        }
    }

    /// Returns whether all queues are on one server.
    pub(crate) const fn is_one_server(&self) -> bool {
        self.topology.is_one_server()
    }

    /// Returns at least one shard of each master. If the slot map of a Cluster cannot be read,
    /// returns a shard whose use fails with the reason.
    async fn distinct_shards(&self) -> Vec<Shard> {
        let mut shards = self.topology.distinct_shards(self.options.timeout).await;
        if shards.is_empty() {
            shards.push(0);
        }
        shards
    }

    /// Returns a live session with the server that has a shard.
    pub(crate) async fn session(&self, shard: Shard) -> Result<Arc<Session>> {
        let node = self.topology.node(shard).await?;
        self.session_with(&node).await
    }

    async fn session_with(&self, node: &Arc<Node>) -> Result<Arc<Session>> {
        match node.session().await {
            Ok(session) => {
                self.record_durability(&session);
                Ok(session)
            }
            Err(error) => {
                self.topology.invalidate(node);
                Err(error)
            }
        }
    }

    fn record_durability(&self, session: &Session) {
        if session.is_new() {
            let durability = session.durability as u8;
            if self.topology.is_one_server() {
                self.durability.store(durability, Ordering::Relaxed);
            } else {
                // `UNKNOWN` is greater than every durability.
                self.durability.fetch_min(durability, Ordering::Relaxed);
            }
            self.connected.notify_waiters();
        }
    }

    /// Creates a call about a queue or group: it names the key of the state, the registry and the
    /// guard.
    pub(crate) fn function(&self, name: &str, incarnation: Incarnation) -> Function {
        let shard = shard_of(incarnation);
        let (registry, guard) = (self.keys.registry(shard), self.keys.guard(shard));
        Function::new(name, &[&self.keys.state(incarnation), &registry, &guard])
    }

    /// Calls a function on the server that has a shard.
    pub(crate) async fn call(
        &self,
        shard: Shard,
        replication: Replication,
        function: &Function,
    ) -> Result<Value> {
        self.command(shard, replication, &function.0).await
    }

    /// Calls a function and sends a reading command after it, in one transaction. Returns `None` if
    /// that failed: the caller then calls the function by itself, which recovers or reports the
    /// error.
    pub(crate) async fn call_and_read(
        &self,
        shard: Shard,
        function: &Function,
        command: &Cmd,
    ) -> Result<Option<(Value, Value)>> {
        let _permit = self.acquire_permit()?;
        let mut transaction = redis::pipe();
        transaction.atomic().add_command(function.0.clone()).add_command(command.clone());
        let (start, mut current) = (Instant::now(), None);
        let execute = async {
            let session = self.session(shard).await?;
            current = Some(Arc::clone(&session));
            session.transact(&transaction).await.map_err(unavailable)
        };
        match timeout(self.options.timeout, execute).await {
            Ok(Ok(values)) => Ok(Some(values)),
            // There is time left for the call by itself.
            Ok(Err(_)) if start.elapsed() < self.options.timeout / 4 => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Self::time_out(current.as_ref())),
        }
    }

    /// Closes the session of a call that took too long, and returns the error.
    fn time_out(session: Option<&Arc<Session>>) -> StoreError {
        if let Some(session) = session {
            session.close();
        }
        unavailable("redis did not respond in time")
    }

    /// Counts a call among those in flight.
    fn acquire_permit(&self) -> Result<CallPermit<'_>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(unavailable("the pool is closed"));
        }
        let permit = CallPermit(&self.calls_in_flight);
        if permit.0.fetch_add(1, Ordering::Relaxed) >= MAX_CALLS {
            return Err(overloaded());
        }
        Ok(permit)
    }

    /// Sends a command to the server that has a shard.
    pub(crate) async fn command(
        &self,
        shard: Shard,
        replication: Replication,
        command: &Cmd,
    ) -> Result<Value> {
        let _permit = self.acquire_permit()?;
        let deadline = Instant::now() + self.options.timeout;
        let mut current = None;
        let execute = self.execute(shard, replication, command, deadline, &mut current);
        if let Ok(result) = timeout(self.options.timeout, execute).await {
            return result;
        }
        Err(Self::time_out(current.as_ref()))
    }

    /// Sends a command until it succeeds or cannot be sent again; `current` is the session in use.
    async fn execute(
        &self,
        shard: Shard,
        replication: Replication,
        command: &Cmd,
        deadline: Instant,
        current: &mut Option<Arc<Session>>,
    ) -> Result<Value> {
        let (mut importing_node, mut loads) = (None, 0);
        loop {
            let node = match importing_node.take() {
                Some(node) => Ok((node, true)),
                None => self.topology.node(shard).await.map(|node| (node, false)),
            };
            let (node, asking) = match node {
                Ok(found) => found,
                Err(error) => {
                    self.pause(deadline, error).await?;
                    continue;
                }
            };
            let session = match self.session_with(&node).await {
                Ok(session) => session,
                Err(error) => {
                    self.pause(deadline, error).await?;
                    continue;
                }
            };
            *current = Some(Arc::clone(&session));
            let functions_seen = session.loads();
            let error = match session.send(command, asking).await {
                Ok(value) => {
                    if replication == Replication::Wait && self.options.replicas > 0 {
                        self.wait_replicated(shard, &session, deadline).await?;
                    }
                    return Ok(value);
                }
                Err(error) => error,
            };
            match classify(error) {
                Recovery::LoadFunctions if loads < MAX_LOADS => {
                    loads += 1;
                    session.load_functions(functions_seen).await?;
                }
                Recovery::LoadFunctions => {
                    return Err(unexpected("a function stays unknown to redis"));
                }
                Recovery::Moved(address) => {
                    self.topology.cluster()?.record_move(shard, &address, &node)?;
                }
                Recovery::Ask(address) => {
                    importing_node = Some(self.topology.cluster()?.node_at(&address, &node)?);
                }
                Recovery::Retry => {
                    self.pause(deadline, unavailable("a slot of the Cluster is moving")).await?;
                }
                Recovery::RetryElsewhere => {
                    session.close();
                    self.topology.invalidate(&node);
                    self.pause(deadline, unavailable("redis is not ready")).await?;
                }
                Recovery::Reconnect => {
                    session.close();
                    self.topology.invalidate(&node);
                    return Err(unavailable("the connection to redis broke"));
                }
                Recovery::Fail(error) => return Err(error),
            }
        }
    }

    async fn wait_replicated(
        &self,
        shard: Shard,
        session: &Arc<Session>,
        deadline: Instant,
    ) -> Result<()> {
        let key = self.keys.replicated(shard);
        session.wait_replicated(&key, deadline).await.map_err(|error| {
            if error.is_io_error() || error.is_unrecoverable_error() {
                session.close();
            }
            unavailable(error)
        })
    }

    /// Waits for a moment, if there is time for another attempt; otherwise returns the error.
    async fn pause(&self, deadline: Instant, error: StoreError) -> Result<()> {
        let is_final = matches!(error, StoreError::Unexpected { .. });
        // If no other server can take over, the caller decides when to try again.
        let can_recover = !is_final && self.topology.can_change();
        if !can_recover || Instant::now() + RETRY_PAUSE >= deadline {
            return Err(error);
        }
        // The command is sent again, whichever of the two ended the pause.
        let _ = timeout(RETRY_PAUSE, self.connected.notified()).await;
        Ok(())
    }

    /// Closes all connections; later calls fail.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.topology.close();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Succeeds if at least one master accepts writes. A master that is down makes its queues
    /// unavailable, but not the node.
    pub(crate) async fn check(&self) -> Result<()> {
        let check = async |shard: Shard| {
            let mut command = Cmd::new();
            command.arg("SET").arg(self.keys.check(shard)).arg(1).arg("EX").arg(60);
            self.command(shard, Replication::Skip, &command).await
        };
        let shards = self.distinct_shards().await;
        let checks = shards.into_iter().map(|shard| Box::pin(check(shard)));
        select_ok(checks).await.map(drop)
    }
}
