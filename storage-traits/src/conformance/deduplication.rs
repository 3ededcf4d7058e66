//! Deduplication: posts with a deduplication id are idempotent within its window.

use super::{
    TestPool, TestQueue,
    builders::{HOUR, MILLISECOND, MINUTE, deduplicated, just_before, message, texts},
};
use crate::domain::{MessageId, NewMessage};

const WINDOW: std::time::Duration = MINUTE.saturating_mul(5);

/// Posts messages; returns the id of each, and whether it is a duplicate.
async fn post(queue: &TestQueue, messages: Vec<NewMessage>) -> Vec<(MessageId, bool)> {
    let posted = queue.try_post(messages).await.unwrap();
    posted.into_iter().map(|posted| (posted.id, posted.duplicate)).collect()
}

pub async fn a_duplicate_returns_the_first_message(pool: &TestPool) {
    let queue = pool.queue().await;
    let first = queue.id(1);
    assert_eq!(post(&queue, vec![deduplicated("a", "1")]).await, [(first, false)]);
    assert_eq!(post(&queue, vec![deduplicated("a", "2")]).await, [(first, true)]);
    assert_eq!(texts(&queue.all().await), ["1"]);
    // A duplicate takes no position.
    assert_eq!(post(&queue, vec![message("3")]).await, [(queue.id(2), false)]);
}

pub async fn an_id_can_be_reused_after_its_window(pool: &TestPool) {
    let queue = pool.queue().await;
    post(&queue, vec![deduplicated("a", "1")]).await;
    queue.advance(just_before(WINDOW));
    assert_eq!(post(&queue, vec![deduplicated("a", "2")]).await, [(queue.id(1), true)]);
    queue.advance(MILLISECOND);
    assert_eq!(post(&queue, vec![deduplicated("a", "3")]).await, [(queue.id(2), false)]);
    assert_eq!(post(&queue, vec![deduplicated("a", "4")]).await, [(queue.id(2), true)]);
    assert_eq!(texts(&queue.all().await), ["1", "3"]);
}

pub async fn a_duplicate_does_not_prolong_the_window(pool: &TestPool) {
    let queue = pool.queue().await;
    post(&queue, vec![deduplicated("a", "1")]).await;
    queue.advance(WINDOW / 2);
    post(&queue, vec![deduplicated("a", "2")]).await;
    queue.advance(WINDOW / 2);
    assert_eq!(post(&queue, vec![deduplicated("a", "3")]).await, [(queue.id(2), false)]);
}

pub async fn a_batch_may_contain_new_messages_and_duplicates(pool: &TestPool) {
    let queue = pool.queue().await;
    post(&queue, vec![deduplicated("a", "1")]).await;
    let batch =
        vec![deduplicated("b", "2"), deduplicated("a", "3"), message("4"), deduplicated("c", "5")];
    let [first, second, third, fourth] = [1, 2, 3, 4].map(|n| queue.id(n));
    let expected = [(second, false), (first, true), (third, false), (fourth, false)];
    assert_eq!(post(&queue, batch).await, expected);
    assert_eq!(texts(&queue.all().await), ["1", "2", "4", "5"]);
    assert_eq!(queue.counts().await, (4, 0));
}

pub async fn duplicates_within_a_batch_are_stored_once(pool: &TestPool) {
    let queue = pool.queue().await;
    let batch = vec![deduplicated("a", "1"), deduplicated("a", "2"), deduplicated("a", "3")];
    let first = queue.id(1);
    assert_eq!(post(&queue, batch).await, [(first, false), (first, true), (first, true)]);
    assert_eq!(texts(&queue.all().await), ["1"]);
}

pub async fn a_deleted_message_still_has_duplicates(pool: &TestPool) {
    let queue = pool.queue().await;
    post(&queue, vec![deduplicated("a", "1")]).await;
    queue.delete(queue.id(1), None).await;
    assert_eq!(post(&queue, vec![deduplicated("a", "2")]).await, [(queue.id(1), true)]);
    queue.purge().await;
    pool.sweep_all().await;
    assert_eq!(post(&queue, vec![deduplicated("a", "3")]).await, [(queue.id(1), true)]);
    assert_eq!(queue.all().await, []);
}

pub async fn queues_and_lives_compare_their_own_ids(pool: &TestPool) {
    let [one, other] = [pool.queue().await, pool.queue().await];
    for queue in [&one, &other] {
        assert_eq!(post(queue, vec![deduplicated("a", "1")]).await, [(queue.id(1), false)]);
    }
    pool.pool.drop_queue(&one.queue).await.unwrap();
    let again = pool.queue().await;
    assert_eq!(post(&again, vec![deduplicated("a", "1")]).await, [(again.id(1), false)]);
    assert_eq!(post(&other, vec![deduplicated("a", "1")]).await, [(other.id(1), true)]);
}

pub async fn ids_are_compared_exactly(pool: &TestPool) {
    let queue = pool.queue().await;
    let ids = ["a", "A", "a ", "ä", "a\u{308}", "%", "_", "'", "*", "0", "00", &"x".repeat(128)];
    let batch: Vec<_> = ids.iter().map(|id| deduplicated(id, "1")).collect();
    let posted = post(&queue, batch.clone()).await;
    assert!(posted.iter().all(|(_, duplicate)| !duplicate), "{posted:?}");
    let again = post(&queue, batch).await;
    assert!(again.iter().all(|(_, duplicate)| *duplicate), "{again:?}");
    assert_eq!(queue.counts().await, (ids.len() as u64, 0));
}

pub async fn many_windows_end_at_once(pool: &TestPool) {
    let queue = pool.queue().await;
    let batch = || (0..700).map(|n| deduplicated(&n.to_string(), "1")).collect::<Vec<_>>();
    post(&queue, batch()).await;
    queue.advance(WINDOW);
    // Before a sweep, and below after one.
    let again = post(&queue, batch()).await;
    assert!(again.iter().all(|(_, duplicate)| !duplicate));
    queue.advance(WINDOW);
    pool.sweep_all().await;
    let again = post(&queue, batch()).await;
    assert!(again.iter().all(|(_, duplicate)| !duplicate));
    queue.advance(HOUR);
    pool.sweep_all().await;
    assert_eq!(queue.all().await, []);
}
