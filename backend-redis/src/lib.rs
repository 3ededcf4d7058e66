//! Message pool on Redis 7 or newer, or Valkey: one server, one watched by Sentinel, or a Cluster.
//!
//! Every method of the pool is one function that runs in the server (the `lua` folder), so it is
//! one round trip and one atomic step. A queue and the groups that read it lie in one hash slot.

mod error;
mod library;
mod options;
mod pool;
mod server;

use std::sync::Arc;

use storage_traits::{Result, support::WatchRegistry};

pub use self::options::{InvalidOption, Place, RedisOptions};
use self::{
    pool::{Counters, Posts, Sources, Wakes},
    server::Servers,
};

/// A [`MessagePool`](storage_traits::pool::MessagePool) on Redis.
pub struct Redis {
    servers: Arc<Servers>,
    wakes: Arc<Wakes>,
    counters: Arc<Counters>,
    sources: Sources,
    posts: Arc<Posts>,
}

impl Redis {
    /// Connects, if a server can be reached: one that cannot is tried again whenever something is
    /// asked of the pool.
    ///
    /// # Errors
    /// [`Unexpected`](storage_traits::StoreError::Unexpected) if a server can be reached but is not
    /// fit: it may evict keys, or does not keep what it is asked to keep.
    pub async fn open(options: RedisOptions) -> Result<Self> {
        let servers = Arc::new(Servers::new(options));
        servers.begin().await?;
        let counters = Arc::<Counters>::default();
        let wakes = Wakes::start(WatchRegistry::default(), &servers, &counters);
        let posts = Arc::new(Posts::new(&servers));
        Ok(Self { servers, wakes, counters, sources: Sources::default(), posts })
    }
}
