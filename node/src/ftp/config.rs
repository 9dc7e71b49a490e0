//! Settings of the client side: plain data, checked by whoever reads them from files and flags.

use super::tls::FtpTls;
use super::users::Users;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// What sessions need to know. [`FtpConfig::new`] gives the defaults written here.
#[derive(Debug, Clone)]
pub struct FtpConfig {
    /// Who may log in.
    pub users: Arc<Users>,
    /// Certificate and key; `None` leaves only plain FTP, which `require_tls` then makes useless.
    pub tls: Option<FtpTls>,
    /// Whether logins and transfers in clear text are refused. Yes.
    pub require_tls: bool,
    /// Ports of data connections; `None` takes whatever port is free. `None`.
    pub passive_ports: Option<RangeInclusive<u16>>,
    /// The address told in answers to PASV; `None` tells the one the client connected to. EPSV never needs it. `None`.
    pub passive_address: Option<Ipv4Addr>,
    /// Sessions at once; one more is told 421. 256.
    pub max_sessions: usize,
    /// Sessions at once from one address; one more is told 421. 64.
    pub max_sessions_per_address: usize,
    /// Until a client has logged in. 60 s.
    pub login_timeout: Duration,
    /// Without a command and without a transfer. 300 s.
    pub idle_timeout: Duration,
    /// Until the client opens the data connection and its TLS stands. 30 s.
    pub accept_timeout: Duration,
    /// Without a byte moving on a data connection, or a reply being taken. 60 s.
    pub stall_timeout: Duration,
    /// How long an operation waits for a leader or for a lock. 30 s.
    pub patience: Duration,
    /// Failed logins from one address, without a pause of `ban_time`, after which it is banned for `ban_time`. 20.
    pub max_failed_logins: u32,
    /// How long an address is banned. 10 min.
    pub ban_time: Duration,
    /// What a failed login waits for its answer; doubled with each one from the same address, up to 8 s. 250 ms.
    pub failed_login_delay: Duration,
}

impl FtpConfig {
    /// All defaults: TLS is required, so one without `tls` serves nobody.
    pub fn new(users: Arc<Users>, tls: Option<FtpTls>) -> Self {
        Self {
            users,
            tls,
            require_tls: true,
            passive_ports: None,
            passive_address: None,
            max_sessions: 256,
            max_sessions_per_address: 64,
            login_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(300),
            accept_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
            patience: Duration::from_secs(30),
            max_failed_logins: 20,
            ban_time: Duration::from_secs(600),
            failed_login_delay: Duration::from_millis(250),
        }
    }
}
