//! Listing queues: pages, details, counts and filters.

use serde_json::{Value, json};
use tests::{Client, Row, TestApp, check, get};

async fn with_queues(names: &[&str]) -> Client {
    let client = TestApp::shared().client();
    for name in names {
        client.create_queue(name, &json!({})).await;
    }
    client
}

/// Lists queues with this query. Returns their names and the link to the next page.
async fn names(client: &Client, query: &str) -> (Vec<String>, Option<String>) {
    let listed = client.get(format!("/v2/queues?{query}")).await.expect(200, query).json();
    let name = |queue: &Value| queue["name"].as_str().unwrap().to_owned();
    let names = listed["queues"].as_array().unwrap().iter().map(name).collect();
    let links = listed["links"].as_array().unwrap();
    assert!(links.len() <= 1, "{query}: {links:?}");
    let link = links.first().map(|link| {
        assert_eq!(link["rel"], "next", "{query}");
        link["href"].as_str().unwrap().to_owned()
    });
    (names, link)
}

#[tokio::test]
async fn an_empty_project_lists_no_queues() {
    let client = TestApp::shared().client();
    for query in ["", "?with_count=true", "?detailed=true", "?marker=q", "?name=q"] {
        let listed = client.get(format!("/v2/queues{query}")).await.expect(200, query);
        assert_eq!(listed.json(), json!({"queues": [], "links": []}), "{query:?}");
    }
}

#[tokio::test]
async fn queues_are_sorted_by_name() {
    let client = with_queues(&["b", "a-b", "a", "B", "a.b", "a_b", "10", "9"]).await;
    let sorted = ["10", "9", "B", "a", "a-b", "a.b", "a_b", "b"];
    assert_eq!(names(&client, "").await.0, sorted);
}

