use rusqlite::{Connection, OptionalExtension, Row, params};
use storage_traits::{
    Result,
    domain::{Incarnation, Timestamp},
    support::SlidingMinuteCounter,
};

use super::error::store_error;

/// Value of `next_due` when nothing is due, ever.
pub(super) const NEVER: i64 = i64::MAX;
/// Value of `next_due` when something is due at any time of the pool.
pub(super) const DUE_NOW: i64 = 0;

/// A row of `pool_queue`: a queue, a named group or a retention log. The migration describes the
/// columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueRow {
    pub(super) id: i64,
    pub(super) incarnation: Incarnation,
    pub(super) last_sequence: i64,
    /// Claimable messages without an ordering key.
    pub(super) ready: i64,
    /// Messages with an ordering key that are neither delayed nor claimed.
    pub(super) ready_keyed: i64,
    pub(super) delayed: i64,
    pub(super) claimed: i64,
    pub(super) dead_letters: i64,
    /// Ordering keys that have a message which is ready or in flight.
    pub(super) keys: i64,
    /// Those of them that can be claimed from.
    pub(super) available_keys: i64,
    /// The highest rotation that was assigned.
    last_rotation: i64,
    /// The rotation of the messages without a key, which are served together like one key.
    pub(super) unkeyed_rotation: i64,
    /// Number of named groups.
    pub(super) group_count: i64,
    /// Of a group or a retention log, its queue.
    pub(super) source_queue: Option<Incarnation>,
    pub(super) retention_log: Option<Incarnation>,
    /// What a new group still has to copy from its queue.
    pub(super) backfill: Option<Backfill>,
    pub(super) next_due: i64,
    /// The first visibility time that no redrive has used.
    pub(super) next_redrive_at: i64,
    /// Messages that consumers acknowledged, deleted or popped.
    pub(super) completed: SlidingMinuteCounter,
}

/// The messages with a sequence in `(after, up_to]` that were posted at `since` or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backfill {
    pub(super) after: i64,
    pub(super) up_to: i64,
    pub(super) since: i64,
}

impl QueueRow {
    /// Records that something of the queue is due at `at`.
    pub(super) fn record_due(&mut self, at: i64) {
        self.next_due = self.next_due.min(at);
    }

    /// Returns whether something is due that the rows do not show yet.
    pub(super) const fn is_due(&self, now: Timestamp) -> bool {
        self.next_due <= now.as_millis()
    }

    /// Assigns the next rotation, which puts a key behind all others.
    pub(super) const fn next_rotation(&mut self) -> i64 {
        self.last_rotation += 1;
        self.last_rotation
    }

    /// Returns the incarnation in the ids of its messages: those of a group have their queue's.
    pub(super) fn message_incarnation(&self) -> Incarnation {
        self.source_queue.unwrap_or(self.incarnation)
    }

    /// Returns a lower bound of how many messages can be claimed; 0 only if none can.
    pub(super) const fn claimable(&self) -> i64 {
        self.ready + self.available_keys
    }

    fn read(incarnation: Incarnation, row: &Row<'_>) -> rusqlite::Result<Self> {
        let optional =
            |column| row.get::<_, Option<i64>>(column).map(|id| id.and_then(Incarnation::new));
        Ok(Self {
            incarnation,
            id: row.get(0)?,
            last_sequence: row.get(1)?,
            ready: row.get(2)?,
            delayed: row.get(3)?,
            claimed: row.get(4)?,
            next_due: row.get(5)?,
            ready_keyed: row.get(6)?,
            keys: row.get(7)?,
            available_keys: row.get(8)?,
            last_rotation: row.get(9)?,
            unkeyed_rotation: row.get(10)?,
            group_count: row.get(11)?,
            source_queue: optional(12)?,
            backfill: match row.get(13)? {
                Some(after) => Some(Backfill { after, up_to: row.get(14)?, since: row.get(15)? }),
                None => None,
            },
            retention_log: optional(16)?,
            next_redrive_at: row.get(17)?,
            completed: SlidingMinuteCounter {
                minute: row.get(18)?,
                count: row.get(19)?,
                previous: row.get(20)?,
            },
            dead_letters: row.get(21)?,
        })
    }

    /// Writes the columns that can change after the row was inserted.
    pub(super) fn write(&self, connection: &Connection) -> Result<()> {
        connection
            .prepare_cached(
                "UPDATE pool_queue SET last_sequence = ?2, ready = ?3, delayed = ?4, claimed = ?5,
                     next_due = ?6, ready_keyed = ?7, keys = ?8, available_keys = ?9,
                     last_rotation = ?10, unkeyed_rotation = ?11, group_count = ?12,
                     backfill_after = ?13, retention_log = ?14, next_redrive_at = ?15,
                     completed_minute = ?16, completed_count = ?17, completed_previous = ?18,
                     dead_letters = ?19
                 WHERE id = ?1",
            )
            .and_then(|mut statement| {
                statement.execute(params![
                    self.id,
                    self.last_sequence,
                    self.ready,
                    self.delayed,
                    self.claimed,
                    self.next_due,
                    self.ready_keyed,
                    self.keys,
                    self.available_keys,
                    self.last_rotation,
                    self.unkeyed_rotation,
                    self.group_count,
                    self.backfill.map(|backfill| backfill.after),
                    self.retention_log.map(Incarnation::get),
                    self.next_redrive_at,
                    self.completed.minute,
                    self.completed.count,
                    self.completed.previous,
                    self.dead_letters
                ])
            })
            .map(drop)
            .map_err(store_error)
    }
}

/// Reads the row of a queue; `None` if the pool does not know the queue, or it was dropped.
pub(super) fn read_queue_row(
    connection: &Connection,
    incarnation: Incarnation,
) -> Result<Option<QueueRow>> {
    connection
        .prepare_cached(
            "SELECT id, last_sequence, ready, delayed, claimed, next_due, ready_keyed, keys,
                 available_keys, last_rotation, unkeyed_rotation, group_count, source_queue,
                 backfill_after, backfill_up_to, backfill_since, retention_log, next_redrive_at,
                 completed_minute, completed_count, completed_previous, dead_letters
             FROM pool_queue WHERE incarnation = ?1 AND dropped = 0",
        )
        .and_then(|mut statement| {
            statement
                .query_row([incarnation.get()], |row| QueueRow::read(incarnation, row))
                .optional()
        })
        .map_err(store_error)
}
