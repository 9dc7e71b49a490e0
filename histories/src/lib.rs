//! Histories of concurrent operations, and a checker that says whether one order explains them: linearizability (Herlihy
//! and Wing, 1990). The simulator hands it what its clients saw; whoever records real clients can, too. It knows nothing of
//! the product, reads no clock and draws no chance: the same history gets the same verdict with the same number of steps.
//!
//! ```
//! use histories::{Act, History, Initially, Limits, Seen, Verdict};
//!
//! let mut history = History::default();
//! history.add("/a", Act::Put(vec![1]).seeing(Seen::Nothing), 10, Some(20));
//! history.add("/a", Act::Delete.seeing(Seen::Present), 30, Some(40));
//! history.add("/a", Act::Read.seeing(Seen::Content(vec![1])), 50, Some(60));
//! let checked = history.check(Initially::Absent, Limits::default());
//! assert!(matches!(checked[0].1.verdict, Verdict::Broken(_))); // it reads what was deleted before
//! ```

mod check;
mod content;
mod file;
mod history;
mod memo;
mod model;
mod window;

pub use check::{Blocked, Checked, Limits, Verdict, check};
pub use file::{Act, FileModel, FileOp, FileState, Initially, Seeing, Seen};
pub use history::{History, Operation, Time};
pub use model::Model;
pub use window::{Window, cut};
