//! Deleting messages, with and without the claim that holds them.

use super::{
    TestPool,
    builders::{MILLISECOND, MINUTE, claim_spec, delayed, ids, just_before, terms},
};
use crate::{
    domain::{ClaimId, ClaimSpec},
    pool::{
        DeleteOutcome::{Deleted, Missing, Refused},
        DeleteRefusal::{Claimed, ClaimedByOther, NotClaimed, UnknownClaim},
    },
};

pub async fn a_ready_message_is_deleted(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(3).await;
    assert_eq!(queue.delete(posted[1], None).await, Deleted);
    assert_eq!(queue.plain().await, [posted[0], posted[2]]);
    assert_eq!(queue.get(&[posted[1]]).await, []);
    assert_eq!(queue.delete(posted[1], None).await, Missing);
    assert_eq!(queue.counts().await, (2, 0));
}

pub async fn a_delayed_message_is_deleted(pool: &TestPool) {
    let queue = pool.queue().await;
    let id = queue.post_one(delayed("1", MINUTE)).await;
    assert_eq!(queue.delete(id, None).await, Deleted);
    queue.advance(MINUTE);
    assert_eq!(queue.all().await, []);
}

pub async fn a_missing_message_is_missing_with_any_claim(pool: &TestPool) {
    let queue = pool.queue().await;
    let deleted = queue.post_n(2).await[1];
    assert_eq!(queue.delete(deleted, None).await, Deleted);
    let live = queue.take(1).await.id;
    for id in [deleted, queue.id(0), queue.id(3), queue.id(i64::MAX)] {
        for claim in [None, Some(live), Some(ClaimId::random())] {
            assert_eq!(queue.delete(id, claim).await, Missing, "{id} by {claim:?}");
        }
    }
}

pub async fn a_claimed_message_is_not_deleted_without_its_claim(pool: &TestPool) {
    let queue = pool.queue().await;
    let id = queue.post_n(1).await[0];
    queue.take(1).await;
    assert_eq!(queue.delete(id, None).await, Refused(Claimed));
    assert_eq!(ids(&queue.all().await), [id]);
}

pub async fn a_claimed_message_is_deleted_with_its_claim(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(2).await;
    let claim = queue.take(2).await;
    queue.advance(just_before(MINUTE));
    assert_eq!(queue.delete(posted[0], Some(claim.id)).await, Deleted);
    assert_eq!(queue.delete(posted[0], Some(claim.id)).await, Missing);
    assert_eq!(ids(&queue.get_claim(claim.id).await.unwrap().messages), [posted[1]]);
    assert_eq!(ids(&queue.all().await), [posted[1]]);
}

pub async fn an_unknown_claim_deletes_no_message(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(2).await;
    queue.take(1).await;
    for id in &posted {
        assert_eq!(queue.delete(*id, Some(ClaimId::random())).await, Refused(UnknownClaim));
    }
    assert_eq!(ids(&queue.all().await), posted);
}

pub async fn a_released_claim_deletes_no_message(pool: &TestPool) {
    let queue = pool.queue().await;
    let id = queue.post_n(1).await[0];
    let claim = queue.take(1).await;
    queue.release(claim.id).await;
    assert_eq!(queue.delete(id, Some(claim.id)).await, Refused(UnknownClaim));
    assert_eq!(queue.delete(id, None).await, Deleted);
}

pub async fn an_expired_claim_deletes_no_message(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(2).await;
    let expired = queue.take(2).await.id;
    queue.advance(MINUTE);
    assert_eq!(queue.delete(posted[0], Some(expired)).await, Refused(UnknownClaim));
    let next = queue.take(1).await.id;
    assert_eq!(queue.delete(posted[0], Some(expired)).await, Refused(UnknownClaim));
    assert_eq!(queue.delete(posted[0], Some(next)).await, Deleted);
    assert_eq!(queue.delete(posted[1], None).await, Deleted);
}

