//! The stored form of messages, and the statements' shared parts.

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

use crate::sqlite::{
    error::{store_error, unexpected},
    queue_row::QueueRow,
    transaction::Tx,
};

/// The states of a message, as literals for `concat!`: a partial index is used only if the
/// statement names the state, not if it is a parameter.
macro_rules! state {
    (READY) => {
        0
    };
    (DELAYED) => {
        1
    };
    (CLAIMED) => {
        2
    };
    (READY_KEYED) => {
        3
    };
    (RETAINED) => {
        4
    };
    // All states in `message_by_state` of the messages that a queue serves.
    (SERVED) => {
        concat!("(", state!(DELAYED), ", ", state!(CLAIMED), ", ", state!(READY_KEYED), ")")
    };
}

/// In `ready_message`; the others are values of `message_by_state.state`.
pub(super) const READY: i64 = state!(READY);
/// Not visible yet: posted with a delay, or waiting for a retry.
pub(super) const DELAYED: i64 = state!(DELAYED);
pub(super) const CLAIMED: i64 = state!(CLAIMED);
/// Ready, with an ordering key.
pub(super) const READY_KEYED: i64 = state!(READY_KEYED);
/// In a retention log.
pub(super) const RETAINED: i64 = state!(RETAINED);

/// What a change of a message's state needs to know of it.
#[derive(Clone)]
pub(super) struct MessageRow {
    pub(super) sequence: i64,
    pub(super) state: i64,
    pub(super) body_id: i64,
    pub(super) ordering_key: Option<String>,
    pub(super) was_claimed: bool,
}

impl MessageRow {
    /// Returns whether the message blocks its ordering key: it is claimed, or waits for a retry.
    pub(super) const fn is_in_flight(&self) -> bool {
        self.state == CLAIMED || (self.state == DELAYED && self.was_claimed)
    }

    /// Reads the columns that [`message_columns!`] selects.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            sequence: row.get(0)?,
            state: row.get(1)?,
            body_id: row.get(2)?,
            ordering_key: row.get(3)?,
            was_claimed: row.get(4)?,
        })
    }
}

/// The columns of a [`MessageRow`], by table.
macro_rules! message_columns {
    (ready_message) => {
        concat!(
            "sequence, ",
            $crate::sqlite::pool::rows::state!(READY),
            ", body_id, NULL, claim_count > 0"
        )
    };
    (message_by_state) => {
        "sequence, state, body_id, ordering_key, claim_count > 0"
    };
}

/// Selects [`StoredMessage`]s from `ready_message`. A `WHERE` on `m` follows.
macro_rules! select_ready {
    ($($rest:expr),+ $(,)?) => {
        concat!(
            "SELECT m.sequence, ", $crate::sqlite::pool::rows::state!(READY), ", m.expires_at, m.visible_at, m.posted_at, \
             m.ttl_seconds, m.claim_id, m.claim_count, m.client, m.body_id, b.checksum, b.json, \
             NULL, m.origin \
             FROM ready_message m JOIN body b ON b.id = m.body_id ",
            $($rest),+
        )
    };
}

/// Selects [`StoredMessage`]s from `message_by_state`, by the primary key or by the index that is
/// named. A `WHERE` on `m` follows.
macro_rules! select_by_state {
    (@ $by:expr, $($rest:expr),+) => {
        concat!(
            "SELECT m.sequence, m.state, m.expires_at, m.visible_at, m.posted_at, m.ttl_seconds, \
             m.claim_id, m.claim_count, m.client, m.body_id, b.checksum, b.json, m.ordering_key, \
             m.origin \
             FROM message_by_state m ", $by, " JOIN body b ON b.id = m.body_id ",
            $($rest),+
        )
    };
    (INDEXED BY $index:literal, $($rest:expr),+ $(,)?) => {
        select_by_state!(@ concat!("INDEXED BY ", $index), $($rest),+)
    };
    ($($rest:expr),+ $(,)?) => {
        select_by_state!(@ "", $($rest),+)
    };
}
pub(super) use {message_columns, select_by_state, select_ready, state};

/// A message with what only the store needs to know of it.
pub(super) struct StoredMessage {
    pub(super) message: Message,
    state: i64,
    body_id: i64,
}

impl StoredMessage {
    pub(super) fn sequence(&self) -> i64 {
        self.message.id.sequence.get()
    }

    pub(super) fn row(&self) -> MessageRow {
        MessageRow {
            sequence: self.sequence(),
            state: self.state,
            body_id: self.body_id,
            ordering_key: self.message.ordering_key.as_ref().map(|key| key.as_str().to_owned()),
            was_claimed: self.message.claim_count > 0,
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
            body_id: row.get(9)?,
        })
    }
}

/// Runs a query that selects [`message_columns!`].
pub(super) fn select_rows(tx: &Tx<'_>, sql: &str, params: impl Params) -> Result<Vec<MessageRow>> {
    tx.connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_map(params, MessageRow::read)?.collect())
        .map_err(store_error)
}

/// Runs a query made with [`select_ready!`] or [`select_by_state!`].
pub(super) fn select_messages(
    connection: &Connection,
    incarnation: Incarnation,
    sql: &str,
    params: impl Params,
) -> Result<Vec<StoredMessage>> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| {
            statement.query_map(params, |row| StoredMessage::read(incarnation, row))?.collect()
        })
        .map_err(store_error)
}

/// Runs a statement that changes rows. Returns how many it changed.
pub(super) fn execute(connection: &Connection, sql: &str, params: impl Params) -> Result<usize> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(params))
        .map_err(store_error)
}

/// Returns the sequences of those `ids` that belong to this queue and its present incarnation.
pub(super) fn own_sequences(queue: &QueueRow, ids: &[MessageId]) -> Vec<i64> {
    let incarnation = queue.message_incarnation();
    ids.iter().filter(|id| id.incarnation == incarnation).map(|id| id.sequence.get()).collect()
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
