//! The last changes that this node read from the change feed.

use std::collections::{BTreeSet, VecDeque};

use mongodb::bson::Timestamp;
use storage_traits::{
    catalog::{ChangeToken, Changed, Changes},
    domain::QueueKey,
    random::random_i64,
};
use tokio::time::Instant;

/// How many changes are kept.
const CAPACITY: usize = 10_000;
/// How many changes one read of the feed returns at most.
const MAX_PAGE: usize = 1_000;
/// How much older than a visible change a change may be that becomes visible later: the server
/// assigns the time of a change before it commits it.
const WINDOW_SECS: u32 = 10;

/// Positions count the changes that this node has read. They are meaningless to other nodes, and
/// after a restart.
pub(super) struct ChangeBuffer {
    changes: VecDeque<QueueKey>,
    /// The position after the last change.
    end: i64,
    /// Changes that were added already, of the period that is read again.
    seen: BTreeSet<(Timestamp, QueueKey)>,
    /// The time of the newest change, by the server's clock.
    newest: Timestamp,
    /// When all earlier changes had been read, if known.
    pub(super) read_at: Option<Instant>,
}

impl Default for ChangeBuffer {
    fn default() -> Self {
        Self {
            changes: VecDeque::new(),
            // A random start keeps the positions of two nodes apart.
            end: random_i64() & (i64::MAX >> 1),
            seen: BTreeSet::new(),
            newest: Timestamp { time: 0, increment: 0 },
            read_at: None,
        }
    }
}

impl ChangeBuffer {
    /// Removes all changes, and invalidates all positions.
    pub(super) fn clear(&mut self) {
        self.changes.clear();
        self.end += 1;
        self.read_at = None;
    }

    /// Returns the time from which on changes have to be read.
    pub(super) fn read_from(&self) -> Timestamp {
        Timestamp { time: self.newest.time.saturating_sub(WINDOW_SECS), increment: 0 }
    }

    /// Marks a change as seen that is older than all positions.
    pub(super) fn mark_seen(&mut self, changed: Timestamp, key: QueueKey) {
        self.newest = self.newest.max(changed);
        self.seen.insert((changed, key));
    }

    /// Adds a change, unless it was seen.
    pub(super) fn push(&mut self, changed: Timestamp, key: QueueKey) {
        self.newest = self.newest.max(changed);
        if self.seen.insert((changed, key.clone())) {
            if self.changes.len() == CAPACITY {
                self.changes.pop_front();
            }
            self.changes.push_back(key);
            self.end += 1;
        }
    }

    /// Removes the seen changes that will not be read again.
    pub(super) fn prune(&mut self) {
        while self.seen.first().is_some_and(|(changed, _)| *changed < self.read_from()) {
            self.seen.pop_first();
        }
    }

    /// Returns the changes after a position.
    pub(super) fn after(&self, after: Option<ChangeToken>) -> Changes {
        let end = ChangeToken::new(self.end);
        let Some(after) = after else {
            return Changes { changed: Changed::Queues(Vec::new()), next: end };
        };
        let missing = self.end.checked_sub(after.get()).and_then(|n| usize::try_from(n).ok());
        match missing.and_then(|missing| self.changes.len().checked_sub(missing)) {
            Some(skipped) => {
                let keys: Vec<_> = self.changes.range(skipped..).take(MAX_PAGE).cloned().collect();
                let read = i64::try_from(keys.len()).unwrap_or(i64::MAX);
                Changes {
                    changed: Changed::Queues(keys),
                    next: ChangeToken::new(after.get().saturating_add(read)),
                }
            }
            None => Changes { changed: Changed::Everything, next: end },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: u32, increment: u32) -> Timestamp {
        Timestamp { time, increment }
    }

    fn key(name: &str) -> QueueKey {
        QueueKey { project: "p".parse().unwrap(), name: name.parse().unwrap() }
    }

    fn read(buffer: &ChangeBuffer, after: ChangeToken) -> (Vec<QueueKey>, ChangeToken) {
        let changes = buffer.after(Some(after));
        let Changed::Queues(keys) = changes.changed else { panic!("the buffer lost changes") };
        (keys, changes.next)
    }

    #[test]
    fn a_change_is_reported_once_even_if_it_becomes_visible_late() {
        let mut buffer = ChangeBuffer::default();
        buffer.mark_seen(at(100, 1), key("skipped"));
        let start = buffer.after(None).next;
        for _ in 0..2 {
            buffer.push(at(100, 1), key("skipped"));
            buffer.push(at(100, 3), key("a"));
            buffer.prune();
        }
        buffer.push(at(91, 1), key("late"));
        buffer.push(at(100, 4), key("a"));
        let (keys, next) = read(&buffer, start);
        assert_eq!(keys, ["a", "late", "a"].map(key));
        assert_eq!(read(&buffer, next).0, []);
        assert_eq!(buffer.read_from(), at(90, 0));
    }

    #[test]
    fn only_the_changes_that_are_read_again_are_kept_as_seen() {
        let mut buffer = ChangeBuffer::default();
        for second in 0..100 {
            buffer.push(at(second, 1), key("a"));
            buffer.prune();
        }
        assert_eq!(buffer.seen.len(), 11);
    }

    #[test]
    fn a_read_and_the_buffer_are_bounded() {
        let mut buffer = ChangeBuffer::default();
        let start = buffer.after(None).next;
        for n in 0..2_500 {
            buffer.push(at(1, n), key(&format!("q{n}")));
        }
        let (first, next) = read(&buffer, start);
        let (second, next) = read(&buffer, next);
        let (third, end) = read(&buffer, next);
        assert_eq!([first.len(), second.len(), third.len()], [1_000, 1_000, 500]);
        assert_eq!((&second[0], end), (&key("q1000"), buffer.after(None).next));

        for n in 2_500..10_000 {
            buffer.push(at(1, n), key("q"));
        }
        assert_eq!(read(&buffer, start).0.len(), MAX_PAGE);
        buffer.push(at(2, 0), key("one-too-many"));
        assert_eq!(buffer.after(Some(start)).changed, Changed::Everything);
        assert_eq!(buffer.changes.len(), CAPACITY);
    }

    #[test]
    fn an_unknown_position_returns_everything() {
        let mut buffer = ChangeBuffer::default();
        buffer.push(at(1, 1), key("a"));
        let present = buffer.after(None).next;
        for wrong in [0, i64::MIN, i64::MAX, present.get() + 1, present.get() - 2] {
            let changes = buffer.after(Some(ChangeToken::new(wrong)));
            assert_eq!(changes, Changes { changed: Changed::Everything, next: present }, "{wrong}");
        }
        buffer.clear();
        assert_eq!(buffer.after(Some(present)).changed, Changed::Everything);
        assert!(buffer.after(None).next > present);
    }
}
