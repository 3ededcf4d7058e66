//! Message pool on Redis 7 or newer, or Valkey: standalone, with Sentinel, or a Cluster.
//!
//! Every method of the pool calls a function that runs in the server (see the `lua` folder), which
//! is one round trip and one atomic step. A queue and its groups lie in one hash slot.

mod error;
mod keys;
mod library;
mod options;
mod pool;
mod server;
mod shared_constants;

pub use self::{
    options::{Endpoint, InvalidOption, RedisOptions},
    pool::Redis,
};
