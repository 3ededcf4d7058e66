//! Opening, dropping and purging queues, sweeps, and calls about the whole pool.

use std::time::Duration;

use super::{
    TestPool, TestQueue,
    builders::{
        HOUR, MINUTE, assert_not_found, claim_spec, client, ids, limit, list_all, list_visible,
        message, terms,
    },
    dead_letter_rules::claim_with_dead_letter,
};
use crate::{
    domain::ClaimId,
    pool::{DeleteOutcome, Stats, Swept},
};

/// Greatest number of messages and records that one sweep may process.
const SWEEP_BOUND: u64 = 1_000;

/// Checks that every method finds the queue empty, and that posts are refused.
async fn assert_unknown(queue: &TestQueue) {
    let (id, spec) = (queue.id(1), claim_spec(10));
    assert_not_found(queue.try_post(vec![message("1")]).await);
    let page = queue.list(&list_all(10)).await;
    assert_eq!((page.items, page.more), (vec![], false));
    assert_eq!(queue.get(&[id]).await, []);
    assert_eq!(queue.delete(id, None).await, DeleteOutcome::Missing);
    assert_eq!(queue.delete(id, Some(spec.id)).await, DeleteOutcome::Missing);
    assert_eq!(queue.delete_many(&[id], &[]).await, Some(0));
    assert_eq!(queue.delete_many(&[id], &[spec.id]).await, None);
    assert_eq!(queue.claim(&spec).await, None);
    assert_eq!(queue.get_claim(spec.id).await, None);
    assert_not_found(queue.try_renew(spec.id, terms(60, 60)).await);
    queue.release(spec.id).await;
    assert_eq!(queue.pop(10).await, []);
    assert_eq!(queue.stats().await, Stats::default());
    assert_eq!(queue.purge().await, 0);
}

pub async fn opening_an_open_queue_changes_nothing(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(3).await;
    let claim = queue.take(1).await;
    let before = queue.all().await;
    pool.pool.open_queue(&queue.queue).await.unwrap();
    assert_eq!(queue.all().await, before);
    assert_eq!(queue.get_claim(claim.id).await, Some(claim));
    assert_eq!(queue.counts().await, (2, 1));
    assert_eq!(queue.post_n(1).await, [queue.id(4)]);
}

pub async fn an_unknown_queue_is_empty(pool: &TestPool) {
    let queue = pool.unopened("conformance", "orders");
    assert_unknown(&queue).await;
    pool.queue().await.post_n(1).await;
    assert_unknown(&queue).await;
}

pub async fn a_dropped_queue_is_unknown_at_once(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(600).await;
    let claim = queue.take(300).await;
    pool.pool.drop_queue(&queue.queue).await.unwrap();
    assert_unknown(&queue).await;
    assert_eq!(queue.get_claim(claim.id).await, None);
    assert_not_found(queue.try_renew(claim.id, terms(60, 60)).await);
    assert_eq!(queue.get(&ids(&claim.messages)).await, []);
    pool.sweep_all().await;
    assert_unknown(&queue).await;
}

pub async fn a_dropped_incarnation_cannot_be_reopened(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(3).await;
    pool.pool.drop_queue(&queue.queue).await.unwrap();
    for _ in 0..2 {
        pool.pool.open_queue(&queue.queue).await.unwrap();
        assert_unknown(&queue).await;
        pool.sweep_all().await;
    }
    // The same holds for a queue that is dropped before it is opened, as a race may do.
    let queue = pool.unopened("conformance", "orders");
    pool.pool.drop_queue(&queue.queue).await.unwrap();
    pool.pool.open_queue(&queue.queue).await.unwrap();
    assert_unknown(&queue).await;
}

pub async fn dropping_a_queue_is_idempotent(pool: &TestPool) {
    let queue = pool.unopened("conformance", "orders");
    pool.pool.drop_queue(&queue.queue).await.unwrap();
    let queue = pool.queue().await;
    for _ in 0..2 {
        pool.pool.drop_queue(&queue.queue).await.unwrap();
        assert_unknown(&queue).await;
    }
}

pub async fn a_new_incarnation_is_empty(pool: &TestPool) {
    let old = pool.unopened("conformance", "orders");
    let new = pool.unopened("conformance", "orders");
    pool.pool.open_queue(&old.queue).await.unwrap();
    let posted = old.post_n(3).await;
    let claim = old.take(1).await;
    pool.pool.drop_queue(&old.queue).await.unwrap();
    pool.pool.open_queue(&new.queue).await.unwrap();

    assert_eq!(new.all().await, []);
    assert_eq!(new.stats().await, Stats::default());
    assert_eq!(new.get_claim(claim.id).await, None);
    let again = new.post_n(3).await;
    assert_eq!(again, [new.id(1), new.id(2), new.id(3)]);
    assert_eq!(new.get(&posted).await, []);
    assert_eq!(new.delete(posted[0], None).await, DeleteOutcome::Missing);
    assert_unknown(&old).await;
    pool.sweep_all().await;
    assert_unknown(&old).await;
    assert_eq!(new.plain().await, again);
}

pub async fn a_purge_deletes_all_but_claimed_messages(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n_with(3, MINUTE, Duration::ZERO).await;
    queue.advance(MINUTE);
    queue.post_n(4).await;
    let claim = queue.take(2).await;
    queue.post_n_with(3, HOUR, MINUTE).await;
    assert_eq!(queue.purge().await, 5);
    assert_eq!(queue.all().await, claim.messages);
    assert_eq!(queue.counts().await, (0, 2));
    assert_eq!(queue.get_claim(claim.id).await.as_ref(), Some(&claim));
    assert_eq!(queue.purge().await, 0);
    queue.advance(MINUTE);
    assert_eq!(queue.plain().await, ids(&claim.messages));
}

