//! Concurrent calls to a catalog.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    TestCatalog,
    builders::{concurrently, key, metadata},
};
use crate::{StoreError, domain::Metadata};

pub async fn one_of_many_creators_gets_a_new_queue(catalog: &TestCatalog) {
    for n in 0..20 {
        let key = key("p", &format!("q{n}"));
        let created = concurrently(8, |n| {
            let (catalog, key) = (catalog.clone(), key.clone());
            let metadata = metadata(&format!(r#"{{"creator":{n}}}"#));
            async move { catalog.catalog.create(&key, &metadata, catalog.now()).await.unwrap() }
        })
        .await;
        assert_eq!(created.iter().filter(|created| created.new).count(), 1);
        let record = catalog.get(&key).await.unwrap();
        assert!(created.iter().all(|created| created.record == record));
    }
}

pub async fn one_of_many_updates_succeeds(catalog: &TestCatalog) {
    let key = key("p", "orders");
    let mut read = catalog.queue(&key, &Metadata::default()).await;
    for _ in 0..20 {
        let results = concurrently(8, |n| {
            let (catalog, read) = (catalog.clone(), read.clone());
            let to = metadata(&format!(r#"{{"writer":{n}}}"#));
            async move { catalog.try_update(&read, &to).await }
        })
        .await;
        let (succeeded, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(succeeded.len(), 1);
        assert!(failed.iter().all(|r| matches!(r, Err(StoreError::Conflict { .. }))), "{failed:?}");
        let current = catalog.get(&key).await.unwrap();
        assert_eq!(succeeded[0].as_ref().unwrap(), &current);
        read = current;
    }
}

pub async fn concurrent_retried_updates_lose_no_change(catalog: &TestCatalog) {
    let key = key("p", "orders");
    catalog.queue(&key, &metadata(r#"{"n":0}"#)).await;
    concurrently(6, |_| {
        let (catalog, key) = (catalog.clone(), key.clone());
        async move {
            let mut counted = 0;
            while counted < 10 {
                let read = catalog.get(&key).await.unwrap();
                let n = read.metadata.get("n").unwrap().as_u64().unwrap();
                match catalog.try_update(&read, &metadata(&format!(r#"{{"n":{}}}"#, n + 1))).await {
                    Ok(_) => counted += 1,
                    Err(StoreError::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    })
    .await;
    let read = catalog.get(&key).await.unwrap();
    assert_eq!(read.metadata, metadata(r#"{"n":60}"#));
}

pub async fn one_of_many_deletes_returns_the_queue(catalog: &TestCatalog) {
    let key = key("p", "orders");
    for _ in 0..20 {
        let record = catalog.queue(&key, &Metadata::default()).await;
        let deleted = concurrently(8, |_| {
            let (catalog, key) = (catalog.clone(), key.clone());
            async move { catalog.delete(&key).await }
        })
        .await;
        let found: Vec<_> = deleted.into_iter().flatten().collect();
        assert_eq!(found, [record.queue]);
    }
}

pub async fn a_follower_of_the_feed_misses_no_change(catalog: &TestCatalog) {
    const WRITERS: usize = 8;
    const EACH: usize = 40;
    let start = catalog.feed_position().await;
    let written_all = Arc::new(AtomicBool::new(false));
    let follower = {
        let (catalog, written_all) = (catalog.clone(), Arc::clone(&written_all));
        tokio::spawn(async move {
            let (mut token, mut seen) = (start, HashSet::new());
            loop {
                let last_read = written_all.load(Ordering::SeqCst);
                let (keys, next) = catalog.changes_after(token).await;
                if last_read && keys.is_empty() {
                    return seen;
                }
                seen.extend(keys);
                token = next;
            }
        })
    };
    concurrently(WRITERS, |writer| {
        let catalog = catalog.clone();
        async move {
            for n in 0..EACH {
                let key = key("p", &format!("q{writer}-{n}"));
                let read = catalog.queue(&key, &Metadata::default()).await;
                if n % 2 == 0 {
                    catalog.try_update(&read, &metadata(r#"{"a":1}"#)).await.unwrap();
                } else {
                    catalog.delete(&key).await.unwrap();
                }
            }
        }
    })
    .await;
    written_all.store(true, Ordering::SeqCst);
    let seen = follower.await.unwrap();
    assert_eq!(seen.len(), WRITERS * EACH);
}
