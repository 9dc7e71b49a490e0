//! The driver: owns the one `Member`, and carries out what it wants. Takes everything that is queued, hands it over, then
//! gives one batch to the store and only then performs outputs (group commit). It never waits for disk or sockets.

use super::greeter::Greeter;
use super::handle::{Command, Peers, Submission};
use super::link::{LinkEvent, Outgoing};
use super::watch::DiskWatch;
use crate::clock::Clock;
use crate::cluster::{
    BlobId, DiskReport, Event, Extent, FrontEvent, Input, Member, NodeId, OpId, Output, PeerInfo, Shows,
};
use crate::meter::Meter;
use crate::store::Store;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Between two ticks of the member.
const TICK: Duration = Duration::from_millis(25);
/// Between two looks at the disk, and at what sessions have moved.
const LOOK: Duration = Duration::from_secs(1);
/// Inputs handled before a batch is written.
const ROUND: usize = 1024;

/// What the driver listens to.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) links: mpsc::Receiver<LinkEvent>,
    pub(crate) persisted: mpsc::Receiver<u64>,
    pub(crate) stop: CancellationToken,
}

/// One thing to do.
#[derive(Debug)]
enum Work {
    Command(Command),
    Link(LinkEvent),
    Persisted(u64),
    Tick,
    Background(Background),
}

/// What a blocking task did.
#[derive(Debug)]
enum Background {
    Report(DiskReport),
    Dropped(Vec<BlobId>),
}

/// An operation whose session is told how it goes on.
#[derive(Debug)]
struct Front {
    events: mpsc::Sender<FrontEvent>,
    moved: Arc<AtomicU64>,
    told: u64,
}

/// The owner of the member.
#[derive(Debug)]
pub(crate) struct Driver {
    clock: Clock,
    store: Arc<Store>,
    member: Member,
    peers: Peers,
    greeter: Arc<Greeter>,
    links: BTreeMap<NodeId, Outgoing>,
    fronts: BTreeMap<OpId, Front>,
    reads: BTreeMap<u64, oneshot::Sender<Shows>>,
    read_ids: u64,
    status: Vec<oneshot::Sender<crate::cluster::Status>>,
    disk: DiskWatch,
    to_drop: Vec<BlobId>,
    dropping: bool,
    orders: mpsc::Sender<Order>,
    reporting: bool,
    looked: Instant,
    background: JoinSet<Background>,
    meter: Meter,
}

/// Blobs that the member wants on this disk.
#[derive(Debug)]
pub enum Order {
    /// Copies; whoever makes them says [`ClusterHandle::fetched`](super::ClusterHandle::fetched).
    Fetch {
        /// Its number.
        id: u64,
        /// Whole blobs.
        extents: Vec<Extent>,
        /// Where they may be had.
        sources: Vec<NodeId>,
    },
    /// One of several that are here; whoever makes it says [`ClusterHandle::merged`](super::ClusterHandle::merged).
    Merge {
        /// Its name.
        blob: BlobId,
        /// Its bytes, in order.
        run: Vec<Extent>,
    },
}

/// A panic in the driver leaves a node that others take for alive: end the process instead.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the cluster driver panicked: the process ends");
            std::process::abort();
        }
    }
}

impl Driver {
    pub(crate) fn new(
        clock: Clock,
        store: Arc<Store>,
        member: Member,
        peers: Peers,
        greeter: Arc<Greeter>,
        orders: mpsc::Sender<Order>,
        meter: Meter,
    ) -> Self {
        Self {
            clock,
            store,
            member,
            peers,
            greeter,
            links: BTreeMap::new(),
            fronts: BTreeMap::new(),
            reads: BTreeMap::new(),
            read_ids: 0,
            status: Vec::new(),
            disk: DiskWatch::default(),
            to_drop: Vec::new(),
            dropping: false,
            orders,
            reporting: false,
            looked: Instant::now(),
            background: JoinSet::new(),
            meter,
        }
    }

