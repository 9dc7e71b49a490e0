//! TYPE (RFC 959, section 4.1.2), REST (RFC 3659, section 5), OPTS MLST (RFC 3659, section 7.9).

use crate::ftp::control::Stop;
use crate::ftp::listing::Facts;
use crate::ftp::reply::Reply;
use crate::ftp::session::Session;

pub(super) fn representation(session: &mut Session, ascii: bool) -> Result<Reply, Stop> {
    session.ascii = ascii;
    Ok(Reply::new(200, if ascii { "Type is ASCII." } else { "Type is binary." }))
}

/// "The server-PI ... replies 350 ... the next command must be the transfer". Offsets into a text whose line ends are
/// converted mean nothing, so TYPE A refuses them.
pub(super) fn rest(session: &mut Session, offset: u64) -> Result<Reply, Stop> {
    if session.ascii && offset > 0 {
        return Err(Reply::new(504, "REST needs TYPE I.").into());
    }
    session.rest = offset;
    Ok(Reply::new(350, format!("Restarting at {offset}. Send STORE or RETRIEVE to initiate transfer.")))
}

pub(super) fn opts_mlst(session: &mut Session, facts: &str) -> Result<Reply, Stop> {
    session.facts = Facts::choose(facts);
    Ok(Reply::new(200, format!("MLST OPTS {}", session.facts.chosen())))
}
