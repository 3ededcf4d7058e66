//! How messages are stored: a stream has the header and the body of each; a queue or group that has
//! changed a message has its delivery state. The functions read the same; see `lua/message.lua`.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use storage_traits::{
    Limit, Result,
    domain::{
        Body, ClaimId, ClientId, Incarnation, Message, MessageId, NewMessage, OrderingKey, Origin,
        Sequence, Timestamp,
    },
};

use super::reply::Reply;
use crate::{
    error::unexpected,
    library::constants::{
        FLAG_DEAD_LETTER, FLAG_KEYED, FLAG_RETAINED, FORMAT_V1, NEVER, SHORT_DELIVERY_BYTE,
    },
};

/// Longest duration that is stored, in seconds; longer ones are cut to it.
const MAX_SECONDS: u64 = (1 << 40) - 1;

/// Returns a time as the functions take it.
pub(super) fn millis(time: Timestamp) -> i64 {
    time.as_millis().clamp(0, NEVER)
}

/// Returns whole seconds as the functions take them.
pub(super) fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs().min(MAX_SECONDS)).unwrap_or(i64::MAX)
}

/// Returns a sequence as the functions take it; 0, which no message has, for one beyond their
/// range.
pub(super) fn position(sequence: Sequence) -> i64 {
    if sequence.get() < NEVER { sequence.get() } else { 0 }
}

/// Returns a limit as the functions take it.
pub(super) fn limit_of(limit: Limit) -> i64 {
    i64::try_from(limit.get()).unwrap_or(i64::MAX)
}

/// What a stream has of a message before the body.
pub(super) struct Header<'m> {
    pub(super) posted_at: Timestamp,
    pub(super) visible_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) ttl: Duration,
    pub(super) key: Option<&'m str>,
    pub(super) client: &'m str,
    pub(super) checksum: Option<&'m str>,
    pub(super) origin: Option<&'m str>,
    pub(super) retained: bool,
}

impl Header<'_> {
    /// Writes the header and a body: times in 6 bytes, the ttl in 5, the flags in 1, then texts,
    /// each after its length in 2 bytes, then the body.
    pub(super) fn write(&self, body: &Body) -> Vec<u8> {
        let mut to = Vec::with_capacity(128 + body.as_bytes().len());
        for time in [self.posted_at, self.visible_at, self.expires_at] {
            to.extend_from_slice(&millis(time).to_le_bytes()[..6]);
        }
        to.extend_from_slice(&seconds(self.ttl).to_le_bytes()[..5]);
        let mut flags = FORMAT_V1;
        for (is_set, flag) in [
            (self.key.is_some(), FLAG_KEYED),
            (self.origin.is_some(), FLAG_DEAD_LETTER),
            (self.retained, FLAG_RETAINED),
        ] {
            flags |= if is_set { flag } else { 0 };
        }
        to.push(flags);
        // A checksum is never empty; a flag says whether there are a key and an origin.
        let texts = [
            self.key.unwrap_or_default(),
            self.client,
            self.checksum.unwrap_or_default(),
            self.origin.unwrap_or_default(),
        ];
        for text in texts {
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            to.extend_from_slice(&length.to_le_bytes());
            to.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
        }
        to.extend_from_slice(body.as_bytes());
        to
    }
}

/// Writes a message that is posted at `now`.
pub(super) fn write_new(client: &ClientId, message: &NewMessage, now: Timestamp) -> Vec<u8> {
    let (visible_at, expires_at) = message.lifetime(now);
    let header = Header {
        posted_at: now,
        visible_at,
        expires_at,
        ttl: message.ttl,
        key: message.ordering_key.as_ref().map(OrderingKey::as_str),
        client: client.as_str(),
        checksum: message.checksum.as_deref(),
        origin: None,
        retained: message.retained,
    };
    header.write(&message.body)
}

/// Reads little-endian numbers and texts from the front of some bytes.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8]> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or_else(|| unexpected("a message is truncated"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, count: usize) -> Result<i64> {
        let mut bytes = [0; 8];
        bytes[..count].copy_from_slice(self.take(count)?);
        Ok(i64::from_le_bytes(bytes))
    }

    fn time(&mut self) -> Result<Timestamp> {
        self.number(6).map(Timestamp::from_millis)
    }

    fn seconds(&mut self) -> Result<Duration> {
        self.number(5).map(|seconds| Duration::from_secs(seconds.unsigned_abs()))
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn text(&mut self) -> Result<&'b str> {
        let length = self.number(2)?;
        let bytes = self.take(usize::try_from(length).map_err(unexpected)?)?;
        std::str::from_utf8(bytes).map_err(unexpected)
    }
}

