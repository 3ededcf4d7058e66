//! The servers of a pool: which one has a slot, how it is talked to, and what is done when it does
//! not answer.
//!
//! A call that may have been carried out is never sent twice; one that certainly was not (refused,
//! redirected, never sent) is tried again until its time is up.

mod cluster;
mod connect;
mod facts;
mod node;
mod replicas;
mod sentinel;

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::select_ok;
use redis::{Cmd, Value};
use storage_traits::{Result, pool::Durability};
use tokio::{sync::Notify, time::timeout};

use self::{cluster::Cluster, connect::Connector, node::Node, sentinel::Sentinel};
pub(crate) use self::{
    connect::Address,
    node::{Session, Signal},
};
use crate::{
    error::{Remedy, overloaded, remedy, unavailable, unexpected},
    library::LIBRARY,
    options::{Place, RedisOptions},
};

/// No server was connected to yet.
const UNKNOWN: u8 = u8::MAX;
/// How many calls may be under way.
const MAX_CALLS: usize = 8_192;
/// How long to wait before something is tried again, if nothing happens before.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the functions may be missing before a call gives up on loading them.
const MAX_LOADS: usize = 3;

/// Whether a call changes anything that its caller is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// It does: it is acknowledged when the replicas that are asked for have it.
    Change,
    /// It only reads or tidies up.
    Nothing,
}

/// The part of the keys that decides about their slot, 0 to 255.
pub(crate) type Shard = u8;

enum Topology {
    One(Arc<Node>),
    Sentinel(Sentinel),
    Cluster(Cluster),
}

/// All servers of a pool.
pub(crate) struct Servers {
    pub(crate) options: RedisOptions,
    topology: Topology,
    calls: AtomicUsize,
    closed: AtomicBool,
    durability: AtomicU8,
    /// Told when a server was connected to, or is known to be elsewhere.
    changed: Notify,
}

/// One call among those under way.
struct Call<'s>(&'s AtomicUsize);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Servers {
    pub(crate) fn new(options: RedisOptions) -> Self {
        let connector = Arc::new(Connector::new(&options));
        let node = |address| Arc::new(Node::new(address, &connector));
        let topology = match &options.place {
            Place::Tcp(host, port) => Topology::One(node(Address::Tcp(host.clone(), *port))),
            Place::Unix(path) => Topology::One(node(Address::Unix(path.clone()))),
            Place::Sentinel { sentinels, master } => {
                Topology::Sentinel(Sentinel::new(sentinels, master, &connector))
            }
            Place::Cluster(seeds) => Topology::Cluster(Cluster::new(seeds, &connector)),
        };
        Self {
            topology,
            calls: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            durability: AtomicU8::new(UNKNOWN),
            changed: Notify::new(),
            options,
        }
    }

