//! A line to a command, once, so that everything behind it deals with values that cannot be wrong (RFC 959 section 5.3,
//! and the RFCs of the extensions). It knows nothing of the session: whether a command fits now is decided there.

use super::reply::Reply;
use std::fmt;

/// A password. It has no readable `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What EPSV asks for (RFC 2428, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// The one of the control connection.
    Same,
    /// 1.
    V4,
    /// 2.
    V6,
    /// "EPSV ALL": nothing but EPSV will be used from now on.
    All,
}

/// Protection of the data connection (RFC 4217, section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// C: none.
    Clear,
    /// P: TLS.
    Private,
}

/// One command, named by its verb. Paths are as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    User(String),
    Pass(Secret),
    Acct,
    Quit,
    Rein,
    Auth,
    Pbsz,
    Prot(Level),
    Pasv,
    Epsv(Family),
    /// True for TYPE A.
    Type(bool),
    Stru,
    Mode,
    Stor(String),
    Appe(String),
    /// Empty: the server chooses the whole name.
    Stou(String),
    Retr(String),
    Rest(u64),
    Allo,
    Dele(String),
    Mkd(String),
    Rmd(String),
    Cwd(String),
    Cdup,
    Pwd,
    Rnfr(String),
    Rnto(String),
    List(String),
    Nlst(String),
    Mlsd(String),
    Mlst(String),
    Size(String),
    Mdtm(String),
    Feat,
    OptsUtf8,
    OptsMlst(String),
    Syst,
    Noop,
    Abor,
    /// Empty: of the session; else a listing.
    Stat(String),
    Help,
    Clnt,
    SiteHelp,
    /// Empty: of all that the user sees.
    SiteConflicts(String),
    /// SITE CHMOD: a mode, and the path it is for.
    #[cfg(feature = "next-protocol")]
    SiteChmod(u16, String),
}

/// Why a line is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    /// Nobody defined it.
    #[error("Unknown command")]
    Unknown,
    /// It is defined, and not done here.
    #[error("Command not implemented")]
    NotDone,
    /// The line is longer than the codec takes.
    #[error("Line too long")]
    TooLong,
    /// The argument is missing, or there is one too many, or it is not what it should be.
    #[error("Syntax error in the argument")]
    Argument,
    /// Not UTF-8 (RFC 2640): refused, never mangled.
    #[error("The argument is not UTF-8")]
    NotUtf8,
    /// The verb is done, but not for this argument.
    #[error("Not implemented for that argument")]
    Parameter,
    /// A protection level or mechanism that TLS does not have (RFC 2228).
    #[error("Only AUTH TLS with PROT C or P")]
    Protection,
    /// EPSV for another network protocol (RFC 2428).
    #[error("Network protocol not supported, use (1,2)")]
    Family,
}

impl CommandError {
    /// As the client is told.
    pub(crate) fn reply(self) -> Reply {
        let code = match self {
            Self::Unknown | Self::TooLong => 500,
            Self::Argument | Self::NotUtf8 => 501,
            Self::NotDone => 502,
            Self::Parameter => 504,
            Self::Protection => 536,
            Self::Family => 522,
        };
        Reply::new(code, format!("{self}."))
    }
}

/// Verbs that RFCs and common servers define and this one does not do.
const NOT_DONE: [&str; 22] = [
    "ADAT", "CCC", "CONF", "ENC", "EPRT", "HASH", "HOST", "LANG", "LPRT", "LPSV", "MFCT", "MFF", "MFMT", "MIC", "PORT",
    "SMNT", "XCRC", "XMD5", "XSHA1", "XSHA256", "XSEM", "XRSQ",
];

