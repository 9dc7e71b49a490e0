//! The control connection of a session, beside its transfers: it is read while data moves, so that ABOR, STAT, NOOP and
//! QUIT work then. Everything else a client sends meanwhile waits in a short queue; one that overflows ends the session,
//! since ABOR and the end of the connection must be seen whatever came before them.

use super::command::{Command, CommandError};
use super::connection::{Connection, Gone};
use super::line::Line;
use super::progress::Progress;
use super::reply::Reply;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Commands that wait for a transfer.
const QUEUE: usize = 16;

/// Why a verb ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// With this reply.
    Told(Reply),
    /// All was said.
    Silent,
    /// ABOR: the transfer was dropped.
    Aborted,
    /// The session is over.
    Gone(Gone),
}

impl From<Gone> for Stop {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

impl<E: Into<Reply>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Told(error.into())
    }
}

/// A line, parsed.
pub(crate) type Parsed = Result<Command, CommandError>;

/// The control connection and what waits on it.
#[derive(Debug)]
pub(crate) struct Control {
    connection: Connection,
    waiting: VecDeque<Parsed>,
}

impl Control {
    /// Over a fresh connection.
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection, waiting: VecDeque::new() }
    }
    /// The connection itself.
    pub(crate) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }
    /// Whether TLS stands.
    pub(crate) fn is_secure(&self) -> bool {
        self.connection.is_secure()
    }
    /// Whether the client has sent more than what was answered.
    pub(crate) fn has_more(&self) -> bool {
        !self.waiting.is_empty() || self.connection.has_more()
    }
    /// Sends a reply.
    pub(crate) async fn say(&mut self, reply: &Reply) -> Result<(), Gone> {
        self.connection.send(reply).await
    }

    /// The next command, at the latest at `deadline`; none from `stop` on, even where some wait.
    pub(crate) async fn next(&mut self, deadline: Instant, stop: &CancellationToken) -> Result<Parsed, Gone> {
        if stop.is_cancelled() {
            return Err(Gone::Stopping);
        }
        if let Some(parsed) = self.waiting.pop_front() {
            return Ok(parsed);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(Gone::Stopping),
            // Before the lines: there may always be one.
            () = tokio::time::sleep_until(deadline) => Err(Gone::TimedOut),
            line = self.connection.next_line() => line.map(parse),
        }
    }

    /// Runs `work` to its end while the client may go on talking. Dropping `work` must cancel it: that is what ABOR and a
    /// lost control connection do.
    pub(crate) async fn attend<T>(&mut self, progress: &Progress, work: impl Future<Output = T>) -> Result<T, Stop> {
        let mut work = pin!(work);
        loop {
            let parsed = tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                line = self.connection.next_line() => parse(line?),
            };
            match parsed {
                // One that comes when nothing can be stopped any more waits, and is answered after the transfer.
                Ok(Command::Abor) if !progress.is_ending() => return Err(Stop::Aborted),
                Ok(Command::Stat(path)) if path.is_empty() => {
                    let text = format!("Transfer in progress, {} bytes so far.", progress.bytes());
                    self.say(&Reply::new(211, text)).await?;
                }
                // In order of sending where something waits already.
                Ok(Command::Noop) if self.waiting.is_empty() => self.say(&Reply::new(200, "Still at work.")).await?,
                other if self.waiting.len() < QUEUE => self.waiting.push_back(other),
                _ => {
                    self.say(&Reply::new(421, "Too many commands during a transfer, closing.")).await?;
                    return Err(Gone::Refused("too many commands during a transfer").into());
                }
            }
        }
    }
}

fn parse(line: Line) -> Parsed {
    match line {
        Line::Text(text) => Command::parse(&text),
        Line::TooLong => Err(CommandError::TooLong),
    }
}
