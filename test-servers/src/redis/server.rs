//! One `redis-server` process.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::resp::{Connection, Reply};
use crate::process::{self, Process};
use crate::wait::{self, check};
use crate::{certificates, folder::temporary_folder, ports::free_port};

/// How many ports are tried before giving up, if other processes take them.
const ATTEMPTS: usize = 10;

type Options = [(&'static str, &'static str)];

/// Options of every server, sentinels included. The log goes to stdout.
const COMMON: &Options = &[
    ("--bind", "127.0.0.1"),
    ("--protected-mode", "no"),
    ("--daemonize", "no"),
    ("--loglevel", "notice"),
    ("--logfile", ""),
];

/// Options of every data server: no persistence, and replicas that link at once. Options of a test
/// come later and override these.
const DATA: &Options = &[
    ("--save", ""),
    ("--appendonly", "no"),
    ("--repl-diskless-sync", "yes"),
    ("--repl-diskless-sync-delay", "0"),
    ("--repl-ping-replica-period", "1"),
    ("--repl-timeout", "10"),
];

const TLS: &Options = &[
    ("--tls-auth-clients", "no"),
    ("--tls-ca-cert-file", "authority.pem"),
    ("--tls-cert-file", "server.pem"),
    ("--tls-key-file", "server.key"),
];

const CLUSTER: &Options = &[("--cluster-enabled", "yes"), ("--cluster-node-timeout", "2000")];

pub(super) const REPLICATION: [&str; 2] = ["INFO", "replication"];

/// One redis-server. Dropping it kills the process and removes its files.
pub struct Redis {
    // Declared first, so that the process ends before its files are removed.
    process: Option<Process>,
    paused: AtomicBool,
    args: Vec<String>,
    port: u16,
    tls: bool,
    folder: TempDir,
}

/// The role of a server.
pub(super) enum Role {
    Plain,
    Tls,
    ReplicaOf(u16),
    /// A sentinel of the master at this port.
    Sentinel(u16),
    ClusterNode,
}

impl Redis {
    /// Starts a server without persistence. `options` are command-line options, as in
    /// `&["--appendonly", "yes", "--appendfsync", "always"]`.
    pub fn start(options: &[&str]) -> Self {
        Self::launch(&Role::Plain, options, free_port)
    }

    /// Starts a server that accepts only TLS, with a certificate for `localhost` and `127.0.0.1`.
    /// It requires no client certificate.
    pub fn start_tls() -> Self {
        Self::launch(&Role::Tls, &[], free_port)
    }

