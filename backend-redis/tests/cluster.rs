//! The conformance suite on a Cluster of three masters and three replicas.

#![expect(clippy::unwrap_used, reason = "a test cannot go on without its servers")]

mod support;

use std::sync::{Arc, OnceLock};

use backend_redis::Redis;
use storage_traits::{conformance::PoolHarness, pool::MessagePool};
use test_servers::redis::Cluster as Servers;

struct Cluster(Arc<Redis>);

impl PoolHarness for Cluster {
    async fn start() -> Self {
        static SERVERS: OnceLock<Servers> = OnceLock::new();
        let servers = SERVERS.get_or_init(|| Servers::start(&[]));
        Self(support::own_pool(&servers.uri()).await)
    }

    fn pool(&self) -> Arc<dyn MessagePool> {
        Arc::clone(&self.0) as _
    }
}

storage_traits::pool_conformance_tests!(Cluster);
