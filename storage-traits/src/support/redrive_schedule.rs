use std::{num::NonZeroU32, time::Duration};

use crate::domain::Timestamp;

/// Visibility times of the messages that one redrive moves.
#[derive(Debug, Clone, Copy)]
pub struct RedriveSchedule {
    start: Timestamp,
    rate: Option<NonZeroU32>,
}

impl RedriveSchedule {
    /// Creates a schedule that starts at `now`; with a rate, no earlier than `next_free`, the first
    /// time that the previous redrive of the queue left unused.
    pub fn new(rate: Option<NonZeroU32>, next_free: Timestamp, now: Timestamp) -> Self {
        Self { start: if rate.is_some() { next_free.max(now) } else { now }, rate }
    }

    /// Returns the time at which the message with this index, counted from 0, becomes visible:
    /// rounded down to a millisecond.
    pub fn visible_at(&self, index: u64) -> Timestamp {
        let Some(rate) = self.rate else { return self.start };
        let millis = index.saturating_mul(1_000) / u64::from(rate.get());
        self.start.plus(Duration::from_millis(millis))
    }

    /// Returns the first unused time after `count` messages, which the backend stores for the next
    /// redrive; returns `previous` if no message was moved or there is no rate.
    pub fn next_free(&self, count: u64, previous: Timestamp) -> Timestamp {
        if self.rate.is_some() && count > 0 { self.visible_at(count) } else { previous }
    }
}