    /// Starts a server. Tries further ports while another process has the one it was given.
    pub(super) fn launch(role: &Role, options: &[&str], mut port: impl FnMut() -> u16) -> Self {
        for _ in 0..ATTEMPTS {
            let mut server = Self::set_up(role, options, &mut port);
            if server.boot() {
                return server;
            }
        }
        panic!("redis-server found its port in use {ATTEMPTS} times");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns `redis://127.0.0.1:PORT`, or `rediss://localhost:PORT` with TLS.
    pub fn uri(&self) -> String {
        if self.tls {
            return format!("rediss://localhost:{}", self.port);
        }
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns the path of its Unix socket, which it has with TLS, too.
    pub fn socket(&self) -> PathBuf {
        socket(self.folder.path())
    }

    /// Returns the file with the CA certificate (PEM) that signed the server's.
    pub fn ca(&self) -> PathBuf {
        assert!(self.tls, "the server was started without TLS");
        certificates::authority(self.folder.path())
    }

    /// Kills the server with SIGKILL and returns when the process is gone. Does nothing if it is
    /// not running.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Restarts the server with the same port, files and options, and kills it before if it is
    /// running. Returns when it answers.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.boot(), "the port is in use:\n{}", self.log());
    }

    /// Stops the server with SIGSTOP: it keeps its connections but does not answer.
    pub fn pause(&self) {
        self.process.as_ref().expect("the server was not killed").pause();
        self.paused.store(true, Ordering::Relaxed);
    }

    /// Resumes the server with SIGCONT.
    pub fn resume(&self) {
        self.process.as_ref().expect("the server was not killed").resume();
        self.paused.store(false, Ordering::Relaxed);
    }

    /// Returns whether it was neither killed nor paused.
    pub fn is_live(&self) -> bool {
        self.process.is_some() && !self.paused.load(Ordering::Relaxed)
    }

    /// Sends a command on a new connection and returns the reply as text: one line for each item of
    /// an array, `(nil)` for a null. Panics on an error reply.
    pub fn command(&self, command: &[&str]) -> String {
        self.reply(command).to_string()
    }

    /// Like [`command`](Self::command), but returns errors of the server or the connection.
    pub fn try_command(&self, command: &[&str]) -> Result<String, String> {
        self.try_reply(command).map(|reply| reply.to_string())
    }

    /// Like [`command`](Self::command), for several commands on one connection, as `MULTI` and
    /// `WAIT` need.
    pub fn commands(&self, commands: &[&[&str]]) -> Vec<String> {
        let replies = || -> Result<Vec<_>, String> {
            let mut connection = self.connect()?;
            let send = |command: &&[&str]| self.send(&mut connection, command);
            commands.iter().map(send).map(|it| it.map(|reply| reply.to_string())).collect()
        };
        replies().unwrap_or_else(|error| panic!("{commands:?}: {error}\n{}", self.log()))
    }

    pub(super) fn reply(&self, command: &[impl AsRef<[u8]>]) -> Reply {
        self.try_reply(command).unwrap_or_else(|error| {
            let words: Vec<_> =
                command.iter().map(|word| String::from_utf8_lossy(word.as_ref())).collect();
            panic!("{}: {error}\n{}", words.join(" "), self.log())
        })
    }

    fn try_reply(&self, command: &[impl AsRef<[u8]>]) -> Result<Reply, String> {
        self.send(&mut self.connect()?, command)
    }

    fn connect(&self) -> Result<Connection, String> {
        Connection::open(&self.socket()).map_err(|error| self.unreachable(&error))
    }

    fn send(&self, to: &mut Connection, command: &[impl AsRef<[u8]>]) -> Result<Reply, String> {
        match to.send(command).map_err(|error| self.unreachable(&error))? {
            Reply::Error(error) => Err(format!("{} replied {error}", self.port)),
            reply => Ok(reply),
        }
    }

    fn unreachable(&self, error: &io::Error) -> String {
        format!("{} cannot be reached: {error}", self.port)
    }

    /// Returns the value of `field:` in the reply to a command such as `INFO`.
    pub(super) fn field(&self, command: &[&str], field: &str) -> Result<String, String> {
        let reply = self.try_command(command)?;
        let value = reply.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.map(str::to_owned).ok_or_else(|| format!("{} reports no {field}", self.port))
    }

    /// Checks that all connected replicas are in step. A master reports this a moment later than
    /// its replicas do.
    pub(super) fn has_replicas_in_step(&self) -> Result<(), String> {
        let replication = self.try_command(&REPLICATION)?;
        let online =
            format!("connected_slaves:{}\r\n", replication.matches("state=online").count());
        check(replication.contains(&online), || format!("{} reports\n{replication}", self.port))
    }

    /// Checks that it is a replica in step with its master, and returns the master's port.
    pub(super) fn linked_master(&self) -> Result<u16, String> {
        let link = self.field(&REPLICATION, "master_link_status")?;
        check(link == "up", || format!("{}: the link to its master is {link}", self.port))?;
        let port = self.field(&REPLICATION, "master_port")?;
        port.parse().map_err(|_| format!("{} reports master_port:{port}", self.port))
    }

    /// Returns the end of its log, with its port as the title.
    pub(super) fn log(&self) -> String {
        let log = process::end_of_log(&log(self.folder.path()));
        format!("--- log of the server at port {} ---\n{log}\n", self.port)
    }

    fn set_up(role: &Role, options: &[&str], port: &mut impl FnMut() -> u16) -> Self {
        let folder = temporary_folder();
        let path = folder.path();
        fs::write(config(path), role.config()).expect("the folder is writable");
        let number = port();
        let mut args = vec![config(path).display().to_string()];
        if let Role::Sentinel(_) = role {
            args.push("--sentinel".into());
        }
        for &(name, value) in COMMON.iter().chain(&role.options()) {
            args.extend([name.to_owned(), value.to_owned()]);
        }
        let mut add = |name: &str, value: &dyn Display| {
            args.extend([name.to_owned(), value.to_string()]);
        };
        add("--dir", &path.display());
        add("--unixsocket", &socket(path).display());
        add("--port", if let Role::Tls = role { &0 } else { &number });
        match role {
            Role::Tls => {
                certificates::make(path);
                add("--tls-port", &number);
            }
            Role::ClusterNode => add("--cluster-port", &port()),
            _ => (),
        }
        args.extend(options.iter().map(|&word| word.to_owned()));
        Self {
            process: None,
            paused: AtomicBool::new(false),
            args,
            port: number,
            tls: matches!(role, Role::Tls),
            folder,
        }
    }

    /// Starts the process and waits until it answers. Returns `false` if its port is in use.
    fn boot(&mut self) -> bool {
        let program = process::program("redis-server", "redis-server");
        let (path, log) = (self.folder.path(), log(self.folder.path()));
        let mut process = Process::start(&program, &self.args, path, &log);
        let attempt = || {
            if process.exit_status().is_some() {
                let end = process::end_of_log(&log);
                assert!(end.contains("Address already in use"), "redis-server ended:\n{end}");
                return Ok(false);
            }
            // The socket is opened after the ports. Only this server can answer on it.
            self.try_command(&["PING"]).map(|_| true)
        };
        let ready = wait::until("redis-server answers", attempt, || self.log());
        self.process = ready.then_some(process);
        self.paused = AtomicBool::new(false);
        ready
    }
}

impl Role {
    fn options(&self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Sentinel(_) => Vec::new(),
            Self::Plain | Self::ReplicaOf(_) => DATA.to_vec(),
            Self::Tls => [DATA, TLS].concat(),
            Self::ClusterNode => [DATA, CLUSTER].concat(),
        }
    }

