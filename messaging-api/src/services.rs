//! The rules: limits, defaults, lazy creation, what refers to what. No HTTP, no SQL.

mod claims;
mod directory;
mod groups;
mod health;
mod maintenance;
mod messages;
mod metadata;
mod patch;
mod queues;
mod redrive;
mod retry_policy;
mod waiting;

use std::sync::Arc;

use storage_traits::{Clock, catalog::Catalog, domain::Timestamp, pool::MessagePool};

use self::directory::Directory;
use crate::config::Config;

pub(crate) use groups::GroupState;
pub(crate) use messages::{Delayed, Listing, MessageDraft, PopOrIds};
pub(crate) use patch::parse as parse_patch;
pub(crate) use queues::QueueListing;
pub(crate) use redrive::{DEFAULT_REDRIVEN, MAX_RATE, MAX_REDRIVEN};

/// Everything that the service does, for any transport.
#[derive(Clone)]
pub(crate) struct Services {
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    catalog: Arc<dyn Catalog>,
    pool: Arc<dyn MessagePool>,
    directory: Arc<Directory>,
}

impl Services {
    pub(crate) fn new(
        config: Arc<Config>,
        clock: Arc<dyn Clock>,
        catalog: Arc<dyn Catalog>,
        pool: Arc<dyn MessagePool>,
    ) -> Self {
        let directory = Arc::new(Directory::new(Arc::clone(&catalog), Arc::clone(&pool)));
        Self { config, clock, catalog, pool, directory }
    }

    /// The time by which everything is decided.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
