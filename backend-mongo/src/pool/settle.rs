//! What time alone does to a queue: messages expire, delays end, claims lapse.

use storage_traits::{Result, domain::Timestamp};

use super::{
    line::Shift,
    shelf::Spot,
    slot::{Slot, State},
    step::{STEP, Step},
};

/// What one step of settling did.
pub(super) struct Settled {
    /// Whether nothing is due any more; otherwise the step is to be repeated.
    pub(super) done: bool,
    /// Messages that it removed or freed.
    pub(super) handled: u64,
}

impl Step<'_> {
    /// Brings a reading up to `now`, in a bounded step.
    pub(super) async fn settle(&mut self, reading: i64, now: Timestamp) -> Result<Settled> {
        let mut handled = 0;
        if self.reading(reading)?.fill.is_some() {
            return Ok(Settled { done: false, handled: 0 });
        }
        let is_log = self.reading(reading)?.is_log;
        let counts = reading == self.home;
        let due = self.due(reading, now).await?;
        // Buckets that were kept because the journal named them go with the next commit.
        let named = self.base.as_ref().map_or(&[][..], |record| &record.journal);
        let is_named = |id| named.iter().any(|entry| entry.placed.iter().any(|it| it.bucket == id));
        self.dirty |= self.shelf.empty().any(|id| !is_named(id));
        for id in due {
            let Some(bucket) = self.shelf.bucket(id) else { continue };
            let due = bucket.slots.iter().filter(|(_, slot)| slot.due() <= now.as_millis());
            let due: Vec<(Spot, bool)> = due
                .map(|(offset, slot)| {
                    let sequence = bucket.sequence(*offset);
                    (Spot { bucket: id, offset: *offset, reading, sequence }, slot.is_over(now))
                })
                .collect();
            for (at, is_over) in due {
                if handled >= STEP as u64 {
                    return Ok(Settled { done: false, handled });
                }
                handled += 1;
                if is_log {
                    self.erase(at)?;
                } else if is_over {
                    self.remove(at, now).await?;
                    self.tally.expired += u64::from(counts);
                } else {
                    self.free(at, now).await?;
                }
            }
        }
        Ok(Settled { done: true, handled })
    }

    /// Removes a message from its reading, whatever its state.
    pub(super) async fn remove(&mut self, at: Spot, now: Timestamp) -> Result<Slot> {
        let slot = self.erase(at)?;
        let counters = self.reading(at.reading)?;
        counters.letters -= i64::from(slot.origin.is_some());
        match slot.state {
            State::Claimed => counters.claimed -= 1,
            State::Delayed => counters.delayed -= 1,
            State::Ready => counters.ready -= 1,
            State::InLine | State::Retained => {} // the former are counted with their line
        }
        match &slot.key {
            Some(key) if slot.state == State::InLine => {
                self.shift(at.reading, key, Shift::GONE, now).await?;
            }
            Some(key) if slot.is_busy() => {
                self.shift(at.reading, key, Shift::DONE, now).await?;
            }
            _ => {}
        }
        Ok(slot)
    }

    /// Puts a message that is held back among the free ones. A lapsed claim stays written on it
    /// until another takes it.
    pub(super) async fn free(&mut self, at: Spot, now: Timestamp) -> Result<()> {
        let before = self.slot(at)?.clone();
        let slot = self.change(at, |slot| {
            slot.state = slot.free_state();
            slot.held_until = None;
        })?;
        self.note_due(at.reading, slot.due());
        let counters = self.reading(at.reading)?;
        match before.state {
            State::Claimed => counters.claimed -= 1,
            State::Delayed => counters.delayed -= 1,
            _ => {}
        }
        let Some(key) = &slot.key else {
            counters.ready += 1;
            self.note_freed(at.reading, 1);
            return Ok(());
        };
        let by = if before.is_busy() { Shift::BACK } else { Shift::COME };
        self.shift(at.reading, key, by, now).await
    }
}
