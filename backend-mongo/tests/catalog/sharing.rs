//! Two nodes that share a database.

use std::sync::Arc;

use storage_traits::{
    catalog::{Catalog, ChangeToken, Changed},
    domain::{Metadata, QueueKey, QueueRecord},
};

use crate::{
    key, metadata, now,
    support::{own_database, triple},
};

async fn two_nodes() -> [Arc<dyn Catalog>; 2] {
    let database = own_database();
    [crate::catalog_of(triple(), &database).await, crate::catalog_of(triple(), &database).await]
}

async fn changed(node: &dyn Catalog, after: ChangeToken) -> (Vec<QueueKey>, ChangeToken) {
    let changes = node.changes(Some(after)).await.unwrap();
    let Changed::Queues(keys) = changes.changed else { panic!("the feed forgot") };
    (keys, changes.next)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_nodes_creates_a_queue() {
    let nodes = two_nodes().await;
    for n in 0..50 {
        let key = key(&format!("q{n}"));
        let create = |node: usize| {
            let (node, key) = (Arc::clone(&nodes[node]), key.clone());
            tokio::spawn(async move { node.create(&key, &Metadata::default(), now()).await })
        };
        let both = [create(0), create(1)];
        let mut new = 0;
        let mut records = Vec::new();
        for task in both {
            let created = task.await.unwrap().unwrap();
            new += usize::from(created.new);
            records.push(created.record);
        }
        assert_eq!(new, 1);
        assert_eq!(records[0], records[1]);
    }
}

#[tokio::test]
async fn a_node_sees_at_once_what_another_changed() {
    let [one, two] = two_nodes().await;
    let created = |name| {
        let (key, one) = (key(name), Arc::clone(&one));
        async move { one.create(&key, &Metadata::default(), now()).await.unwrap().record }
    };
    let (a, b) = (created("a").await, created("b").await);
    let start = two.changes(None).await.unwrap().next;

    let to = metadata(r#"{"a":1}"#);
    let updated: QueueRecord = one.update(&a, &to, now()).await.unwrap();
    let (keys, next) = changed(&*two, start).await;
    assert_eq!(keys, std::slice::from_ref(&a.queue.key));
    assert_eq!(two.get(&a.queue.key).await.unwrap(), Some(updated));

    one.delete(&b.queue.key, now()).await.unwrap();
    two.delete(&a.queue.key, now()).await.unwrap();
    let (keys, next) = changed(&*two, next).await;
    assert_eq!(keys, [b.queue.key, a.queue.key]);
    assert_eq!(changed(&*two, next).await.0, []);
}

#[tokio::test]
async fn a_name_is_free_as_soon_as_its_queue_is_deleted() {
    let [one, two] = two_nodes().await;
    let key = key("q");
    for n in 0..20 {
        let (creator, other) = if n % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let created = creator.create(&key, &Metadata::default(), now()).await.unwrap();
        assert!(created.new);
        assert_eq!(other.delete(&key, now()).await.unwrap(), Some(created.record.queue));
    }
}

#[tokio::test]
async fn an_unknown_position_returns_everything() {
    let [one, two] = two_nodes().await;
    let foreign = one.changes(None).await.unwrap().next;
    for token in [foreign, ChangeToken::new(0), ChangeToken::new(i64::MAX)] {
        let changes = two.changes(Some(token)).await.unwrap();
        assert_eq!(changes.changed, Changed::Everything);
        assert_eq!(changed(&*two, changes.next).await.0, []);
    }
    // A node that starts does not report changes from before its first position.
    let record = one.create(&key("q"), &Metadata::default(), now()).await.unwrap().record;
    one.delete(&record.queue.key, now()).await.unwrap();
    let third = two.changes(None).await.unwrap().next;
    assert_eq!(changed(&*two, third).await.0, []);
}
