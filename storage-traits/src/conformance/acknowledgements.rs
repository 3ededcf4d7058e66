//! Acknowledgements: outcomes that a consumer reports for the messages of its claim.

use super::{
    TestPool,
    builders::{HOUR, MILLISECOND, MINUTE, ack, claim_spec, ids, just_before, nack, texts},
    dead_letter_rules::claim_with_dead_letter,
};
use crate::domain::{
    AckResult::{Applied, NotHeld},
    ClaimId,
};

const NO_DELAY: std::time::Duration = std::time::Duration::ZERO;

pub async fn an_acked_message_is_removed(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(2).await;
    let claim = queue.take(1).await;
    assert_eq!(queue.acknowledge(claim.id, &[ack(posted[0])]).await, [Applied]);
    assert_eq!(ids(&queue.all().await), posted[1..]);
    assert_eq!(queue.counts().await, (1, 0));
    assert_eq!(queue.get_claim(claim.id).await.unwrap().messages, []);
}

pub async fn a_nacked_message_is_ready_at_once(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(3).await;
    let claim = queue.take(2).await;
    assert_eq!(queue.acknowledge(claim.id, &[nack(posted[0], NO_DELAY)]).await, [Applied]);
    assert_eq!(queue.counts().await, (2, 1));
    let message = queue.get_one(posted[0]).await;
    assert_eq!((message.claim, message.claim_count), (None, 1));
    // In its old position.
    assert_eq!(queue.plain().await, [posted[0], posted[2]]);
    let again = queue.take(10).await;
    assert_eq!(ids(&again.messages), [posted[0], posted[2]]);
    assert_eq!(again.messages[0].claim_count, 2);
}

pub async fn a_nack_with_a_delay_postpones_the_retry(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(2).await;
    let claim = queue.take(1).await;
    let before = queue.get_one(posted[0]).await;
    assert_eq!(queue.acknowledge(claim.id, &[nack(posted[0], MINUTE)]).await, [Applied]);
    assert_eq!(queue.plain().await, posted[1..]);
    assert_eq!(queue.counts().await, (2, 0));
    let waiting = queue.get_one(posted[0]).await;
    assert_eq!(waiting.visible_at, queue.now().plus(MINUTE));
    assert_eq!((waiting.expires_at, waiting.ttl), (before.expires_at, before.ttl));
    queue.advance(just_before(MINUTE));
    assert_eq!(queue.plain().await, posted[1..]);
    queue.advance(MILLISECOND);
    assert_eq!(ids(&queue.take(1).await.messages), posted[..1]);
}

pub async fn a_retry_after_the_expiry_never_occurs(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n_with(1, MINUTE, NO_DELAY).await;
    let claim = queue.take(1).await;
    queue.acknowledge(claim.id, &[nack(posted[0], 5 * HOUR)]).await;
    queue.advance(just_before(HOUR));
    assert_eq!(queue.claim(&claim_spec(1)).await, None);
    queue.advance(5 * HOUR);
    assert_eq!(queue.claim(&claim_spec(1)).await, None);
    assert_eq!(queue.all().await, []);
    assert_eq!(queue.counts().await, (0, 0));
}

pub async fn other_messages_of_the_claim_stay_claimed(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(4).await;
    let claim = queue.take(4).await;
    let acknowledgements = [ack(posted[1]), nack(posted[2], NO_DELAY)];
    assert_eq!(queue.acknowledge(claim.id, &acknowledgements).await, [Applied, Applied]);
    let left = queue.get_claim(claim.id).await.unwrap();
    assert_eq!(ids(&left.messages), [posted[0], posted[3]]);
    assert_eq!((left.renewed_at, left.ttl), (claim.renewed_at, claim.ttl));
    queue.advance(MINUTE);
    assert_eq!(queue.plain().await, [posted[0], posted[2], posted[3]]);
}

pub async fn each_acknowledgement_is_applied_on_its_own(pool: &TestPool) {
    let [queue, other] = [pool.queue().await, pool.queue().await];
    let posted = queue.post_n(4).await;
    let [first, second] = [queue.take(2).await, queue.take(1).await];
    let foreign = other.post_n(1).await;
    other.take(1).await;
    let acknowledgements = [
        ack(posted[2]),            // held by another claim
        ack(posted[0]),            // held by the claim
        nack(posted[3], NO_DELAY), // not claimed
        ack(queue.id(99)),         // never posted
        ack(foreign[0]),           // of another queue
        nack(posted[1], NO_DELAY), // held by the claim
    ];
    let results = queue.acknowledge(first.id, &acknowledgements).await;
    assert_eq!(results, [NotHeld, Applied, NotHeld, NotHeld, NotHeld, Applied]);
    assert_eq!(ids(&queue.all().await), posted[1..]);
    assert_eq!(ids(&queue.get_claim(second.id).await.unwrap().messages), posted[2..3]);
    assert_eq!(other.counts().await, (0, 1));
    assert_eq!(queue.acknowledge(first.id, &[]).await, []);
}

pub async fn the_first_of_two_acknowledgements_is_applied(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(2).await;
    let claim = queue.take(2).await;
    let acknowledgements =
        [nack(posted[0], NO_DELAY), ack(posted[0]), ack(posted[1]), ack(posted[1])];
    assert_eq!(
        queue.acknowledge(claim.id, &acknowledgements).await,
        [Applied, NotHeld, Applied, NotHeld]
    );
    assert_eq!(texts(&queue.all().await), ["0"]);
}

pub async fn an_ended_claim_acknowledges_no_message(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(1).await;
    let expired = queue.take(1).await;
    queue.advance(MINUTE);
    assert_eq!(queue.acknowledge(expired.id, &[ack(posted[0])]).await, [NotHeld]);
    let released = queue.take(1).await;
    queue.release(released.id).await;
    assert_eq!(queue.acknowledge(released.id, &[ack(posted[0])]).await, [NotHeld]);
    let unknown = ClaimId::random();
    assert_eq!(queue.acknowledge(unknown, &[nack(posted[0], HOUR)]).await, [NotHeld]);
    assert_eq!(queue.plain().await, posted);
    let unopened = pool.unopened("conformance", "unknown");
    assert_eq!(unopened.acknowledge(unknown, &[ack(unopened.id(1))]).await, [NotHeld]);
}

pub async fn a_nack_counts_towards_dead_lettering(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    queue.post_n(1).await;
    for _ in 0..2 {
        let claim = queue.claim(&claim_with_dead_letter(1, 2, &dlq)).await.unwrap();
        let id = claim.messages[0].id;
        assert_eq!(queue.acknowledge(claim.id, &[nack(id, MINUTE)]).await, [Applied]);
        queue.advance(MINUTE);
    }
    assert_eq!(queue.claim(&claim_with_dead_letter(1, 2, &dlq)).await, None);
    assert_eq!(queue.counts().await, (0, 0));
    assert_eq!(texts(&dlq.all().await), ["0"]);
}
