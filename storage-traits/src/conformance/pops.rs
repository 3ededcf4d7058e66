//! Pops: removing messages and returning them in one step.

use super::{
    TestPool,
    builders::{HOUR, MINUTE, claim_spec, ids, texts},
};
use crate::pool::DeleteOutcome;

pub async fn the_oldest_messages_are_popped_and_removed(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(5).await;
    let before = queue.all().await;
    let popped = queue.pop(2).await;
    assert_eq!(popped, before[..2]);
    assert_eq!(texts(&popped), ["0", "1"]);
    assert_eq!(queue.get(&posted).await, before[2..]);
    assert_eq!(queue.delete(posted[0], None).await, DeleteOutcome::Missing);
    assert_eq!(queue.counts().await, (3, 0));
    assert_eq!(ids(&queue.pop(10).await), posted[2..]);
    assert_eq!(queue.pop(10).await, []);
}

pub async fn claimed_and_delayed_messages_are_not_popped(pool: &TestPool) {
    let queue = pool.queue().await;
    let claimed = queue.post_n(300).await;
    queue.take(300).await;
    let delayed = queue.post_n_with(300, HOUR, HOUR / 2).await;
    let ready = queue.post_n(2).await;
    assert_eq!(ids(&queue.pop(10).await), ready);
    assert_eq!(queue.pop(10).await, []);
    assert_eq!(ids(&queue.all().await), [claimed, delayed].concat());
}

pub async fn messages_of_ended_claims_are_popped(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(2).await;
    let [expired, released] = [queue.take(1).await, queue.take(1).await];
    queue.release(released.id).await;
    assert_eq!(ids(&queue.pop(10).await), posted[1..]);
    queue.advance(MINUTE);
    assert_eq!(queue.pop(10).await, expired.messages);
    assert_eq!(queue.claim(&claim_spec(10)).await, None);
}

pub async fn a_pop_does_not_affect_claims(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(3).await;
    let claim = queue.take(2).await;
    assert_eq!(texts(&queue.pop(10).await), ["2"]);
    assert_eq!(queue.get_claim(claim.id).await.as_ref(), Some(&claim));
    queue.release(claim.id).await;
    assert_eq!(texts(&queue.pop(10).await), ["0", "1"]);
}
