//! Counts of the messages in a queue.

use std::time::Duration;

use super::{
    TestPool, TestQueue,
    builders::{
        HOUR, MILLISECOND, MINUTE, ack, claim_spec, delayed, just_before, message, nack, terms,
    },
    dead_letter_rules::claim_with_dead_letter,
};
use crate::{
    domain::{ClaimSpec, NewMessage, StartPoint},
    pool::{MessagePosition, Stats},
};

pub async fn counts_reflect_every_call(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(10).await;
    assert_eq!(queue.counts().await, (10, 0));
    for id in &posted[..5] {
        queue.delete(*id, None).await;
    }
    assert_eq!(queue.counts().await, (5, 0));
    queue.post_n(10).await;
    let spec = claim_spec(10);
    let claim = queue.claim(&spec).await.unwrap();
    assert_eq!(queue.counts().await, (5, 10));
    queue.delete(claim.messages[0].id, Some(claim.id)).await;
    assert_eq!(queue.counts().await, (5, 9));
    queue.delete_many(&[claim.messages[1].id, claim.messages[2].id], &[]).await;
    assert_eq!(queue.counts().await, (5, 7));
    queue.try_renew(claim.id, terms(600, 60)).await.unwrap();
    assert_eq!(queue.counts().await, (5, 7));
    queue.delete(claim.messages[3].id, None).await; // refused
    assert_eq!(queue.counts().await, (5, 7));
    queue.pop(3).await;
    assert_eq!(queue.counts().await, (2, 7));
    queue.release(claim.id).await;
    assert_eq!(queue.counts().await, (9, 0));
    queue.delete(claim.messages[3].id, Some(claim.id)).await; // refused
    queue.release(claim.id).await;
    assert_eq!(queue.counts().await, (9, 0));
    queue.purge().await;
    assert_eq!(queue.stats().await, Stats { completed_last_minute: 11, ..Stats::default() });
}

pub async fn counts_reflect_expired_messages_and_claims(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n_with(2, 3 * MINUTE, Duration::ZERO).await;
    queue.post_n(3).await;
    queue.claim(&ClaimSpec { terms: terms(120, 60), ..claim_spec(1) }).await.unwrap();
    queue.take(3).await;
    assert_eq!(queue.counts().await, (1, 4));
    for (step, expected) in [
        (just_before(MINUTE), (1, 4)),
        (MILLISECOND, (4, 1)),
        (just_before(MINUTE), (4, 1)),
        (MILLISECOND, (5, 0)),
        (just_before(MINUTE), (5, 0)),
        (MILLISECOND, (3, 0)),
        (HOUR, (0, 0)),
    ] {
        queue.advance(step);
        assert_eq!(queue.counts().await, expected);
    }
}

pub async fn counts_reflect_many_due_messages_at_once(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n_with(2_000, 2 * MINUTE, Duration::ZERO).await;
    queue.post_n_with(2_000, HOUR, MINUTE).await;
    let spec = ClaimSpec { terms: terms(120, 0), ..claim_spec(1_000) };
    assert_eq!(queue.claim(&spec).await.unwrap().messages.len(), 1_000);
    assert_eq!(queue.counts().await, (3_000, 1_000));
    queue.advance(2 * MINUTE);
    assert_eq!(queue.counts().await, (2_000, 0));
    let spec = ClaimSpec { terms: terms(120, 0), ..claim_spec(2_000) };
    assert_eq!(queue.claim(&spec).await.unwrap().messages.len(), 2_000);
    queue.advance(2 * MINUTE);
    assert_eq!(queue.counts().await, (2_000, 0));
    queue.advance(HOUR);
    assert_eq!(queue.stats().await, Stats::default());
}

pub async fn delayed_messages_are_counted_as_free(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n_with(2, HOUR, MINUTE).await;
    queue.post_n_with(1, MINUTE, 2 * MINUTE).await;
    assert_eq!(queue.counts().await, (3, 0));
    queue.advance(MINUTE);
    assert_eq!(queue.counts().await, (2, 0));
}

