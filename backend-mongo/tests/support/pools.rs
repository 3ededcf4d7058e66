//! Pools on servers that the tests share.

use std::sync::Arc;

use backend_mongo::{MongoOptions, MongoPool};
use storage_traits::conformance::TestPool;
use test_servers::mongo::Mongo;

use crate::support::options;

/// A node: a pool on a database that others may use as well.
pub(crate) async fn node(server: &Mongo, database: &str) -> TestPool {
    TestPool::new(Arc::new(MongoPool::open(options(server, database)).await.unwrap()))
}

/// A node with these options.
pub(crate) async fn node_of(uri: &str) -> TestPool {
    TestPool::new(Arc::new(MongoPool::open(MongoOptions::parse(uri).unwrap()).await.unwrap()))
}
