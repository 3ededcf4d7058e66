//! The connection to the servers: discovery, topology and retries.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use mongodb::{
    Client, Collection, Database,
    bson::{Bson, DateTime, Document, doc, oid::ObjectId, serialize_to_bson},
    options::{
        Acknowledgment, ClientOptions, CollectionOptions, ReadConcern, ServerAddress, WriteConcern,
    },
};
use storage_traits::{Result, StoreError, pool::Durability, random::jitter};
use tokio::{
    runtime::Handle,
    sync::{OnceCell, watch},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    error::{UnsupportedServer, is_transient, store_error, unavailable, unexpected},
    options::MongoOptions,
};

/// How long to wait at most before a retry, at first and after many attempts.
const BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// The oldest supported wire protocol version: that of MongoDB 5.0.
const WIRE_VERSION: i32 = 13;

/// How the servers are deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topology {
    /// One server without a replica set: no transactions, no failover.
    Standalone,
    /// A replica set, which may have one member.
    Set,
    /// Shards behind `mongos`.
    Sharded,
}

/// What a server reports in its reply to `hello`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ServerInfo {
    topology: Topology,
    /// How many members hold the data, if known.
    members: Option<usize>,
}

/// The servers of a catalog or a pool.
pub(crate) struct Server {
    options: MongoOptions,
    /// Empty until the hosts are resolved.
    database: OnceCell<Database>,
    /// Used in place of `database` until then.
    unreachable: OnceLock<Database>,
    /// Empty until a server has been reached.
    info: OnceCell<ServerInfo>,
    calls: watch::Sender<usize>,
    closed: watch::Sender<bool>,
    /// The runtime that opened this. A caller may run on another one, which ends earlier.
    runtime: Handle,
}

/// Counts a call as in flight until it is dropped.
struct Call<'s>(&'s watch::Sender<usize>);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|calls| *calls -= 1);
    }
}

