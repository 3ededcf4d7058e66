//! A server that is killed at any moment keeps what it acknowledged.

mod consumers;
mod holders;
mod ordering;
mod posters;
mod redriving;

use std::sync::Arc;

use test_servers::mongo::Mongo;
use tests::TestApp;
use tokio::sync::Semaphore;

/// How often the server is killed.
const ROUNDS: u32 = 40;

/// Counts acknowledged changes, so that the kill comes while many are under way.
#[derive(Clone)]
struct Acknowledgements(Arc<Semaphore>);

impl Acknowledgements {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    fn count_one(&self) {
        self.0.add_permits(1);
    }

    async fn wait_for(&self, count: u32) {
        self.0.acquire_many(count).await.expect("nobody closes it").forget();
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_being_killed_again_and_again() {
    kill_again_and_again(TestApp::start(), ROUNDS).await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_on_mongodb() {
    let server = Mongo::replica_set(1, &[]);
    let uri = server.uri_of("chapar");
    let app = TestApp::builder().set("CATALOG__URI", &uri).set("POOL__URI", &uri).start();
    kill_again_and_again(app, ROUNDS / 2).await;
}

async fn kill_again_and_again(mut app: TestApp, rounds: u32) {
    let mut client = app.client();
    let mut held = Vec::new();
    for round in 0..rounds {
        let consumed = consumers::prepare(&client, &format!("consumed-{round}")).await;
        held.push(holders::hold(&client, &format!("held-{round}")).await);
        let acknowledged = Acknowledgements::new();
        let posters = posters::start(&client, &format!("posted-{round}"), &acknowledged);
        let consumers = consumed.start(&client, &acknowledged);
        acknowledged.wait_for(round * 29 % 120).await;

        app.kill();
        let (posted, consumed) = (posters.finish().await, consumers.finish().await);
        app.start_again();
        if round % 5 == 4 {
            app.kill();
            app.start_again();
        }

        client = client.reconnected();
        posted.verify(&client).await;
        consumed.verify(&client).await;
        // The oldest claim shows that time goes on, the newest that nothing is forgotten.
        for claim in held.first().into_iter().chain(held.last()) {
            claim.verify(&client).await;
        }
    }
    for claim in held {
        claim.verify(&client).await;
        claim.release(&client).await;
    }
}
