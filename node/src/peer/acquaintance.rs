//! Who goes by which id. Tells a node that started again from a copy of its disk: whoever was known first stays, and who
//! does not go on from its boots is refused until it gets an empty data directory. Pure: time is passed in, and the file
//! with what is remembered is somebody else's to write.

use super::hello::HelloRefusal;
use super::tls::KeyHash;
use crate::cluster::NodeId;
use crate::store::{BootChain, Remembered};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// Silence after which a start of a node may be over, though nothing said so: a machine that is cut off sends no FIN.
const SILENT: Duration = Duration::from_secs(1);
/// What is heard of an older start so long after a newer one was seen proves that both live: it cannot have been on its way.
const BOTH_LIVE: Duration = Duration::from_secs(3);
/// Nodes remembered at most. Beyond, a new one is not.
const NODES: usize = 4096;
/// Boots of copies remembered of one node.
const COPIES: usize = 16;

/// All nodes that are connected, and what is remembered of all that ever were.
#[derive(Debug)]
pub(crate) struct Acquaintances {
    began: Instant,
    connected: BTreeMap<NodeId, Connected>,
    remembered: BTreeMap<NodeId, Remembered>,
    unsaved: bool,
}

/// A node with connections, and what its first Hello bound to its id.
#[derive(Debug)]
struct Connected {
    address: SocketAddr,
    key: Option<KeyHash>,
    boot: BootChain,
    connections: usize,
    /// When it was last heard, in ms since `began`; 0 when what it spoke on ended.
    heard: Arc<AtomicU64>,
    /// A newer start that came while this one was heard: its link, and when it came first.
    newer: Option<(u64, Instant)>,
}

/// What a Hello says of who speaks.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) boot: &'a BootChain,
    pub(crate) key: Option<KeyHash>,
}

/// Counts one connection of a known node.
#[derive(Debug)]
pub struct Presence {
    node: NodeId,
    began: Instant,
    heard: Arc<AtomicU64>,
    all: Arc<Mutex<Acquaintances>>,
}

impl Acquaintances {
    pub(crate) fn new(remembered: BTreeMap<NodeId, Remembered>) -> Arc<Mutex<Self>> {
        // A second back, so that no moment is 0.
        let began = Instant::now().checked_sub(SILENT).unwrap_or_else(Instant::now);
        Arc::new(Mutex::new(Self { began, connected: BTreeMap::new(), remembered, unsaved: false }))
    }
    /// RPC addresses of those that are connected.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.connected.values().map(|known| known.address)
    }
    /// What is to be written, if it changed since the last time.
    pub(crate) fn unsaved(&mut self) -> Option<BTreeMap<NodeId, Remembered>> {
        std::mem::take(&mut self.unsaved).then(|| self.remembered.clone())
    }
    /// It could not be written.
    pub(crate) fn still_unsaved(&mut self) {
        self.unsaved = true;
    }

    /// Judges a claim; counts the connection when it is welcome.
    pub(crate) fn admit(all: &Arc<Mutex<Self>>, claim: &Claim<'_>, now: Instant) -> Result<Presence, HelloRefusal> {
        let mut this = all.lock().expect("no panic while held");
        this.compare(claim, now)?;
        let (ms, began) = (this.ms(now), this.began);
        this.remember(claim.node, claim.boot);
        let connected = this.connected.entry(claim.node).or_insert_with(|| Connected::new(claim));
        if connected.boot != *claim.boot {
            // Those of the older start count as long as they last, and are heard no more.
            *connected = Connected { connections: connected.connections, ..Connected::new(claim) };
        }
        connected.address = claim.address;
        connected.connections += 1;
        connected.heard.fetch_max(ms, Ordering::Relaxed);
        Ok(Presence { node: claim.node, began, heard: connected.heard.clone(), all: all.clone() })
    }

    fn compare(&mut self, claim: &Claim<'_>, now: Instant) -> Result<(), HelloRefusal> {
        let Claim { node, boot, key, .. } = claim;
        let remembered = self.remembered.get(node);
        if remembered.is_some_and(|r| r.copies.iter().any(|link| boot.recent.contains(link)) || !boot.extends(&r.boot))
        {
            return Err(HelloRefusal::DuplicateNode);
        }
        let silent_since = self.ms(now.checked_sub(SILENT).unwrap_or(now));
        let Some(connected) = self.connected.get_mut(node) else { return Ok(()) };
        if !boot.extends(&connected.boot) {
            return Err(HelloRefusal::DuplicateNode);
        }
        if connected.key != *key {
            return Err(HelloRefusal::OtherKey);
        }
        let heard = connected.heard.load(Ordering::Relaxed);
        if **boot == connected.boot || heard <= silent_since {
            return Ok(());
        }
        let link = boot.recent.last().copied().unwrap_or_default();
        let first = match connected.newer {
            Some((newer, first)) if newer == link => first,
            _ => now,
        };
        connected.newer = Some((link, first));
        if heard <= self.ms(first + BOTH_LIVE) {
            return Err(HelloRefusal::OlderStart);
        }
        self.condemn(*node, link);
        Err(HelloRefusal::DuplicateNode)
    }
    fn remember(&mut self, node: NodeId, boot: &BootChain) {
        if self.remembered.len() >= NODES && !self.remembered.contains_key(&node) {
            return;
        }
        let newest = boot.recent.len().saturating_sub(1);
        let boot = BootChain { count: boot.count, recent: boot.recent[newest..].to_vec() };
        let remembered = self.remembered.entry(node).or_default();
        self.unsaved |= remembered.boot != boot;
        remembered.boot = boot;
    }
    fn condemn(&mut self, node: NodeId, link: u64) {
        let copies = &mut self.remembered.entry(node).or_default().copies;
        copies.push(link);
        let surplus = copies.len().saturating_sub(COPIES);
        copies.drain(..surplus);
        self.unsaved = true;
    }
    fn ms(&self, at: Instant) -> u64 {
        ms(self.began, at)
    }
}

