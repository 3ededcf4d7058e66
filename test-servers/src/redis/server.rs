//! One server process.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::resp::{Connection, Reply};
use crate::process::{self, Process};
use crate::wait::{self, check};
use crate::{certificates, folder, ports};

/// How often a server may find that another process took its port.
const ATTEMPTS: usize = 10;

type Options = [(&'static str, &'static str)];

/// What every server is told, sentinels too. The log goes to where the process writes.
const COMMON: &Options = &[
    ("--bind", "127.0.0.1"),
    ("--protected-mode", "no"),
    ("--daemonize", "no"),
    ("--loglevel", "notice"),
    ("--logfile", ""),
];

/// Nothing is stored, and replicas link at once. What a test asks for comes later and wins.
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

/// One redis-server; it ends with the value, and its files are removed.
pub struct Redis {
    // Declared first, so that the process is gone before its files.
    process: Option<Process>,
    paused: AtomicBool,
    args: Vec<String>,
    port: u16,
    tls: bool,
    folder: TempDir,
}

/// What a server is there for.
pub(super) enum Role {
    Plain,
    Tls,
    ReplicaOf(u16),
    /// Watches the master at this port.
    Sentinel(u16),
    ClusterNode,
}

impl Redis {
    /// Starts a server without persistence. The options are those of its command line, as in
    /// `&["--appendonly", "yes", "--appendfsync", "always"]`.
    pub fn start(options: &[&str]) -> Self {
        Self::launch(&Role::Plain, options, ports::free)
    }

    /// Starts a server that speaks TLS alone, with a certificate for `localhost` and `127.0.0.1`.
    /// It asks for no certificate of its clients.
    pub fn start_tls() -> Self {
        Self::launch(&Role::Tls, &[], ports::free)
    }

