//! Operations on a queue. A unit of work runs the operations that wait at the same time.

use async_trait::async_trait;
use storage_traits::{Result, StoreError};
use tokio::sync::oneshot;

use super::{
    bodies::{Completion, Reply},
    unit_of_work::{Progress, UnitOfWork},
};

/// What one caller requests of a queue.
#[async_trait]
pub(super) trait Operation: Send + Sync + 'static {
    type Reply: Reply;

    /// Whether it adds messages to the end of the queue.
    const APPENDS: bool = false;

    /// Computes the reply and the changes. It may run again, if the commit fails. An operation that
    /// returns an error has changed nothing, or the whole unit of work is discarded.
    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>>;
}

/// An operation whose caller waits for the reply.
#[async_trait]
pub(super) trait PendingOperation: Send {
    fn appends(&self) -> bool;

    /// Returns whether the caller no longer waits.
    fn is_abandoned(&self) -> bool;

    /// Runs the operation, and keeps its result. Returns an error if the whole unit of work failed.
    async fn run(&mut self, unit: &mut UnitOfWork<'_>) -> Result<()>;

    /// Discards the result: the unit of work was not committed.
    fn reset(&mut self);

    /// Sends the reply to the caller. Returns the operation itself if it has to run again.
    fn finish(self: Box<Self>, commit: &Completion<'_>) -> Option<Box<dyn PendingOperation>>;

    /// Sends an error to the caller.
    fn fail(self: Box<Self>, error: StoreError);
}

type ReplySender<O> = oneshot::Sender<Result<<<O as Operation>::Reply as Reply>::Complete>>;
type ReplyReceiver<O> = oneshot::Receiver<Result<<<O as Operation>::Reply as Reply>::Complete>>;

struct Queued<O: Operation> {
    operation: O,
    result: Option<Result<Progress<O::Reply>>>,
    sender: ReplySender<O>,
}

/// Returns an operation to run, and where its reply arrives.
pub(super) fn pending<O: Operation>(operation: O) -> (Box<dyn PendingOperation>, ReplyReceiver<O>) {
    let (sender, receiver) = oneshot::channel();
    (Box::new(Queued { operation, result: None, sender }), receiver)
}

#[async_trait]
impl<O: Operation> PendingOperation for Queued<O> {
    fn appends(&self) -> bool {
        O::APPENDS
    }

    fn is_abandoned(&self) -> bool {
        self.sender.is_closed()
    }

    async fn run(&mut self, unit: &mut UnitOfWork<'_>) -> Result<()> {
        match self.operation.run(unit).await {
            Err(error) if fails_unit(&error) => Err(error),
            result => {
                self.result = Some(result);
                Ok(())
            }
        }
    }

    fn reset(&mut self) {
        self.result = None;
    }

    fn finish(mut self: Box<Self>, commit: &Completion<'_>) -> Option<Box<dyn PendingOperation>> {
        let reply = match self.result.take() {
            None | Some(Ok(Progress::Again)) => return Some(self),
            Some(Err(error)) => Err(error),
            Some(Ok(Progress::Done(reply))) => reply.complete(commit),
        };
        drop(self.sender.send(reply)); // the caller may have gone
        None
    }

    fn fail(self: Box<Self>, error: StoreError) {
        drop(self.sender.send(Err(error)));
    }
}

/// Returns whether the unit of work as a whole failed, and not the request of one caller.
fn fails_unit(error: &StoreError) -> bool {
    use StoreError as E;
    matches!(error, E::Unavailable { .. } | E::Unexpected { .. } | E::Overloaded { .. })
}
