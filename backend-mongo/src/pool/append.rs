//! Messages that come to the end of a queue by a step: those that are compared with what was posted
//! before, that have an ordering key, or that are retained; and letters.

use async_trait::async_trait;
use storage_traits::{
    Result,
    domain::{ClientId, Deduplication, NewMessage, Posted, Timestamp},
};

use super::{
    beside::{Window, garbage_after},
    body::Answer,
    bucket::{Bucket, CAPACITY_BYTES, CAPACITY_SPAN},
    line::Shift,
    operation::Operation,
    record::Reading,
    slot::{Slot, State, message_id},
    step::{NewBucket, Progress, Step},
};

/// Posts messages.
pub(super) struct Append {
    pub(super) client: ClientId,
    pub(super) messages: Vec<NewMessage>,
    pub(super) now: Timestamp,
}

impl Answer for Option<Vec<Posted>> {
    fn shift(&mut self, from: i64, by: i64) {
        if let Some(posted) = self {
            posted.shift(from, by);
        }
    }
}

#[async_trait]
impl Operation for Append {
    type Answer = Option<Vec<Posted>>;

    const APPENDS: bool = true;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Self::Answer>> {
        if !step.knows(step.home) {
            return Ok(Progress::Done(None));
        }
        let ids = step.ids()?;
        let mut posted = Vec::with_capacity(self.messages.len());
        for message in &self.messages {
            if let Some(deduplication) = &message.deduplication
                && let Some(first) = seen(step, deduplication, self.now).await?
            {
                posted.push(Posted { id: message_id(ids, first)?, duplicate: true });
                continue;
            }
            let slot = Slot::new(&self.client, message, self.now);
            let body = message.body.as_bytes();
            let sequence = append(step, &slot, body, message.retained, self.now).await?;
            posted.push(Posted { id: message_id(ids, sequence)?, duplicate: false });
        }
        Ok(Progress::Done(Some(posted)))
    }
}

/// The position of the message that was stored with this deduplication id, if its window is open;
/// otherwise opens one for the message that is about to be stored.
async fn seen(
    step: &mut Step<'_>,
    deduplication: &Deduplication,
    now: Timestamp,
) -> Result<Option<i64>> {
    let name = Window::name(step.home, deduplication.id.as_str());
    let found = step.window(&name).await?;
    if let Some(window) = found.filter(|window| window.expires_at > now.as_millis()) {
        return Ok(Some(window.sequence));
    }
    let expires_at = now.plus(deduplication.window).as_millis();
    let window = Window {
        id: name.clone(),
        home: step.home,
        sequence: step.record()?.tail + 1,
        expires_at,
        garbage_at: garbage_after(expires_at),
    };
    step.dirty = true;
    step.windows.insert(name.clone());
    step.shelf.windows.insert(name, Some(window));
    Ok(None)
}

/// Puts a message at the end of the queue and of all its groups, and keeps it for later ones if it
/// is `retained`; answers its position.
pub(super) async fn append(
    step: &mut Step<'_>,
    slot: &Slot,
    body: &[u8],
    retained: bool,
    now: Timestamp,
) -> Result<i64> {
    let record = step.record()?;
    record.tail += 1;
    let sequence = record.tail;
    for reading in record.open_readings() {
        put(step, reading, sequence, slot, body, now).await?;
    }
    if retained {
        let log = step.log()?;
        let kept = Slot { state: State::Retained, ..slot.clone() };
        place(step, log, sequence, kept, body, false);
    }
    Ok(sequence)
}

/// Puts a message at the end of one reading.
pub(super) async fn put(
    step: &mut Step<'_>,
    reading: i64,
    sequence: i64,
    slot: &Slot,
    body: &[u8],
    now: Timestamp,
) -> Result<()> {
    come(step, reading, slot, now).await?;
    place(step, reading, sequence, slot.clone(), body, false);
    Ok(())
}

/// Counts a message that has come into a reading.
pub(super) async fn come(
    step: &mut Step<'_>,
    reading: i64,
    slot: &Slot,
    now: Timestamp,
) -> Result<()> {
    step.dirty = true;
    step.note_due(reading, slot.due());
    let counters = step.reading(reading)?;
    counters.letters += i64::from(slot.origin.is_some());
    match (slot.state, &slot.key) {
        (State::Delayed, _) => counters.delayed += 1,
        (State::InLine, Some(key)) => step.shift(reading, key, Shift::COME, now).await?,
        _ => {
            counters.ready += 1;
            step.note_freed(reading, 1);
        }
    }
    Ok(())
}

/// Puts a message into a bucket that the step makes.
pub(super) fn place(
    step: &mut Step<'_>,
    reading: i64,
    sequence: i64,
    slot: Slot,
    body: &[u8],
    fixed: bool,
) {
    let home = step.home;
    let fits = |new: &&mut NewBucket| {
        let bytes: usize = new.bodies.iter().map(Vec::len).sum();
        let offset = sequence - new.bucket.first;
        new.bucket.reading == reading
            && new.fixed == fixed
            && offset < CAPACITY_SPAN
            && bytes + body.len() <= CAPACITY_BYTES
            && (fixed || offset == i64::from(new.bucket.span))
    };
    let last = step.new.iter_mut().rev().find(|new| new.bucket.reading == reading);
    let new = if let Some(new) = last.filter(fits) {
        new
    } else {
        let bucket = Bucket::new(home, reading, sequence);
        step.new.push(NewBucket { bucket, bodies: Vec::new(), fixed });
        let last = step.new.len() - 1;
        &mut step.new[last]
    };
    let offset = u32::try_from(sequence - new.bucket.first).unwrap_or(0);
    new.bucket.put(offset, slot);
    new.bodies.push(body.to_vec());
    step.dirty = true;
}

impl Step<'_> {
    /// The reading of what is retained; it begins with the first message that is.
    fn log(&mut self) -> Result<i64> {
        let record = self.record()?;
        if let Some(log) = record.log() {
            return Ok(log);
        }
        let log = storage_traits::domain::Incarnation::generate_for_group().get();
        record.readings.insert(log.to_string(), Reading { is_log: true, ..Reading::default() });
        Ok(log)
    }
}
