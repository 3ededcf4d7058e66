//! Pools on the shared servers.

use std::sync::Arc;

use backend_mongo::{MongoOptions, MongoPool};
use storage_traits::conformance::TestPool;
use test_servers::mongo::Mongo;

use crate::support::options;

/// Opens a pool on a database; several nodes may share it.
pub(crate) async fn node(server: &Mongo, database: &str) -> TestPool {
    TestPool::new(Arc::new(MongoPool::open(options(server, database)).await.unwrap()))
}

/// Opens a pool with the options of a URI.
pub(crate) async fn node_of(uri: &str) -> TestPool {
    TestPool::new(Arc::new(MongoPool::open(MongoOptions::parse(uri).unwrap()).await.unwrap()))
}
