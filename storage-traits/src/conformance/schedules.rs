//! Schedules: messages that are posted now and become visible at a given time.

use super::{
    TestPool, TestQueue,
    builders::{HOUR, MILLISECOND, MINUTE, claim_spec, ids, just_before, list_visible, message},
};
use crate::{
    domain::{Delivery, MessageId, NewMessage, StartPoint},
    pool::{DeleteOutcome, ListSpec, Rescheduled},
};

/// Posts a message with a ttl of an hour that becomes visible after `after`.
async fn schedule(queue: &TestQueue, after: std::time::Duration) -> MessageId {
    let delivery = Delivery::At(queue.now().plus(after));
    queue.post_one(NewMessage { delivery, ..message("1") }).await
}

pub async fn a_scheduled_message_is_claimed_at_its_time(pool: &TestPool) {
    let queue = pool.queue().await;
    let scheduled = schedule(&queue, 48 * HOUR).await;
    let at_once = queue.post_one(message("2")).await;
    assert_eq!(queue.plain().await, [at_once]);
    assert_eq!(ids(&queue.take(10).await.messages), [at_once]);
    queue.advance(just_before(48 * HOUR));
    assert_eq!(queue.claim(&claim_spec(10)).await, None);
    assert_eq!(queue.plain().await, []);
    queue.advance(MILLISECOND);
    assert_eq!(queue.plain().await, [scheduled]);
    assert_eq!(ids(&queue.take(10).await.messages), [scheduled]);
}

pub async fn the_ttl_of_a_scheduled_message_counts_from_its_time(pool: &TestPool) {
    let queue = pool.queue().await;
    let id = schedule(&queue, 2 * HOUR).await;
    let found = queue.get_one(id).await;
    assert_eq!(found.visible_at, found.posted_at.plus(2 * HOUR));
    assert_eq!(found.expires_at, found.posted_at.plus(3 * HOUR));
    assert_eq!(found.ttl, HOUR);
    queue.advance(just_before(3 * HOUR));
    assert_eq!(queue.plain().await, [id]);
    queue.advance(MILLISECOND);
    assert_eq!(queue.all().await, []);
}

pub async fn a_schedule_in_the_past_means_now(pool: &TestPool) {
    let queue = pool.queue().await;
    let past = queue.now();
    queue.advance(2 * HOUR);
    let new = NewMessage { delivery: Delivery::At(past), ..message("1") };
    let found = queue.post_one(new).await;
    let found = queue.get_one(found).await;
    assert_eq!(found.visible_at, queue.now());
    assert_eq!(found.expires_at, queue.now().plus(HOUR));
    assert_eq!(queue.take(1).await.messages.len(), 1);
}

pub async fn scheduled_messages_can_be_listed_alone(pool: &TestPool) {
    let queue = pool.queue().await;
    let mut scheduled = Vec::new();
    for _ in 0..3 {
        queue.post_n(2).await;
        scheduled.push(schedule(&queue, HOUR).await);
    }
    queue.take(2).await;
    let only = ListSpec { include_free: false, include_delayed: true, ..list_visible(2) };
    let page = queue.list(&only).await;
    assert_eq!((ids(&page.items), page.more), (scheduled[..2].to_vec(), true));
    let rest = ListSpec { after: Some(scheduled[1].sequence), ..only };
    let page = queue.list(&rest).await;
    assert_eq!((ids(&page.items), page.more), (scheduled[2..].to_vec(), false));
    queue.advance(HOUR);
    assert_eq!(queue.list(&rest).await.items, []);
}

pub async fn a_scheduled_message_can_be_cancelled(pool: &TestPool) {
    let queue = pool.queue().await;
    let id = schedule(&queue, MINUTE).await;
    assert_eq!(queue.delete(id, None).await, DeleteOutcome::Deleted);
    queue.advance(MINUTE);
    assert_eq!(queue.claim(&claim_spec(1)).await, None);
    assert_eq!(queue.counts().await, (0, 0));
}

