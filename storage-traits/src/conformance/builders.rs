//! Builders of the values that cases use, and common checks.

use std::{fmt::Debug, time::Duration};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::{
    Limit, Result, StoreError,
    domain::{
        AckOutcome, Acknowledgement, Body, ClaimId, ClaimSpec, ClaimTerms, ClientId, Deduplication,
        Delivery, GroupName, Message, MessageId, Metadata, NewMessage, QueueKey,
    },
    pool::ListSpec,
};

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const MINUTE: Duration = Duration::from_mins(1);
pub(super) const HOUR: Duration = Duration::from_hours(1);

/// Time after which a test gives up waiting for an event that must occur, even on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Returns the duration less one millisecond.
pub(super) fn just_before(duration: Duration) -> Duration {
    duration.saturating_sub(MILLISECOND)
}

pub(super) fn key(project: &str, name: &str) -> QueueKey {
    QueueKey { project: project.parse().unwrap(), name: name.parse().unwrap() }
}

pub(super) fn group_name(name: &str) -> GroupName {
    name.parse().unwrap()
}

pub(super) fn metadata(json: &str) -> Metadata {
    Metadata::from_json(json).unwrap()
}

pub fn limit(n: u32) -> Limit {
    Limit::new(n).unwrap()
}

pub(super) fn client(id: &str) -> ClientId {
    ClientId::new(id)
}

/// Returns a message with a ttl of an hour, visible at once.
pub fn message(body: &str) -> NewMessage {
    let body = Body::from_json(Bytes::copy_from_slice(body.as_bytes()));
    NewMessage {
        body,
        ttl: HOUR,
        delivery: Delivery::IMMEDIATE,
        ordering_key: None,
        deduplication: None,
        retained: false,
        checksum: None,
    }
}

/// Returns a [`message`] with an ordering key.
pub fn keyed(key: &str, body: &str) -> NewMessage {
    NewMessage { ordering_key: Some(key.parse().unwrap()), ..message(body) }
}

/// Returns a [`message`] that is retained.
pub fn retained(body: &str) -> NewMessage {
    NewMessage { retained: true, ..message(body) }
}

/// Returns a [`message`] with a delay.
pub fn delayed(body: &str, delay: Duration) -> NewMessage {
    NewMessage { delivery: Delivery::After(delay), ..message(body) }
}

/// Returns a [`message`] with a deduplication id and a window of five minutes.
pub fn deduplicated(id: &str, body: &str) -> NewMessage {
    let deduplication = Deduplication { id: id.parse().unwrap(), window: 5 * MINUTE };
    NewMessage { deduplication: Some(deduplication), ..message(body) }
}

pub fn ack(id: MessageId) -> Acknowledgement {
    Acknowledgement { id, outcome: AckOutcome::Ack }
}

pub fn nack(id: MessageId, delay: Duration) -> Acknowledgement {
    Acknowledgement { id, outcome: AckOutcome::Nack { delay } }
}

/// Selects a page of ready messages.
pub fn list_visible(n: u32) -> ListSpec {
    ListSpec {
        after: None,
        limit: limit(n),
        hide_client: None,
        include_free: true,
        include_claimed: false,
        include_delayed: false,
    }
}

/// Selects a page of messages in any state.
pub fn list_all(n: u32) -> ListSpec {
    ListSpec { include_claimed: true, include_delayed: true, ..list_visible(n) }
}

pub(super) fn terms(ttl: u64, grace: u64) -> ClaimTerms {
    ClaimTerms { ttl: Duration::from_secs(ttl), grace: Duration::from_secs(grace) }
}

/// Returns a claim of 60 seconds with a new id.
pub fn claim_spec(n: u32) -> ClaimSpec {
    let id = ClaimId::random();
    ClaimSpec { id, terms: terms(60, 60), limit: limit(n), dead_letter: None }
}

pub(super) fn ids(messages: &[Message]) -> Vec<MessageId> {
    messages.iter().map(|message| message.id).collect()
}

pub(super) fn texts(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|m| std::str::from_utf8(m.body.as_bytes()).unwrap()).collect()
}

#[track_caller]
pub(super) fn assert_not_found<T: Debug>(result: Result<T>) {
    let error = result.expect_err("the call succeeded");
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
}

/// Runs `n` copies of a task concurrently and returns their results, in no particular order.
pub(super) async fn concurrently<T, F>(n: usize, task: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    (0..n).map(task).collect::<JoinSet<_>>().join_all().await
}
