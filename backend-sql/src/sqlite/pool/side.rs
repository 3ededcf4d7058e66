//! Where claims and pops take messages from: the lines in turn, and the messages without a key.

use rusqlite::params;
use storage_traits::Result;

use super::{
    line::{Shift, first_open, shift},
    rows::{Entry, entries, select_held, select_ready},
};
use crate::sqlite::writer::{QueueRow, Tx};

/// Where free messages are taken from: an open line, or the messages without a key.
pub(super) struct Side {
    pub(super) key: Option<String>,
}

/// The side whose turn it is; `after` is how far the messages without a key were looked at.
pub(super) fn next_side(tx: &Tx<'_>, row: &QueueRow, after: i64) -> Result<Option<Side>> {
    let line = first_open(tx, row)?;
    let plain = row.ready > 0
        && line.as_ref().is_none_or(|(_, turn)| after == 0 && row.plain_turn <= *turn);
    Ok(match line {
        _ if plain => Some(Side { key: None }),
        Some((key, _)) => Some(Side { key: Some(key) }),
        None => None,
    })
}

impl Side {
    pub(super) fn entries(
        &self,
        tx: &Tx<'_>,
        row: &QueueRow,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        match &self.key {
            None => entries(
                tx.connection,
                row.ids(),
                select_ready!(
                    "WHERE m.queue = ?1 AND m.sequence > ?2 ORDER BY m.sequence LIMIT ?3"
                ),
                params![row.id, after, limit],
            ),
            Some(key) => entries(
                tx.connection,
                row.ids(),
                select_held!(
                    "held_line",
                    "WHERE m.queue = ?1 AND m.ordering_key = ?2 AND m.state = 3
                     ORDER BY m.sequence LIMIT ?3"
                ),
                params![row.id, key, limit],
            ),
        }
    }

    /// Closes the line that `taken` messages were claimed from, until they are acknowledged; the
    /// messages without a key go to the end, if anybody waits behind them.
    pub(super) fn close(&self, tx: &Tx<'_>, row: &mut QueueRow, taken: usize) -> Result<()> {
        if let Some(key) = &self.key {
            let taken = i64::try_from(taken).unwrap_or(i64::MAX);
            return shift(tx, row, key, Shift { waiting: -taken, busy: taken });
        }
        if row.open_lines > 0 {
            row.plain_turn = row.next_turn();
        }
        Ok(())
    }
}
