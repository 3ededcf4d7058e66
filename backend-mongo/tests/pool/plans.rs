//! Every command uses an index, and no data of dropped queues is left.

use std::{collections::BTreeSet, time::Duration};

use mongodb::{
    Database,
    bson::{Document, doc},
};
use storage_traits::{
    conformance::{
        TestPool, TestQueue,
        faults::{claim_spec, everything, exercise, message, through},
    },
    domain::StartPoint,
};
use test_servers::mongo::Mongo;

use crate::{
    pools::node,
    support::{
        own_database,
        plans::{assert_by_index, bare, record, recorded},
        single, standalone,
    },
};

const COLLECTIONS: [&str; 7] = [
    "pool_queues",
    "pool_buckets",
    "pool_claims",
    "pool_ordering_keys",
    "pool_deduplication",
    "pool_transfers",
    "pool_garbage",
];

/// Checks all recorded commands, and returns the kinds of commands that there were.
async fn assert_all_by_index(database: &Database) -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    let mut wrong = Vec::new();
    for collection in COLLECTIONS {
        for command in recorded(database, collection).await {
            let (verb, _) = command.iter().next().unwrap();
            let asked = match verb.as_str() {
                "update" => command.get_array("updates").unwrap()[0].as_document().unwrap(),
                "delete" => command.get_array("deletes").unwrap()[0].as_document().unwrap(),
                _ => &command,
            };
            let Ok(hint) = asked.get_str("hint") else {
                wrong.push(format!("{collection} without a hint: {command}"));
                continue;
            };
            let kind = format!("{collection} {verb} {hint}");
            if kinds.insert(kind) || verb == "find" {
                assert_by_index(database, &command, hint).await;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    kinds
}

/// Uses a pool in all ways through two nodes, one after the other.
async fn exercised(server: &Mongo, name: &str) -> ([TestPool; 2], Vec<TestQueue>) {
    let nodes = [node(server, name).await, node(server, name).await];
    let queues = exercise(&nodes[0]).await;
    for queue in &queues {
        let same = through(&nodes[1], queue);
        everything(&same).await;
        same.post_n(3).await;
        let claim = same.take(2).await;
        queue.release(claim.id).await;
        queue.post_n(100).await;
        same.claim(&claim_spec(70)).await;
        queue.stats().await;
    }
    (nodes, queues)
}

async fn every_command_is_executed_by_its_index(server: &Mongo) {
    let name = own_database();
    let database = bare(server, &name).await;
    // Creates the indexes before commands are recorded.
    node(server, &name).await.queue().await;
    database.run_command(doc! { "profile": 0 }).await.unwrap();
    database.create_collection("system.profile").capped(true).size(256 << 20).await.unwrap();
    record(&database).await;
    let (nodes, _) = exercised(server, &name).await;
    exercise(&nodes[1]).await;
    for node in &nodes {
        node.pool.close().await;
    }
    let kinds = assert_all_by_index(&database).await;
    println!("{kinds:#?}");
    assert!(kinds.len() > 20, "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_is_executed_by_its_index_on_a_set() {
    every_command_is_executed_by_its_index(single()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_is_executed_by_its_index_without_a_set() {
    every_command_is_executed_by_its_index(standalone()).await;
}

/// Returns the documents of a collection, except those that a TTL index will delete.
async fn left(database: &Database, collection: &str) -> Vec<Document> {
    let all = database.collection::<Document>(collection);
    let filter = doc! { "garbage_at": { "$exists": false } };
    let mut cursor = all.find(filter).await.unwrap();
    let mut left = Vec::new();
    while cursor.advance().await.unwrap() {
        left.push(cursor.deserialize_current().unwrap());
    }
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn no_data_of_dropped_queues_is_left() {
    let name = own_database();
    let database = bare(single(), &name).await;
    let (nodes, queues) = exercised(single(), &name).await;
    let group = queues[0].group("late", StartPoint::Start).await;
    group.post_n(0).await;
    queues[1].post(vec![message("1")]).await;
    for (queue, node) in queues.iter().zip(nodes.iter().cycle()) {
        node.pool.drop_queue(&queue.queue).await.unwrap();
    }
    let [node, _] = &nodes;
    for _ in 0..3 {
        node.sweep_all().await;
        node.advance(Duration::from_hours(1));
    }
    assert_eq!(node.sweep_all().await, 0);
    for collection in COLLECTIONS {
        let left = left(&database, collection).await;
        assert!(left.is_empty(), "{collection}: {left:#?}");
    }
}
