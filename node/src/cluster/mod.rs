//! The cluster protocol as pure state machines: membership, election, log, locks, commit, fronts. No tokio, no clock, no
//! randomness of its own, no hash maps: the simulator runs exactly this code.
#![deny(clippy::disallowed_types)]

mod adopt;
mod aging;
mod append;
mod change;
mod collect;
mod collector;
mod compact;
mod comparison;
mod config;
mod decide;
mod digest;
mod dispatch;
mod drain;
mod election;
mod fold;
mod forget;
mod frame;
mod front;
mod grant;
mod heads;
mod heartbeat;
mod info;
mod io;
mod lacking;
mod lead;
mod locks;
mod log;
mod marks;
mod member;
#[cfg(test)]
mod member_tests;
mod message;
mod parts;
mod peers;
mod pending;
mod placement;
#[cfg(feature = "planted-bugs")]
pub mod planted;
mod plausible;
mod presence;
#[cfg(test)]
mod presence_tests;
mod read;
mod recent;
mod record;
mod rename;
mod repair;
mod sight;
mod skew;
mod standing;
mod status;
mod storage;
mod transfer;
mod truncate;
mod types;
mod version;
mod whereabouts;

pub use append::split;
pub use change::*;
pub use comparison::*;
pub use config::Config;
pub use info::*;
pub use io::*;
pub use marks::Marks;
pub use member::Member;
pub use message::*;
pub use record::*;
pub use storage::*;
pub use types::*;
pub use version::{Later, OLDEST, PROTOCOL, speaks};
