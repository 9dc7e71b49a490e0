//! Provisions Trébol clusters on Docker Swarm: from a short cluster file to running, pinned, healthy storage nodes, and back
//! to nothing. [`Deployment`] is the door; [`plan`] decides, [`look`] reads, [`work`] performs.
//!
//! Planning is pure: the cluster that is asked for ([`Cluster`]) and what the engines say ([`observed::Observed`]) make a
//! list of [`step::Step`]s. So `up` on what is already up does nothing, and a run that was interrupted is gone on with by
//! calling the same command again.

pub mod ask;
pub mod cli;
pub mod cluster;
pub mod deployment;
pub mod engine;
pub mod image;
pub mod look;
pub mod machines;
pub mod name;
pub mod observed;
pub mod plan;
pub mod progress;
pub mod spec;
pub mod state;
pub mod step;
pub mod sweep;
pub mod wanted;
pub mod work;

pub use cluster::{Cluster, Host, User};
pub use deployment::{Choice, Deployment, Done, Endpoint, Report};
pub use image::Source;
pub use name::{Name, NodeName};
pub use plan::TakeDown;
pub use progress::Progress;
