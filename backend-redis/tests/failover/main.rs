//! Failover: a master dies and a replica takes over; and moving slots.

#![expect(clippy::unwrap_used, reason = "a test cannot go on without its servers")]
#![expect(clippy::print_stdout, reason = "what was measured")]

#[path = "../support/node.rs"]
mod node;

use storage_traits::conformance::{TestQueue, faults::DEADLINE};
use test_servers::redis::{Cluster, Redis};

mod cluster;
mod dead_letters;
mod sentinel;
mod slots;

/// The other masters of a Cluster keep serving while one is down.
const OPTIONS: [&str; 2] = ["--cluster-require-full-coverage", "no"];

/// Waits until this number of replicas follow a master. The master sends nothing to a replica that
/// has just synchronized for up to a second, though both report that they are in sync.
fn wait_for_replicas(master: &Redis, queue: &TestQueue, replicas: usize) {
    let replicas = replicas.to_string();
    let deadline = DEADLINE.as_millis().to_string();
    // On a Cluster, the key must be in a slot of this master.
    let mark = format!("{{{}}}:mark", shard_of(queue));
    let replies = master.commands(&[&["SET", &mark, "1"], &["WAIT", &replicas, &deadline]]);
    assert_eq!(replies[1], replicas, "not all replicas follow");
}

/// Returns the part of a queue's keys that decides their slot.
fn shard_of(queue: &TestQueue) -> u8 {
    let [.., shard] = queue.queue.incarnation.get().to_be_bytes();
    shard
}

/// Returns the slot of a queue's keys.
fn slot_of(servers: &Cluster, queue: &TestQueue) -> u16 {
    let tag = format!("{{{}}}", shard_of(queue));
    servers.nodes()[0].command(&["CLUSTER", "KEYSLOT", &tag]).parse().unwrap()
}
