//! Command-line arguments that several commands share.

use std::env::current_exe;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use tempfile::TempDir;

/// The service's setting for the store of queues.
pub(crate) const CATALOG_URI: &str = "CHAPAR__CATALOG__URI";
/// The service's setting for the store of messages.
pub(crate) const POOL_URI: &str = "CHAPAR__POOL__URI";

/// Length, concurrency and number of runs.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RunArgs {
    /// Concurrent connections or posters; of a comma list, each in turn
    #[arg(long, value_delimiter = ',', default_value = "1,16,64", value_parser = connections())]
    connections: Vec<usize>,
    /// Length of a run in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How often to repeat everything
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    #[command(flatten)]
    pub(crate) body: BodyArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl RunArgs {
    /// Returns the round and the number of connections of each run, in order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (u32, usize)> {
        let in_round =
            |round| self.connections.iter().map(move |&connections| (round, connections));
        (1..=self.rounds).flat_map(in_round)
    }

    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct BodyArgs {
    /// Size of a message's body, as JSON text
    #[arg(long, default_value_t = 1024, value_parser = body_bytes())]
    pub(crate) body_bytes: usize,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Output {
    /// Write the JSON figures to this file instead of the last line of the output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// The program under test, its files, and its message store.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Paths {
    /// Keep the databases in a temporary folder of this one [default: beside this program]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The service's program [default: `chapar` beside this program]
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// Keep the messages in this store [default: the database of the catalog]
    #[arg(long, value_name = "URI")]
    pool: Option<String>,
}

impl Paths {
    /// Creates an empty folder that is removed when the value is dropped.
    pub(crate) fn fresh_dir(&self) -> Result<TempDir> {
        let parent = match &self.dir {
            Some(dir) => dir.clone(),
            None => this_program()?.with_file_name(""),
        };
        // Absolute, since the server runs in a folder of its own.
        let fresh = parent
            .canonicalize()
            .and_then(|parent| tempfile::Builder::new().prefix("bench-").tempdir_in(parent));
        fresh.with_context(|| format!("cannot make a folder in {}", parent.display()))
    }

    /// Returns a command that runs the service.
    pub(crate) fn service(&self) -> Result<Command> {
        Ok(self.on_pool(Command::new(self.server()?)))
    }

    /// Adds the setting for the message store to a command.
    pub(crate) fn on_pool(&self, mut command: Command) -> Command {
        if let Some(pool) = &self.pool {
            command.env(POOL_URI, pool);
        }
        command
    }

    pub(crate) fn server(&self) -> Result<PathBuf> {
        let program = match &self.server {
            Some(program) => program.clone(),
            None => this_program()?.with_file_name("chapar"),
        };
        ensure!(
            program.is_file(),
            "{} does not exist; build it first: cargo build --release",
            program.display()
        );
        Ok(program.canonicalize()?)
    }
}

/// A baseline without HTTP.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Baseline {
    GroupCommit,
    NaiveDirect,
}

impl Baseline {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// One run of a baseline on a new database in `dir`.
#[derive(Debug, clap::Args)]
pub(crate) struct BaselineArgs {
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

fn milliseconds(text: &str) -> Result<Duration> {
    Ok(Duration::from_millis(text.parse()?))
}

/// Parses the number of connections of a run. The limit makes a typing error harmless.
pub(crate) fn connections() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=10_000)
}

/// Parses the size of a body that fits into one post with the rest of the request.
fn body_bytes() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(2..=250_000)
}

fn this_program() -> Result<PathBuf> {
    current_exe().context("cannot find the file of this program")
}
