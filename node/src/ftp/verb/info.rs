//! FEAT (RFC 2389), HELP, STAT without a path, SITE HELP (RFC 959, section 4.1.3). What FEAT lists works.

use crate::ftp::command::Level;
use crate::ftp::reply::Reply;
use crate::ftp::session::Session;

pub(super) fn feat(session: &Session) -> Reply {
    let mut features = Vec::new();
    if session.shared.config.tls.is_some() {
        features.extend(["AUTH TLS", "PBSZ", "PROT"].map(str::to_owned));
    }
    features.extend(["EPSV", "MDTM"].map(str::to_owned));
    features.push(format!("MLST {}", session.facts.features()));
    features.extend(["PASV", "REST STREAM", "SIZE", "TVFS", "UTF8"].map(str::to_owned));
    Reply::lines(211, "Features:", features, "End")
}

pub(super) fn help() -> Reply {
    let verbs = [
        "USER PASS ACCT REIN QUIT AUTH PBSZ PROT FEAT OPTS HELP SITE SYST STAT NOOP CLNT",
        "CWD CDUP PWD MKD RMD XCWD XCUP XPWD XMKD XRMD DELE RNFR RNTO",
        "TYPE STRU MODE PASV EPSV ALLO REST STOR STOU APPE RETR ABOR",
        "LIST NLST MLSD MLST SIZE MDTM",
    ];
    Reply::lines(214, "These commands are implemented:", verbs.map(str::to_owned).to_vec(), "End.")
}

pub(super) fn site_help() -> Reply {
    Reply::lines(214, "These SITE commands are implemented:", vec!["CONFLICTS HELP".into()], "End.")
}

/// "The server should return general status information about ... current values of all transfer parameters and the
/// status of connections."
pub(super) fn stat(session: &Session) -> Reply {
    let kind = if session.ascii { "ASCII" } else { "binary" };
    let data = if session.level == Level::Private { "encrypted" } else { "clear" };
    let control = if session.control.is_secure() { "encrypted" } else { "clear" };
    let lines = vec![
        format!("Connected from {}", session.peer),
        format!("Logged in as {}", session.user()),
        format!("TYPE: {kind}, STRU: file, MODE: stream"),
        format!("Control connection: {control}, data connections: {data}"),
        format!("Waiting for a data connection: {}", if session.passive.is_some() { "yes" } else { "no" }),
    ];
    Reply::lines(211, "Status:", lines, "End.")
}
