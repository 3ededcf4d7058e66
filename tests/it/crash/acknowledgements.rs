//! A count of acknowledged changes.

use std::sync::Arc;

use tests::DEADLINE;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Counts acknowledged changes, so that a test can kill the server while many are in progress.
#[derive(Clone)]
pub(crate) struct Acknowledgements(Arc<Semaphore>);

impl Acknowledgements {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub(crate) fn count_one(&self) {
        self.0.add_permits(1);
    }

    /// Waits until so many more changes were acknowledged.
    pub(crate) async fn wait_for(&self, count: u32) {
        let counted = timeout(DEADLINE, self.0.acquire_many(count)).await;
        counted.expect("changes are acknowledged").expect("it is never closed").forget();
    }
}