/// Returns the id of a message of a queue.
pub(super) fn message_id(queue: Incarnation, sequence: i64) -> Result<MessageId> {
    let sequence = Sequence::new(sequence).ok_or_else(|| unexpected("a sequence is negative"))?;
    Ok(MessageId { incarnation: queue, sequence })
}

/// Reads a message from a reply: sequence, header and body, delivery state.
pub(super) fn read_message(queue: Incarnation, reply: &mut Reply) -> Result<Message> {
    let (sequence, text, delivery) = (reply.number()?, reply.bytes()?, reply.bytes()?);
    let mut message = read_posted(message_id(queue, sequence)?, text)?;
    if !delivery.is_empty() {
        apply_delivery(&mut message, &delivery)?;
    }
    Ok(message)
}

/// Reads a message as it was posted.
pub(super) fn read_posted(id: MessageId, text: Vec<u8>) -> Result<Message> {
    let text = Bytes::from(text);
    let mut header = Reader(&text);
    let (posted_at, visible_at, expires_at, ttl) =
        (header.time()?, header.time()?, header.time()?, header.seconds()?);
    let flags = header.byte()?;
    let (key, client, checksum, origin) =
        (header.text()?, header.text()?, header.text()?, header.text()?);
    let origin = (flags & FLAG_DEAD_LETTER != 0).then(|| Origin::from_text(origin)).flatten();
    let body = text.slice(text.len() - header.0.len()..);
    Ok(Message {
        id,
        posted_at,
        visible_at,
        expires_at,
        ttl,
        claim: None,
        claim_count: 0,
        client: ClientId::new(client),
        ordering_key: (flags & FLAG_KEYED != 0).then(|| OrderingKey::from_store(key)),
        origin,
        checksum: Some(checksum).filter(|checksum| !checksum.is_empty()).map(ToOwned::to_owned),
        body: Body::from_json(body),
    })
}

/// Reads messages as they were posted from the entries of a stream.
pub(super) fn read_entries(queue: Incarnation, entries: Value) -> Result<Vec<Message>> {
    let wrong = || unexpected("redis returned no entries");
    let Value::Array(entries) = entries else { return Err(wrong()) };
    let mut messages = Vec::with_capacity(entries.len());
    for entry in entries {
        let Value::Array(mut entry) = entry else { return Err(wrong()) };
        let (Some(Value::Array(mut fields)), Some(Value::BulkString(id))) =
            (entry.pop(), entry.pop())
        else {
            return Err(wrong());
        };
        let Some(Value::BulkString(text)) = fields.pop() else { return Err(wrong()) };
        let id = std::str::from_utf8(&id).map_err(unexpected)?;
        let sequence = id.split('-').next().and_then(|sequence| sequence.parse().ok());
        let id = message_id(queue, sequence.ok_or_else(wrong)?)?;
        messages.push(read_posted(id, text)?);
    }
    Ok(messages)
}

/// Sets the claim of a message that was as it was posted.
pub(super) fn claim_posted(message: &mut Message, claim: ClaimId) {
    message.claim = Some(claim);
    message.claim_count = 1;
}

fn apply_delivery(message: &mut Message, delivery: &[u8]) -> Result<()> {
    let mut delivery = Reader(delivery);
    if let [SHORT_DELIVERY_BYTE, claim @ ..] = delivery.0 {
        claim_posted(message, ClaimId::from_bytes(claim.try_into().map_err(unexpected)?));
        return Ok(());
    }
    let (_state, _keyed) = (delivery.byte()?, delivery.byte()?);
    if delivery.byte()? == 0 {
        message.origin = None;
    }
    let is_claimed = delivery.byte()? != 0;
    message.expires_at = delivery.time()?;
    message.visible_at = delivery.time()?;
    message.ttl = delivery.seconds()?;
    message.claim_count = u32::try_from(delivery.number(4)?).map_err(unexpected)?;
    let claim: [u8; 16] = delivery.take(16)?.try_into().map_err(unexpected)?;
    message.claim = is_claimed.then(|| ClaimId::from_bytes(claim));
    Ok(())
}

/// Reads messages to the end of a reply.
pub(super) fn read_messages(queue: Incarnation, reply: &mut Reply) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    while !reply.is_empty() {
        messages.push(read_message(queue, reply)?);
    }
    Ok(messages)
}
