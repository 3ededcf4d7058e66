use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use crate::{
    Result,
    domain::{Incarnation, QueueRef, Timestamp},
};

/// What a watch waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchFor {
    /// Something can be claimed: from the start, or because a message was posted or freed, its
    /// delay ended, or its claim lapsed. Of many watches no more are woken than there is to claim.
    Claimable,
    /// Messages were posted. Wakes every watch.
    Posts,
}

/// Waiting for a queue to have something, without asking again and again.
#[async_trait]
pub trait WakeUps: Send + Sync {
    /// Begins to watch a queue. Nothing that happens from then on is missed, so a consumer that
    /// looks *after* this call, finds nothing and waits, waits rightly. A watch on a queue that the
    /// pool does not know is woken at once, and one on a queue that is dropped when that happens:
    /// it is time to look which life the queue is in.
    ///
    /// While nothing happens a watched queue costs the store at most one query a second.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn watch(&self, queue: &QueueRef, what: WatchFor, now: Timestamp) -> Result<Watch>;
}

/// The watches of a pool on this node: what a backend rings when it sees something happen.
#[derive(Debug, Clone, Default)]
pub struct Bells(Arc<Tower>);

#[derive(Debug, Default)]
struct Tower {
    /// How many watches there are, so that nobody locks in vain.
    watches: AtomicUsize,
    bells: Mutex<HashMap<Incarnation, (Arc<Bell>, usize)>>,
}

#[derive(Debug, Default)]
struct Bell {
    claimable: Notify,
    posts: watch::Sender<()>,
}

impl Tower {
    fn bells(&self) -> MutexGuard<'_, HashMap<Incarnation, (Arc<Bell>, usize)>> {
        self.bells.lock().expect("no holder panics")
    }
}

impl Bells {
    /// Begins to watch a queue.
    pub fn watch(&self, queue: Incarnation, what: WatchFor) -> Watch {
        let mut bells = self.0.bells();
        let (bell, count) = bells.entry(queue).or_default();
        *count += 1;
        self.0.watches.fetch_add(1, Ordering::AcqRel);
        let posts = (what == WatchFor::Posts).then(|| bell.posts.subscribe());
        Watch { tower: Arc::clone(&self.0), queue, bell: Arc::clone(bell), posts, woken: false }
    }

    /// Whether anybody watches anything.
    pub fn any(&self) -> bool {
        self.0.watches.load(Ordering::Acquire) > 0
    }

    /// Whether anybody watches the queue.
    pub fn is_watched(&self, queue: Incarnation) -> bool {
        self.any() && self.0.bells().contains_key(&queue)
    }

    /// Tells the watches of a queue that `claimable` more messages can be claimed.
    pub fn claimable(&self, queue: Incarnation, claimable: usize) {
        if claimable == 0 || !self.any() {
            return;
        }
        if let Some((bell, watches)) = self.0.bells().get(&queue) {
            (0..claimable.min(*watches)).for_each(|_| bell.claimable.notify_one());
        }
    }

    /// Tells the watches of a queue that messages were posted.
    pub fn posted(&self, queue: Incarnation) {
        if self.any()
            && let Some((bell, _)) = self.0.bells().get(&queue)
        {
            bell.posts.send_replace(());
        }
    }

    /// Wakes every watch of a queue.
    pub fn wake(&self, queue: Incarnation) {
        self.claimable(queue, usize::MAX);
        self.posted(queue);
    }

    /// Wakes one watch of each kind on every queue, because nobody knows what happened.
    pub fn wake_all(&self) {
        for (bell, _) in self.0.bells().values() {
            bell.claimable.notify_one();
            bell.posts.send_replace(());
        }
    }
}

/// A watch on a queue; it ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    tower: Arc<Tower>,
    queue: Incarnation,
    bell: Arc<Bell>,
    posts: Option<watch::Receiver<()>>,
    woken: bool,
}

impl Watch {
    /// Waits until something happens, or for `patience`; says whether something did. It may have
    /// been somebody else's luck by the time one looks.
    pub async fn wait(&mut self, patience: Duration) -> bool {
        // Whoever waits again has found nothing, so there is nothing to tell others of.
        self.woken = false;
        let happened = match &mut self.posts {
            // The sender lives as long as the bell.
            Some(posts) => timeout(patience, posts.changed()).await.is_ok(),
            None => timeout(patience, self.bell.claimable.notified()).await.is_ok(),
        };
        self.woken = happened;
        happened
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut bells = self.tower.bells();
        if let Some((_, count)) = bells.get_mut(&self.queue) {
            *count -= 1;
            if *count == 0 {
                bells.remove(&self.queue);
            }
        }
        drop(bells);
        self.tower.watches.fetch_sub(1, Ordering::AcqRel);
        // It may have taken less than there is, or have gone without looking: let another look.
        if self.woken && self.posts.is_none() {
            self.bell.claimable.notify_one();
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
    async fn what_happens_between_looking_and_waiting_is_not_missed() {
        let bells = Bells::default();
        let (mut claimer, mut reader) =
            (bells.watch(queue(), WatchFor::Claimable), bells.watch(queue(), WatchFor::Posts));
        bells.claimable(queue(), 1);
        bells.posted(queue());
        assert!(claimer.wait(LONG).await);
        assert!(reader.wait(LONG).await);
        assert!(!claimer.wait(Duration::ZERO).await);
        assert!(!reader.wait(Duration::ZERO).await);
    }

    #[tokio::test]
    async fn a_claimer_that_goes_away_wakes_the_next() {
        let bells = Bells::default();
        let [mut first, mut second] = [(); 2].map(|()| bells.watch(queue(), WatchFor::Claimable));
        bells.claimable(queue(), 1);
        assert!(first.wait(LONG).await);
        assert!(!second.wait(Duration::ZERO).await);
        drop(first);
        assert!(second.wait(LONG).await);
    }

    #[tokio::test]
    async fn a_watch_that_has_ended_is_forgotten() {
        let bells = Bells::default();
        let watches = [WatchFor::Claimable, WatchFor::Posts].map(|what| bells.watch(queue(), what));
        assert!(bells.is_watched(queue()));
        drop(watches);
        assert!(!bells.any() && !bells.is_watched(queue()));
    }
}
