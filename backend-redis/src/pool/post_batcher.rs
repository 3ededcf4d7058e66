//! Batches posts: while a call for a queue is in flight on a connection, other posts to the queue
//! wait, and the next call stores them together. No post waits for a timer; without a call in
//! flight a post is sent at once.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use storage_traits::{
    Result,
    domain::{ClientId, Incarnation, NewMessage, Timestamp},
};
use tokio::{sync::oneshot, time::timeout};

use super::{
    codec::{millis, write_new},
    reply::Reply,
};
use crate::{
    error::{overloaded, unavailable},
    keys::shard_of,
    server::{Replication, Servers, connection_index},
};

/// Maximum bytes of bodies in a batch; a larger post is sent by itself.
const MAX_BATCH_BYTES: usize = 64 * 1024;
/// Maximum number of messages in a batch; a larger post is sent by itself.
const MAX_BATCH_MESSAGES: usize = 1_000;
/// Maximum number of posts that wait, for each queue and connection.
const MAX_WAITING: usize = 4_096;
/// Maximum milliseconds by which the time of a batch may be ahead of its posts.
const MAX_AHEAD: i64 = 1_000;

/// Messages of one request, without deduplication.
pub(super) struct Post {
    pub(super) client: ClientId,
    pub(super) messages: Vec<NewMessage>,
    pub(super) now: Timestamp,
}

impl Post {
    fn bytes(&self) -> usize {
        self.messages.iter().map(|message| message.body.as_bytes().len()).sum()
    }
}

/// Sequences of the messages; `None` if the queue does not exist.
type PostResult = Result<Option<Vec<i64>>>;

struct WaitingPost {
    post: Post,
    result: oneshot::Sender<PostResult>,
}

/// For each queue with a call in flight, the posts that wait for it to end.
type Queues = HashMap<Incarnation, Vec<WaitingPost>>;

/// Batches the posts of a node, separately for each connection.
pub(super) struct PostBatcher {
    servers: Arc<Servers>,
    /// Time of the latest batch.
    latest_time: AtomicI64,
    connections: Box<[Mutex<Queues>]>,
}

/// Marks a call as in flight. When the call ends or is cancelled, a task sends the posts that wait.
struct InFlightGuard<'p> {
    batcher: &'p Arc<PostBatcher>,
    connection: usize,
    queue: Incarnation,
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        let mut queues = self.batcher.queues(self.connection);
        if queues.get(&self.queue).is_some_and(Vec::is_empty) {
            queues.remove(&self.queue);
            return;
        }
        drop(queues);
        let (batcher, connection, queue) = (Arc::clone(self.batcher), self.connection, self.queue);
        tokio::spawn(async move { batcher.drain(connection, queue).await });
    }
}

impl PostBatcher {
    pub(super) fn new(servers: &Arc<Servers>) -> Self {
        let connections =
            (0..servers.options.connections.get()).map(|_| Mutex::default()).collect();
        Self { servers: Arc::clone(servers), latest_time: AtomicI64::new(0), connections }
    }

