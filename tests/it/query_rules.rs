//! Parsing of query parameters.

use serde_json::json;
use tests::{Client, Row, TestApp, check, delete, get, post};

const BAD_PARAMETER: &str = "Invalid parameter";
const BAD_VALUE: &str = "Invalid API request";

async fn with_messages(count: usize) -> (Client, Vec<String>) {
    let client = TestApp::shared().client();
    let ids = client.post_bodies("q", (0..count).map(|n| json!(n))).await;
    (client, ids)
}

async fn count(client: &Client, query: &str) -> usize {
    client.bodies("q", query).await.len()
}

#[tokio::test]
async fn a_list_can_be_written_in_two_ways() {
    let (client, ids) = with_messages(3).await;
    let (a, b, c) = (&ids[0], &ids[1], &ids[2]);
    let spellings = [
        (format!("ids={a},{b},{c}"), 3),
        (format!("ids={a}&ids={b}&ids={c}"), 3),
        (format!("ids={a},{b}&ids={c}"), 3),
        (format!("ids={a},,{b}"), 2),
        (format!("ids={a}&ids="), 1),
    ];
    for (query, expected) in spellings {
        assert_eq!(count(&client, &query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn an_encoded_comma_does_not_split_a_list() {
    let (client, ids) = with_messages(2).await;
    let path = format!("/v2/queues/q/messages?ids={}%2C{}", ids[0], ids[1]);
    client.get(path).await.expect_error(404, "Not found", "one id that does not exist");
}

#[tokio::test]
async fn the_last_of_several_values_wins() {
    let (client, _) = with_messages(5).await;
    for (query, expected) in [
        ("echo=true&limit=1,2", 2),
        ("echo=true&limit=1&limit=3", 3),
        ("echo=true&limit=nonsense,4", 4),
        ("echo=false,true", 5),
        ("echo=true&echo=false", 0),
    ] {
        assert_eq!(count(&client, query).await, expected, "{query}");
    }
    let last = get("/v2/queues/q/messages?limit=1,nonsense");
    check(&client, [("an invalid last value", last, 400, BAD_PARAMETER)]).await;
}

#[tokio::test]
async fn a_blank_value_is_ignored() {
    let (client, _) = with_messages(3).await;
    let listed = client.list("q", "ids=&limit=&echo=true&marker=&include_claimed=").await;
    assert_eq!(listed["messages"].as_array().unwrap().len(), 3);
    assert!(listed["links"].is_array(), "a list, not a look-up by ids");
    let rows: [Row; 4] = [
        ("blank limit of queues", get("/v2/queues?limit=&marker=&detailed="), 200, ""),
        ("blank limit of a claim", post("/v2/queues/none/claims?limit="), 204, ""),
        ("blank ids to delete", delete("/v2/queues/q/messages?ids="), 400, BAD_VALUE),
        ("blank ids beside pop", delete("/v2/queues/q/messages?ids=&pop=1"), 200, ""),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn a_lone_comma_is_an_empty_list() {
    let (client, _) = with_messages(1).await;
    let rows: [Row; 2] = [
        ("to get", get("/v2/queues/q/messages?ids=,"), 400, BAD_VALUE),
        ("to delete", delete("/v2/queues/q/messages?ids=,"), 400, BAD_VALUE),
    ];
    check(&client, rows).await;
}

#[tokio::test]
async fn integers_are_parsed_like_in_python() {
    let (client, _) = with_messages(12).await;
    for (limit, expected) in
        [("5", 5), ("%205%20", 5), ("%2B5", 5), ("+5", 5), ("005", 5), ("1_1", 11), ("%095", 5)]
    {
        let query = format!("echo=true&limit={limit}");
        assert_eq!(count(&client, &query).await, expected, "{limit}");
    }
    for limit in ["five", "5.0", "0x5", "5e0", "1__1", "_1", "--5", "%00", "true", "5%205"] {
        let paths =
            [format!("/v2/queues?limit={limit}"), format!("/v2/queues/q/messages?limit={limit}")];
        for path in paths {
            client.get(&path).await.expect_error(400, BAD_PARAMETER, &path);
        }
        let claim = format!("/v2/queues/q/claims?limit={limit}");
        client.send(post(&claim)).await.expect_error(400, BAD_PARAMETER, &claim);
        let pop = format!("/v2/queues/q/messages?pop={limit}");
        client.delete(&pop).await.expect_error(400, BAD_PARAMETER, &pop);
    }
}

#[tokio::test]
async fn limits_are_from_1_to_20() {
    let client = TestApp::shared().client();
    for limit in ["0", "-1", "21", "1000000", "-9223372036854775808"] {
        let rows: [Row; 4] = [
            (limit, get(format!("/v2/queues?limit={limit}")), 400, BAD_VALUE),
            (limit, get(format!("/v2/queues/q/messages?limit={limit}")), 400, BAD_VALUE),
            (limit, post(format!("/v2/queues/q/claims?limit={limit}")), 400, BAD_VALUE),
            (limit, delete(format!("/v2/queues/q/messages?pop={limit}")), 400, BAD_VALUE),
        ];
        check(&client, rows).await;
    }
    for limit in ["1", "20"] {
        let rows: [Row; 4] = [
            (limit, get(format!("/v2/queues?limit={limit}")), 200, ""),
            (limit, get(format!("/v2/queues/q/messages?limit={limit}")), 200, ""),
            (limit, post(format!("/v2/queues/q/claims?limit={limit}")), 204, ""),
            (limit, delete(format!("/v2/queues/q/messages?pop={limit}")), 200, ""),
        ];
        check(&client, rows).await;
    }
    let huge = client.get("/v2/queues?limit=99999999999999999999999").await;
    assert_eq!(huge.status, 400, "{}", huge.text());
}

#[tokio::test]
async fn booleans_have_seven_spellings_each() {
    let (client, _) = with_messages(1).await;
    for yes in ["true", "True", "t", "yes", "y", "1", "on"] {
        assert_eq!(count(&client, &format!("echo={yes}")).await, 1, "{yes}");
    }
    for no in ["false", "False", "f", "no", "n", "0", "off"] {
        assert_eq!(count(&client, &format!("echo={no}")).await, 0, "{no}");
    }
    for neither in ["TRUE", "maybe", "2", "-1", "wahr", "true%20", "null"] {
        for parameter in ["echo", "include_claimed", "include_delayed"] {
            let path = format!("/v2/queues/q/messages?{parameter}={neither}");
            client.get(&path).await.expect_error(400, BAD_PARAMETER, &path);
        }
        for parameter in ["detailed", "with_count"] {
            let path = format!("/v2/queues?{parameter}={neither}");
            client.get(&path).await.expect_error(400, BAD_PARAMETER, &path);
        }
    }
}

#[tokio::test]
async fn unknown_parameters_are_ignored() {
    let (client, ids) = with_messages(1).await;
    assert_eq!(count(&client, "echo=true&colour=blue").await, 1);
    let rows: [Row; 3] = [
        ("get", get(format!("/v2/queues/q/messages/{}?colour=blue", ids[0])), 200, ""),
        ("claim", post("/v2/queues/q/claims?colour=blue"), 201, ""),
        ("stats", get("/v2/queues/q/stats?colour=blue&colour=red"), 200, ""),
    ];
    check(&client, rows).await;
}
