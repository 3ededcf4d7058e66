//! What one node knows of the changes: those that it read last, by position.

use std::collections::{BTreeSet, VecDeque};

use mongodb::bson::Timestamp;
use storage_traits::{
    catalog::{ChangeToken, Changed, Changes},
    domain::QueueKey,
};
use tokio::time::Instant;

use crate::chance;

/// How many changes are remembered.
const KEPT: usize = 10_000;
/// How many of them one read of the feed answers.
const READ: usize = 1_000;
/// How long a change may be younger than one that can be seen, and not be seen itself. The server
/// draws the time of a change a moment before it is done.
const WINDOW_SECS: u32 = 10;

/// Positions count the changes that this node has read, so they mean nothing to another one, and
/// nothing once this one starts again.
pub(super) struct Ring {
    changes: VecDeque<QueueKey>,
    /// How many changes were read before.
    end: i64,
    /// The changes that were read already of those that are read again.
    seen: BTreeSet<(Timestamp, QueueKey)>,
    /// The time of the last change that was seen, as the server counts it.
    newest: Timestamp,
    /// When all changes until then had been read, if that is known.
    pub(super) read_at: Option<Instant>,
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            changes: VecDeque::new(),
            // Apart from the positions of other nodes, and far from the end of all numbers.
            end: chance::stamp() & (i64::MAX >> 1),
            seen: BTreeSet::new(),
            newest: Timestamp { time: 0, increment: 0 },
            read_at: None,
        }
    }
}

impl Ring {
    /// Forgets all changes, and that there is a position for them.
    pub(super) fn forget(&mut self) {
        self.changes.clear();
        self.end += 1;
        self.read_at = None;
    }

    /// From when on changes are to be read.
    pub(super) fn window(&self) -> Timestamp {
        Timestamp { time: self.newest.time.saturating_sub(WINDOW_SECS), increment: 0 }
    }

    /// Takes a change that is older than all positions.
    pub(super) fn skip(&mut self, changed: Timestamp, key: QueueKey) {
        self.newest = self.newest.max(changed);
        self.seen.insert((changed, key));
    }

    /// Takes a change, unless it was seen.
    pub(super) fn push(&mut self, changed: Timestamp, key: QueueKey) {
        self.newest = self.newest.max(changed);
        if self.seen.insert((changed, key.clone())) {
            if self.changes.len() == KEPT {
                self.changes.pop_front();
            }
            self.changes.push_back(key);
            self.end += 1;
        }
    }

    /// Forgets which changes were seen, of those that are not read again.
    pub(super) fn prune(&mut self) {
        while self.seen.first().is_some_and(|(changed, _)| *changed < self.window()) {
            self.seen.pop_first();
        }
    }

    /// The changes behind a position.
    pub(super) fn after(&self, after: Option<ChangeToken>) -> Changes {
        let end = ChangeToken::new(self.end);
        let Some(after) = after else {
            return Changes { changed: Changed::Queues(Vec::new()), next: end };
        };
        let missing = self.end.checked_sub(after.get()).and_then(|n| usize::try_from(n).ok());
        match missing.and_then(|missing| self.changes.len().checked_sub(missing)) {
            Some(skipped) => {
                let keys: Vec<_> = self.changes.range(skipped..).take(READ).cloned().collect();
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

    fn read(ring: &Ring, after: ChangeToken) -> (Vec<QueueKey>, ChangeToken) {
        let changes = ring.after(Some(after));
        let Changed::Queues(keys) = changes.changed else { panic!("the ring forgot") };
        (keys, changes.next)
    }

    #[test]
    fn what_was_seen_is_told_once_and_what_was_late_is_told() {
        let mut ring = Ring::default();
        ring.skip(at(100, 1), key("skipped"));
        let start = ring.after(None).next;
        for _ in 0..2 {
            ring.push(at(100, 1), key("skipped"));
            ring.push(at(100, 3), key("a"));
            ring.prune();
        }
        ring.push(at(91, 1), key("late"));
        ring.push(at(100, 4), key("a"));
        let (keys, next) = read(&ring, start);
        assert_eq!(keys, ["a", "late", "a"].map(key));
        assert_eq!(read(&ring, next).0, []);
        assert_eq!(ring.window(), at(90, 0));
    }

    #[test]
    fn only_the_window_is_remembered_as_seen() {
        let mut ring = Ring::default();
        for second in 0..100 {
            ring.push(at(second, 1), key("a"));
            ring.prune();
        }
        assert_eq!(ring.seen.len(), 11);
    }

    #[test]
    fn a_read_is_bounded_and_so_is_the_memory() {
        let mut ring = Ring::default();
        let start = ring.after(None).next;
        for n in 0..2_500 {
            ring.push(at(1, n), key(&format!("q{n}")));
        }
        let (first, next) = read(&ring, start);
        let (second, next) = read(&ring, next);
        let (third, end) = read(&ring, next);
        assert_eq!([first.len(), second.len(), third.len()], [1_000, 1_000, 500]);
        assert_eq!((&second[0], end), (&key("q1000"), ring.after(None).next));

        for n in 2_500..10_000 {
            ring.push(at(1, n), key("q"));
        }
        assert_eq!(read(&ring, start).0.len(), READ);
        ring.push(at(2, 0), key("one-too-many"));
        assert_eq!(ring.after(Some(start)).changed, Changed::Everything);
        assert_eq!(ring.changes.len(), KEPT);
    }

    #[test]
    fn a_position_that_never_was_or_is_forgotten_means_everything() {
        let mut ring = Ring::default();
        ring.push(at(1, 1), key("a"));
        let present = ring.after(None).next;
        for wrong in [0, i64::MIN, i64::MAX, present.get() + 1, present.get() - 2] {
            let changes = ring.after(Some(ChangeToken::new(wrong)));
            assert_eq!(changes, Changes { changed: Changed::Everything, next: present }, "{wrong}");
        }
        ring.forget();
        assert_eq!(ring.after(Some(present)).changed, Changed::Everything);
        assert!(ring.after(None).next > present);
    }
}
