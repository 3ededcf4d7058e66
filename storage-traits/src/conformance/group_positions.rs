//! Start points of consumer groups, and moves to another point.

use std::time::Duration;

use super::{
    TestPool,
    builders::{
        DEADLINE, HOUR, MILLISECOND, MINUTE, ack, concurrently, ids, keyed, message, nack, texts,
    },
};
use crate::{
    domain::{
        AckResult, NewMessage, Sequence,
        StartPoint::{self, End, Start, Time},
    },
    pool::WatchFor,
};

pub async fn a_group_gets_messages_posted_after_its_creation(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(2).await;
    let group = queue.group("g", End).await;
    assert_eq!(group.claim_ids(10).await, []);
    let posted = queue.post_n(3).await;
    let claim = group.take(10).await;
    assert_eq!(ids(&claim.messages), posted);
    assert_eq!(texts(&claim.messages), ["0", "1", "2"]);
    // Equal to the messages of the queue except for the claim.
    let mut own = queue.get(&posted).await;
    for message in &mut own {
        (message.claim, message.claim_count) = (Some(claim.id), 1);
    }
    assert_eq!(claim.messages, own);
}

pub async fn a_group_may_start_at_the_first_message(pool: &TestPool) {
    let queue = pool.queue().await;
    let mut posted = queue.post_n(4).await;
    queue.delete(posted.remove(1), None).await;
    let group = queue.group("g", Start).await;
    posted.extend(queue.post_n(1).await);
    assert_eq!(group.claim_ids(10).await, posted);
}

pub async fn a_group_may_start_at_a_sequence(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(5).await;
    queue.delete(posted[2], None).await;
    for (start, expected) in [(1, vec![0, 1, 3, 4]), (3, vec![3, 4]), (5, vec![4]), (9, vec![])] {
        let point = StartPoint::Sequence(Sequence::new(start).unwrap());
        let group = queue.group(&start.to_string(), point).await;
        let expected: Vec<_> = expected.into_iter().map(|n: usize| posted[n]).collect();
        assert_eq!(group.claim_ids(10).await, expected, "{start}");
    }
}

pub async fn a_group_may_start_at_a_time(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(2).await;
    queue.advance(MINUTE);
    let time = queue.now();
    let posted = queue.post_n(2).await;
    queue.advance(MINUTE);
    let group = queue.group("g", Time(time)).await;
    let later = queue.group("later", Time(time.plus(MILLISECOND))).await;
    assert_eq!(group.claim_ids(10).await, posted);
    assert_eq!(later.claim_ids(10).await, []);
}

pub async fn a_group_starts_with_unclaimed_copies(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(3).await;
    let claim = queue.take(3).await;
    queue.acknowledge(claim.id, &[nack(posted[0], HOUR / 2)]).await;
    queue.acknowledge(claim.id, &[nack(posted[1], Duration::ZERO)]).await;
    let group = queue.group("g", Start).await;
    let claim = group.take(10).await;
    assert_eq!(ids(&claim.messages), posted);
    assert!(claim.messages.iter().all(|message| message.claim_count == 1));
}

pub async fn many_messages_are_copied(pool: &TestPool) {
    let queue = pool.queue().await;
    let mut posted = queue.post_n(700).await;
    queue.take(100).await;
    posted.extend(queue.post((0..300).map(|n| keyed("a", &n.to_string())).collect()).await);
    let group = queue.group("g", Start).await;
    assert_eq!(group.counts().await, (1_000, 0));
    assert_eq!(ids(&group.all().await), posted);
    assert_eq!(group.claim_ids(2_000).await, posted);
}

pub async fn a_start_point_beyond_the_end_is_the_end(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(2).await;
    let ahead = StartPoint::Sequence(Sequence::new(99).unwrap());
    let groups =
        [queue.group("one", ahead).await, queue.group("two", Time(queue.now().plus(HOUR))).await];
    let posted = queue.post_n(1).await;
    for group in groups {
        assert_eq!(group.claim_ids(10).await, posted);
    }
}

pub async fn a_group_moves_back(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let posted = queue.post_n(4).await;
    let claim = group.take(3).await;
    let acknowledgements: Vec<_> = posted[..3].iter().map(|id| ack(*id)).collect();
    group.acknowledge(claim.id, &acknowledgements).await;
    let again = queue.seek("g", Start).await;
    assert_eq!(again.claim_ids(10).await, posted);
    let again = queue.seek("g", StartPoint::Sequence(posted[2].sequence)).await;
    assert_eq!(again.claim_ids(10).await, posted[2..]);
    assert_eq!(queue.counts().await, (4, 0));
    // The group also gets messages posted after the move.
    let more = queue.post_n(1).await;
    assert_eq!(again.claim_ids(10).await, more);
}

pub async fn a_group_moves_forward(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.group("g", Start).await;
    queue.post_n(3).await;
    queue.advance(MINUTE);
    let time = queue.now();
    let posted = queue.post_n(2).await;
    let group = queue.seek("g", Time(time)).await;
    assert_eq!(ids(&group.all().await), posted);
    let group = queue.seek("g", End).await;
    assert_eq!(group.counts().await, (0, 0));
}

pub async fn claims_from_before_a_move_are_not_acknowledged(pool: &TestPool) {
    let queue = pool.queue().await;
    let before = queue.group("g", End).await;
    let posted = queue.post_n(1).await;
    let claim = before.take(1).await;
    let mut watch = before.watch(WatchFor::Claimable).await;
    let after = queue.seek("g", Start).await;
    for group in [&before, &after] {
        let results = group.acknowledge(claim.id, &[ack(posted[0])]).await;
        assert_eq!(results, [AckResult::NotHeld]);
    }
    assert_eq!(before.all().await, []);
    assert!(watch.wait(DEADLINE).await, "the watch was not woken");
    assert_eq!(after.claim_ids(1).await, posted);
}

/// Groups that are created during posts get each message from their start point on once.
pub async fn a_new_group_misses_no_concurrent_post(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(600).await;
    let outcomes = concurrently(6, |n| {
        let queue = queue.clone();
        async move {
            if n < 3 {
                for _ in 0..40 {
                    queue.post(vec![NewMessage { ttl: HOUR, ..message("1") }; 3]).await;
                }
                return None;
            }
            Some(queue.group(&n.to_string(), Start).await)
        }
    })
    .await;
    let posted = ids(&queue.all().await);
    assert_eq!(posted.len(), 600 + 3 * 40 * 3);
    for group in outcomes.into_iter().flatten() {
        assert_eq!(ids(&group.all().await), posted);
        assert_eq!(group.claim_ids(2_000).await, posted);
    }
}
