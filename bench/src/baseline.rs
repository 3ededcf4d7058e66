//! Runs a baseline without HTTP in a process of its own: it starts as fresh as a service does, and
//! a delay of syncs applies to it as to a service.

use std::env::current_exe;

use anyhow::{Context as _, Result};

use crate::args::BaselineArgs;
use crate::process::output;
use crate::report::Row;
use crate::sync::SyncArgs;

/// Runs `bench run-baseline` with these arguments and returns the rows that it printed.
pub(crate) async fn run_in_child(args: &BaselineArgs, sync: SyncArgs) -> Result<Vec<Row>> {
    let mut command = sync.command(&current_exe()?);
    command.args(["run-baseline", &args.baseline.name()]).arg("--dir").arg(&args.dir);
    command.args(["--connections", &args.connections.to_string()]);
    command.args(["--length", &args.length.as_millis().to_string()]);
    command.args(["--body-bytes", &args.body_bytes.to_string()]);
    command.args(["--round", &args.round.to_string()]);
    let rows = output(command).await?;
    serde_json::from_str(&rows).with_context(|| format!("these are no rows: {rows}"))
}
