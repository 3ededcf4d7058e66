//! The conformance suite on one server.

#![expect(clippy::unwrap_used, reason = "a test cannot go on without its server")]

mod support;

use std::sync::{Arc, OnceLock};

use backend_redis::Redis;
use storage_traits::{conformance::PoolHarness, pool::MessagePool};
use test_servers::redis::Redis as Server;

struct Standalone(Arc<Redis>);

impl PoolHarness for Standalone {
    async fn start() -> Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        let server = SERVER.get_or_init(|| Server::start(&[]));
        Self(support::own_pool(&server.uri()).await)
    }

    fn pool(&self) -> Arc<dyn MessagePool> {
        Arc::clone(&self.0) as _
    }
}

storage_traits::pool_conformance_tests!(Standalone);
