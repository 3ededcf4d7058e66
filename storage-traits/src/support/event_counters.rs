use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of the events that no caller requested, since the pool object was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventCounts {
    /// Number of messages whose ttl ended. A message that also expires in groups is counted once.
    pub expired: u64,
    /// Number of messages that were moved to a dead-letter queue.
    pub dead_lettered: u64,
}

/// Atomic counters of a pool's events, which all its tasks share.
#[derive(Debug, Default)]
pub struct EventCounters {
    expired: AtomicU64,
    dead_lettered: AtomicU64,
}

impl EventCounters {
    /// Adds the events of one step.
    pub fn add(&self, counts: EventCounts) {
        self.add_expired(counts.expired);
        self.add_dead_lettered(counts.dead_lettered);
    }

    /// Adds messages whose ttl ended.
    pub fn add_expired(&self, count: u64) {
        if count > 0 {
            self.expired.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Adds messages that were moved to a dead-letter queue.
    pub fn add_dead_lettered(&self, count: u64) {
        if count > 0 {
            self.dead_lettered.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Returns the current counts. The two are read one after the other, so they may differ by a
    /// step in progress.
    pub fn snapshot(&self) -> EventCounts {
        EventCounts {
            expired: self.expired.load(Ordering::Relaxed),
            dead_lettered: self.dead_lettered.load(Ordering::Relaxed),
        }
    }
}
