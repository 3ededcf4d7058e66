//! One client of the API: a connection, a queue, the requests it can make, and what it counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{Method, Uri};

use crate::answers;
use crate::client::{Answer, Connection};
use crate::tally::{Op, Tally};

/// A queue's addresses, parsed once.
pub(crate) struct Queue {
    path: String,
    messages: Uri,
    first_page: Uri,
    claims: Uri,
}

impl Queue {
    /// `claim_limit` is how many messages its consumers claim at a time.
    pub(crate) fn new(name: &str, claim_limit: u64) -> Result<Arc<Self>> {
        let path = format!("/v2/queues/{name}");
        Ok(Arc::new(Self {
            messages: format!("{path}/messages").parse()?,
            first_page: format!("{path}/messages?limit=10").parse()?,
            claims: format!("{path}/claims?limit={claim_limit}").parse()?,
            path,
        }))
    }

    /// The same, whose consumers wait for a second where there is nothing to claim.
    pub(crate) fn patient(name: &str, claim_limit: u64) -> Result<Arc<Self>> {
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
    /// How many there are.
    pub(crate) fn messages(&self) -> u64 {
        length(answers::ids(&self.body))
    }

    /// The moments that the messages were marked with when posted.
    pub(crate) fn stamps(&self) -> impl Iterator<Item = Duration> {
        answers::stamps(&self.body)
    }
}

pub(crate) struct Worker {
    connection: Connection,
    queue: Arc<Queue>,
    until: Instant,
    tally: Tally,
}

impl Worker {
    pub(crate) fn new(connection: Connection, queue: &Arc<Queue>, until: Instant) -> Self {
        Self { connection, queue: Arc::clone(queue), until, tally: Tally::default() }
    }

    pub(crate) fn has_time(&self) -> bool {
        Instant::now() < self.until
    }

    pub(crate) fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    pub(crate) fn into_tally(self) -> Tally {
        self.tally
    }

    pub(crate) fn first_page(&self) -> Uri {
        self.queue.first_page.clone()
    }

    /// Posts `messages` messages at once.
    pub(crate) async fn post(&mut self, body: Bytes, messages: u64) -> Result<()> {
        let (answer, taken) = self.send(Method::POST, self.queue.messages.clone(), body).await?;
        self.count(Op::Post, answer.status, 201, messages, taken);
        Ok(())
    }

    /// Reads a page; returns where to read on: from the start again behind the last page.
    pub(crate) async fn list(&mut self, page: Uri) -> Result<Uri> {
        let (answer, taken) = self.send(Method::GET, page, Bytes::new()).await?;
        let messages = length(answers::ids(&answer.body));
        self.count(Op::List, answer.status, 200, messages, taken);
        Ok(answers::next_page(&answer.body).unwrap_or_else(|| self.first_page()))
    }

    /// Claims messages; `None` if none is free. After an error, a claim of nothing.
    pub(crate) async fn claim(&mut self) -> Result<Option<Claimed>> {
        let terms = Bytes::from_static(br#"{"ttl":300,"grace":60}"#);
        let (answer, taken) = self.send(Method::POST, self.queue.claims.clone(), terms).await?;
        if answer.status == 204 {
            self.tally.record(Op::EmptyClaim, 0, taken);
            return Ok(None);
        }
        let at = Instant::now();
        let Answer { status, location, body } = answer;
        let claimed = Claimed { at, location, body };
        self.count(Op::Claim, status, 201, claimed.messages(), taken);
        Ok(Some(claimed))
    }

    /// Deletes what was claimed, in one request.
    pub(crate) async fn delete(&mut self, claimed: &Claimed) -> Result<()> {
        let ids: Vec<&str> = answers::ids(&claimed.body).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let path = format!("{}/messages?ids={}", self.queue.path, ids.join(","));
        self.delete_at(path, length(ids.iter())).await
    }

    /// Deletes what was claimed, one by one and under the claim's protection.
    pub(crate) async fn delete_singly(&mut self, claimed: &Claimed) -> Result<()> {
        let Some(location) = &claimed.location else { return Ok(()) };
        let (_, claim) = location.to_str()?.rsplit_once('/').context("a claim without an id")?;
        for id in answers::ids(&claimed.body) {
            let path = format!("{}/messages/{id}?claim_id={claim}", self.queue.path);
            self.delete_at(path, 1).await?;
        }
        Ok(())
    }

    async fn delete_at(&mut self, path: String, messages: u64) -> Result<()> {
        let path = Uri::try_from(path)?;
        let (answer, taken) = self.send(Method::DELETE, path, Bytes::new()).await?;
        self.count(Op::Delete, answer.status, 204, messages, taken);
        Ok(())
    }

    async fn send(&mut self, method: Method, path: Uri, body: Bytes) -> Result<(Answer, Duration)> {
        let begun = Instant::now();
        let answer = self.connection.send(method, path, body).await?;
        Ok((answer, begun.elapsed()))
    }

    fn count(&mut self, op: Op, status: u16, wanted: u16, messages: u64, taken: Duration) {
        if status == wanted {
            self.tally.record(op, messages, taken);
        } else {
            self.tally.error(op, status);
        }
    }
}

fn length<T>(items: impl Iterator<Item = T>) -> u64 {
    items.fold(0, |count, _| count + 1)
}
