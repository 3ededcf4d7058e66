//! Concurrent calls to a pool. Each case holds in whatever order the calls are applied.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{
    TestPool, TestQueue,
    builders::{
        MINUTE, ack, claim_spec, concurrently, deduplicated, ids, list_visible, message, nack,
        texts,
    },
    dead_letter_rules::claim_with_dead_letter,
};
use crate::{
    domain::{AckResult, Message, MessageId},
    pool::{DeleteOutcome, ListSpec},
};

/// More messages than any of these cases posts.
const ENOUGH: usize = 2_000;

/// Checks that `found` contains each of `expected` once, and nothing else.
#[track_caller]
fn assert_once(found: &[Vec<MessageId>], expected: &[MessageId]) {
    let mut found = found.concat();
    found.sort_unstable();
    assert_eq!(found, expected);
}

async fn claim_until_none(queue: TestQueue, n: u32) -> Vec<MessageId> {
    let mut claimed = Vec::new();
    while let Some(claim) = queue.claim(&claim_spec(n)).await {
        let ids = ids(&claim.messages);
        assert!(ids.is_sorted() && (1..=n as usize).contains(&ids.len()));
        claimed.extend(ids);
        assert!(claimed.len() <= ENOUGH, "claims do not end");
    }
    claimed
}

async fn pop_until_none(queue: TestQueue, n: u32) -> Vec<MessageId> {
    let mut popped = Vec::new();
    loop {
        let messages = queue.pop(n).await;
        if messages.is_empty() {
            return popped;
        }
        popped.extend(ids(&messages));
        assert!(popped.len() <= ENOUGH, "pops do not end");
    }
}

pub async fn concurrent_claims_get_each_message_once(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(300).await;
    let claimed = concurrently(16, |_| claim_until_none(queue.clone(), 7)).await;
    assert_once(&claimed, &posted);
    assert!(queue.all().await.iter().all(|message| message.claim_count == 1));
    assert_eq!(queue.counts().await, (0, 300));
}

pub async fn concurrent_claims_are_full_while_messages_are_ready(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(200).await;
    let claim = |_| {
        let queue = queue.clone();
        async move { ids(&queue.take(10).await.messages) }
    };
    let claimed = concurrently(20, claim).await;
    assert!(claimed.iter().all(|ids| ids.len() == 10), "a claim is short");
    assert_once(&claimed, &posted);
}

pub async fn concurrent_pops_get_each_message_once(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(300).await;
    let popped = concurrently(16, |_| pop_until_none(queue.clone(), 3)).await;
    assert_once(&popped, &posted);
    assert_eq!(queue.all().await, []);
}

pub async fn concurrent_claims_and_pops_share_no_message(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(300).await;
    let taken = concurrently(16, |n| {
        let queue = queue.clone();
        async move {
            if n % 2 == 0 {
                claim_until_none(queue, 5).await
            } else {
                pop_until_none(queue, 5).await
            }
        }
    })
    .await;
    assert_once(&taken, &posted);
}

pub async fn a_reader_by_position_misses_no_post(pool: &TestPool) {
    const POSTERS: usize = 8;
    let queue = pool.queue().await;
    let posted_all = Arc::new(AtomicBool::new(false));
    let reader = {
        let (queue, posted_all) = (queue.clone(), Arc::clone(&posted_all));
        tokio::spawn(async move {
            let mut seen: Vec<Message> = Vec::new();
            loop {
                let last_read = posted_all.load(Ordering::SeqCst);
                let after = seen.last().map(|message| message.id.sequence);
                let page = queue.list(&ListSpec { after, ..list_visible(20) }).await;
                if last_read && page.items.is_empty() {
                    return seen;
                }
                let is_after = |m: &Message| after.is_none_or(|after| m.id.sequence > after);
                assert!(page.items.iter().all(is_after), "a page repeats earlier messages");
                seen.extend(page.items);
            }
        })
    };
    let batches = concurrently(POSTERS, |poster| {
        let queue = queue.clone();
        async move {
            let mut batches = Vec::new();
            for n in 0..25 {
                let body = |i| message(&format!("[{poster},{n},{i}]"));
                batches.push(queue.post((0..=n % 4).map(body).collect()).await);
            }
            batches
        }
    })
    .await;
    posted_all.store(true, Ordering::SeqCst);
    let seen = reader.await.unwrap();

    assert!(ids(&seen).is_sorted());
    for own in &batches {
        assert!(own.is_sorted(), "a later post came before an earlier one");
        for batch in own {
            let (first, last) = (batch[0].sequence.get(), batch[batch.len() - 1].sequence.get());
            assert_eq!(usize::try_from(last - first).unwrap() + 1, batch.len());
        }
    }
    assert_once(&batches.concat(), &ids(&seen));
    assert_eq!(seen, queue.all().await);
}

pub async fn one_of_many_concurrent_deletes_succeeds(pool: &TestPool) {
    let queue = pool.queue().await;
    for id in queue.post_n(20).await {
        let outcomes = concurrently(8, |n| {
            let queue = queue.clone();
            async move {
                if n % 2 == 0 {
                    queue.delete(id, None).await == DeleteOutcome::Deleted
                } else {
                    queue.delete_many(&[id], &[]).await == Some(1)
                }
            }
        })
        .await;
        assert_eq!(outcomes.iter().filter(|deleted| **deleted).count(), 1);
    }
    assert_eq!(queue.counts().await, (0, 0));
}

