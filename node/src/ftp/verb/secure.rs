//! AUTH, PBSZ, PROT (RFC 4217): "The server ... MUST NOT process any command following AUTH until the TLS negotiation is
//! complete"; "the server MUST reset all state information from before"; PBSZ is 0 with TLS and comes before PROT.

use super::login::forget;
use crate::ftp::command::Level;
use crate::ftp::connection::Gone;
use crate::ftp::control::Stop;
use crate::ftp::reply::Reply;
use crate::ftp::session::Session;

pub(super) async fn auth(session: &mut Session) -> Result<Reply, Stop> {
    let Some(tls) = session.shared.config.tls.clone() else {
        return Err(Reply::new(431, "This node has no certificate.").into());
    };
    if session.control.is_secure() {
        return Err(Reply::new(503, "TLS stands already.").into());
    }
    if session.control.has_more() {
        // Commands sent in clear behind AUTH would be carried out as if they had come encrypted.
        session.control.say(&Reply::new(503, "Nothing may follow AUTH before TLS stands.")).await?;
        return Err(Gone::Refused("clear text behind AUTH").into());
    }
    session.control.say(&Reply::new(234, "Begin TLS.")).await?;
    let limit = session.shared.config.login_timeout;
    let stop = session.shared.stop.clone();
    let handshake = session.control.connection().secure(tls.control(), limit);
    // A client that leaves it half done is no transfer to wait for.
    if let Err(gone) = stop.run_until_cancelled(handshake).await.unwrap_or(Err(Gone::Stopping)) {
        tracing::info!(%gone, "TLS was not negotiated");
        return Err(Gone::Refused("TLS was not negotiated").into());
    }
    forget(session);
    Err(Stop::Silent)
}

pub(super) fn pbsz(session: &mut Session) -> Result<Reply, Stop> {
    if !session.control.is_secure() {
        return Err(Reply::new(503, "Say AUTH TLS first.").into());
    }
    session.sized = true;
    Ok(Reply::new(200, "PBSZ=0"))
}

pub(super) fn prot(session: &mut Session, level: Level) -> Result<Reply, Stop> {
    if !session.sized {
        return Err(Reply::new(503, "Say PBSZ 0 first.").into());
    }
    if level == Level::Clear && session.shared.config.require_tls {
        return Err(Reply::new(534, "Data connections must be encrypted here.").into());
    }
    session.level = level;
    Ok(Reply::new(200, if level == Level::Private { "Data will be encrypted." } else { "Data will be clear." }))
}
