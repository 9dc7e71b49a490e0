//! What sessions see of the cluster: an edge narrow enough to be played by a map in memory, so that replies to everything
//! the cluster may say can be tested. The real one only passes on.

use super::upload::Receiver;
use crate::cluster::{Change, File, Head, Location, Outcome, Refusal};
use crate::path::FtpPath;
use crate::peer::{ClusterHandle, ReadRefused, Stopped};
use crate::replica::{Download, ReadError, Replicas, Restored, Upload, UploadError, Uploaded};
use crate::store::{Conflicted, Row, Store};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// An answer that takes a while. Dropped, the question is withdrawn.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The files of the cluster. Paths are the cluster's, not a user's.
pub(crate) trait Files: Send + Sync {
    /// Waits until what is committed now shows here, or no leader answers.
    fn fresh(&self) -> Answer<'_, Result<(), ReadRefused>>;
    /// The visible version of a path; none for the root and for directories that are only implied.
    fn visible(&self, path: &FtpPath) -> Option<Head>;
    /// Whether a path is a directory, made or implied.
    fn is_directory(&self, path: &FtpPath) -> bool;
    /// Children of `dir` beyond `after`, in bytewise order. Blocking.
    fn list(&self, dir: &FtpPath, after: Option<&str>, limit: usize) -> Vec<Row>;
    /// The versions of a path that lost a conflict.
    fn losers(&self, path: &FtpPath) -> Vec<Head>;
    /// Children of `dir` beyond `after` that have losers, themselves or below them, in bytewise order. Blocking.
    fn conflicts(&self, dir: &FtpPath, after: Option<&str>, limit: usize) -> Vec<Conflicted>;
    /// The first paths below `dir` that have losers, and how many losers are below it. Blocking.
    fn conflicts_below(&self, dir: &FtpPath, limit: usize) -> (Vec<FtpPath>, u64);
    /// Makes a change without bytes.
    fn change(&self, change: Change) -> Answer<'_, Result<Result<Outcome, Refusal>, Stopped>>;
    /// Takes the lock for a change with bytes.
    fn begin(&self, change: Change) -> Answer<'_, Result<Box<dyn Pending>, UploadError>>;
    /// Takes all bytes of an append, behind those of what is there that are to be stored anew, and makes it.
    fn append<'a>(
        &'a self,
        change: Change,
        restored: Option<Restored>,
        source: &'a mut Receiver,
    ) -> Answer<'a, Result<Uploaded, UploadError>>;
    /// Opens a version from byte `offset` on.
    fn open<'a>(
        &'a self,
        file: &'a File,
        location: &'a Location,
        offset: u64,
    ) -> Answer<'a, Result<Download, ReadError>>;
}

/// An upload that holds its lock. Dropped, it is cancelled.
pub(crate) trait Pending: Send {
    /// Takes all bytes and commits.
    fn run<'a>(self: Box<Self>, source: &'a mut Receiver) -> Answer<'a, Result<Uploaded, UploadError>>;
}

/// The real thing.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// To the leader.
    pub(crate) handle: ClusterHandle,
    /// To the bytes.
    pub(crate) replicas: Replicas,
    /// The local index.
    pub(crate) store: Arc<Store>,
    /// Longest wait for a leader or a lock.
    pub(crate) patience: Duration,
}

impl Files for Cluster {
    fn fresh(&self) -> Answer<'_, Result<(), ReadRefused>> {
        Box::pin(async { self.handle.fresh().await.map(drop) })
    }
    fn visible(&self, path: &FtpPath) -> Option<Head> {
        self.store.visible(path)
    }
    fn is_directory(&self, path: &FtpPath) -> bool {
        self.store.is_directory(path)
    }
    fn list(&self, dir: &FtpPath, after: Option<&str>, limit: usize) -> Vec<Row> {
        self.store.list(dir, after, limit)
    }
    fn losers(&self, path: &FtpPath) -> Vec<Head> {
        self.store.losers(path)
    }
    fn conflicts(&self, dir: &FtpPath, after: Option<&str>, limit: usize) -> Vec<Conflicted> {
        self.store.conflicts(dir, after, limit)
    }
    fn conflicts_below(&self, dir: &FtpPath, limit: usize) -> (Vec<FtpPath>, u64) {
        self.store.conflicts_below(dir, limit)
    }
    fn change(&self, change: Change) -> Answer<'_, Result<Result<Outcome, Refusal>, Stopped>> {
        Box::pin(self.handle.change(change, self.patience))
    }
    fn begin(&self, change: Change) -> Answer<'_, Result<Box<dyn Pending>, UploadError>> {
        Box::pin(async {
            let upload = self.replicas.begin(change).await?;
            Ok(Box::new(upload) as Box<dyn Pending>)
        })
    }
    fn append<'a>(
        &'a self,
        change: Change,
        restored: Option<Restored>,
        source: &'a mut Receiver,
    ) -> Answer<'a, Result<Uploaded, UploadError>> {
        Box::pin(self.replicas.append(change, restored, source))
    }
    fn open<'a>(
        &'a self,
        file: &'a File,
        location: &'a Location,
        offset: u64,
    ) -> Answer<'a, Result<Download, ReadError>> {
        Box::pin(self.replicas.open(file, location, offset))
    }
}

impl Pending for Upload {
    fn run<'a>(self: Box<Self>, source: &'a mut Receiver) -> Answer<'a, Result<Uploaded, UploadError>> {
        Box::pin(Self::run(*self, source))
    }
}
