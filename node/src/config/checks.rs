//! What settings must fulfil before a node is started with them: closed by default (nodes and clients are authenticated
//! unless the operator says otherwise), times that fit together. Only looks at values, opens nothing.

use super::Settings;
use std::path::PathBuf;

/// Ten years, in seconds: any time from now until then can be written in microseconds.
const LONGEST_S: u64 = 10 * 365 * 24 * 3600;

/// Why a node is not started. Each says what to do; nothing was opened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// No certificates for peers.
    #[error(
        "peers could not be authenticated: set peer.ca, peer.certificate and peer.key (missing: {missing}), or say \
         --insecure-peers on a network where nobody else is"
    )]
    PeerCertificates {
        /// Which settings.
        missing: String,
    },
    /// Certificates are set and shall not be used.
    #[error("insecure_peers is set together with peer certificates: remove one of them")]
    InsecureWithCertificates,
    /// No certificate for clients.
    #[error(
        "clients could not use TLS: set ftp.tls_certificate and ftp.tls_key, or set ftp.require_tls = false to let \
         passwords and files travel in clear"
    )]
    FtpCertificate,
    /// One of two.
    #[error("ftp.tls_certificate and ftp.tls_key belong together: only one is set")]
    HalfFtpCertificate,
    /// Nobody could log in.
    #[error("nobody could log in: set ftp.users to a file with users (trebol passwd prints a password's hash)")]
    Users,
    /// Not a DNS label.
    #[error("node.cluster {0:?} is no name for a cluster: use letters, digits and hyphens, 63 at most")]
    Cluster(String),
    /// Not a name with a port.
    #[error(
        "peer.discover {0:?} is no HOST:PORT with a name to look up, such as tasks.trebol:2123; addresses go into peer.seeds"
    )]
    Discover(String),
    /// Two settings contradict each other.
    #[error("{smaller} must be less than {greater}: raise {greater}")]
    Order {
        /// The one that has to be smaller.
        smaller: &'static str,
        /// The other.
        greater: &'static str,
    },
    /// A time that nobody waits for, and that clocks cannot add.
    #[error("{name} is {value}, more than ten years: set {most} or less")]
    TooLong {
        /// Which setting.
        name: &'static str,
        /// What it is set to.
        value: u64,
        /// The most it may be, in its own unit.
        most: u64,
    },
    /// Zero makes no sense.
    #[error("{0} must not be 0")]
    Zero(&'static str),
    /// More copies than are ever made.
    #[error("core.min_copies is {0}, and a file has three copies at most: set 1, 2 or 3")]
    MinCopies(u64),
}