impl Server {
    /// Connects. If no server can be reached, each later call tries again.
    ///
    /// # Errors
    /// [`Unexpected`](StoreError::Unexpected) if a server can be reached but is unsupported.
    pub(crate) async fn open(options: MongoOptions) -> Result<Arc<Self>> {
        let server = Arc::new(Self {
            options,
            database: OnceCell::new(),
            unreachable: OnceLock::new(),
            info: OnceCell::new(),
            calls: watch::Sender::new(0),
            closed: watch::Sender::new(false),
            runtime: Handle::current(),
        });
        match timeout(server.timeout(), server.connect()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => match store_error(error) {
                error @ StoreError::Unexpected { .. } => return Err(error),
                error => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "mongodb cannot be reached; will retry"
                ),
            },
            Err(_) => tracing::warn!("mongodb does not respond; will retry"),
        }
        Ok(server)
    }

    /// Returns the database. Before the servers were reached, this is one that cannot be reached;
    /// within [`Server::retry`] it is always the real one.
    pub(crate) fn database(&self) -> &Database {
        self.database.get().unwrap_or_else(|| self.unreachable.get_or_init(unreachable_database))
    }

    /// Returns a collection with the configured write concern, and with the matching read concern:
    /// reads return only durable data.
    pub(crate) fn acked_durably<T: Send + Sync>(&self, name: &str) -> Collection<T> {
        let level = match self.topology() {
            Topology::Standalone => ReadConcern::local(),
            Topology::Set | Topology::Sharded => self.options.read_concern().clone().into(),
        };
        let options = CollectionOptions::builder()
            .write_concern(self.options.write_concern().clone())
            .read_concern(level)
            .build();
        self.database().collection_with_options(name, options)
    }

    /// Returns a collection whose writes are acknowledged by the primary alone, and whose reads
    /// return the primary's latest state.
    pub(crate) fn acked_by_primary<T: Send + Sync>(&self, name: &str) -> Collection<T> {
        let options = CollectionOptions::builder()
            .write_concern(WriteConcern::nodes(1))
            .read_concern(ReadConcern::local())
            .build();
        self.database().collection_with_options(name, options)
    }

    /// Returns a collection to open a change stream on. Change streams contain durable changes
    /// only.
    pub(crate) fn for_change_stream<T: Send + Sync>(&self, name: &str) -> Collection<T> {
        let options = CollectionOptions::builder().read_concern(ReadConcern::majority()).build();
        self.database().collection_with_options(name, options)
    }

    /// Returns the configured write concern for commands that are sent as documents.
    pub(crate) fn write_concern(&self) -> Bson {
        serialize_to_bson(self.options.write_concern()).unwrap_or(Bson::Null)
    }

    /// Returns the topology. Until a server has been reached, a replica set is assumed.
    pub(crate) fn topology(&self) -> Topology {
        self.info.get().map_or(Topology::Set, |info| info.topology)
    }

    /// Returns what an acknowledgement means, as far as the topology is known.
    pub(crate) fn durability(&self) -> Durability {
        self.options.durability(self.info.get().and_then(|info| info.members))
    }

    /// Returns the server's time.
    pub(crate) async fn time(&self) -> Result<DateTime> {
        let hello = async || self.database().run_command(doc! { "hello": 1 }).await;
        let hello = self.retry(hello).await?;
        hello.get_datetime("localTime").copied().map_err(unexpected)
    }

    /// Returns whether the primary is still the one with this election id, and so has every write
    /// that it acknowledged.
    pub(crate) async fn is_same_primary(&self, election_id: Option<ObjectId>) -> Result<bool> {
        // Writes to shards are acknowledged durably, and a standalone server has no election.
        if self.topology() != Topology::Set {
            return Ok(true);
        }
        let hello = self.retry(async || self.database().run_command(doc! { "hello": 1 }).await);
        Ok(election_id.is_some() && hello.await?.get_object_id("electionId").ok() == election_id)
    }

    /// Returns how long a call may take in all.
    pub(crate) const fn timeout(&self) -> Duration {
        self.options.timeout()
    }

    /// Returns whether a server has been reached.
    pub(crate) fn is_connected(&self) -> bool {
        self.info.initialized()
    }

    /// Spawns a task on the runtime that opened this: it goes on when the caller is cancelled.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits for the calls in flight, and disconnects. Later calls fail.
    pub(crate) async fn close(&self) {
        self.closed.send_replace(true);
        let mut calls = self.calls.subscribe();
        // A call that takes longer ends by its own timeout.
        let _ = timeout(self.timeout(), calls.wait_for(|calls| *calls == 0)).await;
        let Some(database) = self.database.get() else { return };
        let graceful = database.client().clone().shutdown();
        if timeout(self.timeout() / 2, graceful).await.is_err() {
            database.client().clone().shutdown().immediate(true).await;
        }
    }

    /// Runs `attempt`, and repeats it with increasing pauses while its error is transient and the
    /// timeout of a call has not passed. `attempt` must be idempotent: a failed one may have
    /// been executed.
    ///
    /// # Errors
    /// [`Unavailable`](StoreError::Unavailable) if no attempt succeeded in time, or this is closed;
    /// otherwise the error of the last attempt.
    pub(crate) async fn retry<T, A>(&self, mut attempt: impl FnMut() -> A) -> Result<T>
    where
        A: Future<Output = mongodb::error::Result<T>>,
    {
        let _call = self.start_call()?;
        let deadline = Instant::now() + self.timeout();
        let (mut backoff, mut last) = (BACKOFF, None);
        loop {
            // A server that hangs gets half of the time, so that another primary can be tried.
            let limit = deadline.min(Instant::now() + self.timeout() / 2);
            let attempted = timeout_at(limit, async {
                self.connect().await?;
                attempt().await
            });
            match attempted.await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) if is_transient(&error) => last = Some(error),
                Ok(Err(error)) => return Err(store_error(error)),
                Err(_) => {}
            }
            if !self.wait_before_retry(jitter(backoff), deadline).await {
                return Err(match last {
                    Some(error) => store_error(error),
                    None => unavailable("no response in time"),
                });
            }
            backoff = MAX_BACKOFF.min(backoff * 2);
        }
    }

    fn start_call(&self) -> Result<Call<'_>> {
        // The call is counted before the check, so that `close` waits for each call that passed it.
        self.calls.send_modify(|calls| *calls += 1);
        let call = Call(&self.calls);
        if self.is_closed() { Err(unavailable("it was closed")) } else { Ok(call) }
    }

    /// Waits for `time`. Returns `false` if the deadline comes first, or this is closed.
    async fn wait_before_retry(&self, time: Duration, deadline: Instant) -> bool {
        let end = Instant::now() + time;
        let mut closed = self.closed.subscribe();
        end < deadline && timeout_at(end, closed.wait_for(|closed| *closed)).await.is_err()
    }

    /// Resolves the hosts and reads the topology, unless that has been done.
    async fn connect(&self) -> mongodb::error::Result<()> {
        let database = self.database.get_or_try_init(|| create_client(&self.options)).await?;
        self.info.get_or_try_init(|| read_server_info(database, &self.options)).await?;
        Ok(())
    }
}

