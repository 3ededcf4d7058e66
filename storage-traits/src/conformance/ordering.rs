//! Ordering keys: messages of one key are processed in order, and do not block those of other keys.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Mutex, RwLock};

use super::{
    TestPool, TestQueue,
    builders::{
        DEADLINE, HOUR, MILLISECOND, MINUTE, ack, claim_spec, concurrently, ids, just_before,
        keyed, message, nack, terms, texts,
    },
    dead_letter_rules::claim_with_dead_letter,
};
use crate::{
    domain::{AckResult, ClaimSpec, Delivery, Message, MessageId, NewMessage, OrderingKey},
    pool::WatchFor,
};

/// Posts a message for each key, in order; `-` means no key. The bodies are the numbers from 0 on.
async fn post(queue: &TestQueue, keys: &str) -> Vec<MessageId> {
    let new = |(n, key): (usize, &str)| match key {
        "-" => message(&n.to_string()),
        key => keyed(key, &n.to_string()),
    };
    queue.post(keys.split(' ').enumerate().map(new).collect()).await
}

async fn claim_texts(queue: &TestQueue, n: u32) -> Vec<String> {
    let claim = queue.claim(&claim_spec(n)).await;
    let messages = claim.map(|claim| claim.messages).unwrap_or_default();
    texts(&messages).into_iter().map(ToOwned::to_owned).collect()
}

/// Claims up to `n` messages, acknowledges them and returns their bodies.
async fn process(queue: &TestQueue, n: u32) -> Vec<String> {
    let Some(claim) = queue.claim(&claim_spec(n)).await else { return Vec::new() };
    let acknowledgements: Vec<_> = ids(&claim.messages).into_iter().map(ack).collect();
    let results = queue.acknowledge(claim.id, &acknowledgements).await;
    assert!(results.iter().all(|result| *result == AckResult::Applied));
    texts(&claim.messages).into_iter().map(ToOwned::to_owned).collect()
}

pub async fn messages_of_a_key_are_claimed_in_order(pool: &TestPool) {
    let queue = pool.queue().await;
    post(&queue, "a a a").await;
    let found = queue.get_one(queue.id(1)).await;
    assert_eq!(found.ordering_key, Some("a".parse().unwrap()));
    for expected in ["0", "1", "2"] {
        assert_eq!(process(&queue, 1).await, [expected]);
    }
    assert_eq!(process(&queue, 1).await, [""; 0]);
    assert_eq!(queue.counts().await, (0, 0));
}

pub async fn a_claimed_message_blocks_its_key(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = post(&queue, "a a").await;
    let claim = queue.take(1).await;
    assert_eq!(queue.claim(&claim_spec(10)).await, None);
    assert_eq!(queue.pop(10).await, []);
    // Later messages of the key are blocked too.
    post(&queue, "a").await;
    assert_eq!(queue.claim(&claim_spec(10)).await, None);
    queue.delete(posted[0], Some(claim.id)).await;
    assert_eq!(ids(&queue.take(1).await.messages), posted[1..]);
}

pub async fn a_blocked_key_does_not_block_other_messages(pool: &TestPool) {
    let queue = pool.queue().await;
    post(&queue, "a a b - b").await;
    // Messages without a key come first in the rotation.
    assert_eq!(claim_texts(&queue, 1).await, ["3"]);
    assert_eq!(claim_texts(&queue, 1).await, ["0"]);
    assert_eq!(claim_texts(&queue, 1).await, ["2"]);
    assert_eq!(queue.claim(&claim_spec(10)).await, None);
    assert_eq!(queue.counts().await, (2, 3));
}

pub async fn a_claim_may_hold_several_messages_of_a_key(pool: &TestPool) {
    let queue = pool.queue().await;
    post(&queue, "a b a b a c").await;
    assert_eq!(claim_texts(&queue, 4).await, ["0", "1", "2", "4"]);
    assert_eq!(claim_texts(&queue, 4).await, ["5"]);
}

pub async fn a_key_is_blocked_until_all_its_claimed_messages_are_acknowledged(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = post(&queue, "a a a").await;
    let claim = queue.take(2).await;
    queue.acknowledge(claim.id, &[ack(posted[0])]).await;
    assert_eq!(queue.claim(&claim_spec(1)).await, None);
    queue.acknowledge(claim.id, &[ack(posted[1])]).await;
    assert_eq!(ids(&queue.take(1).await.messages), posted[2..]);
}

