//! Listing messages: pages, markers and filters.

use serde_json::{Value, json};
use tests::{Row, TestApp, check, get};

/// Returns the bodies on a page and the link to the next page.
fn page(listed: &Value) -> (Vec<i64>, Option<&str>) {
    let messages = listed["messages"].as_array().unwrap();
    let bodies = messages.iter().map(|message| message["body"].as_i64().unwrap()).collect();
    let links = listed["links"].as_array().unwrap();
    assert_eq!(links.len(), usize::from(!messages.is_empty()), "one link unless the page is empty");
    (bodies, links.first().map(|link| link["href"].as_str().unwrap()))
}

#[tokio::test]
async fn an_empty_queue_lists_no_messages() {
    let client = TestApp::shared().client();
    client.create_queue("empty", &json!({})).await;
    for queue in ["empty", "missing"] {
        let listed = client.list(queue, "echo=true").await;
        assert_eq!(listed, json!({"messages": [], "links": []}), "{queue}");
    }
    let queues = client.get("/v2/queues").await.json();
    assert_eq!(queues["queues"].as_array().unwrap().len(), 1, "listing creates nothing");
}

#[tokio::test]
async fn messages_are_listed_oldest_first() {
    let client = TestApp::shared().client();
    for n in 0..12 {
        client.post_bodies("q", [json!(2 * n), json!(2 * n + 1)]).await;
    }
    let listed = client.list("q", "echo=true&limit=20").await;
    assert_eq!(page(&listed).0, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_page_has_ten_messages_by_default() {
    let client = TestApp::shared().client();
    client.post_bodies("q", (0..25).map(|n| json!(n))).await;
    for (query, length) in [("echo=true", 10), ("echo=true&limit=20", 20), ("echo=true&limit=1", 1)]
    {
        let listed = client.list("q", query).await;
        assert_eq!(page(&listed).0, (0..length).collect::<Vec<_>>(), "{query}");
    }
}

#[tokio::test]
async fn following_the_links_visits_each_message_once() {
    let client = TestApp::shared().client();
    client.post_bodies("q", (0..10).map(|n| json!(n))).await;
    let mut next = Some("/v2/queues/q/messages?limit=4&echo=true".to_owned());
    let mut pages = Vec::new();
    while let Some(path) = next {
        let listed = client.get(path).await.expect(200, "a page").json();
        let (bodies, link) = page(&listed);
        pages.push(bodies);
        next = link.map(str::to_owned);
    }
    assert_eq!(pages, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9], vec![]]);
}

#[tokio::test]
async fn a_link_repeats_the_parameters_in_a_fixed_order() {
    let client = TestApp::shared().client();
    client.create_queue("delayed", &json!({"_default_message_delay": 1})).await;
    let message = |n: i32| json!({"body": n, "delay": 0});
    let mut ids = Vec::new();
    for queue in ["plain", "delayed"] {
        ids.push(client.post_messages(queue, (0..3).map(message)).await);
    }
    let reader = client.other_client();
    let cases = [
        ("plain", "limit=1", "limit=1&include_delayed=true&marker={0}"),
        ("plain", "", "include_delayed=true&marker={2}"),
        (
            "plain",
            "include_claimed=1&echo=yes&limit=2",
            "limit=2&echo=true&include_claimed=true&include_delayed=true&marker={1}",
        ),
        (
            "plain",
            "include_delayed=false&limit=1&echo=off",
            "limit=1&echo=false&include_delayed=true&marker={0}",
        ),
        ("plain", "limit=1&marker={0}", "marker={1}&limit=1&include_delayed=true"),
        ("delayed", "limit=1", "limit=1&marker={0}"),
        ("delayed", "limit=1&include_delayed=t", "limit=1&include_delayed=true&marker={0}"),
        (
            "delayed",
            "include_delayed=f&limit=1&marker={0}",
            "marker={1}&limit=1&include_delayed=false",
        ),
    ];
    for (queue, query, expected) in cases {
        let ids = &ids[usize::from(queue == "delayed")];
        let fill = |text: &str| {
            (0..3).fold(text.to_owned(), |text, n| text.replace(&format!("{{{n}}}"), &ids[n]))
        };
        let listed = reader.list(queue, &fill(query)).await;
        let link = page(&listed).1.expect("messages are listed");
        assert_eq!(link, format!("/v2/queues/{queue}/messages?{}", fill(expected)), "{query}");
    }
}

#[tokio::test]
async fn a_marker_is_a_message_id() {
    let client = TestApp::shared().client();
    let ids = client.post_bodies("q", (0..5).map(|n| json!(n))).await;
    for (n, id) in ids.iter().enumerate() {
        let listed = client.list("q", &format!("echo=true&marker={id}")).await;
        let expected: Vec<_> = (i64::try_from(n).unwrap() + 1..5).collect();
        assert_eq!(page(&listed).0, expected, "after message {n}");
    }
}

