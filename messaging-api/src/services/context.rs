//! The state that all services share.

use std::sync::Arc;

use storage_traits::{Clock, catalog::Catalog, domain::Timestamp, pool::MessagePool};

use super::queue_cache::QueueCache;
use crate::config::Config;

/// All calls that the service offers to a transport.
#[derive(Clone)]
pub(crate) struct Services {
    pub(super) config: Arc<Config>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) pool: Arc<dyn MessagePool>,
    pub(super) queues: Arc<QueueCache>,
}

impl Services {
    pub(crate) fn new(
        config: Arc<Config>,
        clock: Arc<dyn Clock>,
        catalog: Arc<dyn Catalog>,
        pool: Arc<dyn MessagePool>,
    ) -> Self {
        let queues = Arc::new(QueueCache::new(Arc::clone(&catalog), Arc::clone(&pool)));
        Self { config, clock, catalog, pool, queues }
    }

    /// Returns the current time, by which expiry and visibility are decided.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
