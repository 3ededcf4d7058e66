//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Overrides;

/// Chapar: a messaging service over HTTP that stores its messages in the database you already run.
#[derive(Debug, Parser)]
#[command(name = "chapar", version, arg_required_else_help = false, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub options: Options,
}

const AFTER_HELP: &str = "\
Environment variables set configuration keys, too: CHAPAR__HTTP__LISTEN sets `listen` in the \
section [http]. `chapar config` prints every key with its current value.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API (the default)
    Serve,
    /// Print the effective configuration without secrets, and exit
    Config,
}

#[derive(Debug, Args)]
pub struct Options {
    /// Configuration file (TOML); keys that it omits keep their defaults
    #[arg(long, short, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Address and port of the API, for example 127.0.0.1:8888
    #[arg(long, short, value_name = "ADDRESS", global = true)]
    pub listen: Option<String>,
}

impl From<Options> for Overrides {
    fn from(options: Options) -> Self {
        Self { file: options.config, listen: options.listen }
    }
}
