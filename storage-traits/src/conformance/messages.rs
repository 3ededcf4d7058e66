//! Posting messages, and getting them by id.

use std::time::Duration;

use super::{
    TestPool,
    builders::{
        HOUR, MILLISECOND, MINUTE, assert_not_found, claim_spec, client, delayed, ids, just_before,
        list_all, list_visible, message, texts,
    },
};
use crate::{
    domain::{Delivery, Message, NewMessage},
    pool::{DeleteOutcome, Stats},
};

pub async fn ids_follow_the_posting_order_without_gaps(pool: &TestPool) {
    let queue = pool.queue().await;
    let first = queue.post(["a", "b", "c"].map(message).to_vec()).await;
    assert_eq!(first, [queue.id(1), queue.id(2), queue.id(3)]);
    let second = queue.post(["d", "e"].map(message).to_vec()).await;
    assert_eq!(second, [queue.id(4), queue.id(5)]);
    assert_eq!(texts(&queue.all().await), ["a", "b", "c", "d", "e"]);
    assert_eq!(queue.plain().await, [first, second].concat());
}

pub async fn ids_sort_as_text_in_queue_order(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(300).await;
    let listed: Vec<_> = queue.all().await.iter().map(|m| m.id.to_string()).collect();
    assert_eq!(listed.len(), 300);
    assert!(listed.is_sorted());
}

