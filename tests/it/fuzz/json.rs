//! Random JSON, and JSON that resembles valid request bodies.

use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

pub(super) fn any_json() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let nested = |inner: BoxedStrategy<Value>| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            hash_map(".{0,10}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    };
    leaf.prop_recursive(5, 40, 5, nested).boxed()
}

/// Values at and around the limits of the API, and random values.
fn odd_value() -> BoxedStrategy<Value> {
    let edges = vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(59),
        json!(60),
        json!(43_200),
        json!(43_201),
        json!(1_209_600),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e300),
        json!(60.5),
        json!(""),
        json!("60"),
        json!([]),
        json!({}),
        json!(["messages"]),
        json!("\u{0}"),
        json!("q"),
        json!({"_max_claim_count": 1}),
    ];
    prop_oneof![3 => select(edges), 1 => any_json()].boxed()
}

fn odd_key() -> impl Strategy<Value = String> {
    let keys = [
        "_max_messages_post_size",
        "_default_message_ttl",
        "_default_message_delay",
        "_dead_letter_queue",
        "_dead_letter_queue_messages_ttl",
        "_max_claim_count",
        "_enable_encrypt_messages",
        "_flavor",
        "_retry_policy",
        "own",
        "",
        "a/b",
        "a~b",
    ];
    select(keys.map(str::to_owned).to_vec())
}

/// Bodies of the shape that some call expects, with odd values.
pub(super) fn odd_body() -> BoxedStrategy<Vec<u8>> {
    let message = (odd_value(), odd_value(), odd_value())
        .prop_map(|(body, ttl, delay)| json!({"body": body, "ttl": ttl, "delay": delay}));
    let messages = vec(prop_oneof![3 => message, 1 => odd_value()], 0..4)
        .prop_map(|messages| json!({"messages": messages}));
    let claim =
        (odd_value(), odd_value()).prop_map(|(ttl, grace)| json!({"ttl": ttl, "grace": grace}));
    let purge = odd_value().prop_map(|types| json!({"resource_types": types}));
    let metadata = hash_map(odd_key(), odd_value(), 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()));
    let op = select(vec!["add", "replace", "remove", "move", ""]);
    let root = select(vec!["/metadata/", "/METADATA/", "/", "", "/x/y/", "/metadata/~"]);
    let operation = (op, root, odd_key(), odd_value()).prop_map(
        |(op, root, key, value)| json!({"op": op, "path": format!("{root}{key}"), "value": value}),
    );
    let operations = vec(prop_oneof![4 => operation, 1 => odd_value()], 0..4).prop_map(Value::from);
    let json = prop_oneof![messages, claim, purge, metadata, operations, any_json()];
    let text = json.prop_map(|json| json.to_string().into_bytes());
    let cut = (text.clone(), any::<prop::sample::Index>()).prop_map(|(mut text, end)| {
        text.truncate(end.index(text.len() + 1));
        text
    });
    prop_oneof![6 => text, 1 => cut, 1 => vec(any::<u8>(), 0..300)].boxed()
}
