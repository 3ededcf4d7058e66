//! Chooses where claims and pops take messages from: the ordering keys and the messages without a
//! key, round-robin.

use rusqlite::params;
use storage_traits::Result;

use super::{
    ordering::{KeyDelta, next_available_key, rotate_to_back, update_key},
    rows::{StoredMessage, select_by_state, select_messages, select_ready, state},
};
use crate::sqlite::{queue_row::QueueRow, transaction::Tx};

/// Where the next claimable messages are.
pub(super) enum ClaimSource {
    /// An available ordering key.
    Key(String),
    /// The messages without a key.
    Unkeyed,
}

/// Returns the source that is to be served next; `None` if there is nothing to claim. `after` is
/// the sequence up to which the messages without a key were read already.
pub(super) fn next_source(
    tx: &Tx<'_>,
    queue: &QueueRow,
    after: i64,
) -> Result<Option<ClaimSource>> {
    let key = next_available_key(tx, queue)?;
    let is_unkeyed = queue.ready > 0
        && key.as_ref().is_none_or(|(_, rotation)| {
            // One operation serves the messages without a key once while a key is available.
            after == 0 && queue.unkeyed_rotation <= *rotation
        });
    Ok(match key {
        _ if is_unkeyed => Some(ClaimSource::Unkeyed),
        Some((key, _)) => Some(ClaimSource::Key(key)),
        None => None,
    })
}

impl ClaimSource {
    pub(super) const fn is_keyed(&self) -> bool {
        matches!(self, Self::Key(_))
    }

    /// Returns claimable messages, in order.
    pub(super) fn messages(
        &self,
        tx: &Tx<'_>,
        queue: &QueueRow,
        after: i64,
        limit: usize,
    ) -> Result<Vec<StoredMessage>> {
        match self {
            Self::Unkeyed => select_messages(
                tx.connection,
                queue.message_incarnation(),
                select_ready!(
                    "WHERE m.queue_id = ?1 AND m.sequence > ?2 ORDER BY m.sequence LIMIT ?3"
                ),
                params![queue.id, after, limit],
            ),
            Self::Key(key) => select_messages(
                tx.connection,
                queue.message_incarnation(),
                select_by_state!(
                    INDEXED BY "message_by_key",
                    "WHERE m.queue_id = ?1 AND m.ordering_key = ?2 AND m.state = ",
                    state!(READY_KEYED),
                    " ORDER BY m.sequence LIMIT ?3"
                ),
                params![queue.id, key, limit],
            ),
        }
    }

    /// Finishes a claim of `claimed` messages: blocks the key until they are acknowledged, or moves
    /// the messages without a key behind all available keys.
    pub(super) fn finish_claim(
        &self,
        tx: &Tx<'_>,
        queue: &mut QueueRow,
        claimed: usize,
    ) -> Result<()> {
        match self {
            Self::Key(key) => {
                let claimed = i64::try_from(claimed).unwrap_or(i64::MAX);
                update_key(tx, queue, key, KeyDelta { ready: -claimed, in_flight: claimed })
            }
            Self::Unkeyed => {
                rotate_unkeyed(queue);
                Ok(())
            }
        }
    }

    /// Finishes a pop: moves the source behind all available keys.
    pub(super) fn finish_pop(&self, tx: &Tx<'_>, queue: &mut QueueRow) -> Result<()> {
        match self {
            Self::Key(key) => rotate_to_back(tx, queue, key),
            Self::Unkeyed => {
                rotate_unkeyed(queue);
                Ok(())
            }
        }
    }
}

fn rotate_unkeyed(queue: &mut QueueRow) {
    if queue.available_keys > 0 {
        queue.unkeyed_rotation = queue.next_rotation();
    }
}
