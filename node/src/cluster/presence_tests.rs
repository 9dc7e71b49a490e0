//! What a member makes of a copy on its disk that turned out to be bad: fetched anew, not vouched for, not kept for ever.

use super::*;
use crate::path::FtpPath;
use std::cell::Cell;
use std::sync::Arc;

/// The member under test.
const ME: NodeId = NodeId(9);

/// What is on the disk of the one blob there is.
#[derive(Clone, Copy, PartialEq)]
enum Bytes {
    Good,
    Bad,
    Gone,
}

/// An index of one file with one blob.
struct Shelf {
    bytes: Cell<Bytes>,
    nodes: Vec<NodeId>,
}

fn blob() -> BlobId {
    BlobId { op: OpId(1), ..BlobId::default() }
}
fn extent() -> Extent {
    Extent { blob: blob(), offset: 0, length: 3, hash: Hash([1; 32]) }
}
fn version() -> VersionId {
    VersionId { path: FtpPath::try_from("/f".to_owned()).unwrap(), position: Position::default() }
}

impl Storage for Shelf {
    fn entry(&self, path: &FtpPath) -> Option<PathEntry> {
        let file = File { extents: vec![extent()], size: 3, hash: None, modified: 0, ..File::default() };
        let location = Location { nodes: self.nodes.clone(), ..Location::default() };
        let (position, what) = (version().position, Version::File(file));
        let head = Head { position, hlc: Hlc(1), op: OpId(1), confirmed: true, what, location };
        (*path == version().path).then(|| PathEntry { heads: vec![head] })
    }
    fn next_child(&self, _: &FtpPath, _: Option<&str>) -> Option<String> {
        None
    }
    fn outcome(&self, _: OpId) -> Option<Outcome> {
        None
    }
    fn referrers(&self, of: BlobId) -> Vec<FtpPath> {
        if of == blob() { vec![version().path] } else { vec![] }
    }
    fn held(&self, _: Holding, _: Option<BlobId>, _: usize) -> Vec<BlobId> {
        vec![]
    }
    fn has_blob(&self, _: BlobId) -> bool {
        self.bytes.get() == Bytes::Good
    }
    fn has_damaged(&self, _: BlobId) -> bool {
        self.bytes.get() == Bytes::Bad
    }
    fn records_beyond(&self, _: &Marks, _: usize) -> Vec<Arc<Record>> {
        vec![]
    }
    fn oldest(&self, _: usize) -> Vec<Arc<Record>> {
        vec![]
    }
    fn entries(&self, _: &PathRange, _: usize) -> Vec<(FtpPath, PathEntry)> {
        vec![]
    }
    fn outcomes(&self, _: Option<OpId>, _: usize) -> Vec<(OpId, Outcome)> {
        vec![]
    }
    fn aging(&self, _: AgingKind, _: Option<&Aging>, _: usize) -> Vec<Aging> {
        vec![]
    }
}

/// A member with its disk, linked to nodes 1, 2 and 3.
struct Keeper {
    member: Member,
    shelf: Shelf,
    now: Now,
}

