use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time,
};

use crate::domain::Incarnation;

/// Event that a watch waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchFor {
    /// A message can be claimed: it was ready when the watch began, was posted, was released, or
    /// its delay or its claim ended. Wakes no more watches than there are such messages.
    Claimable,
    /// A message was posted. Wakes every watch.
    Posts,
}

/// Watches of one pool on this node. A backend calls the `notify_…` methods when it detects a
/// change.
#[derive(Debug, Clone, Default)]
pub struct WatchRegistry(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Number of watches on all queues. Without watches, the `notify_…` methods do not take the
    /// lock.
    watches: AtomicUsize,
    queues: Mutex<HashMap<Incarnation, Watched>>,
}

/// State of a queue that has at least one watch.
#[derive(Debug, Default)]
struct Watched {
    signals: Arc<QueueSignals>,
    watches: usize,
}

#[derive(Debug, Default)]
struct QueueSignals {
    claimable: Notify,
    posts: watch::Sender<()>,
}

impl Inner {
    fn queues(&self) -> MutexGuard<'_, HashMap<Incarnation, Watched>> {
        self.queues.lock().expect("no code panics while it holds this lock")
    }
}

impl WatchRegistry {
    /// Adds a watch on a queue. The watch ends when it is dropped.
    pub fn watch(&self, queue: Incarnation, what: WatchFor) -> Watch {
        let mut queues = self.0.queues();
        let watched = queues.entry(queue).or_default();
        watched.watches += 1;
        self.0.watches.fetch_add(1, Ordering::AcqRel);
        Watch {
            registry: Arc::clone(&self.0),
            queue,
            posts: (what == WatchFor::Posts).then(|| watched.signals.posts.subscribe()),
            signals: Arc::clone(&watched.signals),
            woken: false,
        }
    }

    /// Returns whether any queue has a watch.
    pub fn has_watches(&self) -> bool {
        self.0.watches.load(Ordering::Acquire) > 0
    }

    /// Returns whether the queue has a watch.
    pub fn is_watched(&self, queue: Incarnation) -> bool {
        self.has_watches() && self.0.queues().contains_key(&queue)
    }

    /// Wakes up to `claimable` watches of a queue for [`WatchFor::Claimable`], one for each message
    /// that became ready.
    pub fn notify_claimable(&self, queue: Incarnation, claimable: usize) {
        if claimable == 0 || !self.has_watches() {
            return;
        }
        if let Some(watched) = self.0.queues().get(&queue) {
            for _ in 0..claimable.min(watched.watches) {
                watched.signals.claimable.notify_one();
            }
        }
    }

    /// Wakes every watch of a queue for [`WatchFor::Posts`].
    pub fn notify_posted(&self, queue: Incarnation) {
        if self.has_watches()
            && let Some(watched) = self.0.queues().get(&queue)
        {
            watched.signals.posts.send_replace(());
        }
    }

    /// Wakes all watches of a queue.
    pub fn notify_all(&self, queue: Incarnation) {
        self.notify_claimable(queue, usize::MAX);
        self.notify_posted(queue);
    }

    /// Wakes, on every watched queue, one watch for [`WatchFor::Claimable`] and all watches for
    /// [`WatchFor::Posts`]. For a backend that detected a change and does not know of which queue.
    pub fn notify_everything(&self) {
        for watched in self.0.queues().values() {
            watched.signals.claimable.notify_one();
            watched.signals.posts.send_replace(());
        }
    }
}

/// Watch on a queue, which ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    registry: Arc<Inner>,
    queue: Incarnation,
    signals: Arc<QueueSignals>,
    posts: Option<watch::Receiver<()>>,
    woken: bool,
}

impl Watch {
    /// Waits for the event, at most for `timeout`; returns whether it occurred. A wake-up is a
    /// hint: another consumer may already have claimed the messages.
    pub async fn wait(&mut self, timeout: Duration) -> bool {
        // A consumer that waits again found no message, so its last wake-up need not be passed on.
        self.woken = false;
        let happened = match &mut self.posts {
            // `signals` owns the sender, so the channel stays open.
            Some(posts) => time::timeout(timeout, posts.changed()).await.is_ok(),
            None => time::timeout(timeout, self.signals.claimable.notified()).await.is_ok(),
        };
        self.woken = happened;
        happened
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut queues = self.registry.queues();
        if let Some(watched) = queues.get_mut(&self.queue) {
            watched.watches -= 1;
            if watched.watches == 0 {
                queues.remove(&self.queue);
            }
        }
        drop(queues);
        self.registry.watches.fetch_sub(1, Ordering::AcqRel);
        // The consumer may have left messages, or ended without claiming: wake the next one.
        if self.woken && self.posts.is_none() {
            self.signals.claimable.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn queue() -> Incarnation {
        Incarnation::new(7).unwrap()
    }

    #[tokio::test]
    async fn an_event_before_the_wait_is_not_missed() {
        let registry = WatchRegistry::default();
        let (mut claimer, mut reader) = (
            registry.watch(queue(), WatchFor::Claimable),
            registry.watch(queue(), WatchFor::Posts),
        );
        registry.notify_claimable(queue(), 1);
        registry.notify_posted(queue());
        assert!(claimer.wait(LONG).await);
        assert!(reader.wait(LONG).await);
        assert!(!claimer.wait(Duration::ZERO).await);
        assert!(!reader.wait(Duration::ZERO).await);
    }

    #[tokio::test]
    async fn a_woken_watch_that_ends_wakes_the_next() {
        let registry = WatchRegistry::default();
        let [mut first, mut second] =
            [(); 2].map(|()| registry.watch(queue(), WatchFor::Claimable));
        registry.notify_claimable(queue(), 1);
        assert!(first.wait(LONG).await);
        assert!(!second.wait(Duration::ZERO).await);
        drop(first);
        assert!(second.wait(LONG).await);
    }

    #[tokio::test]
    async fn a_dropped_watch_is_removed() {
        let registry = WatchRegistry::default();
        let watches =
            [WatchFor::Claimable, WatchFor::Posts].map(|what| registry.watch(queue(), what));
        assert!(registry.is_watched(queue()));
        drop(watches);
        assert!(!registry.has_watches() && !registry.is_watched(queue()));
    }
}