pub async fn a_claim_does_not_delete_a_ready_message(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(4).await;
    let [expiring, released] = [queue.take(1).await.id, queue.take(1).await.id];
    queue.release(released).await;
    queue.delete(posted[1], None).await;
    queue.advance(just_before(MINUTE));
    let live = queue.take(1).await;
    assert_eq!(ids(&live.messages), [posted[2]]);
    queue.advance(MILLISECOND);
    assert_eq!(queue.get_claim(expiring).await, None);
    for id in [posted[0], posted[3]] {
        assert_eq!(queue.delete(id, Some(live.id)).await, Refused(NotClaimed));
    }
    assert_eq!(queue.delete(posted[2], Some(live.id)).await, Deleted);
    assert_eq!(queue.delete(posted[3], Some(live.id)).await, Refused(NotClaimed));
    assert_eq!(queue.plain().await, [posted[0], posted[3]]);
}

pub async fn a_claim_does_not_delete_a_message_of_another_claim(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(2).await;
    let [first, second] = [queue.take(1).await.id, queue.take(1).await.id];
    assert_eq!(queue.delete(posted[0], Some(second)).await, Refused(ClaimedByOther));
    assert_eq!(queue.delete(posted[1], Some(first)).await, Refused(ClaimedByOther));
    assert_eq!(ids(&queue.all().await), posted);
}

pub async fn delete_many_deletes_messages_in_any_state(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(6).await;
    let delayed = queue.post_one(delayed("1", MINUTE)).await;
    let claim = queue.take(3).await;
    let requested = [posted[5], queue.id(99), posted[0], delayed, queue.id(0), posted[1]];
    assert_eq!(queue.delete_many(&requested, &[]).await, Some(4));
    assert_eq!(queue.delete_many(&requested, &[]).await, Some(0));
    assert_eq!(queue.delete_many(&[], &[]).await, Some(0));
    assert_eq!(ids(&queue.all().await), posted[2..5]);
    assert_eq!(ids(&queue.get_claim(claim.id).await.unwrap().messages), [posted[2]]);
    assert_eq!(queue.counts().await, (2, 1));
}

pub async fn a_repeated_id_is_deleted_once(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(2).await;
    assert_eq!(queue.delete_many(&[posted[0], posted[0]], &[]).await, Some(1));
    assert_eq!(queue.counts().await, (1, 0));
}

pub async fn delete_many_accepts_the_claims_that_hold_messages(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(7).await;
    let [first, second] = [queue.take(2).await.id, queue.take(2).await.id];
    let third = queue.take(1).await.id;
    // Two held by the given claims, one held by a third claim, one ready, one missing: all that
    // exist are deleted.
    let requested = [posted[0], posted[2], posted[4], posted[5], queue.id(99)];
    assert_eq!(queue.delete_many(&requested, &[first, second]).await, Some(4));
    assert_eq!(ids(&queue.all().await), [posted[1], posted[3], posted[6]]);
    assert_eq!(queue.get_claim(third).await.unwrap().messages, []);
    assert_eq!(queue.delete_many(&[posted[1]], &[first, first]).await, Some(1));
}

pub async fn delete_many_with_a_wrong_claim_deletes_no_message(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(6).await;
    let expired = queue.take(1).await.id;
    let long = ClaimSpec { terms: terms(600, 60), ..claim_spec(1) };
    assert!(queue.claim(&long).await.is_some());
    let other = queue.claim(&ClaimSpec { id: ClaimId::random(), ..long.clone() }).await.unwrap().id;
    let released =
        queue.claim(&ClaimSpec { id: ClaimId::random(), ..long.clone() }).await.unwrap().id;
    queue.release(released).await;
    queue.advance(MINUTE);
    let requested = [posted[0], posted[1], posted[3], posted[4]];
    for wrong in [expired, other, released, ClaimId::random()] {
        assert_eq!(queue.delete_many(&requested, &[wrong]).await, None);
        assert_eq!(queue.delete_many(&requested, &[long.id, wrong]).await, None);
        assert_eq!(queue.delete_many(&requested, &[wrong, long.id]).await, None);
    }
    assert_eq!(queue.delete_many(&[], &[long.id]).await, None);
    assert_eq!(ids(&queue.all().await), posted);
    assert_eq!(queue.counts().await, (4, 2));
    assert_eq!(queue.delete_many(&requested, &[long.id]).await, Some(4));
}
