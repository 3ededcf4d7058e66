//! What the pool does when a master dies and a replica takes over, and when slots move.

#![expect(clippy::unwrap_used, reason = "a test cannot go on without its servers")]
#![expect(clippy::print_stdout, reason = "what was measured")]

#[path = "../support/builders.rs"]
mod builders;
#[path = "../support/load.rs"]
mod load;

use storage_traits::conformance::TestQueue;
use test_servers::redis::{Cluster, Redis};

use self::builders::DEADLINE;

mod cluster;
mod letters;
mod sentinel;
mod slots;

/// The other masters of a cluster serve on while one is missing.
const OPTIONS: [&str; 2] = ["--cluster-require-full-coverage", "no"];

/// Waits until so many replicas follow a master. One that has just been synchronized is sent nothing
/// for up to a second, though both of them say that they are in step.
fn follow(master: &Redis, queue: &TestQueue, replicas: usize) {
    let replicas = replicas.to_string();
    let deadline = DEADLINE.as_millis().to_string();
    // On a Cluster it has to be a key of this master.
    let mark = format!("{{{}}}:mark", shard_of(queue));
    let said = master.commands(&[&["SET", &mark, "1"], &["WAIT", &replicas, &deadline]]);
    assert_eq!(said[1], replicas, "not all replicas follow");
}

/// What decides about the slot of a queue's keys.
fn shard_of(queue: &TestQueue) -> u8 {
    let [.., shard] = queue.queue.incarnation.get().to_be_bytes();
    shard
}

/// The slot of a queue's keys.
fn slot_of(servers: &Cluster, queue: &TestQueue) -> u16 {
    let tag = format!("{{{}}}", shard_of(queue));
    servers.nodes()[0].command(&["CLUSTER", "KEYSLOT", &tag]).parse().unwrap()
}
