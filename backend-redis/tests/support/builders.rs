//! Short words for what the tests of faults say often.

use std::{sync::Arc, time::Duration};

use backend_redis::{Redis, RedisOptions};
use bytes::Bytes;
use storage_traits::{
    Limit, Result, StoreError,
    conformance::{TestPool, TestQueue},
    domain::{
        AckOutcome, Acknowledgement, Body, ClaimId, ClaimSpec, ClaimTerms, Delivery, Message,
        MessageId, NewMessage,
    },
    pool::ListSpec,
};
use tokio::time::{Instant, interval, timeout};

/// How long anything that must happen may take, on a busy machine, before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// Within this time each call is answered, whatever happens to the servers.
pub(crate) const ANSWER: Duration = Duration::from_secs(2);

/// A node: a pool with these options.
pub(crate) async fn open(uri: &str) -> TestPool {
    TestPool::new(Arc::new(Redis::open(RedisOptions::parse(uri).unwrap()).await.unwrap()))
}

/// The same queue, as another node sees it.
pub(crate) fn through(node: &TestPool, queue: &TestQueue) -> TestQueue {
    TestQueue { pool: Arc::clone(&node.pool), ..queue.clone() }
}

/// A message of an hour, at once visible.
pub(crate) fn message(body: &str) -> NewMessage {
    NewMessage {
        body: Body::from_json(Bytes::copy_from_slice(body.as_bytes())),
        ttl: Duration::from_hours(1),
        delivery: Delivery::IMMEDIATE,
        ordering_key: None,
        deduplication: None,
        retained: false,
        checksum: None,
    }
}

pub(crate) fn text(message: &Message) -> String {
    String::from_utf8(message.body.as_bytes().to_vec()).unwrap()
}

/// A claim for a minute, with a new id.
pub(crate) fn claim_spec(n: u32) -> ClaimSpec {
    let minute = Duration::from_mins(1);
    let terms = ClaimTerms { ttl: minute, grace: minute };
    ClaimSpec { id: ClaimId::random(), terms, limit: Limit::new(n).unwrap(), dead_letter: None }
}

pub(crate) fn ack(id: MessageId) -> Acknowledgement {
    Acknowledgement { id, outcome: AckOutcome::Ack }
}

/// What a call answered; `None` if the servers could not be reached. Nothing else may go wrong.
#[track_caller]
pub(crate) fn answered<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(answer) => Some(answer),
        Err(StoreError::Unavailable { .. }) => None,
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

/// Posts until that works; answers how long it took.
pub(crate) async fn until_it_works(queue: &TestQueue) -> Duration {
    let (start, mut ticks) = (Instant::now(), interval(Duration::from_millis(10)));
    while answered(queue.try_post(vec![message("\"again\"")]).await).is_none() {
        assert!(start.elapsed() < DEADLINE, "it never works again");
        ticks.tick().await;
    }
    start.elapsed()
}

/// What a future answers, in time.
pub(crate) async fn soon<F: IntoFuture>(future: F) -> F::Output {
    timeout(DEADLINE, future).await.expect("it takes too long")
}

/// All that is in a queue, read page by page.
pub(crate) async fn everything(queue: &TestQueue) -> Vec<Message> {
    let mut all: Vec<Message> = Vec::new();
    loop {
        let spec = ListSpec {
            after: all.last().map(|message| message.id.sequence),
            limit: Limit::new(500).unwrap(),
            hide_client: None,
            include_free: true,
            include_claimed: true,
            include_delayed: true,
        };
        let page = queue.list(&spec).await;
        all.extend(page.items);
        if !page.more {
            return all;
        }
    }
}
