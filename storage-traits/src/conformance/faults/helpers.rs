//! Shorthands of tests with failing servers.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, interval, timeout};

use crate::{
    Result, StoreError,
    conformance::{
        TestPool, TestQueue,
        builders::{DEADLINE, list_all, message},
    },
    domain::Message,
    pool::ListSpec,
};

/// Returns the same queue, accessed through another node.
pub fn through(node: &TestPool, queue: &TestQueue) -> TestQueue {
    TestQueue { pool: Arc::clone(&node.pool), ..queue.clone() }
}

/// Returns the body of a message.
pub fn text(message: &Message) -> String {
    String::from_utf8(message.body.as_bytes().to_vec()).unwrap()
}

/// Returns the result of a call; `None` if the servers could not be reached. Panics on other
/// errors.
#[track_caller]
pub fn answered<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(result) => Some(result),
        Err(StoreError::Unavailable { .. }) => None,
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

/// Posts until a post succeeds; returns how long that took.
pub async fn until_it_works(queue: &TestQueue) -> Duration {
    let (start, mut ticks) = (Instant::now(), interval(Duration::from_millis(10)));
    while answered(queue.try_post(vec![message("\"again\"")]).await).is_none() {
        assert!(start.elapsed() < DEADLINE, "no post succeeded in time");
        ticks.tick().await;
    }
    start.elapsed()
}

/// Returns the result of a future; panics if it takes longer than [`DEADLINE`].
pub async fn soon<F: IntoFuture>(future: F) -> F::Output {
    timeout(DEADLINE, future).await.expect("the future takes too long")
}

/// Returns all messages of a queue, read page by page.
pub async fn everything(queue: &TestQueue) -> Vec<Message> {
    let mut all: Vec<Message> = Vec::new();
    loop {
        let after = all.last().map(|message| message.id.sequence);
        let page = queue.list(&ListSpec { after, ..list_all(500) }).await;
        all.extend(page.items);
        if !page.more {
            return all;
        }
    }
}

/// Returns all messages of a queue, and checks that its counts agree with them.
pub async fn counted(queue: &TestQueue) -> Vec<Message> {
    let all = everything(queue).await;
    assert!(all.is_sorted_by(|a, b| a.id.sequence < b.id.sequence), "a position occurs twice");
    // A message keeps the id of a claim that has expired, so `claim` does not tell claimed ones.
    let claimed = ListSpec { include_free: false, include_delayed: false, ..list_all(100_000) };
    let held = queue.list(&claimed).await.items.len() as u64;
    let stats = queue.stats().await;
    assert_eq!((stats.free, stats.claimed), (all.len() as u64 - held, held));
    assert_eq!(stats.oldest.map(|position| position.id), all.first().map(|message| message.id));
    assert_eq!(stats.newest.map(|position| position.id), all.last().map(|message| message.id));
    all
}
