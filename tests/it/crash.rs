//! A server that is killed at any moment keeps every change that it acknowledged.

mod acknowledgements;

mod consumers;
mod holders;
mod posters;

mod ordering;
mod redriving;

pub(crate) use acknowledgements::Acknowledgements;

use test_servers::mongo::Mongo;
use tests::TestApp;

/// How often the server is killed.
const ROUNDS: u32 = 40;

#[tokio::test]
async fn acknowledged_changes_survive_kills() {
    kill_repeatedly(TestApp::start(), ROUNDS).await;
}

#[tokio::test]
async fn acknowledged_changes_survive_kills_on_mongodb() {
    let server = Mongo::replica_set(1, &[]);
    let uri = server.uri_of("chapar");
    let app = TestApp::builder().set("CATALOG__URI", &uri).set("POOL__URI", &uri).start();
    kill_repeatedly(app, ROUNDS / 2).await;
}

async fn kill_repeatedly(mut app: TestApp, rounds: u32) {
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
        app.restart();
        if round % 5 == 4 {
            app.kill();
            app.restart();
        }

        client = client.reconnected();
        posted.verify(&client).await;
        consumed.verify(&client).await;
        // The oldest claim shows whether its age survives, the newest whether its messages do.
        for claim in held.first().into_iter().chain(held.last()) {
            claim.verify(&client).await;
        }
    }
    for claim in held {
        claim.verify(&client).await;
        claim.release(&client).await;
    }
}
