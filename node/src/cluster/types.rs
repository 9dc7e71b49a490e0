//! The words of the protocol: identities, epochs, positions, stamps, tokens. Values only, no behaviour that depends on state.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::SocketAddr;

/// Microseconds on some clock: monotonic for [`Now::mono`], since the Unix epoch for [`Now::wall`].
pub type Micros = u64;

/// One millisecond in [`Micros`].
pub const MS: Micros = 1000;

/// Both clocks at one instant. The core never reads a clock; it is handed this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic: leases and timeouts. Starts at least one hour after zero, so that "long ago" can be written.
    pub mono: Micros,
    /// Wall clock, possibly wrong: only ever an input to [`Hlc`].
    pub wall: Micros,
}

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:08x}", self.0 >> 96)
            }
        }
        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                u128::from_str_radix(text, 16).map(Self)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id128! {
    /// A node for as long as its data directory lives: 128 random bits made at its first start.
    NodeId
}
id128! {
    /// One operation of one client, however often it is tried. Made by the front that received it.
    OpId
}

id128! {
    /// What an index, or a range of it, comes to: see `digest.rs`.
    Digest
}

/// One leader's reign. A greater counter is later; the nonce tells rivals apart. Persisted before it is used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch(
    /// Counter.
    pub u64,
    /// Random nonce of the takeover.
    pub u64,
);

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:04x}", self.0, self.1 & 0xffff)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.0, self.1)
    }
}

/// The place of one record in the log: the `seq`-th of its epoch, from 0, without holes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position {
    /// The reign it was logged in.
    pub epoch: Epoch,
    /// Its number there.
    pub seq: u64,
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.epoch, self.seq)
    }
}

/// A hybrid logical clock reading (Kulkarni et al., 2014), in microseconds since the Unix epoch: the greater of the wall
/// clock and one more than every reading seen so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hlc(pub u64);

/// What orders versions of a path: the later clock wins, ties go to the later position (last writer wins).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// The clock of the leader that logged it.
    pub hlc: Hlc,
    /// Where it was logged.
    pub position: Position,
}

/// A fencing token (Kleppmann, 2016): the `n`-th lock granted in `epoch`. Tokens only grow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Token {
    /// The reign that granted it.
    pub epoch: Epoch,
    /// Its number there.
    pub n: u64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}#{}", self.epoch, self.n)
    }
}

/// The name of a blob: the attempt that staged it. Never the operation alone, for a second attempt may meet what is left
/// of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct BlobId {
    /// Whose bytes.
    pub op: OpId,
    /// The token under which the attempt began. It keeps this name when a new leader reissues the lock.
    pub token: Token,
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}-{:x}-{:x}", self.op, self.token.epoch.0, self.token.epoch.1, self.token.n)
    }
}

impl std::str::FromStr for BlobId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(4, '-');
        let mut next = || parts.next().unwrap_or("");
        let op = next().parse()?;
        let mut number = || u64::from_str_radix(next(), 16);
        let epoch = Epoch(number()?, number()?);
        Ok(Self { op, token: Token { epoch, n: number()? } })
    }
}

/// A BLAKE3 hash; 64 hex digits in JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}
impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}{:02x}{:02x}", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}
impl From<blake3::Hash> for Hash {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}
impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        blake3::Hash::from_hex(text.as_bytes()).map(Self::from).map_err(serde::de::Error::custom)
    }
}

/// Who wins an election: compared field by field, the greatest leads. The address decides where nobody sets a priority;
/// deployments whose addresses change set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rank {
    /// Set by the operator; 0 by default.
    pub priority: i64,
    /// The address that peers reach this node's RPC port at.
    pub address: SocketAddr,
    /// Breaks ties.
    pub node: NodeId,
}

/// What a node says of itself in its Hello: fixed for the life of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its identity.
    pub node: NodeId,
    /// Its rank, with its RPC address.
    pub rank: Rank,
    /// Where its raw port is.
    pub raw: SocketAddr,
    /// Where clients reach it, as it was told to advertise; for people.
    pub ftp: String,
    /// A readable name, for people.
    pub name: String,
    /// Its failure domain, usually its host.
    pub zone: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blob_names_round_trip() {
        let blob = BlobId { op: OpId(7), token: Token { epoch: Epoch(3, u64::MAX), n: 12 } };
        assert_eq!(blob.to_string().parse(), Ok(blob));
        assert!("nonsense".parse::<BlobId>().is_err());
    }

    #[test]
    fn rank_puts_priority_before_address() {
        let rank =
            |priority, address: &str, node| Rank { priority, address: address.parse().unwrap(), node: NodeId(node) };
        assert!(rank(1, "10.0.0.1:2123", 0) > rank(0, "10.0.0.9:2123", 9));
        assert!(rank(0, "10.0.0.9:2123", 0) > rank(0, "10.0.0.1:2123", 9));
    }
}
