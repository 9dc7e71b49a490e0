//! Every setting of a node, declared once: name, type, default and meaning. From this one table come the TOML file, the
//! flags of `trebol serve`, the `TREBOL_*` variables and their help. Flags win over variables, those over the file, that
//! over the defaults. Nothing here touches the network; files are only read by `layers`.

mod checks;
mod layers;
mod text;

pub use checks::{PeerFiles, Unfit};
pub use layers::{ConfigError, Given, load};
pub use text::{PortRange, Text};

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// One setting as help, flags and variables see it.
#[derive(Debug)]
pub struct Setting {
    /// Its table in the TOML file.
    pub section: &'static str,
    /// Its key there.
    pub key: &'static str,
    /// What it means.
    pub help: &'static str,
    /// True for yes/no settings, whose flag needs no value.
    pub switch: bool,
    /// Reads a value from a flag or a variable; the error says what was expected.
    pub parse: fn(&str) -> Result<toml::Value, String>,
}

impl Setting {
    /// The key with its section in front, save where that would say nothing: `data`, `ftp_listen`, `insecure_peers`.
    fn full_name(&self) -> String {
        let plain = self.section == "node" || self.key.contains(self.section);
        if plain { self.key.to_owned() } else { format!("{}_{}", self.section, self.key) }
    }
    /// Its flag, without the dashes: `ftp-listen`.
    pub fn flag(&self) -> String {
        self.full_name().replace('_', "-")
    }
    /// Its variable: `TREBOL_FTP_LISTEN`.
    pub fn variable(&self) -> String {
        format!("TREBOL_{}", self.full_name().to_uppercase())
    }
}