    /// Tries other ports while those at hand are taken.
    pub(super) fn launch(role: &Role, options: &[&str], mut port: impl FnMut() -> u16) -> Self {
        for _ in 0..ATTEMPTS {
            let mut server = Self::set_up(role, options, &mut port);
            if server.boot() {
                return server;
            }
        }
        panic!("redis-server found its port taken {ATTEMPTS} times");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `redis://127.0.0.1:PORT`, or `rediss://localhost:PORT` with TLS.
    pub fn uri(&self) -> String {
        if self.tls {
            return format!("rediss://localhost:{}", self.port);
        }
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its unix socket, which is there with TLS, too.
    pub fn socket(&self) -> PathBuf {
        socket(self.folder.path())
    }

    /// The certificate (PEM) of the authority that signed the server's.
    pub fn ca(&self) -> PathBuf {
        assert!(self.tls, "the server was started without TLS");
        certificates::authority(self.folder.path())
    }

    /// SIGKILL; returns when the process is gone. Nothing happens if it is gone already.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts the server again with the same port, files and options, after a kill if it runs.
    /// Returns when it answers.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.boot(), "the port was taken meanwhile:\n{}", self.log());
    }

    /// SIGSTOP: the server keeps its connections and answers nothing.
    pub fn pause(&self) {
        self.process.as_ref().expect("the server was not killed").pause();
        self.paused.store(true, Ordering::Relaxed);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.as_ref().expect("the server was not killed").resume();
        self.paused.store(false, Ordering::Relaxed);
    }

    /// Whether it was neither killed nor paused.
    pub fn is_live(&self) -> bool {
        self.process.is_some() && !self.paused.load(Ordering::Relaxed)
    }

    /// Sends a command, on a connection of its own, and returns the reply as text: one item of an
    /// array a line, `(nil)` for nothing. An error reply is a panic.
    pub fn command(&self, command: &[&str]) -> String {
        self.reply(command).to_string()
    }

    /// Like [`command`](Self::command), with the error as a value: one of the server's, or of the
    /// connection.
    pub fn try_command(&self, command: &[&str]) -> Result<String, String> {
        self.try_reply(command).map(|reply| reply.to_string())
    }

    /// Like [`command`](Self::command), on one connection: what `MULTI` and `WAIT` need.
    pub fn commands(&self, commands: &[&[&str]]) -> Vec<String> {
        let answers = || -> Result<Vec<_>, String> {
            let mut connection = self.connect()?;
            let answer = |command: &&[&str]| self.ask(&mut connection, command);
            commands.iter().map(answer).map(|it| it.map(|reply| reply.to_string())).collect()
        };
        answers().unwrap_or_else(|error| panic!("{commands:?}: {error}\n{}", self.log()))
    }

    pub(super) fn reply(&self, command: &[impl AsRef<[u8]>]) -> Reply {
        self.try_reply(command).unwrap_or_else(|error| {
            let words: Vec<_> =
                command.iter().map(|word| String::from_utf8_lossy(word.as_ref())).collect();
            panic!("{}: {error}\n{}", words.join(" "), self.log())
        })
    }

    fn try_reply(&self, command: &[impl AsRef<[u8]>]) -> Result<Reply, String> {
        self.ask(&mut self.connect()?, command)
    }

    fn connect(&self) -> Result<Connection, String> {
        Connection::open(&self.socket()).map_err(|error| self.silence(&error))
    }

    fn ask(&self, at: &mut Connection, command: &[impl AsRef<[u8]>]) -> Result<Reply, String> {
        match at.send(command).map_err(|error| self.silence(&error))? {
            Reply::Error(error) => Err(format!("{} answers {error}", self.port)),
            reply => Ok(reply),
        }
    }

    fn silence(&self, error: &io::Error) -> String {
        format!("{} cannot be asked: {error}", self.port)
    }

    /// The value of `field:` in the reply to a command such as `INFO`.
    pub(super) fn field(&self, command: &[&str], field: &str) -> Result<String, String> {
        let reply = self.try_command(command)?;
        let value = reply.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.map(str::to_owned).ok_or_else(|| format!("{} says no {field}", self.port))
    }

    /// Whether all replicas that are connected to it are in step. It sees that a moment later
    /// than they do.
    pub(super) fn has_replicas_in_step(&self) -> Result<(), String> {
        let replication = self.try_command(&REPLICATION)?;
        let online =
            format!("connected_slaves:{}\r\n", replication.matches("state=online").count());
        check(replication.contains(&online), || format!("{} says\n{replication}", self.port))
    }

    /// Whether it is a replica in step with its master, whose port it returns.
    pub(super) fn linked_master(&self) -> Result<u16, String> {
        let link = self.field(&REPLICATION, "master_link_status")?;
        check(link == "up", || format!("{}: the link to its master is {link}", self.port))?;
        let port = self.field(&REPLICATION, "master_port")?;
        port.parse().map_err(|_| format!("{} says master_port:{port}", self.port))
    }

    /// The end of what it wrote, under its port.
    pub(super) fn log(&self) -> String {
        let log = process::end_of_log(&log(self.folder.path()));
        format!("--- log of the server at port {} ---\n{log}\n", self.port)
    }

    fn set_up(role: &Role, options: &[&str], port: &mut impl FnMut() -> u16) -> Self {
        let folder = folder::new();
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

    /// Starts the process and waits until it answers; `false` when its port is taken.
    fn boot(&mut self) -> bool {
        let program = process::program("redis-server", "redis-server");
        let (path, log) = (self.folder.path(), log(self.folder.path()));
        let mut process = Process::start(&program, &self.args, path, &log);
        let attempt = || {
            if process.has_ended() {
                let end = process::end_of_log(&log);
                assert!(end.contains("Address already in use"), "redis-server ended:\n{end}");
                return Ok(false);
            }
            // The socket is opened after the ports, and is nobody else's.
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

    /// What is in the configuration file at first: the server rewrites it when its role changes.
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
    fn a_taken_port_is_passed_over() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap().port();
        for (role, offered) in [
            (Role::Plain, [taken, ports::free()]),
            (Role::Tls, [taken, ports::free()]),
            (Role::ClusterNode, [taken, ports::free()]),
            (Role::ClusterNode, [ports::free(), taken]),
        ] {
            let mut offered = offered.into_iter().chain(iter::repeat_with(ports::free));
            let server = Redis::launch(&role, &[], || offered.next().unwrap());
            assert_ne!(server.port(), taken);
            assert_eq!(server.command(&["PING"]), "PONG");
        }
    }
}
