//! One server, and a session with it: its connections for as long as it is the same process and
//! all of them hold.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use redis::{Cmd, PushInfo, PushKind, RedisError, RedisResult, Value, aio::MultiplexedConnection};
use storage_traits::{Result, StoreError, pool::Durability};
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

use super::{
    connect::{Address, Connector},
    facts::Facts,
    lane,
    replicas::Replicas,
};
use crate::{
    error::{unavailable, unexpected},
    library::LIBRARY,
};

/// A server that may be up or down.
pub(crate) struct Node {
    pub(super) address: Address,
    connector: Arc<Connector>,
    session: Mutex<Option<Arc<Session>>>,
    /// Held by whoever connects; when that last failed, and how.
    connecting: AsyncMutex<Option<(Instant, Failure)>>,
}

/// An error that several may be told.
enum Failure {
    Unavailable(String),
    Unexpected(String),
}

impl Failure {
    fn of(error: &StoreError) -> Self {
        let text = super::Chain(error).to_string();
        match error {
            StoreError::Unexpected { .. } => Self::Unexpected(text),
            _ => Self::Unavailable(text),
        }
    }

    fn error(&self) -> StoreError {
        match self {
            Self::Unavailable(text) => unavailable(text.as_str()),
            Self::Unexpected(text) => unexpected(text.as_str()),
        }
    }
}

impl Node {
    pub(super) fn new(address: Address, connector: &Arc<Connector>) -> Self {
        Self {
            address,
            connector: Arc::clone(connector),
            session: Mutex::default(),
            connecting: AsyncMutex::default(),
        }
    }

    fn current(&self) -> Option<Arc<Session>> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.as_ref().filter(|session| session.is_live()).cloned()
    }

    /// The session, or a new one. All who wait for one connection share its success or failure.
    pub(super) async fn session(&self) -> Result<Arc<Session>> {
        if let Some(session) = self.current() {
            return Ok(session);
        }
        let asked = Instant::now();
        let mut failed = self.connecting.lock().await;
        if let Some(session) = self.current() {
            return Ok(session);
        }
        if let Some((when, failure)) = &*failed
            && *when > asked
        {
            return Err(failure.error());
        }
        match Session::begin(&self.address, &self.connector).await {
            Ok(session) => {
                *failed = None;
                tracing::info!(server = %self.address, durability = session.durability.as_str(), "connected to redis");
                let mut current = self.session.lock().unwrap_or_else(PoisonError::into_inner);
                *current = Some(Arc::clone(&session));
                Ok(session)
            }
            Err(error) => {
                *failed = Some((Instant::now(), Failure::of(&error)));
                Err(error)
            }
        }
    }

    pub(super) fn end(&self) {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(session) = session {
            session.end();
        }
    }
}

/// What a server says of a reading that is watched.
pub(crate) enum Signal {
    /// How many more messages can be claimed, whether something was posted, and when something is
    /// due.
    News { claimable: usize, posted: bool, due: i64 },
    /// The reading is gone.
    Gone,
    /// The server tells no more.
    Lost,
}

type Listener = Arc<dyn Fn(Signal) + Send + Sync>;

/// Connections to one process.
pub(crate) struct Session {
    address: Address,
    connector: Arc<Connector>,
    run: String,
    pub(crate) durability: Durability,
    lanes: Box<[OnceCell<MultiplexedConnection>]>,
    listening: OnceCell<MultiplexedConnection>,
    listeners: Mutex<HashMap<String, Listener>>,
    pub(super) replicas: Option<Replicas>,
    ended: AtomicBool,
    seen: AtomicBool,
}

impl Session {
    async fn begin(address: &Address, connector: &Arc<Connector>) -> Result<Arc<Self>> {
        let options = &connector.options;
        let mut first = connector.connect(address, |_| ()).await?;
        let facts = Facts::read(&mut first, address).await?;
        facts.check(options, address)?;
        let replicas =
            (options.replicas > 0).then(|| Replicas::new(options.replicas, options.replicas_fsync));
        let session = Arc::new(Self {
            address: address.clone(),
            connector: Arc::clone(connector),
            run: facts.run.clone(),
            durability: facts.durability(options),
            lanes: (0..options.connections.get()).map(|_| OnceCell::new()).collect(),
            listening: OnceCell::new(),
            listeners: Mutex::default(),
            replicas,
            ended: AtomicBool::new(false),
            seen: AtomicBool::new(false),
        });
        session.load().await?;
        Ok(session)
    }

    /// Whether all connections hold, as far as is known.
    pub(crate) fn is_live(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
    }

    /// Says once that this session is new.
    pub(super) fn is_new(&self) -> bool {
        !self.seen.load(Ordering::Relaxed) && !self.seen.swap(true, Ordering::Relaxed)
    }

