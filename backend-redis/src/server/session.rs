//! A session with one server: its connections, for as long as the process is the same one and all
//! of them hold.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use redis::{Cmd, PushInfo, PushKind, RedisError, RedisResult, Value, aio::MultiplexedConnection};
use storage_traits::{Result, pool::Durability};
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

use super::{
    connect::{Address, Connector},
    connection_index::connection_index,
    replicas::Replicas,
    server_info::ServerInfo,
};
use crate::{
    error::{unavailable, unexpected},
    library::{LIBRARY, constants::EVENT_DROPPED},
};

/// What a subscription to a channel receives.
pub(crate) enum Event {
    /// How many more messages can be claimed, whether one was posted, and the next due time.
    Changed { claimable: usize, posted: bool, due: i64 },
    /// The queue or group was deleted.
    Dropped,
    /// The subscription has ended, because the connection broke or the slot moved.
    Disconnected,
}

type Subscriber = Arc<dyn Fn(Event) + Send + Sync>;

/// Connections to one process.
pub(crate) struct Session {
    address: Address,
    connector: Arc<Connector>,
    /// Identifies the process.
    run_id: String,
    pub(crate) durability: Durability,
    connections: Box<[OnceCell<MultiplexedConnection>]>,
    subscriptions: OnceCell<MultiplexedConnection>,
    subscribers: Mutex<HashMap<String, Subscriber>>,
    replicas: Option<Replicas>,
    /// How often the functions were loaded; see [`Session::load_functions`].
    loads: AtomicU64,
    /// Held while the functions are loaded.
    loading: AsyncMutex<()>,
    closed: AtomicBool,
    /// Set by the first call of [`Session::is_new`].
    seen: AtomicBool,
}

impl Session {
    /// Connects to a server, checks that it meets the requirements, and loads the functions.
    pub(super) async fn start(address: &Address, connector: &Arc<Connector>) -> Result<Arc<Self>> {
        let options = &connector.options;
        let mut first = connector.connect(address, |_| ()).await?;
        let info = ServerInfo::read(&mut first, address).await?;
        info.check(options, address)?;
        let replicas =
            (options.replicas > 0).then(|| Replicas::new(options.replicas, options.replicas_fsync));
        let session = Arc::new(Self {
            address: address.clone(),
            connector: Arc::clone(connector),
            durability: info.durability(options),
            run_id: info.run_id,
            connections: (0..options.connections.get()).map(|_| OnceCell::new()).collect(),
            subscriptions: OnceCell::new(),
            subscribers: Mutex::default(),
            replicas,
            loads: AtomicU64::new(0),
            loading: AsyncMutex::new(()),
            closed: AtomicBool::new(false),
            seen: AtomicBool::new(false),
        });
        session.load_functions(0).await?;
        Ok(session)
    }

