//! Consumer groups: each has a delivery state of its own.

use std::time::Duration;

use super::{
    TestPool,
    builders::{
        DEADLINE, HOUR, MILLISECOND, MINUTE, ack, delayed, ids, just_before, keyed, message, texts,
    },
    dead_letter_rules::claim_with_dead_letter,
};
use crate::{
    domain::{
        AckResult, NewMessage,
        StartPoint::{End, Start},
    },
    pool::{DeleteOutcome, Rescheduled, WatchFor},
};

pub async fn the_queue_and_its_groups_acknowledge_independently(pool: &TestPool) {
    let queue = pool.queue().await;
    let (one, other) = (queue.group("one", End).await, queue.group("other", End).await);
    let posted = queue.post_n(3).await;
    let claim = one.take(1).await;
    assert_eq!(one.acknowledge(claim.id, &[ack(posted[0])]).await, [AckResult::Applied]);
    assert_eq!(queue.pop(2).await.len(), 2);
    assert_eq!(other.delete(posted[2], None).await, DeleteOutcome::Deleted);
    assert_eq!(ids(&one.all().await), posted[1..]);
    assert_eq!(ids(&queue.all().await), posted[2..]);
    assert_eq!(ids(&other.all().await), posted[..2]);
    assert_eq!(texts(&other.all().await), ["0", "1"]);
}

pub async fn a_group_has_its_own_claims(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let posted = queue.post_n(1).await;
    let (first, second) = (queue.take(1).await, group.take(1).await);
    assert_eq!(queue.get_claim(second.id).await, None);
    assert_eq!(group.get_claim(first.id).await, None);
    assert_eq!(queue.acknowledge(second.id, &[ack(posted[0])]).await, [AckResult::NotHeld]);
    group.release(first.id).await;
    group.release(second.id).await;
    assert_eq!(queue.counts().await, (0, 1));
    assert_eq!(group.take(1).await.messages[0].claim_count, 2);
    assert_eq!(queue.get_one(posted[0]).await.claim_count, 1);
}

pub async fn a_message_deleted_from_the_queue_stays_in_its_groups(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let body = format!("\"{}\"", "x".repeat(100_000));
    let id = queue.post_one(message(&body)).await;
    queue.delete(id, None).await;
    pool.sweep_all().await;
    assert_eq!(texts(&group.get(&[id]).await), [body.as_str()]);
    let claim = group.take(1).await;
    group.delete(id, Some(claim.id)).await;
    assert_eq!(group.get(&[id]).await, []);
}

pub async fn a_message_expires_in_the_queue_and_its_groups(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    queue.post_n_with(2, MINUTE, Duration::ZERO).await;
    queue.delete(queue.id(1), None).await;
    queue.advance(just_before(MINUTE));
    assert_eq!(group.counts().await, (2, 0));
    queue.advance(MILLISECOND);
    assert_eq!(group.counts().await, (0, 0));
    assert_eq!(group.claim_ids(1).await, []);
    pool.sweep_all().await;
    assert_eq!(pool.pool.counters().expired, 1, "one message expired in the queue itself");
}

pub async fn a_delayed_message_becomes_visible_to_all_groups_when_due(pool: &TestPool) {
    let queue = pool.queue().await;
    let before = queue.group("before", End).await;
    let id = queue.post_one(delayed("1", MINUTE)).await;
    let after = queue.group("after", Start).await;
    queue.advance(just_before(MINUTE));
    for queue in [&queue, &before, &after] {
        assert_eq!(queue.claim_ids(1).await, []);
    }
    queue.advance(MILLISECOND);
    for queue in [&queue, &before, &after] {
        assert_eq!(queue.claim_ids(1).await, [id]);
    }
}

pub async fn rescheduling_and_cancelling_apply_to_all_groups(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let posted = queue.post(["1", "2", "3"].map(|body| delayed(body, MINUTE)).to_vec()).await;
    let later = queue.now().plus(HOUR);
    assert_eq!(queue.reschedule(posted[0], later).await, Rescheduled::Moved);
    assert_eq!(queue.delete(posted[1], None).await, DeleteOutcome::Deleted);
    queue.advance(MINUTE);
    for queue in [&queue, &group] {
        assert_eq!(queue.claim_ids(10).await, posted[2..]);
    }
    // Once visible, the message is deleted from the queue only.
    assert_eq!(queue.delete_many(&posted[2..], &[]).await, Some(1));
    assert_eq!(ids(&group.get(&posted).await), [posted[0], posted[2]]);
    queue.advance(HOUR);
    for queue in [&queue, &group] {
        assert!(queue.claim_ids(10).await.contains(&posted[0]));
    }
}

