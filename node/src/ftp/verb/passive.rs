//! PASV (RFC 959, section 4.1.2) and EPSV (RFC 2428, section 3): "requests the server to listen on a data port and wait
//! for a connection". After EPSV ALL "the server MUST reject all data connection setup commands other than EPSV".

use crate::ftp::command::Family;
use crate::ftp::control::Stop;
use crate::ftp::data::Passive;
use crate::ftp::reply::Reply;
use crate::ftp::session::Session;
use std::net::IpAddr;

pub(super) fn pasv(session: &mut Session) -> Result<Reply, Stop> {
    if session.epsv_only {
        return Err(Reply::new(503, "EPSV ALL was said.").into());
    }
    let address = match (session.shared.config.passive_address, session.local) {
        (Some(address), _) | (None, IpAddr::V4(address)) => address,
        (None, IpAddr::V6(_)) => return Err(Reply::new(425, "PASV knows IPv4 only, say EPSV.").into()),
    };
    let port = listen(session)?;
    let [a, b, c, d] = address.octets();
    let [high, low] = port.to_be_bytes();
    Ok(Reply::new(227, format!("Entering Passive Mode ({a},{b},{c},{d},{high},{low}).")))
}

pub(super) fn epsv(session: &mut Session, family: Family) -> Result<Reply, Stop> {
    match (family, session.local) {
        (Family::All, _) => {
            session.epsv_only = true;
            return Ok(Reply::new(200, "Only EPSV from now on."));
        }
        (Family::V4, IpAddr::V6(_)) => return Err(Reply::new(522, "Network protocol not supported, use (2)").into()),
        (Family::V6, IpAddr::V4(_)) => return Err(Reply::new(522, "Network protocol not supported, use (1)").into()),
        (Family::Same | Family::V4 | Family::V6, _) => {}
    }
    let port = listen(session)?;
    Ok(Reply::new(229, format!("Entering Extended Passive Mode (|||{port}|)")))
}

/// Waits on a port in place of the one before.
fn listen(session: &mut Session) -> Result<u16, Reply> {
    session.may_transfer()?;
    session.passive = None;
    let refuse = |error: std::io::Error| {
        tracing::warn!(%error, "no passive port");
        Reply::new(425, "No port is free for a data connection, try again later.")
    };
    let passive = Passive::listen(&session.shared.config, session.local, session.peer).map_err(refuse)?;
    let port = passive.port().map_err(refuse)?;
    session.passive = Some(passive);
    Ok(port)
}