impl Keeper {
    fn new(nodes: [u128; 3]) -> Self {
        let info = |node: NodeId| {
            let address = std::net::SocketAddr::from(([10, 0, 0, 1], 2123));
            let rank = Rank { priority: 0, address, node };
            PeerInfo { node, rank, raw: address, ftp: String::new(), name: String::new(), zone: String::new() }
        };
        let now = Now { mono: 9_000_000 * MS, wall: 1_700_000_000_000_000 };
        let shelf = Shelf { bytes: Cell::new(Bytes::Good), nodes: nodes.map(NodeId).to_vec() };
        let member = Member::new(now, Config::default(), info(ME), Restored::default(), &shelf, 1);
        let mut keeper = Self { member, shelf, now };
        for peer in [1, 2, 3].map(NodeId) {
            keeper.hear(Input::LinkUp(info(peer)));
        }
        keeper.pass(1000);
        keeper
    }
    /// What comes of an input, once it is on the disk.
    fn hear(&mut self, input: Input) -> Vec<Output> {
        self.member.handle(self.now, input, &self.shelf);
        self.member.settle(self.now, &self.shelf);
        if let Some(batch) = self.member.take_batch() {
            self.member.handle(self.now, Input::Persisted { batch: batch.number }, &self.shelf);
        }
        self.member.take_outputs()
    }
    fn pass(&mut self, ms: u64) -> Vec<Output> {
        let mut out = vec![];
        for _ in 0..ms / 50 {
            self.now = Now { mono: self.now.mono + 50 * MS, wall: self.now.wall + 50 * MS };
            out.extend(self.hear(Input::Tick));
        }
        out
    }
    /// The copy turns out to be so.
    fn found(&mut self, bytes: Bytes) -> Vec<Output> {
        self.shelf.bytes.set(bytes);
        let mut out = self.hear(Input::Damaged(blob()));
        out.extend(self.pass(500));
        out
    }
    /// Whether it says to a peer that it has its copy.
    fn vouches(&mut self) -> bool {
        let asked = Possession { blob: blob(), what: version(), register: Stamp::default(), asked: 7 };
        let asked = Input::Received { from: NodeId(1), message: Message::Have(asked) };
        self.hear(asked).iter().any(|o| matches!(o, Output::Send { message: Message::HaveIt(_), .. }))
    }
}

fn fetch(out: &[Output]) -> Option<u64> {
    let fetch = |o: &Output| match o {
        Output::Fetch { id, extents, sources } => {
            assert_eq!((&extents[..], sources.contains(&ME)), (&[extent()][..], false));
            Some(*id)
        }
        _ => None,
    };
    out.iter().find_map(fetch)
}
fn drops(out: &[Output]) -> bool {
    out.iter().any(|o| matches!(o, Output::DropBlobs(_)))
}

#[test]
fn a_bad_copy_is_fetched_anew_and_not_vouched_for_meanwhile() {
    for bytes in [Bytes::Bad, Bytes::Gone] {
        let mut keeper = Keeper::new([1, 2, 9]);
        assert!(keeper.vouches());
        let out = keeper.found(bytes);
        let id = fetch(&out).expect("a good copy is fetched");
        assert!(!drops(&out) && !keeper.vouches());
        // A fetch that fails is tried again; meanwhile the leader hears that a copy it wants here is not there yet.
        keeper.hear(Input::Fetched { id, good: false });
        assert!(!keeper.vouches());
        let id = fetch(&keeper.pass(4000)).expect("it is fetched again");
        let wanted = Message::Fetch { what: version(), extents: vec![extent()], sources: vec![NodeId(1)] };
        let out = keeper.hear(Input::Received { from: NodeId(2), message: wanted });
        let said = |o: &Output| match o {
            Output::Send { message: Message::Fetched { copy, .. }, .. } => Some(*copy),
            _ => None,
        };
        assert_eq!(out.iter().filter_map(said).collect::<Vec<_>>(), [CopyState::UnderWay]);
        keeper.shelf.bytes.set(Bytes::Good);
        keeper.hear(Input::Fetched { id, good: true });
        assert!(keeper.vouches());
        assert_eq!(fetch(&keeper.pass(4000)), None);
    }
}

#[test]
fn a_bad_copy_that_should_not_be_here_goes_when_the_others_have_theirs() {
    let mut keeper = Keeper::new([1, 2, 3]);
    let out = keeper.found(Bytes::Bad);
    assert_eq!(fetch(&out), None);
    let ask = |o: &Output| match o {
        Output::Send { to, message: Message::Have(asked) } => Some((*to, asked.clone())),
        _ => None,
    };
    let asked: Vec<(NodeId, Possession)> = out.iter().filter_map(ask).collect();
    assert_eq!(asked.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [1, 2, 3].map(NodeId));
    for (n, (from, said)) in asked.into_iter().enumerate() {
        let mut out = keeper.hear(Input::Received { from, message: Message::HaveIt(said) });
        out.extend(keeper.pass(500));
        assert_eq!(drops(&out), n == 2, "after the word of {from:?}");
    }
}
