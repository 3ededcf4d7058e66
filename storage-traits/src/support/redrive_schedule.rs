use std::{num::NonZeroU32, time::Duration};

use crate::domain::Timestamp;

/// Computes when each message of a redrive becomes visible.
#[derive(Debug, Clone, Copy)]
pub struct RedriveSchedule {
    start: Timestamp,
    rate: Option<NonZeroU32>,
}

impl RedriveSchedule {
    /// Starts a schedule at `now`. With a rate it starts no earlier than `next_free`, the first time
    /// that the previous redrive of the queue left unused.
    pub fn new(rate: Option<NonZeroU32>, next_free: Timestamp, now: Timestamp) -> Self {
        Self { start: if rate.is_some() { next_free.max(now) } else { now }, rate }
    }

    /// Returns when the message with this index, counted from 0, becomes visible.
    pub fn visible_at(&self, index: u64) -> Timestamp {
        let Some(rate) = self.rate else { return self.start };
        let millis = index.saturating_mul(1_000) / u64::from(rate.get());
        self.start.plus(Duration::from_millis(millis))
    }

    /// Returns the first unused time after `count` messages; `previous`, if nothing moved or there
    /// is no rate.
    pub fn next_free(&self, count: u64, previous: Timestamp) -> Timestamp {
        if self.rate.is_some() && count > 0 { self.visible_at(count) } else { previous }
    }
}
