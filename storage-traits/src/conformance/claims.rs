//! Creating claims: which messages are claimed, and how this changes them.

use std::time::Duration;

use super::{
    TestPool,
    builders::{HOUR, MINUTE, claim_spec, ids, list_visible, message, terms, texts},
};
use crate::domain::{Claim, ClaimSpec, Message, NewMessage};

pub async fn the_oldest_messages_are_claimed_first(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(7).await;
    let first = queue.take(3).await;
    assert_eq!(ids(&first.messages), posted[..3]);
    assert_eq!(texts(&first.messages), ["0", "1", "2"]);
    assert_eq!(ids(&queue.take(3).await.messages), posted[3..6]);
    assert_eq!(ids(&queue.take(3).await.messages), posted[6..]);
}

pub async fn five_claims_of_ten_take_fifty_of_fifty_one(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(51).await;
    for part in posted[..50].chunks(10) {
        assert_eq!(ids(&queue.take(10).await.messages), part);
    }
    assert_eq!(queue.counts().await, (1, 50));
    assert_eq!(queue.plain().await, posted[50..]);
}

pub async fn a_claim_returns_its_messages(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(2).await;
    let before = queue.get(&posted).await;
    queue.advance(Duration::from_millis(1_234));
    let (spec, now) = (claim_spec(10), queue.now());
    let claimed = |m| Message { claim: Some(spec.id), claim_count: 1, ..m };
    let expected = Claim {
        id: spec.id,
        renewed_at: now,
        ttl: spec.terms.ttl,
        messages: before.into_iter().map(claimed).collect(),
    };
    assert_eq!(queue.claim(&spec).await.as_ref(), Some(&expected));
    queue.advance(Duration::from_millis(777));
    assert_eq!(queue.get_claim(spec.id).await.as_ref(), Some(&expected));
    assert_eq!(queue.get(&posted).await, expected.messages);
}

pub async fn a_claimed_message_is_not_claimed_again(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(3).await;
    let first = queue.take(2).await;
    assert_eq!(ids(&queue.take(10).await.messages), posted[2..]);
    assert_eq!(queue.claim(&claim_spec(10)).await, None);
    assert_eq!(queue.get_claim(first.id).await, Some(first));
}

pub async fn a_claim_without_messages_is_not_recorded(pool: &TestPool) {
    let queue = pool.queue().await;
    let empty = claim_spec(10);
    assert_eq!(queue.claim(&empty).await, None);
    assert_eq!(queue.get_claim(empty.id).await, None);
    queue.post_n(1).await;
    queue.take(1).await;
    let late = claim_spec(10);
    assert_eq!(queue.claim(&late).await, None);
    assert_eq!(queue.get_claim(late.id).await, None);
    assert_eq!(queue.get_claim(claim_spec(1).id).await, None);
}

pub async fn delayed_messages_are_not_claimed(pool: &TestPool) {
    let queue = pool.queue().await;
    let delayed = queue.post_n_with(2, HOUR, MINUTE).await;
    assert_eq!(queue.claim(&claim_spec(10)).await, None);
    let ready = queue.post_n(1).await;
    assert_eq!(ids(&queue.take(10).await.messages), ready);
    queue.advance(MINUTE);
    assert_eq!(ids(&queue.take(10).await.messages), [delayed, ready].concat());
}

pub async fn a_claim_extends_messages_that_would_expire_first(pool: &TestPool) {
    for (message_ttl, ttl, grace, expected) in [
        (120, 777, 0, 777),
        (120, 777, 23, 800),
        (120, 121, 22, 143),
        (120, 120, 60, 120),
        (120, 60, 30, 120),
        (120, 119, 600, 120),
    ] {
        let queue = pool.queue().await;
        let new = NewMessage { ttl: Duration::from_secs(message_ttl), ..message("1") };
        let id = queue.post_one(new).await;
        let expires_at = queue.now().plus(Duration::from_secs(expected));
        let claim =
            queue.claim(&ClaimSpec { terms: terms(ttl, grace), ..claim_spec(1) }).await.unwrap();
        let stored = queue.get_one(id).await;
        assert_eq!(stored.ttl.as_secs(), expected, "{message_ttl} under {ttl} and {grace}");
        assert_eq!(stored.expires_at, expires_at);
        assert_eq!(claim.messages, [stored]);
    }
}

