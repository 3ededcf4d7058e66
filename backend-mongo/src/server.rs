//! The servers: how they are reached, what they are, and how often they are asked.

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
use storage_traits::{Result, StoreError, pool::Durability};
use tokio::{
    runtime::Handle,
    sync::{OnceCell, watch},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    chance,
    error::{Unfit, is_transient, store_error, unavailable, unexpected},
    options::MongoOptions,
};

/// How long to wait at most before something is tried again, at first and after many times.
const PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// The oldest wire protocol that is spoken here: that of MongoDB 5.0.
const WIRE_VERSION: i32 = 13;

/// What kind of servers these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topology {
    /// One server without a replica set, and so without transactions and without failover.
    Standalone,
    /// A replica set, perhaps of one member.
    Set,
    /// Shards behind `mongos`.
    Sharded,
}

/// What a server said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    topology: Topology,
    /// How many members hold the data, if that is known.
    members: Option<usize>,
}

/// All servers of a catalog or a pool.
pub(crate) struct Server {
    options: MongoOptions,
    /// Empty until the hosts are known.
    database: OnceCell<Database>,
    /// What to answer with until then: nobody can be reached through it.
    nobody: OnceLock<Database>,
    /// Empty until a server was reached.
    facts: OnceCell<Facts>,
    calls: watch::Sender<usize>,
    closed: watch::Sender<bool>,
    /// Where this was opened. Who asks may be on another, which ends before.
    runtime: Handle,
}

/// One call among those under way.
struct Call<'s>(&'s watch::Sender<usize>);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|calls| *calls -= 1);
    }
}

impl Server {
    /// Connects, if a server can be reached: one that cannot is tried again whenever something is
    /// asked.
    ///
    /// # Errors
    /// [`Unexpected`](StoreError::Unexpected) if a server can be reached but is not fit.
    pub(crate) async fn open(options: MongoOptions) -> Result<Arc<Self>> {
        let server = Arc::new(Self {
            options,
            database: OnceCell::new(),
            nobody: OnceLock::new(),
            facts: OnceCell::new(),
            calls: watch::Sender::new(0),
            closed: watch::Sender::new(false),
            runtime: Handle::current(),
        });
        match timeout(server.timeout(), server.reach()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => match store_error(error) {
                error @ StoreError::Unexpected { .. } => return Err(error),
                error => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "mongodb cannot be reached; it is tried again"
                ),
            },
            Err(_) => tracing::warn!("mongodb does not answer; it is tried again"),
        }
        Ok(server)
    }

    /// The database. Within [`Server::retry`], it is the real one.
    pub(crate) fn database(&self) -> &Database {
        self.database.get().unwrap_or_else(|| self.nobody.get_or_init(nobody))
    }

    /// A collection whose writes are acknowledged as the options demand, and whose reads are of
    /// what is as durable as that.
    pub(crate) fn durable<T: Send + Sync>(&self, name: &str) -> Collection<T> {
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

    /// A collection whose writes are acknowledged by the primary alone, and whose reads are of the
    /// primary's latest state.
    pub(crate) fn quick<T: Send + Sync>(&self, name: &str) -> Collection<T> {
        let options = CollectionOptions::builder()
            .write_concern(WriteConcern::nodes(1))
            .read_concern(ReadConcern::local())
            .build();
        self.database().collection_with_options(name, options)
    }

    /// A collection whose changes are followed: servers tell of none that is not durable.
    pub(crate) fn followed<T: Send + Sync>(&self, name: &str) -> Collection<T> {
        let options = CollectionOptions::builder().read_concern(ReadConcern::majority()).build();
        self.database().collection_with_options(name, options)
    }

    /// The write concern that commands of our own are given.
    pub(crate) fn write_concern(&self) -> Bson {
        serialize_to_bson(self.options.write_concern()).unwrap_or(Bson::Null)
    }

    /// What kind of servers these are; a replica set until one was reached.
    pub(crate) fn topology(&self) -> Topology {
        self.facts.get().map_or(Topology::Set, |facts| facts.topology)
    }

    /// What an acknowledgement means, as far as is known.
    pub(crate) fn durability(&self) -> Durability {
        self.options.durability(self.facts.get().and_then(|facts| facts.members))
    }

    /// The server's clock.
    pub(crate) async fn time(&self) -> Result<DateTime> {
        let hello = async || self.database().run_command(doc! { "hello": 1 }).await;
        let hello = self.retry(hello).await?;
        hello.get_datetime("localTime").copied().map_err(unexpected)
    }

    /// Whether the primary is still the one that it was in this term.
    pub(crate) async fn is_term(&self, term: Option<ObjectId>) -> Result<bool> {
        // Shards have what is stored for good at once.
        if self.topology() != Topology::Set {
            return Ok(true);
        }
        let hello = self.retry(async || self.database().run_command(doc! { "hello": 1 }).await);
        Ok(term.is_some() && hello.await?.get_object_id("electionId").ok() == term)
    }

    /// How long a call may take in all.
    pub(crate) const fn timeout(&self) -> Duration {
        self.options.timeout()
    }

    /// Whether a server was reached.
    pub(crate) fn was_reached(&self) -> bool {
        self.facts.initialized()
    }

    /// Lets something go on whoever asked for it.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits for the calls that are under way, and lets go of the servers. Calls after it fail.
    pub(crate) async fn close(&self) {
        self.closed.send_replace(true);
        let mut calls = self.calls.subscribe();
        // What takes longer gives up by itself.
        let _ = timeout(self.timeout(), calls.wait_for(|calls| *calls == 0)).await;
        let Some(database) = self.database.get() else { return };
        let gently = database.client().clone().shutdown();
        if timeout(self.timeout() / 2, gently).await.is_err() {
            database.client().clone().shutdown().immediate(true).await;
        }
    }

    /// Asks again, after a pause that grows, until the answer is one, an error that will stay, or
    /// the time for a call is over. What is asked must bear to be carried out more than once: an
    /// attempt that fails may have been.
    ///
    /// # Errors
    /// [`Unavailable`](StoreError::Unavailable) if there was no answer in time, or this is closed;
    /// what the last attempt said otherwise.
    pub(crate) async fn retry<T, A>(&self, mut attempt: impl FnMut() -> A) -> Result<T>
    where
        A: Future<Output = mongodb::error::Result<T>>,
    {
        let _call = self.begin()?;
        let deadline = Instant::now() + self.timeout();
        let (mut pause, mut last) = (PAUSE, None);
        loop {
            // A server that hangs does not get all of the time: there may be another by then.
            let limit = deadline.min(Instant::now() + self.timeout() / 2);
            let reached = timeout_at(limit, async {
                self.reach().await?;
                attempt().await
            });
            match reached.await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if is_transient(&error) => last = Some(error),
                Ok(Err(error)) => return Err(store_error(error)),
                Err(_) => {}
            }
            if !self.pause(pause.mul_f64(chance::fraction()), deadline).await {
                return Err(match last {
                    Some(error) => store_error(error),
                    None => unavailable("no answer in time"),
                });
            }
            pause = MAX_PAUSE.min(pause * 2);
        }
    }

    fn begin(&self) -> Result<Call<'_>> {
        // Counted first, so that whoever closes waits for what was not refused.
        self.calls.send_modify(|calls| *calls += 1);
        let call = Call(&self.calls);
        if self.is_closed() { Err(unavailable("it was closed")) } else { Ok(call) }
    }

    /// Waits; `false` if there is no time for it, or this is closed.
    async fn pause(&self, pause: Duration, deadline: Instant) -> bool {
        let end = Instant::now() + pause;
        let mut closed = self.closed.subscribe();
        end < deadline && timeout_at(end, closed.wait_for(|closed| *closed)).await.is_err()
    }

    /// Finds the hosts and asks one what it is, unless that is known.
    async fn reach(&self) -> mongodb::error::Result<()> {
        let database = self.database.get_or_try_init(|| connect(&self.options)).await?;
        self.facts.get_or_try_init(|| learn(database, &self.options)).await?;
        Ok(())
    }
}

