//! Consumer groups: each reads the whole queue for itself.

use std::time::Duration;

use super::{
    TestPool, TestQueue,
    builders::{
        HOUR, MILLISECOND, MINUTE, ack, assert_not_found, claim_spec, claim_with_dead_letter,
        concurrently, delayed, ids, just_before, keyed, limit, message, metadata, nack, texts,
    },
};
use crate::{
    domain::{
        AckResult, GroupName, MessageId, Metadata, NewMessage, Sequence,
        StartPoint::{self, End, Start, Time},
    },
    pool::{DeleteOutcome, Rescheduled, WatchFor},
};

/// Longer than any wake-up takes.
const LONG: Duration = Duration::from_secs(20);

fn name(name: &str) -> GroupName {
    name.parse().unwrap()
}

async fn take_ids(reading: &TestQueue, n: u32) -> Vec<MessageId> {
    reading.claim(&claim_spec(n)).await.map(|claim| ids(&claim.messages)).unwrap_or_default()
}

pub async fn a_group_gets_what_is_posted_after_it(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(2).await;
    let group = queue.group("g", End).await;
    assert_eq!(take_ids(&group, 10).await, []);
    let posted = queue.post_n(3).await;
    let claim = group.take(10).await;
    assert_eq!(ids(&claim.messages), posted);
    assert_eq!(texts(&claim.messages), ["0", "1", "2"]);
    // As the queue has them, but for the claim.
    let mut own = queue.get(&posted).await;
    for message in &mut own {
        (message.claim, message.claim_count) = (Some(claim.id), 1);
    }
    assert_eq!(claim.messages, own);
}

pub async fn a_group_may_start_with_what_is_there(pool: &TestPool) {
    let queue = pool.queue().await;
    let mut posted = queue.post_n(4).await;
    queue.delete(posted.remove(1), None).await;
    let group = queue.group("g", Start).await;
    posted.extend(queue.post_n(1).await);
    assert_eq!(take_ids(&group, 10).await, posted);
}