impl Command {
    /// Parses a line without its end. One space separates verb and argument; all that follows it belongs to the argument.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let space = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
        let (verb, rest) = line.split_at(space);
        if verb.is_empty() || verb.len() > 8 || !verb.iter().all(u8::is_ascii_alphanumeric) {
            return Err(CommandError::Unknown);
        }
        let verb = String::from_utf8_lossy(verb).to_ascii_uppercase();
        let arg = std::str::from_utf8(rest.get(1..).unwrap_or_default()).map_err(|_| CommandError::NotUtf8);
        let text = || match arg? {
            "" => Err(CommandError::Argument),
            text => Ok(text.to_owned()),
        };
        let none = |command: Self| if arg?.trim().is_empty() { Ok(command) } else { Err(CommandError::Argument) };
        match verb.as_str() {
            "USER" => text().map(Self::User),
            "PASS" => Ok(Self::Pass(Secret(arg?.to_owned()))),
            "ACCT" => text().map(|_| Self::Acct),
            "QUIT" => none(Self::Quit),
            "REIN" => none(Self::Rein),
            "AUTH" => auth(arg?),
            "PBSZ" => number(arg?).map(|_| Self::Pbsz),
            "PROT" => prot(arg?),
            "PASV" => none(Self::Pasv),
            "EPSV" => epsv(arg?),
            "TYPE" => representation(arg?),
            "STRU" => only(arg?, "F", Self::Stru),
            "MODE" => only(arg?, "S", Self::Mode),
            "STOR" => text().map(Self::Stor),
            "APPE" => text().map(Self::Appe),
            "STOU" => Ok(Self::Stou(arg?.to_owned())),
            "RETR" => text().map(Self::Retr),
            "REST" => number(arg?).map(Self::Rest),
            "ALLO" => allo(arg?),
            "DELE" => text().map(Self::Dele),
            "MKD" | "XMKD" => text().map(Self::Mkd),
            "RMD" | "XRMD" => text().map(Self::Rmd),
            "CWD" | "XCWD" => text().map(Self::Cwd),
            "CDUP" | "XCUP" => none(Self::Cdup),
            "PWD" | "XPWD" => none(Self::Pwd),
            "RNFR" => text().map(Self::Rnfr),
            "RNTO" => text().map(Self::Rnto),
            "LIST" => Ok(Self::List(without_flags(arg?))),
            "NLST" => Ok(Self::Nlst(without_flags(arg?))),
            "MLSD" => Ok(Self::Mlsd(arg?.to_owned())),
            "MLST" => Ok(Self::Mlst(arg?.to_owned())),
            "SIZE" => text().map(Self::Size),
            "MDTM" => text().map(Self::Mdtm),
            "FEAT" => none(Self::Feat),
            "OPTS" => opts(arg?),
            "SYST" => none(Self::Syst),
            "NOOP" => Ok(Self::Noop),
            "ABOR" => none(Self::Abor),
            "STAT" => Ok(Self::Stat(without_flags(arg?))),
            "HELP" => Ok(Self::Help),
            "CLNT" => Ok(Self::Clnt),
            "SITE" => site(arg?),
            other if NOT_DONE.contains(&other) => Err(CommandError::NotDone),
            _ => Err(CommandError::Unknown),
        }
    }
}

fn number(arg: &str) -> Result<u64, CommandError> {
    let digits = !arg.is_empty() && arg.bytes().all(|b| b.is_ascii_digit());
    if digits { arg.parse().map_err(|_| CommandError::Argument) } else { Err(CommandError::Argument) }
}

fn only(arg: &str, done: &str, command: Command) -> Result<Command, CommandError> {
    match arg.trim() {
        "" => Err(CommandError::Argument),
        arg if arg.eq_ignore_ascii_case(done) => Ok(command),
        _ => Err(CommandError::Parameter),
    }
}

/// RFC 4217, section 4; SSL, TLS-C and TLS-P are older names.
fn auth(arg: &str) -> Result<Command, CommandError> {
    match arg.trim().to_ascii_uppercase().as_str() {
        "TLS" | "TLS-C" | "SSL" => Ok(Command::Auth),
        "" => Err(CommandError::Argument),
        _ => Err(CommandError::Parameter),
    }
}

fn prot(arg: &str) -> Result<Command, CommandError> {
    match arg.trim().to_ascii_uppercase().as_str() {
        "C" => Ok(Command::Prot(Level::Clear)),
        "P" => Ok(Command::Prot(Level::Private)),
        "S" | "E" => Err(CommandError::Protection),
        "" => Err(CommandError::Argument),
        _ => Err(CommandError::Parameter),
    }
}

fn epsv(arg: &str) -> Result<Command, CommandError> {
    match arg.trim().to_ascii_uppercase().as_str() {
        "" => Ok(Command::Epsv(Family::Same)),
        "1" => Ok(Command::Epsv(Family::V4)),
        "2" => Ok(Command::Epsv(Family::V6)),
        "ALL" => Ok(Command::Epsv(Family::All)),
        other if number(other).is_ok() => Err(CommandError::Family),
        _ => Err(CommandError::Argument),
    }
}

/// TYPE A (N), I, L 8.
fn representation(arg: &str) -> Result<Command, CommandError> {
    let mut words = arg.split_ascii_whitespace().map(str::to_ascii_uppercase);
    match (words.next().as_deref(), words.next().as_deref(), words.next()) {
        (Some("A"), None | Some("N"), None) => Ok(Command::Type(true)),
        (Some("I"), None, None) | (Some("L"), Some("8"), None) | (Some("L8"), None, None) => Ok(Command::Type(false)),
        (Some("A" | "L" | "E"), _, None) => Err(CommandError::Parameter),
        _ => Err(CommandError::Argument),
    }
}

/// ALLO n, or ALLO n R m: space is found when the bytes come.
fn allo(arg: &str) -> Result<Command, CommandError> {
    let words: Vec<&str> = arg.split_ascii_whitespace().take(4).collect();
    match words[..] {
        [size] => number(size).map(|_| Command::Allo),
        [size, r, record] if r.eq_ignore_ascii_case("R") => {
            number(size)?;
            number(record).map(|_| Command::Allo)
        }
        _ => Err(CommandError::Argument),
    }
}

