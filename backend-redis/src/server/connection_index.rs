//! Which of a session's connections a thread uses.

use std::{
    num::NonZeroUsize,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Returns the index of the connection, among `count`, that the calling thread uses. A thread
/// always uses the same one, so its requests share a connection whose driver task it probably runs.
pub(crate) fn connection_index(count: NonZeroUsize) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    MINE.with(|mine| *mine % count)
}
