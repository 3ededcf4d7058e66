//! Each thing that a pool does, at least once.

use std::{num::NonZeroU32, time::Duration};

use storage_traits::{
    Limit,
    conformance::{TestPool, TestQueue},
    domain::{
        AckOutcome, Acknowledgement, ClaimSpec, ClaimTerms, DeadLetter, Deduplication, Delivery,
        Message, NewMessage, StartPoint,
    },
    pool::{RedriveSpec, Redriven, Rescheduled, WatchFor},
};

use crate::builders::{ack, claim_spec, everything, message};

const MINUTE: Duration = Duration::from_mins(1);

fn keyed(key: &str) -> NewMessage {
    NewMessage { ordering_key: Some(key.parse().unwrap()), ..message("\"keyed\"") }
}

fn deduplicated(id: &str) -> NewMessage {
    let deduplication = Deduplication { id: id.parse().unwrap(), window: 5 * MINUTE };
    NewMessage { deduplication: Some(deduplication), ..message("\"once\"") }
}

fn delayed() -> NewMessage {
    NewMessage { delivery: Delivery::After(10 * MINUTE), ..message("\"hidden\"") }
}

fn retained() -> NewMessage {
    NewMessage { retained: true, ..message("\"retained\"") }
}

fn nack(message: &Message, delay: Duration) -> Acknowledgement {
    Acknowledgement { id: message.id, outcome: AckOutcome::Nack { delay } }
}

/// A claim that moves to `grave` what was claimed before.
fn claim_with_dead_letter(grave: &TestQueue) -> ClaimSpec {
    let queue = grave.queue.clone();
    let rule = DeadLetter { queue, max_claim_count: 1, ttl: None, retained: false };
    ClaimSpec { dead_letter: Some(rule), ..claim_spec(10) }
}

/// What most consumers do, which the pool does by shorter ways than the rest.
async fn use_it_plainly(queue: &TestQueue) {
    let posted = queue.post_n(9).await;
    let (first, second) = (queue.take(3).await, queue.take(3).await);
    let all: Vec<_> = first.messages.iter().map(|message| ack(message.id)).collect();
    queue.acknowledge(first.id, &all).await;
    let part: Vec<_> = second.messages[..2].iter().map(|message| message.id).collect();
    assert_eq!(queue.delete_many(&part, &[]).await, Some(2));
    assert_eq!(queue.plain().await, posted[6..]);
    assert_eq!(queue.plain().await, posted[6..]);
    queue.delete(posted[5], Some(second.id)).await;
    queue.pop(3).await;
}

/// Uses a pool in all ways; answers its queues. The clock goes on by some minutes.
pub(crate) async fn exercise(pool: &TestPool) -> Vec<TestQueue> {
    let queues = [pool.queue().await, pool.queue().await, pool.queue().await, pool.queue().await];
    let [plain, lines, groups, grave] = &queues;
    use_it_plainly(plain).await;
    use_messages(plain).await;
    use_lines(lines).await;
    use_groups(groups, grave).await;
    use_letters(plain, grave).await;
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
        .post(vec![deduplicated("a"), deduplicated("b"), deduplicated("a"), delayed(), retained()])
        .await;
    let hidden = queue.post_one(delayed()).await;
    assert_eq!(queue.reschedule(hidden, queue.now()).await, Rescheduled::Moved);
    assert_eq!(everything(queue).await.len(), 25);
    assert_eq!(queue.get(&ids).await.len(), 20);
    let claim = queue.take(5).await;
    let minute = ClaimTerms { ttl: 2 * MINUTE, grace: MINUTE };
    queue.try_renew(claim.id, minute).await.unwrap();
    assert_eq!(queue.get_claim(claim.id).await.unwrap().messages.len(), 5);
    queue.delete(claim.messages[0].id, Some(claim.id)).await;
    queue.delete_many(&[claim.messages[1].id], &[claim.id]).await;
    let said = [
        ack(claim.messages[2].id),
        nack(&claim.messages[3], MINUTE),
        nack(&claim.messages[4], Duration::ZERO),
    ];
    queue.acknowledge(claim.id, &said).await;
    queue.release(queue.take(3).await.id).await;
    queue.take(3).await;
    queue.advance(2 * MINUTE);
    queue.delete(ids[10], None).await;
    assert_eq!(queue.pop(3).await.len(), 3);
    assert!(queue.counts().await.0 > 10);
}

async fn use_lines(queue: &TestQueue) {
    queue.post(vec![keyed("a"), keyed("a"), keyed("b"), keyed("b"), message("1")]).await;
    let claim = queue.take(4).await;
    queue.acknowledge(claim.id, &[nack(&claim.messages[0], MINUTE)]).await;
    queue.release(claim.id).await;
    let claim = queue.take(1).await;
    queue.acknowledge(claim.id, &[ack(claim.messages[0].id)]).await;
    queue.advance(MINUTE);
    queue.pop(1).await;
    queue.post(vec![keyed("c"), delayed()]).await;
    assert!(queue.purge().await > 0);
    queue.post(vec![keyed("d"), keyed("d")]).await;
}

async fn use_groups(queue: &TestQueue, grave: &TestQueue) {
    queue.post(vec![message("1"), keyed("a"), retained(), delayed()]).await;
    let group = queue.group("g", StartPoint::Start).await;
    queue.group("h", StartPoint::Start).await;
    queue.post(vec![message("2"), keyed("a"), retained(), deduplicated("x")]).await;
    queue.pop(2).await;
    let claim = group.take(10).await;
    group.acknowledge(claim.id, &[ack(claim.messages[0].id)]).await;
    group.release(claim.id).await;
    group.claim(&claim_with_dead_letter(grave)).await;
    redrive(grave).await;
    let name = "h".parse().unwrap();
    assert!(queue.pool.get_group(&queue.queue, &name).await.unwrap().is_some());
    let all = queue.pool.list_groups(&queue.queue, None, Limit::new(10).unwrap()).await;
    assert_eq!(all.unwrap().items.len(), 2);
    let again = queue.seek("g", StartPoint::Start).await;
    again.take(2).await;
    queue.seek("g", StartPoint::Time(queue.now())).await;
    assert!(queue.pool.delete_group(&queue.queue, &name).await.unwrap());
}

async fn use_letters(queue: &TestQueue, grave: &TestQueue) {
    queue.post_n(5).await;
    queue.release(queue.take(10).await.id).await;
    queue.claim(&claim_with_dead_letter(grave)).await;
    assert!(redrive(grave).await.moved > 0);
    queue.release(queue.take(10).await.id).await;
    queue.claim(&claim_with_dead_letter(grave)).await;
    assert!(grave.counts().await.0 > 0);
}

async fn redrive(grave: &TestQueue) -> Redriven {
    let (limit, rate) = (Limit::new(3).unwrap(), NonZeroU32::new(10));
    let spec = RedriveSpec { limit, rate };
    grave.pool.redrive(&grave.queue, spec, grave.now()).await.unwrap()
}