    /// Gives the connections up: the next call makes new ones.
    pub(crate) fn end(&self) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            let listeners: Vec<_> =
                self.listeners().drain().map(|(_, listener)| listener).collect();
            for listener in listeners {
                listener(Signal::Lost);
            }
        }
    }

    fn listeners(&self) -> std::sync::MutexGuard<'_, HashMap<String, Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another connection to the same process.
    async fn another(self: &Arc<Self>) -> RedisResult<MultiplexedConnection> {
        let session = Arc::downgrade(self);
        let on_push = move |push: PushInfo| heard(&session, &push);
        let connected = self.connector.connect(&self.address, on_push).await;
        let mut connection = connected.map_err(|error| {
            RedisError::from((redis::ErrorKind::Io, "cannot connect", error.to_string()))
        })?;
        let facts = Facts::read(&mut connection, &self.address).await;
        if facts.is_ok_and(|facts| facts.run == self.run && facts.is_master) {
            return Ok(connection);
        }
        self.end();
        Err(RedisError::from((redis::ErrorKind::Io, "the server is another one now")))
    }

    /// Sends a command and waits for the answer.
    pub(super) async fn send(self: &Arc<Self>, command: &Cmd, asking: bool) -> RedisResult<Value> {
        let lane = &self.lanes[lane(self.connector.options.connections)];
        let mut connection = match lane.get() {
            Some(connection) => connection.clone(),
            None => lane.get_or_try_init(|| self.another()).await?.clone(),
        };
        if asking {
            // One pipeline, so that nobody comes between.
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
        commands: &redis::Pipeline,
    ) -> RedisResult<(Value, Value)> {
        let lane = &self.lanes[lane(self.connector.options.connections)];
        let mut connection = match lane.get() {
            Some(connection) => connection.clone(),
            None => lane.get_or_try_init(|| self.another()).await?.clone(),
        };
        commands.query_async(&mut connection).await
    }

    /// Makes the server know the functions.
    pub(super) async fn load(self: &Arc<Self>) -> Result<()> {
        let mut command = Cmd::new();
        command.arg("FUNCTION").arg("LOAD").arg(&LIBRARY.code);
        match self.send(&command, false).await {
            Ok(_) => Ok(()),
            Err(error) if error.to_string().contains("already exists") => Ok(()),
            Err(error) if error.is_io_error() || error.is_unrecoverable_error() => {
                self.end();
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

    /// Has a listener told what happens on a channel, from when this returns on.
    pub(crate) async fn listen(
        self: &Arc<Self>,
        channel: &str,
        listener: impl Fn(Signal) + Send + Sync + 'static,
    ) -> Result<()> {
        let listening = self.listening.get_or_try_init(|| self.another()).await;
        let mut connection = listening.map_err(unavailable)?.clone();
        self.listeners().insert(channel.to_owned(), Arc::new(listener));
        let mut command = Cmd::new();
        command.arg("SSUBSCRIBE").arg(channel);
        let listens = connection.send_packed_command(&command).await.and_then(Value::extract_error);
        if let Err(error) = listens {
            self.listeners().remove(channel);
            return Err(unavailable(error));
        }
        if !self.is_live() {
            return Err(unavailable("the connection to redis broke"));
        }
        Ok(())
    }

    /// Whether a listener is told what happens on a channel.
    pub(crate) fn listens_to(&self, channel: &str) -> bool {
        self.is_live() && self.listeners().contains_key(channel)
    }

    /// Ends what [`Session::listen`] began.
    pub(crate) async fn forget(&self, channel: &str) {
        self.listeners().remove(channel);
        if let Some(connection) = self.listening.get() {
            let mut command = Cmd::new();
            command.arg("SUNSUBSCRIBE").arg(channel);
            // If it fails there is nothing to end.
            let _ = connection.clone().send_packed_command(&command).await;
        }
    }

    /// Answers when as many replicas as are asked for have all that was done in this session.
    pub(super) async fn replicated(
        self: &Arc<Self>,
        key: &str,
        deadline: Instant,
    ) -> RedisResult<()> {
        match &self.replicas {
            Some(replicas) => replicas.have(key, deadline, || self.another()).await,
            None => Ok(()),
        }
    }
}

/// What the server sent of itself.
fn heard(session: &Weak<Session>, push: &PushInfo) {
    let Some(session) = session.upgrade() else { return };
    match push.kind {
        PushKind::Disconnection => session.end(),
        PushKind::SMessage => {
            if let [channel, payload] = &push.data[..]
                && let (Some(channel), Some(payload)) = (text(channel), text(payload))
            {
                let listener = session.listeners().get(channel).cloned();
                if let Some(listener) = listener {
                    listener(signal(payload));
                }
            }
        }
        // The slot has moved to another node.
        PushKind::SUnsubscribe => {
            let channel = push.data.first().and_then(text);
            let listener = channel.and_then(|channel| session.listeners().remove(channel));
            if let Some(listener) = listener {
                listener(Signal::Lost);
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

fn signal(payload: &str) -> Signal {
    let mut words = payload.split(' ');
    let mut number = || words.next().and_then(|word| word.parse::<i64>().ok());
    match (number(), number(), number()) {
        (Some(claimable), Some(posted), Some(due)) => Signal::News {
            claimable: usize::try_from(claimable).unwrap_or(0),
            posted: posted == 1,
            due,
        },
        _ => Signal::Gone,
    }
}
