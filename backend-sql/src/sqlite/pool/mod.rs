//! The message pool.
//!
//! Time changes messages: delays and claims end, messages expire. The tables show the changes up to
//! the time when they were last applied to the queue. An operation that depends on them applies
//! what is due first, in bounded steps ([`apply_due`]), so that each change costs a constant amount
//! of work, once.

mod acknowledge;
mod backfill;
mod bodies;
mod claim;
mod claim_lifecycle;
mod claim_source;
mod dead_letter;
mod delete;
pub(super) mod due;
mod enqueue;
mod group;
mod lookup;
mod maintenance;
mod message;
mod ordering;
mod pop;
mod post;
mod progress;
mod purge;
mod redrive;
mod reschedule;
mod rows;
mod sweep;
mod transitions;
mod watch;

use storage_traits::{
    Result,
    domain::{QueueRef, Timestamp},
    pool::{Durability, MessagePool},
};

use self::{due::apply_due, progress::Progress};
use super::{store::Sqlite, transaction::Tx};

impl Sqlite {
    /// Repeats a write operation until it is done. Other operations run between the steps.
    async fn write_until_done<T, F>(&self, step: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<Progress<T>> + Clone + Send + 'static,
    {
        loop {
            if let Progress::Done(value) = self.file.write(step.clone()).await? {
                return Ok(value);
            }
        }
    }

    /// Applies all that is due in a queue.
    async fn apply_all_due(&self, queue: &QueueRef, now: Timestamp) -> Result<()> {
        let queue = queue.incarnation;
        self.write_until_done(move |tx| {
            let Some(mut row) = tx.queue(queue)? else { return Ok(Progress::Done(())) };
            let applied = apply_due(tx, &mut row, now)?;
            Ok(if applied.done { Progress::Done(()) } else { Progress::Again })
        })
        .await
    }
}

impl MessagePool for Sqlite {
    fn durability(&self) -> Durability {
        self.file.durability()
    }
}
