//! The message pool on real servers.

#![expect(clippy::unwrap_used, reason = "a test cannot go on without its servers")]
#![expect(clippy::print_stdout, reason = "what was measured")]

mod crash;
mod down;
mod durability;
mod failover;
mod nodes;
mod plans;
#[path = "../support/pools.rs"]
mod pools;
mod refusals;
#[path = "../support/mod.rs"]
mod support;
mod wake_ups;

mod standalone {
    crate::conformance_on!(crate::support::standalone());
}

mod set_of_one {
    crate::conformance_on!(crate::support::single());
}

mod set_of_three {
    crate::conformance_on!(crate::support::triple());
}

/// Runs the conformance suite on one topology, each case on a pool of its own.
macro_rules! conformance_on {
    ($server:expr) => {
        use std::sync::Arc;

        use backend_mongo::MongoPool;
        use storage_traits::{conformance::PoolHarness, pool::MessagePool};

        use crate::support::{options, own_database};

        struct Harness(Arc<dyn MessagePool>);

        impl PoolHarness for Harness {
            async fn start() -> Self {
                let options = options($server, &own_database());
                Self(Arc::new(MongoPool::open(options).await.unwrap()))
            }

            fn pool(&self) -> Arc<dyn MessagePool> {
                Arc::clone(&self.0)
            }
        }

        storage_traits::pool_conformance_tests!(Harness);
    };
}
use conformance_on;
