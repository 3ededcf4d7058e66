//! Random requests: the server answers each complete one, never with a 5xx, and keeps serving.

mod json;
mod requests;

use std::cell::Cell;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::Value;
use tests::{Client, Connection, TestApp, connect_and_send};
use tokio::runtime::{Builder, Runtime};

/// How long each of the three tests runs.
const BUDGET: Duration = Duration::from_secs(5);

/// Tests random values until the time budget is used up.
fn for_a_while<T: std::fmt::Debug>(
    strategy: &impl Strategy<Value = T>,
    test: impl Fn(T) -> Result<(), TestCaseError>,
) {
    let start = Instant::now();
    let config = Config {
        cases: 20_000,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..Config::default()
    };
    let timed = |value| if start.elapsed() < BUDGET { test(value) } else { Ok(()) };
    if let Err(failure) = TestRunner::new(config).run(strategy, timed) {
        panic!("{failure}");
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime can be built")
}

/// Starts a server with short timeouts for incomplete requests.
fn server_with_short_timeouts() -> TestApp {
    TestApp::builder().set("HTTP__HEADER_TIMEOUT", "2s").set("HTTP__BODY_TIMEOUT", "2s").start()
}

/// Sends bytes, half-closes the connection and returns the status of the first answer, if any.
async fn status_of(client: &Client, bytes: &[u8]) -> Result<Option<u16>, TestCaseError> {
    let connection = Connection::open(client.address()).await;
    let mut connection = connection.map_err(|error| TestCaseError::fail(error.to_string()))?;
    // The server may close the connection before it has read everything.
    let _ = connection.send(bytes).await;
    let _ = connection.finish().await;
    Ok(connection.response().await.map(|response| response.status))
}

/// Asserts that the server still serves requests and never panicked.
fn assert_sound(runtime: &Runtime, app: &TestApp) {
    runtime.block_on(async {
        let client = app.client();
        client.post_bodies("q", [serde_json::json!(1)]).await;
        assert_eq!(client.pop("q", 1).await.len(), 1);
    });
    assert!(!app.log().contains("panicked"), "{}", app.log());
}

#[test]
fn any_json_comes_back_as_it_was_posted() {
    let (runtime, client, round) = (runtime(), TestApp::shared().client(), Cell::new(0));
    for_a_while(&vec(json::any_json(), 1..5), |bodies| {
        // The server returns the text; parsing it may change the last digit of a float.
        let reread = |body: &Value| serde_json::from_str::<Value>(&body.to_string()).unwrap();
        let expected: Vec<_> = bodies.iter().map(reread).collect();
        round.set(round.get() + 1);
        let queue = format!("q{}", round.get());
        let listed = runtime.block_on(async {
            client.post_bodies(&queue, bodies).await;
            client.bodies(&queue, "echo=true").await
        });
        prop_assert_eq!(listed, expected);
        Ok(())
    });
}

#[test]
fn every_odd_request_is_answered() {
    let (runtime, app) = (runtime(), server_with_short_timeouts());
    let client = app.client();
    let known = runtime.block_on(requests::known_ids(&client));
    for_a_while(&requests::odd_requests(&client, known), |bytes| {
        let status = runtime.block_on(status_of(&client, &bytes))?;
        // The request is complete, so it is answered, also to a client that half-closed.
        prop_assert!(
            status.is_some_and(|status| status < 500),
            "{:?} to {}",
            status,
            bytes.escape_ascii()
        );
        Ok(())
    });
    assert_sound(&runtime, &app);
}

#[test]
fn broken_requests_do_not_break_the_server() {
    let (runtime, app) = (runtime(), server_with_short_timeouts());
    let client = app.client();
    let noise = vec(any::<u8>(), 0..2000);
    let strategy = prop_oneof![9 => broken_requests(&client), 1 => noise];
    for_a_while(&strategy, |bytes| {
        let status = runtime.block_on(status_of(&client, &bytes))?;
        // Two errors of the protocol itself are in the range of server errors.
        let fine = |status| status < 500 || matches!(status, 501 | 505);
        prop_assert!(status.is_none_or(fine), "{:?}", status);
        Ok(())
    });
    assert_sound(&runtime, &app);
}

#[test]
fn every_partial_request_is_refused_or_cut_off_in_time() {
    let app = TestApp::builder()
        .set("HTTP__HEADER_TIMEOUT", "1s")
        .set("HTTP__BODY_TIMEOUT", "1s")
        .set("HTTP__WRITE_TIMEOUT", "1s")
        // Longer than the test waits: closing idle connections must not hide a missing timeout.
        .set("HTTP__KEEP_ALIVE", "10m")
        .start();
    let (runtime, client) = (runtime(), app.client());
    let partial = |request: Vec<u8>| {
        (1..request.len()).step_by(13).map(move |end| request[..end].to_vec()).collect::<Vec<_>>()
    };
    let parts: Vec<_> = requests::good_requests(&client).into_iter().flat_map(partial).collect();
    assert!(parts.len() > 100, "the requests are long enough");
    runtime.block_on(async {
        let mut connections = Vec::new();
        for part in &parts {
            connections.push(connect_and_send(&client, part).await);
        }
        for (connection, part) in connections.iter_mut().zip(&parts) {
            let sent = connection.until_closed().await;
            assert!(
                sent.is_empty() || sent.starts_with(b"HTTP/1.1 4"),
                "{} to {}",
                sent.escape_ascii(),
                part.escape_ascii()
            );
        }
    });
    assert_sound(&runtime, &app);
}

/// Valid requests in which some bytes are changed, added or removed.
fn broken_requests(client: &Client) -> impl Strategy<Value = Vec<u8>> + use<> {
    let seeds = requests::good_requests(client);
    let changes = vec((any::<Index>(), 0..3u8, any::<u8>()), 1..8);
    (select(seeds), changes).prop_map(|(mut bytes, changes)| {
        for (place, change, byte) in changes {
            let place = place.index(bytes.len());
            match change {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                _ => drop(bytes.remove(place)),
            }
        }
        bytes
    })
}
