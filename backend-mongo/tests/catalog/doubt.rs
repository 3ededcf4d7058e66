//! Writes that the server executes and then reports as possibly lost.

use backend_mongo::{MongoCatalog, MongoOptions};
use mongodb::bson::doc;
use storage_traits::{
    StoreError,
    catalog::{Catalog, Changed},
    domain::Metadata,
};

use crate::{
    key, metadata, now,
    support::{own_database, single},
};

/// A catalog, and a failpoint that carries its commands out and reports their outcome as unknown.
struct Doubtful {
    name: String,
    catalog: Box<dyn Catalog>,
}

impl Doubtful {
    async fn new() -> Self {
        let name = own_database();
        let uri = format!("{}&appName={name}&timeoutMS=30000", single().uri_of(&name));
        let options = MongoOptions::parse(&uri).unwrap();
        Self { catalog: Box::new(MongoCatalog::open(options).await.unwrap()), name }
    }

    /// The code is that of a write concern timeout: the write may be rolled back, and the driver
    /// does not retry by itself.
    fn doubt(&self, command: &str) {
        let what = doc! {
            "failCommands": [command],
            "appName": &self.name,
            "writeConcernError": { "code": 64, "errmsg": "in doubt" },
        };
        let fail =
            doc! { "configureFailPoint": "failCommand", "mode": { "times": 2 }, "data": what };
        single().command_on(0, "admin", &fail);
    }
}

#[tokio::test]
async fn a_write_with_an_unknown_outcome_returns_its_result() {
    let node = Doubtful::new().await;
    let start = node.catalog.changes(None).await.unwrap().next;

    node.doubt("insert");
    let created = node.catalog.create(&key("q"), &Metadata::default(), now()).await.unwrap();
    assert!(created.new, "a creator does not know its own queue");
    assert_eq!(node.catalog.get(&key("q")).await.unwrap().as_ref(), Some(&created.record));

    node.doubt("findAndModify");
    let to = metadata(r#"{"a":1}"#);
    let updated = node.catalog.update(&created.record, &to, now()).await.unwrap();
    assert_eq!((updated.version, &updated.metadata), (2, &to));
    assert_eq!(node.catalog.get(&key("q")).await.unwrap().as_ref(), Some(&updated));

    node.doubt("findAndModify");
    let refused = node.catalog.update(&created.record, &to, now()).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");

    node.doubt("findAndModify");
    let deleted = node.catalog.delete(&key("q"), now()).await.unwrap();
    assert_eq!(deleted.as_ref(), Some(&updated.queue));
    assert_eq!(node.catalog.delete(&key("q"), now()).await.unwrap(), None);
    let refused = node.catalog.update(&updated, &to, now()).await;
    assert!(matches!(refused, Err(StoreError::NotFound { .. })), "{refused:?}");

    let changes = node.catalog.changes(Some(start)).await.unwrap();
    assert_eq!(changes.changed, Changed::Queues(vec![key("q")]));
}
