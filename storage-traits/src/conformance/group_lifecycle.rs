//! Creating, listing and deleting consumer groups.

use super::{
    TestPool,
    builders::{
        HOUR, assert_not_found, concurrently, group_name, ids, limit, message, metadata, texts,
    },
};
use crate::domain::{
    GroupName, Metadata,
    StartPoint::{End, Start},
};

pub async fn a_group_is_created_once(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let posted = queue.post_n(2).await;
    let claim = group.take(1).await;
    let again = queue.group("g", Start).await;
    assert_eq!(again.queue, group.queue);
    assert_eq!(again.get_claim(claim.id).await.unwrap().messages.len(), 1);
    assert_eq!(again.claim_ids(10).await, posted[1..]);
    let created = concurrently(8, |_| {
        let queue = queue.clone();
        async move {
            let (name, settings) = (group_name("raced"), Metadata::default());
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
        .create_group(&queue.queue, &group_name("g"), End, &settings, queue.now())
        .await
        .unwrap();
    assert_eq!(created.0.settings, settings);
    assert_eq!(created.0.created_at, queue.now());
    let found = pool.pool.get_group(&queue.queue, &group_name("g")).await.unwrap();
    assert_eq!(found, Some(created.0));
    queue.seek("g", Start).await;
    let moved = pool.pool.get_group(&queue.queue, &group_name("g")).await.unwrap().unwrap();
    assert_eq!(moved.settings, settings);
}

pub async fn a_deleted_group_does_not_exist(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    let posted = queue.post_n(3).await;
    group.take(1).await;
    assert!(pool.pool.delete_group(&queue.queue, &group_name("g")).await.unwrap());
    assert!(!pool.pool.delete_group(&queue.queue, &group_name("g")).await.unwrap());
    assert_eq!(pool.pool.get_group(&queue.queue, &group_name("g")).await.unwrap(), None);
    assert_eq!(group.all().await, []);
    let moved =
        pool.pool.seek_group(&queue.queue, &group_name("g"), Start, queue.now()).await.unwrap();
    assert_eq!(moved, None);
    pool.sweep_all().await;
    assert_eq!(ids(&queue.all().await), posted);
    assert_eq!(texts(&queue.all().await), ["0", "1", "2"]);
    // A new group of the name starts without the messages of the old one.
    let again = queue.group("g", End).await;
    assert_eq!(again.counts().await, (0, 0));
}

pub async fn deleting_a_group_does_not_affect_others(pool: &TestPool) {
    let queue = pool.queue().await;
    let (_, kept) = (queue.group("g", End).await, queue.group("kept", End).await);
    let posted = queue.post_n(2).await;
    queue.pop(2).await;
    pool.pool.delete_group(&queue.queue, &group_name("g")).await.unwrap();
    pool.sweep_all().await;
    assert_eq!(texts(&kept.all().await), ["0", "1"]);
    let more = queue.post_n(1).await;
    assert_eq!(kept.claim_ids(10).await, [posted, more].concat());
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
    assert_eq!(kept.claim_ids(10).await, posted);
}

pub async fn an_unknown_queue_has_no_groups(pool: &TestPool) {
    let unknown = pool.unopened("conformance", "unknown");
    let (settings, now) = (Metadata::default(), pool.now());
    assert_not_found(
        pool.pool.create_group(&unknown.queue, &group_name("g"), End, &settings, now).await,
    );
    assert_eq!(pool.pool.get_group(&unknown.queue, &group_name("g")).await.unwrap(), None);
    assert!(!pool.pool.delete_group(&unknown.queue, &group_name("g")).await.unwrap());
}

pub async fn a_group_is_not_a_queue(pool: &TestPool) {
    let queue = pool.queue().await;
    let group = queue.group("g", End).await;
    assert_not_found(group.try_post(vec![message("1")]).await);
    let (settings, now) = (Metadata::default(), pool.now());
    assert_not_found(
        pool.pool.create_group(&group.queue, &group_name("h"), End, &settings, now).await,
    );
    assert_eq!(queue.counts().await, (0, 0));
}
