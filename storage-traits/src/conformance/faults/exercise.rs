//! Calls every method of a pool, in all its variants, at least once.

use std::{num::NonZeroU32, time::Duration};

use super::helpers::everything;
use crate::{
    conformance::{
        TestPool, TestQueue,
        builders::{
            MINUTE, ack, deduplicated, delayed, keyed, limit, message, nack, retained, terms,
        },
        dead_letter_rules::claim_with_dead_letter,
    },
    domain::StartPoint,
    pool::{RedriveSpec, Redriven, Rescheduled, WatchFor},
};

/// Uses the pool as most consumers do, for which it has faster paths.
async fn use_fast_paths(queue: &TestQueue) {
    let posted = queue.post_n(9).await;
    let (first, second) = (queue.take(3).await, queue.take(3).await);
    let all: Vec<_> = first.messages.iter().map(|message| ack(message.id)).collect();
    queue.acknowledge(first.id, &all).await;
    let two: Vec<_> = second.messages[..2].iter().map(|message| message.id).collect();
    assert_eq!(queue.delete_many(&two, &[]).await, Some(2));
    assert_eq!(queue.plain().await, posted[6..]);
    assert_eq!(queue.plain().await, posted[6..]);
    queue.delete(posted[5], Some(second.id)).await;
    queue.pop(3).await;
}

/// Calls every method of a pool and returns its queues. Advances the clock by some minutes.
pub async fn exercise(pool: &TestPool) -> Vec<TestQueue> {
    let queues = [pool.queue().await, pool.queue().await, pool.queue().await, pool.queue().await];
    let [plain, keyed, groups, dlq] = &queues;
    use_fast_paths(plain).await;
    use_messages(plain).await;
    use_ordering_keys(keyed).await;
    use_groups(groups, dlq).await;
    use_dead_letters(plain, dlq).await;
    let dropped = pool.queue().await;
    dropped.post_n(3).await;
    dropped.group("g", StartPoint::Start).await;
    dropped.pool.drop_queue(&dropped.queue).await.unwrap();
    pool.pool.check().await.unwrap();
    pool.sweep_all().await;
    queues.into()
}

async fn use_messages(queue: &TestQueue) {
    let watch = queue.watch(WatchFor::Posts).await;
    let ids = queue.post_n(20).await;
    drop(watch);
    queue
        .post(vec![
            deduplicated("a", "1"),
            deduplicated("b", "2"),
            deduplicated("a", "3"),
            delayed("4", 10 * MINUTE),
            retained("5"),
        ])
        .await;
    let delayed_id = queue.post_one(delayed("6", 10 * MINUTE)).await;
    assert_eq!(queue.reschedule(delayed_id, queue.now()).await, Rescheduled::Moved);
    assert_eq!(everything(queue).await.len(), 25);
    assert_eq!(queue.get(&ids).await.len(), 20);
    let claim = queue.take(5).await;
    queue.try_renew(claim.id, terms(120, 60)).await.unwrap();
    assert_eq!(queue.get_claim(claim.id).await.unwrap().messages.len(), 5);
    queue.delete(claim.messages[0].id, Some(claim.id)).await;
    queue.delete_many(&[claim.messages[1].id], &[claim.id]).await;
    let acknowledgements = [
        ack(claim.messages[2].id),
        nack(claim.messages[3].id, MINUTE),
        nack(claim.messages[4].id, Duration::ZERO),
    ];
    queue.acknowledge(claim.id, &acknowledgements).await;
    queue.release(queue.take(3).await.id).await;
    queue.take(3).await;
    queue.advance(2 * MINUTE);
    queue.delete(ids[10], None).await;
    assert_eq!(queue.pop(3).await.len(), 3);
    assert!(queue.counts().await.0 > 10);
}

async fn use_ordering_keys(queue: &TestQueue) {
    queue
        .post(vec![
            keyed("a", "1"),
            keyed("a", "2"),
            keyed("b", "3"),
            keyed("b", "4"),
            message("5"),
        ])
        .await;
    let claim = queue.take(4).await;
    queue.acknowledge(claim.id, &[nack(claim.messages[0].id, MINUTE)]).await;
    queue.release(claim.id).await;
    let claim = queue.take(1).await;
    queue.acknowledge(claim.id, &[ack(claim.messages[0].id)]).await;
    queue.advance(MINUTE);
    queue.pop(1).await;
    queue.post(vec![keyed("c", "1"), delayed("2", 10 * MINUTE)]).await;
    assert!(queue.purge().await > 0);
    queue.post(vec![keyed("d", "1"), keyed("d", "2")]).await;
}

async fn use_groups(queue: &TestQueue, dlq: &TestQueue) {
    queue.post(vec![message("1"), keyed("a", "2"), retained("3"), delayed("4", 10 * MINUTE)]).await;
    let group = queue.group("g", StartPoint::Start).await;
    queue.group("h", StartPoint::Start).await;
    queue.post(vec![message("5"), keyed("a", "6"), retained("7"), deduplicated("x", "8")]).await;
    queue.pop(2).await;
    let claim = group.take(10).await;
    group.acknowledge(claim.id, &[ack(claim.messages[0].id)]).await;
    group.release(claim.id).await;
    group.claim(&claim_with_dead_letter(10, 1, dlq)).await;
    redrive(dlq).await;
    let name = "h".parse().unwrap();
    assert!(queue.pool.get_group(&queue.queue, &name).await.unwrap().is_some());
    let all = queue.pool.list_groups(&queue.queue, None, limit(10)).await;
    assert_eq!(all.unwrap().items.len(), 2);
    let again = queue.seek("g", StartPoint::Start).await;
    again.take(2).await;
    queue.seek("g", StartPoint::Time(queue.now())).await;
    assert!(queue.pool.delete_group(&queue.queue, &name).await.unwrap());
}

async fn use_dead_letters(queue: &TestQueue, dlq: &TestQueue) {
    queue.post_n(5).await;
    queue.release(queue.take(10).await.id).await;
    queue.claim(&claim_with_dead_letter(10, 1, dlq)).await;
    assert!(redrive(dlq).await.moved > 0);
    queue.release(queue.take(10).await.id).await;
    queue.claim(&claim_with_dead_letter(10, 1, dlq)).await;
    assert!(dlq.counts().await.0 > 0);
}

async fn redrive(dlq: &TestQueue) -> Redriven {
    let spec = RedriveSpec { limit: limit(3), rate: NonZeroU32::new(10) };
    dlq.pool.redrive(&dlq.queue, spec, dlq.now()).await.unwrap()
}
