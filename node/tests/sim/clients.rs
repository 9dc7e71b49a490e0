//! Clients and the sessions that serve them: operations and reads submitted at a node, kept to that node until they end.
//! A client whose node died does not know what became of its operation; it may do the same again, as a new one.

use crate::sim::check::Broken;
use crate::sim::plan::LEAST_OPS;
use crate::sim::uploads::{self, Upload};
use crate::sim::world::{SECOND, Step, Time, World};
use node::cluster::{BlobId, Change, FrontEvent, Input, MS, OpId, Refusal, Shows};
use node::path::FtpPath;

/// Everything that clients touch; a name in `d` is meant for a directory.
const PATHS: [&str; 10] = ["/f0", "/d0", "/d0/f0", "/f1", "/d0/f1", "/d1", "/d1/f0", "/d1/d2", "/d1/d2/f0", "/f2"];

/// Where directories are moved from and to.
const DIRECTORIES: [&str; 4] = ["/d0", "/d1", "/d2", "/d1/d2"];

/// What a client wants again after its node died.
#[derive(Debug, Default)]
pub(crate) struct Client {
    again: Option<Change>,
}

/// One operation at its front.
#[derive(Debug)]
pub(crate) struct Session {
    /// None for a probe.
    client: Option<usize>,
    pub(crate) at: usize,
    pub(crate) change: Change,
    pub(crate) upload: Option<Upload>,
}

/// One read at its front.
#[derive(Debug)]
pub(crate) struct Reading {
    client: usize,
    at: usize,
    path: FtpPath,
    /// A listing of it instead of a lookup.
    list: bool,
    began: Time,
}

pub(crate) fn path(text: &str) -> FtpPath {
    FtpPath::root().resolve(text).expect("paths of this file are canonical")
}

impl World {
    /// One client's next operation.
    pub(crate) fn client(&mut self, client: usize) -> Result<(), Broken> {
        if self.calm {
            return Ok(());
        }
        let up: Vec<usize> = (0..self.processes.len()).filter(|n| self.processes[*n].member.is_some()).collect();
        if up.is_empty() {
            self.plan(200 * MS, Step::Client(client));
            return Ok(());
        }
        let at = self.rng.pick(&up);
        if let Some(change) = self.clients[client].again.take() {
            self.submit(Some(client), at, change, self.plan.patience);
        } else if self.totals.ops < 2 {
            let dir = path(["/d0", "/d1"][self.totals.ops as usize]);
            self.submit(Some(client), at, Change::MakeDirectory { path: dir }, self.plan.patience);
        } else if self.totals.changes * 100 < self.totals.ops * 56 || self.rng.chance(50) {
            let change = self.any_change();
            let patience = self.rng.range(self.plan.patience / 4, self.plan.patience);
            self.submit(Some(client), at, change, patience);
        } else {
            self.read(client, at);
        }
        Ok(())
    }
    fn any_path(&mut self) -> FtpPath {
        path(PATHS[self.rng.below(self.plan.paths as u64) as usize])
    }
    fn any_directory(&mut self) -> FtpPath {
        path(self.rng.pick(&DIRECTORIES))
    }
    fn any_change(&mut self) -> Change {
        let path = self.any_path();
        let dice = self.rng.below(100);
        if path.name().starts_with('d') {
            return match dice {
                0..=46 => Change::MakeDirectory { path },
                47..=64 => Change::RemoveDirectory { path },
                65..=69 => Change::Store { path, create_only: false },
                70..=72 => Change::Append { path, cut: None },
                73..=77 => Change::Delete { path },
                78..=82 => Change::Rename { from: self.any_path(), to: path },
                _ => Change::Rename { from: self.any_directory(), to: self.any_directory() },
            };
        }
        match dice {
            0..=44 => Change::Store { path, create_only: dice < 6 },
            45..=64 => Change::Append { path, cut: None },
            65..=77 => Change::Delete { path },
            78..=91 => Change::Rename { from: path, to: self.any_path() },
            #[cfg(feature = "next-protocol")]
            93..=94 => Change::SetMode { path, mode: (self.now % 0o7777) as u16 },
            92..=96 => Change::SetModified { path, modified: self.now },
            _ => Change::MakeDirectory { path },
        }
    }
    fn submit(&mut self, client: Option<usize>, at: usize, change: Change, patience: Time) {
        self.totals.ops += 1;
        self.totals.changes += 1;
        let op = OpId(u128::from(self.totals.changes) << 96);
        self.history.note(self.now, || format!("{at} <- op {op:?} {change:?}"));
        self.truth.submitted(self.now, op, &change);
        self.sessions.insert(op, Session { client, at, change: change.clone(), upload: None });
        self.push(at, Input::Submit { op, change, patience });
        if client.is_some() && self.rng.chance(2) {
            let wait = self.rng.range(0, 100) * MS;
            self.plan(wait, Step::Upload(uploads::Step::Cancel { op }));
        }
    }
    /// The operator wants something of a node, and says so somewhere. One that is to be forgotten may not seem gone yet.
    pub(crate) fn order_about(&mut self, order: Change) {
        let up: Vec<usize> = (0..self.processes.len()).filter(|n| self.processes[*n].member.is_some()).collect();
        if !self.calm && !up.is_empty() {
            let at = self.rng.pick(&up);
            self.submit(None, at, order, self.plan.patience);
        }
    }
    /// A write that must succeed.
    pub(crate) fn probe(&mut self, at: usize) -> Result<(), Broken> {
        let patience = (30 * SECOND).min(self.plan.config.outcome_retention / 2);
        self.submit(None, at, Change::Store { path: path("/probe"), create_only: false }, patience);
        Ok(())
    }
    /// A member speaks to one of its sessions.
    pub(crate) fn front(&mut self, at: usize, op: OpId, event: FrontEvent) -> Result<(), Broken> {
        self.history.note(self.now, || format!("{at}: op {op:?} {event:?}"));
        if self.sessions.get(&op).is_none_or(|s| s.at != at) {
            return Ok(()); // given up, or of an earlier start
        }
        match event {
            FrontEvent::Stage { blob, replicas } => self.stage(op, blob, &replicas),
            FrontEvent::Replacement { kept, nodes } => self.replace(op, &kept, &nodes),
            FrontEvent::Done(outcome) => {
                self.totals.acknowledge();
                self.totals.appended += u64::from(self.truth.extents(outcome.position) > 1);
                self.totals.conflicts += self.truth.done(op, outcome)?;
                let (effects, parts) = self.truth.size(outcome.position);
                self.totals.moved += u64::from(effects > 2);
                self.totals.parted += u64::from(parts > 1);
                self.close(op);
            }
            FrontEvent::Refused(refusal) => {
                *self.totals.refusals.entry(format!("{refusal:?}")).or_insert(0) += 1;
                self.truth.refused(op, refusal);
                let asked = self.sessions.get(&op).map(|s| s.change.clone());
                let probe = self.close(op) && matches!(asked, Some(Change::Store { .. }));
                if probe && !matches!(refusal, Refusal::IsDirectory) {
                    return Err(Broken::new(
                        "I7",
                        format!("after healing, op {op:?} at {at} was refused: {refusal:?}"),
                    ));
                }
            }
        }
        Ok(())
    }
    /// Ends a session; true for a probe's.
    pub(crate) fn close(&mut self, op: OpId) -> bool {
        let Some(session) = self.sessions.remove(&op) else { return false };
        if let Some(client) = session.client {
            self.rest(client);
        }
        session.client.is_none()
    }
    fn rest(&mut self, client: usize) {
        let enough = self.totals.ops > LEAST_OPS + LEAST_OPS / 4;
        let wait = self.rng.range(20 * MS, self.plan.pace) * if enough { 4 } else { 1 };
        self.plan(wait, Step::Client(client));
    }
    /// The sessions of a process that is gone. Their clients do not know.
    pub(crate) fn orphan(&mut self, at: usize) {
        let gone: Vec<OpId> = self.sessions.iter().filter(|(_, s)| s.at == at).map(|(op, _)| *op).collect();
        for op in gone {
            let change = self.sessions.get(&op).map(|s| s.change.clone());
            let client = self.sessions.get(&op).and_then(|s| s.client);
            if let Some(client) = client
                && self.rng.chance(60)
            {
                self.clients[client].again = change;
            }
            self.close(op);
        }
        let gone: Vec<u64> = self.reads.iter().filter(|(_, r)| r.at == at).map(|(id, _)| *id).collect();
        for id in gone {
            if let Some(reading) = self.reads.remove(&id) {
                self.rest(reading.client);
            }
        }
    }