async fn create_client(options: &MongoOptions) -> mongodb::error::Result<Database> {
    let client_options = options.client_options().await?;
    // This does not contact a server, but reads certificates.
    let client = Client::with_options(client_options).map_err(|error| {
        UnsupportedServer::error(format!("the options of the URI do not go together: {error}"))
    })?;
    Ok(client.database(options.database()))
}

async fn read_server_info(
    database: &Database,
    options: &MongoOptions,
) -> mongodb::error::Result<ServerInfo> {
    let info = read_hello(&database.run_command(doc! { "hello": 1 }).await?)?;
    if info.topology == Topology::Standalone {
        if matches!(options.write_concern().w, Some(Acknowledgment::Nodes(2..))) {
            return Err(UnsupportedServer::error(
                "w is more than 1, but the server is in no replica set",
            ));
        }
        tracing::warn!("mongodb runs without a replica set: there is no failover");
    }
    Ok(info)
}

fn read_hello(hello: &Document) -> mongodb::error::Result<ServerInfo> {
    if hello.get_i32("maxWireVersion").unwrap_or(0) < WIRE_VERSION {
        return Err(UnsupportedServer::error("the server is older than MongoDB 5.0"));
    }
    if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
        return Ok(ServerInfo { topology: Topology::Sharded, members: None });
    }
    if hello.get_str("setName").is_err() {
        return Ok(ServerInfo { topology: Topology::Standalone, members: Some(1) });
    }
    let count = |list| hello.get_array(list).map_or(0, Vec::len);
    Ok(ServerInfo { topology: Topology::Set, members: Some(count("hosts") + count("passives")) })
}

/// Returns a database whose commands fail quickly.
fn unreachable_database() -> Database {
    // Names under `.invalid` never resolve (RFC 6761).
    let host = ServerAddress::Tcp { host: "unreachable.invalid".to_owned(), port: None };
    let options = ClientOptions::builder()
        .hosts(vec![host])
        .server_selection_timeout(Duration::from_millis(1))
        .build();
    let client = Client::with_options(options).expect("the options go together");
    client.database("unreachable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topology_is_read_from_hello() {
        let standalone = doc! { "maxWireVersion": 13, "isWritablePrimary": true };
        let set = doc! {
            "maxWireVersion": 17,
            "setName": "rs",
            "hosts": ["a", "b"],
            "passives": ["c"],
            "arbiters": ["d"],
        };
        let router = doc! { "maxWireVersion": 17, "msg": "isdbgrid" };
        for (hello, topology, members) in [
            (standalone, Topology::Standalone, Some(1)),
            (set, Topology::Set, Some(3)),
            (router, Topology::Sharded, None),
        ] {
            assert_eq!(read_hello(&hello).unwrap(), ServerInfo { topology, members });
        }
        let old = read_hello(&doc! { "maxWireVersion": 9, "setName": "rs" }).unwrap_err();
        assert!(matches!(store_error(old), StoreError::Unexpected { .. }));
    }

    #[tokio::test]
    async fn permanent_errors_are_not_retried() {
        let options = MongoOptions::parse("mongodb://unreachable.invalid/?timeoutMS=200").unwrap();
        let server = Server::open(options).await.unwrap();
        let (database, info) =
            (unreachable_database(), ServerInfo { topology: Topology::Set, members: Some(3) });
        let _ = (server.database.set(database), server.info.set(info));
        let attempts = std::cell::Cell::new(0);
        let refused = server.retry(async || {
            attempts.set(attempts.get() + 1);
            Err::<(), _>(UnsupportedServer::error("for good"))
        });
        assert!(matches!(refused.await, Err(StoreError::Unexpected { .. })));
        assert_eq!(attempts.replace(0), 1);

        let refused = server.retry(async || {
            attempts.set(attempts.get() + 1);
            Err::<(), _>(std::io::Error::other("for a while").into())
        });
        assert!(matches!(refused.await, Err(StoreError::Unavailable { .. })));
        assert!(attempts.replace(0) > 1);

        let hanging = server.retry(std::future::pending::<mongodb::error::Result<()>>);
        assert!(matches!(hanging.await, Err(StoreError::Unavailable { .. })));
        server.close().await;
        let refused = server.retry(async || {
            attempts.set(attempts.get() + 1);
            Ok(())
        });
        assert!(matches!(refused.await, Err(StoreError::Unavailable { .. })));
        assert_eq!(attempts.get(), 0);
    }
}
