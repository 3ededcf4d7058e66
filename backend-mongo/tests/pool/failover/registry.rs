//! Clients that create and change queues in the catalog, and record the results.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use backend_mongo::{MongoCatalog, MongoOptions};
use storage_traits::{
    Clock, SystemClock,
    catalog::QueueCatalog,
    conformance::faults::{answered, soon},
    domain::{Metadata, QueueKey, QueueRecord},
};
use tokio::{sync::watch, task::JoinSet, time::Instant};

/// How many clients there are.
const CLIENTS: usize = 2;

/// Queues after their last acknowledged write, and whether a failed write followed it.
type Known = Vec<(QueueRecord, bool)>;

pub(crate) struct Registry {
    catalog: Arc<MongoCatalog>,
    stop: Arc<AtomicBool>,
    written: watch::Sender<usize>,
    clients: JoinSet<(Known, Vec<Instant>)>,
}

impl Registry {
    pub(crate) async fn start(uri: &str) -> Self {
        let options = MongoOptions::parse(uri).unwrap();
        let catalog = Arc::new(MongoCatalog::open(options).await.unwrap());
        let (stop, written) = (Arc::new(AtomicBool::new(false)), watch::Sender::new(0));
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let (catalog, stop) = (Arc::clone(&catalog), Arc::clone(&stop));
            clients.spawn(work(client, catalog, stop, written.clone()));
        }
        Self { catalog, stop, written, clients }
    }

    /// Waits until so many more writes were acknowledged.
    pub(crate) async fn writes(&self, count: usize) {
        let goal = *self.written.borrow() + count;
        soon(self.written.subscribe().wait_for(|written| *written >= goal)).await.unwrap();
    }

    /// Stops the clients, and checks that no acknowledged write was lost. Returns the longest time
    /// without an acknowledged write.
    pub(crate) async fn end(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let mut times = Vec::new();
        for (known, of_client) in soon(self.clients.join_all()).await {
            times.extend(of_client);
            for (record, in_doubt) in known {
                let found = self.catalog.get(&record.queue.key).await.unwrap();
                let found = found.unwrap_or_else(|| panic!("{:?} is lost", record.queue));
                assert_eq!(found.queue, record.queue);
                if in_doubt {
                    assert!(found.version >= record.version, "{found:?} was {record:?}");
                } else {
                    assert_eq!(found, record);
                }
            }
        }
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

fn metadata(n: usize) -> Metadata {
    Metadata::from_json(&format!(r#"{{"n":{n}}}"#)).unwrap()
}

async fn work(
    client: usize,
    catalog: Arc<MongoCatalog>,
    stop: Arc<AtomicBool>,
    written: watch::Sender<usize>,
) -> (Known, Vec<Instant>) {
    let (mut known, mut times) = (Known::new(), Vec::new());
    let mut note = || {
        times.push(Instant::now());
        written.send_modify(|count| *count += 1);
    };
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("q{client}-{n}").parse().unwrap();
        let key = QueueKey { project: "p".parse().unwrap(), name };
        let created = catalog.create(&key, &Metadata::default(), SystemClock.now()).await;
        let Some(created) = answered(created) else { continue };
        assert!(created.new, "{key:?} was there before");
        note();
        let mut record = created.record;
        let mut in_doubt = false;
        for version in 0..3 {
            let updated = catalog.update(&record, &metadata(version), SystemClock.now()).await;
            let Some(updated) = answered(updated) else {
                in_doubt = true;
                break;
            };
            assert_eq!(updated.version, record.version + 1);
            note();
            record = updated;
        }
        known.push((record, in_doubt));
    }
    (known, times)
}
