//! Servers that cannot be reached, or are unsupported.

use std::time::Instant;

use backend_mongo::{MongoCatalog, MongoOptions};
use storage_traits::{
    StoreError,
    catalog::{Catalog, ChangeFeed, QueueCatalog},
    domain::Metadata,
};
use test_servers::mongo::Mongo;

use crate::{key, metadata, now, support::single};

fn parse(uri: &str) -> MongoOptions {
    MongoOptions::parse(uri).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_at_first_is_found_when_it_is_up() {
    let mut server = Mongo::replica_set(1, &[]);
    server.kill(0);
    let uri = format!("{}&timeoutMS=1000", server.uri());
    let catalog = MongoCatalog::open(parse(&uri)).await.unwrap();
    let begin = Instant::now();
    let refused = catalog.check().await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused:?}");
    assert!(begin.elapsed().as_secs() < 5);

    server.start(0);
    server.wait_until_whole();
    // The first call creates the indexes, which takes a while on a busy machine.
    while catalog.check().await.is_err() {
        assert!(begin.elapsed().as_secs() < 60, "the server is not found");
    }
    let record = catalog.create(&key("q"), &Metadata::default(), now()).await.unwrap().record;
    assert_eq!(catalog.get(&key("q")).await.unwrap(), Some(record));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_does_not_take_what_was_acknowledged() {
    let mut server = Mongo::replica_set(3, &[]);
    let uri = format!("{}&timeoutMS=90000", server.uri());
    let catalog = MongoCatalog::open(parse(&uri)).await.unwrap();
    let start = catalog.changes(None).await.unwrap().next;
    let mut records = Vec::new();
    for n in 0..30 {
        if n == 10 {
            server.kill(server.primary());
        }
        let key = key(&format!("q{n:02}"));
        let created = catalog.create(&key, &Metadata::default(), now()).await.unwrap();
        assert!(created.new);
        let to = metadata(&format!(r#"{{"n":{n}}}"#));
        records.push(catalog.update(&created.record, &to, now()).await.unwrap());
    }
    for record in &records {
        assert_eq!(catalog.get(&record.queue.key).await.unwrap().as_ref(), Some(record));
    }
    let keys: Vec<_> = records.into_iter().map(|record| record.queue.key).collect();
    let changes = catalog.changes(Some(start)).await.unwrap().changed;
    assert_eq!(changes, storage_traits::catalog::Changed::Queues(keys));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_server_gets_no_more_than_the_time_for_a_call() {
    let server = Mongo::standalone(&[]);
    let uri = format!("{}?timeoutMS=1000", server.uri());
    let catalog = MongoCatalog::open(parse(&uri)).await.unwrap();
    server.pause(0);
    let begin = Instant::now();
    assert!(catalog.get(&key("q")).await.is_err());
    assert!(begin.elapsed().as_secs() < 5);
    server.resume(0);
    catalog.get(&key("q")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secured_server_takes_its_password_alone() {
    let server = Mongo::secured();
    let uri = format!("{}&timeoutMS=30000", server.uri_of("secured"));
    let catalog = MongoCatalog::open(parse(&uri)).await.unwrap();
    catalog.create(&key("q"), &Metadata::default(), now()).await.unwrap();
    catalog.close().await;

    let (scheme, rest) = uri.split_once("://").unwrap();
    let (user, rest) = (rest.split_once(':').unwrap().0, rest.split_once('@').unwrap().1);
    let wrong = parse(&format!("{scheme}://{user}:secret@{rest}"));
    let catalog = MongoCatalog::open(wrong).await.unwrap();
    let begin = Instant::now();
    let refused = catalog.check().await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused:?}");
    assert!(!format!("{refused:?}").contains("secret"));
    assert!(begin.elapsed().as_secs() < 25, "a wrong password is not retried");
}

#[tokio::test]
async fn more_acknowledgements_than_there_are_servers_are_refused() {
    let server = crate::support::standalone();
    let refused = MongoCatalog::open(parse(&format!("{}?w=2", server.uri()))).await;
    assert!(matches!(refused, Err(StoreError::Unexpected { .. })));
}

#[tokio::test]
async fn files_that_are_missing_are_refused() {
    let uri = format!("{}&tls=true&tlsCAFile=/nowhere/ca.pem", single().uri());
    let refused = MongoCatalog::open(parse(&uri)).await;
    assert!(matches!(refused, Err(StoreError::Unexpected { .. })));
}

#[tokio::test]
async fn a_name_that_the_dns_does_not_know_is_no_fault() {
    let uri = "mongodb+srv://db.nowhere.invalid/?timeoutMS=500";
    let catalog = MongoCatalog::open(parse(uri)).await.unwrap();
    let refused = catalog.check().await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused:?}");
    catalog.close().await;
}
