//! Duration of claims: expiry, renewal, release.

use std::time::Duration;

use super::{
    TestPool,
    builders::{
        MILLISECOND, MINUTE, assert_not_found, claim_spec, ids, just_before, list_visible, terms,
        texts,
    },
};
use crate::domain::{Claim, ClaimId, ClaimSpec};

pub async fn a_claim_expires_exactly_at_its_ttl(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(3).await;
    let claim = queue.take(2).await;
    queue.advance(just_before(MINUTE));
    assert!(queue.get_claim(claim.id).await.is_some());
    assert_eq!(queue.plain().await, posted[2..]);
    assert_eq!(queue.counts().await, (1, 2));

    queue.advance(MILLISECOND);
    assert_eq!(queue.get_claim(claim.id).await, None);
    assert_not_found(queue.try_renew(claim.id, terms(60, 60)).await);
    assert_eq!(queue.plain().await, posted);
    assert_eq!(queue.counts().await, (3, 0));
    assert_eq!(ids(&queue.take(1).await.messages), posted[..1]);
    assert_eq!(ids(&queue.pop(1).await), posted[1..2]);
}

pub async fn messages_of_expired_claims_return_to_their_positions(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(6).await;
    for ttl in [180, 60, 120] {
        queue.claim(&ClaimSpec { terms: terms(ttl, 60), ..claim_spec(2) }).await.unwrap();
    }
    let later = queue.post_n(1).await;
    assert_eq!(queue.plain().await, later);
    queue.advance(MINUTE);
    assert_eq!(queue.plain().await, [&posted[2..4], &later].concat());
    queue.advance(MINUTE);
    assert_eq!(queue.plain().await, [&posted[2..], &later].concat());
    queue.advance(MINUTE);
    assert_eq!(ids(&queue.take(10).await.messages), [posted, later].concat());
}

pub async fn a_message_keeps_the_id_of_its_expired_claim(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(2).await;
    let expired = queue.take(2).await;
    queue.advance(MINUTE);
    assert_eq!(queue.list(&list_visible(10)).await.items, expired.messages);
    assert_eq!(queue.get(&posted).await, expired.messages);

    let next = queue.take(1).await;
    assert_eq!(queue.get_one(posted[0]).await.claim, Some(next.id));
    assert_eq!(queue.get_one(posted[1]).await.claim, Some(expired.id));
    queue.release(next.id).await;
    assert_eq!(queue.get_one(posted[0]).await.claim, None);
    assert_eq!(queue.pop(2).await[1].claim, Some(expired.id));
}

pub async fn a_renewal_restarts_the_ttl(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(2).await;
    let claim = queue.take(2).await;
    queue.advance(just_before(MINUTE));
    queue.try_renew(claim.id, terms(90, 60)).await.unwrap();
    let (renewed_at, ttl) = (queue.now(), Duration::from_secs(90));
    let renewed = Some(Claim { renewed_at, ttl, ..claim.clone() });
    assert_eq!(queue.get_claim(claim.id).await, renewed);

    queue.advance(just_before(ttl));
    assert_eq!(queue.get_claim(claim.id).await, renewed);
    assert_eq!(queue.claim(&claim_spec(10)).await, None);
    queue.advance(MILLISECOND);
    assert_eq!(queue.get_claim(claim.id).await, None);
    assert_eq!(ids(&queue.take(10).await.messages), ids(&claim.messages));
}

pub async fn a_renewal_may_shorten_a_claim(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(1).await;
    let claim = queue.claim(&ClaimSpec { terms: terms(600, 60), ..claim_spec(1) }).await.unwrap();
    queue.try_renew(claim.id, terms(60, 60)).await.unwrap();
    queue.advance(MINUTE);
    assert_eq!(queue.get_claim(claim.id).await, None);
    assert_eq!(queue.plain().await, posted);
}

