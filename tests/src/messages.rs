//! Operations on messages that many tests need.

use serde_json::{Value, json};

use crate::call::post;
use crate::client::Client;

/// A claim as the response to its creation describes it.
#[derive(Debug, Clone)]
pub struct Claim {
    pub id: String,
    pub messages: Vec<Value>,
}

impl Claim {
    /// Returns the ids of the messages, in their order in the response.
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

    /// Lists messages with this query. Returns the response with `messages` and `links`.
    pub async fn list(&self, queue: &str, query: &str) -> Value {
        let path = format!("/v2/queues/{queue}/messages?{query}");
        self.get(path).await.expect(200, "list messages").json()
    }

    /// Lists messages with this query and returns their bodies.
    pub async fn bodies(&self, queue: &str, query: &str) -> Vec<Value> {
        let listed = self.list(queue, query).await;
        let messages = listed["messages"].as_array().expect("messages are an array");
        messages.iter().map(|message| message["body"].clone()).collect()
    }

    /// Lists all messages page by page, including claimed and delayed ones and the client's own.
    pub async fn list_all(&self, queue: &str) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        let query = "limit=20&echo=true&include_claimed=true&include_delayed=true";
        let mut next = Some(format!("/v2/queues/{queue}/messages?{query}"));
        while let Some(path) = next {
            let page = self.get(path).await.expect(200, "list a page").json();
            all.extend(page["messages"].as_array().unwrap().iter().cloned());
            let links = page["links"].as_array().unwrap();
            next = links.first().map(|link| link["href"].as_str().unwrap().to_owned());
        }
        all
    }

    /// Claims up to `limit` messages with the default ttl and grace. Returns `None` if none is
    /// free.
    pub async fn claim(&self, queue: &str, limit: u32) -> Option<Claim> {
        self.claim_with(queue, limit, &json!({})).await
    }

    /// Claims up to `limit` messages with the ttl and grace in `body`.
    pub async fn claim_with(&self, queue: &str, limit: u32, body: &Value) -> Option<Claim> {
        let path = format!("/v2/queues/{queue}/claims?limit={limit}");
        let response = self.send(post(path).json(body)).await;
        if response.status == 204 {
            return None;
        }
        let response = response.expect(201, "claim messages");
        let location = response.header("location").expect("a claim has a location");
        let id = location.rsplit('/').next().unwrap().to_owned();
        Some(Claim { id, messages: response.json()["messages"].as_array().unwrap().clone() })
    }

    /// Releases a claim.
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

    /// Returns the counts of a queue's messages: free, claimed, total.
    pub async fn counts(&self, queue: &str) -> [u64; 3] {
        let stats = self.get(format!("/v2/queues/{queue}/stats")).await.expect(200, "stats").json();
        ["free", "claimed", "total"].map(|key| stats["messages"][key].as_u64().unwrap())
    }
}

fn ids(messages: &[Value]) -> Vec<String> {
    messages.iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect()
}
