//! Clients that post, claim and acknowledge, one call after the other, and a record of their
//! results.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use super::helpers::{answered, everything, soon, text};
use crate::{
    conformance::{
        TestQueue,
        builders::{ack, claim_spec, message},
    },
    domain::AckResult,
};

/// Interval between two calls of one client: short enough that any failure affects some calls, long
/// enough to leave the machine to the servers.
const PACE: Duration = Duration::from_millis(4);

/// Post of one message.
pub struct Post {
    pub body: String,
    /// Time at which the post succeeded; `None` if it failed.
    pub acknowledged: Option<Instant>,
}

/// Results of the clients' calls.
#[derive(Default)]
pub struct Story {
    pub posts: Vec<Post>,
    /// Bodies of claimed messages, which may have been acknowledged.
    claimed: HashSet<String>,
    /// Bodies of messages that were acknowledged.
    acknowledged: Vec<String>,
    /// Number of calls that returned an error.
    pub refused: usize,
    /// Duration of the slowest call.
    pub slowest: Duration,
}

/// Running clients.
pub struct Load {
    stop: Arc<AtomicBool>,
    posted: watch::Sender<usize>,
    refused: watch::Sender<usize>,
    tasks: JoinSet<Story>,
}

struct Client {
    number: usize,
    queues: Vec<TestQueue>,
    stop: Arc<AtomicBool>,
    posted: watch::Sender<usize>,
    refused: watch::Sender<usize>,
    story: Story,
}

impl Load {
    /// Starts eight clients that post to the queues in turn, and `consumers` clients that claim and
    /// acknowledge.
    pub fn start(queues: &[TestQueue], consumers: usize) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            posted: watch::Sender::new(0),
            refused: watch::Sender::new(0),
            tasks: JoinSet::new(),
        };
        for number in 0..8 + consumers {
            let client = Client {
                number,
                queues: queues.to_vec(),
                stop: Arc::clone(&load.stop),
                posted: load.posted.clone(),
                refused: load.refused.clone(),
                story: Story::default(),
            };
            load.tasks.spawn(client.run(number >= 8));
        }
        load
    }

    /// Waits until `count` more posts have succeeded.
    pub async fn acknowledges(&self, count: usize) {
        let goal = *self.posted.borrow() + count;
        soon(self.posted.subscribe().wait_for(|posted| *posted >= goal)).await.unwrap();
    }

    /// Waits until `count` more calls have failed.
    pub async fn refuses(&self, count: usize) {
        let goal = *self.refused.borrow() + count;
        soon(self.refused.subscribe().wait_for(|refused| *refused >= goal)).await.unwrap();
    }

    /// Stops the clients and returns their results.
    pub async fn stop(self) -> Story {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Story::default();
        for story in soon(self.tasks.join_all()).await {
            all.posts.extend(story.posts);
            all.claimed.extend(story.claimed);
            all.acknowledged.extend(story.acknowledged);
            all.refused += story.refused;
            all.slowest = all.slowest.max(story.slowest);
        }
        all
    }
}

impl Client {
    async fn run(mut self, consumes: bool) -> Story {
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for n in 0.. {
            ticks.tick().await;
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let queue = self.queues[(self.number + n) % self.queues.len()].clone();
            if consumes { self.consume(&queue).await } else { self.post(&queue, n).await }
        }
        self.story
    }

    async fn call<T>(&mut self, call: impl Future<Output = crate::Result<T>>) -> Option<T> {
        let start = Instant::now();
        let result = answered(call.await);
        self.story.slowest = self.story.slowest.max(start.elapsed());
        if result.is_none() {
            self.story.refused += 1;
            self.refused.send_modify(|count| *count += 1);
        }
        result
    }

    async fn post(&mut self, queue: &TestQueue, n: usize) {
        let body = format!("\"{}-{n}\"", self.number);
        let posted = self.call(queue.try_post(vec![message(&body)])).await.is_some();
        self.story.posts.push(Post { body, acknowledged: posted.then(Instant::now) });
        if posted {
            self.posted.send_modify(|count| *count += 1);
        }
    }

    async fn consume(&mut self, queue: &TestQueue) {
        let Some(Some(claim)) = self.call(queue.try_claim(&claim_spec(5))).await else { return };
        self.story.claimed.extend(claim.messages.iter().map(text));
        let all: Vec<_> = claim.messages.iter().map(|message| ack(message.id)).collect();
        let acknowledging = queue.pool.acknowledge(&queue.queue, claim.id, &all, queue.now());
        let Some(results) = self.call(acknowledging).await else { return };
        for (message, result) in claim.messages.iter().zip(results) {
            if result == AckResult::Applied {
                self.story.acknowledged.push(text(message));
            }
        }
    }
}

impl Story {
    /// Returns the successful posts whose messages are neither in the queues nor were claimed.
    /// Panics if a message is stored twice.
    pub async fn lost(&self, queues: &[TestQueue]) -> Vec<&Post> {
        let stored = stored(queues).await;
        for post in &self.posts {
            let copies = stored.get(&post.body).copied().unwrap_or(0);
            assert!(copies <= 1, "{} is stored {copies} times", post.body);
        }
        let is_lost = |post: &&Post| {
            let is_known = stored.contains_key(&post.body) || self.claimed.contains(&post.body);
            post.acknowledged.is_some() && !is_known
        };
        self.posts.iter().filter(is_lost).collect()
    }

    /// Checks that no successful post was lost, that no message was acknowledged twice, and that
    /// acknowledged messages are removed.
    pub async fn assert_whole(&self, queues: &[TestQueue]) {
        let lost: Vec<_> = self.lost(queues).await.iter().map(|post| &post.body).collect();
        assert!(lost.is_empty(), "{} messages were lost: {lost:?}", lost.len());
        let stored = stored(queues).await;
        let mut processed = HashSet::new();
        for body in &self.acknowledged {
            assert!(processed.insert(body), "{body} was acknowledged twice");
            assert!(!stored.contains_key(body), "{body} is stored again");
        }
    }

    /// Checks that the messages of each client are in a queue in the order in which it posted them.
    pub async fn assert_in_order(&self, queues: &[TestQueue]) {
        for queue in queues {
            let mut last: HashMap<String, usize> = HashMap::new();
            for message in everything(queue).await {
                let body = text(&message);
                let Some((client, n)) = body.trim_matches('"').split_once('-') else { continue };
                let n = n.parse().unwrap();
                let before = last.insert(client.to_owned(), n);
                assert!(before < Some(n), "{body} is behind number {before:?}");
            }
        }
    }

    /// Returns the longest time without a successful post.
    pub fn longest_gap(&self) -> Duration {
        let mut times: Vec<_> = self.posts.iter().filter_map(|post| post.acknowledged).collect();
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Returns the number of successful posts.
    pub fn acknowledged(&self) -> usize {
        self.posts.iter().filter(|post| post.acknowledged.is_some()).count()
    }
}

/// Returns how often each body occurs in the queues.
async fn stored(queues: &[TestQueue]) -> HashMap<String, usize> {
    let mut stored = HashMap::new();
    for queue in queues {
        for message in everything(queue).await {
            *stored.entry(text(&message)).or_default() += 1;
        }
    }
    stored
}
