//! The conformance suite with Sentinel.

#![expect(clippy::unwrap_used, reason = "a test cannot go on without its servers")]

mod support;

use std::sync::{Arc, OnceLock};

use backend_redis::Redis;
use storage_traits::{conformance::PoolHarness, pool::MessagePool};
use test_servers::redis::Sentinel as Servers;

struct Sentinel(Arc<Redis>);

impl PoolHarness for Sentinel {
    async fn start() -> Self {
        static SERVERS: OnceLock<Servers> = OnceLock::new();
        let servers = SERVERS.get_or_init(|| Servers::start(1, &[]));
        Self(support::own_pool(&servers.uri()).await)
    }

    fn pool(&self) -> Arc<dyn MessagePool> {
        Arc::clone(&self.0) as _
    }
}

storage_traits::pool_conformance_tests!(Sentinel);
