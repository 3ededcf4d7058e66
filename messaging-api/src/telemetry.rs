//! The log, on standard error, as text or as JSON.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::config::{LogConfig, LogFormat};

/// Starts logging. May be called once per process.
///
/// # Errors
/// If the filter cannot be parsed, or logging has been started already.
pub fn start(config: &LogConfig) -> anyhow::Result<()> {
    let filter: EnvFilter = config.filter.parse()?;
    let terminal = std::io::stderr().is_terminal();
    let log = fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
    let registry = tracing_subscriber::registry().with(filter);
    match config.format {
        LogFormat::Human => registry.with(log.with_target(false)).try_init()?,
        LogFormat::Json => registry.with(log.json().flatten_event(true)).try_init()?,
    }
    Ok(())
}