    /// Returns the initial configuration file. The server rewrites it when its role changes.
    fn config(&self) -> String {
        match self {
            Self::Plain | Self::Tls | Self::ClusterNode => String::new(),
            Self::ReplicaOf(master) => format!("replicaof 127.0.0.1 {master}\n"),
            Self::Sentinel(master) => format!(
                "sentinel monitor main 127.0.0.1 {master} 2\n\
                 sentinel down-after-milliseconds main 1000\n\
                 sentinel failover-timeout main 5000\n\
                 sentinel parallel-syncs main 1\n"
            ),
        }
    }
}

fn config(folder: &Path) -> PathBuf {
    folder.join("redis.conf")
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("redis.sock")
}

fn log(folder: &Path) -> PathBuf {
    folder.join("log")
}

#[cfg(test)]
mod tests {
    use std::iter;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_in_use_is_skipped() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap().port();
        for (role, offered) in [
            (Role::Plain, [taken, free_port()]),
            (Role::Tls, [taken, free_port()]),
            (Role::ClusterNode, [taken, free_port()]),
            (Role::ClusterNode, [free_port(), taken]),
        ] {
            let mut offered = offered.into_iter().chain(iter::repeat_with(free_port));
            let server = Redis::launch(&role, &[], || offered.next().unwrap());
            assert_ne!(server.port(), taken);
            assert_eq!(server.command(&["PING"]), "PONG");
        }
    }
}
