//! One client's session: what it has said so far, what it may do now, and one command after the other. Verbs are in
//! `verb`; the rules that hold for many of them are here.

use super::attempts::Attempts;
use super::command::{Command, CommandError, Level};
use super::config::FtpConfig;
use super::conflicts::{Place, within_view};
use super::connection::{Connection, Gone};
use super::control::{Control, Stop};
use super::data::{DataError, Dock, Passive};
use super::files::Files;
use super::listing::{Access, Facts};
use super::reply::{Reply, STOPPED};
use super::users::Account;
use super::verb::{self, file::RenameFrom};
use crate::clock::Clock;
use crate::cluster::{Change, Outcome, Refusal};
use crate::meter::Meter;
use crate::path::{FtpPath, PathError};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What all sessions of a node share.
pub(crate) struct Shared {
    /// Settings.
    pub(crate) config: FtpConfig,
    /// The cluster.
    pub(crate) files: Arc<dyn Files>,
    /// Failed logins.
    pub(crate) attempts: Attempts,
    /// For dates of listings.
    pub(crate) clock: Clock,
    /// The node stops: sessions end when they are idle.
    pub(crate) stop: CancellationToken,
    /// It waits for them no longer: they end now, and their transfers are cut.
    pub(crate) cut: CancellationToken,
    /// For metrics.
    pub(crate) meter: Meter,
}

/// Who a client is.
#[derive(Debug)]
pub(crate) enum Login {
    /// Not said.
    Nobody,
    /// USER came, PASS did not.
    Named(String),
    /// Logged in.
    In(Account),
}

/// One session.
pub(crate) struct Session {
    /// What it shares with the others.
    pub(crate) shared: Arc<Shared>,
    /// The control connection.
    pub(crate) control: Control,
    /// Where the control connection arrived, for passive ports.
    pub(crate) local: IpAddr,
    /// The client.
    pub(crate) peer: IpAddr,
    /// Who it is.
    pub(crate) login: Login,
    /// Wrong passwords on this connection.
    pub(crate) failures: u32,
    /// The working directory as the client sees it.
    pub(crate) cwd: FtpPath,
    /// PBSZ came.
    pub(crate) sized: bool,
    /// PROT.
    pub(crate) level: Level,
    /// The port that waits for the next transfer.
    pub(crate) passive: Option<Passive>,
    /// EPSV ALL came.
    pub(crate) epsv_only: bool,
    /// TYPE A.
    pub(crate) ascii: bool,
    /// REST, for the next transfer.
    pub(crate) rest: u64,
    /// RNFR, for RNTO.
    pub(crate) rename_from: Option<RenameFrom>,
    /// OPTS MLST.
    pub(crate) facts: Facts,
}

impl Session {
    /// A client that has said nothing.
    pub(crate) fn new(shared: Arc<Shared>, connection: Connection, local: IpAddr, peer: IpAddr) -> Self {
        Self {
            shared,
            control: Control::new(connection),
            local,
            peer,
            login: Login::Nobody,
            failures: 0,
            cwd: FtpPath::root(),
            sized: false,
            level: Level::Clear,
            passive: None,
            epsv_only: false,
            ascii: true,
            rest: 0,
            rename_from: None,
            facts: Facts::default(),
        }
    }

    /// Serves the client to its end.
    pub(crate) async fn run(mut self) {
        let cut = self.shared.cut.clone();
        let gone = match cut.run_until_cancelled(self.serve()).await {
            Some(Ok(())) => Gone::Closed,
            Some(Err(gone)) => gone,
            None => Gone::Stopping,
        };
        let farewell = match gone {
            Gone::TimedOut => Some("Timeout, closing the control connection."),
            Gone::Stopping => Some("The node is shutting down, closing the control connection."),
            Gone::Closed | Gone::Broken(_) | Gone::Refused(_) => None,
        };
        if let Some(text) = farewell {
            // It may be gone for good, which is then no news.
            let _ = self.control.say(&Reply::new(421, text)).await;
        }
        self.control.connection().close().await;
        tracing::debug!(end = %gone, "session ended");
    }

    async fn serve(&mut self) -> Result<(), Gone> {
        self.control.say(&Reply::new(220, "Trebol ready.")).await?;
        let login_timeout = self.shared.config.login_timeout;
        let mut login_by = Instant::now() + login_timeout;
        let mut spoke = false;
        loop {
            let idle = Instant::now() + self.shared.config.idle_timeout;
            let was_in = matches!(self.login, Login::In(_));
            let deadline = if was_in { idle } else { idle.min(login_by) };
            let stop = self.shared.stop.clone();
            let command = self.control.next(deadline, &stop).await?;
            if !std::mem::replace(&mut spoke, true) {
                self.shared.meter.spoke();
            }
            if command == Ok(Command::Quit) {
                self.control.say(&Reply::new(221, "Goodbye.")).await?;
                return Ok(());
            }
            match self.answer(command).await {
                // RFC 959, section 4.2.1: 421 says that the connection is being closed. The farewell is it.
                Ok(reply) | Err(Stop::Told(reply)) if reply.code() == STOPPED => return Err(Gone::Stopping),
                Ok(reply) | Err(Stop::Told(reply)) => self.control.say(&reply).await?,
                Err(Stop::Aborted) => {
                    self.control.say(&Reply::new(426, "Transfer aborted; nothing was changed.")).await?;
                    self.control.say(&Reply::new(226, "ABOR done.")).await?;
                }
                Err(Stop::Silent) => {}
                Err(Stop::Gone(gone)) => return Err(gone),
            }
            if was_in && !matches!(self.login, Login::In(_)) {
                // USER, REIN or AUTH of somebody who was logged in: the next one has the whole time again.
                login_by = Instant::now() + login_timeout;
            }
        }
    }

