//! Isolation of queues and projects from each other.

use super::{
    TestPool, TestQueue,
    builders::{assert_not_found, claim_spec, ids, message, terms, texts},
};
use crate::{
    domain::Incarnation,
    pool::{
        DeleteOutcome::{Missing, Refused},
        DeleteRefusal::UnknownClaim,
    },
};

/// Calls every method on one queue and checks that another queue does not change.
async fn assert_isolated(pool: &TestPool, used: &TestQueue, other: &TestQueue) {
    pool.pool.open_queue(&used.queue).await.unwrap();
    pool.pool.open_queue(&other.queue).await.unwrap();
    other.post_n(3).await;
    let claim = other.take(1).await;
    let before = (other.all().await, other.stats().await);

    assert_eq!(used.all().await, []);
    assert_eq!(used.claim(&claim_spec(10)).await, None);
    assert_eq!(used.pop(10).await, []);
    let own = used.post(["\"a\"", "\"b\"", "\"c\"", "\"d\""].map(message).to_vec()).await;
    let held = used.take(1).await;
    assert_eq!(texts(&held.messages), ["\"a\""]);
    used.delete(own[0], Some(held.id)).await;
    used.delete_many(&[own[1]], &[]).await;
    assert_eq!(texts(&used.pop(1).await), ["\"c\""]);
    assert_eq!(used.counts().await, (1, 0));
    assert_eq!(used.purge().await, 1);

    assert_eq!((other.all().await, other.stats().await), before);
    assert_eq!(other.get_claim(claim.id).await, Some(claim));
}

pub async fn queues_share_no_messages(pool: &TestPool) {
    let names = ["orders", "orders.", "Orders"].map(|name| pool.unopened("conformance", name));
    assert_isolated(pool, &names[0], &names[1]).await;
    assert_isolated(pool, &names[0], &names[2]).await;
}

pub async fn projects_share_no_messages(pool: &TestPool) {
    let [plain, odd] = ["p", "p/%' \u{e9}"].map(|project| pool.unopened(project, "orders"));
    assert_isolated(pool, &plain, &odd).await;
    assert_isolated(pool, &pool.unopened(&"\u{1f600}".repeat(256), "orders"), &plain).await;
}

pub async fn an_id_of_another_queue_is_not_found(pool: &TestPool) {
    let [queue, other] = [pool.queue().await, pool.queue().await];
    let own = queue.post_n(2).await;
    let mut foreign = other.post_n(2).await;
    let unused = Incarnation::new(i64::MAX).unwrap();
    foreign.push(crate::domain::MessageId { incarnation: unused, ..own[0] });
    let claim = queue.take(1).await;
    assert_eq!(queue.get(&foreign).await, []);
    assert_eq!(ids(&queue.get(&[foreign[1], own[1]]).await), [own[1]]);
    for id in &foreign {
        assert_eq!(queue.delete(*id, None).await, Missing);
        assert_eq!(queue.delete(*id, Some(claim.id)).await, Missing);
    }
    assert_eq!(queue.delete_many(&foreign, &[]).await, Some(0));
    assert_eq!(queue.delete_many(&foreign, &[claim.id]).await, None);
    assert_eq!(queue.counts().await, (1, 1));
    assert_eq!(other.counts().await, (2, 0));
}

pub async fn a_claim_of_another_queue_has_no_effect(pool: &TestPool) {
    let [queue, other] = [pool.queue().await, pool.queue().await];
    let posted = queue.post_n(2).await;
    other.post_n(2).await;
    queue.take(1).await;
    let foreign = other.take(1).await;
    assert_eq!(queue.get_claim(foreign.id).await, None);
    assert_not_found(queue.try_renew(foreign.id, terms(600, 600)).await);
    queue.release(foreign.id).await;
    for id in &posted {
        assert_eq!(queue.delete(*id, Some(foreign.id)).await, Refused(UnknownClaim));
    }
    assert_eq!(queue.delete_many(&posted, &[foreign.id]).await, None);
    assert_eq!(queue.counts().await, (1, 1));
    assert_eq!(other.get_claim(foreign.id).await, Some(foreign));
}

pub async fn queues_may_use_the_same_claim_id(pool: &TestPool) {
    let [queue, other] = [pool.queue().await, pool.queue().await];
    let posted = queue.post_n(2).await;
    let kept = other.post_n(2).await;
    let spec = claim_spec(2);
    assert_eq!(ids(&queue.claim(&spec).await.unwrap().messages), posted);
    assert_eq!(ids(&other.claim(&spec).await.unwrap().messages), kept);
    queue.release(spec.id).await;
    assert_eq!(queue.plain().await, posted);
    assert_eq!(ids(&other.get_claim(spec.id).await.unwrap().messages), kept);
    assert_eq!(other.counts().await, (0, 2));
}

pub async fn dropping_a_queue_does_not_affect_others(pool: &TestPool) {
    let [dropped, other] = [pool.queue().await, pool.queue().await];
    dropped.post_n(3).await;
    other.post_n(3).await;
    let claim = other.take(1).await;
    let before = other.all().await;
    pool.pool.drop_queue(&dropped.queue).await.unwrap();
    pool.sweep_all().await;
    assert_eq!(other.all().await, before);
    assert_eq!(other.get_claim(claim.id).await, Some(claim));
    assert_eq!(other.counts().await, (2, 1));
}
