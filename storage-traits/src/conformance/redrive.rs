//! Redrive: dead letters are moved back to their source.

use std::{num::NonZeroU32, time::Duration};

use super::{
    TestPool, TestQueue,
    builders::{HOUR, MINUTE, claim_spec, concurrently, ids, keyed, limit, message, nack, texts},
    dead_letter_rules::{claim_with_dead_letter, dead_letter_to},
};
use crate::{
    domain::{
        ClaimSpec, DeadLetter, Message, MessageId, NewMessage,
        StartPoint::{End, Start},
        Timestamp,
    },
    pool::{RedriveSpec, Redriven},
};

fn at_once(n: u32) -> RedriveSpec {
    RedriveSpec { limit: limit(n), rate: None }
}

fn at_rate(n: u32, rate: u32) -> RedriveSpec {
    RedriveSpec { limit: limit(n), rate: NonZeroU32::new(rate) }
}

async fn redrive(dlq: &TestQueue, spec: RedriveSpec) -> Redriven {
    dlq.pool.redrive(&dlq.queue, spec, dlq.now()).await.unwrap()
}

/// Redrives up to `n` messages at once; returns the numbers of moved and orphaned messages, and
/// whether there are more.
async fn outcome(dlq: &TestQueue, n: u32) -> (u64, u64, bool) {
    let Redriven { moved, orphaned, more, last_visible_at } = redrive(dlq, at_once(n)).await;
    assert_eq!(last_visible_at, dlq.now());
    (moved, orphaned, more)
}

/// Moves all ready messages of a queue or group to the dead-letter queue.
async fn dead_letter_all(queue: &TestQueue, dlq: &TestQueue) {
    assert_eq!(queue.claim(&claim_with_dead_letter(1_000, 0, dlq)).await, None);
}

/// Returns the visibility times, in milliseconds after `start`.
fn visible_after(messages: &[Message], start: Timestamp) -> Vec<i64> {
    messages.iter().map(|m| m.visible_at.as_millis() - start.as_millis()).collect()
}

pub async fn a_dead_letter_is_moved_back_to_its_queue(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let new = NewMessage { ttl: 5 * MINUTE, checksum: Some("c".into()), ..keyed("a", "{ }") };
    let old = queue.post_one(new.clone()).await;
    let claim = queue.take(1).await;
    queue.release(claim.id).await;
    let rule = DeadLetter { ttl: Some(HOUR), ..dead_letter_to(1, &dlq) };
    let spec = ClaimSpec { dead_letter: Some(rule), ..claim_spec(1) };
    assert_eq!(queue.claim(&spec).await, None);
    let before = claim.messages[0].clone();
    queue.advance(MINUTE);

    assert_eq!(outcome(&dlq, 10).await, (1, 0, false));
    assert_eq!(dlq.all().await, []);
    assert_eq!(dlq.counts().await, (0, 0));
    let now = queue.now();
    let back = Message {
        id: queue.id(2),
        posted_at: now,
        visible_at: now,
        expires_at: now.plus(5 * MINUTE),
        claim: None,
        claim_count: 0,
        origin: None,
        ..before
    };
    assert_eq!(queue.all().await, [back]);
    assert_eq!(queue.get(&[old]).await, []);
    assert_eq!(ids(&queue.take(1).await.messages), [queue.id(2)]);
}

pub async fn the_oldest_are_moved_first_up_to_the_limit(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let new = |n: usize| {
        if n.is_multiple_of(2) { keyed("a", &n.to_string()) } else { message(&n.to_string()) }
    };
    queue.post((0..10).map(new).collect()).await;
    dead_letter_all(&queue, &dlq).await;
    let order: Vec<_> = texts(&dlq.all().await).into_iter().map(ToOwned::to_owned).collect();
    assert_eq!(outcome(&dlq, 4).await, (4, 0, true));
    assert_eq!(texts(&queue.all().await), order[..4]);
    assert_eq!(texts(&dlq.all().await), order[4..]);
    assert_eq!(outcome(&dlq, 6).await, (6, 0, false));
    assert_eq!(texts(&queue.all().await), order);
    assert_eq!(outcome(&dlq, 6).await, (0, 0, false));
    assert_eq!(queue.counts().await, (10, 0));
    assert_eq!(dlq.counts().await, (0, 0));
    // The order of the keys is intact in both queues.
    let claim = queue.take(20).await;
    assert_eq!(claim.messages.len(), 10);
    assert_eq!(dlq.claim(&claim_spec(1)).await, None);
}

