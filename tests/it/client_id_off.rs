//! Client ids that are not UUIDs, if configured.

use serde_json::json;
use tests::{Row, TestApp, check, get};

const BAD: &str = "Wrong UUID value";

#[tokio::test]
async fn any_text_of_the_right_length_is_a_client_id() {
    let app = TestApp::builder().set("COMPAT__CLIENT_ID_UUID_SAFE", "off").start();
    let client = app.client();
    let of = |id: &str| get("/v2/queues").header("client-id", id);
    let (most, too_long) = ("x".repeat(36), "x".repeat(37));
    let rows: [Row; 8] = [
        ("10 characters", of("consumer-1"), 200, ""),
        ("36 characters", of(&most), 200, ""),
        ("signs", of("a b%c*d/e.f'g\"h"), 200, ""),
        ("a UUID", of("3381af92-de4a-4e61-a8d2-dcf9bafa9427"), 200, ""),
        ("9 characters", of("consumer1"), 400, BAD),
        ("37 characters", of(&too_long), 400, BAD),
        (
            "a decorated UUID is too long",
            of("urn:uuid:3381af92-de4a-4e61-a8d2-dcf9bafa9427"),
            400,
            BAD,
        ),
        ("none", get("/v2/queues").without("client-id"), 400, "Missing header value"),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn the_lengths_can_be_configured() {
    let app = TestApp::builder()
        .set("COMPAT__CLIENT_ID_UUID_SAFE", "off")
        .set("LIMITS__MIN_LENGTH_CLIENT_ID", "3")
        .set("LIMITS__MAX_LENGTH_CLIENT_ID", "5")
        .start();
    let of = |id: &str| get("/v2/queues").header("client-id", id);
    let rows: [Row; 4] = [
        ("3 characters", of("abc"), 200, ""),
        ("5 characters", of("abcde"), 200, ""),
        ("2 characters", of("ab"), 400, BAD),
        ("6 characters", of("abcdef"), 400, BAD),
    ];
    check(&app.client(), rows).await;
}

#[tokio::test]
async fn client_ids_that_are_not_uuids_identify_the_poster() {
    let app = TestApp::builder().set("COMPAT__CLIENT_ID_UUID_SAFE", "off").start();
    let (one, two) = (app.client().id("consumer-one"), app.client().id("CONSUMER-ONE"));
    let two = two.project(one.sends("x-project-id"));
    one.post_bodies("q", [json!(1)]).await;
    two.post_bodies("q", [json!(2)]).await;
    assert_eq!(one.bodies("q", "").await, [2]);
    assert_eq!(two.bodies("q", "").await, [1]);
}
