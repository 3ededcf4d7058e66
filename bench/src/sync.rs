//! The cost of a file sync on this machine, and an option to increase it.
//!
//! Each post waits for a sync. The cost of a sync differs by more than a factor of ten between
//! disks: a disk with a protected write cache returns before the data is on the medium. On such a
//! disk, the baselines without HTTP are limited by the CPU, which the service shares with the load
//! generator, and their ratio to the service is meaningless. `--sync-delay` makes the disk behave
//! like a slower one: strace delays every sync of each measured program by the same time, and no
//! other call. With `-D`, strace runs as a grandchild: the program remains the child process, so
//! that signals reach it and /proc shows its usage.

use std::env::current_exe;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

use crate::checks::median;
use crate::process::output;
use crate::report::millis;

/// Bytes overwritten before each sync of the measurement: two pages of a database.
const BYTES: usize = 8 * 1024;
const SYNCS: usize = 100;
const MAX_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct SyncArgs {
    /// Delay every sync of the measured programs by this time, such as 1ms or 500us; needs strace
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    sync_delay: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CostArgs {
    #[arg(long)]
    dir: PathBuf,
}

/// The cost of one sync in milliseconds: the median of many.
#[derive(Debug, Serialize)]
pub(crate) struct SyncCost {
    #[serde(rename = "fdatasync_ms")]
    plain: f64,
    #[serde(rename = "delay_ms")]
    delay: Option<f64>,
    /// The same sync with the delay.
    #[serde(rename = "delayed_fdatasync_ms")]
    delayed: Option<f64>,
}

impl SyncArgs {
    /// Returns a command that runs the program, with the delay if there is one.
    pub(crate) fn command(self, program: &Path) -> Command {
        let Some(delay) = self.sync_delay else { return Command::new(program) };
        let mut command = Command::new("strace");
        command.args(["-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null"]);
        command.args(["-e", "trace=fsync,fdatasync"]);
        command.args(["-e", &format!("inject=fsync,fdatasync:delay_exit={}", delay.as_micros())]);
        command.arg("--").arg(program);
        command
    }

    /// Measures syncs in `dir`, and checks that the delay works.
    pub(crate) async fn cost(self, dir: &Path) -> Result<SyncCost> {
        let plain = measure(dir)?;
        let Some(delay) = self.sync_delay else {
            return Ok(SyncCost { plain, delay: None, delayed: None });
        };
        check_strace()?;
        let mut command = self.command(&current_exe()?);
        command.arg("sync-cost").arg("--dir").arg(dir);
        let delayed: f64 = output(command).await?.trim().parse()?;
        let delay = millis(delay);
        ensure!(delayed >= delay, "with a delay of {delay} ms a sync still takes {delayed:.3} ms");
        Ok(SyncCost { plain, delay: Some(delay), delayed: Some(delayed) })
    }
}

impl SyncCost {
    pub(crate) fn line(&self) -> String {
        let Self { plain, delay, delayed } = self;
        let cost =
            format!("fdatasync of 8 KiB overwritten: {plain:.3} ms, the median of {SYNCS}; ");
        match delay.zip(*delayed) {
            Some((delay, delayed)) => {
                format!("{cost}sync delay: {delay} ms, with it {delayed:.3} ms")
            }
            None => format!("{cost}sync delay: none"),
        }
    }
}

/// Measures syncs and prints the median. It is a child process, so that strace can delay its syncs.
pub(crate) fn print_cost(args: &CostArgs) -> Result<()> {
    println!("{}", measure(&args.dir)?);
    Ok(())
}

fn measure(dir: &Path) -> Result<f64> {
    let path = dir.join("sync-cost");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut taken = Vec::with_capacity(SYNCS);
    // Later syncs do not change the length of the file.
    file.write_all_at(&[0; BYTES], 0)?;
    file.sync_all()?;
    for _ in 0..SYNCS {
        file.write_all_at(&[1; BYTES], 0)?;
        let begun = Instant::now();
        file.sync_data()?;
        taken.push(millis(begun.elapsed()));
    }
    Ok(median(&taken))
}

fn check_strace() -> Result<()> {
    let mut command = Command::new("strace");
    // strace rejects an unknown option even when it only prints its version.
    command.args(["--seccomp-bpf", "-V"]).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => bail!("--sync-delay needs strace 5.3 or later, for its option --seccomp-bpf"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("--sync-delay needs strace: install strace (on Debian: apt install strace)")
        }
        Err(error) => Err(error).context("cannot start strace"),
    }
}

fn duration(text: &str) -> Result<Duration> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "us" => Duration::from_micros(1),
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        _ => bail!("expected a number and a unit, such as 1ms; units are us, ms and s"),
    };
    let count = number.parse().context("expected a whole number")?;
    match unit.checked_mul(count) {
        Some(delay) if !delay.is_zero() && delay <= MAX_DELAY => Ok(delay),
        _ => bail!("expected more than zero and at most {MAX_DELAY:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_a_whole_number_with_a_unit() {
        for (text, micros) in [("1us", 1), ("1500us", 1500), ("4ms", 4000), ("1s", 1_000_000)] {
            assert_eq!(duration(text).unwrap(), Duration::from_micros(micros), "{text}");
        }
        for text in ["", "1", "ms", "0ms", "-1ms", "0.5ms", "1 ms", "1min", "1001ms", "9999999999s"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn without_a_delay_the_program_runs_directly() {
        let command = SyncArgs::default().command(Path::new("/bin/true"));
        assert_eq!(
            (command.get_program().to_str(), command.get_args().len()),
            (Some("/bin/true"), 0)
        );
    }

    #[test]
    fn with_a_delay_the_program_runs_under_strace() {
        let args = SyncArgs { sync_delay: Some(Duration::from_millis(2)) };
        let command = args.command(Path::new("/bin/true"));
        assert_eq!(command.get_program(), "strace");
        let args: Vec<_> = command.get_args().filter_map(|arg| arg.to_str()).collect();
        assert!(args.contains(&"inject=fsync,fdatasync:delay_exit=2000"), "{args:?}");
        assert!(args.ends_with(&["--", "/bin/true"]), "{args:?}");
    }

    #[test]
    fn the_line_shows_the_delay() {
        let mut cost = SyncCost { plain: 0.1, delay: None, delayed: None };
        assert!(cost.line().ends_with("0.100 ms, the median of 100; sync delay: none"));
        (cost.delay, cost.delayed) = (Some(1.0), Some(1.25));
        assert!(cost.line().ends_with("sync delay: 1 ms, with it 1.250 ms"));
    }

    #[test]
    fn a_sync_takes_time() {
        let dir = tempfile::tempdir().unwrap();
        assert!(measure(dir.path()).unwrap() > 0.0);
    }
}