pub async fn a_message_that_became_visible_is_deleted_from_one_group(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let new = |body| NewMessage { retained: true, ..delayed(body, MINUTE) };
    let posted = queue.post(["1", "2"].map(new).to_vec()).await;
    queue.advance(MINUTE);
    // No call has applied the end of the delay yet.
    assert_eq!(queue.delete(posted[0], None).await, DeleteOutcome::Deleted);
    assert_eq!(queue.delete_many(&posted[1..], &[]).await, Some(1));
    assert_eq!(group.claim_ids(10).await, posted);
    let late = queue.group("late", Start).await;
    assert_eq!(late.claim_ids(10).await, posted);
}

pub async fn a_group_keeps_the_order_of_its_keys(pool: &TestPool) {
    let queue = pool.queue().await;
    let before = queue.group("before", End).await;
    let posted = queue.post(["a", "a", "b"].map(|key| keyed(key, "1")).to_vec()).await;
    queue.take(10).await;
    let after = queue.group("after", Start).await;
    for group in [before, after] {
        let claim = group.take(1).await;
        assert_eq!(ids(&claim.messages), posted[..1]);
        assert_eq!(group.claim_ids(10).await, posted[2..]);
        group.acknowledge(claim.id, &[ack(posted[0])]).await;
        assert_eq!(group.claim_ids(10).await, posted[1..2]);
    }
}

pub async fn a_group_dead_letters_independently(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let group = queue.group("g", End).await;
    let posted = queue.post_n(1).await;
    let claim = group.take(1).await;
    group.release(claim.id).await;
    assert_eq!(group.claim(&claim_with_dead_letter(1, 1, &dlq)).await, None);
    assert_eq!(texts(&dlq.all().await), ["0"]);
    assert_eq!(group.counts().await, (0, 0));
    assert_eq!(queue.plain().await, posted);
    // The dead letter does not depend on the message of the queue.
    queue.delete(posted[0], None).await;
    pool.sweep_all().await;
    assert_eq!(texts(&dlq.all().await), ["0"]);
    // A rule that names the queue of the group has no effect.
    queue.post_n(1).await;
    assert!(group.claim(&claim_with_dead_letter(1, 0, &queue)).await.is_some());
}

pub async fn dead_letters_reach_the_groups_of_the_dead_letter_queue(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let group = dlq.group("g", End).await;
    queue.post(vec![message("0"), keyed("a", "1")]).await;
    queue.claim(&claim_with_dead_letter(10, 0, &dlq)).await;
    let mut bodies = texts(&group.all().await).join(" ");
    assert!(["0 1", "1 0"].contains(&bodies.as_str()), "{bodies}");
    bodies = texts(&dlq.pop(2).await).join(" ");
    assert_eq!(texts(&group.all().await).join(" "), bodies);
}

pub async fn a_group_has_its_own_counts(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let posted = queue.post_n(5).await;
    queue.delete(posted[0], None).await;
    queue.take(2).await;
    group.take(1).await;
    assert_eq!(queue.counts().await, (2, 2));
    assert_eq!(group.counts().await, (4, 1));
    assert_eq!(group.stats().await.oldest.unwrap().id, posted[0]);
}

pub async fn a_post_wakes_each_group(pool: &TestPool) {
    let queue = pool.queue().await;
    let groups = [queue.group("one", End).await, queue.group("other", End).await];
    let mut watches =
        [groups[0].watch(WatchFor::Claimable).await, groups[1].watch(WatchFor::Claimable).await];
    queue.post_n(1).await;
    for watch in &mut watches {
        assert!(watch.wait(DEADLINE).await);
    }
}

pub async fn a_purge_applies_to_one_group(pool: &TestPool) {
    let queue = pool.queue().await;
    let (one, other) = (queue.group("one", End).await, queue.group("other", End).await);
    queue.post_n(3).await;
    assert_eq!(queue.purge().await, 3);
    assert_eq!(one.purge().await, 3);
    assert_eq!([queue.counts().await, one.counts().await], [(0, 0); 2]);
    assert_eq!(texts(&other.all().await), ["0", "1", "2"]);
}