/// The files that authenticate this node to its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerFiles {
    /// Bundle of authorities.
    pub ca: PathBuf,
    /// This node's chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Settings {
    /// The first of [`Self::faults`].
    pub fn check(&self) -> Result<(), Unfit> {
        self.faults().into_iter().next().map_or(Ok(()), Err)
    }
    /// Everything that can be said without opening anything, all of it.
    pub fn faults(&self) -> Vec<Unfit> {
        let mut found = Vec::new();
        found.extend(self.peer_files().err());
        found.extend(self.ftp_files().err());
        found.extend(self.ftp.users.is_none().then_some(Unfit::Users));
        let name = &self.node.cluster;
        let label = !name.is_empty() && name.len() <= 63 && !name.starts_with('-') && !name.ends_with('-');
        if !label || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            found.push(Unfit::Cluster(name.clone()));
        }
        let unnamed = self.peer.discover.iter().filter(|name| crate::peer::name_and_port(name).is_none());
        found.extend(unnamed.cloned().map(Unfit::Discover));
        self.order_faults(&mut found);
        self.size_faults(&mut found);
        if !(1..=3).contains(&self.core.min_copies) {
            found.push(Unfit::MinCopies(self.core.min_copies));
        }
        found
    }
    /// The certificate files for peers; `None` when peers are not to be authenticated.
    pub fn peer_files(&self) -> Result<Option<PeerFiles>, Unfit> {
        let peer = &self.peer;
        let given = [("peer.ca", &peer.ca), ("peer.certificate", &peer.certificate), ("peer.key", &peer.key)];
        if peer.insecure_peers {
            let some = given.iter().any(|(_, path)| path.is_some());
            return if some { Err(Unfit::InsecureWithCertificates) } else { Ok(None) };
        }
        if let (Some(ca), Some(certificate), Some(key)) = (&peer.ca, &peer.certificate, &peer.key) {
            return Ok(Some(PeerFiles { ca: ca.clone(), certificate: certificate.clone(), key: key.clone() }));
        }
        let missing: Vec<&str> = given.iter().filter(|(_, path)| path.is_none()).map(|(name, _)| *name).collect();
        Err(Unfit::PeerCertificates { missing: missing.join(", ") })
    }
    /// The certificate and key shown to clients; `None` when there is none and none is needed.
    pub fn ftp_files(&self) -> Result<Option<(PathBuf, PathBuf)>, Unfit> {
        match (&self.ftp.tls_certificate, &self.ftp.tls_key) {
            (Some(certificate), Some(key)) => Ok(Some((certificate.clone(), key.clone()))),
            (None, None) if self.ftp.require_tls => Err(Unfit::FtpCertificate),
            (None, None) => Ok(None),
            _ => Err(Unfit::HalfFtpCertificate),
        }
    }
    fn order_faults(&self, found: &mut Vec<Unfit>) {
        let core = &self.core;
        let pairs = [
            ("core.heartbeat_ms", core.heartbeat_ms, "core.suspect_ms", core.suspect_ms),
            ("core.suspect_ms", core.suspect_ms, "core.down_ms", core.down_ms),
            ("core.heartbeat_ms", core.heartbeat_ms, "core.lock_lease_ms", core.lock_lease_ms),
        ];
        let wrong = pairs.into_iter().filter(|(_, less, _, more)| less >= more);
        found.extend(wrong.map(|(smaller, _, greater, _)| Unfit::Order { smaller, greater }));
    }
    /// No time too long, and nothing 0 that must not be.
    fn size_faults(&self, found: &mut Vec<Unfit>) {
        let (core, ftp) = (&self.core, &self.ftp);
        let waits_ms = [
            ("core.heartbeat_ms", core.heartbeat_ms),
            ("core.suspect_ms", core.suspect_ms),
            ("core.down_ms", core.down_ms),
            ("core.answer_ms", core.answer_ms),
            ("core.rpc_ms", core.rpc_ms),
            ("core.collect_ms", core.collect_ms),
            ("core.lock_lease_ms", core.lock_lease_ms),
            ("core.lock_wait_ms", core.lock_wait_ms),
            ("core.clock_bound_ms", core.clock_bound_ms),
        ];
        let waits_s = [
            ("core.outcome_retention_s", core.outcome_retention_s),
            ("core.repair_last_copy_s", core.repair_last_copy_s),
            ("core.repair_after_s", core.repair_after_s),
            ("core.max_upload_s", core.max_upload_s),
            ("core.stall_window_s", core.stall_window_s),
            ("ftp.login_timeout_s", ftp.login_timeout_s),
            ("ftp.idle_timeout_s", ftp.idle_timeout_s),
            ("ftp.accept_timeout_s", ftp.accept_timeout_s),
            ("ftp.stall_timeout_s", ftp.stall_timeout_s),
            ("replica.scrub_rest_s", self.replica.scrub_rest_s),
        ];
        // These may be 0: then nothing is kept, waited for or banned.
        let graces_s = [
            ("node.drain_s", self.node.drain_s),
            ("core.staged_grace_s", core.staged_grace_s),
            ("core.replaced_grace_s", core.replaced_grace_s),
            ("ftp.ban_s", ftp.ban_s),
        ];
        let counts = [
            ("core.max_waiters", core.max_waiters),
            ("ftp.max_sessions", ftp.max_sessions),
            ("ftp.max_sessions_per_address", ftp.max_sessions_per_address),
            ("ftp.max_failed_logins", ftp.max_failed_logins.into()),
        ];
        let zeros = waits_ms.iter().chain(&waits_s).chain(&counts).filter(|(_, value)| *value == 0);
        found.extend(zeros.map(|(name, _)| Unfit::Zero(name)));
        let seconds = waits_s.iter().chain(&graces_s).map(|wait| (wait, LONGEST_S));
        let all = waits_ms.iter().map(|wait| (wait, LONGEST_S * 1000)).chain(seconds);
        let long = all.filter(|((_, value), most)| value > most);
        found.extend(long.map(|(&(name, value), most)| Unfit::TooLong { name, value, most }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit() -> Settings {
        let mut settings = Settings::default();
        settings.peer.insecure_peers = true;
        settings.ftp.require_tls = false;
        settings.ftp.users = Some("/users".into());
        settings
    }
    fn refusal(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = fit();
        change(&mut settings);
        settings.check().unwrap_err().to_string()
    }

    #[test]
    fn closed_by_default() {
        assert_eq!(fit().check(), Ok(()));
        assert!(refusal(|s| s.peer.insecure_peers = false).contains("missing: peer.ca, peer.certificate, peer.key"));
        assert!(refusal(|s| s.ftp.require_tls = true).contains("ftp.tls_certificate"));
        assert!(refusal(|s| s.ftp.users = None).contains("trebol passwd"));
    }

    #[test]
    fn halves_and_contradictions_are_refused() {
        assert!(refusal(|s| s.peer.ca = Some("/ca".into())).contains("remove one"));
        assert!(refusal(|s| s.ftp.tls_key = Some("/key".into())).contains("only one is set"));
        assert!(refusal(|s| s.core.suspect_ms = 250).contains("raise core.suspect_ms"));
        assert!(refusal(|s| s.core.min_copies = 0).contains("set 1, 2 or 3"));
        assert!(refusal(|s| s.ftp.idle_timeout_s = 0).contains("ftp.idle_timeout_s"));
        assert!(refusal(|s| s.ftp.max_failed_logins = 0).contains("ftp.max_failed_logins"));
        assert!(refusal(|s| s.ftp.idle_timeout_s = u64::MAX).contains("set 315360000 or less"));
        assert!(refusal(|s| s.core.lock_wait_ms = u64::MAX).contains("core.lock_wait_ms"));
        assert!(refusal(|s| s.node.drain_s = LONGEST_S + 1).contains("node.drain_s"));
        assert!(refusal(|s| s.node.cluster = "a.b".into()).contains("\"a.b\""));
        assert!(refusal(|s| s.peer.discover = vec!["10.0.0.1:2123".into()]).contains("peer.seeds"));
    }

    #[test]
    fn all_mistakes_are_found_at_once() {
        let mut settings = fit();
        (settings.core.min_copies, settings.ftp.ban_s, settings.core.down_ms) = (9, u64::MAX, 0);
        settings.ftp.users = None;
        let said: Vec<String> = settings.faults().iter().map(ToString::to_string).collect();
        let all = ["ftp.users", "raise core.down_ms", "core.down_ms must not be 0", "ftp.ban_s", "core.min_copies"];
        assert_eq!(said.len(), all.len(), "{said:?}");
        assert!(said.iter().zip(all).all(|(said, part)| said.contains(part)), "{said:?}");
    }
}
