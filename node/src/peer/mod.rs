//! The shell of the cluster core: authenticated links between nodes, the driver that owns the one `Member`, discovery.
//!
//! A connection: `tls` → `hello`, said by `greeter` (both ports) → `frame`s. What a node sends goes over connections that
//! its `dialler` opened, what it receives comes over those that its `acceptor` took; `link` runs both kinds. All of it
//! ends in the queues of the `driver`; sessions reach it by a `handle`.

mod acceptor;
mod acquaintance;
mod dialler;
mod discovery;
mod dns;
mod driver;
mod events;
mod frame;
mod greeter;
mod handle;
mod hello;
mod link;
#[cfg(test)]
mod link_tests;
mod quiet;
mod shorthand;
mod start;
#[cfg(test)]
pub(crate) mod testing;
mod tls;
mod watch;

pub use acquaintance::Presence;
pub use discovery::{Discovery, StaticSeeds};
pub use dns::{DnsNames, name_and_port};
pub use driver::Order;
pub use frame::{FORMAT, FRAME_MAX, FrameError, encode, read_frame, write_frame};
pub use greeter::{GreetError, Greeted, Greeter, Identity};
pub(crate) use handle::random128;
pub use handle::{ClusterHandle, Operation, ReadRefused, Stopped};
pub use hello::{Hello, HelloRefusal, PEERS, Port};
pub use start::{PeerConfig, PeerTasks, start};
pub use tls::{KeyHash, PeerStream, PeerTls, Pem, Secured, TlsConfigError};
