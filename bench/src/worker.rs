//! One client of the API: its connection, queue, requests and statistics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{Method, Uri};

use crate::client::{Connection, Response};
use crate::responses;
use crate::stats::{Op, Stats};

/// The URIs of a queue, parsed once.
pub(crate) struct Queue {
    path: String,
    messages: Uri,
    first_page: Uri,
    claims: Uri,
}

impl Queue {
    /// Returns a queue whose consumers claim up to `claim_limit` messages at a time.
    pub(crate) fn new(name: &str, claim_limit: u64) -> Result<Arc<Self>> {
        let path = format!("/v2/queues/{name}");
        Ok(Arc::new(Self {
            messages: format!("{path}/messages").parse()?,
            first_page: format!("{path}/messages?limit=10").parse()?,
            claims: format!("{path}/claims?limit={claim_limit}").parse()?,
            path,
        }))
    }

    /// Returns a queue whose consumers also wait up to a second for a message.
    pub(crate) fn long_polling(name: &str, claim_limit: u64) -> Result<Arc<Self>> {
        let mut queue = Self::new(name, claim_limit)?;
        if let Some(queue) = Arc::get_mut(&mut queue) {
            queue.claims = format!("{}&wait=1", queue.claims).parse()?;
        }
        Ok(queue)
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

/// Messages reserved by a claim.
pub(crate) struct Claimed {
    pub(crate) at: Instant,
    location: Option<HeaderValue>,
    body: Bytes,
}

impl Claimed {
    /// Returns the number of messages.
    pub(crate) fn messages(&self) -> u64 {
        length(responses::ids(&self.body))
    }

    /// Returns the times of posting that the messages contain.
    pub(crate) fn stamps(&self) -> impl Iterator<Item = Duration> {
        responses::stamps(&self.body)
    }
}

pub(crate) struct Worker {
    connection: Connection,
    queue: Arc<Queue>,
    until: Instant,
    stats: Stats,
}

impl Worker {
    pub(crate) fn new(connection: Connection, queue: &Arc<Queue>, until: Instant) -> Self {
        Self { connection, queue: Arc::clone(queue), until, stats: Stats::default() }
    }

    pub(crate) fn has_time(&self) -> bool {
        Instant::now() < self.until
    }

    pub(crate) fn stats(&mut self) -> &mut Stats {
        &mut self.stats
    }

    pub(crate) fn into_stats(self) -> Stats {
        self.stats
    }

    pub(crate) fn first_page(&self) -> Uri {
        self.queue.first_page.clone()
    }

    /// Posts `messages` messages in one request.
    pub(crate) async fn post(&mut self, body: Bytes, messages: u64) -> Result<()> {
        let (response, taken) = self.send(Method::POST, self.queue.messages.clone(), body).await?;
        self.count(Op::Post, response.status, 201, messages, taken);
        Ok(())
    }

    /// Lists a page. Returns the next page, or the first one after the last.
    pub(crate) async fn list(&mut self, page: Uri) -> Result<Uri> {
        let (response, taken) = self.send(Method::GET, page, Bytes::new()).await?;
        let messages = length(responses::ids(&response.body));
        self.count(Op::List, response.status, 200, messages, taken);
        Ok(responses::next_page(&response.body).unwrap_or_else(|| self.first_page()))
    }

    /// Claims messages. Returns `None` if none is free, and an empty claim after an error.
    pub(crate) async fn claim(&mut self) -> Result<Option<Claimed>> {
        let terms = Bytes::from_static(br#"{"ttl":300,"grace":60}"#);
        let (response, taken) = self.send(Method::POST, self.queue.claims.clone(), terms).await?;
        if response.status == 204 {
            self.stats.record(Op::EmptyClaim, 0, taken);
            return Ok(None);
        }
        let at = Instant::now();
        let Response { status, location, body } = response;
        let claimed = Claimed { at, location, body };
        self.count(Op::Claim, status, 201, claimed.messages(), taken);
        Ok(Some(claimed))
    }

    /// Deletes the claimed messages in one request.
    pub(crate) async fn delete(&mut self, claimed: &Claimed) -> Result<()> {
        let ids: Vec<&str> = responses::ids(&claimed.body).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let path = format!("{}/messages?ids={}", self.queue.path, ids.join(","));
        self.delete_at(path, length(ids.iter())).await
    }

    /// Deletes the claimed messages one by one, with the id of the claim.
    pub(crate) async fn delete_singly(&mut self, claimed: &Claimed) -> Result<()> {
        let Some(location) = &claimed.location else { return Ok(()) };
        let (_, claim) = location.to_str()?.rsplit_once('/').context("a claim without an id")?;
        for id in responses::ids(&claimed.body) {
            let path = format!("{}/messages/{id}?claim_id={claim}", self.queue.path);
            self.delete_at(path, 1).await?;
        }
        Ok(())
    }

    async fn delete_at(&mut self, path: String, messages: u64) -> Result<()> {
        let path = Uri::try_from(path)?;
        let (response, taken) = self.send(Method::DELETE, path, Bytes::new()).await?;
        self.count(Op::Delete, response.status, 204, messages, taken);
        Ok(())
    }

    async fn send(
        &mut self,
        method: Method,
        path: Uri,
        body: Bytes,
    ) -> Result<(Response, Duration)> {
        let begun = Instant::now();
        let response = self.connection.send(method, path, body).await?;
        Ok((response, begun.elapsed()))
    }

    fn count(&mut self, op: Op, status: u16, wanted: u16, messages: u64, taken: Duration) {
        if status == wanted {
            self.stats.record(op, messages, taken);
        } else {
            self.stats.error(op, status);
        }
    }
}

fn length<T>(items: impl Iterator<Item = T>) -> u64 {
    items.fold(0, |count, _| count + 1)
}