pub async fn oldest_and_newest_are_the_first_and_last_message(pool: &TestPool) {
    let queue = pool.queue().await;
    let mut positions = Vec::new();
    for delay in [Duration::ZERO, Duration::ZERO, MINUTE] {
        let id = queue.post_one(delayed("1", delay)).await;
        positions.push(MessagePosition { id, posted_at: queue.now() });
        let stats = queue.stats().await;
        assert_eq!((stats.oldest, stats.newest), (Some(positions[0]), positions.last().copied()));
        queue.advance(Duration::from_millis(1_001));
    }
    queue.take(2).await;
    let (oldest, newest) = (Some(positions[0]), positions.last().copied());
    let stats = Stats { free: 1, claimed: 2, oldest, newest, completed_last_minute: 0 };
    assert_eq!(queue.stats().await, stats);
}

pub async fn completed_messages_of_the_last_minute_are_counted(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let group = queue.group("g", StartPoint::End).await;
    // Advance to the start of a minute of the clock.
    let left = 60_000 - queue.now().as_millis().rem_euclid(60_000);
    queue.advance(Duration::from_millis(left.unsigned_abs()));
    let completed = async |queue: &TestQueue| queue.stats().await.completed_last_minute;
    let posted = queue.post_n(40).await;
    let claim = queue.take(10).await;
    queue.acknowledge(claim.id, &[ack(posted[0]), nack(posted[1], Duration::ZERO)]).await;
    queue.delete(posted[2], Some(claim.id)).await;
    queue.delete(posted[2], None).await;
    queue.delete_many(&posted[3..5], &[]).await;
    assert_eq!(completed(&queue).await, 4);
    queue.advance(MINUTE / 2);
    assert_eq!(queue.pop(6).await.len(), 6);
    assert_eq!(completed(&queue).await, 10);
    assert_eq!(completed(&group).await, 0);
    // At the start, in the middle and at the end of the next minute.
    queue.advance(MINUTE / 2);
    assert_eq!(completed(&queue).await, 10);
    queue.advance(MINUTE / 2);
    assert_eq!(completed(&queue).await, 5);
    group.delete(posted[0], None).await;
    assert_eq!((completed(&queue).await, completed(&group).await), (5, 1));
    queue.pop(1).await;
    assert_eq!(completed(&queue).await, 6);
    queue.advance(just_before(MINUTE / 2));
    assert_eq!(completed(&queue).await, 1);
    queue.advance(MILLISECOND);
    assert_eq!(completed(&queue).await, 1);
    queue.advance(MINUTE);
    assert_eq!(completed(&queue).await, 0);
    // Messages that expire, are purged or are dead-lettered are not completed.
    queue.claim(&claim_with_dead_letter(100, 0, &dlq)).await;
    group.purge().await;
    queue.post_n_with(3, MINUTE, Duration::ZERO).await;
    queue.advance(MINUTE);
    pool.sweep_all().await;
    for queue in [&queue, &dlq, &group] {
        assert_eq!(completed(queue).await, 0);
    }
}

pub async fn oldest_and_newest_change_when_messages_are_removed(pool: &TestPool) {
    let queue = pool.queue().await;
    let new = |ttl| NewMessage { ttl, ..message("1") };
    let ttls = [MINUTE, HOUR, 2 * HOUR, HOUR, HOUR];
    let posted = queue.post(ttls.map(new).to_vec()).await;
    let ends = async || {
        let stats = queue.stats().await;
        (stats.oldest.unwrap().id, stats.newest.unwrap().id)
    };
    assert_eq!(ends().await, (posted[0], posted[4]));
    queue.delete(posted[4], None).await;
    assert_eq!(ends().await, (posted[0], posted[3]));
    queue.advance(MINUTE);
    assert_eq!(ends().await, (posted[1], posted[3]));
    queue.pop(1).await;
    assert_eq!(ends().await, (posted[2], posted[3]));
    queue.advance(HOUR);
    assert_eq!(ends().await, (posted[2], posted[2]));
    queue.advance(HOUR);
    assert_eq!(queue.stats().await, Stats::default());
}