#[tokio::test]
async fn a_listed_queue_has_a_name_and_a_path() {
    let client = with_queues(&["q"]).await;
    let listed = client.get("/v2/queues").await.json();
    let href = "/v2/queues?marker=q";
    let expected = json!({
        "queues": [{"name": "q", "href": "/v2/queues/q"}],
        "links": [{"rel": "next", "href": href}],
    });
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn a_page_has_ten_queues_by_default() {
    let all: Vec<_> = (0..25).map(|n| format!("q{n:02}")).collect();
    let client = with_queues(&all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(names(&client, "").await.0, all[..10]);
    assert_eq!(names(&client, "limit=20").await.0, all[..20]);
    assert_eq!(names(&client, "limit=1").await.0, all[..1]);
}

#[tokio::test]
async fn following_the_links_visits_each_queue_once() {
    let all: Vec<_> = (0..7).map(|n| format!("q{n}")).collect();
    let client = with_queues(&all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (mut seen, mut next) = names(&client, "limit=3&detailed=true").await;
    let mut pages = 1;
    while let Some(link) = next {
        let query = link.strip_prefix("/v2/queues?").expect("the link is a path").to_owned();
        let page = names(&client, &query).await;
        seen.extend(page.0);
        next = page.1;
        pages += 1;
    }
    assert_eq!(seen, all);
    assert_eq!(pages, 4, "three pages with queues and an empty one");
}

#[tokio::test]
async fn a_link_repeats_the_parameters_in_a_fixed_order() {
    let client = with_queues(&["q1", "q2", "q3"]).await;
    let links = [
        ("limit=1", "limit=1&marker=q1"),
        ("detailed=1&limit=1", "limit=1&detailed=true&marker=q1"),
        ("limit=1&detailed=off", "limit=1&detailed=false&marker=q1"),
        ("marker=q1&limit=1", "marker=q2&limit=1"),
        ("limit=1&marker=q1", "marker=q2&limit=1"),
        (
            "with_count=yes&name=q&detailed=true&limit=2",
            "limit=2&detailed=true&name=q&with_count=true&marker=q2",
        ),
        ("name=q&with_count=n&limit=1&marker=q2", "marker=q3&limit=1&name=q&with_count=false"),
    ];
    for (query, expected) in links {
        let link = names(&client, query).await.1.expect("a page that is not empty has a link");
        assert_eq!(link, format!("/v2/queues?{expected}"), "{query}");
    }
    client.patch_queue("q1", &json!([{"op": "add", "path": "/metadata/a", "value": 1}])).await;
    let link = names(&client, "a=1&limit=1").await.1.unwrap();
    assert_eq!(link, "/v2/queues?limit=1&marker=q1", "filters are not repeated");
}

#[tokio::test]
async fn a_marker_can_be_any_text() {
    let client = with_queues(&["a", "c", "e"]).await;
    for (marker, expected) in [
        ("a", &["c", "e"][..]),
        ("b", &["c", "e"]),
        ("e", &[]),
        ("z", &[]),
        ("%00", &["a", "c", "e"]),
    ] {
        assert_eq!(names(&client, &format!("marker={marker}")).await.0, expected, "{marker}");
    }
}

#[tokio::test]
async fn details_equal_the_metadata_of_the_queue() {
    let client = TestApp::shared().client();
    client.create_queue("plain", &json!({})).await;
    client.create_queue("rich", &json!({"_default_message_ttl": 99, "a": [1, null]})).await;
    let listed = client.get("/v2/queues?detailed=true").await.expect(200, "list").json();
    for queue in listed["queues"].as_array().unwrap() {
        let shown = client.get(queue["href"].as_str().unwrap()).await.json();
        assert_eq!(queue["metadata"], shown, "{}", queue["name"]);
    }
    let plain = client.get("/v2/queues?detailed=false").await.json();
    assert_eq!(plain["queues"][0].get("metadata"), None);
}

#[tokio::test]
async fn the_count_includes_all_queues_of_the_project() {
    let client = with_queues(&["a1", "a2", "b1"]).await;
    for (query, count) in [
        ("with_count=true", json!(3)),
        ("with_count=true&limit=1", json!(3)),
        ("with_count=true&name=a", json!(3)),
        ("with_count=true&marker=b1", json!(3)),
        ("with_count=false", Value::Null),
        ("", Value::Null),
    ] {
        let listed = client.get(format!("/v2/queues?{query}")).await.json();
        assert_eq!(listed["count"], count, "{query}");
        assert_eq!(listed.get("count").is_some(), !count.is_null(), "{query}");
    }
}

#[tokio::test]
async fn a_name_filter_is_plain_text() {
    let client = with_queues(&["a.b", "a_b", "axb", "ab", "A.B"]).await;
    for (filter, expected) in [
        ("a", &["a.b", "a_b", "ab", "axb"][..]),
        ("b", &["a.b", "a_b", "ab", "axb"]),
        (".", &["A.B", "a.b"]),
        ("_", &["a_b"]),
        ("x", &["axb"]),
        ("a.b", &["a.b"]),
        ("%25", &[]),
        ("a%25b", &[]),
        ("a.*b", &[]),
        ("%5E", &[]),
        ("(", &[]),
        ("*", &[]),
        ("[", &[]),
        ("'", &[]),
        ("zzz", &[]),
    ] {
        assert_eq!(names(&client, &format!("name={filter}")).await.0, expected, "{filter}");
    }
}

#[tokio::test]
async fn other_parameters_filter_by_metadata() {
    let client = TestApp::shared().client();
    let queues = [
        ("a", json!({"team": "blue", "level": 1, "_default_message_ttl": 60})),
        ("b", json!({"team": "blue", "level": "1"})),
        ("c", json!({"team": "red", "level": 1, "_default_message_ttl": 3600})),
        ("d", json!({})),
    ];
    for (name, metadata) in &queues {
        client.create_queue(name, metadata).await;
    }
    for (query, expected) in [
        ("team=blue", &["a", "b"][..]),
        ("team=red", &["c"]),
        ("team=Blue", &[]),
        ("team=bl", &[]),
        ("team=%25", &[]),
        ("level=1", &["a", "c"]),
        ("level=2", &[]),
        ("team=blue&level=1", &["a"]),
        ("team=red&name=a", &[]),
        ("team=blue&name=b", &["b"]),
        ("_default_message_ttl=60", &["a"]),
        ("_default_message_ttl=3600", &["c"]),
        ("unheard=of", &[]),
        ("level=1&marker=a", &["c"]),
    ] {
        assert_eq!(names(&client, query).await.0, expected, "{query}");
    }
}

#[tokio::test]
async fn a_filter_does_not_shorten_a_page() {
    let client = TestApp::shared().client();
    for n in 0..30 {
        let team = if n % 3 == 0 { "blue" } else { "red" };
        client.create_queue(&format!("q{n:02}"), &json!({"team": team})).await;
    }
    let (found, _) = names(&client, "team=blue&limit=8").await;
    assert_eq!(found, ["q00", "q03", "q06", "q09", "q12", "q15", "q18", "q21"]);
}

#[tokio::test]
async fn invalid_parameters_are_refused() {
    let client = with_queues(&["q"]).await;
    let list = |query: &str| get(format!("/v2/queues?{query}"));
    let rows: [Row; 5] = [
        ("limit 0", list("limit=0"), 400, "Invalid API request"),
        ("limit 21", list("limit=21"), 400, "Invalid API request"),
        ("limit as a word", list("limit=all"), 400, "Invalid parameter"),
        ("detailed as a word", list("detailed=very"), 400, "Invalid parameter"),
        ("with_count as a word", list("with_count=please"), 400, "Invalid parameter"),
    ];
    check(&client, rows).await;
    for query in ["team=a,b", "team=a&team=b"] {
        let refused = client.get(format!("/v2/queues?{query}")).await;
        assert_eq!(refused.status, 400, "a filter with two values, {query}: {}", refused.text());
    }
}