    fn read(&mut self, client: usize, at: usize) {
        self.totals.ops += 1;
        self.totals.reads += 1;
        let id = self.totals.reads;
        let list = self.rng.chance(25);
        let path = if list { path(self.rng.pick(&["/", "/d0", "/d1"])) } else { self.any_path() };
        self.history.note(self.now, || format!("{at} <- read {id} {path}{}", if list { " (list)" } else { "" }));
        self.reads.insert(id, Reading { client, at, path, list, began: self.now });
        self.push(at, Input::Read { id });
    }
    /// A read may go ahead: the session looks into the local index.
    pub(crate) fn look_up(&mut self, at: usize, id: u64, shows: Shows) -> Result<(), Broken> {
        if self.reads.get(&id).is_none_or(|r| r.at != at) {
            return Ok(());
        }
        let Some(reading) = self.reads.remove(&id) else { return Ok(()) };
        self.history.note(self.now, || format!("{at}: read {id} {}: {shows:?}", reading.path));
        let position = match shows {
            Shows::Committed(position) => Some(position),
            Shows::Local => {
                self.totals.local_reads += 1;
                None
            }
            Shows::Behind => {
                self.totals.refused_reads += 1;
                self.rest(reading.client);
                return Ok(());
            }
        };
        let tables = &self.processes[at].disk.shown;
        if reading.list {
            for child in PATHS.map(path).iter().filter(|p| p.split().is_some_and(|(dir, _)| dir == reading.path)) {
                self.truth.read(id, reading.began, position, child, tables)?;
                if position.is_some() {
                    self.truth.looked(reading.began, child, tables);
                }
                let listed = tables.children(&reading.path).any(|name| name == child.name());
                let visible = tables.entries.get(child).is_some_and(|e| e.visible().is_some());
                if listed != visible {
                    return Err(Broken::new("I2", format!("{child} listed: {listed}, visible: {visible}")));
                }
            }
        } else {
            self.truth.read(id, reading.began, position, &reading.path, tables)?;
            if position.is_some() {
                self.truth.looked(reading.began, &reading.path, tables);
            }
        }
        self.rest(reading.client);
        Ok(())
    }
    /// Blobs at `at` whose fronts are still connected to it.
    pub(crate) fn kept_blobs(&self, at: usize) -> Vec<BlobId> {
        let kept = |s: &&Session| self.processes[s.at].runs(self.now) && (s.at == at || self.net.joined(s.at, at));
        let uploads = self.sessions.values().filter(kept).filter_map(|s| s.upload.as_ref());
        uploads.filter(|u| u.concerns(at)).map(|u| u.blob).collect()
    }
}
