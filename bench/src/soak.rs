//! `soak`: checks that the memory of the server does not grow. First, a backlog is posted and
//! consumed. Then workers post, claim and delete the same number of messages while the memory is
//! sampled.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use tokio::time::interval;

use crate::args::{BodyArgs, Output, Paths, connections};
use crate::body;
use crate::checks::{Check, Target, checks_table};
use crate::process::mib;
use crate::report::{Label, Outcome, float, rows_table, table, write_json};
use crate::server::Server;
use crate::worker::Queue;
use crate::workers::{Workers, cycle, drain, post};

/// Maximum time to post the backlog, and to consume it.
const BACKLOG_TIMEOUT: Duration = Duration::from_mins(10);
const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// Messages in each post, claim and delete of the balanced load.
const BATCH: u64 = 10;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    paths: Paths,
    /// Length of the balanced load
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: u64,
    /// Messages of the backlog, posted one by one
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    posts: u64,
    /// Concurrent connections
    #[arg(long, default_value = "64", value_parser = connections())]
    connections: usize,
    #[command(flatten)]
    body: BodyArgs,
    #[command(flatten)]
    output: Output,
}

/// The server's resident memory at one time.
#[derive(Debug, Clone, Copy, Serialize)]
struct Sample {
    seconds: f64,
    rss_mib: f64,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let dir = args.paths.fresh_dir()?;
    let server = Server::start(args.paths.service()?, dir.path()).await?;
    let queues = [Queue::new("soak", BATCH)?];
    let text = body::message_body(args.body.body_bytes);
    let (one, batch) = (body::post(&text, 1)?, body::post(&text, usize::try_from(BATCH)?)?);
    let connections = args.connections;
    let workers =
        Workers { target: server.target(), queues: &queues, connections, length: BACKLOG_TIMEOUT };

    eprintln!("posting and consuming a backlog of {} messages", args.posts);
    let share = args.posts.div_ceil(connections as u64);
    let posted = workers.run(|_, worker| post(worker, one.clone(), 1, share)).await?;
    let drained = workers.run(|_, worker| drain(worker, false)).await?;
    let after_backlog = mib(server.usage()?.rss_kib);

    eprintln!("balanced load for {} minutes", args.minutes);
    let mut samples = Vec::new();
    let workers = Workers { length: Duration::from_mins(args.minutes), ..workers };
    let balanced = tokio::select! {
        load = workers.run(|_, worker| cycle(worker, batch.clone(), BATCH)) => load?,
        failed = sample(&server, &mut samples) => match failed? {},
    };
    let usage = server.stop().await?;

    let phases = [("backlog", posted), ("drain", drained), ("balance", balanced)];
    let rows: Vec<_> = phases
        .into_iter()
        .flat_map(|(scenario, (stats, elapsed))| {
            let (program, scenario) = ("chapar".to_owned(), scenario.to_owned());
            let label = Label { program, scenario, connections, round: 1 };
            Outcome { stats, elapsed, server_cpu: None }.rows(&label)
        })
        .collect();
    let what = "memory after the backlog, MiB";
    let checks = [Check::value(what, &[after_backlog], Target::Below(60.0))];
    let memory = Memory::of(&samples);
    println!("{}\n{}", rows_table(&rows), series_table(&samples));
    println!("{}\n{}\n{}", memory.line(), usage.line(), checks_table(&checks));
    let figures = json!({
        "rows": rows, "checks": checks, "samples": samples, "memory": memory, "server": usage,
    });
    write_json(&args.output, "soak", figures)
}

/// Samples until it is dropped.
async fn sample(server: &Server, samples: &mut Vec<Sample>) -> Result<Infallible> {
    let start = Instant::now();
    let mut ticks = interval(SAMPLE_INTERVAL);
    loop {
        ticks.tick().await;
        let rss_mib = mib(server.usage()?.rss_kib);
        samples.push(Sample { seconds: start.elapsed().as_secs_f64(), rss_mib });
    }
}

#[derive(Debug, Serialize)]
struct Memory {
    min_mib: f64,
    max_mib: f64,
    mib_per_minute: f64,
    /// Growth in the second half, when caches are full. A leak would show here.
    late_mib_per_minute: f64,
}

impl Memory {
    fn of(samples: &[Sample]) -> Self {
        let sizes = || samples.iter().map(|sample| sample.rss_mib);
        Self {
            min_mib: sizes().fold(f64::INFINITY, f64::min),
            max_mib: sizes().fold(0.0, f64::max),
            mib_per_minute: slope(samples) * 60.0,
            late_mib_per_minute: slope(&samples[samples.len() / 2..]) * 60.0,
        }
    }

    fn line(&self) -> String {
        format!(
            "memory: min {:.1} MiB, max {:.1} MiB, slope {:.3} MiB/min, second half {:.3} MiB/min",
            self.min_mib, self.max_mib, self.mib_per_minute, self.late_mib_per_minute
        )
    }
}

/// Returns the slope of the regression line in MiB per second, or zero for fewer than two samples.
fn slope(samples: &[Sample]) -> f64 {
    let count = float(samples.len() as u64);
    let mean = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (mid_time, mid_size) = (mean(|sample| sample.seconds), mean(|sample| sample.rss_mib));
    let (mut over, mut under) = (0.0, 0.0);
    for sample in samples {
        let time = sample.seconds - mid_time;
        over += time * (sample.rss_mib - mid_size);
        under += time * time;
    }
    if under > 0.0 { over / under } else { 0.0 }
}

fn series_table(samples: &[Sample]) -> String {
    let cells =
        |sample: &Sample| vec![format!("{:.0}", sample.seconds), format!("{:.1}", sample.rss_mib)];
    table(&["s", "memory MiB"], 0, &samples.iter().map(cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(series: &[(f64, f64)]) -> Vec<Sample> {
        series.iter().map(|&(seconds, rss_mib)| Sample { seconds, rss_mib }).collect()
    }

    #[test]
    fn the_slope_is_that_of_the_regression_line() {
        assert!((slope(&samples(&[(0.0, 10.0), (10.0, 12.0), (20.0, 14.0)])) - 0.2).abs() < 1e-9);
        assert!(slope(&samples(&[(0.0, 10.0), (10.0, 12.0), (20.0, 10.0)])).abs() < 1e-9);
        assert!(slope(&samples(&[(0.0, 10.0)])).abs() < 1e-9);
        assert!(slope(&[]).abs() < 1e-9);
    }

    #[test]
    fn growth_in_the_first_half_does_not_count_as_late_growth() {
        let memory =
            Memory::of(&samples(&[(0.0, 10.0), (60.0, 20.0), (120.0, 20.0), (180.0, 20.0)]));
        assert!(memory.mib_per_minute > 1.0 && memory.late_mib_per_minute.abs() < 1e-9);
        assert!((memory.max_mib - 20.0).abs() < 1e-9 && (memory.min_mib - 10.0).abs() < 1e-9);
    }
}