pub async fn a_purge_deletes_messages_of_ended_claims(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(4).await;
    let [_, released] = [queue.take(2).await, queue.take(2).await];
    queue.release(released.id).await;
    queue.advance(MINUTE);
    assert_eq!(queue.purge().await, 4);
    assert_eq!(queue.stats().await, Stats::default());
}

pub async fn a_purge_deletes_many_messages(pool: &TestPool) {
    let queue = pool.queue().await;
    let claimed = queue.post_n(300).await;
    queue.take(300).await;
    queue.post_n(2_500).await;
    assert_eq!(queue.purge().await, 2_500);
    assert_eq!(ids(&queue.all().await), claimed);
}

pub async fn a_purge_does_not_reset_positions(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(3).await;
    assert_eq!(queue.purge().await, 3);
    pool.sweep_all().await;
    assert_eq!(queue.post_n(2).await, [queue.id(4), queue.id(5)]);
    assert_eq!(queue.plain().await, [queue.id(4), queue.id(5)]);
}

pub async fn a_sweep_is_bounded_and_keeps_live_messages(pool: &TestPool) {
    let [first, second] = [pool.queue().await, pool.queue().await];
    for queue in [&first, &second] {
        queue.post_n_with(1_500, MINUTE, Duration::ZERO).await;
        queue.post_n_with(2, HOUR, 2 * MINUTE).await;
    }
    let live = first.post_n(3).await;
    assert_eq!(pool.sweep().await, Swept::default());

    pool.advance(MINUTE);
    let claim = first.take(1).await;
    let mut processed = 0;
    loop {
        let swept = pool.sweep().await;
        assert!(swept.processed <= SWEEP_BOUND, "{swept:?}");
        assert!(swept.processed > 0 || !swept.more, "a sweep without work reports more");
        processed += swept.processed;
        assert!(processed <= 3_000, "{processed} were processed");
        if !swept.more {
            break;
        }
    }
    assert_eq!(pool.pool.counters().expired, 3_000);
    assert_eq!(pool.sweep().await, Swept::default());
    assert_eq!(first.get_claim(claim.id).await, Some(claim));
    assert_eq!(first.plain().await, live[1..]);
    assert_eq!(first.counts().await, (4, 1));
    assert_eq!(second.counts().await, (2, 0));
}

pub async fn a_sweep_changes_no_result(pool: &TestPool) {
    let queue = pool.queue().await;
    let kept = queue.post_n(2).await;
    let expired = queue.take(1).await;
    queue.post_n_with(2, MINUTE, Duration::ZERO).await;
    let due = queue.post_n_with(2, HOUR, MINUTE).await;
    queue.advance(MINUTE);
    pool.sweep_all().await;
    assert_eq!(queue.plain().await, [&kept[..], &due].concat());
    assert_eq!(queue.counts().await, (4, 0));
    assert_eq!(queue.get(&kept[..1]).await, expired.messages);
    assert_eq!(queue.get_claim(expired.id).await, None);
    assert_not_found(queue.try_renew(expired.id, terms(60, 60)).await);
    assert_eq!(queue.take(1).await.messages[0].claim_count, 2);
}

pub async fn a_sweep_removes_only_dropped_queues(pool: &TestPool) {
    let [dropped, kept] = [pool.queue().await, pool.queue().await];
    dropped.post_n(1_500).await;
    dropped.take(100).await;
    let posted = kept.post_n(3).await;
    pool.pool.drop_queue(&dropped.queue).await.unwrap();
    pool.sweep_all().await;
    assert_eq!(kept.plain().await, posted);
    assert_eq!(pool.sweep().await, Swept::default());
    assert_eq!(pool.pool.counters().expired, 0);
}

pub async fn expired_messages_are_counted(pool: &TestPool) {
    let queue = pool.queue().await;
    let before = pool.pool.counters();
    queue.post_n_with(5, MINUTE, Duration::ZERO).await;
    queue.post_n_with(1, MINUTE, HOUR).await;
    queue.post_n(1).await;
    queue.pop(2).await;
    pool.sweep_all().await;
    assert_eq!(pool.pool.counters(), before);
    queue.advance(MINUTE);
    queue.stats().await;
    pool.sweep_all().await;
    assert_eq!(pool.pool.counters().expired, before.expired + 4);
    assert_eq!(pool.pool.counters().dead_lettered, before.dead_lettered);
}

pub async fn dead_letters_are_counted(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let before = pool.pool.counters();
    queue.post_n(3).await;
    assert_eq!(queue.claim(&claim_with_dead_letter(10, 0, &dlq)).await, None);
    assert_eq!(pool.pool.counters().dead_lettered, before.dead_lettered + 3);
    assert_eq!(pool.pool.counters().expired, before.expired);
}

pub async fn a_working_pool_passes_its_check(pool: &TestPool) {
    pool.pool.check().await.unwrap();
    assert!(!pool.pool.durability().as_str().is_empty());
}

pub async fn a_closed_pool_refuses_calls(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(1).await;
    pool.pool.close().await;
    let (pool, now) = (&pool.pool, pool.now());
    assert!(pool.check().await.is_err());
    assert!(pool.open_queue(&queue.queue).await.is_err());
    assert!(pool.post(&queue.queue, &client("late"), vec![message("1")], now).await.is_err());
    assert!(pool.list(&queue.queue, &list_visible(1), now).await.is_err());
    assert!(pool.get_claim(&queue.queue, ClaimId::random(), now).await.is_err());
    assert!(pool.pop(&queue.queue, limit(1), now).await.is_err());
    assert!(pool.stats(&queue.queue, now).await.is_err());
    assert!(pool.sweep(now).await.is_err());
}