pub async fn messages_of_an_expired_claim_precede_later_ones(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = post(&queue, "a a a").await;
    queue.take(2).await;
    queue.advance(MINUTE);
    assert_eq!(ids(&queue.take(1).await.messages), posted[..1]);
    queue.advance(MINUTE);
    let again = queue.take(10).await;
    assert_eq!(ids(&again.messages), posted);
    let counts: Vec<_> = again.messages.iter().map(|message| message.claim_count).collect();
    assert_eq!(counts, [3, 2, 1]);
}

pub async fn released_messages_precede_later_ones(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = post(&queue, "a - b a").await;
    let claim = queue.take(10).await;
    assert_eq!(ids(&claim.messages), posted);
    queue.acknowledge(claim.id, &[ack(posted[0])]).await;
    queue.release(claim.id).await;
    let again = queue.take(10).await;
    assert_eq!(ids(&again.messages), posted[1..]);
    assert!(again.messages.iter().all(|message| message.claim_count == 2));
    assert_eq!(queue.counts().await, (0, 3));
}

pub async fn a_nack_with_a_delay_blocks_its_key_until_the_retry(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = post(&queue, "a a b").await;
    let claim = queue.take(1).await;
    queue.acknowledge(claim.id, &[nack(posted[0], MINUTE)]).await;
    assert_eq!(claim_texts(&queue, 10).await, ["2"]);
    queue.advance(just_before(MINUTE));
    assert_eq!(queue.claim(&claim_spec(10)).await.map(|claim| ids(&claim.messages)), None);
    queue.advance(MILLISECOND);
    // The other claim expires at the same time.
    let again = queue.take(10).await;
    assert_eq!(ids(&again.messages), posted);
}

pub async fn a_nack_without_a_delay_is_retried_before_later_messages(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = post(&queue, "a a").await;
    let claim = queue.take(1).await;
    queue.acknowledge(claim.id, &[nack(posted[0], Duration::ZERO)]).await;
    assert_eq!(ids(&queue.take(1).await.messages), posted[..1]);
}

pub async fn removing_the_blocking_message_unblocks_its_key(pool: &TestPool) {
    let queue = pool.queue().await;
    let short = NewMessage { ttl: MINUTE, ..keyed("a", "short") };
    for end in ["deleted", "expired", "retry deleted", "retry expired"] {
        let first = queue.post_one(short.clone()).await;
        let second = queue.post_one(keyed("a", "next")).await;
        let claim = queue.claim(&ClaimSpec { terms: terms(30, 0), ..claim_spec(1) }).await.unwrap();
        if end.starts_with("retry") {
            queue.acknowledge(claim.id, &[nack(first, HOUR)]).await;
        }
        assert_eq!(queue.claim(&claim_spec(1)).await, None, "{end}");
        if end.ends_with("deleted") {
            assert_eq!(queue.delete_many(&[first], &[]).await, Some(1));
        } else {
            queue.advance(MINUTE);
        }
        assert_eq!(ids(&queue.take(10).await.messages), [second], "{end}");
        queue.delete_many(&[second], &[]).await;
        assert_eq!(queue.counts().await, (0, 0));
    }
}

pub async fn a_delayed_message_does_not_block_its_key(pool: &TestPool) {
    let queue = pool.queue().await;
    let later = NewMessage { delivery: Delivery::After(MINUTE), ..keyed("a", "later") };
    let (later, now) = (queue.post_one(later).await, queue.post_one(keyed("a", "now")).await);
    assert_eq!(ids(&queue.take(10).await.messages), [now]);
    queue.delete_many(&[now], &[]).await;
    assert_eq!(queue.claim(&claim_spec(1)).await, None);
    queue.advance(MINUTE);
    let next = queue.post_one(keyed("a", "next")).await;
    assert_eq!(ids(&queue.take(1).await.messages), [later]);
    queue.delete_many(&[later], &[]).await;
    assert_eq!(ids(&queue.take(1).await.messages), [next]);
}

