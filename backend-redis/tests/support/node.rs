//! What the tests of faults share.

use std::{sync::Arc, time::Duration};

use backend_redis::{Redis, RedisOptions};
use storage_traits::conformance::TestPool;

/// Maximum time of a call, whatever happens to the servers: less than two timeouts of 1.5 seconds,
/// so that a call which waits twice is found, and long enough for a busy machine.
pub(crate) const MAX_CALL_TIME: Duration = Duration::from_millis(2_900);

/// Maximum time of two calls: less than three timeouts.
pub(crate) const MAX_TWO_CALLS_TIME: Duration = Duration::from_millis(4_400);

/// Opens a pool, as a node does.
pub(crate) async fn open(uri: &str) -> TestPool {
    TestPool::new(Arc::new(Redis::open(RedisOptions::parse(uri).unwrap()).await.unwrap()))
}