/// A consumer deletes the messages of its claim while the claim is released and others pop: each
/// message is removed by one call only.
pub async fn a_message_is_removed_by_one_of_many_calls(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(120).await;
    let claim = queue.take(120).await;
    let removed = concurrently(9, |n| {
        let (queue, mut held) = (queue.clone(), ids(&claim.messages));
        async move {
            match n {
                0..4 => {
                    held.rotate_left(n * 30);
                    let mut deleted = Vec::new();
                    for id in held {
                        if queue.delete(id, Some(claim.id)).await == DeleteOutcome::Deleted {
                            deleted.push(id);
                        }
                    }
                    deleted
                }
                4 => {
                    tokio::task::yield_now().await;
                    queue.release(claim.id).await;
                    Vec::new()
                }
                _ => {
                    let mut popped = Vec::new();
                    for _ in 0..40 {
                        popped.extend(ids(&queue.pop(2).await));
                    }
                    popped
                }
            }
        }
    })
    .await;
    let left = queue.plain().await;
    assert_eq!(queue.counts().await, (left.len() as u64, 0));
    assert_once(&[removed, vec![left]].concat(), &posted);
}

pub async fn a_message_of_an_expired_claim_is_claimed_once(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(600).await;
    queue.take(600).await;
    queue.advance(MINUTE);
    let claimed = concurrently(8, |_| claim_until_none(queue.clone(), 20)).await;
    assert_once(&claimed, &posted);
    assert!(queue.all().await.iter().all(|message| message.claim_count == 2));
}

pub async fn dead_letters_are_moved_once(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    queue.post_n(100).await;
    queue.take(100).await;
    queue.advance(MINUTE);
    let claimed = concurrently(8, |_| {
        let (queue, dlq) = (queue.clone(), dlq.clone());
        async move { queue.claim(&claim_with_dead_letter(5, 1, &dlq)).await }
    })
    .await;
    assert!(claimed.iter().all(Option::is_none));
    assert_eq!(queue.all().await, []);
    let expected: Vec<_> = (0..100).map(|i| i.to_string()).collect();
    assert_eq!(texts(&dlq.all().await), expected);
    assert_eq!(pool.pool.counters().dead_lettered, 100);
}

pub async fn a_purge_counts_messages_posted_concurrently(pool: &TestPool) {
    let queue = pool.queue().await;
    let before = queue.post_n(1_000).await;
    let purged: u64 = concurrently(5, |n| {
        let queue = queue.clone();
        async move {
            if n == 0 {
                return queue.purge().await;
            }
            for _ in 0..50 {
                queue.post_n(2).await;
            }
            0
        }
    })
    .await
    .iter()
    .sum();
    let left = queue.plain().await;
    assert_eq!(purged + left.len() as u64, 1_400);
    assert!(left.iter().all(|id| !before.contains(id)));
    assert_eq!(queue.counts().await, (left.len() as u64, 0));
}

pub async fn a_purge_keeps_messages_posted_after_it_began(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(5_000).await;
    let purging = {
        let queue = queue.clone();
        tokio::spawn(async move { queue.purge().await })
    };
    while queue.counts().await.0 == 5_000 {
        tokio::task::yield_now().await;
    }
    let later = queue.post_n(3).await;
    assert_eq!(purging.await.unwrap(), 5_000);
    assert_eq!(queue.plain().await, later);
}

pub async fn a_message_stays_listed_while_its_state_changes(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(60).await;
    concurrently(8, |n| {
        let (queue, posted) = (queue.clone(), posted.clone());
        async move {
            for _ in 0..40 {
                if n < 4 {
                    if let Some(claim) = queue.claim(&claim_spec(10)).await {
                        queue.release(claim.id).await;
                    }
                } else {
                    let (free, claimed) = queue.counts().await;
                    assert_eq!(free + claimed, 60);
                    assert_eq!(ids(&queue.all().await), posted);
                }
            }
        }
    })
    .await;
    assert_eq!(queue.counts().await, (60, 0));
}

pub async fn concurrent_opens_of_a_queue_succeed(pool: &TestPool) {
    let queue = pool.unopened("conformance", "orders");
    let posted = concurrently(8, |_| {
        let queue = queue.clone();
        async move {
            queue.pool.open_queue(&queue.queue).await.unwrap();
            queue.post_n(3).await
        }
    })
    .await;
    assert_once(&posted, &queue.plain().await);
    assert_eq!(queue.counts().await, (24, 0));
}

pub async fn one_of_many_posts_with_the_same_id_is_stored(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = concurrently(16, |n| {
        let queue = queue.clone();
        async move {
            let batch = vec![message("0"), deduplicated("shared", &n.to_string())];
            queue.try_post(batch).await.unwrap()[1]
        }
    })
    .await;
    let new: Vec<_> = posted.iter().filter(|posted| !posted.duplicate).collect();
    assert_eq!(new.len(), 1);
    assert!(posted.iter().all(|posted| posted.id == new[0].id));
    assert_eq!(queue.counts().await, (17, 0));
}

pub async fn one_of_many_acknowledgements_is_applied(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(40).await;
    let claim = queue.take(40).await;
    let all_results = concurrently(8, |n| {
        let (queue, posted) = (queue.clone(), posted.clone());
        async move {
            let acknowledgement = |id| if n % 2 == 0 { ack(id) } else { nack(id, MINUTE) };
            let acknowledgements: Vec<_> = posted.into_iter().map(acknowledgement).collect();
            (n % 2 == 0, queue.acknowledge(claim.id, &acknowledgements).await)
        }
    })
    .await;
    for (n, id) in posted.iter().enumerate() {
        let applied =
            all_results.iter().filter(|(_, results)| results[n] == AckResult::Applied).count();
        assert_eq!(applied, 1, "{id}");
    }
    let acks = all_results.iter().filter(|(acks, _)| *acks).flat_map(|(_, results)| results);
    let acked = acks.filter(|results| **results == AckResult::Applied).count();
    assert_eq!(queue.counts().await, ((40 - acked) as u64, 0));
}
