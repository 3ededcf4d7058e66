use std::sync::atomic::{AtomicU64, Ordering};

/// Number of events in the background since the pool was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventCounts {
    /// Messages whose ttl ended.
    pub expired: u64,
    /// Messages that were moved to a dead-letter queue.
    pub dead_lettered: u64,
}

/// Counts the events of a pool; shared by all its tasks.
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

    /// Returns the present counts.
    pub fn snapshot(&self) -> EventCounts {
        EventCounts {
            expired: self.expired.load(Ordering::Relaxed),
            dead_lettered: self.dead_lettered.load(Ordering::Relaxed),
        }
    }
}
