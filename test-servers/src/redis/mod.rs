//! Redis 7: a single server, a master with sentinels, a cluster.
//!
//! Debian packages: `redis-server`, and `openssl` for TLS.

mod cluster;
mod resp;
mod sentinel;
mod server;

pub use cluster::Cluster;
pub use sentinel::Sentinel;
pub use server::Redis;