    /// Returns whether no connection is known to be broken.
    pub(crate) fn is_live(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    /// Returns whether this is the first call of this method.
    pub(super) fn is_new(&self) -> bool {
        !self.seen.load(Ordering::Relaxed) && !self.seen.swap(true, Ordering::Relaxed)
    }

    /// Closes the session: the next call starts another one.
    pub(super) fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            let subscribers: Vec<_> =
                self.subscribers().drain().map(|(_, subscriber)| subscriber).collect();
            for subscriber in subscribers {
                subscriber(Event::Disconnected);
            }
        }
    }

    fn subscribers(&self) -> MutexGuard<'_, HashMap<String, Subscriber>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens another connection to the same process.
    async fn connect(self: &Arc<Self>) -> RedisResult<MultiplexedConnection> {
        let session = Arc::downgrade(self);
        let on_push = move |push: PushInfo| on_push(&session, &push);
        let connected = self.connector.connect(&self.address, on_push).await;
        let mut connection = connected.map_err(|error| {
            RedisError::from((redis::ErrorKind::Io, "cannot connect", error.to_string()))
        })?;
        let info = ServerInfo::read(&mut connection, &self.address).await;
        if info.is_ok_and(|info| info.run_id == self.run_id && info.is_master) {
            return Ok(connection);
        }
        self.close();
        Err(RedisError::from((redis::ErrorKind::Io, "the server is another one now")))
    }

    /// Returns the connection of the calling thread.
    async fn connection(self: &Arc<Self>) -> RedisResult<MultiplexedConnection> {
        let cell = &self.connections[connection_index(self.connector.options.connections)];
        match cell.get() {
            Some(connection) => Ok(connection.clone()),
            None => Ok(cell.get_or_try_init(|| self.connect()).await?.clone()),
        }
    }

    /// Sends a command and waits for the reply; `asking` is for a node that is importing the slot.
    pub(super) async fn send(self: &Arc<Self>, command: &Cmd, asking: bool) -> RedisResult<Value> {
        let mut connection = self.connection().await?;
        if asking {
            // ASKING applies to the next command of the connection, so both go in one pipeline.
            let mut pipeline = redis::pipe();
            pipeline.cmd("ASKING").ignore().add_command(command.clone());
            let values: Vec<Value> = pipeline.query_async(&mut connection).await?;
            return values.into_iter().next().unwrap_or(Value::Nil).extract_error();
        }
        connection.send_packed_command(command).await?.extract_error()
    }

    /// Sends a transaction of two commands.
    pub(super) async fn transact(
        self: &Arc<Self>,
        transaction: &redis::Pipeline,
    ) -> RedisResult<(Value, Value)> {
        let mut connection = self.connection().await?;
        transaction.query_async(&mut connection).await
    }

    /// Returns how often the session has loaded the functions.
    pub(super) fn loads(&self) -> u64 {
        self.loads.load(Ordering::Acquire)
    }

    /// Loads the functions into the server, unless another call has done so since `seen` loads.
    ///
    /// Loading them again changes nothing, because the name of the library depends on its source,
    /// but the server compiles the source each time: many calls that find the functions missing at
    /// once must cause one load.
    pub(super) async fn load_functions(self: &Arc<Self>, seen: u64) -> Result<()> {
        let _loading = self.loading.lock().await;
        if self.loads() != seen {
            return Ok(());
        }
        if !self.is_live() {
            return Err(unavailable("the connection to redis broke"));
        }
        let mut command = Cmd::new();
        command.arg("FUNCTION").arg("LOAD").arg("REPLACE").arg(&LIBRARY.code);
        match self.send(&command, false).await {
            Ok(_) => {
                self.loads.fetch_add(1, Ordering::AcqRel);
                Ok(())
            }
            Err(error) if error.is_io_error() || error.is_unrecoverable_error() => {
                self.close();
                Err(unavailable(error))
            }
            Err(error) => Err(match error.kind() {
                redis::ErrorKind::Server(redis::ServerErrorKind::ResponseError) => {
                    unexpected(format!("the functions cannot be loaded: {error}"))
                }
                _ => unavailable(error),
            }),
        }
    }

    /// Subscribes to a shard channel. The subscriber gets every event from when this returns.
    pub(crate) async fn subscribe(
        self: &Arc<Self>,
        channel: &str,
        subscriber: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<()> {
        let connection = self.subscriptions.get_or_try_init(|| self.connect()).await;
        let mut connection = connection.map_err(unavailable)?.clone();
        self.subscribers().insert(channel.to_owned(), Arc::new(subscriber));
        let mut command = Cmd::new();
        command.arg("SSUBSCRIBE").arg(channel);
        let reply = connection.send_packed_command(&command).await.and_then(Value::extract_error);
        if let Err(error) = reply {
            self.subscribers().remove(channel);
            return Err(unavailable(error));
        }
        if !self.is_live() {
            return Err(unavailable("the connection to redis broke"));
        }
        Ok(())
    }

    /// Returns whether the session is subscribed to a channel.
    pub(crate) fn is_subscribed(&self, channel: &str) -> bool {
        self.is_live() && self.subscribers().contains_key(channel)
    }

    /// Ends a subscription.
    pub(crate) async fn unsubscribe(&self, channel: &str) {
        self.subscribers().remove(channel);
        if let Some(connection) = self.subscriptions.get() {
            let mut command = Cmd::new();
            command.arg("SUNSUBSCRIBE").arg(channel);
            // If this fails, the connection is broken and has no subscriptions.
            let _ = connection.clone().send_packed_command(&command).await;
        }
    }

    /// Waits until the required replicas have all that was written in this session.
    pub(super) async fn wait_replicated(
        self: &Arc<Self>,
        key: &str,
        deadline: Instant,
    ) -> RedisResult<()> {
        match &self.replicas {
            Some(replicas) => replicas.wait(key, deadline, || self.connect()).await,
            None => Ok(()),
        }
    }
}

/// Handles a message that the server sent without a request.
fn on_push(session: &Weak<Session>, push: &PushInfo) {
    let Some(session) = session.upgrade() else { return };
    match push.kind {
        PushKind::Disconnection => session.close(),
        PushKind::SMessage => {
            if let [channel, payload] = &push.data[..]
                && let (Some(channel), Some(payload)) = (text(channel), text(payload))
            {
                let subscriber = session.subscribers().get(channel).cloned();
                if let Some(subscriber) = subscriber {
                    subscriber(parse_event(payload));
                }
            }
        }
        // The slot has moved to another node, or the session has unsubscribed.
        PushKind::SUnsubscribe => {
            let channel = push.data.first().and_then(text);
            let subscriber = channel.and_then(|channel| session.subscribers().remove(channel));
            if let Some(subscriber) = subscriber {
                subscriber(Event::Disconnected);
            }
        }
        _ => {}
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

fn parse_event(payload: &str) -> Event {
    if payload == EVENT_DROPPED {
        return Event::Dropped;
    }
    let mut words = payload.split(' ');
    let mut number = || words.next().and_then(|word| word.parse::<i64>().ok());
    match (number(), number(), number()) {
        (Some(claimable), Some(posted), Some(due)) => Event::Changed {
            claimable: usize::try_from(claimable).unwrap_or(0),
            posted: posted == 1,
            due,
        },
        // Nothing else is published.
        _ => Event::Dropped,
    }
}
