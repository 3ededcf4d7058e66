//! The catalog: the conformance suite on each topology, and tests of what is specific to MongoDB.

#![expect(clippy::unwrap_used, reason = "a test cannot go on without its server")]

mod concerns;
mod doubt;
mod indexes;
mod reach;
mod sharing;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;

use backend_mongo::MongoCatalog;
use storage_traits::{
    Clock, SystemClock,
    catalog::Catalog,
    domain::{Metadata, QueueKey, Timestamp},
};
use test_servers::mongo::Mongo;

async fn catalog_of(server: &Mongo, database: &str) -> Arc<dyn Catalog> {
    Arc::new(MongoCatalog::open(support::options(server, database)).await.unwrap())
}

fn key(name: &str) -> QueueKey {
    QueueKey { project: "p".parse().unwrap(), name: name.parse().unwrap() }
}

fn metadata(json: &str) -> Metadata {
    Metadata::from_json(json).unwrap()
}

fn now() -> Timestamp {
    SystemClock.now()
}

/// Runs the conformance suite on a server.
macro_rules! suite_on {
    ($server:ident) => {
        mod $server {
            use std::sync::Arc;

            use storage_traits::{catalog::Catalog, conformance::CatalogHarness};

            struct Harness(Arc<dyn Catalog>);

            impl CatalogHarness for Harness {
                async fn start() -> Self {
                    let database = crate::support::own_database();
                    Self(crate::catalog_of(crate::support::$server(), &database).await)
                }

                fn catalog(&self) -> Arc<dyn Catalog> {
                    Arc::clone(&self.0)
                }
            }

            storage_traits::catalog_conformance_tests!(Harness);
        }
    };
}

suite_on!(standalone);
suite_on!(single);
suite_on!(triple);
