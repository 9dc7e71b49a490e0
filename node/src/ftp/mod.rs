//! The client side: FTP (RFC 959) with explicit TLS (RFC 4217), one task a session.
//!
//! Bytes come in at `connection`, become a line (`line`), a `command`, and are answered by one small file per family of
//! verbs (`verb`), which sees the cluster through `files` (and losers of conflicts by `conflicts`) and data connections
//! through `data`. Nothing here decides what
//! is stored where; every failure below becomes a reply in `reply` and nowhere else.

mod ascii;
mod attempts;
mod command;
mod config;
mod conflicts;
#[cfg(test)]
mod conflicts_tests;
mod connection;
mod control;
mod data;
mod download;
mod files;
mod line;
mod listener;
mod listing;
mod progress;
mod reply;
mod session;
#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod stop_tests;
mod stream;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod testing_client;
mod tls;
#[cfg(test)]
mod transfer_tests;
mod upload;
mod users;
mod verb;

pub use config::FtpConfig;
pub use listener::{FtpTasks, refuse_waiting, serve, turn_away};
pub use tls::{FtpTls, FtpTlsError};
pub use users::{Users, UsersError};
