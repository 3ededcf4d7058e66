//! Redrive: moves dead letters back to the queues or groups that they came from.

use std::num::NonZeroU32;

use storage_traits::{
    Limit,
    domain::QueueKey,
    pool::{RedriveSpec, Redriven},
};

use super::{
    context::Services,
    error::{Error, Result},
};

/// The largest number of messages that one call moves.
pub(crate) const MAX_REDRIVEN: u32 = 10_000;
/// The number of messages that one call moves by default.
pub(crate) const DEFAULT_REDRIVEN: u32 = 1_000;
/// The largest rate, in messages per second.
pub(crate) const MAX_RATE: u32 = 100_000;
/// How many messages the pool moves in one operation, so that other operations run in between.
const MAX_BATCH: u32 = 200;

impl Services {
    /// Moves at most `limit` dead letters back, and makes `rate` of them visible per second.
    pub(crate) async fn redrive(
        &self,
        key: &QueueKey,
        limit: Option<i64>,
        rate: Option<i64>,
    ) -> Result<Redriven> {
        let limit =
            bounded("limit", limit, MAX_REDRIVEN)?.map_or(DEFAULT_REDRIVEN, NonZeroU32::get);
        let rate = bounded("rate", rate, MAX_RATE)?;
        let cached = self
            .queues
            .find(key)
            .await?
            .ok_or_else(|| Error::NotFound(format!("the queue {} does not exist", key.name)))?;
        let now = self.now();
        let mut done = Redriven { moved: 0, orphaned: 0, more: true, last_visible_at: now };
        let mut left = limit;
        while let Some(limit) = Limit::new(left.min(MAX_BATCH)).filter(|_| done.more) {
            let spec = RedriveSpec { limit, rate };
            let step = match self.pool.redrive(cached.queue(), spec, now).await {
                Ok(step) => step,
                // The messages already moved are reported. A lasting failure is reported by the
                // next call.
                Err(error) if done.moved + done.orphaned > 0 => {
                    tracing::warn!(%error, "a redrive ended early");
                    return Ok(done);
                }
                Err(error) => return Err(error.into()),
            };
            done.moved += step.moved;
            done.orphaned += step.orphaned;
            done.more = step.more;
            done.last_visible_at = done.last_visible_at.max(step.last_visible_at);
            if step.moved + step.orphaned == 0 {
                break; // no remaining dead letter can be moved now
            }
            left -= left.min(MAX_BATCH);
        }
        Ok(done)
    }
}

fn bounded(name: &str, number: Option<i64>, max: u32) -> Result<Option<NonZeroU32>> {
    let Some(number) = number else { return Ok(None) };
    u32::try_from(number)
        .ok()
        .filter(|number| *number <= max)
        .and_then(NonZeroU32::new)
        .map(Some)
        .ok_or_else(|| Error::InvalidValue(format!("\"{name}\" must be 1 to {max}")))
}
