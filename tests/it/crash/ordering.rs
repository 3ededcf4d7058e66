//! Consumers of a group that fail and die, and a server that is killed under them: in each key,
//! messages are handled for the first time in the order in which they were posted.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tests::{Answer, Client, TestApp, post};
use tokio::{sync::watch, task::JoinSet};

const KEYS: usize = 50;
/// Messages with each key.
const EACH: usize = 20;
const CONSUMERS: u64 = 20;
/// After so many handled messages the server is killed.
const KILLS: [usize; 3] = [100, 200, 300];
/// How many consumers die with what they have claimed, which comes back when a minute is over, the
/// shortest that a claim can hold.
const DEATHS: usize = 10;
const GROUP: &str = "/v2/queues/ordered/groups/workers";

/// What was handled successfully, by key, in the order of its first time; and how often a consumer
/// has wanted to die.
#[derive(Default)]
struct Book(Mutex<BTreeMap<String, Vec<u64>>>, AtomicUsize);

impl Book {
    fn note(&self, key: &str, number: u64) {
        let mut book = self.0.lock().unwrap();
        let numbers = book.entry(key.to_owned()).or_default();
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }

    /// Whether one more consumer may die.
    fn may_die(&self) -> bool {
        self.1.fetch_add(1, Ordering::Relaxed) < DEATHS
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().values().map(Vec::len).sum()
    }
}

/// Chance that is the same in every run.
struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn throw(&mut self, sides: u64) -> u64 {
        // Knuth's generator; its upper bits are the better ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

struct Consumer {
    client: Client,
    dice: Dice,
    book: Arc<Book>,
    /// How many messages are handled, for all to see.
    progress: Arc<watch::Sender<usize>>,
    /// The lives of the server.
    lives: watch::Receiver<usize>,
}

impl Consumer {
    async fn work(mut self) {
        while self.book.count() < KEYS * EACH {
            let limit = 1 + self.dice.throw(3);
            let path = format!("{GROUP}/claims?limit={limit}&wait=1");
            let (answer, _) = self.call(path, &json!({"ttl": 60, "grace": 60})).await;
            if answer.status != 204 {
                self.handle(answer.expect(201, "claim").json()).await;
            }
        }
    }

    /// Calls the server, and again if it was killed; says whether it had to.
    async fn call(&mut self, path: String, body: &Value) -> (Answer, bool) {
        let mut again = false;
        loop {
            if let Ok(answer) = self.client.try_send(post(&path).json(body)).await {
                return (answer, again);
            }
            // There is another one by the time that this is told.
            self.lives.changed().await.expect("the server lives again");
            self.client = self.client.reconnected();
            again = true;
        }
    }

    async fn handle(&mut self, claim: Value) {
        let mut failed = Vec::new();
        for message in claim["messages"].as_array().unwrap() {
            let (id, key) = (&message["id"], message["ordering_key"].as_str().unwrap());
            let delay = self.dice.throw(2);
            let mut said = match self.dice.throw(100) {
                0..=2 if self.book.may_die() => return, // another takes its place
                _ if failed.contains(&key) => json!({"failed": [{"id": id}]}),
                3..=15 => {
                    failed.push(key); // what is later in the key has to wait
                    json!({"failed": [{"id": id, "delay": delay}]})
                }
                _ => {
                    self.book.note(key, message["body"].as_u64().unwrap());
                    self.progress.send_replace(self.book.count());
                    json!({"acknowledged": [id]})
                }
            };
            said["claim_id"] = claim["claim_id"].clone();
            let (answer, again) = self.call(format!("{GROUP}/acknowledge"), &said).await;
            let results = answer.expect(200, "acknowledge").json();
            let result = &results["results"][0]["result"];
            // Of what was said twice, the first time may have been heard.
            assert!(result != "not_held" || again, "{results}");
        }
    }
}

#[tokio::test]
async fn in_each_key_what_is_handled_is_in_order_whoever_is_killed() {
    let mut app = TestApp::start();
    let client = app.client();
    client.post(GROUP.replace("/groups/workers", "/messages"), &first()).await.expect(201, "post");
    client.send(tests::put(GROUP).json(&json!({"start": "start"}))).await.expect(201, "group");
    for number in 1..EACH {
        let messages = (0..KEYS).map(|key| message(key, number));
        client.post_messages("ordered", messages).await;
    }

    let book = Arc::new(Book::default());
    let (progress, mut handled) = watch::channel(0);
    let (progress, (life, lives)) = (Arc::new(progress), watch::channel(0));
    let mut consumers = JoinSet::new();
    for number in 0..CONSUMERS {
        let (client, dice, book) = (client.reconnected(), Dice(number), Arc::clone(&book));
        let (progress, lives) = (Arc::clone(&progress), lives.clone());
        consumers.spawn(Consumer { client, dice, book, progress, lives }.work());
    }
    for (number, kill) in KILLS.into_iter().enumerate() {
        handled.wait_for(|handled| *handled >= kill).await.unwrap();
        app.kill();
        app.start_again();
        life.send_replace(number + 1);
    }
    while let Some(ended) = consumers.join_next().await {
        ended.unwrap();
    }
    let all: Vec<u64> = (0..EACH as u64).collect();
    for (key, numbers) in &*book.0.lock().unwrap() {
        assert_eq!(*numbers, all, "{key}");
    }
}

fn message(key: usize, number: usize) -> Value {
    json!({"body": number, "ttl": 3600, "ordering_key": format!("key-{key}")})
}

fn first() -> Value {
    json!({"messages": (0..KEYS).map(|key| message(key, 0)).collect::<Vec<_>>()})
}
