//! Retained messages: new and moved groups get them until their ttl ends, even if the queue and all
//! groups have removed them.

use super::{
    TestPool, TestQueue,
    builders::{
        HOUR, MILLISECOND, MINUTE, claim_spec, concurrently, delayed, ids, just_before, keyed,
        message, retained, terms, texts,
    },
    dead_letter_rules::{claim_with_dead_letter, dead_letter_to},
};
use crate::{
    domain::{
        ClaimSpec, DeadLetter, MessageId, NewMessage, Sequence,
        StartPoint::{self, End, Start, Time},
    },
    pool::{DeleteOutcome, Rescheduled},
};

/// Creates a group and returns the ids of its messages.
async fn found(queue: &TestQueue, name: &str, start: StartPoint) -> Vec<MessageId> {
    ids(&queue.group(name, start).await.all().await)
}

pub async fn a_retained_message_is_found_after_all_groups_removed_it(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let new =
        ["0", "1", "2"].map(|body| NewMessage { checksum: Some("c".into()), ..retained(body) });
    let posted = queue.post(new.to_vec()).await;
    let own = queue.all().await;
    assert_eq!(queue.pop(3).await.len(), 3);
    assert_eq!(group.pop(3).await.len(), 3);
    pool.sweep_all().await;
    assert_eq!(queue.all().await, []);
    assert_eq!(queue.get(&posted).await, []);
    assert_eq!(queue.counts().await, (0, 0));
    let late = queue.group("late", Start).await;
    assert_eq!(late.all().await, own);
    assert_eq!(ids(&late.take(10).await.messages), posted);
}

pub async fn messages_without_retention_are_not_found(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post(vec![message("0"), retained("1"), message("2")]).await;
    assert_eq!(queue.pop(3).await.len(), 3);
    assert_eq!(found(&queue, "g", Start).await, posted[1..2]);
}

pub async fn a_retained_message_of_the_queue_is_found_once(pool: &TestPool) {
    let queue = pool.queue().await;
    let new = |n: usize| if n.is_multiple_of(3) { message("1") } else { retained("1") };
    let posted = queue.post((0..9).map(new).collect()).await;
    queue.delete_many(&posted[2..5], &[]).await;
    queue.take(3).await;
    let expected: Vec<_> = (0..9).filter(|n| *n != 3).map(|n| posted[n]).collect();
    assert_eq!(found(&queue, "g", Start).await, expected);
}

pub async fn a_group_moves_back_to_acknowledged_messages(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let first = queue.post(vec![retained("0"); 2]).await;
    queue.advance(MINUTE);
    let time = queue.now();
    let second = queue.post(vec![retained("1"); 2]).await;
    queue.pop(4).await;
    group.pop(4).await;
    let all = [first.clone(), second.clone()].concat();
    let third = Sequence::new(3).unwrap();
    for (to, expected) in
        [(Start, &all), (Time(time), &second), (StartPoint::Sequence(third), &second)]
    {
        let group = queue.seek("g", to).await;
        assert_eq!(ids(&group.pop(10).await), *expected, "{to:?}");
    }
    assert_eq!(queue.seek("g", End).await.pop(10).await, []);
}

pub async fn many_retained_messages_are_copied(pool: &TestPool) {
    let queue = pool.queue().await;
    let mut posted = Vec::new();
    for _ in 0..3 {
        posted.extend(queue.post(vec![retained("1"); 300]).await);
        posted.extend(queue.post(vec![message("1"); 100]).await);
    }
    // The queue still has some retained and some other messages among the deleted ones.
    queue.delete_many(&posted[100..600], &[]).await;
    let exists = |n: &usize| n % 400 < 300 || !(100..600).contains(n);
    let expected: Vec<_> = (0..1_200).filter(exists).map(|n| posted[n]).collect();
    assert_eq!(found(&queue, "g", Start).await, expected);
}

pub async fn a_retained_message_expires_with_its_ttl(pool: &TestPool) {
    let queue = pool.queue().await;
    let new = NewMessage { ttl: MINUTE, ..retained("1") };
    let posted = queue.post(vec![new, retained("2")]).await;
    queue.pop(2).await;
    queue.advance(just_before(MINUTE));
    assert_eq!(found(&queue, "before", Start).await, posted);
    queue.advance(MILLISECOND);
    assert_eq!(found(&queue, "after", Start).await, posted[1..]);
    pool.sweep_all().await;
    assert_eq!(found(&queue, "swept", Start).await, posted[1..]);
    assert_eq!(pool.pool.counters().expired, 0, "the message was not in the queue any more");
}

pub async fn a_retained_message_is_counted_as_expired_once(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post(vec![NewMessage { ttl: MINUTE, ..retained("1") }; 3]).await;
    queue.advance(MINUTE);
    pool.sweep_all().await;
    assert_eq!(pool.pool.counters().expired, 3);
    assert_eq!(pool.sweep_all().await, 0);
}

