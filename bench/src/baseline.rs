//! The baselines without HTTP, each run in a process of its own: it starts as fresh as a service
//! does, and a delay of syncs applies to it as to a service.

use std::env::current_exe;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::process::output;
use crate::report::{Label, Row};
use crate::sync::SyncArgs;
use crate::{group_commit, naive_direct};

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Baseline {
    GroupCommit,
    NaiveDirect,
}

/// One run on a new database in `dir`.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    #[arg(value_enum)]
    pub(crate) baseline: Baseline,
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[arg(long)]
    pub(crate) connections: usize,
    #[arg(long, value_name = "MILLISECONDS", value_parser = milliseconds)]
    pub(crate) length: Duration,
    #[arg(long)]
    pub(crate) body_bytes: usize,
    #[arg(long)]
    pub(crate) round: u32,
}

impl Run {
    /// Runs it as a process of its own; returns what that has counted.
    pub(crate) async fn in_child(&self, sync: SyncArgs) -> Result<Vec<Row>> {
        let mut command = sync.command(&current_exe()?);
        command.args(["run-baseline", &self.baseline.name()]).arg("--dir").arg(&self.dir);
        command.args(["--connections", &self.connections.to_string()]);
        command.args(["--length", &self.length.as_millis().to_string()]);
        command.args(["--body-bytes", &self.body_bytes.to_string()]);
        command.args(["--round", &self.round.to_string()]);
        let rows = output(command).await?;
        serde_json::from_str(&rows).with_context(|| format!("these are no rows: {rows}"))
    }

    /// Runs it in this process and prints what it has counted.
    pub(crate) async fn here(&self) -> Result<()> {
        println!("{}", serde_json::to_string(&self.measure().await?)?);
        Ok(())
    }

    async fn measure(&self) -> Result<Vec<Row>> {
        let (dir, bytes): (&Path, _) = (&self.dir, self.body_bytes);
        let (connections, length, round) = (self.connections, self.length, self.round);
        let outcome = match self.baseline {
            Baseline::GroupCommit => group_commit::measure(dir, connections, length, bytes).await?,
            Baseline::NaiveDirect => naive_direct::measure(dir, connections, length, bytes).await?,
        };
        let (program, scenario) = (self.baseline.name(), "post".to_owned());
        Ok(outcome.rows(&Label { program, scenario, connections, round }))
    }
}

impl Baseline {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

fn milliseconds(text: &str) -> Result<Duration> {
    Ok(Duration::from_millis(text.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::rows_table;

    #[tokio::test]
    async fn what_a_child_prints_is_read_as_it_was_counted() {
        for baseline in [Baseline::GroupCommit, Baseline::NaiveDirect] {
            let dir = tempfile::tempdir().unwrap();
            let (dir, length) = (dir.path().to_owned(), Duration::from_millis(50));
            let run = Run { baseline, dir, connections: 4, length, body_bytes: 64, round: 2 };
            let mut rows = run.measure().await.unwrap();
            assert!(rows.len() == 1 && rows[0].requests > 0 && rows[0].label.round == 2);
            rows[0].errors.insert(503, 1);
            let printed = serde_json::to_string(&rows).unwrap();
            let read: Vec<Row> = serde_json::from_str(&printed).unwrap();
            assert_eq!(rows_table(&read), rows_table(&rows));
        }
    }
}
