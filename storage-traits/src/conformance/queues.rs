//! Creating, reading, updating and deleting queues.

use std::collections::HashSet;

use super::{
    TestCatalog,
    builders::{MINUTE, assert_not_found, key, metadata},
};
use crate::{
    Result, StoreError,
    domain::{Metadata, ProjectId, QueueKey, QueueRecord, QueueRef},
};

const ODD_PROJECTS: [&str; 12] =
    ["p", "P", "p ", " p", "p%", "p_", "p'\";--", "p\\", "p/..", "\u{e9}", "e\u{301}", "p\t"];

#[track_caller]
fn assert_conflict(result: &Result<QueueRecord>) {
    assert!(matches!(result, Err(StoreError::Conflict { .. })), "no conflict: {result:?}");
}

pub async fn a_queue_is_created_once(catalog: &TestCatalog) {
    let (key, first) = (key("p", "orders"), metadata(r#"{"a":1}"#));
    let now = catalog.now();
    let created = catalog.catalog.create(&key, &first, now).await.unwrap();
    assert!(created.new);
    assert_eq!((&created.record.queue.key, &created.record.metadata), (&key, &first));
    assert_eq!(created.record.created_at, now);
    assert!(created.record.queue.incarnation.get() > 0);

    catalog.clock.advance(MINUTE);
    let again = catalog.catalog.create(&key, &metadata(r#"{"b":2}"#), catalog.now()).await.unwrap();
    assert!(!again.new);
    assert_eq!(again.record, created.record);
    assert_eq!(catalog.get(&key).await, Some(created.record));
}

pub async fn a_created_queue_can_be_read(catalog: &TestCatalog) {
    let key = key("p", "orders");
    assert_eq!(catalog.get(&key).await, None);
    let created = catalog.queue(&key, &Metadata::default()).await;
    assert_eq!(catalog.get(&key).await, Some(created));
}

pub async fn metadata_are_stored_exactly(catalog: &TestCatalog) {
    let key = key("p", "orders");
    let mut read = catalog.queue(&key, &Metadata::default()).await;
    for text in [
        r#"{"n":null,"t":true,"i":-1,"u":18446744073709551615,"f":0.1,"e":1.5e300}"#,
        r#"{"nested":{"list":[1,"2",[],{}]},"":"empty","_max_claim_count":3}"#,
        r#"{"k.e y":"%_\\ ' \" \u0000 é é 😀","$x":[null]}"#,
        "{}",
    ] {
        read = catalog.try_update(&read, &metadata(text)).await.unwrap();
        assert_eq!(read.metadata, metadata(text));
        assert_eq!(catalog.get(&key).await.as_ref(), Some(&read));
    }
    let large = metadata(&format!(r#"{{"large":"{}"}}"#, "0123456789abcdef".repeat(4 * 1024)));
    read = catalog.try_update(&read, &large).await.unwrap();
    assert_eq!(catalog.get(&key).await.unwrap().metadata, read.metadata);
}

pub async fn projects_and_names_are_compared_exactly(catalog: &TestCatalog) {
    let (long, longer) = ("\u{1f600}".repeat(255), "\u{1f600}".repeat(256));
    let name = "n".repeat(64);
    let mut keys: Vec<QueueKey> = ODD_PROJECTS.iter().map(|project| key(project, "q")).collect();
    keys.extend([&long, &longer].map(|project| key(project, &name)));
    keys.extend([".", "..", "-", "_", "Q", "q.", "1", "01", "1.0"].map(|name| key("p", name)));
    keys.push(QueueKey { project: ProjectId::reserved(), name: keys[0].name.clone() });
    let mut records = Vec::new();
    for key in &keys {
        let mark = metadata(&format!(r#"{{"mark":{}}}"#, records.len()));
        let created = catalog.catalog.create(key, &mark, catalog.now()).await.unwrap();
        assert!(created.new, "{key:?} existed before");
        records.push(created.record);
    }
    for (key, record) in keys.iter().zip(&records) {
        assert_eq!(catalog.get(key).await.as_ref(), Some(record));
    }
    let seen: HashSet<_> = records.iter().map(|record| record.queue.incarnation).collect();
    assert_eq!(seen.len(), records.len());
    while let Some(record) = records.pop() {
        assert_eq!(catalog.delete(&record.queue.key).await, Some(record.queue));
        for (key, left) in keys.iter().zip(&records) {
            assert_eq!(catalog.get(key).await.as_ref(), Some(left));
        }
    }
}

pub async fn an_update_replaces_the_metadata(catalog: &TestCatalog) {
    let key = key("p", "orders");
    let read = catalog.queue(&key, &metadata(r#"{"a":1,"b":2}"#)).await;
    catalog.clock.advance(MINUTE);
    let to = metadata(r#"{"b":3}"#);
    let updated = catalog.try_update(&read, &to).await.unwrap();
    assert!(updated.version > read.version);
    let expected = QueueRecord { metadata: to, version: updated.version, ..read };
    assert_eq!(updated, expected);
    assert_eq!(catalog.get(&key).await, Some(expected));
    let third = catalog.try_update(&updated, &Metadata::default()).await.unwrap();
    assert!(third.version > updated.version);
}

pub async fn an_update_of_an_old_version_is_a_conflict(catalog: &TestCatalog) {
    let key = key("p", "orders");
    let read = catalog.queue(&key, &Metadata::default()).await;
    let updated = catalog.try_update(&read, &metadata(r#"{"a":1}"#)).await.unwrap();
    assert_conflict(&catalog.try_update(&read, &metadata(r#"{"b":1}"#)).await);
    assert_conflict(&catalog.try_update(&read, &updated.metadata).await);
    assert_eq!(catalog.get(&key).await.as_ref(), Some(&updated));

    // An update back to the old metadata changes the version too.
    catalog.try_update(&updated, &read.metadata).await.unwrap();
    assert_conflict(&catalog.try_update(&read, &metadata(r#"{"c":1}"#)).await);
}

pub async fn an_update_of_a_deleted_queue_is_not_found(catalog: &TestCatalog) {
    let key = key("p", "orders");
    let read = catalog.queue(&key, &Metadata::default()).await;
    catalog.delete(&key).await;
    assert_not_found(catalog.try_update(&read, &metadata(r#"{"a":1}"#)).await);
    assert_eq!(catalog.get(&key).await, None);
}

pub async fn an_update_of_an_earlier_incarnation_is_not_found(catalog: &TestCatalog) {
    let key = key("p", "orders");
    let read = catalog.queue(&key, &Metadata::default()).await;
    catalog.delete(&key).await;
    let new = catalog.queue(&key, &Metadata::default()).await;
    assert_not_found(catalog.try_update(&read, &metadata(r#"{"a":1}"#)).await);
    assert_eq!(catalog.get(&key).await, Some(new));
}

pub async fn a_delete_returns_the_deleted_queue(catalog: &TestCatalog) {
    let [key, other] = [key("p", "orders"), key("p", "orders.dead")];
    assert_eq!(catalog.delete(&key).await, None);
    let record = catalog.queue(&key, &Metadata::default()).await;
    let kept = catalog.queue(&other, &Metadata::default()).await;
    let updated = catalog.try_update(&record, &metadata(r#"{"a":1}"#)).await.unwrap();
    assert_eq!(catalog.delete(&key).await, Some(updated.queue));
    assert_eq!(catalog.delete(&key).await, None);
    assert_eq!(catalog.get(&key).await, None);
    assert_eq!(catalog.get(&other).await, Some(kept));
}

pub async fn a_recreated_queue_has_a_new_incarnation(catalog: &TestCatalog) {
    let key = key("p", "orders");
    let mut seen: Vec<QueueRef> = Vec::new();
    for n in 0..30 {
        let record = catalog.queue(&key, &metadata(&format!(r#"{{"n":{n}}}"#))).await;
        assert_eq!(record.created_at, catalog.now());
        assert_eq!(catalog.delete(&key).await.as_ref(), Some(&record.queue));
        assert!(!seen.contains(&record.queue), "an incarnation was used twice");
        seen.push(record.queue);
        if n % 3 == 0 {
            catalog.clock.advance(MINUTE);
        }
    }
}

pub async fn a_working_catalog_passes_its_check(catalog: &TestCatalog) {
    catalog.catalog.check().await.unwrap();
}

pub async fn a_closed_catalog_refuses_calls(catalog: &TestCatalog) {
    let key = key("p", "orders");
    let record = catalog.queue(&key, &Metadata::default()).await;
    catalog.catalog.close().await;
    let (catalog, now) = (&catalog.catalog, catalog.now());
    assert!(catalog.check().await.is_err());
    assert!(catalog.get(&key).await.is_err());
    assert!(catalog.create(&key, &record.metadata, now).await.is_err());
    assert!(catalog.update(&record, &record.metadata, now).await.is_err());
    assert!(catalog.delete(&key, now).await.is_err());
    assert!(catalog.count(&key.project).await.is_err());
    assert!(catalog.changes(None).await.is_err());
}
