//! Servers that are started late, killed, or hang.

use std::time::{Duration, Instant};

use storage_traits::{
    StoreError,
    conformance::faults::{
        DEADLINE, Load, answered, claim_spec, counted, message, soon, until_it_works,
    },
};
use test_servers::mongo::Mongo;
use tokio::time::interval;

use crate::pools::node_of;

/// The timeout of a call in these tests.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long a call takes at most: it may wait for another one for twice the timeout, some calls are
/// several, and a busy machine takes longer.
const ANSWER: Duration = Duration::from_secs(6);

fn uri(server: &Mongo) -> String {
    let uri = server.uri();
    let mark = if uri.contains('?') { '&' } else { '?' };
    format!("{uri}{mark}timeoutMS={}", TIMEOUT.as_millis())
}

/// Runs a call that must end in time.
async fn in_time<T>(what: &str, call: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let answer = soon(call).await;
    assert!(start.elapsed() < ANSWER, "{what} took {:?}", start.elapsed());
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pool_opens_before_its_server_does_and_works_when_it_does() {
    let mut server = Mongo::replica_set(1, &[]);
    server.kill(0);
    let pool = in_time("opening", node_of(&uri(&server))).await;
    let queue = pool.unopened("project", "orders");
    let opened = in_time("an opening", pool.pool.open_queue(&queue.queue)).await;
    assert!(matches!(opened, Err(StoreError::Unavailable { .. })), "{opened:?}");
    let posted = in_time("a post", queue.try_post(vec![message("1")])).await;
    assert_eq!(answered(posted), None);
    assert_eq!(answered(in_time("a claim", queue.try_claim(&claim_spec(1))).await), None);
    assert_eq!(answered(in_time("a sweep", pool.pool.sweep(pool.now())).await), None);
    assert_eq!(answered(in_time("a check", pool.pool.check()).await), None);

    server.start(0);
    server.wait_until_whole();
    let (start, mut ticks) = (Instant::now(), interval(Duration::from_millis(10)));
    // The pool creates its indexes first.
    while answered(pool.pool.open_queue(&queue.queue).await).is_none() {
        assert!(start.elapsed() < DEADLINE, "it never opens");
        ticks.tick().await;
    }
    until_it_works(&queue).await;
    assert_eq!(counted(&queue).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_all_members_are_down_calls_fail_in_time_and_later_all_goes_on() {
    let mut servers = Mongo::replica_set(3, &[]);
    let pool = node_of(&uri(&servers)).await;
    let queues = [pool.queue().await, pool.queue().await];
    let probe = pool.queue().await;
    let load = Load::start(&queues, 2);
    load.acknowledges(100).await;
    for member in 0..3 {
        servers.kill(member);
    }
    load.refuses(20).await;
    let posted = in_time("a post", probe.try_post(vec![message("1")])).await;
    assert_eq!(answered(posted), None);
    assert_eq!(answered(in_time("a claim", queues[0].try_claim(&claim_spec(1))).await), None);
    assert_eq!(answered(in_time("a sweep", pool.pool.sweep(pool.now())).await), None);
    assert_eq!(answered(in_time("a check", pool.pool.check()).await), None);
    for member in 0..3 {
        servers.start(member);
    }
    servers.wait_until_whole();
    let start = Instant::now();
    load.acknowledges(100).await;
    println!("it goes on {:?} after the servers", start.elapsed());
    until_it_works(&probe).await;
    let story = load.stop().await;
    println!("the slowest call took {:?}; {} were refused", story.slowest, story.refused);
    assert!(story.slowest < ANSWER, "a call took {:?}", story.slowest);
    story.assert_whole(&queues).await;
    story.assert_in_order(&queues).await;
    for queue in &queues {
        counted(queue).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pool_closes_in_time_though_its_server_is_gone() {
    let mut server = Mongo::standalone(&[]);
    let pool = node_of(&uri(&server)).await;
    let queues = [pool.queue().await];
    let load = Load::start(&queues, 4);
    load.acknowledges(100).await;
    server.kill(0);
    load.refuses(12).await;
    in_time("closing", pool.pool.close()).await;
    assert_eq!(answered(queues[0].try_post(vec![message("1")]).await), None);
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_to_a_hung_server_end_in_time_and_it_is_used_again() {
    let server = Mongo::standalone(&[]);
    let pool = node_of(&uri(&server)).await;
    let (queues, probe) = ([pool.queue().await], pool.queue().await);
    let load = Load::start(&queues, 2);
    for _ in 0..2 {
        load.acknowledges(50).await;
        server.pause(0);
        // Each client has one call in flight: then half of them have begun a second one.
        load.refuses(15).await;
        assert_eq!(answered(in_time("a check", pool.pool.check()).await), None);
        assert_eq!(answered(in_time("a sweep", pool.pool.sweep(pool.now())).await), None);
        server.resume(0);
        let recovery = until_it_works(&probe).await;
        println!("it is used again after {recovery:?}");
    }
    load.acknowledges(50).await;
    let story = load.stop().await;
    println!("the slowest call took {:?}; {} were refused", story.slowest, story.refused);
    assert!(story.slowest < ANSWER, "a call took {:?}", story.slowest);
    story.assert_whole(&queues).await;
    story.assert_in_order(&queues).await;
    counted(&queues[0]).await;
}
