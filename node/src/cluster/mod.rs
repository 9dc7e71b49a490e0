//! The cluster protocol as pure state machines: membership, election, log, locks, commit, fronts. No tokio, no clock, no
//! randomness of its own, no hash maps: the simulator runs exactly this code.
#![deny(clippy::disallowed_types)]

mod io;
mod marks;
mod message;
#[cfg(feature = "planted-bugs")]
pub mod planted;
mod record;
mod storage;
mod types;

pub use io::*;
pub use marks::Marks;
pub use message::*;
pub use record::*;
pub use storage::*;
pub use types::*;

/// One node's part in the cluster protocol.
#[derive(Debug)]
pub struct Member {}

impl Member {
    /// A member as its disk left it. `seed` feeds the jitter and the nonces of its epochs, and must differ between starts.
    pub fn new(_now: Now, _config: Config, _me: PeerInfo, _restored: Restored, _seed: u64) -> Self {
        Self {}
    }
    /// Takes one input. What it wants done is then in [`Self::take_outputs`] and [`Self::take_batch`].
    pub fn handle(&mut self, _now: Now, _input: Input, _storage: &dyn Storage) {}
    /// To be called once everything queued was handled: appends, acknowledgements and answers that one round of inputs
    /// caused are gathered here (this is the group commit).
    pub fn settle(&mut self, _now: Now, _storage: &dyn Storage) {}
    /// What to do now, in order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        vec![]
    }
    /// What to write, if anything. [`Storage`] must show it from here on, written or not.
    pub fn take_batch(&mut self) -> Option<Batch> {
        None
    }
    /// For people.
    pub fn status(&self, _now: Now, _storage: &dyn Storage) -> Status {
        unimplemented!()
    }
}
