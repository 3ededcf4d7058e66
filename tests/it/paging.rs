//! A reader that follows the markers sees each message once while others post.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::{Value, json};
use tests::{Client, DEADLINE, TestApp};
use tokio::task::JoinSet;

const WRITERS: u64 = 8;
const POSTS: u64 = 25;

/// Posts batches of one to three messages, numbered from 0.
async fn write(client: Client, writer: u64) -> Vec<String> {
    let (mut ids, mut number) = (Vec::new(), 0);
    for post in 0..POSTS {
        let batch: Vec<_> = (0..=post % 3).map(|n| json!([writer, number + n])).collect();
        number += batch.len() as u64;
        ids.extend(client.post_bodies("q", batch).await);
    }
    ids
}

/// Lists the page after this marker.
async fn page(client: &Client, marker: Option<&str>) -> Vec<Value> {
    let marker = marker.map(|marker| format!("&marker={marker}")).unwrap_or_default();
    let listed = client.list("q", &format!("limit=20&echo=true{marker}")).await;
    listed["messages"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_reader_sees_each_message_once_during_posts() {
    let client = TestApp::shared().client();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(client.other_client(), writer));
    }
    let (start, mut seen, mut written): (_, Vec<Value>, _) = (Instant::now(), vec![], vec![]);
    loop {
        while let Some(ids) = writers.try_join_next() {
            written.extend(ids.unwrap());
        }
        let all_written = writers.is_empty();
        let marker = seen.last().map(|message| message["id"].as_str().unwrap().to_owned());
        let messages = page(&client, marker.as_deref()).await;
        if messages.is_empty() && all_written {
            break;
        }
        seen.extend(messages);
        assert!(start.elapsed() < DEADLINE, "the reader did not reach the end");
    }

    let ids: Vec<_> = seen.iter().map(|message| message["id"].as_str().unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "ids are listed in ascending order");
    written.sort();
    assert_eq!(ids, written, "each posted message was listed once");
    let mut next = HashMap::new();
    for message in &seen {
        let body = message["body"].as_array().unwrap();
        let expected = next.entry(body[0].as_u64().unwrap()).or_insert(0);
        assert_eq!(body[1].as_u64().unwrap(), *expected, "the order of writer {}", body[0]);
        *expected += 1;
    }
    let again = client.list_all("q").await;
    let again: Vec<_> = again.iter().map(|message| message["id"].as_str().unwrap()).collect();
    assert_eq!(again, ids, "a second reader sees the same order");
}
