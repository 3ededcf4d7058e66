//! A master with replicas, and the sentinels that watch them.

use std::iter;

use super::server::{REPLICATION, Redis, Role};
use crate::ports::free_port;
use crate::wait::{self, check};

const SENTINELS: usize = 3;

/// The name of the master.
const NAME: &str = "main";

/// Periods of the sentinels' timers in milliseconds, shorter than the defaults.
///
/// A sentinel reconnects to a server only one ping period after the last attempt. If the ping
/// period is not shorter than `down-after-milliseconds`, a new master may be taken for dead at once
/// and be replaced, too. A sentinel promotes no replica that has been silent for five ping periods,
/// and polls replicas once a second. It turns a returning old master into a replica after four
/// publish periods.
const PERIODS: [(&str, &str); 4] = [
    ("PING-PERIOD", "500"),
    ("ASK-PERIOD", "200"),
    ("PUBLISH-PERIOD", "500"),
    ("INFO-PERIOD", "1000"),
];

/// A master with replicas, watched by three sentinels with a quorum of two.
///
/// The sentinels take a server for dead after one second of silence.
pub struct Sentinel {
    servers: Vec<Redis>,
    sentinels: Vec<Redis>,
}

impl Sentinel {
    /// Starts all servers. `options` are for the master and the replicas. Returns when the group
    /// [is whole](Self::wait_until_whole).
    pub fn start(replicas: usize, options: &[&str]) -> Self {
        let master = Redis::launch(&Role::Plain, options, free_port);
        let port = master.port();
        let replica = || Redis::launch(&Role::ReplicaOf(port), options, free_port);
        let servers = iter::once(master).chain(iter::repeat_with(replica).take(replicas)).collect();
        let mut all = Self { servers, sentinels: Vec::new() };
        // Sentinels learn the replicas from the first reply of the master.
        wait::until("the replicas are linked", || all.are_linked(port), || all.logs());
        let sentinel = || {
            let sentinel = Redis::launch(&Role::Sentinel(port), &[], free_port);
            for (name, period) in PERIODS {
                sentinel.command(&["SENTINEL", "DEBUG", name, period]);
            }
            sentinel
        };
        all.sentinels = iter::repeat_with(sentinel).take(SENTINELS).collect();
        all.wait_until_whole();
        all
    }

    /// Returns `redis+sentinel://127.0.0.1:P1,127.0.0.1:P2,127.0.0.1:P3/main`, with the sentinels'
    /// ports.
    pub fn uri(&self) -> String {
        let addresses: Vec<_> =
            self.sentinels.iter().map(|it| format!("127.0.0.1:{}", it.port())).collect();
        format!("redis+sentinel://{}/{NAME}", addresses.join(","))
    }

    /// Returns the master and the replicas, in the order of their start.
    pub fn servers(&self) -> &[Redis] {
        &self.servers
    }

    pub fn sentinels(&self) -> &[Redis] {
        &self.sentinels
    }

    /// Returns the master or replica at this port.
    pub fn server(&self, port: u16) -> &Redis {
        let server = self.servers.iter().find(|it| it.port() == port);
        server.unwrap_or_else(|| panic!("no server has the port {port}"))
    }

    /// Returns the port of the master, once all sentinels agree on it.
    pub fn master(&self) -> u16 {
        wait::until("the sentinels agree", || self.agreed(), || self.logs())
    }

    /// Kills the master and returns its port.
    pub fn kill_master(&mut self) -> u16 {
        let port = self.master();
        self.kill(port);
        port
    }

    /// Kills a server with SIGKILL.
    pub fn kill(&mut self, port: u16) {
        self.server_mut(port).kill();
    }

    /// Restarts a server. Returns when it answers. An old master then still acts as a master for
    /// about two seconds, until the sentinels turn it into a replica.
    pub fn restart(&mut self, port: u16) {
        self.server_mut(port).restart();
    }

    /// Waits until all sentinels name a master other than `old`, and that server has the role of a
    /// master. Returns its port.
    pub fn wait_for_failover(&self, old: u16) -> u16 {
        let attempt = || {
            let master = self.agreed()?;
            check(master != old, || format!("{old} is still the master"))?;
            let role = self.server(master).field(&REPLICATION, "role")?;
            check(role == "master", || format!("{master} is a {role}"))?;
            Ok(master)
        };
        wait::until("a failover", attempt, || self.logs())
    }

    /// Waits until all other servers are linked to the master as replicas, and each sentinel knows
    /// all servers and the other sentinels.
    pub fn wait_until_whole(&self) {
        let attempt = || {
            self.sentinels.iter().try_for_each(|it| self.knows_all(it))?;
            self.are_linked(self.agreed()?)
        };
        wait::until("all servers work together", attempt, || self.logs());
    }

    fn are_linked(&self, master: u16) -> Result<(), String> {
        for replica in self.servers.iter().filter(|it| it.port() != master) {
            let followed = replica.linked_master()?;
            check(followed == master, || format!("{} follows {followed}", replica.port()))?;
        }
        self.server(master).has_replicas_in_step()
    }

    fn knows_all(&self, sentinel: &Redis) -> Result<(), String> {
        sentinel.try_command(&["SENTINEL", "CKQUORUM", NAME])?;
        let reply = sentinel.try_command(&["SENTINEL", "MASTER", NAME])?;
        for (name, wanted) in
            [("num-slaves", self.servers.len() - 1), ("num-other-sentinels", SENTINELS - 1)]
        {
            let found = reply.lines().skip_while(|&line| line != name).nth(1);
            let right = found == Some(wanted.to_string().as_str());
            check(right, || format!("{}: {name} is {found:?}", sentinel.port()))?;
        }
        Ok(())
    }

    /// Returns the port of the master if all live sentinels name the same one.
    fn agreed(&self) -> Result<u16, String> {
        let mut named = Vec::new();
        for sentinel in self.sentinels.iter().filter(|it| it.is_live()) {
            let address = sentinel.try_command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])?;
            let port = address.lines().nth(1).and_then(|port| port.parse().ok());
            named.push(port.ok_or_else(|| format!("{} replied {address}", sentinel.port()))?);
        }
        named.dedup();
        match named[..] {
            [master] => Ok(master),
            _ => Err(format!("the sentinels name {named:?}")),
        }
    }

    fn server_mut(&mut self, port: u16) -> &mut Redis {
        let server = self.servers.iter_mut().find(|it| it.port() == port);
        server.unwrap_or_else(|| panic!("no server has the port {port}"))
    }

    fn logs(&self) -> String {
        self.servers.iter().chain(&self.sentinels).map(Redis::log).collect()
    }
}