#[tokio::test]
async fn the_marker_of_a_deleted_message_is_valid() {
    let client = TestApp::shared().client();
    let ids = client.post_bodies("q", (0..5).map(|n| json!(n))).await;
    client.delete(format!("/v2/queues/q/messages/{}", ids[1])).await.expect(204, "delete");
    let listed = client.list("q", &format!("echo=true&marker={}", ids[1])).await;
    assert_eq!(page(&listed).0, [2, 3, 4]);
}

#[tokio::test]
async fn an_unknown_marker_lists_nothing() {
    let client = TestApp::shared().client();
    let ids = client.post_bodies("q", (0..3).map(|n| json!(n))).await;
    let elsewhere = client.post_bodies("other", (0..3).map(|n| json!(n))).await;
    let markers = [
        "zz".to_owned(),
        "0".to_owned(),
        "-1".to_owned(),
        "%20".to_owned(),
        "%C3%A9".to_owned(),
        "%00".to_owned(),
        "0".repeat(32),
        "f".repeat(32),
        "0".repeat(31),
        "g".repeat(32),
        "9".repeat(400),
        elsewhere[0].clone(),
        format!("{}0", ids[0]),
        ids[0].to_uppercase() + "!",
    ];
    for marker in markers {
        let listed = client.list("q", &format!("echo=true&marker={marker}")).await;
        assert_eq!(listed, json!({"messages": [], "links": []}), "{marker}");
    }
}

#[tokio::test]
async fn a_clients_own_messages_are_listed_only_with_echo() {
    let client = TestApp::shared().client();
    client.post_bodies("q", [json!("mine")]).await;
    client.other_client().post_bodies("q", [json!("theirs")]).await;
    for (query, expected) in
        [("", &["theirs"][..]), ("echo=false", &["theirs"]), ("echo=true", &["mine", "theirs"])]
    {
        assert_eq!(client.bodies("q", query).await, expected, "{query}");
    }
    assert_eq!(client.other_client().bodies("q", "").await, ["mine"]);
}

#[tokio::test]
async fn spellings_of_a_client_id_are_equivalent() {
    let client = TestApp::shared().client();
    let plain = client.id("3381af92de4a4e61a8d2dcf9bafa9427");
    plain.post_bodies("q", [json!(1)]).await;
    let decorated = client.id("urn:uuid:3381AF92-DE4A-4E61-A8D2-DCF9BAFA9427");
    assert!(decorated.bodies("q", "").await.is_empty());
}

#[tokio::test]
async fn claimed_messages_are_listed_only_with_include_claimed() {
    let client = TestApp::shared().client();
    client.post_bodies("q", (0..4).map(|n| json!(n))).await;
    client.claim("q", 2).await.expect("messages are free");
    let reader = client.other_client();
    for (query, expected) in [
        ("", &[2, 3][..]),
        ("include_claimed=false", &[2, 3]),
        ("include_claimed=true", &[0, 1, 2, 3]),
        ("include_claimed=true&limit=3", &[0, 1, 2]),
    ] {
        assert_eq!(page(&reader.list("q", query).await).0, expected, "{query}");
    }
    let own = client.list("q", "include_claimed=true&echo=false").await;
    assert_eq!(page(&own).0, Vec::<i64>::new(), "echo=false still hides own messages");
}

#[tokio::test]
async fn hidden_messages_do_not_shorten_a_page() {
    let client = TestApp::shared().client();
    let other = client.other_client();
    for n in 0..40 {
        let poster = if n % 4 == 0 { &other } else { &client };
        poster.post_bodies("q", [json!(n)]).await;
    }
    let listed = client.list("q", "limit=5").await;
    assert_eq!(page(&listed).0, [0, 4, 8, 12, 16]);
}

#[tokio::test]
async fn invalid_parameters_are_refused() {
    let client = TestApp::shared().client();
    let list = |query: &str| get(format!("/v2/queues/q/messages?{query}"));
    let rows: [Row; 7] = [
        ("limit 0", list("limit=0"), 400, "Invalid API request"),
        ("limit -1", list("limit=-1"), 400, "Invalid API request"),
        ("limit 21", list("limit=21"), 400, "Invalid API request"),
        ("limit as a word", list("limit=all"), 400, "Invalid parameter"),
        ("echo as a word", list("echo=loud"), 400, "Invalid parameter"),
        ("include_claimed as a word", list("include_claimed=x"), 400, "Invalid parameter"),
        ("include_delayed as a word", list("include_delayed=x"), 400, "Invalid parameter"),
    ];
    check(&client, rows).await;
}
