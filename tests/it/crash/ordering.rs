//! Consumers of a group that fail and stop, and a server that is killed while they work: within
//! each ordering key, messages are handled for the first time in the order in which they were
//! posted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Client, Response, TestApp, post, put};
use tokio::sync::watch;
use tokio::task::JoinSet;

const KEYS: usize = 50;
const MESSAGES_PER_KEY: usize = 20;
const CONSUMERS: u64 = 20;
/// The server is killed when so many messages are handled.
const KILLS: [usize; 3] = [100, 200, 300];
/// How many consumers abandon a claim. Its messages return when the claim expires.
const ABANDONED_CLAIMS: usize = 10;
/// The shortest ttl of a claim, in seconds.
const CLAIM_TTL: u64 = 60;
const GROUP: &str = "/v2/queues/ordered/groups/workers";

/// What the consumers have done so far.
#[derive(Default)]
struct Progress {
    /// The numbers of the messages handled successfully, by key, in the order of the first time.
    handled: Mutex<BTreeMap<String, Vec<u64>>>,
    abandoned: AtomicUsize,
}

impl Progress {
    fn record(&self, key: &str, number: u64) {
        let mut handled = self.handled.lock().unwrap();
        let numbers = handled.entry(key.to_owned()).or_default();
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }

    /// Returns whether one more claim may be abandoned.
    fn may_abandon(&self) -> bool {
        self.abandoned.fetch_add(1, Ordering::Relaxed) < ABANDONED_CLAIMS
    }

    fn handled(&self) -> usize {
        self.handled.lock().unwrap().values().map(Vec::len).sum()
    }
}

/// Random numbers that are the same in every run.
struct SeededRng(u64);

impl SeededRng {
    /// Returns a number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        // Knuth's linear congruential generator. Its upper bits are more random than the lower
        // ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

struct Consumer {
    client: Client,
    rng: SeededRng,
    progress: Arc<Progress>,
    /// The number of handled messages, for the test that kills the server.
    handled: Arc<watch::Sender<usize>>,
    /// The number of restarts of the server.
    restarts: watch::Receiver<usize>,
}

impl Consumer {
    async fn run(mut self) {
        while self.progress.handled() < KEYS * MESSAGES_PER_KEY {
            let limit = 1 + self.rng.below(3);
            let path = format!("{GROUP}/claims?limit={limit}&wait=1");
            let claimed_at = Instant::now();
            let (response, _) = self.call(path, &json!({"ttl": CLAIM_TTL, "grace": 60})).await;
            if response.status != 204 {
                self.handle(&response.expect(201, "claim").json(), claimed_at).await;
            }
        }
    }

    /// Calls the server, and again after a restart if it was killed. Returns whether it did so.
    async fn call(&mut self, path: String, body: &Value) -> (Response, bool) {
        let mut repeated = false;
        loop {
            if let Ok(response) = self.client.try_send(post(&path).json(body)).await {
                return (response, repeated);
            }
            // The restart is announced after the new server has started.
            self.restarts.changed().await.expect("the server is restarted");
            self.client = self.client.reconnected();
            repeated = true;
        }
    }

    async fn handle(&mut self, claim: &Value, claimed_at: Instant) {
        let mut failed_keys = Vec::new();
        for message in claim["messages"].as_array().unwrap() {
            let (id, key) = (&message["id"], message["ordering_key"].as_str().unwrap());
            let delay = self.rng.below(2);
            let mut acknowledgement = match self.rng.below(100) {
                0..=2 if self.progress.may_abandon() => return,
                // Later messages of a key wait for the one that failed.
                _ if failed_keys.contains(&key) => json!({"failed": [{"id": id}]}),
                3..=15 => {
                    failed_keys.push(key);
                    json!({"failed": [{"id": id, "delay": delay}]})
                }
                _ => {
                    self.progress.record(key, message["body"].as_u64().unwrap());
                    self.handled.send_replace(self.progress.handled());
                    json!({"acknowledged": [id]})
                }
            };
            acknowledgement["claim_id"] = claim["claim_id"].clone();
            let call = self.call(format!("{GROUP}/acknowledge"), &acknowledgement);
            let (response, repeated) = call.await;
            let results = response.expect(200, "acknowledge").json();
            // The first of two repeated calls may have succeeded, and a claim may have expired on a
            // machine that is very slow.
            let expired = claimed_at.elapsed() >= Duration::from_secs(CLAIM_TTL);
            let not_held = results["results"][0]["result"] == "not_held";
            assert!(!not_held || repeated || expired, "{results}");
        }
    }
}

#[tokio::test]
async fn messages_of_a_key_are_handled_in_order_despite_crashes() {
    let mut app = TestApp::start();
    let client = app.client();
    client.post_messages("ordered", (0..KEYS).map(|key| message(key, 0))).await;
    client.send(put(GROUP).json(&json!({"start": "start"}))).await.expect(201, "group");
    for number in 1..MESSAGES_PER_KEY {
        client.post_messages("ordered", (0..KEYS).map(|key| message(key, number))).await;
    }

    let progress = Arc::new(Progress::default());
    let (handled, mut handled_count) = watch::channel(0);
    let (handled, (restart, restarts)) = (Arc::new(handled), watch::channel(0));
    let mut consumers = JoinSet::new();
    for number in 0..CONSUMERS {
        let (client, rng) = (client.reconnected(), SeededRng(number));
        let (progress, handled) = (Arc::clone(&progress), Arc::clone(&handled));
        let restarts = restarts.clone();
        consumers.spawn(Consumer { client, rng, progress, handled, restarts }.run());
    }
    for (number, kill) in KILLS.into_iter().enumerate() {
        handled_count.wait_for(|handled| *handled >= kill).await.unwrap();
        app.kill();
        app.restart();
        restart.send_replace(number + 1);
    }
    consumers.join_all().await;
    let all: Vec<u64> = (0..MESSAGES_PER_KEY as u64).collect();
    for (key, numbers) in &*progress.handled.lock().unwrap() {
        assert_eq!(*numbers, all, "{key}");
    }
}

fn message(key: usize, number: usize) -> Value {
    json!({"body": number, "ttl": 3600, "ordering_key": format!("key-{key}")})
}
