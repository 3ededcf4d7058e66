//! Feed of changes, which other nodes read.

use super::{
    TestCatalog,
    builders::{key, metadata},
};
use crate::{
    catalog::{ChangeToken, Changed},
    domain::{Metadata, QueueKey, QueueRecord},
};

/// Greatest number of changes that one read of the feed may return.
const READ_BOUND: usize = 1_000;

impl TestCatalog {
    /// Returns the current position of the feed.
    pub(super) async fn feed_position(&self) -> ChangeToken {
        let changes = self.catalog.changes(None).await.unwrap();
        assert_eq!(changes.changed, Changed::Queues(Vec::new()));
        changes.next
    }

    /// Reads the feed once; panics if it does not keep the changes after the position.
    pub(super) async fn changes_after(&self, token: ChangeToken) -> (Vec<QueueKey>, ChangeToken) {
        let changes = self.catalog.changes(Some(token)).await.unwrap();
        let Changed::Queues(keys) = changes.changed else {
            panic!("the feed dropped changes too early")
        };
        assert!(keys.len() <= READ_BOUND, "{} changes at once", keys.len());
        assert!(changes.next > token || keys.is_empty(), "the position does not increase");
        (keys, changes.next)
    }

    async fn created(&self, names: &[&str]) -> Vec<QueueRecord> {
        let mut records = Vec::new();
        for name in names {
            records.push(self.queue(&key("p", name), &Metadata::default()).await);
        }
        records
    }
}

pub async fn the_feed_starts_at_the_current_position(catalog: &TestCatalog) {
    let empty = catalog.feed_position().await;
    assert_eq!(catalog.changes_after(empty).await.0, []);
    let records = catalog.created(&["a"]).await;
    catalog.try_update(&records[0], &metadata(r#"{"a":1}"#)).await.unwrap();
    catalog.delete(&records[0].queue.key).await;
    let current = catalog.feed_position().await;
    assert!(current > empty);
    assert_eq!(catalog.changes_after(current).await.0, []);
    assert_eq!(catalog.feed_position().await, current);
}

pub async fn updates_and_deletions_are_reported_in_order(catalog: &TestCatalog) {
    let records = catalog.created(&["a", "b", "c", "d"]).await;
    let foreign = key("\u{1f600}%", "a");
    let other = catalog.queue(&foreign, &Metadata::default()).await;
    let start = catalog.feed_position().await;
    let to = metadata(r#"{"a":1}"#);
    catalog.try_update(&records[2], &to).await.unwrap();
    catalog.delete(&records[0].queue.key).await.unwrap();
    catalog.try_update(&other, &to).await.unwrap();
    catalog.try_update(&records[1], &to).await.unwrap();

    let keys = [&records[2], &records[0], &other, &records[1]];
    let (mut reported, next) = catalog.changes_after(start).await;
    reported.dedup();
    assert_eq!(reported, keys.map(|record| record.queue.key.clone()));
    assert_eq!(catalog.changes_after(next).await.0, []);
    assert!(!reported.contains(&records[3].queue.key));
}

pub async fn a_reader_continues_after_its_position(catalog: &TestCatalog) {
    let records = catalog.created(&["a", "b"]).await;
    let start = catalog.feed_position().await;
    let to = metadata(r#"{"a":1}"#);
    let updated = catalog.try_update(&records[0], &to).await.unwrap();
    let (first, middle) = catalog.changes_after(start).await;
    assert!(first.contains(&records[0].queue.key) && !first.contains(&records[1].queue.key));
    assert!(middle > start);

    catalog.delete(&records[1].queue.key).await.unwrap();
    let (second, end) = catalog.changes_after(middle).await;
    assert!(second.contains(&records[1].queue.key) && !second.contains(&records[0].queue.key));
    assert_eq!(catalog.changes_after(end).await.0, []);

    catalog.try_update(&updated, &metadata("{}")).await.unwrap();
    assert!(catalog.changes_after(end).await.0.contains(&records[0].queue.key));
    let all = catalog.changes_after(start).await.0;
    assert!(records.iter().all(|record| all.contains(&record.queue.key)));
}

pub async fn many_changes_are_returned_in_parts(catalog: &TestCatalog) {
    let start = catalog.feed_position().await;
    let mut expected = Vec::new();
    for n in 0..READ_BOUND + 100 {
        let key = key("p", &format!("q{n}"));
        catalog.queue(&key, &Metadata::default()).await;
        catalog.delete(&key).await.unwrap();
        expected.push(key);
    }
    let (mut reported, mut token) = (Vec::new(), start);
    loop {
        let (keys, next) = catalog.changes_after(token).await;
        if keys.is_empty() {
            break;
        }
        reported.extend(keys);
        token = next;
    }
    reported.dedup();
    assert_eq!(reported, expected);
}
