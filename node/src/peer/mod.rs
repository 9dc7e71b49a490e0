//! The shell of the cluster core: authenticated links between nodes, the driver that owns the one `Member`, discovery.

mod handle;

pub use handle::*;
