//! What one member makes of what a peer says, without any other member: its view of clocks and of numbers gone wild.

use super::member::{Cx, Role};
use super::placement::Wanted;
use super::*;
use crate::path::FtpPath;
use std::sync::Arc;

/// A disk with nothing on it.
pub(super) struct Empty;

impl Storage for Empty {
    fn entry(&self, _: &FtpPath) -> Option<PathEntry> {
        None
    }
    fn next_child(&self, _: &FtpPath, _: Option<&str>) -> Option<String> {
        None
    }
    fn outcome(&self, _: OpId) -> Option<Outcome> {
        None
    }
    fn referrers(&self, _: BlobId) -> Vec<FtpPath> {
        vec![]
    }
    fn held(&self, _: Holding, _: Option<BlobId>, _: usize) -> Vec<BlobId> {
        vec![]
    }
    fn has_blob(&self, _: BlobId) -> bool {
        false
    }
    fn has_damaged(&self, _: BlobId) -> bool {
        false
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

const NOON: Micros = 1_700_000_000_000_000;

/// A member, its peer's heartbeats, and time.
struct Pair {
    member: Member,
    now: Now,
    peer: PeerInfo,
    events: Vec<Event>,
    /// All else that came out.
    outputs: Vec<Output>,
}

fn info(n: u128) -> PeerInfo {
    let (node, address) = (NodeId(n), std::net::SocketAddr::from(([10, 0, 0, 1], 2123)));
    let rank = Rank { priority: 0, address, node };
    PeerInfo { node, rank, raw: address, ftp: String::new(), name: format!("n{n}"), zone: String::new() }
}

impl Pair {
    /// The member outranks its peer, and `ahead` is how far its clock is ahead.
    fn new(ahead: Micros) -> Self {
        Self::of(9, 1, ahead)
    }
    fn of(me: u128, peer: u128, ahead: Micros) -> Self {
        let now = Now { mono: 9_000_000 * MS, wall: NOON + ahead };
        let member = Member::new(now, Config::default(), info(me), Restored::default(), &Empty, 1);
        let mut pair = Self { member, now, peer: info(peer), events: vec![], outputs: vec![] };
        pair.handle(Input::Disk(DiskReport { used: 0, free: 1 << 40, healthy: true }));
        pair.handle(Input::LinkUp(pair.peer.clone()));
        pair
    }
    fn handle(&mut self, input: Input) {
        self.member.handle(self.now, input, &Empty);
        self.member.settle(self.now, &Empty);
        if let Some(batch) = self.member.take_batch() {
            self.member.handle(self.now, Input::Persisted { batch: batch.number }, &Empty);
        }
        for output in self.member.take_outputs() {
            match output {
                Output::Event(event) => self.events.push(event),
                other => self.outputs.push(other),
            }
        }
    }
    fn hear(&mut self, message: Message) {
        self.handle(Input::Received { from: self.peer.node, message });
    }
    /// What the peer, whose clock is right, says of itself.
    fn said(&self) -> Info {
        Info {
            role: RoleName::Follow,
            promised: Epoch::default(),
            leader: None,
            held: false,
            pace: 0,
            marks: Marks::default(),
            beyond_log: false,
            committed: 0,
            disk: DiskReport { used: 0, free: 1 << 40, healthy: true },
            wall: NOON + (self.now.mono - 9_000_000 * MS),
            clock_ahead: 0,
            leaving: false,
            protocol: PROTOCOL,
        }
    }
    /// Time passes, in ticks, with a heartbeat every quarter of a second.
    fn pass(&mut self, ms: u64) {
        for step in 0..ms / 50 {
            self.now = Now { mono: self.now.mono + 50 * MS, wall: self.now.wall + 50 * MS };
            if step % 5 == 0 {
                let (sent, info) = (self.now.mono + 77_000 * MS, Box::new(self.said()));
                self.hear(Message::Heartbeat { sent, echo: self.now.mono, info });
            }
            self.handle(Input::Tick);
        }
    }
    fn took_over(&self) -> bool {
        self.events.iter().any(|event| matches!(event, Event::TookOver { .. }))
    }
    fn clock_ahead(&self) -> Micros {
        let status = self.member.status(self.now, &Empty);
        status.members.iter().find(|m| m.info.node == status.node).unwrap().clock_ahead
    }
}

#[test]
fn clock_within_bounds_leads() {
    let mut pair = Pair::new(499 * MS);
    pair.pass(4000);
    assert!(pair.took_over() && pair.clock_ahead() == 0);
}

#[test]
fn clock_ahead_bars_from_leading_until_it_is_set_right() {
    let mut pair = Pair::new(86_400_000 * MS);
    pair.pass(4000);
    assert!(!pair.took_over());
    assert_eq!(pair.clock_ahead(), 86_400_000 * MS);
    let barred = Event::ClockAhead { by: 86_400_000 * MS };
    assert_eq!(pair.events.iter().filter(|event| **event == barred).count(), 1, "said once");

    pair.now.wall = NOON + (pair.now.mono - 9_000_000 * MS) + 300 * MS;
    pair.pass(500);
    assert_eq!(pair.clock_ahead(), 300 * MS, "no coming and going around the bound");
    pair.now.wall -= 100 * MS;
    pair.pass(4000);
    assert!(pair.took_over() && pair.clock_ahead() == 0);
    assert!(pair.events.contains(&Event::ClockAhead { by: 0 }));
}

#[test]
fn leader_whose_clock_jumps_ahead_steps_down() {
    let mut pair = Pair::new(0);
    pair.pass(2000);
    assert!(pair.took_over());
    pair.now.wall += 2000 * MS;
    pair.pass(500);
    assert_eq!(pair.clock_ahead(), 2000 * MS);
    let status = pair.member.status(pair.now, &Empty);
    assert_eq!((status.role, status.leader), (RoleName::Follow, None));
}

#[test]
fn leader_that_stood_still_listens_before_it_leads_again() {
    let mut pair = Pair::new(0);
    pair.pass(2000);
    assert!(pair.took_over());
    pair.events.clear();
    pair.now = Now { mono: pair.now.mono + 5000 * MS, wall: pair.now.wall + 5000 * MS };
    pair.handle(Input::Tick);
    let status = pair.member.status(pair.now, &Empty);
    assert_eq!((status.role, status.leader), (RoleName::Follow, None));
    pair.pass(900);
    assert!(!pair.took_over(), "its peer was silent only for who did not listen");
    pair.pass(2000);
    assert!(pair.took_over());
}

#[test]
fn epoch_counter_gone_wild_is_dropped_and_said_once() {
    let mut pair = Pair::new(0);
    pair.pass(50);
    let wild = Epoch(u64::MAX, 7);
    for _ in 0..3 {
        let info = Info { promised: wild, ..pair.said() };
        pair.hear(Message::Heartbeat { sent: 1, echo: pair.now.mono, info: Box::new(info) });
        pair.hear(Message::Collect { epoch: wild, marks: Marks::default() });
        pair.hear(Message::Refuse { epoch: Epoch::default(), promised: wild, held: false });
        pair.hear(Message::Append { epoch: wild, records: vec![], committed: 1, more: true });
        pair.hear(Message::Pull { marks: Marks::of(wild, u64::MAX), collecting: Some(wild) });
    }
    let said = Event::Implausible { from: NodeId(1), counter: u64::MAX };
    assert_eq!(pair.events.iter().filter(|event| **event == said).count(), 1);
    pair.pass(4000);
    assert!(pair.took_over());
    assert!(pair.member.status(pair.now, &Empty).epoch.0 < 10, "{}", pair.member.status(pair.now, &Empty).epoch);
}

#[test]
fn who_is_gone_stays_as_far_behind_as_it_was() {
    let mut pair = Pair::new(0);
    let behind = |pair: &Pair| {
        let status = pair.member.status(pair.now, &Empty);
        status.members.iter().find(|m| m.info.node == NodeId(1)).unwrap().behind
    };
    pair.pass(2000);
    assert!(pair.took_over());
    pair.handle(Input::PortRefused(NodeId(1)));
    assert_eq!(behind(&pair), 0, "it never said that it had anything");
    // The record of a leader before this one, and not yet those of this one.
    let info = Info { marks: Marks::of(Epoch(1, 1), 1), ..pair.said() };
    pair.hear(Message::Heartbeat { sent: pair.now.mono + 77_001 * MS, echo: pair.now.mono, info: Box::new(info) });
    let alive = behind(&pair);
    assert!(alive > 0);
    pair.handle(Input::PortRefused(NodeId(1)));
    assert_eq!(behind(&pair), alive);
}

#[test]
fn turns_of_an_empty_node_go_on_while_repair_alone_places_copies() {
    let mut pair = Pair::new(0);
    pair.handle(Input::Disk(DiskReport { used: 100 << 30, free: 1 << 40, healthy: true }));
    pair.pass(2000);
    let Role::Lead(lead) = &mut pair.member.role else { panic!("it does not lead") };
    // All that matters here of having joined.
    lead.members = vec![pair.member.me.node, pair.peer.node];
    let cx = Cx { now: pair.now, storage: &Empty };
    let copy = Wanted { count: 1, ..Wanted::default() };
    let got: Vec<NodeId> = (0..8).flat_map(|_| pair.member.place(cx, copy, &[], &[])).collect();
    // Its share of one copy on two nodes is half; half way from there to all is three of four.
    assert_eq!(got.iter().filter(|node| **node == pair.peer.node).count(), 6, "{got:?}");
    assert_eq!(got.len(), 8);
}

#[test]
fn lower_epochs_change_nothing() {
    let mut pair = Pair::new(0);
    pair.pass(4000);
    let before = pair.member.status(pair.now, &Empty);
    let low = Epoch(0, 7);
    pair.hear(Message::Collect { epoch: low, marks: Marks::default() });
    pair.hear(Message::Coordinator { epoch: low, members: vec![NodeId(1)] });
    pair.hear(Message::Append { epoch: low, records: vec![], committed: 9, more: false });
    pair.hear(Message::Ack { epoch: low, received: 9, durable: 9, took: false });
    pair.hear(Message::Release { epoch: low });
    let after = pair.member.status(pair.now, &Empty);
    assert_eq!((after.epoch, after.leader, after.role), (before.epoch, before.leader, before.role));
}

#[test]
fn marks_and_clocks_at_the_end_of_their_range_do_no_harm() {
    let mut pair = Pair::new(0);
    pair.pass(2000);
    for _ in 0..3 {
        let marks = Marks::from(vec![(Epoch(1, 1), u64::MAX), (Epoch(2, 2), u64::MAX)]);
        let info = Info { marks, wall: u64::MAX, committed: u64::MAX, ..pair.said() };
        pair.hear(Message::Heartbeat { sent: u64::MAX, echo: u64::MAX, info: Box::new(info) });
        pair.handle(Input::Tick);
    }
    assert_eq!(pair.clock_ahead(), 0);
}

/// The member follows its peer, which speaks some version, and has an operation for it that version 6 knew first.
#[cfg(feature = "next-protocol")]
mod of_another_version {
    use super::*;

    const OP: OpId = OpId(7);

    impl Pair {
        fn follower() -> Self {
            let mut pair = Self::of(1, 9, 0);
            pair.pass(1500); // beyond the lease that an earlier start may have given
            pair
        }
        fn follow(&mut self, epoch: u64, protocol: u32) {
            let info = Box::new(Info { protocol, ..self.said() });
            let sent = self.now.mono + 77_001 * MS + epoch;
            self.hear(Message::Heartbeat { sent, echo: self.now.mono, info });
            let epoch = Epoch(epoch, 1);
            self.hear(Message::Collect { epoch, marks: Marks::default() });
            self.hear(Message::Coordinator { epoch, members: vec![NodeId(1), NodeId(9)] });
        }
        fn submit(&mut self) {
            let change = Change::SetMode { path: FtpPath::root().join("f").unwrap(), mode: 0o640 };
            self.handle(Input::Submit { op: OP, change, patience: 10_000 * MS });
        }
        fn granted(&mut self, epoch: u64) {
            let token = Token { epoch: Epoch(epoch, 1), n: 1 };
            self.hear(Message::Granted { op: OP, token, replicas: vec![], hlc: Hlc(1) });
        }
        fn asked(&self) -> Vec<&'static str> {
            let asked = |output: &Output| match output {
                Output::Send { message: Message::LockRequest { .. }, .. } => Some("lock"),
                Output::Send { message: Message::Commit { .. }, .. } => Some("commit"),
                _ => None,
            };
            self.outputs.iter().filter_map(asked).collect()
        }
        fn refused(&self) -> Option<Refusal> {
            self.outputs.iter().find_map(|output| match output {
                Output::Front { event: FrontEvent::Refused(refusal), .. } => Some(*refusal),
                _ => None,
            })
        }
        fn locks_promised(&self) -> usize {
            let promised = self.outputs.iter().rev().find_map(|output| match output {
                Output::Send { message: Message::Promise { locks, .. }, .. } => Some(locks.len()),
                _ => None,
            });
            promised.unwrap()
        }
    }

    #[test]
    fn a_leader_that_knows_it_is_asked() {
        let mut pair = Pair::follower();
        pair.follow(5, PROTOCOL);
        pair.submit();
        pair.granted(5);
        assert_eq!((pair.asked(), pair.refused()), (vec!["lock", "commit"], None));
        pair.follow(6, PROTOCOL);
        assert_eq!(pair.locks_promised(), 1);
        assert_eq!((pair.asked(), pair.refused()), (vec!["lock", "commit", "commit"], None));
    }

    #[test]
    fn one_that_does_not_is_not_asked() {
        let mut pair = Pair::follower();
        pair.follow(5, OLDEST);
        pair.submit();
        assert_eq!((pair.asked(), pair.refused()), (vec![], Some(Refusal::NotYet)));
    }

    #[test]
    fn what_an_earlier_leader_may_have_done_is_not_called_refused() {
        let mut pair = Pair::follower();
        pair.follow(5, PROTOCOL);
        pair.submit();
        pair.granted(5);
        pair.follow(6, OLDEST);
        assert_eq!(pair.locks_promised(), 0);
        assert_eq!((pair.asked(), pair.refused()), (vec!["lock", "commit"], Some(Refusal::Unknown)));
    }
}
