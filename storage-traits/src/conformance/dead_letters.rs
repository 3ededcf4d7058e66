//! Dead-letter rules: claims move messages that were claimed too often.

use std::time::Duration;

use super::{
    TestPool, TestQueue,
    builders::{HOUR, MINUTE, assert_not_found, claim_spec, client, ids, message, terms, texts},
    dead_letter_rules::{claim_with_dead_letter, dead_letter_to},
};
use crate::domain::{ClaimSpec, DeadLetter, Message, NewMessage, Origin};

/// Claims up to `n` ready messages and releases them, `times` times.
async fn claim_and_release(queue: &TestQueue, n: u32, times: usize) {
    for _ in 0..times {
        let claim = queue.take(n).await;
        queue.release(claim.id).await;
    }
}

pub async fn a_message_claimed_too_often_is_dead_lettered(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let new = NewMessage { checksum: Some("MD5:1".to_owned()), ..message("{ \"a\":1}") };
    let by = client("original producer");
    let id = queue.post_as(&by, vec![new.clone()]).await[0];
    for n in 1..=2 {
        let claim = queue.claim(&claim_with_dead_letter(10, 2, &dlq)).await.unwrap();
        assert_eq!(claim.messages[0].claim_count, n);
        queue.advance(MINUTE);
    }
    assert_eq!(dlq.all().await, []);

    let last = claim_with_dead_letter(10, 2, &dlq);
    assert_eq!(queue.claim(&last).await, None);
    assert_eq!(queue.get_claim(last.id).await, None);
    assert_eq!(queue.get(&[id]).await, []);
    assert_eq!(queue.all().await, []);
    assert_eq!(queue.counts().await, (0, 0));
    let now = queue.now();
    let moved = Message {
        id: dlq.id(1),
        posted_at: now,
        visible_at: now,
        expires_at: now.plus(new.ttl),
        ttl: new.ttl,
        claim: None,
        claim_count: 0,
        ordering_key: None,
        origin: Some(Origin { queue: queue.queue.incarnation, group: None, ttl: new.ttl }),
        client: by,
        checksum: new.checksum,
        body: new.body,
    };
    assert_eq!(dlq.all().await, [moved]);
    assert_eq!(dlq.counts().await, (1, 0));
}

pub async fn the_rule_may_set_the_ttl(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    for ttl in [9_999, 60] {
        queue.post_n(1).await;
        claim_and_release(&queue, 1, 2).await;
        queue.advance(Duration::from_secs(5));
        let ttl = Duration::from_secs(ttl);
        let rule = DeadLetter { ttl: Some(ttl), ..dead_letter_to(2, &dlq) };
        let spec = ClaimSpec { dead_letter: Some(rule), ..claim_spec(10) };
        assert_eq!(queue.claim(&spec).await, None);
        let moved = dlq.all().await.pop().unwrap();
        assert_eq!((moved.ttl, moved.expires_at), (ttl, queue.now().plus(ttl)));
    }
    dlq.advance(MINUTE);
    assert_eq!(dlq.plain().await, [dlq.id(1)]);
}

pub async fn without_a_ttl_in_the_rule_the_message_keeps_its_own(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    queue.post_n_with(2, 2 * MINUTE, Duration::ZERO).await;
    let long = queue.claim(&ClaimSpec { terms: terms(777, 23), ..claim_spec(1) }).await.unwrap();
    let short = queue.take(1).await;
    queue.release(long.id).await;
    queue.release(short.id).await;
    queue.advance(MINUTE);
    assert_eq!(queue.claim(&claim_with_dead_letter(10, 1, &dlq)).await, None);
    let moved = dlq.all().await;
    for (moved, ttl) in moved.iter().zip([800, 120].map(Duration::from_secs)) {
        assert_eq!((moved.ttl, moved.expires_at), (ttl, queue.now().plus(ttl)));
    }
    assert_eq!(moved.len(), 2);
}

pub async fn dead_letters_keep_their_order_and_can_be_claimed(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    dlq.post_one(message("\"before\"")).await;
    queue.post_n(3).await;
    claim_and_release(&queue, 3, 1).await;
    assert_eq!(queue.claim(&claim_with_dead_letter(10, 1, &dlq)).await, None);
    dlq.post_one(message("\"after\"")).await;
    let dead_letters = dlq.take(4).await;
    assert_eq!(texts(&dead_letters.messages), ["\"before\"", "0", "1", "2"]);
    assert_eq!(dead_letters.messages[3].claim_count, 1);
    assert_eq!(texts(&dlq.pop(10).await), ["\"after\""]);
}

pub async fn a_claimed_message_is_not_moved(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let posted = queue.post_n(1).await;
    let claim = queue.take(1).await;
    assert_eq!(queue.claim(&claim_with_dead_letter(10, 1, &dlq)).await, None);
    assert_eq!(queue.get_claim(claim.id).await, Some(claim));
    assert_eq!(ids(&queue.all().await), posted);
    assert_eq!(dlq.all().await, []);
}

pub async fn a_message_of_an_expired_claim_is_moved(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    queue.post_n(2).await;
    let claim = queue.take(2).await;
    queue.advance(MINUTE);
    assert_eq!(queue.claim(&claim_with_dead_letter(10, 1, &dlq)).await, None);
    assert_eq!(queue.all().await, []);
    assert_eq!(queue.get_claim(claim.id).await, None);
    assert_eq!(texts(&dlq.all().await), ["0", "1"]);
}

