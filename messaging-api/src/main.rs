//! `chapar`: the messaging service.

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use messaging_api::{
    cli::{Cli, Command},
    config::{self, Config},
    startup::Application,
    telemetry,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Requests allocate and free small blocks on several threads, which is this allocator's strength.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match config::load(&cli.options.into()) {
        Ok(config) => config,
        Err(faults) => {
            return fail(&format!("the configuration has faults:\n  {}", faults.join("\n  ")));
        }
    };
    let done = match cli.command.unwrap_or(Command::Serve) {
        Command::Config => {
            writeln!(std::io::stdout(), "{}", config.to_toml()).map_err(anyhow::Error::from)
        }
        Command::Serve => actix_web::rt::System::new().block_on(serve(config)),
    };
    done.map_or_else(|error| fail(&format!("{error:#}")), |()| ExitCode::SUCCESS)
}

fn fail(text: &str) -> ExitCode {
    eprintln!("chapar: {text}");
    ExitCode::FAILURE
}

async fn serve(config: Config) -> anyhow::Result<()> {
    telemetry::start(&config.log)?;
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
        stopping.cancel();
    });
    Application::build(config).await?.run(stop).await
}
