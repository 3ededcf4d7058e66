//! How messages are written: what a stream keeps of one (its *meta*, and behind it the body), and
//! what a reading has changed of it (its *record*). The functions read the same; see `lua/message.lua`.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use storage_traits::{
    Result,
    domain::{
        Body, ClaimId, ClientId, Incarnation, Message, MessageId, NewMessage, OrderingKey, Origin,
        Sequence, Timestamp,
    },
};

use super::reply::Reply;
use crate::error::unexpected;

/// Later than any time: what does not fit is cut to it.
pub(super) const NEVER: i64 = (1 << 48) - 1;
/// Longer than any ttl, in seconds.
const LONGEST: u64 = (1 << 40) - 1;

/// Set in all messages: the form in which they are written.
const FORM: u8 = 32;
const KEYED: u8 = 1;
const LETTER: u8 = 2;
const RETAINED: u8 = 4;

/// A time as the functions take it.
pub(super) fn millis(time: Timestamp) -> i64 {
    time.as_millis().clamp(0, NEVER)
}

/// Whole seconds as the functions take them.
pub(super) fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs().min(LONGEST)).unwrap_or(i64::MAX)
}

/// A sequence as the functions take it: no message is in position 0, nor in one beyond their range.
pub(super) fn position(sequence: Sequence) -> i64 {
    if sequence.get() < NEVER { sequence.get() } else { 0 }
}

/// What a stream keeps of a message, but for the body.
pub(super) struct Meta<'m> {
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

impl Meta<'_> {
    /// Times in 6 bytes, the ttl in 5, flags in 1, then texts, each behind its length in 2; behind
    /// them the body.
    pub(super) fn write(&self, body: &Body) -> Vec<u8> {
        let mut to = Vec::with_capacity(128 + body.as_bytes().len());
        for time in [self.posted_at, self.visible_at, self.expires_at] {
            to.extend_from_slice(&millis(time).to_le_bytes()[..6]);
        }
        to.extend_from_slice(&seconds(self.ttl).to_le_bytes()[..5]);
        let mut flags = FORM;
        for (is_set, flag) in [
            (self.key.is_some(), KEYED),
            (self.origin.is_some(), LETTER),
            (self.retained, RETAINED),
        ] {
            flags |= if is_set { flag } else { 0 };
        }
        to.push(flags);
        // A checksum is never empty.
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

/// A message that is posted at `now`, as a stream keeps it.
pub(super) fn write_new(client: &ClientId, message: &NewMessage, now: Timestamp) -> Vec<u8> {
    let (visible_at, expires_at) = message.lifetime(now);
    let meta = Meta {
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
    meta.write(&message.body)
}

/// Reads little-endian numbers and texts from the front of some bytes.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8]> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or_else(|| unexpected("a message is cut short"))?;
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

/// The id of a message of a queue.
pub(super) fn message_id(queue: Incarnation, sequence: i64) -> Result<MessageId> {
    let sequence = Sequence::new(sequence).ok_or_else(|| unexpected("a sequence is negative"))?;
    Ok(MessageId { incarnation: queue, sequence })
}

/// Reads a message: sequence, meta and body, record.
pub(super) fn read_message(queue: Incarnation, reply: &mut Reply) -> Result<Message> {
    let (sequence, text, record) = (reply.number()?, reply.bytes()?, reply.bytes()?);
    let mut message = read_posted(message_id(queue, sequence)?, text)?;
    if !record.is_empty() {
        apply_record(&mut message, &record)?;
    }
    Ok(message)
}

/// Reads what a stream keeps of a message.
pub(super) fn read_posted(id: MessageId, text: Vec<u8>) -> Result<Message> {
    let text = Bytes::from(text);
    let mut meta = Reader(&text);
    let (posted_at, visible_at, expires_at, ttl) =
        (meta.time()?, meta.time()?, meta.time()?, meta.seconds()?);
    let flags = meta.byte()?;
    let (key, client, checksum, origin) = (meta.text()?, meta.text()?, meta.text()?, meta.text()?);
    let origin = (flags & LETTER != 0).then(|| Origin::from_text(origin)).flatten();
    let body = text.slice(text.len() - meta.0.len()..);
    Ok(Message {
        id,
        posted_at,
        visible_at,
        expires_at,
        ttl,
        claim: None,
        claim_count: 0,
        client: ClientId::new(client),
        ordering_key: (flags & KEYED != 0).then(|| OrderingKey::from_store(key)),
        origin,
        checksum: Some(checksum).filter(|checksum| !checksum.is_empty()).map(ToOwned::to_owned),
        body: Body::from_json(body),
    })
}

/// Reads the entries of a stream that were read without a function: messages as they were posted.
pub(super) fn read_entries(queue: Incarnation, entries: Value) -> Result<Vec<Message>> {
    let wrong = || unexpected("redis answered no entries");
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

/// What a claim of messages that were as they had been posted makes of one.
pub(super) fn claim_posted(message: &mut Message, claim: ClaimId) {
    message.claim = Some(claim);
    message.claim_count = 1;
}

fn apply_record(message: &mut Message, record: &[u8]) -> Result<()> {
    let mut record = Reader(record);
    if let [b'C', claim @ ..] = record.0 {
        claim_posted(message, ClaimId::from_bytes(claim.try_into().map_err(unexpected)?));
        return Ok(());
    }
    let (_state, _keyed) = (record.byte()?, record.byte()?);
    if record.byte()? == 0 {
        message.origin = None;
    }
    let is_claimed = record.byte()? != 0;
    message.expires_at = record.time()?;
    message.visible_at = record.time()?;
    message.ttl = record.seconds()?;
    message.claim_count = u32::try_from(record.number(4)?).map_err(unexpected)?;
    let claim: [u8; 16] = record.take(16)?.try_into().map_err(unexpected)?;
    message.claim = is_claimed.then(|| ClaimId::from_bytes(claim));
    Ok(())
}

/// Reads messages to the end of an answer.
pub(super) fn read_messages(queue: Incarnation, reply: &mut Reply) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    while !reply.is_empty() {
        messages.push(read_message(queue, reply)?);
    }
    Ok(messages)
}