pub async fn a_message_above_the_maximum_is_moved(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    queue.post_n(1).await;
    claim_and_release(&queue, 1, 5).await;
    let spec = claim_with_dead_letter(10, 6, &dlq);
    let claim = queue.claim(&spec).await.unwrap();
    assert_eq!(claim.messages[0].claim_count, 6);
    queue.release(spec.id).await;
    assert_eq!(queue.claim(&claim_with_dead_letter(10, 2, &dlq)).await, None);
    assert_eq!(dlq.counts().await, (1, 0));
}

pub async fn a_maximum_of_zero_moves_unclaimed_messages(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    queue.post_n(2).await;
    assert_eq!(queue.claim(&claim_with_dead_letter(1, 0, &dlq)).await, None);
    assert_eq!(queue.all().await, []);
    assert_eq!(texts(&dlq.all().await), ["0", "1"]);
}

pub async fn the_same_claim_returns_other_messages(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let exhausted = queue.post_n(3).await;
    claim_and_release(&queue, 3, 2).await;
    let [first, last] = [queue.take(1).await, queue.take(2).await];
    let fresh = queue.post_n(4).await;
    queue.release(last.id).await;
    let claim = queue.claim(&claim_with_dead_letter(3, 3, &dlq)).await.unwrap();
    assert_eq!(ids(&claim.messages), fresh[..3]);
    assert_eq!(queue.get_claim(first.id).await.unwrap().messages[0].id, exhausted[0]);
    assert_eq!(texts(&dlq.all().await), ["1", "2"]);
    assert_eq!(queue.counts().await, (1, 4));
}

pub async fn a_full_claim_moves_no_more_messages(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let fresh = queue.post_n(1).await;
    let first = queue.take(1).await;
    let exhausted = queue.post_n(1).await;
    claim_and_release(&queue, 1, 2).await;
    queue.release(first.id).await;
    // The claim is full before it meets the message that has reached the maximum.
    let full = queue.claim(&claim_with_dead_letter(1, 2, &dlq)).await.unwrap();
    assert_eq!(ids(&full.messages), fresh);
    assert_eq!(queue.plain().await, exhausted);
    assert_eq!(dlq.all().await, []);
    assert_eq!(queue.claim(&claim_with_dead_letter(1, 2, &dlq)).await, None);
    assert_eq!(dlq.counts().await, (1, 0));
}

pub async fn many_dead_letters_do_not_hide_ready_messages(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    queue.post_n(1_000).await;
    claim_and_release(&queue, 1_000, 1).await;
    let fresh = queue.post_n(3).await;
    let claim = queue.claim(&claim_with_dead_letter(2, 1, &dlq)).await.unwrap();
    assert_eq!(ids(&claim.messages), fresh[..2]);
    assert_eq!(queue.counts().await, (1, 2));
    let expected: Vec<_> = (0..1_000).map(|i| i.to_string()).collect();
    assert_eq!(texts(&dlq.all().await), expected);
}

pub async fn an_expired_message_is_not_moved(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    queue.post_n_with(2, MINUTE, Duration::ZERO).await;
    queue.post_n_with(1, HOUR, 2 * MINUTE).await;
    claim_and_release(&queue, 2, 1).await;
    queue.advance(MINUTE);
    assert_eq!(queue.claim(&claim_with_dead_letter(10, 0, &dlq)).await, None);
    assert_eq!(dlq.all().await, []);
    assert_eq!(queue.counts().await, (1, 0));
}

pub async fn an_unknown_dead_letter_queue_fails_the_whole_claim(pool: &TestPool) {
    let queue = pool.queue().await;
    let dlq = pool.unopened("conformance", "dlq");
    queue.post_n(2).await;
    claim_and_release(&queue, 1, 1).await; // the second message could be claimed
    let before = queue.all().await;
    let spec = claim_with_dead_letter(10, 1, &dlq);
    assert_not_found(queue.try_claim(&spec).await);
    assert_eq!(queue.all().await, before);
    assert_eq!(queue.get_claim(spec.id).await, None);
    assert_eq!(queue.counts().await, (2, 0));

    pool.pool.open_queue(&dlq.queue).await.unwrap();
    assert_eq!(texts(&queue.claim(&spec).await.unwrap().messages), ["1"]);
    assert_eq!(texts(&dlq.all().await), ["0"]);
}

pub async fn an_unknown_dead_letter_queue_fails_a_claim_without_dead_letters(pool: &TestPool) {
    let queue = pool.queue().await;
    let dlq = pool.unopened("conformance", "dlq");
    let spec = claim_with_dead_letter(10, 1, &dlq);
    assert_not_found(queue.try_claim(&spec).await);
    let posted = queue.post_n(2).await;
    assert_not_found(queue.try_claim(&spec).await);
    assert_eq!(queue.plain().await, posted);

    pool.pool.open_queue(&dlq.queue).await.unwrap();
    assert_eq!(ids(&queue.claim(&spec).await.unwrap().messages), posted);
    pool.pool.drop_queue(&dlq.queue).await.unwrap();
    assert_not_found(queue.try_claim(&claim_with_dead_letter(10, 1, &dlq)).await);
}

pub async fn a_rule_for_the_queue_itself_has_no_effect(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(2).await;
    claim_and_release(&queue, 2, 3).await;
    let claim = queue.claim(&claim_with_dead_letter(10, 2, &queue)).await.unwrap();
    assert_eq!(ids(&claim.messages), posted);
    assert_eq!(claim.messages[0].claim_count, 4);
    assert_eq!(queue.counts().await, (0, 2));
    assert_eq!(pool.pool.counters().dead_lettered, 0);
}

pub async fn without_a_rule_no_message_is_moved(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(1).await;
    claim_and_release(&queue, 1, 20).await;
    assert_eq!(queue.take(1).await.messages[0].claim_count, 21);
}
