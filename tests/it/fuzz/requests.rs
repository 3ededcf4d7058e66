//! Complete requests with odd paths, queries, headers and bodies.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;
use tests::{Client, PATCH_TYPE};

use super::json::odd_body;

/// Creates a queue, messages and a claim, and returns their ids, so that requests reach the store.
pub(super) async fn known_ids(client: &Client) -> Vec<String> {
    let mut ids = client.post_bodies("q", (0..20).map(|n| json!(n))).await;
    ids.truncate(3);
    ids.push(client.claim("q", 2).await.expect("messages are free").id);
    ids.push("q".to_owned());
    ids
}

/// Returns a request with the client's identity, the given headers and the given body.
fn request(client: &Client, line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nClient-ID: {}\r\nX-Project-ID: {}\r\n\
         Content-Length: {}\r\n{headers}\r\n",
        client.sends("client-id"),
        client.sends("x-project-id"),
        body.len(),
    );
    [head.as_bytes(), body].concat()
}

pub(super) fn good_requests(client: &Client) -> Vec<Vec<u8>> {
    let patch_type = format!("Content-Type: {PATCH_TYPE}\r\n");
    let operations = b"[{\"op\":\"add\",\"path\":\"/metadata/a\",\"value\":1}]";
    vec![
        request(client, "GET /", "Accept: application/json\r\n", b""),
        request(client, "GET /v2/queues?limit=5&detailed=true&name=q&with_count=1", "", b""),
        request(client, "PUT /v2/queues/q", "", b"{\"_default_message_ttl\":300,\"a\":[1,null]}"),
        request(client, "PATCH /v2/queues/q", &patch_type, operations),
        request(
            client,
            "POST /v2/queues/q/messages",
            "",
            b"{\"messages\":[{\"body\":{\"a\":[1.5,\"x\"]},\"ttl\":60},{\"body\":null}]}",
        ),
        request(client, "GET /v2/queues/q/messages?limit=3&echo=true&include_claimed=on", "", b""),
        request(client, "POST /v2/queues/q/claims?limit=2", "", b"{\"ttl\":60,\"grace\":60}"),
        request(client, "DELETE /v2/queues/q/messages?pop=1", "", b""),
        request(client, "GET /v2/queues/q/stats", "", b""),
        request(client, "POST /v2/queues/q/purge", "", b"{\"resource_types\":[\"messages\"]}"),
    ]
}

pub(super) fn odd_requests(
    client: &Client,
    known: Vec<String>,
) -> impl Strategy<Value = Vec<u8>> + use<> {
    let client = client.clone();
    let methods = vec!["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"];
    let parts = (select(methods), odd_path(known), odd_query(), odd_headers(), odd_body());
    parts.prop_map(move |(method, path, query, headers, body)| {
        request(&client, &format!("{method} {path}{query}"), &headers, &body)
    })
}

/// A path segment or query value: an existing id, an odd text or a random one.
fn odd_text(known: Vec<String>) -> BoxedStrategy<String> {
    let odd = [
        "",
        "0",
        "-1",
        "1",
        "20",
        "21",
        "99999999999999999999",
        "true",
        "maybe",
        "a,b,,c",
        ",",
        "%2C",
        "%",
        "%0",
        "%00",
        "%0A",
        "%20",
        "%FF",
        "%C3%A9",
        "%25",
        "..",
        ".",
        "*",
        "'",
        "\"",
        "%22%27--",
        "{q}",
        "~",
        "+",
        "a.b-c_d",
    ];
    let long = ["0", "f", "x", "%41", "%FF"].map(|part| part.repeat(32));
    let fixed: Vec<_> = odd.map(str::to_owned).into_iter().chain(long).collect();
    let known = if known.is_empty() { vec!["q".to_owned()] } else { known };
    prop_oneof![
        2 => select(known),
        2 => select(fixed),
        1 => "[0-9a-f]{32}",
        1 => "[!-~&&[^ ?#]]{0,12}",
        1 => "(%[0-9a-fA-F]{2}){0,8}",
    ]
    .boxed()
}

fn odd_path(known: Vec<String>) -> BoxedStrategy<String> {
    let text = odd_text(known);
    let below = select(vec![
        "",
        "/",
        "/stats",
        "/purge",
        "/messages",
        "/claims",
        "/subscriptions",
        "/share",
    ]);
    let item = select(vec!["messages", "claims", "subscriptions"]);
    let queue = prop_oneof![2 => Just("q".to_owned()), 1 => text.clone()];
    prop_oneof![
        4 => (queue.clone(), below).prop_map(|(queue, below)| format!("/v2/queues/{queue}{below}")),
        4 => (queue, item, text.clone())
            .prop_map(|(queue, item, id)| format!("/v2/queues/{queue}/{item}/{id}")),
        2 => Just("/v2/queues".to_owned()),
        1 => vec(text, 0..5).prop_map(|segments| format!("/{}", segments.join("/"))),
    ]
    .boxed()
}

fn odd_query() -> BoxedStrategy<String> {
    let keys = vec![
        "marker",
        "limit",
        "detailed",
        "name",
        "with_count",
        "echo",
        "include_claimed",
        "include_delayed",
        "ids",
        "pop",
        "claim_id",
        "claim_ids",
        "own",
        "_default_message_ttl",
        "",
    ];
    let pair =
        (select(keys), odd_text(Vec::new())).prop_map(|(key, value)| format!("{key}={value}"));
    vec(pair, 0..4)
        .prop_map(
            |pairs| if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) },
        )
        .boxed()
}

fn odd_headers() -> BoxedStrategy<String> {
    let names = vec![
        "Accept",
        "Content-Type",
        "X-Roles",
        "X-User-ID",
        "X-Tenant-ID",
        "URL-Signature",
        "EXTRA-SPEC",
        "Origin",
        "Range",
        "If-Match",
        "X-Forwarded-For",
        "Cookie",
        "Accept-Encoding",
        "X-HTTP-Method-Override",
    ];
    let header =
        (select(names), "[ -~]{0,40}").prop_map(|(name, value)| format!("{name}: {value}\r\n"));
    let patch = Just(format!("Content-Type: {PATCH_TYPE}\r\n"));
    prop_oneof![
        3 => Just(String::new()),
        3 => patch,
        2 => vec(header, 1..4).prop_map(|headers| headers.concat()),
    ]
    .boxed()
}