    fn queues(&self, connection: usize) -> MutexGuard<'_, Queues> {
        self.connections[connection].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Posts messages to a queue; returns their sequences, or `None` if the queue does not exist.
    pub(super) async fn post(self: &Arc<Self>, queue: Incarnation, post: Post) -> PostResult {
        if post.bytes() > MAX_BATCH_BYTES || post.messages.len() > MAX_BATCH_MESSAGES {
            return self.send(queue, &[&post]).await;
        }
        let connection = connection_index(self.servers.options.connections);
        match self.enqueue(connection, queue, post) {
            Enqueued::Queued(result) => match timeout(self.servers.options.timeout, result).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(unavailable("the post was cancelled")),
                Err(_) => Err(unavailable("redis did not respond in time")),
            },
            Enqueued::Full => Err(overloaded()),
            Enqueued::Immediate(post) => {
                let _in_flight = InFlightGuard { batcher: self, connection, queue };
                self.send(queue, &[&post]).await
            }
        }
    }

    /// Adds a post to those that wait for the call in flight, or marks its own call as in flight.
    fn enqueue(&self, connection: usize, queue: Incarnation, post: Post) -> Enqueued {
        let mut queues = self.queues(connection);
        let Some(waiting) = queues.get_mut(&queue) else {
            queues.insert(queue, Vec::new());
            return Enqueued::Immediate(post);
        };
        if waiting.len() >= MAX_WAITING {
            return Enqueued::Full;
        }
        let (sender, result) = oneshot::channel();
        waiting.push(WaitingPost { post, result: sender });
        Enqueued::Queued(result)
    }

    /// Sends the posts that wait for a queue, batch after batch, until none is left.
    async fn drain(&self, connection: usize, queue: Incarnation) {
        loop {
            let batch = {
                let mut queues = self.queues(connection);
                let Some(waiting) = queues.get_mut(&queue).filter(|waiting| !waiting.is_empty())
                else {
                    queues.remove(&queue);
                    return;
                };
                // A caller that timed out has returned an error, so its post need not be stored.
                waiting.retain(|waiting| !waiting.result.is_closed());
                let (mut bytes, mut messages) = (0, 0);
                let fits = |waiting: &&WaitingPost| {
                    bytes += waiting.post.bytes();
                    messages += waiting.post.messages.len();
                    bytes <= MAX_BATCH_BYTES && messages <= MAX_BATCH_MESSAGES
                };
                // Every post fits into a batch by itself, so this takes at least one.
                let count = waiting.iter().take_while(fits).count();
                waiting.drain(..count).collect::<Vec<_>>()
            };
            if batch.is_empty() {
                continue;
            }
            let posts: Vec<_> = batch.iter().map(|waiting| &waiting.post).collect();
            let result = self.send(queue, &posts).await;
            distribute(batch, result);
        }
    }

    /// Returns the post time of a batch: no earlier than that of the batch before, so that messages
    /// expire in the order of their sequences.
    fn batch_time(&self, posts: &[&Post]) -> Timestamp {
        let now = posts.iter().map(|post| post.now).max();
        let now = now.unwrap_or(Timestamp::from_millis(0));
        let latest = self.latest_time.fetch_max(now.as_millis(), Ordering::Relaxed);
        if (0..=MAX_AHEAD).contains(&(latest - now.as_millis())) {
            return Timestamp::from_millis(latest);
        }
        // The time of that batch came from a wrong clock, or this one does; do not follow it.
        if latest > now.as_millis() {
            self.latest_time.store(now.as_millis(), Ordering::Relaxed);
        }
        now
    }

    async fn send(&self, queue: Incarnation, posts: &[&Post]) -> PostResult {
        let mut function = self.servers.function("post", queue);
        let now = self.batch_time(posts);
        function.number(millis(now)).number(1);
        for post in posts {
            for message in &post.messages {
                function.bytes(write_new(&post.client, message, now));
            }
        }
        let call = self.servers.call(shard_of(queue), Replication::Wait, &function);
        let mut reply = Reply::new(call.await?);
        if reply.is_nil() {
            return Ok(None);
        }
        let mut sequences = Vec::new();
        while !reply.is_empty() {
            sequences.push(reply.number()?);
        }
        Ok(Some(sequences))
    }
}

/// What to do with a post.
enum Enqueued {
    /// Wait for the result of a batch.
    Queued(oneshot::Receiver<PostResult>),
    /// Send it at once.
    Immediate(Post),
    /// Reject it.
    Full,
}

/// Sends each post of a batch its part of the result. A caller that timed out no longer receives
/// it.
fn distribute(batch: Vec<WaitingPost>, result: PostResult) {
    let mut sequences = match result {
        Ok(Some(sequences)) => sequences.into_iter(),
        Ok(None) => {
            for waiting in batch {
                let _ = waiting.result.send(Ok(None));
            }
            return;
        }
        Err(error) => {
            for waiting in batch {
                let _ = waiting.result.send(Err(error.to_shared_copy()));
            }
            return;
        }
    };
    for waiting in batch {
        let own: Vec<_> = sequences.by_ref().take(waiting.post.messages.len()).collect();
        let _ = waiting.result.send(Ok(Some(own)));
    }
}
