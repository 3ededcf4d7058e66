//! Which node has which shard, for each way to run servers.

use std::{sync::Arc, time::Duration};

use storage_traits::Result;

use super::{
    cluster::Cluster,
    connect::{Address, Connector},
    node::Node,
    sentinel::Sentinel,
};
use crate::{
    error::unexpected,
    keys::Shard,
    options::{Endpoint, RedisOptions},
};

/// The servers of a pool.
pub(super) enum Topology {
    Standalone(Arc<Node>),
    Sentinel(Sentinel),
    Cluster(Cluster),
}

impl Topology {
    pub(super) fn new(options: &RedisOptions) -> Self {
        let connector = Arc::new(Connector::new(options));
        let node = |address| Arc::new(Node::new(address, &connector));
        match &options.endpoint {
            Endpoint::Tcp(host, port) => Self::Standalone(node(Address::Tcp(host.clone(), *port))),
            Endpoint::Unix(path) => Self::Standalone(node(Address::Unix(path.clone()))),
            Endpoint::Sentinel { sentinels, master } => {
                Self::Sentinel(Sentinel::new(sentinels, master, &connector))
            }
            Endpoint::Cluster(seeds) => Self::Cluster(Cluster::new(seeds, &connector)),
        }
    }

    /// Returns whether one server has all shards.
    pub(super) const fn is_one_server(&self) -> bool {
        !matches!(self, Self::Cluster(_))
    }

    /// Returns whether another node may become the one that has a shard.
    pub(super) const fn can_change(&self) -> bool {
        !matches!(self, Self::Standalone(_))
    }

    /// Returns at least one shard of each master; none if the slot map of a Cluster cannot be read.
    pub(super) async fn distinct_shards(&self, timeout: Duration) -> Vec<Shard> {
        match self {
            Self::Standalone(_) | Self::Sentinel(_) => vec![0],
            Self::Cluster(cluster) => cluster.distinct_shards(timeout).await,
        }
    }

    /// Returns the node that has a shard, as far as is known.
    pub(super) async fn node(&self, shard: Shard) -> Result<Arc<Node>> {
        match self {
            Self::Standalone(node) => Ok(Arc::clone(node)),
            Self::Sentinel(sentinel) => sentinel.node().await,
            Self::Cluster(cluster) => cluster.node(shard).await,
        }
    }

    /// Discards what is known about a node that failed or is not the master.
    pub(super) fn invalidate(&self, node: &Arc<Node>) {
        match self {
            Self::Standalone(_) => {}
            Self::Sentinel(sentinel) => sentinel.invalidate(node),
            Self::Cluster(cluster) => cluster.invalidate(),
        }
    }

    /// Returns the Cluster that a node belongs to that has redirected a command.
    pub(super) fn cluster(&self) -> Result<&Cluster> {
        match self {
            Self::Cluster(cluster) => Ok(cluster),
            _ => Err(unexpected("this is a Cluster; write redis+cluster://")),
        }
    }

    /// Closes all connections.
    pub(super) fn close(&self) {
        match self {
            Self::Standalone(node) => node.close(),
            Self::Sentinel(sentinel) => sentinel.close(),
            Self::Cluster(cluster) => cluster.close(),
        }
    }
}