pub async fn a_group_may_start_in_a_position(pool: &TestPool) {
    let queue = pool.queue().await;
    let posted = queue.post_n(5).await;
    queue.delete(posted[2], None).await;
    for (start, expected) in [(1, vec![0, 1, 3, 4]), (3, vec![3, 4]), (5, vec![4]), (9, vec![])] {
        let point = StartPoint::Sequence(Sequence::new(start).unwrap());
        let group = queue.group(&start.to_string(), point).await;
        let expected: Vec<_> = expected.into_iter().map(|n: usize| posted[n]).collect();
        assert_eq!(take_ids(&group, 10).await, expected, "{start}");
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
    assert_eq!(take_ids(&group, 10).await, posted);
    assert_eq!(take_ids(&later, 10).await, []);
}

pub async fn a_group_starts_afresh_with_what_others_have_tried(pool: &TestPool) {
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
    assert_eq!(take_ids(&group, 2_000).await, posted);
}

pub async fn the_queue_and_its_groups_acknowledge_each_for_themselves(pool: &TestPool) {
    let queue = pool.queue().await;
    let (one, other) = (queue.group("one", End).await, queue.group("other", End).await);
    let posted = queue.post_n(3).await;
    let claim = one.take(1).await;
    assert_eq!(one.acknowledge(claim.id, &[ack(posted[0])]).await, [AckResult::Applied]);
    assert_eq!(queue.pop(2).await.len(), 2);
    assert_eq!(other.delete(posted[2], None).await, DeleteOutcome::Deleted);
    assert_eq!(ids(&one.all().await), posted[1..]);
    assert_eq!(ids(&queue.all().await), posted[2..]);
    assert_eq!(ids(&other.all().await), posted[..2]);
    assert_eq!(texts(&other.all().await), ["0", "1"]);
}

pub async fn claims_of_a_group_are_its_own(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let posted = queue.post_n(1).await;
    let (first, second) = (queue.take(1).await, group.take(1).await);
    assert_eq!(queue.get_claim(second.id).await, None);
    assert_eq!(group.get_claim(first.id).await, None);
    assert_eq!(queue.acknowledge(second.id, &[ack(posted[0])]).await, [AckResult::NotHeld]);
    group.release(first.id).await;
    group.release(second.id).await;
    assert_eq!(queue.counts().await, (0, 1));
    assert_eq!(group.take(1).await.messages[0].claim_count, 2);
    assert_eq!(queue.get_one(posted[0]).await.claim_count, 1);
}

pub async fn what_the_queue_deletes_stays_for_its_groups(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let body = format!("\"{}\"", "x".repeat(100_000));
    let id = queue.post_one(message(&body)).await;
    queue.delete(id, None).await;
    pool.sweep_all().await;
    assert_eq!(texts(&group.get(&[id]).await), [body.as_str()]);
    let claim = group.take(1).await;
    group.delete(id, Some(claim.id)).await;
    assert_eq!(group.get(&[id]).await, []);
}

pub async fn a_message_expires_for_all(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    queue.post_n_with(2, MINUTE, Duration::ZERO).await;
    queue.delete(queue.id(1), None).await;
    queue.advance(just_before(MINUTE));
    assert_eq!(group.counts().await, (2, 0));
    queue.advance(MILLISECOND);
    assert_eq!(group.counts().await, (0, 0));
    assert_eq!(take_ids(&group, 1).await, []);
    pool.sweep_all().await;
    assert_eq!(pool.pool.counters().expired, 1, "the queue itself has seen one expire");
}

pub async fn a_delayed_message_comes_to_all_at_its_time(pool: &TestPool) {
    let queue = pool.queue().await;
    let before = queue.group("before", End).await;
    let id = queue.post_one(delayed("1", MINUTE)).await;
    let after = queue.group("after", Start).await;
    queue.advance(just_before(MINUTE));
    for reading in [&queue, &before, &after] {
        assert_eq!(take_ids(reading, 1).await, []);
    }
    queue.advance(MILLISECOND);
    for reading in [&queue, &before, &after] {
        assert_eq!(take_ids(reading, 1).await, [id]);
    }
}

pub async fn what_a_producer_puts_off_or_cancels_is_so_for_all(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let posted = queue.post(["1", "2", "3"].map(|body| delayed(body, MINUTE)).to_vec()).await;
    let later = queue.now().plus(HOUR);
    assert_eq!(queue.reschedule(posted[0], later).await, Rescheduled::Moved);
    assert_eq!(queue.delete(posted[1], None).await, DeleteOutcome::Deleted);
    queue.advance(MINUTE);
    for reading in [&queue, &group] {
        assert_eq!(take_ids(reading, 10).await, posted[2..]);
    }
    // From then on each reading has its own.
    assert_eq!(queue.delete_many(&posted[2..], &[]).await, Some(1));
    assert_eq!(ids(&group.get(&posted).await), [posted[0], posted[2]]);
    queue.advance(HOUR);
    for reading in [&queue, &group] {
        assert!(take_ids(reading, 10).await.contains(&posted[0]));
    }
}

pub async fn what_has_just_become_visible_is_deleted_for_one_reading(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let new = |body| NewMessage { retained: true, ..delayed(body, MINUTE) };
    let posted = queue.post(["1", "2"].map(new).to_vec()).await;
    queue.advance(MINUTE);
    // Nothing has looked at the queue since.
    assert_eq!(queue.delete(posted[0], None).await, DeleteOutcome::Deleted);
    assert_eq!(queue.delete_many(&posted[1..], &[]).await, Some(1));
    assert_eq!(take_ids(&group, 10).await, posted);
    let late = queue.group("late", Start).await;
    assert_eq!(take_ids(&late, 10).await, posted);
}

pub async fn a_point_beyond_the_end_is_the_end(pool: &TestPool) {
    let queue = pool.queue().await;
    queue.post_n(2).await;
    let ahead = StartPoint::Sequence(Sequence::new(99).unwrap());
    let groups =
        [queue.group("one", ahead).await, queue.group("two", Time(queue.now().plus(HOUR))).await];
    let posted = queue.post_n(1).await;
    for group in groups {
        assert_eq!(take_ids(&group, 10).await, posted);
    }
}

pub async fn a_group_keeps_the_order_of_keys(pool: &TestPool) {
    let queue = pool.queue().await;
    let before = queue.group("before", End).await;
    let posted = queue.post(["a", "a", "b"].map(|key| keyed(key, "1")).to_vec()).await;
    queue.take(10).await;
    let after = queue.group("after", Start).await;
    for group in [before, after] {
        let claim = group.take(1).await;
        assert_eq!(ids(&claim.messages), posted[..1]);
        assert_eq!(take_ids(&group, 10).await, posted[2..]);
        group.acknowledge(claim.id, &[ack(posted[0])]).await;
        assert_eq!(take_ids(&group, 10).await, posted[1..2]);
    }
}

pub async fn a_group_buries_for_itself(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let group = queue.group("g", End).await;
    let posted = queue.post_n(1).await;
    let claim = group.take(1).await;
    group.release(claim.id).await;
    assert_eq!(group.claim(&claim_with_dead_letter(1, 1, &dlq)).await, None);
    assert_eq!(texts(&dlq.all().await), ["0"]);
    assert_eq!(group.counts().await, (0, 0));
    assert_eq!(queue.plain().await, posted);
    // Neither needs the other any more.
    queue.delete(posted[0], None).await;
    pool.sweep_all().await;
    assert_eq!(texts(&dlq.all().await), ["0"]);
    // A rule that names the queue which the group reads does nothing.
    queue.post_n(1).await;
    assert!(group.claim(&claim_with_dead_letter(1, 0, &queue)).await.is_some());
}

pub async fn dead_letters_come_to_the_groups_of_the_grave(pool: &TestPool) {
    let [queue, dlq] = [pool.queue().await, pool.queue().await];
    let mourners = dlq.group("g", End).await;
    queue.post(vec![message("0"), keyed("a", "1")]).await;
    queue.claim(&claim_with_dead_letter(10, 0, &dlq)).await;
    let mut buried = texts(&mourners.all().await).join(" ");
    assert!(["0 1", "1 0"].contains(&buried.as_str()), "{buried}");
    buried = texts(&dlq.pop(2).await).join(" ");
    assert_eq!(texts(&mourners.all().await).join(" "), buried);
}

pub async fn a_group_is_counted_for_itself(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let posted = queue.post_n(5).await;
    queue.delete(posted[0], None).await;
    queue.take(2).await;
    group.take(1).await;
    assert_eq!(queue.counts().await, (2, 2));
    assert_eq!(group.counts().await, (4, 1));
    assert_eq!(group.stats().await.oldest.unwrap().id, posted[0]);
}

pub async fn a_post_wakes_each_group(pool: &TestPool) {
    let queue = pool.queue().await;
    let groups = [queue.group("one", End).await, queue.group("other", End).await];
    let mut watches =
        [groups[0].watch(WatchFor::Claimable).await, groups[1].watch(WatchFor::Claimable).await];
    queue.post_n(1).await;
    for watch in &mut watches {
        assert!(watch.wait(LONG).await);
    }
}

pub async fn a_group_moves_back(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let posted = queue.post_n(4).await;
    let claim = group.take(3).await;
    let said: Vec<_> = posted[..3].iter().map(|id| ack(*id)).collect();
    group.acknowledge(claim.id, &said).await;
    let again = queue.seek("g", Start).await;
    assert_eq!(take_ids(&again, 10).await, posted);
    let again = queue.seek("g", StartPoint::Sequence(posted[2].sequence)).await;
    assert_eq!(take_ids(&again, 10).await, posted[2..]);
    assert_eq!(queue.counts().await, (4, 0));
    // It goes on with what is posted.
    let more = queue.post_n(1).await;
    assert_eq!(take_ids(&again, 10).await, more);
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

pub async fn what_was_claimed_before_a_move_is_not_acknowledged(pool: &TestPool) {
    let queue = pool.queue().await;
    let before = queue.group("g", End).await;
    let posted = queue.post_n(1).await;
    let claim = before.take(1).await;
    let mut watch = before.watch(WatchFor::Claimable).await;
    let after = queue.seek("g", Start).await;
    for reading in [&before, &after] {
        let answers = reading.acknowledge(claim.id, &[ack(posted[0])]).await;
        assert_eq!(answers, [AckResult::NotHeld]);
    }
    assert_eq!(before.all().await, []);
    assert!(watch.wait(LONG).await, "who waits is told");
    assert_eq!(take_ids(&after, 1).await, posted);
}

pub async fn a_group_is_created_once(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let posted = queue.post_n(2).await;
    let claim = group.take(1).await;
    let again = queue.group("g", Start).await;
    assert_eq!(again.queue, group.queue);
    assert_eq!(again.get_claim(claim.id).await.unwrap().messages.len(), 1);
    assert_eq!(take_ids(&again, 10).await, posted[1..]);
    let created = concurrently(8, |_| {
        let queue = queue.clone();
        async move {
            let (name, settings) = (name("raced"), Metadata::default());
            let pool = &queue.pool;
            pool.create_group(&queue.queue, &name, Start, &settings, queue.now()).await.unwrap()
        }
    })
    .await;
    assert_eq!(created.iter().filter(|(_, new)| *new).count(), 1);
    assert!(created.iter().all(|(group, _)| *group == created[0].0));
}

pub async fn groups_are_listed_by_name(pool: &TestPool) {
    let [queue, other] = [pool.queue().await, pool.queue().await];
    for name in ["b", "a", "C", "a.b", "d"] {
        queue.group(name, End).await;
    }
    other.group("x", End).await;
    let mut names = Vec::new();
    let mut after: Option<GroupName> = None;
    loop {
        let page = pool.pool.list_groups(&queue.queue, after.as_ref(), limit(2)).await.unwrap();
        after = page.items.last().map(|group| group.name.clone());
        names.extend(page.items.into_iter().map(|group| group.name.to_string()));
        if !page.more {
            break;
        }
    }
    assert_eq!(names, ["C", "a", "a.b", "b", "d"]);
}

pub async fn a_group_keeps_its_settings(pool: &TestPool) {
    let queue = pool.queue().await;
    let settings = metadata(r#"{"max_claim_count":3,"ä":[1.50]}"#);
    let created = pool
        .pool
        .create_group(&queue.queue, &name("g"), End, &settings, queue.now())
        .await
        .unwrap();
    assert_eq!(created.0.settings, settings);
    assert_eq!(created.0.created_at, queue.now());
    let found = pool.pool.get_group(&queue.queue, &name("g")).await.unwrap();
    assert_eq!(found, Some(created.0));
    queue.seek("g", Start).await;
    let moved = pool.pool.get_group(&queue.queue, &name("g")).await.unwrap().unwrap();
    assert_eq!(moved.settings, settings);
}

pub async fn a_deleted_group_is_gone(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let posted = queue.post_n(3).await;
    group.take(1).await;
    assert!(pool.pool.delete_group(&queue.queue, &name("g")).await.unwrap());
    assert!(!pool.pool.delete_group(&queue.queue, &name("g")).await.unwrap());
    assert_eq!(pool.pool.get_group(&queue.queue, &name("g")).await.unwrap(), None);
    assert_eq!(group.all().await, []);
    let moved = pool.pool.seek_group(&queue.queue, &name("g"), Start, queue.now()).await.unwrap();
    assert_eq!(moved, None);
    pool.sweep_all().await;
    assert_eq!(ids(&queue.all().await), posted);
    assert_eq!(texts(&queue.all().await), ["0", "1", "2"]);
    // Another of the name begins anew.
    let again = queue.group("g", End).await;
    assert_eq!(again.counts().await, (0, 0));
}

pub async fn a_deleted_group_leaves_the_others(pool: &TestPool) {
    let queue = pool.queue().await;
    let (_, kept) = (queue.group("g", End).await, queue.group("kept", End).await);
    let posted = queue.post_n(2).await;
    queue.pop(2).await;
    pool.pool.delete_group(&queue.queue, &name("g")).await.unwrap();
    pool.sweep_all().await;
    assert_eq!(texts(&kept.all().await), ["0", "1"]);
    let more = queue.post_n(1).await;
    assert_eq!(take_ids(&kept, 10).await, [posted, more].concat());
}

pub async fn a_dropped_queue_has_no_groups(pool: &TestPool) {
    let [queue, other] = [pool.queue().await, pool.queue().await];
    let (group, kept) = (queue.group("g", End).await, other.group("g", End).await);
    queue.post_n(2).await;
    let posted = other.post_n(2).await;
    pool.pool.drop_queue(&queue.queue).await.unwrap();
    assert_eq!(group.all().await, []);
    let groups = pool.pool.list_groups(&queue.queue, None, limit(10)).await.unwrap();
    assert_eq!(groups.items, []);
    pool.sweep_all().await;
    pool.advance(HOUR / 2);
    pool.sweep_all().await;
    assert_eq!(take_ids(&kept, 10).await, posted);
}

pub async fn an_unknown_queue_has_no_groups(pool: &TestPool) {
    let unknown = pool.unopened("conformance", "unknown");
    let (settings, now) = (Metadata::default(), pool.now());
    assert_not_found(pool.pool.create_group(&unknown.queue, &name("g"), End, &settings, now).await);
    assert_eq!(pool.pool.get_group(&unknown.queue, &name("g")).await.unwrap(), None);
    assert!(!pool.pool.delete_group(&unknown.queue, &name("g")).await.unwrap());
}

pub async fn a_reading_is_no_queue(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    assert_not_found(group.try_post(vec![message("1")]).await);
    let (settings, now) = (Metadata::default(), pool.now());
    assert_not_found(pool.pool.create_group(&group.queue, &name("h"), End, &settings, now).await);
    assert_eq!(queue.counts().await, (0, 0));
}

pub async fn a_purge_is_for_one_reading(pool: &TestPool) {
    let queue = pool.queue().await;
    let (one, other) = (queue.group("one", End).await, queue.group("other", End).await);
    queue.post_n(3).await;
    assert_eq!(queue.purge().await, 3);
    assert_eq!(one.purge().await, 3);
    assert_eq!([queue.counts().await, one.counts().await], [(0, 0); 2]);
    assert_eq!(texts(&other.all().await), ["0", "1", "2"]);
}

/// Groups that are created while others post see all from their start on, each message once.
pub async fn groups_miss_nothing_that_is_posted_while_they_are_created(pool: &TestPool) {
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
        assert_eq!(take_ids(&group, 2_000).await, posted);
    }
}