pub async fn a_scheduled_message_can_be_rescheduled(pool: &TestPool) {
    let queue = pool.queue().await;
    let start = queue.now();
    let [earlier, later] = [schedule(&queue, HOUR).await, schedule(&queue, HOUR).await];
    assert_eq!(queue.reschedule(earlier, start.plus(MINUTE)).await, Rescheduled::Moved);
    assert_eq!(queue.reschedule(later, start.plus(5 * HOUR)).await, Rescheduled::Moved);
    queue.advance(MINUTE);
    assert_eq!(queue.plain().await, [earlier]);
    queue.advance(HOUR);
    // The earlier message has expired: its ttl counts from its new time.
    assert_eq!(queue.plain().await, []);
    queue.advance(4 * HOUR);
    // A minute after the new time of the later message.
    assert_eq!(queue.plain().await, [later]);
    assert_eq!(queue.get_one(later).await.expires_at, start.plus(6 * HOUR));
    assert_eq!(queue.counts().await, (1, 0));
}

pub async fn a_message_rescheduled_to_the_past_is_visible_at_once(pool: &TestPool) {
    let queue = pool.queue().await;
    let past = queue.now();
    let id = schedule(&queue, HOUR).await;
    queue.advance(MINUTE);
    assert_eq!(queue.reschedule(id, past).await, Rescheduled::Moved);
    let found = queue.get_one(id).await;
    assert_eq!((found.visible_at, found.expires_at), (queue.now(), queue.now().plus(HOUR)));
    assert_eq!(ids(&queue.take(1).await.messages), [id]);
}

pub async fn a_message_rescheduled_to_the_past_expires_with_its_ttl(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", StartPoint::End).await;
    let delivery = Delivery::At(queue.now().plus(HOUR));
    let id = queue.post_one(NewMessage { delivery, ttl: MINUTE, ..message("1") }).await;
    assert_eq!(queue.reschedule(id, queue.now()).await, Rescheduled::Moved);
    queue.advance(MINUTE);
    for queue in [&queue, &group] {
        assert_eq!(queue.get(&[id]).await, []);
        assert_eq!(queue.all().await, []);
        assert_eq!(queue.counts().await, (0, 0));
        assert_eq!(queue.claim(&claim_spec(1)).await, None);
    }
}

pub async fn a_visible_message_is_not_rescheduled(pool: &TestPool) {
    let queue = pool.queue().await;
    let (due, claimed, free) =
        (schedule(&queue, MINUTE).await, queue.post_n(1).await, queue.post_n(1).await);
    queue.take(1).await;
    queue.advance(MINUTE / 2);
    let time = queue.now().plus(HOUR);
    for id in [claimed[0], free[0]] {
        assert_eq!(queue.reschedule(id, time).await, Rescheduled::Visible);
    }
    queue.advance(MINUTE / 2);
    assert_eq!(queue.reschedule(due, time).await, Rescheduled::Visible);
    assert_eq!(queue.counts().await, (3, 0));
}

pub async fn a_missing_message_is_not_rescheduled(pool: &TestPool) {
    let [queue, other] = [pool.queue().await, pool.queue().await];
    let (deleted, expired) = (schedule(&queue, HOUR).await, schedule(&queue, MINUTE).await);
    queue.delete(deleted, None).await;
    let time = queue.now().plus(HOUR);
    queue.advance(HOUR + MINUTE);
    for id in [deleted, expired, queue.id(99)] {
        assert_eq!(queue.reschedule(id, time).await, Rescheduled::Missing);
    }
    let foreign = schedule(&other, HOUR).await;
    assert_eq!(queue.reschedule(foreign, time).await, Rescheduled::Missing);
    let unknown = pool.unopened("conformance", "unknown");
    assert_eq!(unknown.reschedule(unknown.id(1), time).await, Rescheduled::Missing);
}

/// A message that became visible by the clock of one node is found by a node whose clock is behind.
pub async fn a_message_stays_visible_to_a_clock_that_is_behind(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = [schedule(&queue, MINUTE).await, schedule(&queue, MINUTE).await];
    let behind = queue.now().plus(MINUTE / 2);
    queue.advance(MINUTE);
    assert_eq!(queue.counts().await, (2, 0));
    let found = pool.pool.get(&queue.queue, &posted, behind).await.unwrap();
    assert_eq!(ids(&found), posted);
    let deleted = pool.pool.delete(&queue.queue, posted[0], None, behind).await.unwrap();
    assert_eq!(deleted, DeleteOutcome::Deleted);
    assert_eq!(ids(&queue.take(10).await.messages), posted[1..]);
}
