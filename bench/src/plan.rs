//! What one run does: its scenario and its parameters.

use std::time::Duration;

use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Post messages one by one
    Post,
    /// Post messages in batches
    PostBatch,
    /// Read a filled queue, page by page of 10
    List,
    /// Read the first 10 messages of a filled queue, again and again
    ListFirst,
    /// Claim 10 messages of a filled queue and delete them, until time or messages run out
    ClaimDelete,
    /// Half of the connections post, half claim and delete; at least one of each
    Mixed,
    /// Post at a fixed rate while consumers claim; measures from post to claim
    Latency,
}

impl Scenario {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// One run of a scenario.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) scenario: Scenario,
    pub(crate) connections: usize,
    pub(crate) length: Duration,
    pub(crate) body_bytes: usize,
    pub(crate) batch: usize,
    pub(crate) queues: usize,
    /// Messages in each queue before a scenario that only reads or consumes them.
    pub(crate) prefill: u64,
    pub(crate) single_deletes: bool,
    /// Posts per second of the latency scenario.
    pub(crate) rate: u32,
    pub(crate) consumers: usize,
}

impl Plan {
    /// Returns a plan of single posts to one queue. Other scenarios start from its values.
    pub(crate) fn posts(connections: usize, length: Duration, body_bytes: usize) -> Self {
        Self {
            scenario: Scenario::Post,
            connections,
            length,
            body_bytes,
            batch: 10,
            queues: 1,
            prefill: 10_000,
            single_deletes: false,
            rate: 100,
            consumers: 1,
        }
    }
}