    /// What is answered to a command.
    async fn answer(&mut self, command: Result<Command, CommandError>) -> Result<Reply, Stop> {
        let command = command.map_err(CommandError::reply)?;
        tracing::debug!(?command, "command");
        if !free(&command) {
            self.account()?;
        }
        // RNTO follows RNFR at once (RFC 959, section 4.1.3).
        let rename_from = self.rename_from.take();
        if let Command::Rnto(to) = command {
            return verb::file::rnto(self, rename_from, &to).await;
        }
        verb::run(self, command).await
    }

    /// Who is logged in, else 530.
    pub(crate) fn account(&self) -> Result<&Account, Reply> {
        match &self.login {
            Login::In(account) => Ok(account),
            Login::Nobody | Login::Named(_) => Err(Reply::new(530, "Please log in with USER and PASS.")),
        }
    }
    /// The name in log lines.
    pub(crate) fn user(&self) -> &str {
        match &self.login {
            Login::In(account) => &account.name,
            Login::Nobody | Login::Named(_) => "-",
        }
    }
    /// Whether the user may change nothing.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(&self.login, Login::In(account) if account.read_only)
    }
    /// 550 for users who may change nothing.
    pub(crate) fn may_write(&self) -> Result<(), Reply> {
        if self.is_read_only() { Err(Reply::new(550, "Permission denied, this user may only read.")) } else { Ok(()) }
    }
    /// What a client typed, as it sees it.
    pub(crate) fn seen(&self, typed: &str) -> Result<FtpPath, PathError> {
        self.cwd.resolve(typed)
    }
    /// Where a path leads that the client sees: below the user's home, or to what mirrors that in the view of conflicts.
    pub(crate) fn place(&self, seen: &FtpPath) -> Result<Place, Reply> {
        let home = &self.account()?.home;
        let below = |seen: &str| home.resolve(&format!("./{seen}"));
        Ok(match within_view(seen) {
            Some(mirrored) => Place::Conflicts(below(mirrored)?),
            None => Place::Tree(below(seen.as_str())?),
        })
    }
    /// A path as the client sees it, as the cluster knows it. 553 in the view of conflicts: nothing is made there.
    pub(crate) fn real(&self, seen: &FtpPath) -> Result<FtpPath, Reply> {
        match self.place(seen)? {
            Place::Tree(path) => Ok(path),
            Place::Conflicts(_) => Err(Refusal::Reserved.into()),
        }
    }
    /// What the user may do at a place.
    pub(crate) fn access(&self, place: &Place) -> Access {
        match place {
            _ if self.is_read_only() => Access::Read,
            Place::Tree(_) => Access::Change,
            Place::Conflicts(_) => Access::Settle,
        }
    }
    /// What a client typed, as the cluster knows it.
    pub(crate) fn path(&self, typed: &str) -> Result<FtpPath, Reply> {
        self.real(&self.seen(typed)?)
    }
    /// Makes a change without bytes, and waits for its end.
    pub(crate) async fn change(&self, change: Change) -> Result<Outcome, Reply> {
        Ok(self.shared.files.change(change).await??)
    }
    /// Whether clear text is refused on data connections: 521.
    pub(crate) fn may_transfer(&self) -> Result<(), Reply> {
        if self.shared.config.require_tls && self.level == Level::Clear {
            return Err(Reply::new(521, "Data connections must be encrypted, say PROT P first."));
        }
        Ok(())
    }
    /// Takes the passive port for one transfer.
    pub(crate) fn dock(&mut self) -> Result<Dock, Reply> {
        self.may_transfer()?;
        let passive = self.passive.take().ok_or(DataError::NotAsked)?;
        let config = &self.shared.config;
        let tls = config.tls.as_ref().filter(|_| self.level == Level::Private).map(|tls| tls.data().clone());
        Ok(Dock::new(passive, tls, config))
    }
}

/// Whether a command needs no login.
fn free(command: &Command) -> bool {
    match command {
        Command::User(_)
        | Command::Pass(_)
        | Command::Quit
        | Command::Rein
        | Command::Auth
        | Command::Pbsz
        | Command::Prot(_)
        | Command::Feat
        | Command::OptsUtf8
        | Command::OptsMlst(_)
        | Command::Syst
        | Command::Noop
        | Command::Abor
        | Command::Help
        | Command::Clnt => true,
        Command::Stat(path) => path.is_empty(),
        _ => false,
    }
}