pub async fn pops_keep_the_order_of_keys(pool: &TestPool) {
    let queue = pool.queue().await;
    post(&queue, "a b a - a").await;
    assert_eq!(texts(&queue.pop(2).await), ["0", "3"]);
    assert_eq!(texts(&queue.pop(10).await), ["1", "2", "4"]);
    assert_eq!(queue.pop(10).await, []);
    assert_eq!(queue.counts().await, (0, 0));
}

pub async fn a_key_with_many_messages_does_not_delay_others(pool: &TestPool) {
    let queue = pool.queue().await;
    for _ in 0..10 {
        queue.post(vec![keyed("busy", "1"); 200]).await;
    }
    let single = |n: usize| keyed(&format!("single-{n}"), &format!("\"{n}\""));
    queue.post((0..100).map(single).collect()).await;
    let mut singles = HashSet::new();
    for _ in 0..20 {
        singles.extend(process(&queue, 10).await.into_iter().filter(|body| body != "1"));
    }
    assert_eq!(singles.len(), 100);
}

pub async fn keys_and_unkeyed_messages_are_served_round_robin(pool: &TestPool) {
    let queue = pool.queue().await;
    let keys = ["-", "a", "b"].map(|key| [key; 20].join(" ")).join(" ");
    post(&queue, &keys).await;
    let mut sources = HashMap::new();
    for _ in 0..12 {
        let bodies = process(&queue, 2).await;
        let source = bodies[0].parse::<usize>().unwrap() / 20;
        assert_eq!(bodies.len(), 2);
        *sources.entry(source).or_insert(0) += 1;
    }
    assert_eq!(sources, HashMap::from([(0, 4), (1, 4), (2, 4)]));
}

pub async fn dead_letters_keep_their_keys(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    post(&queue, "a a b -").await;
    assert_eq!(queue.claim(&claim_with_dead_letter(10, 0, &dlq)).await, None);
    assert_eq!(queue.counts().await, (0, 0));
    let keys = |messages: &[Message]| -> Vec<Option<OrderingKey>> {
        messages.iter().map(|message| message.ordering_key.clone()).collect()
    };
    let [a, b] = ["a", "b"].map(|key| Some(key.parse().unwrap()));
    let mut dead_letters = dlq.all().await;
    dead_letters.sort_by_key(|message| texts(std::slice::from_ref(message))[0].to_owned());
    assert_eq!(keys(&dead_letters), [a.clone(), a, b, None]);
    // The order of the keys applies in the dead-letter queue too.
    let claim = dlq.take(10).await;
    dlq.release(claim.id).await;
    let mut order = BTreeMap::<_, Vec<_>>::new();
    loop {
        let Some(claim) = dlq.claim(&claim_spec(1)).await else { break };
        let message = &claim.messages[0];
        order
            .entry(message.ordering_key.clone())
            .or_default()
            .push(texts(&claim.messages)[0].to_owned());
        dlq.delete(message.id, Some(claim.id)).await;
    }
    assert_eq!(order[&Some("a".parse().unwrap())], ["0", "1"]);
}

pub async fn a_dead_letter_unblocks_its_key(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let posted = post(&queue, "a a").await;
    let claim = queue.take(1).await;
    queue.release(claim.id).await;
    let claim = queue.claim(&claim_with_dead_letter(1, 1, &dlq)).await.unwrap();
    assert_eq!(ids(&claim.messages), posted[1..]);
    assert_eq!(texts(&dlq.all().await), ["0"]);
}

pub async fn lists_and_counts_ignore_keys(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = post(&queue, "a - b a - a").await;
    assert_eq!(queue.plain().await, posted);
    let claim = queue.take(1).await;
    let rest = |taken: &[MessageId]| -> Vec<MessageId> {
        posted.iter().filter(|id| !taken.contains(id)).copied().collect()
    };
    assert_eq!(queue.plain().await, rest(&ids(&claim.messages)));
    let second = queue.take(1).await;
    let taken = [ids(&claim.messages), ids(&second.messages)].concat();
    assert_eq!(queue.plain().await, rest(&taken));
    assert_eq!(queue.counts().await, (4, 2));
    assert_eq!(ids(&queue.get(&posted).await), posted);
    let stats = queue.stats().await;
    assert_eq!(stats.oldest.unwrap().id, posted[0]);
    assert_eq!(stats.newest.unwrap().id, posted[5]);
}

