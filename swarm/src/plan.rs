//! From what shall be and what there is to the steps between: `grow` for `up`, `update` and `scale` upwards, `shrink` for
//! `scale` downwards, `take_down` for `down`. Pure: reads nothing and does nothing, so every rule is tested without an
//! engine. A refusal is one sentence, and nothing was done.
//!
//! Whatever was interrupted is gone on with by planning anew: each step leaves something that the next look sees.

mod grow;
mod shrink;
mod take_down;

pub use grow::{effective, grow, possible, restart};
pub use shrink::{Shrunk, shrink, spread};
pub use take_down::{TakeDown, check_owner, take_down};

use crate::step::Step;

/// What to do, in this order, and what somebody should know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// None: everything is as it shall be.
    pub steps: Vec<Step>,
    /// One sentence each.
    pub notices: Vec<String>,
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
