//! A message as its bucket stores it.

use std::time::Duration;

use mongodb::bson::{RawDocument, Uuid, deserialize_from_slice};
use serde::{Deserialize, Serialize};
use storage_traits::{
    Result,
    domain::{
        Body, ClaimId, ClientId, Incarnation, Message, MessageId, NewMessage, OrderingKey, Origin,
        Sequence, Timestamp,
    },
};

use crate::error::unexpected;

/// The delivery state of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) enum State {
    /// Can be claimed; has no ordering key.
    #[default]
    #[serde(rename = "r")]
    Ready,
    /// Not visible yet, or waiting for a retry.
    #[serde(rename = "d")]
    Delayed,
    /// Held by a claim.
    #[serde(rename = "c")]
    Claimed,
    /// Can be claimed if its ordering key is available.
    #[serde(rename = "k")]
    ReadyKeyed,
    /// In the retention log: kept for groups that are created or moved back later.
    #[serde(rename = "t")]
    Retained,
}

/// A message without its position and its body. Field names are short, because each message repeats
/// them; default values are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredMessage {
    #[serde(rename = "s", default, skip_serializing_if = "is_ready")]
    pub(super) state: State,
    #[serde(rename = "e")]
    pub(super) expires_at: i64,
    #[serde(rename = "p")]
    pub(super) posted_at: i64,
    /// When it becomes visible, if that is not the time of the post.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub(super) visible: Option<i64>,
    /// Seconds.
    #[serde(rename = "t")]
    pub(super) ttl: i64,
    /// When the claim that holds it expires.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub(super) claim_expires_at: Option<i64>,
    /// The claim that holds it, or the last one that expired while holding it.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub(super) claim: Option<Uuid>,
    #[serde(rename = "n", default, skip_serializing_if = "is_zero")]
    pub(super) claim_count: i64,
    #[serde(rename = "c")]
    pub(super) client: String,
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<String>,
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub(super) checksum: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_ready(state: &State) -> bool {
    *state == State::Ready
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl StoredMessage {
    /// Creates a message that is posted at `now`, in its initial state.
    pub(super) fn new(client: &ClientId, message: &NewMessage, now: Timestamp) -> Self {
        let (visible_at, expires_at) = message.lifetime(now);
        let mut message = Self {
            state: State::Ready,
            expires_at: expires_at.as_millis(),
            posted_at: now.as_millis(),
            visible: None,
            ttl: whole_seconds(message.ttl),
            claim_expires_at: None,
            claim: None,
            claim_count: 0,
            client: client.as_str().to_owned(),
            key: message.ordering_key.as_ref().map(|key| key.as_str().to_owned()),
            origin: None,
            checksum: message.checksum.clone(),
        };
        message.set_visible_at(visible_at.as_millis());
        message.state = message.initial_state(now);
        message
    }

    /// Returns the state of a message that was never claimed.
    pub(super) fn initial_state(&self, now: Timestamp) -> State {
        if self.visible_at() > now.as_millis() { State::Delayed } else { self.ready_state() }
    }

    /// Returns the state of a message that can be claimed.
    pub(super) const fn ready_state(&self) -> State {
        if self.key.is_some() { State::ReadyKeyed } else { State::Ready }
    }

    pub(super) fn visible_at(&self) -> i64 {
        self.visible.unwrap_or(self.posted_at)
    }

    pub(super) fn set_visible_at(&mut self, time: i64) {
        self.visible = (time != self.posted_at).then_some(time);
    }

    pub(super) fn claim(&self) -> Option<ClaimId> {
        self.claim.map(|id| ClaimId::from_bytes(id.bytes()))
    }

    pub(super) fn set_claim(&mut self, claim: Option<ClaimId>) {
        self.claim = claim.map(|id| Uuid::from_bytes(id.to_bytes()));
    }

    /// Returns the live claim that holds it.
    pub(super) fn holder(&self, now: Timestamp) -> Option<ClaimId> {
        let held = self.state == State::Claimed && self.next_transition() > now.as_millis();
        self.claim().filter(|_| held)
    }

    /// Returns when time alone makes it ready or expires it.
    pub(super) fn next_transition(&self) -> i64 {
        let transition = match self.state {
            State::Delayed => self.visible_at(),
            State::Claimed => self.claim_expires_at.unwrap_or(self.expires_at),
            _ => self.expires_at,
        };
        transition.min(self.expires_at)
    }

    pub(super) const fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at <= now.as_millis()
    }

    /// Returns whether it blocks its ordering key: it is claimed, or waits for a retry.
    pub(super) fn is_in_flight(&self) -> bool {
        self.state == State::Claimed || (self.state == State::Delayed && self.claim_count > 0)
    }

    /// Returns whether it is not visible yet and was never claimed.
    pub(super) fn is_scheduled(&self, now: Timestamp) -> bool {
        self.state == State::Delayed && self.claim_count == 0 && self.visible_at() > now.as_millis()
    }

    pub(super) fn read(raw: &RawDocument) -> Result<Self> {
        deserialize_from_slice(raw.as_bytes()).map_err(unexpected)
    }

    /// Returns the message with this body.
    pub(super) fn to_message(
        &self,
        queue: Incarnation,
        sequence: i64,
        body: Body,
    ) -> Result<Message> {
        Ok(Message {
            id: message_id(queue, sequence)?,
            posted_at: Timestamp::from_millis(self.posted_at),
            visible_at: Timestamp::from_millis(self.visible_at()),
            expires_at: Timestamp::from_millis(self.expires_at),
            ttl: seconds(self.ttl),
            claim: self.claim(),
            claim_count: u32::try_from(self.claim_count).unwrap_or(u32::MAX),
            client: ClientId::new(&self.client),
            ordering_key: self.key.as_deref().map(OrderingKey::from_store),
            origin: self.origin.as_deref().and_then(Origin::from_text),
            checksum: self.checksum.clone(),
            body,
        })
    }
}

pub(super) fn message_id(queue: Incarnation, sequence: i64) -> Result<MessageId> {
    let sequence =
        Sequence::new(sequence).ok_or_else(|| unexpected("the queue has used up its sequence"))?;
    Ok(MessageId { incarnation: queue, sequence })
}

/// Converts a count to the type that is stored.
pub(super) fn to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn seconds(number: i64) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or(0))
}

pub(super) fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
