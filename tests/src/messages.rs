//! What most tests do with messages, in one call each.

use serde_json::{Value, json};

use crate::{Client, post};

/// A claim as its creation answered it.
#[derive(Debug, Clone)]
pub struct Claim {
    pub id: String,
    pub messages: Vec<Value>,
}

impl Claim {
    /// The ids of the messages, in the order of the answer.
    pub fn ids(&self) -> Vec<String> {
        ids(&self.messages)
    }
}

impl Client {
    /// Creates a queue with this metadata.
    pub async fn create_queue(&self, queue: &str, metadata: &Value) {
        self.put(format!("/v2/queues/{queue}"), metadata).await.expect(201, "create the queue");
    }

    /// Posts one message for each body and returns their ids.
    pub async fn post_bodies(
        &self,
        queue: &str,
        bodies: impl IntoIterator<Item = Value>,
    ) -> Vec<String> {
        let messages = bodies.into_iter().map(|body| json!({"body": body, "ttl": 600}));
        self.post_messages(queue, messages).await
    }

    /// Posts these messages and returns their ids.
    pub async fn post_messages(
        &self,
        queue: &str,
        messages: impl IntoIterator<Item = Value>,
    ) -> Vec<String> {
        let messages: Vec<_> = messages.into_iter().collect();
        let body = json!({"messages": messages});
        let posted = self.post(format!("/v2/queues/{queue}/messages"), &body).await;
        let resources = posted.expect(201, "post messages").json()["resources"].clone();
        let resources = resources.as_array().expect("resources are an array").clone();
        let id = |path: &Value| path.as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        resources.iter().map(id).collect()
    }

    /// Lists with this query: the answer with `messages` and `links`.
    pub async fn list(&self, queue: &str, query: &str) -> Value {
        let path = format!("/v2/queues/{queue}/messages?{query}");
        self.get(path).await.expect(200, "list messages").json()
    }

    /// The bodies in a listing with this query.
    pub async fn bodies(&self, queue: &str, query: &str) -> Vec<Value> {
        let listed = self.list(queue, query).await;
        let messages = listed["messages"].as_array().expect("messages are an array");
        messages.iter().map(|message| message["body"].clone()).collect()
    }

    /// Every message that a reader finds page by page, claimed or not, its own or not.
    pub async fn list_all(&self, queue: &str) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        let all_of_it = "limit=20&echo=true&include_claimed=true&include_delayed=true";
        let mut next = Some(format!("/v2/queues/{queue}/messages?{all_of_it}"));
        while let Some(path) = next {
            let page = self.get(path).await.expect(200, "list a page").json();
            all.extend(page["messages"].as_array().unwrap().iter().cloned());
            let links = page["links"].as_array().unwrap();
            next = links.first().map(|link| link["href"].as_str().unwrap().to_owned());
        }
        all
    }

    /// Claims up to `limit` messages with the default ttl and grace; `None` if none is free.
    pub async fn claim(&self, queue: &str, limit: u32) -> Option<Claim> {
        self.claim_with(queue, limit, &json!({})).await
    }

    /// Claims up to `limit` messages.
    pub async fn claim_with(&self, queue: &str, limit: u32, body: &Value) -> Option<Claim> {
        let path = format!("/v2/queues/{queue}/claims?limit={limit}");
        let answer = self.send(post(path).json(body)).await;
        if answer.status == 204 {
            return None;
        }
        let answer = answer.expect(201, "claim messages");
        let location = answer.header("location").expect("a claim has a location");
        let id = location.rsplit('/').next().unwrap().to_owned();
        Some(Claim { id, messages: answer.json()["messages"].as_array().unwrap().clone() })
    }

    /// Gives the messages of a claim back.
    pub async fn release(&self, queue: &str, claim: &str) {
        let path = format!("/v2/queues/{queue}/claims/{claim}");
        self.delete(path).await.expect(204, "release the claim");
    }

    /// Removes and returns up to `count` messages.
    pub async fn pop(&self, queue: &str, count: u32) -> Vec<Value> {
        let path = format!("/v2/queues/{queue}/messages?pop={count}");
        let popped = self.delete(path).await.expect(200, "pop messages").json();
        popped["messages"].as_array().expect("messages are an array").clone()
    }

    /// The three counts of a queue: free, claimed, total.
    pub async fn counts(&self, queue: &str) -> [u64; 3] {
        let stats = self.get(format!("/v2/queues/{queue}/stats")).await.expect(200, "stats").json();
        ["free", "claimed", "total"].map(|key| stats["messages"][key].as_u64().unwrap())
    }
}

fn ids(messages: &[Value]) -> Vec<String> {
    messages.iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect()
}
