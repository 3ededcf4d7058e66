use crate::domain::Timestamp;

/// Milliseconds.
const MINUTE: i64 = 60_000;

/// How many messages were handled of late, in little space: counted by the minute of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recent {
    /// The minute that is counted, since the epoch.
    pub minute: i64,
    /// How many in it.
    pub count: u64,
    /// How many in the minute before.
    pub before: u64,
}

impl Recent {
    /// Adds some.
    pub fn add(&mut self, count: u64, now: Timestamp) {
        if count > 0 {
            *self = self.at(now);
            self.count = self.count.saturating_add(count);
        }
    }

    /// How many in the last minute: all since the clock's minute began, and of the minute before a
    /// part as long as what is missing of this one, rounded down.
    pub fn last_minute(&self, now: Timestamp) -> u64 {
        let this = self.at(now);
        let missing = MINUTE - now.as_millis().rem_euclid(MINUTE);
        let before = u128::from(this.before) * u128::from(missing.unsigned_abs())
            / u128::from(MINUTE.unsigned_abs());
        this.count.saturating_add(u64::try_from(before).unwrap_or(u64::MAX))
    }

    fn at(&self, now: Timestamp) -> Self {
        let minute = now.as_millis().div_euclid(MINUTE);
        match minute - self.minute {
            // A clock that is a little late adds to the minute that has begun.
            -1 | 0 => *self,
            1 => Self { minute, count: 0, before: self.count },
            _ => Self { minute, count: 0, before: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_minute_slides() {
        let mut recent = Recent::default();
        let at = |second: i64| Timestamp::from_millis(600_000 + second * 1_000);
        recent.add(30, at(10));
        recent.add(30, at(50));
        for (second, expected) in [(50, 60), (60, 60), (75, 45), (90, 30), (119, 1), (120, 0)] {
            assert_eq!(recent.last_minute(at(second)), expected, "{second}");
        }
        recent.add(5, at(90));
        assert_eq!(recent.last_minute(at(90)), 35);
        recent.add(1, at(59));
        assert_eq!(recent.last_minute(at(120)), 6);
        assert_eq!(recent.last_minute(at(240)), 0);
        // A clock that was far ahead has no say for long.
        recent.add(1, at(9_000));
        recent.add(2, at(240));
        assert_eq!(recent.last_minute(at(240)), 2);
    }
}
