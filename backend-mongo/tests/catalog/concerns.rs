//! The catalog with other write and read concerns than the defaults.

use backend_mongo::{MongoCatalog, MongoOptions};
use storage_traits::{
    Limit,
    catalog::{Catalog, Changed, QueueFilter},
    domain::Metadata,
};

use crate::{
    key, metadata, now,
    support::{own_database, triple},
};

#[tokio::test]
async fn acknowledged_writes_are_read_with_all_concerns() {
    for query in [
        "readConcernLevel=linearizable",
        "readConcernLevel=local",
        "w=1&journal=false",
        "w=2",
        "retryWrites=false&retryReads=false",
    ] {
        let uri = format!("{}&timeoutMS=30000&{query}", triple().uri_of(&own_database()));
        let catalog = MongoCatalog::open(MongoOptions::parse(&uri).unwrap()).await.unwrap();
        exercise(&catalog).await;
    }
}

async fn exercise(catalog: &impl Catalog) {
    for n in 0..10 {
        let key = key(&format!("q{n}"));
        let start = catalog.changes(None).await.unwrap().next;
        let created = catalog.create(&key, &Metadata::default(), now()).await.unwrap();
        assert!(created.new);
        assert!(!catalog.create(&key, &Metadata::default(), now()).await.unwrap().new);
        let updated = catalog.update(&created.record, &metadata(r#"{"a":1}"#), now()).await;
        assert_eq!(catalog.get(&key).await.unwrap(), Some(updated.unwrap()));
        let all = QueueFilter {
            after: None,
            limit: Limit::new(10).unwrap(),
            name_contains: None,
            metadata: Vec::new(),
        };
        assert_eq!(catalog.list(&key.project, &all).await.unwrap().items.len(), 1);
        assert_eq!(catalog.count(&key.project).await.unwrap(), 1);
        let changes = catalog.changes(Some(start)).await.unwrap();
        assert_eq!(changes.changed, Changed::Queues(vec![key.clone()]));
        assert!(catalog.delete(&key, now()).await.unwrap().is_some());
        assert_eq!(catalog.get(&key).await.unwrap(), None);
        let changes = catalog.changes(Some(changes.next)).await.unwrap();
        assert_eq!(changes.changed, Changed::Queues(vec![key]));
    }
}
