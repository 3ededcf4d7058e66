//! Output of figures: aligned tables and JSON.

use std::collections::BTreeMap;
use std::fs;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::args::Output;
use crate::stats::{Op, OpStats, Stats};

/// Identifies a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Label {
    pub(crate) program: String,
    pub(crate) scenario: String,
    pub(crate) connections: usize,
    pub(crate) round: u32,
}

/// The result of one run.
pub(crate) struct Outcome {
    pub(crate) stats: Stats,
    pub(crate) elapsed: Duration,
    /// CPU time of the server during the run, if it is a child process.
    pub(crate) server_cpu: Option<Duration>,
}

/// One operation of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    pub(crate) label: Label,
    pub(crate) op: Op,
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    pub(crate) messages: u64,
    pub(crate) requests_per_s: f64,
    pub(crate) messages_per_s: f64,
    pub(crate) mean_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
    /// Responses with an unexpected status, by status.
    pub(crate) errors: BTreeMap<u16, u64>,
    /// CPU time of the server divided by the requests of all operations.
    pub(crate) cpu_us_per_request: Option<f64>,
}

impl Outcome {
    pub(crate) fn rows(&self, label: &Label) -> Vec<Row> {
        self.stats.iter().map(|(op, stats)| self.row(label, op, stats)).collect()
    }

    fn row(&self, label: &Label, op: Op, stats: &OpStats) -> Row {
        let seconds = self.elapsed.as_secs_f64();
        let cpu = self.server_cpu.map(|cpu| cpu.as_secs_f64() * 1e6);
        Row {
            label: label.clone(),
            op,
            seconds,
            requests: stats.requests,
            messages: stats.messages,
            requests_per_s: float(stats.requests) / seconds,
            messages_per_s: float(stats.messages) / seconds,
            mean_ms: millis(stats.mean()),
            p50_ms: millis(stats.quantile(0.5)),
            p99_ms: millis(stats.quantile(0.99)),
            p999_ms: millis(stats.quantile(0.999)),
            max_ms: millis(stats.max()),
            errors: stats.errors.clone(),
            cpu_us_per_request: cpu.map(|cpu| cpu / float(self.stats.requests().max(1))),
        }
    }
}

/// Returns the rows if none of them has errors.
pub(crate) fn without_errors(rows: Vec<Row>) -> Result<Vec<Row>> {
    for row in &rows {
        ensure!(row.errors.is_empty(), "{} had errors: {:?}", row.label.program, row.errors);
    }
    Ok(rows)
}

/// Formats the rows as a table.
pub(crate) fn rows_table(rows: &[Row]) -> String {
    const HEAD: [&str; 14] = [
        "program",
        "scenario",
        "operation",
        "conns",
        "round",
        "s",
        "req/s",
        "msg/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "cpu us/req",
        "errors",
    ];
    let cells = |row: &Row| {
        vec![
            row.label.program.clone(),
            row.label.scenario.clone(),
            row.op.name().to_owned(),
            row.label.connections.to_string(),
            row.label.round.to_string(),
            format!("{:.1}", row.seconds),
            format!("{:.0}", row.requests_per_s),
            format!("{:.0}", row.messages_per_s),
            format!("{:.3}", row.p50_ms),
            format!("{:.3}", row.p99_ms),
            format!("{:.3}", row.p999_ms),
            format!("{:.3}", row.max_ms),
            row.cpu_us_per_request.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.1}")),
            errors(&row.errors),
        ]
    };
    table(&HEAD, 3, &rows.iter().map(cells).collect::<Vec<_>>())
}

/// Formats a table. The first `left` columns are aligned left, the others right.
pub(crate) fn table(head: &[&str], left: usize, rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    let lines = || std::iter::once(&head).chain(rows);
    let widths: Vec<usize> = (0..head.len())
        .map(|column| lines().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in lines() {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column < left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Prints the figures as one line of JSON, or writes them to the given file.
pub(crate) fn write_json(output: &Output, command: &str, figures: impl Serialize) -> Result<()> {
    let cores = available_parallelism().map_or(1, usize::from);
    let report = json!({ "command": command, "cores": cores, "figures": figures });
    match &output.json {
        Some(file) => fs::write(file, format!("{report:#}\n"))
            .with_context(|| format!("cannot write {}", file.display()))?,
        None => println!("{report}"),
    }
    Ok(())
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "no run counts beyond 2^52")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

fn errors(errors: &BTreeMap<u16, u64>) -> String {
    if errors.is_empty() {
        return "0".to_owned();
    }
    let of = |(status, count): (&u16, &u64)| format!("{count}x{status}");
    errors.iter().map(of).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned() {
        let rows = [vec!["naive".into(), "7".into()], vec!["µ".into(), "12345".into()]];
        assert_eq!(table(&["what", "n"], 1, &rows), "what       n\nnaive      7\nµ      12345\n");
    }

    #[test]
    fn a_row_has_rates_per_second_and_times_in_milliseconds() {
        let mut stats = Stats::default();
        for _ in 0..10 {
            stats.record(Op::Post, 5, Duration::from_millis(2));
        }
        stats.error(Op::Post, 503);
        let cpu = Some(Duration::from_micros(110));
        let outcome = Outcome { stats, elapsed: Duration::from_secs(2), server_cpu: cpu };
        let label = Label { program: "p".into(), scenario: "s".into(), connections: 1, round: 1 };
        let rows = outcome.rows(&label);
        let near = |found: f64, wanted: f64| (found - wanted).abs() < wanted * 0.002;
        assert!(near(rows[0].requests_per_s, 5.0) && near(rows[0].messages_per_s, 25.0));
        assert!(near(rows[0].p50_ms, 2.0) && near(rows[0].max_ms, 2.0));
        assert!(near(rows[0].cpu_us_per_request.unwrap(), 10.0), "errors are requests too");
        let table = rows_table(&rows);
        assert!(table.ends_with("10.0   1x503\n"), "{table}");
    }
}
