//! A Cluster: finds the node that has a shard.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::select_ok;
use redis::{Cmd, Value};
use storage_traits::Result;
use tokio::time::timeout;

use super::{
    connect::{Address, Connector},
    node::Node,
};
use crate::{
    error::{unavailable, unexpected},
    keys::{SHARDS, Shard},
    options::parse_host,
};

/// The nodes of a Cluster, and the map of its shards.
pub(super) struct Cluster {
    seeds: Vec<Address>,
    connector: Arc<Connector>,
    state: Mutex<State>,
    /// Set when the map may be wrong.
    is_stale: AtomicBool,
    /// Held by the call that reads the map.
    reading_map: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    nodes: HashMap<Address, Arc<Node>>,
    /// The node of each shard; empty before the map is read.
    map: Vec<Option<Arc<Node>>>,
}

impl Cluster {
    pub(super) fn new(seeds: &[(String, u16)], connector: &Arc<Connector>) -> Self {
        let seeds = seeds.iter().map(|(host, port)| Address::Tcp(host.clone(), *port)).collect();
        Self {
            seeds,
            connector: Arc::clone(connector),
            state: Mutex::default(),
            is_stale: AtomicBool::new(true),
            reading_map: tokio::sync::Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, shard: Shard) -> Option<Arc<Node>> {
        self.state().map.get(usize::from(shard)).cloned().flatten()
    }

    /// Returns the node that has a shard; reads the map first if it may be wrong.
    pub(super) async fn node(&self, shard: Shard) -> Result<Arc<Node>> {
        if !self.is_stale.load(Ordering::Acquire)
            && let Some(node) = self.known(shard)
        {
            return Ok(node);
        }
        let reading = self.reading_map.lock().await;
        if self.is_stale.load(Ordering::Acquire) {
            self.read_map().await?;
            self.is_stale.store(false, Ordering::Release);
        }
        drop(reading);
        self.known(shard).ok_or_else(|| {
            // No node has the shard at the moment: the next call reads the map again.
            self.is_stale.store(true, Ordering::Release);
            unavailable("no node of the Cluster has this slot")
        })
    }

    /// Makes the next call read the map.
    pub(super) fn invalidate(&self) {
        self.is_stale.store(true, Ordering::Release);
    }

    /// Records that a node has redirected a command for a shard to another one.
    pub(super) fn record_move(&self, shard: Shard, address: &str, by: &Node) -> Result<()> {
        let node = self.node_at(address, by)?;
        let mut state = self.state();
        if let Some(entry) = state.map.get_mut(usize::from(shard)) {
            *entry = Some(node);
        }
        Ok(())
    }

    /// Returns the node at an address that another node has sent.
    pub(super) fn node_at(&self, address: &str, by: &Node) -> Result<Arc<Node>> {
        // Without a host, the address is on the host of the node that sent it.
        let (host, port) = match (address.strip_prefix(':'), &by.address) {
            (Some(port), Address::Tcp(host, _)) => {
                (host.clone(), port.parse().map_err(unexpected)?)
            }
            _ => read_address(address)?,
        };
        Ok(self.state().node(Address::Tcp(host, port), &self.connector))
    }

    /// Reads the map from the first node that answers.
    async fn read_map(&self) -> Result<()> {
        let mut known: Vec<Address> = self.state().nodes.keys().cloned().collect();
        known.extend(
            self.seeds.iter().filter(|seed| !known.contains(seed)).cloned().collect::<Vec<_>>(),
        );
        let queries = known.iter().map(|address| Box::pin(self.ask(address)));
        let (ranges, _) = select_ok(queries).await?;
        let mut state = self.state();
        let mut map = vec![None; SHARDS];
        for (shard, entry) in map.iter_mut().enumerate() {
            let slot = slot_of(&shard.to_string());
            let range = ranges.iter().find(|(from, to, _)| (*from..=*to).contains(&slot));
            *entry = range.map(|(_, _, address)| state.node(address.clone(), &self.connector));
        }
        state
            .nodes
            .retain(|_, node| map.iter().flatten().any(|used: &Arc<Node>| Arc::ptr_eq(used, node)));
        state.map = map;
        Ok(())
    }

    /// Asks one node for the ranges of slots and their masters.
    async fn ask(&self, address: &Address) -> Result<Vec<(u16, u16, Address)>> {
        let mut connection = self.connector.connect(address, |_| ()).await?;
        let mut command = Cmd::new();
        command.arg("CLUSTER").arg("SLOTS");
        let reply = command.query_async::<Vec<Vec<Value>>>(&mut connection).await;
        let reply = reply.map_err(|error| unavailable(format!("{address}: {error}")))?;
        let ranges: Vec<_> = reply.iter().filter_map(|range| read_range(range, address)).collect();
        if ranges.is_empty() {
            return Err(unavailable(format!("{address} has no slots")));
        }
        Ok(ranges)
    }

    /// Returns one shard of each master; none if the map cannot be read.
    pub(super) async fn distinct_shards(&self, within: Duration) -> Vec<Shard> {
        // If this fails, the call that uses a shard returns the reason.
        let _ = timeout(within, self.node(0)).await;
        let state = self.state();
        let mut shards: Vec<Shard> = Vec::new();
        let mut seen: Vec<&Arc<Node>> = Vec::new();
        for (shard, node) in (0..=Shard::MAX).zip(&state.map) {
            if let Some(node) = node
                && !seen.iter().any(|seen| Arc::ptr_eq(seen, node))
            {
                seen.push(node);
                shards.push(shard);
            }
        }
        shards
    }

    /// Closes the connections to all nodes.
    pub(super) fn close(&self) {
        for node in self.state().nodes.values() {
            node.close();
        }
    }
}

impl State {
    fn node(&mut self, address: Address, connector: &Arc<Connector>) -> Arc<Node> {
        let node = self.nodes.entry(address.clone());
        Arc::clone(node.or_insert_with(|| Arc::new(Node::new(address, connector))))
    }
}

/// Reads an entry of `CLUSTER SLOTS`: first and last slot, master; the replicas follow.
fn read_range(range: &[Value], asked: &Address) -> Option<(u16, u16, Address)> {
    let number = |value: &Value| match value {
        Value::Int(number) => u16::try_from(*number).ok(),
        _ => None,
    };
    let [from, to, Value::Array(master), ..] = range else { return None };
    let [host, port, ..] = &master[..] else { return None };
    let host = match (host, asked) {
        (Value::BulkString(host), _) if !matches!(&host[..], b"" | b"?") => {
            String::from_utf8(host.clone()).ok()?
        }
        // A node that does not know its own host leaves it out.
        (_, Address::Tcp(host, _)) => host.clone(),
        _ => return None,
    };
    Some((number(from)?, number(to)?, Address::Tcp(host, number(port)?)))
}

/// Parses `host:port` as nodes write it, where an IPv6 address has no brackets.
fn read_address(text: &str) -> Result<(String, u16)> {
    let wrong = || unexpected(format!("{text:?} is no address"));
    if text.matches(':').count() > 1 && !text.starts_with('[') {
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        return Ok((host.to_owned(), port.parse().map_err(unexpected)?));
    }
    parse_host(text, 0).map_err(|_| wrong())
}

/// Returns the slot of keys with this hash tag.
fn slot_of(tag: &str) -> u16 {
    let mut crc = 0_u16;
    for byte in tag.bytes() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    crc % 16_384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_computed_like_the_server_does() {
        // What CLUSTER KEYSLOT returns.
        assert_eq!(slot_of("123456789"), 12739);
        assert_eq!(slot_of("foo"), 12182);
        assert_eq!(slot_of("0"), 13907);
    }

    #[test]
    fn shards_are_spread() {
        let slots: std::collections::HashSet<_> =
            (0..SHARDS).map(|shard| slot_of(&shard.to_string())).collect();
        assert_eq!(slots.len(), SHARDS);
        for third in 0..3 {
            let range = third * 5_462..(third + 1) * 5_462;
            let count = slots.iter().filter(|slot| range.contains(*slot)).count();
            assert!((70..=100).contains(&count), "{count} of 256 in {range:?}");
        }
    }

    #[test]
    fn addresses_of_nodes_are_parsed() {
        assert_eq!(read_address("10.0.0.1:7000").unwrap(), ("10.0.0.1".into(), 7000));
        assert_eq!(read_address("::1:7000").unwrap(), ("::1".into(), 7000));
        assert!(read_address("x").is_err());
    }
}