pub async fn a_retained_message_keeps_its_key(pool: &TestPool) {
    let queue = pool.queue().await;
    let new = ["a", "b", "a"].map(|key| NewMessage { retained: true, ..keyed(key, "1") });
    let posted = queue.post(new.to_vec()).await;
    queue.pop(3).await;
    let group = queue.group("g", Start).await;
    let claim = group.take(1).await;
    assert_eq!(ids(&claim.messages), posted[..1]);
    assert_eq!(ids(&group.take(10).await.messages), posted[1..2]);
    assert_eq!(group.claim(&claim_spec(10)).await, None);
}

pub async fn a_schedule_applies_to_retained_messages(pool: &TestPool) {
    let queue = pool.queue().await;
    let new = |body| NewMessage { retained: true, ..delayed(body, MINUTE) };
    let posted = queue.post(["0", "1", "2"].map(new).to_vec()).await;
    let later = queue.now().plus(HOUR);
    assert_eq!(queue.reschedule(posted[0], later).await, Rescheduled::Moved);
    assert_eq!(queue.delete(posted[1], None).await, DeleteOutcome::Deleted);
    let group = queue.group("before", Start).await;
    assert_eq!(ids(&group.all().await), [posted[0], posted[2]]);
    assert_eq!(group.claim(&claim_spec(10)).await, None);
    queue.advance(MINUTE);
    assert_eq!(ids(&queue.pop(10).await), posted[2..]);
    let group = queue.group("after", Start).await;
    assert_eq!(ids(&group.take(10).await.messages), posted[2..]);
    queue.advance(HOUR);
    assert_eq!(ids(&group.take(10).await.messages)[0], posted[0]);
}

pub async fn a_purge_deletes_retained_messages(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post(vec![retained("1"); 250]).await;
    queue.pop(100).await;
    assert_eq!(queue.purge().await, 150);
    assert_eq!(found(&queue, "g", Start).await, []);
    let posted = queue.post(vec![retained("2"); 2]).await;
    queue.pop(2).await;
    assert_eq!(found(&queue, "later", Start).await, posted);
}

pub async fn a_dropped_queue_retains_no_messages(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post(vec![retained("1"); 3]).await;
    queue.pop(3).await;
    pool.pool.drop_queue(&queue.queue).await.unwrap();
    pool.sweep_all().await;
    pool.advance(2 * HOUR);
    pool.sweep_all().await;
    assert_eq!(pool.sweep_all().await, 0);
}

pub async fn a_rule_may_retain_dead_letters(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let posted = queue.post(vec![retained("1")]).await;
    let rule = DeadLetter { retained: true, ..dead_letter_to(0, &dlq) };
    let spec = ClaimSpec { dead_letter: Some(rule), ..claim_spec(1) };
    assert_eq!(queue.claim(&spec).await, None);
    // The source queue still retains the message.
    assert_eq!(found(&queue, "g", Start).await, posted);
    assert_eq!(texts(&dlq.pop(1).await), ["1"]);
    assert_eq!(found(&dlq, "g", Start).await, [dlq.id(1)]);
    queue.post(vec![message("2")]).await;
    assert_eq!(queue.claim(&claim_with_dead_letter(1, 0, &dlq)).await, None);
    dlq.pop(1).await;
    assert_eq!(found(&dlq, "later", Start).await, [dlq.id(1)]);
}

pub async fn a_body_is_kept_while_any_group_has_it(pool: &TestPool) {
    let queue = pool.queue().await;
    let body = format!("\"{}\"", "x".repeat(100_000));
    let group = queue.group("g", End).await;
    let id = queue.post(vec![NewMessage { ttl: MINUTE, ..retained(&body) }]).await[0];
    let late = queue.group("late", Start).await;
    queue.pop(1).await;
    group.pop(1).await;
    pool.sweep_all().await;
    assert_eq!(texts(&late.get(&[id]).await), [body.as_str()]);
    late.claim(&ClaimSpec { terms: terms(600, 600), ..claim_spec(1) }).await.unwrap();
    // The message that the claim extended outlives the retained one.
    queue.advance(2 * MINUTE);
    pool.sweep_all().await;
    assert_eq!(texts(&late.get(&[id]).await), [body.as_str()]);
    assert_eq!(found(&queue, "none", Start).await, []);
}

pub async fn posting_and_retaining_is_atomic(pool: &TestPool) {
    let queue = pool.queue().await;
    concurrently(8, |n| {
        let queue = queue.clone();
        async move {
            for _ in 0..10 {
                queue.post(vec![retained("1"); 3]).await;
                queue.group(&n.to_string(), Start).await;
                queue.pop(3).await;
            }
        }
    })
    .await;
    queue.pop(1_000).await;
    let all: Vec<_> = (1..=240).map(|n| queue.id(n)).collect();
    assert_eq!(found(&queue, "all", Start).await, all);
    assert_eq!(queue.seek("0", Start).await.all().await.len(), 240);
}
