use crate::domain::Timestamp;

/// Length of a minute, in milliseconds.
const MINUTE: i64 = 60_000;

/// Estimator of the number of events in the last 60 seconds, from two counts: one for the current
/// minute of the clock, one for the minute before. Stores keep the three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlidingMinuteCounter {
    /// Current minute: minutes since the epoch.
    pub minute: i64,
    /// Number of events in the current minute.
    pub count: u64,
    /// Number of events in the minute before.
    pub previous: u64,
}

impl SlidingMinuteCounter {
    /// Adds events at `now`.
    pub fn add(&mut self, count: u64, now: Timestamp) {
        if count > 0 {
            *self = self.at(now);
            self.count = self.count.saturating_add(count);
        }
    }

    /// Returns the estimate for the 60 seconds before `now`, rounded down: the current minute
    /// counts in full, the previous one in proportion to the part that the window still covers.
    pub fn last_minute(&self, now: Timestamp) -> u64 {
        let at_now = self.at(now);
        let covered = MINUTE - now.as_millis().rem_euclid(MINUTE);
        let previous = u128::from(at_now.previous) * u128::from(covered.unsigned_abs())
            / u128::from(MINUTE.unsigned_abs());
        at_now.count.saturating_add(u64::try_from(previous).unwrap_or(u64::MAX))
    }

    /// Returns the counter with `now` in its current minute.
    fn at(&self, now: Timestamp) -> Self {
        let minute = now.as_millis().div_euclid(MINUTE);
        match minute - self.minute {
            // Node clocks differ: a clock that is up to a minute behind adds to the current minute.
            -1 | 0 => *self,
            1 => Self { minute, count: 0, previous: self.count },
            _ => Self { minute, count: 0, previous: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_covers_the_last_60_seconds() {
        let mut counter = SlidingMinuteCounter::default();
        let at = |second: i64| Timestamp::from_millis(600_000 + second * 1_000);
        counter.add(30, at(10));
        counter.add(30, at(50));
        for (second, expected) in [(50, 60), (60, 60), (75, 45), (90, 30), (119, 1), (120, 0)] {
            assert_eq!(counter.last_minute(at(second)), expected, "{second}");
        }
        counter.add(5, at(90));
        assert_eq!(counter.last_minute(at(90)), 35);
        counter.add(1, at(59));
        assert_eq!(counter.last_minute(at(120)), 6);
        assert_eq!(counter.last_minute(at(240)), 0);
        // The count of a clock that was far ahead is dropped when a correct clock adds.
        counter.add(1, at(9_000));
        counter.add(2, at(240));
        assert_eq!(counter.last_minute(at(240)), 2);
    }
}
