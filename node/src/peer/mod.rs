//! The shell of the cluster core: authenticated links between nodes, the driver that owns the one `Member`, discovery.

mod frame;
mod greeter;
mod handle;
mod hello;
mod quiet;
#[cfg(test)]
pub(crate) mod testing;
mod tls;

pub use frame::{FORMAT, FRAME_MAX, FrameError, encode, read_frame, write_frame};
pub use greeter::{GreetError, Greeted, Greeter, Identity, Presence};
pub use handle::*;
pub use hello::{BOOTS, Boot, Hello, HelloRefusal, PROTOCOL, Port};
pub use tls::{KeyHash, PeerStream, PeerTls, Pem, Secured, TlsConfigError};
