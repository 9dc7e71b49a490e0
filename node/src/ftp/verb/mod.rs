//! One small file per verb or family, headed by its RFC text. A verb checks what holds for it alone, does it, and returns
//! its reply; codes of failures come from `reply`.

mod append;
mod conflicts;
mod directory;
pub(crate) mod file;
mod info;
mod list;
mod login;
mod look;
mod parameters;
mod passive;
mod retr;
mod secure;
mod stor;

use super::command::Command;
use super::control::Stop;
use super::reply::Reply;
use super::session::Session;

/// Does one command. QUIT and RNTO are the session's own: the one ends it, the other needs what came before.
pub(crate) async fn run(session: &mut Session, command: Command) -> Result<Reply, Stop> {
    match command {
        Command::User(name) => login::user(session, name),
        Command::Pass(password) => login::pass(session, &password).await,
        Command::Acct => Ok(Reply::new(202, "No account is needed.")),
        Command::Rein => login::rein(session),
        Command::Auth => secure::auth(session).await,
        Command::Pbsz => secure::pbsz(session),
        Command::Prot(level) => secure::prot(session, level),
        Command::Pasv => passive::pasv(session),
        Command::Epsv(family) => passive::epsv(session, family),
        Command::Type(ascii) => parameters::representation(session, ascii),
        Command::Stru => Ok(Reply::new(200, "Structure is file.")),
        Command::Mode => Ok(Reply::new(200, "Mode is stream.")),
        Command::Rest(offset) => parameters::rest(session, offset),
        Command::Allo => Ok(Reply::new(202, "Space is found when the bytes come.")),
        Command::OptsUtf8 => Ok(Reply::new(200, "UTF-8 is always on.")),
        Command::OptsMlst(facts) => parameters::opts_mlst(session, &facts),
        Command::Stor(path) => stor::stor(session, &path).await,
        Command::Appe(path) => append::appe(session, &path).await,
        Command::Stou(name) => stor::stou(session, &name).await,
        Command::Retr(path) => retr::retr(session, &path).await,
        Command::List(path) => list::list(session, &path, list::Style::Long).await,
        Command::Nlst(path) => list::list(session, &path, list::Style::Names).await,
        Command::Mlsd(path) => list::list(session, &path, list::Style::Facts).await,
        Command::Mlst(path) => look::mlst(session, &path).await,
        Command::Size(path) => look::size(session, &path).await,
        Command::Mdtm(path) => look::mdtm(session, &path).await,
        Command::Dele(path) => file::dele(session, &path).await,
        Command::Rnfr(path) => file::rnfr(session, &path).await,
        Command::Mkd(path) => directory::mkd(session, &path).await,
        Command::Rmd(path) => directory::rmd(session, &path).await,
        Command::Cwd(path) => directory::cwd(session, &path).await,
        Command::Cdup => directory::cwd(session, "..").await,
        Command::Pwd => Ok(directory::pwd(session)),
        Command::Stat(path) if path.is_empty() => Ok(info::stat(session)),
        Command::Stat(path) => list::stat(session, &path).await,
        Command::Feat => Ok(info::feat(session)),
        Command::Syst => Ok(Reply::new(215, "UNIX Type: L8")),
        Command::Noop => Ok(Reply::new(200, "NOOP done.")),
        Command::Abor => Ok(Reply::new(226, "Nothing to abort.")),
        Command::Help => Ok(info::help()),
        Command::Clnt => Ok(Reply::new(200, "Noted.")),
        Command::SiteHelp => Ok(info::site_help()),
        Command::SiteConflicts(path) => conflicts::site(session, &path).await,
        #[cfg(feature = "next-protocol")]
        Command::SiteChmod(mode, path) => file::chmod(session, mode, &path).await,
        Command::Quit | Command::Rnto(_) => Err(Reply::new(503, "Bad sequence of commands.").into()),
    }
}
