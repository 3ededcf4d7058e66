//! Clients that post, claim and acknowledge one call after the other, and what they saw.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use storage_traits::{conformance::TestQueue, domain::AckResult};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::builders::{ack, answered, claim_spec, everything, message, soon, text};

/// Between two calls of one client: enough of them to be hit by whatever happens, few enough to
/// leave the machine to the servers.
const PACE: Duration = Duration::from_millis(4);

/// A message that was posted.
pub(crate) struct Post {
    pub(crate) body: String,
    /// When it was acknowledged; `None` if it was not.
    pub(crate) acknowledged: Option<Instant>,
}

/// What the clients saw.
#[derive(Default)]
pub(crate) struct Story {
    pub(crate) posts: Vec<Post>,
    /// Messages that may be acknowledged.
    tried: HashSet<String>,
    /// Messages that were acknowledged.
    taken: Vec<String>,
    /// Calls that were answered with an error.
    pub(crate) refused: usize,
    /// How long the slowest call took.
    pub(crate) slowest: Duration,
}

/// Clients at work.
pub(crate) struct Load {
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
    /// Eight clients post to these queues in turn, and `consumers` more empty them.
    pub(crate) fn start(queues: &[TestQueue], consumers: usize) -> Self {
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

    /// Waits until so many more posts were acknowledged.
    pub(crate) async fn acknowledges(&self, count: usize) {
        let goal = *self.posted.borrow() + count;
        soon(self.posted.subscribe().wait_for(|posted| *posted >= goal)).await.unwrap();
    }

    /// Waits until so many more calls were refused.
    pub(crate) async fn refuses(&self, count: usize) {
        let goal = *self.refused.borrow() + count;
        soon(self.refused.subscribe().wait_for(|refused| *refused >= goal)).await.unwrap();
    }

    /// Ends the clients.
    pub(crate) async fn stop(self) -> Story {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Story::default();
        for story in soon(self.tasks.join_all()).await {
            all.posts.extend(story.posts);
            all.tried.extend(story.tried);
            all.taken.extend(story.taken);
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

    async fn call<T>(
        &mut self,
        call: impl Future<Output = storage_traits::Result<T>>,
    ) -> Option<T> {
        let start = Instant::now();
        let answer = answered(call.await);
        self.story.slowest = self.story.slowest.max(start.elapsed());
        if answer.is_none() {
            self.story.refused += 1;
            self.refused.send_modify(|count| *count += 1);
        }
        answer
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
        self.story.tried.extend(claim.messages.iter().map(text));
        let all: Vec<_> = claim.messages.iter().map(|message| ack(message.id)).collect();
        let acknowledging = queue.pool.acknowledge(&queue.queue, claim.id, &all, queue.now());
        let Some(answers) = self.call(acknowledging).await else { return };
        for (message, answer) in claim.messages.iter().zip(answers) {
            if answer == AckResult::Applied {
                self.story.taken.push(text(message));
            }
        }
    }
}

impl Story {
    /// The acknowledged posts that are neither in the queues nor were handled. Nothing may be there
    /// twice.
    pub(crate) async fn lost(&self, queues: &[TestQueue]) -> Vec<&Post> {
        let stored = stored(queues).await;
        for post in &self.posts {
            let copies = stored.get(&post.body).copied().unwrap_or(0);
            assert!(copies <= 1, "{} is stored {copies} times", post.body);
        }
        let is_lost = |post: &&Post| {
            let is_there = stored.contains_key(&post.body) || self.tried.contains(&post.body);
            post.acknowledged.is_some() && !is_there
        };
        self.posts.iter().filter(is_lost).collect()
    }

    /// Checks that nothing acknowledged was lost: each post is stored once or was handled once, and
    /// what was handled is gone.
    pub(crate) async fn assert_whole(&self, queues: &[TestQueue]) {
        let lost: Vec<_> = self.lost(queues).await.iter().map(|post| &post.body).collect();
        assert!(lost.is_empty(), "{} were lost: {lost:?}", lost.len());
        let stored = stored(queues).await;
        let mut handled = HashSet::new();
        for body in &self.taken {
            assert!(handled.insert(body), "{body} was handled twice");
            assert!(!stored.contains_key(body), "{body} is back");
        }
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.posts.iter().filter(|post| post.acknowledged.is_some()).count()
    }
}

/// How often each body is in the queues.
async fn stored(queues: &[TestQueue]) -> HashMap<String, usize> {
    let mut stored = HashMap::new();
    for queue in queues {
        for message in everything(queue).await {
            *stored.entry(text(&message)).or_default() += 1;
        }
    }
    stored
}
