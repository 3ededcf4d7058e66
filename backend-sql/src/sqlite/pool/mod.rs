//! The message pool.
//!
//! A queue's rows say what is so at the moment when the queue was last settled. Whatever depends
//! on them settles the queue first ([`settle`]): a bounded step, repeated until nothing is due, so
//! that time passing costs each message a constant amount of work, once.

mod acknowledge;
mod arrival;
mod claim;
mod group;
mod line;
mod maintenance;
mod message;
mod redrive;
mod rows;
mod settle;
mod side;
mod wake;

use storage_traits::{
    Result,
    pool::{Durability, MessagePool},
};

pub(super) use self::wake::settle_until;
use super::{Sqlite, writer::Tx};

/// How many messages one step settles, moves or purges at the most, so that no step keeps the
/// writer for long.
const STEP: usize = 256;

/// What one of several bounded steps came to.
pub(super) enum Progress<T> {
    Done(T),
    Again,
}

impl Sqlite {
    /// Repeats a step until it is done, letting others go between.
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
}

impl MessagePool for Sqlite {
    fn durability(&self) -> Durability {
        self.file.durability()
    }
}
