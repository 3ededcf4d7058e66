//! A Redis Cluster on one machine.

use std::iter;
use std::ops::RangeInclusive;

use super::resp::Reply;
use super::server::{REPLICATION, Redis, Role};
use crate::folder::temporary_folder;
use crate::ports::free_port;
use crate::process;
use crate::wait::{self, check};

const NODES: usize = 6;
const REPLICAS: usize = 3;

/// How many keys one `MIGRATE` moves.
const BATCH: &str = "100";

/// Three masters, each with a replica. The replica takes over some seconds after its master has
/// ended.
pub struct Cluster {
    nodes: Vec<Redis>,
}

/// The port of a master and the slots that it serves.
type SlotOwner = (u16, Vec<RangeInclusive<u16>>);

impl Cluster {
    /// Starts the nodes with these options and joins them. Returns when the cluster
    /// [is whole](Self::wait_until_whole).
    pub fn start(options: &[&str]) -> Self {
        let node = || Redis::launch(&Role::ClusterNode, options, free_port);
        let cluster = Self { nodes: iter::repeat_with(node).take(NODES).collect() };
        let addresses = cluster.addresses();
        let mut args = vec!["--cluster", "create"];
        args.extend(addresses.iter().map(String::as_str));
        args.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        let client = process::program("redis-cli", "redis-tools");
        process::run(&client, &args, temporary_folder().path());
        cluster.wait_until_whole();
        cluster
    }

    /// `redis+cluster://127.0.0.1:P1,127.0.0.1:P2,…`, with all nodes.
    pub fn uri(&self) -> String {
        format!("redis+cluster://{}", self.addresses().join(","))
    }

    /// Masters and replicas, in the order of their start.
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// Returns the node at this port.
    pub fn node(&self, port: u16) -> &Redis {
        let node = self.nodes.iter().find(|it| it.port() == port);
        node.unwrap_or_else(|| panic!("no node has the port {port}"))
    }

    /// Returns the ports of the nodes that serve slots, once all live nodes agree on them.
    pub fn masters(&self) -> Vec<u16> {
        self.slot_owners().into_iter().map(|(port, _)| port).collect()
    }

    /// Returns the port of the master that serves a slot, once all live nodes agree on it. A master
    /// that was killed is returned until the others notice.
    pub fn owner(&self, slot: u16) -> u16 {
        owner(&self.slot_owners(), slot).unwrap_or_else(|| panic!("no node serves {slot}"))
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&mut self, port: u16) {
        self.node_mut(port).kill();
    }

    /// Restarts a node. Returns when it answers, which is before the others notice.
    pub fn restart(&mut self, port: u16) {
        self.node_mut(port).restart();
    }

    /// Waits until a live node other than `old` serves the slot, and all live nodes know it and
    /// report the cluster as ok. Returns the port of the new master.
    pub fn wait_for_failover(&self, slot: u16, old: u16) -> u16 {
        let attempt = || {
            let new = owner(&self.agreed()?, slot).ok_or("no node serves it")?;
            check(new != old, || format!("it is still {old}"))?;
            check(self.node(new).is_live(), || format!("{new} is not live"))?;
            self.live().try_for_each(reports_ok)?;
            Ok(new)
        };
        wait::until(&format!("another node serves {slot}"), attempt, || self.logs())
    }

    /// Waits until all nodes agree and report the cluster as ok, and each master has a replica that
    /// is linked to it. Nodes that were killed must be restarted before.
    pub fn wait_until_whole(&self) {
        let attempt = || {
            self.nodes.iter().try_for_each(reports_ok)?;
            self.nodes.iter().try_for_each(knows_all_nodes)?;
            self.agreed().map(|_| ())
        };
        wait::until("the cluster is whole", attempt, || self.logs());
    }

    /// Moves a slot with its keys to another master while both serve clients. Returns when all live
    /// nodes know the new owner.
    pub fn move_slot(&self, slot: u16, to: u16) {
        let slot_owners = self.slot_owners();
        let from = owner(&slot_owners, slot).unwrap_or_else(|| panic!("no node serves {slot}"));
        if from == to {
            return;
        }
        let (source, target) = (self.node(from), self.node(to));
        let [source_id, target_id] = [source, target].map(|it| it.command(&["CLUSTER", "MYID"]));
        let number = slot.to_string();
        let set = ["CLUSTER", "SETSLOT", &number];
        target.command(&[&set[..], &["IMPORTING", &source_id]].concat());
        source.command(&[&set[..], &["MIGRATING", &target_id]].concat());
        move_keys(source, to, &number);
        // The new owner is told first: no node may redirect clients to an owner that does not know
        // that it owns the slot.
        let others =
            slot_owners.iter().map(|&(port, _)| port).filter(|&port| port != to && port != from);
        for master in [to, from].into_iter().chain(others).map(|port| self.node(port)) {
            if master.is_live() {
                master.command(&[&set[..], &["NODE", &target_id]].concat());
            }
        }
        let attempt = || {
            let owner = owner(&self.agreed()?, slot);
            check(owner == Some(to), || format!("it is {owner:?}"))
        };
        wait::until(&format!("{to} serves {slot}"), attempt, || self.logs());
    }

    fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|it| format!("127.0.0.1:{}", it.port())).collect()
    }

    fn live(&self) -> impl Iterator<Item = &Redis> {
        self.nodes.iter().filter(|it| it.is_live())
    }

    fn slot_owners(&self) -> Vec<SlotOwner> {
        wait::until("the nodes agree", || self.agreed(), || self.logs())
    }

    /// Returns the owners of all slots if all live nodes report the same.
    fn agreed(&self) -> Result<Vec<SlotOwner>, String> {
        let mut nodes = self.live();
        let first = view(nodes.next().ok_or("no node is live")?)?;
        for node in nodes {
            let view = view(node)?;
            check(view == first, || format!("one node reports {first:?}, another {view:?}"))?;
        }
        Ok(first)
    }

    fn node_mut(&mut self, port: u16) -> &mut Redis {
        let node = self.nodes.iter_mut().find(|it| it.port() == port);
        node.unwrap_or_else(|| panic!("no node has the port {port}"))
    }

    fn logs(&self) -> String {
        self.nodes.iter().map(Redis::log).collect()
    }
}

fn view(node: &Redis) -> Result<Vec<SlotOwner>, String> {
    node.try_command(&["CLUSTER", "NODES"]).map(|nodes| slot_owners(&nodes))
}

fn owner(slot_owners: &[SlotOwner], slot: u16) -> Option<u16> {
    let owner =
        slot_owners.iter().find(|(_, slots)| slots.iter().any(|range| range.contains(&slot)));
    owner.map(|&(port, _)| port)
}

/// Parses the reply to `CLUSTER NODES`. Each line is a node: its id, `host:port@bus`, six more
/// columns, then its slots, as in `5 7-9 [93->-id]`. A slot in brackets is being moved.
fn slot_owners(nodes: &str) -> Vec<SlotOwner> {
    let owner = |line: &str| {
        let mut words = line.split(' ');
        let (address, _) = words.nth(1)?.split_once('@')?;
        let port = address.rsplit_once(':')?.1.parse().ok()?;
        let slots: Vec<_> = words.skip(6).filter_map(range).collect();
        (!slots.is_empty()).then_some((port, slots))
    };
    let mut slot_owners: Vec<_> = nodes.lines().filter_map(owner).collect();
    slot_owners.sort_by_key(|&(port, _)| port);
    slot_owners
}

fn range(slots: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

fn reports_ok(node: &Redis) -> Result<(), String> {
    let state = node.field(&["CLUSTER", "INFO"], "cluster_state")?;
    check(state == "ok", || format!("{} reports cluster_state:{state}", node.port()))
}

/// Checks that a node knows all nodes and their roles, and is linked to its master if it has one.
fn knows_all_nodes(node: &Redis) -> Result<(), String> {
    let nodes = node.try_command(&["CLUSTER", "NODES"])?;
    let flags = || nodes.lines().filter_map(|line| line.split(' ').nth(2));
    let count = |flag: &str| flags().filter(|it| it.split(',').any(|it| it == flag)).count();
    let right = flags().count() == NODES && count("slave") == REPLICAS && count("fail") == 0;
    check(right, || format!("{} reports\n{nodes}", node.port()))?;
    if node.field(&REPLICATION, "role")? == "master" {
        return node.has_replicas_in_step();
    }
    node.linked_master().map(|_| ())
}

fn move_keys(source: &Redis, to: u16, slot: &str) {
    let to = to.to_string();
    loop {
        let found = source.reply(&["CLUSTER", "GETKEYSINSLOT", slot, BATCH]);
        let Reply::Items(keys) = found else { panic!("no keys, but {found}") };
        if keys.is_empty() {
            return;
        }
        let mut migrate: Vec<Vec<u8>> =
            ["MIGRATE", "127.0.0.1", &to, "", "0", "10000", "KEYS"].map(Into::into).into();
        migrate.extend(keys.into_iter().filter_map(|key| match key {
            Reply::Text(key) => Some(key),
            _ => None,
        }));
        source.reply(&migrate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_owners_are_parsed_from_the_list_of_nodes() {
        let nodes = "\
            a1 127.0.0.1:7002@7012,host slave b2 0 1 2 connected\n\
            b2 127.0.0.1:7001@7011 myself,master - 0 0 3 connected 5 7-9 [93->-a1]\n\
            c3 127.0.0.1:7000@7010 master,fail - 1 1 1 disconnected 10-16383\n";
        let slot_owners = slot_owners(nodes);
        assert_eq!(slot_owners, [(7000, vec![10..=16383]), (7001, vec![5..=5, 7..=9])]);
        assert_eq!(owner(&slot_owners, 8), Some(7001));
        assert_eq!(owner(&slot_owners, 6), None);
    }
}