pub async fn a_message_is_stored_as_posted(pool: &TestPool) {
    let queue = pool.queue().await;
    let new = NewMessage {
        ttl: Duration::from_secs(90),
        delivery: Delivery::After(Duration::from_secs(30)),
        checksum: Some("MD5:900150983cd24fb0d6963f7d28e17f72".to_owned()),
        ..message(r#"{"a":1}"#)
    };
    let by = client("Ä 'b\" %_\\\u{1f600} c");
    let now = queue.now();
    let id = queue.post_as(&by, vec![new.clone()]).await[0];
    let stored = Message {
        id,
        posted_at: now,
        visible_at: now.plus(Duration::from_secs(30)),
        expires_at: now.plus(Duration::from_secs(90)),
        ttl: new.ttl,
        claim: None,
        claim_count: 0,
        ordering_key: None,
        client: by,
        origin: None,
        checksum: new.checksum,
        body: new.body,
    };
    queue.advance(MILLISECOND);
    assert_eq!(queue.all().await, std::slice::from_ref(&stored));
    assert_eq!(queue.get_one(id).await, stored);

    queue.advance(Duration::from_secs(30));
    assert_eq!(queue.list(&list_visible(1)).await.items, std::slice::from_ref(&stored));
    assert_eq!(queue.pop(1).await, [stored]);
}

pub async fn bodies_are_stored_byte_for_byte(pool: &TestPool) {
    let bodies = [
        "null",
        "false",
        "0.10",
        "-0",
        "1e400",
        "12345678901234567890123456789",
        r#""""#,
        r#""\u00e9 \u0000 \/ \ud83d\ude00""#,
        "\"\u{e9} \u{1f600} \u{2028}\"",
        "{ \"b\" :\t[ ],\r\n \"a\": 1, \"b\": 2 }",
        r#"'";--"#,
    ];
    let queue = pool.queue().await;
    let posted = queue.post(bodies.map(message).to_vec()).await;
    assert_eq!(texts(&queue.all().await), bodies);
    assert_eq!(texts(&queue.get(&posted).await), bodies);
    let claim = queue.take(100).await;
    assert_eq!(texts(&claim.messages), bodies);
    assert_eq!(texts(&queue.get_claim(claim.id).await.unwrap().messages), bodies);
    queue.release(claim.id).await;
    assert_eq!(texts(&queue.pop(100).await), bodies);
}

pub async fn a_large_body_is_stored(pool: &TestPool) {
    let queue = pool.queue().await;
    let body = format!("\"{}\"", "0123456789abcdef".repeat(16 * 1024));
    let id = queue.post_one(message(&body)).await;
    assert_eq!(texts(&[queue.get_one(id).await]), [&body]);
    assert_eq!(texts(&queue.take(1).await.messages), [&body]);
}

pub async fn a_large_batch_is_stored_in_order(pool: &TestPool) {
    let queue = pool.queue().await;
    let bodies: Vec<_> = (0..2_000).map(|i| i.to_string()).collect();
    let posted = queue.post(bodies.iter().map(|body| message(body)).collect()).await;
    assert_eq!(posted, (1..=2_000).map(|i| queue.id(i)).collect::<Vec<_>>());
    let all = queue.all().await;
    assert_eq!(ids(&all), posted);
    assert_eq!(texts(&all), bodies);
}

pub async fn posting_to_an_unknown_queue_is_refused(pool: &TestPool) {
    let queue = pool.unopened("conformance", "orders");
    assert_not_found(queue.try_post(vec![message("1"), message("2")]).await);
    assert_eq!(queue.stats().await, Stats::default());

    pool.pool.open_queue(&queue.queue).await.unwrap();
    assert_eq!(queue.all().await, []);
    assert_eq!(queue.post_one(message("3")).await, queue.id(1));
}

pub async fn an_empty_queue_returns_no_messages(pool: &TestPool) {
    let queue = pool.queue().await;
    let page = queue.list(&list_all(10)).await;
    assert_eq!((page.items, page.more), (vec![], false));
    assert_eq!(queue.get(&[queue.id(0), queue.id(1)]).await, []);
    assert_eq!(queue.stats().await, Stats::default());
    assert_eq!(queue.claim(&claim_spec(10)).await, None);
    assert_eq!(queue.pop(10).await, []);
    assert_eq!(queue.delete(queue.id(1), None).await, DeleteOutcome::Missing);
    assert_eq!(queue.delete_many(&[queue.id(1)], &[]).await, Some(0));
    assert_eq!(queue.purge().await, 0);
}

pub async fn messages_are_returned_in_the_requested_order(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(5).await;
    let requested = [posted[3], queue.id(99), posted[0], queue.id(0), posted[4], posted[1]];
    let found = queue.get(&requested).await;
    assert_eq!(ids(&found), [posted[3], posted[0], posted[4], posted[1]]);
    assert_eq!(texts(&found), ["3", "0", "4", "1"]);
    assert_eq!(queue.get(&[]).await, []);
}

pub async fn claimed_and_delayed_messages_are_returned_by_id(pool: &TestPool) {
    let queue = pool.queue().await;
    let claimed = queue.post_one(message("1")).await;
    let delayed = queue.post_one(delayed("2", MINUTE)).await;
    let claim = queue.take(10).await;
    assert_eq!(ids(&claim.messages), [claimed]);
    let found = queue.get(&[delayed, claimed]).await;
    assert_eq!(ids(&found), [delayed, claimed]);
    assert_eq!((found[0].claim, found[1].claim), (None, Some(claim.id)));
}

pub async fn an_expired_message_is_invisible_to_every_method(pool: &TestPool) {
    let queue = pool.queue().await;
    let id = queue.post_one(NewMessage { ttl: MINUTE, ..message("1") }).await;
    queue.advance(just_before(MINUTE));
    assert_eq!(queue.plain().await, [id]);
    assert_eq!(ids(&queue.get(&[id]).await), [id]);
    assert_eq!(queue.counts().await, (1, 0));

    queue.advance(MILLISECOND);
    assert_eq!(queue.stats().await, Stats::default());
    assert_eq!(queue.all().await, []);
    assert_eq!(queue.get(&[id]).await, []);
    assert_eq!(queue.claim(&claim_spec(10)).await, None);
    assert_eq!(queue.pop(10).await, []);
    assert_eq!(queue.delete(id, None).await, DeleteOutcome::Missing);
    assert_eq!(queue.delete_many(&[id], &[]).await, Some(0));
    assert_eq!(queue.purge().await, 0);
}

pub async fn a_message_expires_in_the_middle_of_the_queue(pool: &TestPool) {
    let queue = pool.queue().await;
    let new = |ttl| NewMessage { ttl, ..message("1") };
    let posted = queue.post([HOUR, MINUTE, HOUR, 2 * MINUTE].map(new).to_vec()).await;
    queue.advance(MINUTE);
    assert_eq!(queue.plain().await, [posted[0], posted[2], posted[3]]);
    queue.advance(MINUTE);
    assert_eq!(queue.plain().await, [posted[0], posted[2]]);
    assert_eq!(ids(&queue.take(10).await.messages), [posted[0], posted[2]]);
}

pub async fn a_ttl_of_centuries_is_supported(pool: &TestPool) {
    let queue = pool.queue().await;
    let ttl = 24 * 365 * 300 * HOUR;
    let id = queue.post_one(NewMessage { ttl, ..message("1") }).await;
    let expires_at = queue.now().plus(ttl);
    let stored = queue.take(1).await.messages.remove(0);
    assert_eq!((stored.id, stored.ttl, stored.expires_at), (id, ttl, expires_at));
    queue.advance(24 * 365 * HOUR);
    assert_eq!(queue.plain().await, [id]);
}

pub async fn many_messages_expire_at_once(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n_with(2_000, MINUTE, Duration::ZERO).await;
    let unexpired = queue.post_n(3).await;
    queue.advance(MINUTE);
    let page = queue.list(&list_visible(2)).await;
    assert_eq!((ids(&page.items), page.more), (unexpired[..2].to_vec(), true));
    assert_eq!(queue.counts().await, (3, 0));
    assert_eq!(ids(&queue.pop(2_000).await), unexpired);
}

pub async fn a_delayed_message_appears_in_its_position_when_due(pool: &TestPool) {
    let queue = pool.queue().await;
    let delayed = queue.post_one(delayed("1", MINUTE)).await;
    let other = queue.post_one(message("2")).await;
    queue.advance(just_before(MINUTE));
    assert_eq!(queue.plain().await, [other]);
    queue.advance(MILLISECOND);
    assert_eq!(queue.plain().await, [delayed, other]);
    assert_eq!(ids(&queue.take(1).await.messages), [delayed]);
    assert_eq!(ids(&queue.pop(1).await), [other]);
}

pub async fn a_message_that_expires_before_it_is_due_is_never_served(pool: &TestPool) {
    let queue = pool.queue().await;
    let new = |delay| NewMessage { ttl: MINUTE, ..delayed("1", delay) };
    queue.post(vec![new(MINUTE), new(2 * MINUTE)]).await;
    queue.advance(just_before(MINUTE));
    assert_eq!(queue.plain().await, []);
    assert_eq!(queue.all().await.len(), 2);
    assert_eq!(queue.claim(&claim_spec(10)).await, None);
    for step in [MILLISECOND, MINUTE] {
        queue.advance(step);
        assert_eq!(queue.all().await, []);
        assert_eq!(queue.claim(&claim_spec(10)).await, None);
        assert_eq!(queue.pop(10).await, []);
        assert_eq!(queue.stats().await, Stats::default());
    }
}
