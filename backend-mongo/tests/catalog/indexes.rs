//! The indexes of the catalog; every query uses one of them.

use backend_mongo::MongoCatalog;
use mongodb::{
    IndexModel,
    bson::{Bson, Document, doc},
    options::IndexOptions,
};
use storage_traits::{Limit, StoreError, catalog::QueueFilter, domain::Metadata};

use crate::{
    catalog_of, key, metadata, now,
    support::{
        options, own_database,
        plans::{assert_by_index, bare, explain, record, recorded},
        single, standalone, triple,
    },
};

const QUEUES: &str = "catalog_queues";

#[tokio::test]
async fn every_command_is_executed_by_its_index() {
    let name = own_database();
    let catalog = catalog_of(single(), &name).await;
    let database = bare(single(), &name).await;
    let all = QueueFilter {
        after: None,
        limit: Limit::new(10).unwrap(),
        name_contains: Some("q".to_owned()),
        metadata: Vec::new(),
    };
    record(&database).await;
    catalog.changes(None).await.unwrap();
    let read = catalog.create(&key("q"), &Metadata::default(), now()).await.unwrap().record;
    catalog.get(&key("q")).await.unwrap().unwrap();
    catalog.list(&read.queue.key.project, &all).await.unwrap();
    catalog
        .list(&read.queue.key.project, &QueueFilter { name_contains: None, ..all })
        .await
        .unwrap();
    catalog.count(&read.queue.key.project).await.unwrap();
    catalog.update(&read, &metadata(r#"{"a":1}"#), now()).await.unwrap();
    catalog.update(&read, &metadata(r#"{"b":1}"#), now()).await.unwrap_err();
    catalog.delete(&key("q"), now()).await.unwrap().unwrap();
    catalog.changes(None).await.unwrap();
    catalog.check().await.unwrap();

    let commands = recorded(&database, QUEUES).await;
    let mut used = Vec::new();
    for command in &commands {
        let hint = command.get_str("hint").unwrap_or_else(|_| panic!("{command} has no hint"));
        assert_by_index(&database, command, hint).await;
        let covered = !explain(&database, command).await.stages.iter().any(|it| it == "FETCH");
        let (verb, _) = command.iter().next().unwrap();
        assert_eq!(covered, verb == "aggregate" || hint == "changes", "{command}");
        used.push((verb.as_str(), hint));
    }
    used.sort_unstable();
    used.dedup();
    assert_eq!(
        used,
        [
            ("aggregate", "live_queues"),
            ("find", "_id_"),
            ("find", "changes"),
            ("find", "live_queues"),
            ("findAndModify", "_id_"),
        ]
    );
}

#[tokio::test]
async fn a_query_without_an_index_is_detected() {
    let database = bare(standalone(), &own_database()).await;
    database.collection(QUEUES).insert_one(doc! { "a": 1 }).await.unwrap();
    let plan = explain(&database, &doc! { "find": QUEUES, "filter": { "a": 1 } }).await;
    assert_eq!((plan.stages, plan.indexes), (vec!["COLLSCAN".to_owned()], Vec::new()));
}

#[tokio::test]
async fn indexes_are_created_once() {
    let name = own_database();
    for _ in 0..2 {
        catalog_of(triple(), &name).await;
    }
    let database = bare(triple(), &name).await;
    let mut names = database.collection::<Document>(QUEUES).list_index_names().await.unwrap();
    names.sort_unstable();
    assert_eq!(names, ["_id_", "changes", "deleted", "live_queues"]);
}

#[tokio::test]
async fn a_conflicting_index_is_rejected() {
    for (name, keys) in [("live_queues", doc! { "a": 1 }), ("mine", doc! { "deleted_at": 1 })] {
        let database_name = own_database();
        let database = bare(standalone(), &database_name).await;
        let options_of_index = IndexOptions::builder().name(name.to_owned()).build();
        let index = IndexModel::builder().keys(keys).options(options_of_index).build();
        database.collection::<Document>(QUEUES).create_index(index).await.unwrap();

        let opened = MongoCatalog::open(options(standalone(), &database_name)).await;
        let Err(StoreError::Unexpected { source, .. }) = opened else { panic!("it was opened") };
        let sentence = source.to_string();
        let wanted = if name == "mine" { "deleted" } else { name };
        assert!(sentence.contains(&format!("the index {wanted} of the collection {QUEUES}")));
        assert!(sentence.contains("drop that one"), "{sentence}");
    }
}

#[tokio::test]
async fn deleted_queues_are_removed_by_the_server() {
    let name = own_database();
    let catalog = catalog_of(single(), &name).await;
    catalog.create(&key("q"), &Metadata::default(), now()).await.unwrap();
    catalog.delete(&key("q"), now()).await.unwrap().unwrap();
    let queues = bare(single(), &name).await.collection::<Document>(QUEUES);
    let left = queues.find_one(doc! { "live": false }).await.unwrap().unwrap();
    assert!(matches!(left.get("deleted_at"), Some(Bson::DateTime(_))), "{left}");
    assert!(matches!(left.get("changed"), Some(Bson::Timestamp(_))), "{left}");
    let mut indexes = queues.list_indexes().await.unwrap();
    let mut expiring = Vec::new();
    while indexes.advance().await.unwrap() {
        let index = indexes.deserialize_current().unwrap();
        let after = index.options.and_then(|options| options.expire_after);
        expiring.extend(after.map(|after| (index.keys, after.as_secs())));
    }
    assert_eq!(expiring, [(doc! { "deleted_at": 1 }, 3_600)]);
}