fn ms(began: Instant, at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(began).as_millis()).unwrap_or(u64::MAX)
}

impl Connected {
    fn new(claim: &Claim<'_>) -> Self {
        let Claim { address, key, .. } = *claim;
        Self { address, key, boot: claim.boot.clone(), connections: 0, heard: Arc::default(), newer: None }
    }
}

impl Presence {
    /// Something came from it just now.
    pub(crate) fn heard(&self, now: Instant) {
        self.heard.store(ms(self.began, now), Ordering::Relaxed);
    }
    /// What it spoke on has ended.
    pub(crate) fn ended(&self) {
        self.heard.store(0, Ordering::Relaxed);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut all = self.all.lock().expect("no panic while held");
        if let Some(connected) = all.connected.get_mut(&self.node) {
            connected.connections -= 1;
            if connected.connections == 0 {
                all.connected.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::testing::boots;

    struct Case(Arc<Mutex<Acquaintances>>, Instant);

    impl Case {
        fn new() -> Self {
            Self(Acquaintances::new(BTreeMap::new()), Instant::now())
        }
        /// A Hello of node 1 that started as often as `chain` is long.
        fn hello(&self, chain: &[u64], at_ms: u64) -> Result<Presence, HelloRefusal> {
            let (boot, address) = (boots(chain), ([10, 0, 0, 1], 2123).into());
            Acquaintances::admit(&self.0, &Claim { node: NodeId(1), address, boot: &boot, key: None }, self.at(at_ms))
        }
        fn at(&self, ms: u64) -> Instant {
            self.1 + Duration::from_millis(ms)
        }
    }

    #[test]
    fn node_that_starts_again_is_welcome_once_its_old_start_ended_or_is_silent() {
        let case = Case::new();
        let first = case.hello(&[1], 0).unwrap();
        first.ended();
        let second = case.hello(&[1, 2], 1).unwrap();
        second.heard(case.at(500));
        assert_eq!(case.hello(&[1, 2, 3], 600).unwrap_err(), HelloRefusal::OlderStart);
        let _third = case.hello(&[1, 2, 3], 1501).unwrap();
        assert_eq!(case.hello(&[1, 2], 1600).unwrap_err(), HelloRefusal::DuplicateNode, "what is over is over");
    }

    #[test]
    fn copy_of_a_running_node_is_refused_for_good() {
        let case = Case::new();
        let original = case.hello(&[1], 0).unwrap();
        for at in [1000, 2000, 3000] {
            original.heard(case.at(at));
            assert_eq!(case.hello(&[1, 6], at + 100).unwrap_err(), HelloRefusal::OlderStart);
        }
        original.heard(case.at(4200));
        assert_eq!(case.hello(&[1, 6], 4300).unwrap_err(), HelloRefusal::DuplicateNode);
        // The gap while the original starts again is none for the copy, whatever it calls itself by now.
        drop(original);
        assert_eq!(case.hello(&[1, 6, 7], 5000).unwrap_err(), HelloRefusal::DuplicateNode);
        assert!(case.hello(&[1, 2], 6000).is_ok());
    }

    #[test]
    fn what_is_remembered_tells_a_copy_that_ran_while_its_original_was_down() {
        let case = Case::new();
        drop(case.hello(&[1, 2], 0).unwrap());
        drop(case.hello(&[1, 2, 6], 1000).unwrap());
        let saved = case.0.lock().unwrap().unsaved().unwrap();
        assert!(case.0.lock().unwrap().unsaved().is_none(), "once");
        let later = Case(Acquaintances::new(saved), Instant::now());
        assert_eq!(later.hello(&[1, 2, 3], 0).unwrap_err(), HelloRefusal::DuplicateNode);
        assert_eq!(later.hello(&[1], 0).unwrap_err(), HelloRefusal::DuplicateNode, "an old backup");
        assert!(later.hello(&[1, 2, 6, 7], 0).is_ok());
    }

    #[test]
    fn silence_is_no_proof_that_both_live() {
        let case = Case::new();
        let old = case.hello(&[1], 0).unwrap();
        assert_eq!(case.hello(&[1, 2], 100).unwrap_err(), HelloRefusal::OlderStart);
        // What was on its way still comes.
        old.heard(case.at(900));
        assert_eq!(case.hello(&[1, 2], 1200).unwrap_err(), HelloRefusal::OlderStart);
        assert!(case.hello(&[1, 2], 2200).is_ok());
    }
}
