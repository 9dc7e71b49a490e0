//! Asks a running node through its data directory. Never waits longer than a few seconds.

use super::{Answer, LINE_MAX, NodeStatus, Question, Request, Response, SOCKET, VERSION, socket};
use crate::cluster::NodeId;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

/// For one question with its answer: a little more than the node itself takes.
const PATIENCE: Duration = Duration::from_secs(6);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("no node runs in {0}: start it, or name another directory with --data")]
    NotRunning(PathBuf),
    /// It is somebody else's.
    #[error("not allowed to ask the node in {0}: use the account it runs as")]
    Denied(PathBuf),
    /// It does not answer in time.
    #[error("the node in {0} does not answer")]
    Silent(PathBuf),
    /// The socket broke.
    #[error("the node in {dir} cannot be asked: {error}")]
    Io {
        /// Whose.
        dir: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// It said why not.
    #[error("the node in {dir} says: {says}")]
    Refused {
        /// Whose.
        dir: PathBuf,
        /// Its words.
        says: String,
    },
}

/// Asks the node that runs in the data directory `dir` for its status.
pub async fn ask(dir: &Path) -> Result<NodeStatus, AskError> {
    match question(dir, Question::Status).await? {
        Answer::Status(status) => Ok(*status),
        other => Err(unexpected(dir, &other)),
    }
}

/// Has a node removed for good by the cluster of the node that runs in `dir`; `node` is its name, or how its id begins.
pub async fn forget(dir: &Path, node: String) -> Result<NodeId, AskError> {
    match question(dir, Question::Forget { node }).await? {
        Answer::Forgotten(node) => Ok(node),
        other => Err(unexpected(dir, &other)),
    }
}

/// Has a node drained by the cluster of the node that runs in `dir`, or that taken back; `node` as for [`forget`].
pub async fn drain(dir: &Path, node: String, draining: bool) -> Result<NodeId, AskError> {
    match question(dir, Question::Drain { node, draining }).await? {
        Answer::Drain(node) => Ok(node),
        other => Err(unexpected(dir, &other)),
    }
}

fn unexpected(dir: &Path, answer: &Answer) -> AskError {
    let error = io::Error::new(io::ErrorKind::InvalidData, format!("it answered something else: {answer:?}"));
    AskError::Io { dir: dir.to_owned(), error }
}

async fn question(dir: &Path, question: Question) -> Result<Answer, AskError> {
    let dir_owned = || dir.to_owned();
    let line = match timeout(PATIENCE, exchange(dir, question)).await {
        Err(_) => return Err(AskError::Silent(dir_owned())),
        Ok(Err(error)) => {
            return Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning(dir_owned()),
                io::ErrorKind::PermissionDenied => AskError::Denied(dir_owned()),
                _ => AskError::Io { dir: dir_owned(), error },
            });
        }
        Ok(Ok(line)) => line,
    };
    match serde_json::from_str::<Response>(&line) {
        Ok(Response { answer: Answer::Error(says), .. }) => Err(AskError::Refused { dir: dir_owned(), says }),
        Ok(Response { answer, .. }) => Ok(answer),
        Err(error) => Err(AskError::Io { dir: dir_owned(), error: error.into() }),
    }
}

async fn exchange(dir: &Path, question: Question) -> io::Result<String> {
    let mut stream = BufReader::new(socket::connect(dir, SOCKET).await?);
    let mut json = serde_json::to_vec(&Request { version: VERSION, request: question })?;
    json.push(b'\n');
    stream.get_mut().write_all(&json).await?;
    let mut line = String::new();
    (&mut stream).take(LINE_MAX).read_line(&mut line).await?;
    Ok(line)
}