pub async fn a_renewal_extends_messages_as_a_claim_does(pool: &TestPool) {
    let queue = pool.queue().await;
    let short = queue.post_n_with(1, 2 * MINUTE, Duration::ZERO).await[0];
    let long = queue.post_n(1).await[0];
    let claim = queue.take(2).await;
    assert_eq!(queue.get_one(short).await.ttl, 2 * MINUTE);
    queue.advance(Duration::from_secs(30));
    let now = queue.now();
    queue.try_renew(claim.id, terms(91, 9)).await.unwrap();

    let extended = queue.get_one(short).await;
    assert_eq!(extended.ttl, Duration::from_secs(100));
    assert_eq!(extended.expires_at, now.plus(Duration::from_secs(100)));
    let kept = queue.get_one(long).await;
    assert_eq!((kept.ttl, kept.expires_at), (claim.messages[1].ttl, claim.messages[1].expires_at));
    assert_eq!(queue.get_claim(claim.id).await.unwrap().messages, [extended, kept]);
}

pub async fn a_claim_without_messages_can_be_renewed(pool: &TestPool) {
    let queue = pool.queue().await;
    let id = queue.post_n(1).await[0];
    let claim = queue.take(1).await.id;
    queue.delete(id, Some(claim)).await;
    queue.advance(MINUTE / 2);
    queue.try_renew(claim, terms(60, 60)).await.unwrap();
    queue.advance(just_before(MINUTE));
    assert_eq!(queue.get_claim(claim).await.unwrap().messages, []);
}

pub async fn an_ended_claim_is_not_renewed(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n_with(2, 2 * MINUTE, Duration::ZERO).await;
    let [expired, released] = [queue.take(1).await.id, queue.take(1).await.id];
    queue.release(released).await;
    queue.advance(MINUTE);
    let before = queue.all().await;
    for id in [expired, released, ClaimId::random()] {
        assert_not_found(queue.try_renew(id, terms(600, 600)).await);
        assert_eq!(queue.get_claim(id).await, None);
    }
    assert_eq!(queue.all().await, before);

    let next = queue.take(2).await;
    assert_not_found(queue.try_renew(expired, terms(600, 600)).await);
    assert_eq!(queue.get_claim(next.id).await, Some(next));
}

pub async fn a_release_makes_messages_ready_without_a_claim_id(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(4).await;
    let claim = queue.take(2).await;
    queue.delete(posted[0], Some(claim.id)).await;
    queue.release(claim.id).await;
    assert_eq!(queue.get_claim(claim.id).await, None);
    assert_eq!(queue.plain().await, posted[1..]);
    let released = queue.get_one(posted[1]).await;
    assert_eq!((released.claim, released.claim_count), (None, 1));
    assert_eq!(queue.counts().await, (3, 0));
    assert_eq!(texts(&queue.take(10).await.messages), ["1", "2", "3"]);
}

pub async fn a_release_does_not_affect_other_claims(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(2).await;
    let [first, second] = [queue.take(1).await, queue.take(1).await];
    queue.release(first.id).await;
    assert_eq!(queue.plain().await, posted[..1]);
    assert_eq!(queue.get_claim(second.id).await, Some(second));
}

pub async fn a_release_is_idempotent(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(1).await;
    let claim = queue.take(1).await;
    queue.release(ClaimId::random()).await;
    assert_eq!(queue.get_claim(claim.id).await, Some(claim.clone()));
    queue.release(claim.id).await;
    queue.release(claim.id).await;
    assert_eq!(queue.counts().await, (1, 0));
}

pub async fn releasing_an_expired_claim_changes_nothing(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(2).await;
    let expired = queue.take(2).await;
    queue.advance(MINUTE);
    let next = queue.take(1).await;
    queue.release(expired.id).await;
    assert_eq!(queue.get_claim(next.id).await.as_ref(), Some(&next));
    assert_eq!(queue.get(&posted).await, [&next.messages[..], &expired.messages[1..]].concat());
    assert_eq!(queue.counts().await, (1, 1));
}
