//! Lines: the messages with one ordering key, which are handed out one claim at a time.
//!
//! A line is *open* while something waits in it and nothing of it is busy. Open lines have a turn,
//! by which claims go; a line that opens gets the last one.

use storage_traits::{Result, domain::Timestamp};

use super::{beside::garbage_after, step::Step};

/// By how many more or fewer messages of a line wait or are busy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shift {
    pub(super) waiting: i64,
    pub(super) busy: i64,
}

impl Shift {
    /// One has come into the line.
    pub(super) const COME: Self = Self { waiting: 1, busy: 0 };
    /// One that waited is gone.
    pub(super) const GONE: Self = Self { waiting: -1, busy: 0 };
    /// One that was busy waits again.
    pub(super) const BACK: Self = Self { waiting: 1, busy: -1 };
    /// One that was busy is gone.
    pub(super) const DONE: Self = Self { waiting: 0, busy: -1 };
}

/// Where free messages are taken from: an open line, or the messages without a key.
pub(super) struct Side {
    pub(super) key: Option<String>,
    waiting: i64,
}

impl Step<'_> {
    /// Changes a line, and opens or closes it.
    pub(super) async fn shift(
        &mut self,
        reading: i64,
        key: &str,
        by: Shift,
        now: Timestamp,
    ) -> Result<()> {
        let mut line = self.line(reading, key).await?;
        let was_empty = line.waiting == 0 && line.busy == 0;
        line.waiting += by.waiting;
        line.busy += by.busy;
        let opens = line.waiting > 0 && line.busy == 0;
        let is_empty = line.waiting == 0 && line.busy == 0;
        let counters = self.reading(reading)?;
        counters.in_line += by.waiting;
        counters.lines += i64::from(was_empty) - i64::from(is_empty);
        let mut freed = 0;
        line.turn = match (line.turn, opens) {
            (Some(turn), true) => {
                freed = by.waiting.max(0);
                Some(turn)
            }
            (None, true) => {
                counters.open_lines += 1;
                freed = line.waiting;
                Some(counters.next_turn())
            }
            (open, false) => {
                counters.open_lines -= i64::from(open.is_some());
                None
            }
        };
        line.garbage_at = is_empty.then(|| garbage_after(now.as_millis()));
        self.note_freed(reading, usize::try_from(freed).unwrap_or(0));
        self.put_line(line);
        Ok(())
    }

    /// The side whose turn it is; `plain_first` says that the messages without a key were not looked
    /// at yet.
    pub(super) async fn next_side(
        &mut self,
        reading: i64,
        plain_first: bool,
    ) -> Result<Option<Side>> {
        let line = self.first_open(reading).await?;
        let counters = self.reading(reading)?;
        let turn = line.as_ref().and_then(|line| line.turn);
        let plain = counters.ready > 0
            && turn.is_none_or(|turn| plain_first && counters.plain_turn <= turn);
        Ok(match line {
            _ if plain => Some(Side { key: None, waiting: 0 }),
            Some(line) => Some(Side { key: Some(line.key), waiting: line.waiting }),
            None => None,
        })
    }

    /// Up to `limit` of the first free messages of a side.
    pub(super) async fn first_of(
        &mut self,
        reading: i64,
        side: &Side,
        limit: usize,
    ) -> Result<Vec<super::shelf::Spot>> {
        match &side.key {
            None => self.first_ready(reading, limit).await,
            Some(key) => self.first_in_line(reading, key, side.waiting, limit).await,
        }
    }

    /// Closes the line that `taken` messages were claimed from, until they are acknowledged; the
    /// messages without a key go to the end, if anybody waits behind them.
    pub(super) async fn close_side(
        &mut self,
        reading: i64,
        side: &Side,
        taken: usize,
        now: Timestamp,
    ) -> Result<()> {
        if let Some(key) = &side.key {
            let taken = i64::try_from(taken).unwrap_or(i64::MAX);
            return self.shift(reading, key, Shift { waiting: -taken, busy: taken }, now).await;
        }
        let counters = self.reading(reading)?;
        if counters.open_lines > 0 {
            counters.plain_turn = counters.next_turn();
        }
        Ok(())
    }

    /// Sends an open line to the end, because it has been served.
    pub(super) async fn send_to_end(&mut self, reading: i64, key: &str) -> Result<()> {
        let turn = self.reading(reading)?.next_turn();
        let mut line = self.line(reading, key).await?;
        if line.turn.is_some() {
            line.turn = Some(turn);
            self.put_line(line);
        }
        Ok(())
    }
}