pub async fn an_extension_outlasts_the_claim(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n_with(2, 2 * MINUTE, Duration::ZERO).await;
    queue.advance(Duration::from_secs(100));
    let expires_at = queue.now().plus(Duration::from_secs(90));
    let claim = queue.claim(&ClaimSpec { terms: terms(60, 30), ..claim_spec(1) }).await.unwrap();
    queue.release(claim.id).await;
    let stored = queue.get_one(posted[0]).await;
    assert_eq!((stored.ttl, stored.expires_at), (Duration::from_secs(90), expires_at));
    queue.advance(Duration::from_secs(89));
    assert_eq!(queue.plain().await, posted[..1]);
    queue.advance(Duration::from_secs(1));
    assert_eq!(queue.plain().await, []);
}

pub async fn each_claim_increases_the_claim_count(pool: &TestPool) {
    let queue = pool.queue().await;
    let id = queue.post_n(2).await[0];
    for n in 1..=4 {
        let claim = queue.take(1).await;
        assert_eq!(claim.messages[0].claim_count, n);
        queue.try_renew(claim.id, terms(60, 60)).await.unwrap();
        assert_eq!(queue.get_one(id).await.claim_count, n);
        if n % 2 == 0 {
            queue.release(claim.id).await;
        } else {
            queue.advance(MINUTE);
        }
        assert_eq!(queue.get_one(id).await.claim_count, n);
    }
    assert_eq!(queue.get_one(queue.id(2)).await.claim_count, 0);
    assert_eq!(queue.pop(1).await[0].claim_count, 4);
}

pub async fn a_claim_exists_without_its_messages(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(3).await;
    let claim = queue.take(3).await;
    queue.delete(posted[1], Some(claim.id)).await;
    let left = queue.get_claim(claim.id).await.unwrap();
    assert_eq!(left.messages, [claim.messages[0].clone(), claim.messages[2].clone()]);
    queue.delete_many(&posted, &[]).await;
    let left = queue.get_claim(claim.id).await.unwrap();
    assert_eq!(left, Claim { messages: vec![], ..claim });
    queue.advance(MINUTE);
    assert_eq!(queue.get_claim(claim.id).await, None);
}

pub async fn a_limit_may_exceed_the_queue_length(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(3).await;
    assert_eq!(ids(&queue.list(&list_visible(u32::MAX)).await.items), posted);
    let claim = queue.take(u32::MAX).await;
    assert_eq!(ids(&claim.messages), posted);
    queue.release(claim.id).await;
    assert_eq!(ids(&queue.pop(u32::MAX).await), posted);
}

pub async fn many_messages_of_expired_claims_are_ready_at_once(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(2_000).await;
    for part in posted.chunks(500) {
        assert_eq!(ids(&queue.take(500).await.messages), part);
    }
    assert_eq!(queue.claim(&claim_spec(1)).await, None);
    queue.advance(MINUTE);
    assert_eq!(ids(&queue.take(10).await.messages), posted[..10]);
    assert_eq!(queue.counts().await, (1_990, 10));
    assert_eq!(ids(&queue.pop(2_000).await), posted[10..]);
}

pub async fn many_unclaimable_messages_do_not_hide_ready_ones(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n_with(1_000, MINUTE, Duration::ZERO).await; // these expire
    queue.advance(MINUTE);
    queue.post_n(1_000).await; // these are claimed
    assert_eq!(queue.take(1_000).await.messages.len(), 1_000);
    queue.post_n_with(1_000, HOUR, MINUTE).await; // these are delayed
    let ready = queue.post_n(5).await;
    assert_eq!(ids(&queue.take(2).await.messages), ready[..2]);
    assert_eq!(ids(&queue.take(10).await.messages), ready[2..]);
    assert_eq!(queue.claim(&claim_spec(10)).await, None);
}
