//! Listing messages page by page.

use super::{
    TestPool, TestQueue,
    builders::{
        MINUTE, claim_spec, client, delayed, ids, limit, list_all, list_visible, message, terms,
    },
};
use crate::{
    domain::{ClaimSpec, Message, MessageId, Sequence},
    pool::ListSpec,
};

/// Lists all pages; returns the ids of their messages and the sizes of the pages.
async fn pages(queue: &TestQueue, spec: ListSpec) -> (Vec<MessageId>, Vec<usize>) {
    let (mut spec, mut found, mut sizes) = (spec, Vec::new(), Vec::new());
    loop {
        let page = queue.list(&spec).await;
        let is_after = |m: &Message| spec.after.is_none_or(|after| m.id.sequence > after);
        assert!(page.items.iter().all(is_after), "a page repeats earlier messages");
        sizes.push(page.items.len());
        found.extend(ids(&page.items));
        if !page.more {
            return (found, sizes);
        }
        spec.after = Some(found.last().unwrap().sequence);
    }
}

pub async fn pages_cover_the_whole_list_once(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(25).await;
    assert_eq!(pages(&queue, list_visible(10)).await, (posted.clone(), vec![10, 10, 5]));
    assert_eq!(pages(&queue, list_all(1)).await, (posted, vec![1; 25]));
}

pub async fn the_last_page_reports_no_more(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(20).await;
    assert!(queue.list(&list_visible(19)).await.more);
    assert!(!queue.list(&list_visible(20)).await.more);
    assert!(!queue.list(&list_visible(21)).await.more);
    assert_eq!(pages(&queue, list_visible(10)).await.1, [10, 10]);
}

pub async fn a_marker_may_name_a_deleted_message(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(5).await;
    queue.delete_many(&[posted[1], posted[2]], &[]).await;
    for after in [1, 2] {
        let spec = ListSpec { after: Some(posted[after].sequence), ..list_visible(10) };
        assert_eq!(ids(&queue.list(&spec).await.items), posted[3..]);
    }
}

pub async fn a_marker_may_be_any_position(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(3).await;
    for (after, expected) in
        [(0, &posted[..]), (2, &posted[2..]), (3, &[]), (4, &[]), (i64::MAX, &[])]
    {
        let page = queue.list(&ListSpec { after: Sequence::new(after), ..list_all(10) }).await;
        assert_eq!((ids(&page.items).as_slice(), page.more), (expected, false), "after {after}");
    }
}

pub async fn a_reader_at_the_end_finds_later_posts(pool: &TestPool) {
    let queue = pool.queue().await;
    let seen = queue.post_n(3).await;
    let spec = ListSpec { after: Some(seen[2].sequence), ..list_visible(10) };
    assert_eq!(queue.list(&spec).await.items, []);
    let new = queue.post_n(2).await;
    assert_eq!(ids(&queue.list(&spec).await.items), new);
}

pub async fn messages_of_the_hidden_client_are_excluded(pool: &TestPool) {
    let queue = pool.queue().await;
    let (own, other) = (client("own"), client("Own"));
    let mut expected = Vec::new();
    for _ in 0..5 {
        queue.post_as(&own, vec![message("1"), message("2")]).await;
        expected.extend(queue.post_as(&other, vec![message("3")]).await);
    }
    queue.post_as(&own, vec![message("4")]).await;
    let spec = |n| ListSpec { hide_client: Some(own.clone()), ..list_visible(n) };
    assert_eq!(pages(&queue, spec(2)).await, (expected.clone(), vec![2, 2, 1]));
    assert_eq!(pages(&queue, spec(5)).await, (expected, vec![5]));
    let other_client = ListSpec { hide_client: Some(client("stranger")), ..list_visible(100) };
    assert_eq!(queue.list(&other_client).await.items.len(), 16);
}

pub async fn claimed_and_delayed_messages_are_listed_on_request(pool: &TestPool) {
    let queue = pool.queue().await;
    let claimed = queue.post_n(2).await;
    queue.take(2).await;
    let delayed = queue.post_n_with(2, 2 * MINUTE, MINUTE).await;
    let ready = queue.post_n(2).await;
    for (include_claimed, include_delayed, expected) in [
        (false, false, ready.clone()),
        (true, false, [claimed.clone(), ready.clone()].concat()),
        (false, true, [delayed.clone(), ready.clone()].concat()),
        (true, true, [claimed, delayed, ready].concat()),
    ] {
        let spec = ListSpec { include_claimed, include_delayed, ..list_visible(10) };
        assert_eq!(ids(&queue.list(&spec).await.items), expected, "{spec:?}");
    }
}

pub async fn excluded_messages_before_a_page_do_not_shorten_it(pool: &TestPool) {
    let own = client("own");
    let queue = pool.queue().await;
    queue.post_n_with(300, MINUTE, 2 * MINUTE).await; // these expire
    queue.advance(MINUTE);
    queue.post_n(300).await; // these are claimed
    assert_eq!(queue.take(300).await.messages.len(), 300);
    queue.post_n_with(300, 2 * MINUTE, MINUTE).await; // these are delayed
    queue.post_as(&own, vec![message("1"); 300]).await; // these are excluded
    let seen = queue.post_n(15).await;
    let spec = ListSpec { hide_client: Some(own), ..list_visible(10) };
    assert_eq!(pages(&queue, spec).await, (seen, vec![10, 5]));
}

pub async fn excluded_messages_within_a_page_do_not_shorten_it(pool: &TestPool) {
    let queue = pool.queue().await;
    let [mut claimed, mut scheduled, mut ready] = [const { Vec::new() }; 3];
    for _ in 0..20 {
        claimed.extend(queue.post_n(2).await);
        let spec = ClaimSpec { terms: terms(120, 60), ..claim_spec(2) };
        assert_eq!(queue.claim(&spec).await.unwrap().messages.len(), 2);
        let later = delayed("1", MINUTE);
        scheduled.extend(queue.post(vec![later; 3]).await);
    }
    for (n, id) in claimed.iter().enumerate().filter(|(n, _)| n % 3 == 0) {
        let holder = queue.get_one(*id).await.claim;
        queue.delete(*id, holder).await;
        ready.extend(queue.post_n(n % 2 + 1).await);
    }
    claimed =
        claimed.into_iter().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, id)| id).collect();
    for (include_claimed, include_delayed) in
        [(false, false), (true, false), (false, true), (true, true)]
    {
        let mut expected = ready.clone();
        expected.extend(claimed.iter().filter(|_| include_claimed));
        expected.extend(scheduled.iter().filter(|_| include_delayed));
        expected.sort_unstable();
        let spec = ListSpec { include_claimed, include_delayed, ..list_visible(7) };
        let (found, sizes) = pages(&queue, spec).await;
        assert_eq!(found, expected);
        assert!(sizes.iter().rev().skip(1).all(|size| *size == 7), "{sizes:?}");
    }
}

pub async fn excluded_messages_after_a_page_do_not_count_as_more(pool: &TestPool) {
    let queue = pool.queue().await;
    let own = client("own");
    queue.post_n(1).await;
    queue.take(1).await;
    let seen = queue.post_n(2).await;
    queue.post_as(&own, vec![message("1"); 3]).await;
    queue.post_n_with(3, 2 * MINUTE, MINUTE).await;
    let spec = ListSpec { hide_client: Some(own), limit: limit(2), ..list_visible(2) };
    let page = queue.list(&spec).await;
    assert_eq!((ids(&page.items), page.more), (seen, false));
}
