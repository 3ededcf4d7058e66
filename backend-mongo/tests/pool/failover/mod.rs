//! The pool and the catalog when the primary of a replica set of three is killed, steps down, or
//! hangs.

mod registry;

use std::time::{Duration, Instant};

use storage_traits::conformance::{
    TestPool, TestQueue,
    faults::{Load, Story, counted, through},
};
use test_servers::mongo::Mongo;

use self::registry::Registry;
use crate::pools::node_of;

/// After how long without a primary the members elect a new one.
const ELECTION: Duration = Duration::from_secs(2);
/// How long the recovery after an election takes.
const RECOVERY: Duration = Duration::from_secs(2);
/// How much longer a busy machine takes.
const SLACK: Duration = Duration::from_secs(6);
/// The timeout of a call in these tests; one attempt may take half of it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Two nodes on a replica set, with clients at work on two queues and the catalog.
struct Scene {
    servers: Mongo,
    _nodes: [TestPool; 2],
    queues: [TestQueue; 2],
    load: Load,
    registry: Registry,
}

impl Scene {
    async fn start() -> Self {
        let servers = Mongo::replica_set(3, &[]);
        let uri = format!("{}&timeoutMS={}", servers.uri(), TIMEOUT.as_millis());
        let nodes = [node_of(&uri).await, node_of(&uri).await];
        let queues = [nodes[0].queue().await, nodes[1].queue().await];
        let everywhere = [
            queues[0].clone(),
            queues[1].clone(),
            through(&nodes[1], &queues[0]),
            through(&nodes[0], &queues[1]),
        ];
        let load = Load::start(&everywhere, 3);
        let registry = Registry::start(&uri).await;
        load.acknowledges(300).await;
        registry.writes(20).await;
        Self { servers, _nodes: nodes, queues, load, registry }
    }

    /// Waits until all clients have made progress.
    async fn goes_on(&self) {
        self.load.acknowledges(200).await;
        self.registry.writes(20).await;
    }

    /// Stops the clients, and checks that no acknowledged message was lost.
    async fn end(self) -> Story {
        let story = self.load.stop().await;
        story.assert_whole(&self.queues).await;
        story.assert_in_order(&self.queues).await;
        for queue in &self.queues {
            counted(queue).await;
        }
        let gap = self.registry.end().await;
        println!(
            "{} posts were acknowledged, {} calls were refused; the longest time without an \
             acknowledged post was {:?}, without a write of the catalog {gap:?}; the slowest call \
             took {:?}",
            story.acknowledged(),
            story.refused,
            story.longest_gap(),
            story.slowest,
        );
        story
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn when_the_primary_is_killed_nothing_is_lost_and_all_goes_on_by_itself() {
    let mut scene = Scene::start().await;
    let old = scene.servers.primary();
    scene.servers.kill(old);
    let killed = Instant::now();
    scene.goes_on().await;
    println!("after {:?} it went on", killed.elapsed());
    assert_ne!(scene.servers.primary(), old);
    scene.servers.start(old);
    scene.servers.wait_until_whole();
    scene.goes_on().await;
    let story = scene.end().await;
    let most = ELECTION + RECOVERY + SLACK;
    assert!(story.longest_gap() < most, "nothing was posted for {:?}", story.longest_gap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn when_the_primary_steps_down_nothing_is_lost_and_all_goes_on_by_itself() {
    let scene = Scene::start().await;
    for _ in 0..2 {
        let old = scene.servers.step_down();
        scene.goes_on().await;
        assert_ne!(scene.servers.primary(), old);
        scene.servers.wait_until_whole();
    }
    let story = scene.end().await;
    // A new primary is elected at once.
    let most = RECOVERY + SLACK;
    assert!(story.longest_gap() < most, "nothing was posted for {:?}", story.longest_gap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_primary_that_hangs_is_replaced_and_does_no_harm_when_it_goes_on() {
    let scene = Scene::start().await;
    for _ in 0..2 {
        let old = scene.servers.primary();
        scene.servers.pause(old);
        scene.goes_on().await;
        assert_ne!(scene.servers.primary(), old);
        // It considers itself the primary until it hears from the others.
        scene.servers.resume(old);
        scene.goes_on().await;
        scene.servers.wait_until_whole();
    }
    let story = scene.end().await;
    // Commands that were sent to the old primary time out first.
    let most = ELECTION.max(TIMEOUT / 2) + RECOVERY + SLACK;
    assert!(story.longest_gap() < most, "nothing was posted for {:?}", story.longest_gap());
}