pub async fn keys_are_compared_exactly(pool: &TestPool) {
    let queue = pool.queue().await;
    let keys = ["a", "A", "ä", "a\u{308}", "%", "_", "'", "0", "00", "a ", &"x".repeat(128)];
    queue.post(keys.map(|key| keyed(key, "1")).to_vec()).await;
    for _ in keys {
        assert_eq!(queue.take(1).await.messages.len(), 1);
    }
    assert_eq!(queue.claim(&claim_spec(1)).await, None);
}

pub async fn a_purge_keeps_keys_blocked_by_claimed_messages(pool: &TestPool) {
    let queue = pool.queue().await;
    post(&queue, "a a b").await;
    let claim = queue.take(1).await;
    assert_eq!(queue.purge().await, 2);
    assert_eq!(queue.claim(&claim_spec(1)).await, None);
    let posted = post(&queue, "a b").await;
    // The claimed message was not purged, and still blocks its key.
    assert_eq!(ids(&queue.take(10).await.messages), posted[1..]);
    queue.delete(claim.messages[0].id, Some(claim.id)).await;
    assert_eq!(ids(&queue.take(10).await.messages), posted[..1]);
}

pub async fn an_unblocked_key_wakes_a_consumer(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = post(&queue, "a a").await;
    let claim = queue.take(1).await;
    let mut watch = queue.watch(WatchFor::Claimable).await;
    assert_eq!(queue.claim(&claim_spec(1)).await, None);
    queue.delete(posted[0], Some(claim.id)).await;
    assert!(watch.wait(DEADLINE).await);
    assert_eq!(queue.take(1).await.messages.len(), 1);
}

/// Consumers nack, crash, exceed their claims and acknowledge at random: the messages of each key
/// are acknowledged in the order in which they were posted.
pub async fn messages_of_each_key_are_processed_in_order(pool: &TestPool) {
    const KEYS: usize = 10;
    const EACH: usize = 12;
    let queue = pool.queue().await;
    for n in 0..EACH {
        let new = |key: usize| keyed(&format!("key-{key}"), &n.to_string());
        queue.post((0..KEYS).map(new).collect()).await;
    }
    let processed = Arc::new(Mutex::new(BTreeMap::<String, Vec<usize>>::new()));
    // Held for reading by consumers with a claim. An idle consumer advances the clock while it
    // holds the lock for writing, so that a slow machine does not let every claim expire.
    let claims = Arc::new(RwLock::new(()));
    concurrently(8, |consumer| {
        let (queue, processed) = (queue.clone(), Arc::clone(&processed));
        let claims = Arc::clone(&claims);
        async move {
            let mut state = consumer as u64 + 1;
            let mut random = move || {
                // The upper bits of a linear congruential generator (Knuth, MMIX).
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                state >> 61
            };
            while processed.lock().await.values().map(Vec::len).sum::<usize>() < KEYS * EACH {
                let claiming = claims.read().await;
                let Some(claim) =
                    queue.claim(&ClaimSpec { terms: terms(1, 60), ..claim_spec(3) }).await
                else {
                    drop(claiming);
                    // Claims of crashed consumers expire, and delays end.
                    let _no_claims = claims.write().await;
                    queue.advance(Duration::from_millis(200));
                    continue;
                };
                for message in &claim.messages {
                    let acknowledgement = match random() {
                        0..2 => nack(message.id, Duration::from_millis(300)),
                        2..4 => break, // the consumer crashes
                        4 => {
                            // The consumer is slow: its claim, and maybe others, expire.
                            queue.advance(Duration::from_secs(1));
                            ack(message.id)
                        }
                        _ => ack(message.id),
                    };
                    // Locked before the call, so that the order of the entries is that of the
                    // calls.
                    let mut processed = processed.lock().await;
                    let results = queue.acknowledge(claim.id, &[acknowledgement]).await;
                    if acknowledgement != ack(message.id) {
                        break; // later messages of the claim must wait for this one
                    }
                    if results == [AckResult::Applied] {
                        let key = message.ordering_key.as_ref().unwrap().as_str().to_owned();
                        let number = texts(std::slice::from_ref(message))[0].parse().unwrap();
                        processed.entry(key).or_default().push(number);
                    }
                }
            }
        }
    })
    .await;
    for (key, numbers) in &*processed.lock().await {
        assert_eq!(*numbers, (0..EACH).collect::<Vec<_>>(), "{key}");
    }
}