pub async fn a_dead_letter_of_a_group_is_moved_back_to_that_group(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let (one, other) = (queue.group("one", End).await, queue.group("other", End).await);
    let posted = queue.post_n(2).await;
    dead_letter_all(&one, &dlq).await;
    assert_eq!(outcome(&dlq, 10).await, (2, 0, false));
    assert_eq!(ids(&one.all().await), [queue.id(3), queue.id(4)]);
    assert_eq!(queue.plain().await, posted);
    assert_eq!(ids(&other.all().await), posted);
    // The next post gets a later sequence, in the queue and in all groups.
    let next = queue.post_n(1).await;
    assert_eq!(next, [queue.id(5)]);
    assert_eq!(ids(&one.pop(3).await), [queue.id(3), queue.id(4), next[0]]);
}

pub async fn a_dead_letter_of_the_queue_is_not_moved_to_its_groups(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let group = queue.group("g", End).await;
    let posted = queue.post_n(1).await;
    dead_letter_all(&queue, &dlq).await;
    assert_eq!(outcome(&dlq, 1).await, (1, 0, false));
    assert_eq!(queue.plain().await, [queue.id(2)]);
    assert_eq!(ids(&group.all().await), posted);
    // A new group gets the message that was moved back.
    assert_eq!(ids(&queue.group("late", Start).await.all().await), [queue.id(2)]);
}

pub async fn a_redrive_reaches_a_group_that_was_moved(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let group = queue.group("g", End).await;
    queue.post_n(1).await;
    dead_letter_all(&group, &dlq).await;
    let group = queue.seek("g", End).await;
    assert_eq!(outcome(&dlq, 1).await, (1, 0, false));
    assert_eq!(ids(&group.take(10).await.messages), [queue.id(2)]);
}

pub async fn an_orphaned_dead_letter_stays(pool: &TestPool) {
    let [queue, dropped, dlq] = [pool.queue().await, pool.queue().await, pool.queue().await];
    let group = queue.group("g", End).await;
    dlq.post(vec![message("own")]).await;
    dropped.post(vec![message("gone"), keyed("a", "gone too")]).await;
    dead_letter_all(&dropped, &dlq).await;
    queue.post(vec![message("kept")]).await;
    dead_letter_all(&group, &dlq).await;
    dead_letter_all(&queue, &dlq).await;
    pool.pool.drop_queue(&dropped.queue).await.unwrap();
    pool.pool.delete_group(&queue.queue, &"g".parse().unwrap()).await.unwrap();

    assert_eq!(outcome(&dlq, 3).await, (0, 3, true));
    assert_eq!(outcome(&dlq, 3).await, (1, 0, false));
    assert_eq!(outcome(&dlq, 3).await, (0, 0, false));
    assert_eq!(dlq.counts().await, (4, 0));
    assert_eq!(texts(&queue.all().await), ["kept"]);
    assert!(dlq.all().await.iter().all(|message| message.origin.is_none()));
    assert_eq!(dlq.take(10).await.messages.len(), 4);
}

pub async fn claimed_and_delayed_dead_letters_stay(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    queue.post_n(3).await;
    dead_letter_all(&queue, &dlq).await;
    let claim = dlq.take(2).await;
    let postponed = [nack(dlq.id(2), HOUR / 2)];
    dlq.acknowledge(claim.id, &postponed).await;
    assert_eq!(outcome(&dlq, 10).await, (1, 0, false));
    dlq.advance(MINUTE);
    assert_eq!(outcome(&dlq, 10).await, (1, 0, false));
    dlq.advance(HOUR / 2);
    assert_eq!(outcome(&dlq, 10).await, (1, 0, false));
    assert_eq!(texts(&queue.all().await), ["2", "0", "1"]);
}