    /// Connects to every master that can be reached, and refuses one that is not fit.
    pub(crate) async fn begin(&self) -> Result<()> {
        let mut shards = self.distinct_shards().await;
        if shards.is_empty() {
            // Then it is said why the map of the Cluster cannot be read.
            shards.push(0);
        }
        for shard in shards {
            match timeout(self.options.timeout, self.session(shard)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    if matches!(error, storage_traits::StoreError::Unexpected { .. }) {
                        return Err(error);
                    }
                    tracing::warn!(error = %Chain(&error), "redis cannot be reached; it is tried again");
                }
                Err(_) => tracing::warn!("redis does not answer; it is tried again"),
            }
        }
        Ok(())
    }

    /// What an acknowledgement means, as far as is known: the least of all servers that were
    /// connected to.
    pub(crate) fn durability(&self) -> Durability {
        match self.durability.load(Ordering::Relaxed) {
            // Whatever is connected to keeps at least what is demanded.
            UNKNOWN => self.options.durability,
            known if known == Durability::Memory as u8 => Durability::Memory,
            known if known == Durability::OsBuffer as u8 => Durability::OsBuffer,
            _ => Durability::Fsync,
        }
    }

    /// Whether all queues are on one server.
    pub(crate) const fn is_one_server(&self) -> bool {
        !matches!(self.topology, Topology::Cluster(_))
    }

    /// Shards that stand for all masters: at least one of each.
    async fn distinct_shards(&self) -> Vec<Shard> {
        match &self.topology {
            Topology::One(_) | Topology::Sentinel(_) => vec![0],
            Topology::Cluster(cluster) => cluster.distinct_shards(self.options.timeout).await,
        }
    }

    /// The node that has a shard, as far as is known.
    async fn node(&self, shard: Shard) -> Result<Arc<Node>> {
        match &self.topology {
            Topology::One(node) => Ok(Arc::clone(node)),
            Topology::Sentinel(sentinel) => sentinel.node().await,
            Topology::Cluster(cluster) => cluster.node(shard).await,
        }
    }

    /// A node turned out to be dead or wrong.
    fn doubt(&self, node: &Arc<Node>) {
        match &self.topology {
            Topology::One(_) => {}
            Topology::Sentinel(sentinel) => sentinel.doubt(node),
            Topology::Cluster(cluster) => cluster.doubt(),
        }
    }

    /// A live session with the server that has a shard.
    pub(crate) async fn session(&self, shard: Shard) -> Result<Arc<Session>> {
        let node = self.node(shard).await?;
        match node.session().await {
            Ok(session) => {
                self.learn(&session);
                Ok(session)
            }
            Err(error) => {
                self.doubt(&node);
                Err(error)
            }
        }
    }

    fn learn(&self, session: &Session) {
        if session.is_new() {
            let known = session.durability as u8;
            match self.topology {
                Topology::Cluster(_) => {
                    // What is unknown is greater than all.
                    let least = |old: u8| Some(old.min(known));
                    // Cannot fail: the closure always has an answer.
                    let _ =
                        self.durability.fetch_update(Ordering::Relaxed, Ordering::Relaxed, least);
                }
                _ => self.durability.store(known, Ordering::Relaxed),
            }
            self.changed.notify_waiters();
        }
    }

    /// Calls a function on the server that has a shard.
    pub(crate) async fn call(
        &self,
        shard: Shard,
        promise: Promise,
        function: &Function,
    ) -> Result<Value> {
        self.command(shard, promise, &function.0).await
    }

    /// Calls a function and sends a reading command behind it, in one transaction; `None` if that did
    /// not succeed, for a reason that shows when the function is called by itself.
    pub(crate) async fn both(
        &self,
        shard: Shard,
        function: &Function,
        command: &Cmd,
    ) -> Result<Option<(Value, Value)>> {
        let _call = self.begin_call()?;
        let mut both = redis::pipe();
        both.atomic().add_command(function.0.clone()).add_command(command.clone());
        let (start, mut current) = (Instant::now(), None);
        let work = async {
            let session = self.session(shard).await?;
            current = Some(Arc::clone(&session));
            session.transact(&both).await.map_err(unavailable)
        };
        match timeout(self.options.timeout, work).await {
            Ok(Ok(values)) => Ok(Some(values)),
            // There is time left for the call by itself, which is tried again if that may help.
            Ok(Err(_)) if start.elapsed() < self.options.timeout / 4 => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Self::give_up(current.as_ref())),
        }
    }

    /// What hangs is not waited for any longer, and nothing more is sent to it.
    fn give_up(session: Option<&Arc<Session>>) -> storage_traits::StoreError {
        if let Some(session) = session {
            session.end();
        }
        unavailable("redis did not answer in time")
    }

    /// Counts a call among those under way, if there is room for it.
    fn begin_call(&self) -> Result<Call<'_>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(unavailable("the pool is closed"));
        }
        let call = Call(&self.calls);
        if call.0.fetch_add(1, Ordering::Relaxed) >= MAX_CALLS {
            return Err(overloaded());
        }
        Ok(call)
    }

    /// Sends a command to the server that has a shard.
    pub(crate) async fn command(
        &self,
        shard: Shard,
        promise: Promise,
        command: &Cmd,
    ) -> Result<Value> {
        let _call = self.begin_call()?;
        let deadline = Instant::now() + self.options.timeout;
        let mut current = None;
        let work = self.work(shard, promise, command, deadline, &mut current);
        if let Ok(result) = timeout(self.options.timeout, work).await {
            return result;
        }
        Err(Self::give_up(current.as_ref()))
    }

    async fn work(
        &self,
        shard: Shard,
        promise: Promise,
        command: &Cmd,
        deadline: Instant,
        current: &mut Option<Arc<Session>>,
    ) -> Result<Value> {
        let (mut asked, mut loads) = (None, 0);
        loop {
            let node = match asked.take() {
                Some(node) => Ok((node, true)),
                None => self.node(shard).await.map(|node| (node, false)),
            };
            let (node, asking) = match node {
                Ok(found) => found,
                Err(error) => {
                    self.pause(deadline, error).await?;
                    continue;
                }
            };
            let session = match node.session().await {
                Ok(session) => session,
                Err(error) => {
                    self.doubt(&node);
                    self.pause(deadline, error).await?;
                    continue;
                }
            };
            self.learn(&session);
            *current = Some(Arc::clone(&session));
            let error = match session.send(command, asking).await {
                Ok(value) => {
                    if promise == Promise::Change && self.options.replicas > 0 {
                        self.replicate(shard, &session, deadline).await?;
                    }
                    return Ok(value);
                }
                Err(error) => error,
            };
            match remedy(error) {
                Remedy::Load if loads < MAX_LOADS => {
                    loads += 1;
                    session.load().await?;
                }
                Remedy::Load => return Err(unexpected("a function stays unknown to redis")),
                Remedy::Moved(address) => match &self.topology {
                    Topology::Cluster(cluster) => cluster.moved(shard, &address, &node)?,
                    _ => return Err(unexpected("this is a Cluster; write redis+cluster://")),
                },
                Remedy::Ask(address) => match &self.topology {
                    Topology::Cluster(cluster) => asked = Some(cluster.named(&address, &node)?),
                    _ => return Err(unexpected("this is a Cluster; write redis+cluster://")),
                },
                // The slot is on its way to another node.
                Remedy::Again => {
                    self.pause(deadline, unavailable("a slot of the Cluster moves")).await?;
                }
                Remedy::Later => {
                    // It may be the master no longer: look again who is.
                    session.end();
                    self.doubt(&node);
                    self.pause(deadline, unavailable("redis is not ready")).await?;
                }
                Remedy::Reconnect => {
                    session.end();
                    self.doubt(&node);
                    return Err(unavailable("the connection to redis broke"));
                }
                Remedy::GiveUp(error) => return Err(error),
            }
        }
    }

    async fn replicate(
        &self,
        shard: Shard,
        session: &Arc<Session>,
        deadline: Instant,
    ) -> Result<()> {
        let key = format!("{}:{{{shard}}}:replicated", self.options.prefix);
        session.replicated(&key, deadline).await.map_err(|error| {
            if error.is_io_error() || error.is_unrecoverable_error() {
                session.end();
            }
            unavailable(error)
        })
    }

    /// Waits a moment, if there is time for another try; otherwise gives up with the error.
    async fn pause(&self, deadline: Instant, error: storage_traits::StoreError) -> Result<()> {
        let is_final = matches!(error, storage_traits::StoreError::Unexpected { .. });
        // One server that cannot be reached is not waited for: whoever asks knows best when to ask
        // again.
        let can_change = !matches!(self.topology, Topology::One(_));
        if is_final || !can_change || Instant::now() + PAUSE >= deadline {
            return Err(error);
        }
        // Whether something has happened or not: it is tried again.
        let _ = timeout(PAUSE, self.changed.notified()).await;
        Ok(())
    }

    /// Lets go of all connections; calls after it fail.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        match &self.topology {
            Topology::One(node) => node.end(),
            Topology::Sentinel(sentinel) => sentinel.end(),
            Topology::Cluster(cluster) => cluster.end(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Answers if a master takes changes. One of several that is down takes its queues along, but not
    /// the node.
    pub(crate) async fn check(&self) -> Result<()> {
        let mut shards = self.distinct_shards().await;
        if shards.is_empty() {
            shards.push(0);
        }
        let check = async |shard: Shard| {
            let key = format!("{}:{{{shard}}}:check", self.options.prefix);
            let mut command = Cmd::new();
            command.arg("SET").arg(key).arg(1).arg("EX").arg(60);
            self.command(shard, Promise::Nothing, &command).await
        };
        let all = shards.into_iter().map(|shard| Box::pin(check(shard)));
        select_ok(all).await.map(drop)
    }
}

/// An error with its causes.
struct Chain<'e>(&'e (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// A call of a function, with its keys and arguments.
pub(crate) struct Function(Cmd);

impl Function {
    /// Begins a call.
    pub(crate) fn new(name: &str, keys: &[&str]) -> Self {
        let mut command = Cmd::new();
        command.arg("FCALL").arg(LIBRARY.name(name)).arg(keys.len());
        for key in keys {
            command.arg(*key);
        }
        Self(command)
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, number: i64) -> &mut Self {
        self.0.arg(number);
        self
    }

    /// Adds text or bytes.
    pub(crate) fn bytes(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.arg(bytes.as_ref());
        self
    }
}

/// Which of `count` connections the calling thread takes: each thread the same one, so that its
/// requests share a connection that lives where they do.
pub(crate) fn lane(count: NonZeroUsize) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    MINE.with(|mine| *mine % count)
}
