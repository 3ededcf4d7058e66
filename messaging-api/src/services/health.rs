//! The health report: runs every operation on a queue of the reserved project.

use std::time::{Duration, Instant};

use storage_traits::{
    Limit, Result as StoreResult, StoreError,
    domain::{
        Body, ClaimId, ClaimSpec, ClaimTerms, ClientId, Delivery, MessageId, Metadata, NewMessage,
        ProjectId, QueueKey, QueueName, QueueRef,
    },
    pool::{DeleteOutcome, ListSpec},
};

use super::{context::Services, error::Result};

/// How many messages the probe posts.
const MESSAGES: u32 = 100;

/// The outcome of one operation of the probe.
#[derive(Debug, Clone)]
pub(crate) struct ProbeOutcome {
    pub name: &'static str,
    pub succeeded: bool,
    pub seconds: f64,
    /// The id of the failure in the log.
    pub reference: Option<uuid::Uuid>,
}

/// The outcome of all operations.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    pub operations: Vec<ProbeOutcome>,
}

/// The operations that have been run so far.
#[derive(Default)]
struct HealthProbe(Vec<ProbeOutcome>);

impl HealthProbe {
    /// Runs an operation and records its outcome. Returns `None` if it failed.
    async fn run<T>(
        &mut self,
        name: &'static str,
        operation: impl Future<Output = StoreResult<T>>,
    ) -> Option<T> {
        let start = Instant::now();
        let result = operation.await;
        let reference = result.as_ref().err().map(|error| {
            let reference = uuid::Uuid::new_v4();
            tracing::error!(%error, %reference, operation = name, "a health probe failed");
            reference
        });
        self.0.push(ProbeOutcome {
            name,
            succeeded: result.is_ok(),
            seconds: start.elapsed().as_secs_f64(),
            reference,
        });
        result.ok()
    }
}

impl Services {
    /// Runs every operation, even if an earlier one failed.
    ///
    /// # Errors
    /// If a store cannot be reached.
    pub(crate) async fn health(&self) -> Result<Health> {
        self.check().await?;
        let mut probe = HealthProbe::default();
        let name = uuid::Uuid::new_v4().simple().to_string();
        let Ok(name) = name.parse::<QueueName>() else {
            unreachable!("a UUID is a queue name");
        };
        let key = QueueKey { project: ProjectId::reserved(), name };
        let created = probe.run("create_queue", self.open_for_probe(&key)).await;
        if let Some(queue) = created {
            self.probe_messages(&queue, &mut probe).await;
            let delete = async {
                self.catalog.delete(&key, self.now()).await?;
                self.pool.drop_queue(&queue).await
            };
            probe.run("delete_queue", delete).await;
        }
        Ok(Health { operations: probe.0 })
    }

    async fn open_for_probe(&self, key: &QueueKey) -> StoreResult<QueueRef> {
        let created = self.catalog.create(key, &Metadata::default(), self.now()).await?;
        self.pool.open_queue(&created.record.queue).await?;
        Ok(created.record.queue)
    }

    async fn probe_messages(&self, queue: &QueueRef, probe: &mut HealthProbe) {
        let client = ClientId::new("health");
        let message = NewMessage {
            body: Body::from_json("\"health\"".into()),
            ttl: Duration::from_mins(10),
            delivery: Delivery::IMMEDIATE,
            ordering_key: None,
            deduplication: None,
            retained: false,
            checksum: None,
        };
        let messages = vec![message; MESSAGES as usize];
        let post = self.pool.post(queue, &client, messages, self.now());
        let posted = probe.run("post_messages", post).await.unwrap_or_default();
        let ids: Vec<MessageId> = posted.into_iter().map(|posted| posted.id).collect();

        let terms = ClaimTerms { ttl: Duration::from_mins(1), grace: Duration::from_mins(5) };
        let Some(limit) = Limit::new(DEFAULT_LIMIT) else { return };
        let spec = ClaimSpec { id: ClaimId::random(), terms, limit, dead_letter: None };
        probe.run("claim_messages", self.pool.claim(queue, &spec, self.now())).await;

        let list = ListSpec {
            after: None,
            limit,
            hide_client: None,
            include_free: true,
            include_claimed: true,
            include_delayed: true,
        };
        probe.run("list_messages", self.pool.list(queue, &list, self.now())).await;

        // Deletes the claimed messages one by one, until the first failure.
        let delete = async {
            for id in ids.iter().take(limit.get()) {
                let outcome = self.pool.delete(queue, *id, Some(spec.id), self.now()).await?;
                if outcome != DeleteOutcome::Deleted {
                    let text = format!("a claimed message was not deleted: {outcome:?}");
                    return Err(StoreError::Unexpected { backend: "pool", source: text.into() });
                }
            }
            Ok(())
        };
        probe.run("delete_messages", delete).await;
        probe.run("delete_claim", self.pool.release(queue, spec.id, self.now())).await;
        let rest = self.pool.delete_many(queue, &ids, &[], self.now());
        probe.run("bulk_delete_messages", rest).await;
    }
}

const DEFAULT_LIMIT: u32 = 10;
