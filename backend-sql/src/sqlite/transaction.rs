use std::{collections::HashMap, rc::Rc};

use rusqlite::Connection;
use storage_traits::{Result, domain::Incarnation, support::EventCounts};

use super::{
    error::store_error,
    queue_row::{DUE_NOW, QueueRow, read_queue_row},
};

/// The transaction that concurrent write operations share. It caches the rows of the queues that
/// they touch, so that a hundred posts to one queue write its counters once.
pub(super) struct Tx<'c> {
    pub(super) connection: &'c Connection,
    /// Events of the operations; counted after the commit.
    pub(super) events: EventCounts,
    queues: HashMap<Incarnation, TouchedQueue>,
    dropped: Vec<Incarnation>,
    /// The incarnations of the named groups, by queue.
    groups: HashMap<Incarnation, Rc<[Incarnation]>>,
}

/// A queue's row that the transaction has read, and maybe changed.
pub(super) struct TouchedQueue {
    pub(super) row: QueueRow,
    /// The row as it is in the table before the commit; `None` if that is unknown.
    pub(super) original: Option<QueueRow>,
}

impl TouchedQueue {
    pub(super) fn has_changed(&self) -> bool {
        self.original != Some(self.row)
    }
}

impl<'c> Tx<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self {
            connection,
            events: EventCounts::default(),
            queues: HashMap::new(),
            dropped: Vec::new(),
            groups: HashMap::new(),
        }
    }

    /// Returns the row of a queue; `None` if the pool does not know the queue.
    pub(super) fn queue(&mut self, incarnation: Incarnation) -> Result<Option<QueueRow>> {
        if let Some(touched) = self.queues.get(&incarnation) {
            return Ok(Some(touched.row));
        }
        let row = read_queue_row(self.connection, incarnation)?;
        if let Some(row) = row {
            self.queues.insert(incarnation, TouchedQueue { row, original: Some(row) });
        }
        Ok(row)
    }

    /// Saves a changed row in the transaction. It is written to the table before the commit.
    pub(super) fn save(&mut self, row: QueueRow) {
        self.queues
            .entry(row.incarnation)
            .or_insert_with(|| TouchedQueue { row, original: None })
            .row = row;
    }

    /// Returns the incarnations of a queue's named groups.
    pub(super) fn groups(&mut self, queue: Incarnation) -> Result<Rc<[Incarnation]>> {
        if let Some(groups) = self.groups.get(&queue) {
            return Ok(Rc::clone(groups));
        }
        let found: Vec<i64> = self
            .connection
            .prepare_cached("SELECT incarnation FROM pool_group WHERE queue_incarnation = ?1")
            .and_then(|mut statement| {
                statement.query_map([queue.get()], |row| row.get(0))?.collect()
            })
            .map_err(store_error)?;
        let groups: Rc<[_]> = found.into_iter().filter_map(Incarnation::new).collect();
        self.groups.insert(queue, Rc::clone(&groups));
        Ok(groups)
    }

    /// Invalidates the cached groups of a queue, after a change of `pool_group`.
    pub(super) fn invalidate_groups(&mut self, queue: Incarnation) {
        self.groups.remove(&queue);
    }

    /// Marks the row of a queue, a group or a retention log as dropped: every caller finds it
    /// missing from now on, and the sweep deletes its messages.
    pub(super) fn mark_dropped(&mut self, incarnation: Incarnation) -> Result<()> {
        self.queues.remove(&incarnation);
        self.dropped.push(incarnation);
        self.connection
            .prepare_cached(
                "UPDATE pool_queue SET dropped = 1, next_due = ?2
                 WHERE incarnation = ?1 AND dropped = 0",
            )
            .and_then(|mut statement| statement.execute([incarnation.get(), DUE_NOW]))
            .map_err(store_error)?;
        Ok(())
    }

    /// Writes the changed rows to their table.
    pub(super) fn write_rows(&self) -> Result<()> {
        let mut changed = self.queues.values().filter(|touched| touched.has_changed());
        changed.try_for_each(|touched| touched.row.write(self.connection))
    }

    /// Returns the rows that the operations have read or changed.
    pub(super) fn touched(&self) -> impl Iterator<Item = &TouchedQueue> {
        self.queues.values()
    }

    /// Returns the queues that the operations have dropped.
    pub(super) fn dropped(&self) -> &[Incarnation] {
        &self.dropped
    }
}
