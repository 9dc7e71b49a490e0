//! Trébol: a replicated, self-healing FTP(S) server. Every node serves any client; every file lives on three nodes.
//!
//! [`cluster`] is the protocol, pure; [`peer`] its shell; [`store`] the disk; [`replica`] file bytes between nodes;
//! [`ftp`] the client side. ARCHITECTURE.md walks one upload through all of them.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod ftp;
pub mod meter;
pub mod path;
pub mod peer;
pub mod pki;
pub mod replica;
pub mod serve;
pub mod store;
