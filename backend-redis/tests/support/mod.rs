//! Opens pools for the conformance suite.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use backend_redis::{Redis, RedisOptions};

/// Opens a pool on servers that other tests use too, with a prefix of its own.
pub(crate) async fn own_pool(uri: &str) -> Arc<Redis> {
    static POOLS: AtomicUsize = AtomicUsize::new(0);
    let number = POOLS.fetch_add(1, Ordering::Relaxed);
    let mark = if uri.contains('?') { '&' } else { '?' };
    // A busy machine is no reason for a call to fail.
    let uri = format!("{uri}{mark}prefix=test-{number}&timeout_ms=20000");
    Arc::new(Redis::open(RedisOptions::parse(&uri).unwrap()).await.unwrap())
}
