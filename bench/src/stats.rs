//! Statistics of a run: requests, messages, errors and a latency histogram for each operation.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How much longer than planned a run may take before it is aborted.
const GRACE: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Op {
    Post,
    List,
    Claim,
    /// A claim without messages, which is much cheaper than others.
    EmptyClaim,
    Delete,
    /// From the start of a post to the claim that holds its message.
    EndToEnd,
}

impl Op {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Post => "post",
            Self::List => "list",
            Self::Claim => "claim",
            Self::EmptyClaim => "empty claim",
            Self::Delete => "delete",
            Self::EndToEnd => "end to end",
        }
    }
}

pub(crate) struct OpStats {
    pub(crate) requests: u64,
    pub(crate) messages: u64,
    /// Failed requests by status. They are not counted in `requests`.
    pub(crate) errors: BTreeMap<u16, u64>,
    latency_ns: Histogram<u64>,
}

impl OpStats {
    fn new() -> Self {
        let latency_ns = Histogram::new(3).expect("three digits are within the library's range");
        Self { requests: 0, messages: 0, errors: BTreeMap::new(), latency_ns }
    }

    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.latency_ns.value_at_quantile(quantile))
    }

    pub(crate) fn max(&self) -> Duration {
        Duration::from_nanos(self.latency_ns.max())
    }

    pub(crate) fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.latency_ns.mean() / 1e9)
    }
}

#[derive(Default)]
pub(crate) struct Stats(BTreeMap<Op, OpStats>);

impl Stats {
    pub(crate) fn record(&mut self, op: Op, messages: u64, taken: Duration) {
        let stats = self.stats(op);
        stats.requests += 1;
        stats.messages += messages;
        // No run waits that long. The limit keeps the histogram small.
        let taken = taken.min(Duration::from_mins(10));
        stats.latency_ns += u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX);
    }

    pub(crate) fn error(&mut self, op: Op, status: u16) {
        *self.stats(op).errors.entry(status).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (op, theirs) in other.0 {
            let ours = self.stats(op);
            ours.requests += theirs.requests;
            ours.messages += theirs.messages;
            ours.latency_ns += theirs.latency_ns;
            for (status, count) in theirs.errors {
                *ours.errors.entry(status).or_default() += count;
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Op, &OpStats)> {
        self.0.iter().map(|(op, stats)| (*op, stats))
    }

    /// Returns the number of requests of all operations, including failed ones.
    pub(crate) fn requests(&self) -> u64 {
        let of = |stats: &OpStats| stats.requests + stats.errors.values().sum::<u64>();
        self.0.iter().filter(|(op, _)| **op != Op::EndToEnd).map(|(_, stats)| of(stats)).sum()
    }

    fn stats(&mut self, op: Op) -> &mut OpStats {
        self.0.entry(op).or_insert_with(OpStats::new)
    }
}

/// Waits for all workers of a run of the given length and adds up their statistics.
pub(crate) async fn gather(mut workers: JoinSet<Result<Stats>>, length: Duration) -> Result<Stats> {
    let all = async {
        let mut sum = Stats::default();
        while let Some(stats) = workers.join_next().await {
            sum.add(stats.map_err(|failed| anyhow!("a worker failed: {failed}"))??);
        }
        Ok(sum)
    };
    timeout(length + GRACE, all).await.context("some requests got no response")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_added_by_operation_and_status() {
        let mut sum = Stats::default();
        for millis in 1..=100 {
            let mut one = Stats::default();
            one.record(Op::Post, 10, Duration::from_millis(millis));
            one.error(Op::Claim, 503);
            sum.add(one);
        }
        let stats: Vec<_> = sum.iter().collect();
        let (post, claim) = (stats[0].1, stats[1].1);
        assert_eq!((post.requests, post.messages, claim.requests), (100, 1000, 0));
        assert_eq!(claim.errors, BTreeMap::from([(503, 100)]));
        assert_eq!(sum.requests(), 200);
        for (quantile, millis) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let found = post.quantile(quantile).as_secs_f64() * 1e3;
            assert!((found - millis).abs() < millis * 0.002, "{quantile}: {found}");
        }
        assert!((post.mean().as_secs_f64() - 0.0505).abs() < 1e-4);
    }
}
