//! File bytes between nodes, on the raw port (2124): written to all replicas at once, read from the nearest that has them.

mod read;
mod write;

pub use read::*;
pub use write::*;

/// Sends and fetches blobs; one per node, cloneable.
#[derive(Debug, Clone)]
pub struct Replicas {}