async fn connect(options: &MongoOptions) -> mongodb::error::Result<Database> {
    let client_options = options.client_options().await?;
    // Nothing is asked of a server here: files are read.
    let client = Client::with_options(client_options).map_err(|error| {
        Unfit::error(format!("the options of the URI do not go together: {error}"))
    })?;
    Ok(client.database(options.database()))
}

async fn learn(database: &Database, options: &MongoOptions) -> mongodb::error::Result<Facts> {
    let facts = read_hello(&database.run_command(doc! { "hello": 1 }).await?)?;
    if facts.topology == Topology::Standalone {
        if matches!(options.write_concern().w, Some(Acknowledgment::Nodes(2..))) {
            return Err(Unfit::error("w is more than 1, but the server is in no replica set"));
        }
        tracing::warn!("mongodb is one server without a replica set: it has no failover");
    }
    Ok(facts)
}

fn read_hello(hello: &Document) -> mongodb::error::Result<Facts> {
    if hello.get_i32("maxWireVersion").unwrap_or(0) < WIRE_VERSION {
        return Err(Unfit::error("the server is older than MongoDB 5.0"));
    }
    if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
        return Ok(Facts { topology: Topology::Sharded, members: None });
    }
    if hello.get_str("setName").is_err() {
        return Ok(Facts { topology: Topology::Standalone, members: Some(1) });
    }
    let count = |list| hello.get_array(list).map_or(0, Vec::len);
    Ok(Facts { topology: Topology::Set, members: Some(count("hosts") + count("passives")) })
}

/// A database that cannot be reached, and does not take long to say so.
fn nobody() -> Database {
    // Nobody is looked up under this name (RFC 6761).
    let host = ServerAddress::Tcp { host: "nobody.invalid".to_owned(), port: None };
    let options = ClientOptions::builder()
        .hosts(vec![host])
        .server_selection_timeout(Duration::from_millis(1))
        .build();
    let client = Client::with_options(options).expect("the options go together");
    client.database("nobody")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_its_greeting() {
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
            assert_eq!(read_hello(&hello).unwrap(), Facts { topology, members });
        }
        let old = read_hello(&doc! { "maxWireVersion": 9, "setName": "rs" }).unwrap_err();
        assert!(matches!(store_error(old), StoreError::Unexpected { .. }));
    }

    #[tokio::test]
    async fn what_will_not_change_is_asked_once() {
        let options = MongoOptions::parse("mongodb://nobody.invalid/?timeoutMS=200").unwrap();
        let server = Server::open(options).await.unwrap();
        let (database, facts) = (nobody(), Facts { topology: Topology::Set, members: Some(3) });
        let _ = (server.database.set(database), server.facts.set(facts));
        let attempts = std::cell::Cell::new(0);
        let refused = server.retry(async || {
            attempts.set(attempts.get() + 1);
            Err::<(), _>(Unfit::error("for good"))
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
