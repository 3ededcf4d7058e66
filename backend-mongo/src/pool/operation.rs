//! Operations on a queue: each is worked out in a step, with others that wait at the same time.

use async_trait::async_trait;
use storage_traits::Result;
use tokio::sync::oneshot;

use super::{
    body::{Answer, Bodies, fill},
    step::{Progress, Step},
};

/// What one caller wants of a queue.
#[async_trait]
pub(super) trait Operation: Send + Sync + 'static {
    type Answer: Answer;

    /// Whether it puts messages at the end of the queue.
    const APPENDS: bool = false;

    /// Works it out. If it fails it has changed nothing, or the whole step is given up.
    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Self::Answer>>;
}

/// An operation whose caller waits.
#[async_trait]
pub(super) trait Waiting: Send {
    fn appends(&self) -> bool;

    /// Whether the caller has gone.
    fn is_given_up(&self) -> bool;

    /// Works it out, if it is not done yet.
    async fn run(&mut self, step: &mut Step<'_>) -> Result<()>;

    /// Forgets what came of it: the step was not committed.
    fn reset(&mut self);

    /// Tells the caller, if it is done; answers itself if it has to go on.
    fn finish(self: Box<Self>, end: &End<'_>) -> Option<Box<dyn Waiting>>;

    /// Tells the caller that it failed.
    fn fail(self: Box<Self>, error: storage_traits::StoreError);
}

/// How a step ended.
pub(super) struct End<'e> {
    pub(super) wanted: &'e [(mongodb::bson::oid::ObjectId, u32)],
    pub(super) bodies: &'e Bodies,
    /// From which position on, and by how much, positions turned out to be others.
    pub(super) shift: (i64, i64),
}

struct Pending<O: Operation> {
    operation: O,
    outcome: Option<Result<Progress<O::Answer>>>,
    reply: oneshot::Sender<Result<O::Answer>>,
}

/// An operation, and where its answer will come.
pub(super) fn waiting<O: Operation>(
    operation: O,
) -> (Box<dyn Waiting>, oneshot::Receiver<Result<O::Answer>>) {
    let (reply, answer) = oneshot::channel();
    (Box::new(Pending { operation, outcome: None, reply }), answer)
}

#[async_trait]
impl<O: Operation> Waiting for Pending<O> {
    fn appends(&self) -> bool {
        O::APPENDS
    }

    fn is_given_up(&self) -> bool {
        self.reply.is_closed()
    }

    async fn run(&mut self, step: &mut Step<'_>) -> Result<()> {
        match self.operation.run(step).await {
            Err(error) if is_failure(&error) => Err(error),
            outcome => {
                self.outcome = Some(outcome);
                Ok(())
            }
        }
    }

    fn reset(&mut self) {
        self.outcome = None;
    }

    fn finish(mut self: Box<Self>, end: &End<'_>) -> Option<Box<dyn Waiting>> {
        let result = match self.outcome.take() {
            None | Some(Ok(Progress::Again)) => return Some(self),
            Some(Err(error)) => Err(error),
            Some(Ok(Progress::Done(mut answer))) => {
                answer.shift(end.shift.0, end.shift.1);
                fill(answer.messages(), end.wanted, end.bodies).map(|()| answer)
            }
        };
        drop(self.reply.send(result)); // the caller may have gone
        None
    }

    fn fail(self: Box<Self>, error: storage_traits::StoreError) {
        drop(self.reply.send(Err(error)));
    }
}

/// Whether the step as a whole failed, and not what one caller asked for.
fn is_failure(error: &storage_traits::StoreError) -> bool {
    use storage_traits::StoreError as E;
    matches!(error, E::Unavailable { .. } | E::Unexpected { .. } | E::Overloaded { .. })
}