pub async fn dead_letters_of_a_blocked_key_stay(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    queue.post(["1", "2"].map(|body| keyed("blocked", body)).to_vec()).await;
    queue.post(vec![keyed("free", "3"), message("4")]).await;
    dead_letter_all(&queue, &dlq).await;
    let blocking =
        dlq.all().await.into_iter().find(|message| texts(std::slice::from_ref(message)) == ["1"]);
    let claim = loop {
        let claim = dlq.take(1).await;
        if ids(&claim.messages) == [blocking.as_ref().unwrap().id] {
            break claim;
        }
        dlq.acknowledge(claim.id, &[nack(claim.messages[0].id, Duration::ZERO)]).await;
    };
    assert_eq!(outcome(&dlq, 10).await, (2, 0, false));
    assert_eq!(texts(&dlq.all().await), ["1", "2"]);
    dlq.release(claim.id).await;
    assert_eq!(outcome(&dlq, 10).await, (2, 0, false));
    let mut all = texts(&queue.all().await).join(" ");
    all = all.replace("3 4", "-").replace("4 3", "-");
    assert_eq!(all, "- 1 2");
}

pub async fn a_rate_spreads_the_visibility_times(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    queue.post_n(10).await;
    dead_letter_all(&queue, &dlq).await;
    let start = queue.now();
    let done = redrive(&dlq, at_rate(4, 3)).await;
    assert_eq!((done.moved, done.last_visible_at), (4, start.plus(Duration::from_secs(1))));
    assert_eq!(visible_after(&queue.all().await, start), [0, 333, 666, 1_000]);
    assert_eq!(queue.take(10).await.messages.len(), 1);
    // The next call continues after the last visibility time, at its own rate.
    queue.advance(Duration::from_millis(500));
    redrive(&dlq, at_rate(3, 10)).await;
    assert_eq!(visible_after(&queue.all().await[4..], start), [1_333, 1_433, 1_533]);
    // A redrive without a rate is visible at once.
    redrive(&dlq, at_once(1)).await;
    assert_eq!(visible_after(&queue.all().await[7..], start), [500]);
    queue.advance(MINUTE);
    let done = redrive(&dlq, at_rate(10, 1)).await;
    assert_eq!((done.moved, done.more), (2, false));
    assert_eq!(visible_after(&queue.all().await[8..], start), [60_500, 61_500]);
    let expiry = queue.all().await[9].expires_at;
    assert_eq!(expiry, start.plus(HOUR + Duration::from_millis(61_500)));
}

pub async fn a_message_may_be_dead_lettered_repeatedly(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    queue.post(vec![keyed("a", "1"), keyed("a", "2"), message("3")]).await;
    for _ in 0..3 {
        dead_letter_all(&queue, &dlq).await;
        assert_eq!(dlq.counts().await, (3, 0));
        assert_eq!(outcome(&dlq, 10).await, (3, 0, false));
    }
    let claim = queue.take(10).await;
    let mut all = texts(&claim.messages);
    all.sort_unstable();
    assert_eq!(all, ["1", "2", "3"]);
}

pub async fn an_unknown_queue_has_no_dead_letters(pool: &TestPool) {
    let queue = pool.unopened("conformance", "orders");
    assert_eq!(outcome(&queue, 1).await, (0, 0, false));
}

pub async fn each_dead_letter_is_moved_back_once(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let group = queue.group("g", End).await;
    queue.post_n(200).await;
    dead_letter_all(&queue, &dlq).await;
    dead_letter_all(&group, &dlq).await;
    let moved: Vec<u64> = concurrently(8, |_| {
        let dlq = dlq.clone();
        async move {
            let mut moved = 0;
            loop {
                let done = redrive(&dlq, at_rate(7, 1_000_000)).await;
                moved += done.moved;
                if done.moved == 0 {
                    return moved;
                }
            }
        }
    })
    .await;
    assert_eq!(moved.iter().sum::<u64>(), 400);
    queue.advance(MINUTE);
    let sequences = |messages: &[Message]| -> Vec<MessageId> { ids(messages) };
    let mut all = sequences(&queue.pop(1_000).await);
    assert_eq!(all.len(), 200);
    all.extend(sequences(&group.pop(1_000).await));
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 400, "each message has an id of its own");
}