    /// Runs until it is stopped. What is not written then counts as not done, as after a crash.
    pub(crate) async fn run(mut self, mut sources: Sources) {
        let _guard = AbortOnPanic;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.report();
        loop {
            let first = tokio::select! {
                () = sources.stop.cancelled() => break,
                Some(batch) = sources.persisted.recv() => Work::Persisted(batch),
                Some(event) = sources.links.recv() => Work::Link(event),
                Some(command) = sources.commands.recv() => Work::Command(command),
                Some(done) = self.background.join_next() =>
                    Work::Background(done.expect("blocking tasks of the driver do not panic")),
                _ = ticks.tick() => Work::Tick,
            };
            self.take(first);
            for _ in 0..ROUND {
                let Some(work) = sources.next() else { break };
                self.take(work);
            }
            self.round();
        }
        // Links end with their senders; sessions see that nobody answers.
        while self.background.join_next().await.is_some() {}
    }

    /// Hands one thing over to the member.
    fn take(&mut self, work: Work) {
        match work {
            Work::Tick => self.tick(),
            Work::Persisted(batch) => {
                self.disk.persisted(batch, self.clock.mono());
                self.handle(Input::Persisted { batch });
            }
            Work::Background(Background::Report(report)) => {
                self.reporting = false;
                let report = self.disk.reported(report, self.clock.mono());
                self.handle(Input::Disk(report));
            }
            Work::Background(Background::Dropped(blobs)) => {
                self.dropping = false;
                self.handle(Input::BlobsDropped(blobs));
            }
            Work::Link(event) => self.take_link(event),
            Work::Command(Command::Input(input)) => {
                if let Input::Cancel { op } = &input {
                    self.fronts.remove(op);
                }
                self.handle(input);
            }
            Work::Command(Command::Submit(submission)) => self.submit(submission),
            Work::Command(Command::Read(answer)) => {
                self.read_ids += 1;
                self.reads.insert(self.read_ids, answer);
                self.handle(Input::Read { id: self.read_ids });
            }
            // Answered at the end of the round, so that one count serves all.
            Work::Command(Command::Status(answer)) => self.status.push(answer),
        }
    }
    fn take_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up(info, outgoing) => {
                self.meet(&info);
                self.links.insert(info.node, outgoing);
                self.handle(Input::LinkUp(info));
            }
            LinkEvent::Down(node) => {
                self.links.remove(&node);
                self.handle(Input::LinkDown(node));
            }
            LinkEvent::PortRefused(node) => self.handle(Input::PortRefused(node)),
            LinkEvent::Heard(info) => self.meet(&info),
            LinkEvent::Received(from, message) => self.handle(Input::Received { from, message }),
        }
    }
    fn submit(&mut self, submission: Submission) {
        let input = submission.input();
        let Submission { op, events, moved, .. } = submission;
        self.fronts.insert(op, Front { events, moved, told: 0 });
        self.handle(input);
    }
    fn meet(&self, info: &PeerInfo) {
        self.peers.write().expect("no panic while held").insert(info.node, info.clone());
    }
    fn tick(&mut self) {
        self.handle(Input::Tick);
        self.cancel_abandoned();
        if let Some(report) = self.disk.news(self.clock.mono()) {
            tracing::error!("the disk has not finished a write for two seconds");
            self.handle(Input::Disk(report));
        }
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            self.report();
            self.tell_progress();
        }
    }
    /// Sessions that ended without a word, because the queue was full when they tried.
    fn cancel_abandoned(&mut self) {
        let abandoned: Vec<OpId> =
            self.fronts.iter().filter(|(_, f)| f.events.is_closed()).map(|(op, _)| *op).collect();
        for op in abandoned {
            self.fronts.remove(&op);
            self.handle(Input::Cancel { op });
        }
    }
    fn tell_progress(&mut self) {
        let mut moved = Vec::new();
        for (op, front) in &mut self.fronts {
            let bytes = front.moved.load(Ordering::Relaxed);
            if bytes > front.told {
                front.told = bytes;
                moved.push((*op, bytes));
            }
        }
        for (op, bytes) in moved {
            self.handle(Input::Progress { op, bytes });
        }
    }
    fn handle(&mut self, input: Input) {
        self.member.handle(self.clock.now(), input, &*self.store);
    }

    /// Ends a round: the batch goes to the store before anything that may depend on it is done.
    fn round(&mut self) {
        self.member.settle(self.clock.now(), &*self.store);
        if let Some(batch) = self.member.take_batch() {
            self.disk.submitted(batch.number, self.clock.mono());
            self.store.submit(batch);
        }
        for output in self.member.take_outputs() {
            self.perform(output);
        }
        self.drop_blobs();
        if !self.status.is_empty() {
            let status = self.member.status(self.clock.now(), &*self.store);
            for answer in self.status.drain(..) {
                // Who asked may have gone.
                let _ = answer.send(status.clone());
            }
        }
    }
    fn perform(&mut self, output: Output) {
        match output {
            Output::Send { to, message } => {
                if let Some(link) = self.links.get(&to) {
                    link.send(message);
                }
            }
            Output::Front { op, event } => self.tell(op, event),
            Output::ReadReady { id, shows } => {
                if let Some(answer) = self.reads.remove(&id) {
                    let _ = answer.send(shows);
                }
            }
            Output::DropBlobs(blobs) => self.to_drop.extend(blobs),
            Output::Fetch { id, extents, sources } => {
                if self.orders.try_send(Order::Fetch { id, extents, sources }).is_err() {
                    self.handle(Input::Fetched { id, good: false });
                }
            }
            Output::Merge { blob, run } => {
                if self.orders.try_send(Order::Merge { blob, run }).is_err() {
                    self.handle(Input::Merged { blob, hash: None });
                }
            }
            Output::Event(event) => {
                if let Event::Forgot { node } = event {
                    self.greeter.refuse(node);
                    self.links.remove(&node);
                }
                self.meter.heard(&event);
                super::events::log(&event);
            }
        }
    }
    fn tell(&mut self, op: OpId, event: FrontEvent) {
        let last = matches!(event, FrontEvent::Done(_) | FrontEvent::Refused(_));
        let Some(front) = self.fronts.get(&op) else { return };
        // A session that takes no events any more is as good as gone; the next tick cancels its operation.
        let taken = front.events.try_send(event).is_ok();
        if last {
            self.fronts.remove(&op);
        } else if !taken {
            self.fronts.remove(&op);
            self.handle(Input::Cancel { op });
        }
    }

    /// Asks the store how it is, one question at a time: a disk that hangs must not gather tasks.
    fn report(&mut self) {
        if !self.reporting {
            self.reporting = true;
            let store = self.store.clone();
            self.background.spawn_blocking(move || Background::Report(store.report()));
        }
    }
    /// Has blobs deleted, one list at a time.
    fn drop_blobs(&mut self) {
        if self.dropping || self.to_drop.is_empty() {
            return;
        }
        self.dropping = true;
        let (store, blobs) = (self.store.clone(), std::mem::take(&mut self.to_drop));
        self.background.spawn_blocking(move || {
            if let Err(error) = store.drop_blobs(&blobs) {
                // They are found again, unreferenced, at the next start.
                tracing::warn!(%error, count = blobs.len(), "cannot delete blobs");
            }
            Background::Dropped(blobs)
        });
    }
}

impl Sources {
    /// Something that is there already, news of the disk first: it lets answers go.
    fn next(&mut self) -> Option<Work> {
        if let Ok(batch) = self.persisted.try_recv() {
            return Some(Work::Persisted(batch));
        }
        if let Ok(event) = self.links.try_recv() {
            return Some(Work::Link(event));
        }
        self.commands.try_recv().ok().map(Work::Command)
    }
}
