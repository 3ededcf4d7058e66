//! A pool of four connections to one database.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Result, anyhow};
use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::database;

const CONNECTIONS: usize = 4;

pub(crate) struct Pool {
    free: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Pool {
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>> {
        let free: rusqlite::Result<_> = (0..CONNECTIONS).map(|_| database::open(path)).collect();
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        Ok(Arc::new(Self { free: Mutex::new(free?), permits }))
    }

    /// Waits for a free connection and runs the task with it, on a thread that may block.
    pub(crate) async fn run<T: Send + 'static>(
        self: Arc<Self>,
        task: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.permits).acquire_owned().await?;
        // All of this is in the blocking task, which runs to its end even if the caller is
        // cancelled.
        let blocking = move || {
            let connection = self.lock()?.pop();
            let mut connection =
                connection.ok_or_else(|| anyhow!("a permit without a connection"))?;
            let done = task(&mut connection);
            self.lock()?.push(connection);
            drop(permit);
            Ok(done?)
        };
        spawn_blocking(blocking).await?
    }

    fn lock(&self) -> Result<MutexGuard<'_, Vec<Connection>>> {
        self.free.lock().map_err(|_| anyhow!("the lock of the pool is poisoned"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_returned_after_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Pool::open(&dir.path().join("test.db")).unwrap();
        for _ in 0..=CONNECTIONS {
            let failed = Arc::clone(&pool).run(|connection| connection.execute("nonsense", []));
            assert!(failed.await.is_err());
        }
        assert_eq!(pool.lock().unwrap().len(), CONNECTIONS);
        assert_eq!(pool.permits.available_permits(), CONNECTIONS);
    }
}
