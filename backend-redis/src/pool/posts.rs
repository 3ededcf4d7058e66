//! Posts that share a call: while one of a queue is under way on a connection, those that come
//! gather, and are stored by the next call together. Nothing waits for a timer, and a post that comes
//! alone goes alone.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use storage_traits::{
    Result, StoreError,
    domain::{ClientId, Incarnation, NewMessage, Timestamp},
};
use tokio::{sync::oneshot, time::timeout};

use super::{
    codec::{millis, write_new},
    guard_of, key_of, registry_of,
    reply::Reply,
    shard_of,
};
use crate::{
    error::{overloaded, unavailable, unexpected},
    server::{Function, Promise, Servers, lane},
};

/// How many bytes of messages share a call; a post of more goes by itself.
const MOST_BYTES: usize = 64 * 1024;
/// How many posts of a queue may wait for one call.
const MOST_WAITING: usize = 4_096;
/// How many messages share a call.
const MOST_MESSAGES: usize = 1_000;

/// By how much a clock may have run ahead, and still be followed.
const MOST_AHEAD: i64 = 1_000;

/// Messages that a client posts together, without deduplication.
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

type Answer = Result<Option<Vec<i64>>>;

struct Waiting {
    post: Post,
    reply: oneshot::Sender<Answer>,
}

/// By queue, the posts that wait for the call under way to end.
type Queues = HashMap<Incarnation, Vec<Waiting>>;

/// The posts of a node, apart for each connection.
pub(crate) struct Posts {
    servers: Arc<Servers>,
    /// The time of the latest call.
    latest: AtomicI64,
    lanes: Box<[Mutex<Queues>]>,
}

/// Holds the place of a call that is under way. When it ends, or is given up, those that have
/// gathered go on without it.
struct UnderWay<'p> {
    posts: &'p Arc<Posts>,
    lane: usize,
    queue: Incarnation,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut queues = self.posts.queues(self.lane);
        if queues.get(&self.queue).is_some_and(Vec::is_empty) {
            queues.remove(&self.queue);
            return;
        }
        drop(queues);
        let (posts, lane, queue) = (Arc::clone(self.posts), self.lane, self.queue);
        tokio::spawn(async move { posts.go_on(lane, queue).await });
    }
}

impl Posts {
    pub(crate) fn new(servers: &Arc<Servers>) -> Self {
        let lanes = (0..servers.options.connections.get()).map(|_| Mutex::default()).collect();
        Self { servers: Arc::clone(servers), latest: AtomicI64::new(0), lanes }
    }

    fn queues(&self, lane: usize) -> MutexGuard<'_, Queues> {
        self.lanes[lane].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the messages of a post at the end of a queue; answers their sequences, or `None` if
    /// the queue is unknown.
    pub(super) async fn store(self: &Arc<Self>, queue: Incarnation, post: Post) -> Answer {
        if post.bytes() > MOST_BYTES || post.messages.len() > MOST_MESSAGES {
            return self.call(queue, &[&post]).await;
        }
        let lane = lane(self.servers.options.connections);
        match self.join(lane, queue, post) {
            Joined::Waits(answer) => match timeout(self.servers.options.timeout, answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(unavailable("the post was given up")),
                Err(_) => Err(unavailable("redis did not answer in time")),
            },
            Joined::TooMany => Err(overloaded()),
            Joined::Goes(post) => {
                let _under_way = UnderWay { posts: self, lane, queue };
                self.call(queue, &[&post]).await
            }
        }
    }

    /// Lets a post wait for the call that is under way, or go if none is.
    fn join(&self, lane: usize, queue: Incarnation, post: Post) -> Joined {
        let mut queues = self.queues(lane);
        let Some(waiting) = queues.get_mut(&queue) else {
            queues.insert(queue, Vec::new());
            return Joined::Goes(post);
        };
        if waiting.len() >= MOST_WAITING {
            return Joined::TooMany;
        }
        let (reply, answer) = oneshot::channel();
        waiting.push(Waiting { post, reply });
        Joined::Waits(answer)
    }

    /// Makes calls for those that have gathered, until nobody has.
    async fn go_on(&self, lane: usize, queue: Incarnation) {
        loop {
            let together = {
                let mut queues = self.queues(lane);
                let Some(waiting) = queues.get_mut(&queue).filter(|waiting| !waiting.is_empty())
                else {
                    queues.remove(&queue);
                    return;
                };
                // Who has given up has been told that it was not stored, or may not have been.
                waiting.retain(|waiting| !waiting.reply.is_closed());
                let (mut bytes, mut messages) = (0, 0);
                let fits = |waiting: &&Waiting| {
                    bytes += waiting.post.bytes();
                    messages += waiting.post.messages.len();
                    bytes <= MOST_BYTES && messages <= MOST_MESSAGES
                };
                // Each fits by itself.
                let count = waiting.iter().take_while(fits).count();
                waiting.drain(..count).collect::<Vec<_>>()
            };
            if together.is_empty() {
                continue;
            }
            let posts: Vec<_> = together.iter().map(|waiting| &waiting.post).collect();
            let answer = self.call(queue, &posts).await;
            share(together, answer);
        }
    }

    /// The time at which posts are stored together: none is older than what went before, so that
    /// messages expire in their order.
    fn time_of(&self, posts: &[&Post]) -> Timestamp {
        let now = posts.iter().map(|post| post.now).max();
        let now = now.unwrap_or(Timestamp::from_millis(0));
        let latest = self.latest.fetch_max(now.as_millis(), Ordering::Relaxed);
        if (0..=MOST_AHEAD).contains(&(latest - now.as_millis())) {
            return Timestamp::from_millis(latest);
        }
        // That clock was wrong, or this one is.
        if latest > now.as_millis() {
            self.latest.store(now.as_millis(), Ordering::Relaxed);
        }
        now
    }

    async fn call(&self, queue: Incarnation, posts: &[&Post]) -> Answer {
        let (prefix, shard) = (&self.servers.options.prefix, shard_of(queue));
        let mut function = Function::new(
            "post",
            &[&key_of(prefix, queue), &registry_of(prefix, shard), &guard_of(prefix, shard)],
        );
        let now = self.time_of(posts);
        function.number(millis(now)).number(1);
        for post in posts {
            for message in &post.messages {
                function.bytes(write_new(&post.client, message, now));
            }
        }
        let mut reply = Reply::new(self.servers.call(shard, Promise::Change, &function).await?);
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

/// What becomes of a post.
enum Joined {
    Waits(oneshot::Receiver<Answer>),
    Goes(Post),
    TooMany,
}

/// Tells each its part of an answer.
fn share(together: Vec<Waiting>, answer: Answer) {
    let mut sequences = match answer {
        Ok(Some(sequences)) => sequences.into_iter(),
        Ok(None) => {
            for waiting in together {
                // Who does not listen any more has hung up.
                let _ = waiting.reply.send(Ok(None));
            }
            return;
        }
        Err(error) => {
            for waiting in together {
                let _ = waiting.reply.send(Err(again(&error)));
            }
            return;
        }
    };
    for waiting in together {
        let own: Vec<_> = sequences.by_ref().take(waiting.post.messages.len()).collect();
        let _ = waiting.reply.send(Ok(Some(own)));
    }
}

/// The same error once more.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Overloaded { .. } => overloaded(),
        StoreError::Unavailable { source, .. } => unavailable(source.to_string()),
        other => unexpected(other.to_string()),
    }
}
