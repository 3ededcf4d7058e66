//! Wake-ups: watches are woken in real time. After a wake-up that the time brought about, a case
//! advances its manual clock to the time that has passed for the store.

use std::{collections::BTreeSet, time::Duration};

use super::{
    TestPool,
    builders::{
        DEADLINE, HOUR, MINUTE, claim_spec, concurrently, delayed, ids, message, nack, terms,
    },
};
use crate::{
    domain::ClaimSpec,
    pool::WatchFor::{Claimable, Posts},
};

/// Time for which a case waits to detect a wake-up that must not occur.
const WRONG_WAKE_UP: Duration = Duration::from_millis(60);
const DELAY: Duration = Duration::from_millis(150);

pub async fn a_post_wakes_a_consumer(pool: &TestPool) {
    let queue = pool.queue().await;
    let mut watch = queue.watch(Claimable).await;
    assert_eq!(queue.claim(&claim_spec(1)).await, None);
    queue.post_n(1).await;
    assert!(watch.wait(DEADLINE).await);
    assert_eq!(queue.take(1).await.messages.len(), 1);
}

pub async fn a_ready_message_wakes_a_consumer_at_once(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(1).await;
    assert!(queue.watch(Claimable).await.wait(DEADLINE).await);
    queue.claim(&ClaimSpec { terms: terms(1, 0), ..claim_spec(1) }).await.unwrap();
    // The claim has expired, and no call has applied that yet.
    queue.advance(MINUTE);
    assert!(queue.watch(Claimable).await.wait(DEADLINE).await);
}

pub async fn a_post_wakes_every_reader(pool: &TestPool) {
    let queue = pool.queue().await;
    // Messages posted before the watch do not wake it.
    queue.post_n(1).await;
    let mut watches = [queue.watch(Posts).await, queue.watch(Posts).await];
    queue.post_n(1).await;
    for watch in &mut watches {
        assert!(watch.wait(DEADLINE).await);
    }
}

pub async fn a_batch_wakes_one_consumer_per_message(pool: &TestPool) {
    let queue = pool.queue().await;
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(queue.watch(Claimable).await);
    }
    queue.post_n(3).await;
    for mut watch in watches {
        assert!(watch.wait(DEADLINE).await);
        assert_eq!(queue.take(1).await.messages.len(), 1);
    }
}

pub async fn an_idle_queue_wakes_no_watch(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(1).await;
    queue.take(1).await;
    let (mut consumer, mut reader) = (queue.watch(Claimable).await, queue.watch(Posts).await);
    assert!(!consumer.wait(WRONG_WAKE_UP).await);
    assert!(!reader.wait(WRONG_WAKE_UP).await);
}

pub async fn a_post_to_another_queue_wakes_no_watch(pool: &TestPool) {
    let [queue, other] = [pool.queue().await, pool.queue().await];
    let (mut consumer, mut reader) = (queue.watch(Claimable).await, queue.watch(Posts).await);
    let mut other_watch = other.watch(Claimable).await;
    other.post_n(5).await;
    assert!(other_watch.wait(DEADLINE).await);
    assert!(!consumer.wait(WRONG_WAKE_UP).await);
    assert!(!reader.wait(WRONG_WAKE_UP).await);
}

pub async fn a_release_wakes_a_consumer(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(1).await;
    let claim = queue.take(1).await;
    let mut watch = queue.watch(Claimable).await;
    queue.release(claim.id).await;
    assert!(watch.wait(DEADLINE).await);
}

pub async fn a_nack_wakes_a_consumer(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(2).await;
    let claim = queue.take(2).await;
    let mut watch = queue.watch(Claimable).await;
    queue.acknowledge(claim.id, &[nack(posted[0], Duration::ZERO)]).await;
    assert!(watch.wait(DEADLINE).await);
    queue.take(1).await;
    queue.acknowledge(claim.id, &[nack(posted[1], DELAY)]).await;
    assert!(watch.wait(DEADLINE).await);
    queue.advance(DELAY);
    assert_eq!(ids(&queue.take(1).await.messages), posted[1..]);
}

pub async fn the_end_of_a_delay_wakes_a_consumer(pool: &TestPool) {
    let queue = pool.queue().await;
    let id = queue.post_one(delayed("1", DELAY)).await;
    // Before the watch exists, because its timer ends the delay in real time.
    assert_eq!(queue.claim(&claim_spec(1)).await, None);
    let mut watch = queue.watch(Claimable).await;
    assert!(watch.wait(DEADLINE).await);
    queue.advance(DELAY);
    assert_eq!(ids(&queue.take(1).await.messages), [id]);
}

pub async fn a_delay_posted_after_the_watch_wakes_a_consumer(pool: &TestPool) {
    let queue = pool.queue().await;
    let mut watch = queue.watch(Claimable).await;
    queue.post(vec![delayed("1", HOUR), delayed("2", DELAY)]).await;
    assert!(watch.wait(DEADLINE).await);
    queue.advance(DELAY);
    assert_eq!(queue.take(2).await.messages.len(), 1);
}

pub async fn an_expired_claim_wakes_a_consumer(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(1).await;
    queue.claim(&ClaimSpec { terms: terms(1, 0), ..claim_spec(1) }).await.unwrap();
    let mut watch = queue.watch(Claimable).await;
    assert!(watch.wait(DEADLINE).await);
    queue.advance(Duration::from_secs(1));
    assert_eq!(queue.take(1).await.messages[0].claim_count, 2);
}

pub async fn a_dropped_queue_wakes_its_watches(pool: &TestPool) {
    let queue = pool.queue().await;
    let (mut consumer, mut reader) = (queue.watch(Claimable).await, queue.watch(Posts).await);
    pool.pool.drop_queue(&queue.queue).await.unwrap();
    assert!(consumer.wait(DEADLINE).await);
    assert!(reader.wait(DEADLINE).await);
}

pub async fn an_unknown_queue_wakes_its_watches_at_once(pool: &TestPool) {
    let dropped = pool.queue().await;
    pool.pool.drop_queue(&dropped.queue).await.unwrap();
    for queue in [dropped, pool.unopened("conformance", "unknown")] {
        for what in [Claimable, Posts] {
            let mut watch = queue.watch(what).await;
            assert!(watch.wait(DEADLINE).await);
            // The watch is woken once.
            assert!(!watch.wait(WRONG_WAKE_UP).await);
        }
    }
}

/// Each consumer claims one message: every consumer is woken and every message is claimed.
pub async fn waiting_consumers_get_every_message(pool: &TestPool) {
    let queue = pool.queue().await;
    let consumers = {
        let queue = queue.clone();
        tokio::spawn(concurrently(24, move |_| {
            let queue = queue.clone();
            async move {
                let mut watch = queue.watch(Claimable).await;
                loop {
                    if let Some(claim) = queue.claim(&claim_spec(1)).await {
                        return claim.messages[0].id;
                    }
                    assert!(watch.wait(MINUTE).await, "a consumer was not woken");
                }
            }
        }))
    };
    let mut posted = BTreeSet::new();
    for batch in [1, 5, 2, 9, 1, 1, 5] {
        posted.extend(queue.post(vec![message("1"); batch]).await);
    }
    let claimed: BTreeSet<_> = consumers.await.unwrap().into_iter().collect();
    assert_eq!(claimed, posted);
}
