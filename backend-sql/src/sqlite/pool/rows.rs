//! Stored form to domain type.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, Params, Row};
use storage_traits::{
    Result,
    domain::{
        Body, ClaimId, ClientId, Incarnation, Message, MessageId, OrderingKey, Origin, Sequence,
        Timestamp,
    },
};

use super::settle::Place;
use crate::sqlite::{
    error::{store_error, unexpected},
    writer::QueueRow,
};

/// Where a message stands; all but the first are values of `held.state`.
pub(super) const READY: i64 = 0;
pub(super) const DELAYED: i64 = 1;
pub(super) const CLAIMED: i64 = 2;
/// Free, with an ordering key.
pub(super) const IN_LINE: i64 = 3;
/// Kept for groups that start later or move back.
pub(super) const RETAINED: i64 = 4;

/// Selects from `ready` what [`Entry::read`] reads; a `WHERE` on `m` follows.
macro_rules! select_ready {
    ($rest:literal) => {
        concat!(
            "SELECT m.sequence, 0, m.expires_at, m.visible_at, m.posted_at, m.ttl, m.claim, \
             m.claim_count, m.client, m.body, b.checksum, b.json, NULL, m.origin \
             FROM ready m JOIN body b ON b.id = m.body ",
            $rest
        )
    };
}
/// The same from `held`, by its key or by the index that is named.
macro_rules! select_held {
    ($index:literal, $rest:literal) => {
        select_held!(@ concat!("INDEXED BY ", $index), $rest)
    };
    ($rest:literal) => {
        select_held!(@ "", $rest)
    };
    (@ $by:expr, $rest:literal) => {
        concat!(
            "SELECT m.sequence, m.state, m.expires_at, m.visible_at, m.posted_at, m.ttl, m.claim, \
             m.claim_count, m.client, m.body, b.checksum, b.json, m.ordering_key, m.origin \
             FROM held m ", $by, " JOIN body b ON b.id = m.body ",
            $rest
        )
    };
}
pub(super) use {select_held, select_ready};

/// A message with what the store alone needs to know of it.
pub(super) struct Entry {
    pub(super) message: Message,
    pub(super) state: i64,
    pub(super) body_row: i64,
}

impl Entry {
    pub(super) fn sequence(&self) -> i64 {
        self.message.id.sequence.get()
    }

    pub(super) fn place(&self) -> Place {
        Place {
            sequence: self.sequence(),
            state: self.state,
            body: self.body_row,
            key: self.message.ordering_key.as_ref().map(|key| key.as_str().to_owned()),
            tried: self.message.claim_count > 0,
        }
    }

    fn read(incarnation: Incarnation, row: &Row<'_>) -> rusqlite::Result<Self> {
        let millis = |column| row.get(column).map(Timestamp::from_millis);
        let sequence = row.get(0)?;
        let id = Sequence::new(sequence)
            .map(|sequence| MessageId { incarnation, sequence })
            .ok_or(rusqlite::Error::IntegralValueOutOfRange(0, sequence))?;
        Ok(Self {
            message: Message {
                id,
                expires_at: millis(2)?,
                visible_at: millis(3)?,
                posted_at: millis(4)?,
                ttl: seconds(row.get(5)?),
                claim: row.get::<_, Option<[u8; 16]>>(6)?.map(ClaimId::from_bytes),
                claim_count: row.get(7)?,
                client: ClientId::new(row.get_ref(8)?.as_str()?),
                ordering_key: row.get_ref(12)?.as_str_or_null()?.map(OrderingKey::from_store),
                origin: row.get_ref(13)?.as_str_or_null()?.and_then(Origin::from_text),
                checksum: row.get(10)?,
                body: Body::from_json(Bytes::copy_from_slice(row.get_ref(11)?.as_blob()?)),
            },
            state: row.get(1)?,
            body_row: row.get(9)?,
        })
    }
}

/// Runs a query made with [`select_ready!`] or [`select_held!`].
pub(super) fn entries(
    connection: &Connection,
    incarnation: Incarnation,
    sql: &str,
    params: impl Params,
) -> Result<Vec<Entry>> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| {
            statement.query_map(params, |row| Entry::read(incarnation, row))?.collect()
        })
        .map_err(store_error)
}

/// Runs a statement that changes rows; answers how many.
pub(super) fn execute(connection: &Connection, sql: &str, params: impl Params) -> Result<usize> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(params))
        .map_err(store_error)
}

/// The sequences among `ids` that are of this queue, in this life.
pub(super) fn own_sequences(queue: &QueueRow, ids: &[MessageId]) -> Vec<i64> {
    ids.iter().filter(|id| id.incarnation == queue.ids()).map(|id| id.sequence.get()).collect()
}

pub(super) fn seconds(number: i64) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or(0))
}

pub(super) fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

pub(super) fn count(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(unexpected)
}