macro_rules! settings {
    ($( $(#[doc = $about:literal])+ $section:ident: $Section:ident {
        $( $(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:expr, )*
    } )*) => {
        /// All settings of a node.
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Settings {
            $( $(#[doc = $about])+ pub $section: $Section, )*
        }
        $(
            $(#[doc = $about])+
            #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
            #[serde(default, deny_unknown_fields)]
            pub struct $Section {
                $( $(#[doc = $doc])+ pub $key: $type, )*
            }
            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $key: $default, )* }
                }
            }
        )*
        /// Every setting, in the order of help.
        pub static SETTINGS: &[Setting] = &[
            $( $( Setting {
                section: stringify!($section),
                key: stringify!($key),
                help: concat!($($doc),+),
                switch: <$type as Text>::SWITCH,
                parse: <$type as Text>::value,
            }, )* )*
        ];
    };
}

settings! {
    /// The node itself.
    node: NodeSettings {
        /// Data directory: identity, log, index, files. One node each; it is locked while the node runs
        data: PathBuf = PathBuf::from("/var/lib/trebol"),
        /// The cluster's name: peers of another name are refused. Peer certificates are for CLUSTER.trebol
        cluster: String = "trebol".to_owned(),
        /// A readable name; the host's name unless set
        name: Option<String> = None,
        /// Failure domain, usually the machine: copies go to different ones. The host's name unless set
        zone: Option<String> = None,
        /// Who leads: the highest priority, then the highest peer address
        priority: i64 = 0,
        /// Log lines as JSON objects instead of text. What is logged: TREBOL_LOG, as in "info,node=debug"
        log_json: bool = false,
        /// How long running transfers may take to end after SIGTERM, in seconds
        drain_s: u64 = 25,
        /// Shifts the wall clock, in milliseconds. Only for tests of clock skew
        clock_offset_ms: i64 = 0,
    }
    /// The client side.
    ftp: FtpSettings {
        /// Where clients connect; port 0 takes a free one
        listen: SocketAddr = ([0, 0, 0, 0], 21).into(),
        /// Ports of data connections, FIRST-LAST; 0 means any free one
        passive_ports: PortRange = PortRange { first: 50_000, last: 50_511 },
        /// The IPv4 address told in answers to PASV; the one the client connected to unless set
        passive_address: Option<Ipv4Addr> = None,
        /// How people reach this node, HOST:PORT, shown by status; derived unless set
        advertise: Option<String> = None,
        /// Certificate chain shown to clients, PEM
        tls_certificate: Option<PathBuf> = None,
        /// Its private key, PEM
        tls_key: Option<PathBuf> = None,
        /// Refuse logins and transfers in clear text
        require_tls: bool = true,
        /// Users file, TOML: name, Argon2id hash (trebol passwd prints one), home
        users: Option<PathBuf> = None,
        /// Sessions at once
        max_sessions: u64 = 256,
        /// Sessions at once from one address
        max_sessions_per_address: u64 = 64,
        /// Until a client has logged in, in seconds
        login_timeout_s: u64 = 60,
        /// Without a command, in seconds
        idle_timeout_s: u64 = 300,
        /// Until the client opens the data connection, in seconds
        accept_timeout_s: u64 = 30,
        /// Without a byte on a data connection, in seconds
        stall_timeout_s: u64 = 60,
        /// Failed logins until an address is banned for a while
        max_failed_logins: u32 = 20,
        /// How long it is banned, in seconds
        ban_s: u64 = 600,
    }
    /// The other nodes.
    peer: PeerSettings {
        /// Where peers connect for coordination; port 0 takes a free one
        listen: SocketAddr = ([0, 0, 0, 0], 2123).into(),
        /// Where peers connect for file bytes; port 0 takes a free one
        raw_listen: SocketAddr = ([0, 0, 0, 0], 2124).into(),
        /// The IP address that peers reach this node at; the one of the interface towards the first seed unless set
        advertise: Option<IpAddr> = None,
        /// Nodes to call, HOST:PORT, this node may be among them; several are separated by commas
        seeds: Vec<String> = Vec::new(),
        /// DNS names that stand for all nodes, HOST:PORT, such as tasks.SERVICE:2123 on a swarm; asked for every two seconds
        discover: Vec<String> = Vec::new(),
        /// Certificates of the cluster's authority, PEM; more than one while it rotates
        ca: Option<PathBuf> = None,
        /// This node's certificate for CLUSTER.trebol, PEM
        certificate: Option<PathBuf> = None,
        /// Its private key, PEM
        key: Option<PathBuf> = None,
        /// No TLS between nodes: whoever reaches the ports reads and changes every file
        insecure_peers: bool = false,
    }
    /// What this node shows of itself.
    admin: AdminSettings {
        /// Where monitoring reads health, status and metrics by HTTP, such as 127.0.0.1:2125; closed unless set, for whoever reaches it needs no password
        listen: Option<SocketAddr> = None,
    }
    /// The copies on this node's disk.
    replica: ReplicaSettings {
        /// Reads all copies again and replaces rotten ones, at so many MiB a second; 0 for never
        scrub_mib_s: u64 = 8,
        /// From the end of one such round to the beginning of the next, in seconds
        scrub_rest_s: u64 = 86_400,
        /// Copies that repair makes here, of files that lost one or of a node that was away, take so many MiB a second together; 0 for no bound
        repair_mib_s: u64 = 200,
    }
    /// Times and bounds of the cluster protocol: the same on every node.
    core: CoreSettings {
        /// Between heartbeats
        heartbeat_ms: u64 = 250,
        /// Silence until a peer is suspected
        suspect_ms: u64 = 1000,
        /// Silence until a peer is down
        down_ms: u64 = 5000,
        /// Wait for a higher rank's answer in an election
        answer_ms: u64 = 300,
        /// Wait for any other answer of a peer
        rpc_ms: u64 = 2000,
        /// Wait for promises of a takeover
        collect_ms: u64 = 600,
        /// A lock whose holder is silent is freed after this
        lock_lease_ms: u64 = 10_000,
        /// Longest wait for a lock
        lock_wait_ms: u64 = 30_000,
        /// Writers waiting for one path, and locks in all
        max_waiters: u64 = 1024,
        /// How long the outcome of an operation is kept for repeats
        outcome_retention_s: u64 = 600,
        /// How long bytes of an upload that was given up are kept
        staged_grace_s: u64 = 900,
        /// How long a replaced version is kept for those who still read it
        replaced_grace_s: u64 = 60,
        /// A file with one live copy left gets another after this
        repair_last_copy_s: u64 = 5,
        /// A file with two live copies does after this
        repair_after_s: u64 = 60,
        /// Longest upload
        max_upload_s: u64 = 21_600,
        /// An upload that moves less than stall_bytes in this time is ended
        stall_window_s: u64 = 60,
        /// See stall_window_s
        stall_bytes: u64 = 245_760,
        /// Space to leave free on a disk when files are placed
        disk_reserve_bytes: u64 = 64 << 20,
        /// Writes that fewer nodes than this could keep are refused; 1 risks losing files with one disk
        min_copies: u64 = 2,
        /// Files and directories in a directory that is renamed; more are refused, for a rename is one step that all nodes stand still for
        rename_entries: u64 = 10_000,
        /// A node whose clock is further ahead of its peers' than this does not lead, and takes new files last of its zone
        clock_bound_ms: u64 = 500,
    }
}

impl CoreSettings {
    /// As the protocol wants them.
    pub fn to_config(&self) -> crate::cluster::Config {
        let (ms, s) = (|n: u64| n.saturating_mul(1000), |n: u64| n.saturating_mul(1_000_000));
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        crate::cluster::Config {
            heartbeat: ms(self.heartbeat_ms),
            suspect: ms(self.suspect_ms),
            down: ms(self.down_ms),
            answer: ms(self.answer_ms),
            rpc: ms(self.rpc_ms),
            collect: ms(self.collect_ms),
            lock_lease: ms(self.lock_lease_ms),
            lock_wait: ms(self.lock_wait_ms),
            max_waiters: count(self.max_waiters),
            outcome_retention: s(self.outcome_retention_s),
            staged_grace: s(self.staged_grace_s),
            replaced_grace: s(self.replaced_grace_s),
            repair_last_copy: s(self.repair_last_copy_s),
            repair_after: s(self.repair_after_s),
            max_upload: s(self.max_upload_s),
            stall_window: s(self.stall_window_s),
            stall_bytes: self.stall_bytes,
            disk_reserve: self.disk_reserve_bytes,
            min_copies: count(self.min_copies),
            rename_entries: count(self.rename_entries),
            clock_bound: ms(self.clock_bound_ms),
            ..crate::cluster::Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_stutter_and_are_unique() {
        let find = |key: &str| SETTINGS.iter().find(|s| s.key == key).unwrap();
        assert_eq!((find("data").flag(), find("data").variable()), ("data".into(), "TREBOL_DATA".into()));
        assert_eq!(find("passive_ports").flag(), "ftp-passive-ports");
        assert_eq!(find("insecure_peers").flag(), "insecure-peers");
        let mut flags: Vec<String> = SETTINGS.iter().map(Setting::flag).collect();
        flags.sort();
        let all = flags.len();
        flags.dedup();
        assert_eq!(flags.len(), all);
    }

    #[test]
    fn defaults_are_those_of_the_protocol() {
        let ours = format!("{:?}", CoreSettings::default().to_config());
        assert_eq!(ours, format!("{:?}", crate::cluster::Config::default()));
    }
}
