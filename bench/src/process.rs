//! Child processes, their output, and the resources that they use according to the kernel.

use std::fs;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Serialize, Serializer};
use tokio::task::spawn_blocking;

/// A child process. Dropping it kills it, so that none outlives a failed run.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let program = command.get_program().display().to_string();
        Ok(Self(command.spawn().with_context(|| format!("cannot start {program}"))?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end and returns its output.
pub(crate) async fn output(mut command: Command) -> Result<String> {
    let mut child = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let mut stdout = child.0.stdout.take().context("the child has no output")?;
    let mut text = String::new();
    let text = spawn_blocking(move || stdout.read_to_string(&mut text).map(|_| text)).await??;
    let status = child.0.wait()?;
    ensure!(status.success(), "a child process failed, {status}");
    Ok(text)
}

/// Resources that a process has used since its start.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Usage {
    /// Current resident memory.
    pub(crate) rss_kib: u64,
    /// Peak resident memory.
    pub(crate) peak_rss_kib: u64,
    /// User and system time of all threads.
    #[serde(rename = "cpu_seconds", serialize_with = "as_seconds")]
    pub(crate) cpu: Duration,
}

impl Usage {
    pub(crate) fn of(child: &Child) -> Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{}/{file}", child.id());
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let status = read("status")?;
        let ticks = cpu_ticks(&read("stat")?).context("/proc has no CPU time")?;
        let per_second = u32::try_from(rustix::param::clock_ticks_per_second())?;
        Ok(Self {
            rss_kib: kib(&status, "VmRSS").context("/proc has no resident memory")?,
            peak_rss_kib: kib(&status, "VmHWM").context("/proc has no peak of memory")?,
            cpu: Duration::from_secs(1) * ticks / per_second,
        })
    }

    pub(crate) fn line(&self) -> String {
        format!(
            "server: peak memory {:.1} MiB, CPU time {:.2} s",
            mib(self.peak_rss_kib),
            self.cpu.as_secs_f64()
        )
    }
}

/// Sends SIGTERM to a child, as a supervisor would.
pub(crate) fn terminate(child: &Child) -> Result<()> {
    kill_process(Pid::from_child(child), Signal::TERM).context("cannot signal the server")
}

#[expect(clippy::cast_precision_loss, reason = "memory in KiB is far below 2^52")]
pub(crate) fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn as_seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// Parses a line such as `VmHWM:   1234 kB` of /proc/*/status.
fn kib(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Adds fields 14 and 15 of /proc/*/stat. They are counted after the program's name, which may
/// contain blanks.
fn cpu_ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_found_by_its_key() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!((kib(status, "VmHWM"), kib(status, "VmRSS")), (Some(2048), Some(1024)));
        assert_eq!(kib(status, "VmSwap"), None);
    }

    #[test]
    fn cpu_time_is_found_after_a_name_with_parentheses() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 31 11 0 0 20 0 3 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(42));
    }
}
