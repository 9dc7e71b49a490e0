//! What the stories under `tests/` are told with: clusters of real nodes in containers (or, where there is no engine, in
//! processes), real FTP clients over TLS, cuts of the network between nodes, and an ear inside a node's network namespace.
//! Nothing here knows what a story is about, and nothing that it makes outlives the run: all of it carries the run's label
//! ([`swarm::sweep`]).

pub mod access;
pub mod bed;
pub mod client;
pub mod cluster;
pub mod frames;
pub mod place;
pub mod tools;
pub mod wait;

pub use bed::{Bed, Need};
pub use client::{Client, Clients, Refused};
pub use cluster::Cluster;
pub use wait::{wait_for, within};

use anyhow::{Result, bail};

/// Fails with the sentence unless it holds: where libtest-mimic runs tests, no `assert!` counts as one.
pub fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { bail!("{}", otherwise()) }
}

/// Bytes that only this text makes.
pub fn content(of: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(of.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