fn opts(arg: &str) -> Result<Command, CommandError> {
    let (what, rest) = arg.trim().split_once(' ').unwrap_or((arg.trim(), ""));
    match what.to_ascii_uppercase().as_str() {
        // Names are UTF-8 whatever a client says; saying ON always succeeds.
        "UTF8" | "UTF-8" if rest.trim().eq_ignore_ascii_case("OFF") => Err(CommandError::Parameter),
        "UTF8" | "UTF-8" => Ok(Command::OptsUtf8),
        "MLST" => Ok(Command::OptsMlst(rest.trim().to_owned())),
        _ => Err(CommandError::Argument),
    }
}

fn site(arg: &str) -> Result<Command, CommandError> {
    let arg = arg.trim_ascii_start();
    let (word, rest) = arg.split_once(' ').unwrap_or((arg, ""));
    match word.trim_ascii_end().to_ascii_uppercase().as_str() {
        "HELP" => Ok(Command::SiteHelp),
        "CONFLICTS" => Ok(Command::SiteConflicts(rest.to_owned())),
        #[cfg(feature = "next-protocol")]
        "CHMOD" => chmod(rest),
        "" => Err(CommandError::Argument),
        _ => Err(CommandError::Parameter),
    }
}

/// SITE CHMOD, as ProFTPD and others have it: octal digits and a path.
#[cfg(feature = "next-protocol")]
fn chmod(arg: &str) -> Result<Command, CommandError> {
    let (mode, path) = arg.trim_start().split_once(' ').ok_or(CommandError::Argument)?;
    match u16::from_str_radix(mode, 8) {
        Ok(mode) if mode <= 0o7777 && !path.is_empty() => Ok(Command::SiteChmod(mode, path.to_owned())),
        _ => Err(CommandError::Argument),
    }
}

/// Many clients say `LIST -la`, as if this were ls(1). Flags are dropped; a name that begins with a hyphen is reached as
/// `./-name`.
fn without_flags(arg: &str) -> String {
    let mut rest = arg;
    while let Some(flag) = rest.strip_prefix('-') {
        rest = flag.split_once(' ').map_or("", |(_, rest)| rest.trim_start());
    }
    rest.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> Result<Command, CommandError> {
        Command::parse(line.as_bytes())
    }

    #[test]
    fn verbs_are_found_in_any_case_and_names_keep_their_spaces() {
        assert_eq!(parse("stor  a b "), Ok(Command::Stor(" a b ".into())));
        assert_eq!(parse("XMKD ñ"), Ok(Command::Mkd("ñ".into())));
        assert_eq!(parse("PASS  x"), Ok(Command::Pass(Secret(" x".into()))));
        assert_eq!(parse("TYPE L 8"), Ok(Command::Type(false)));
        assert_eq!(parse("type a n"), Ok(Command::Type(true)));
        assert_eq!(parse("site conflicts  a b"), Ok(Command::SiteConflicts(" a b".into())));
        assert_eq!(parse("EPSV all"), Ok(Command::Epsv(Family::All)));
    }

    #[test]
    fn flags_of_ls_are_ignored() {
        assert_eq!(parse("LIST -la"), Ok(Command::List(String::new())));
        assert_eq!(parse("LIST -a -l my dir"), Ok(Command::List("my dir".into())));
        assert_eq!(parse("NLST ./-x"), Ok(Command::Nlst("./-x".into())));
    }

    #[test]
    fn every_mistake_has_its_code() {
        for (line, code) in [
            ("NONSENSE", 500),
            ("", 500),
            ("ÑAM", 500),
            ("STOR", 501),
            ("REST -1", 501),
            ("REST 99999999999999999999", 501),
            ("QUIT now", 501),
            ("EPRT x", 502),
            ("PORT 1,2,3,4,5,6", 502),
            ("MODE Z", 504),
            ("TYPE E", 504),
            ("TYPE X", 501),
            ("AUTH GSSAPI", 504),
            ("PROT S", 536),
            ("EPSV 7", 522),
            #[cfg(not(feature = "next-protocol"))]
            ("SITE CHMOD 644 x", 504),
            ("OPTS NOTHING", 501),
        ] {
            assert_eq!(parse(line).unwrap_err().reply().code(), code, "{line}");
        }
        assert_eq!(Command::parse(b"STOR \xff"), Err(CommandError::NotUtf8));
    }

    #[test]
    fn passwords_are_not_shown() {
        assert!(!format!("{:?}", parse("PASS hush")).contains("hush"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Command::parse(&line);
        }
        #[test]
        fn any_argument_is_parsed_without_panic(verb in "[A-Z]{3,4}", arg in ".{0,40}") {
            let _ = parse(&format!("{verb} {arg}"));
        }
    }
}
