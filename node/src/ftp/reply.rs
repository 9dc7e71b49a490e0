//! Replies (RFC 959, section 4.2), and the one place where what goes wrong behind the front becomes a code.

use super::data::DataError;
use super::download::SendError;
use crate::cluster::Refusal;
use crate::path::PathError;
use crate::peer::{ReadRefused, Stopped};
use crate::replica::{ReadError, UploadError};
use std::fmt::Write as _;

/// One reply, of one line or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    code: u16,
    /// The lines between the first and the last; empty for a reply of one line.
    middle: Vec<String>,
    first: String,
    last: String,
}

impl Reply {
    /// `code text`.
    pub(crate) fn new(code: u16, text: impl Into<String>) -> Self {
        Self { code, middle: vec![], first: String::new(), last: text.into() }
    }
    /// `code-first`, each of `middle` after one space, `code last`.
    pub(crate) fn lines(code: u16, first: &str, middle: Vec<String>, last: &str) -> Self {
        Self { code, middle, first: first.to_owned(), last: last.to_owned() }
    }
    /// The three digits.
    pub(crate) fn code(&self) -> u16 {
        self.code
    }
    /// The text of the last line.
    pub(crate) fn text(&self) -> &str {
        &self.last
    }
    /// As it goes on the wire, all lines at once.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = String::new();
        let code = self.code;
        if !self.middle.is_empty() {
            let _ = write!(out, "{code}-{}\r\n", one_line(&self.first));
            for line in &self.middle {
                // The space keeps a line that begins with digits from looking like the last one.
                let _ = write!(out, " {}\r\n", one_line(line));
            }
        }
        let _ = write!(out, "{code} {}\r\n", one_line(&self.last));
        out.into_bytes()
    }
}

/// A text that cannot end its line early. Paths hold no CR or LF; texts of errors might.
fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

/// A path between quotes, quotes in it doubled (RFC 959, appendix II).
pub(crate) fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('"', "\"\""))
}

fn sentence(error: &impl ToString) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), chars.as_str()))
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::NotFound
            | Refusal::NoParent
            | Refusal::Exists
            | Refusal::IsDirectory
            | Refusal::NotDirectory
            | Refusal::NotEmpty
            | Refusal::TooMuch => 550,
            // The name is not allowed, whatever is there.
            Refusal::Reserved | Refusal::IntoItself | Refusal::TooLong => 553,
            Refusal::TooFewCopies => 452,
            Refusal::Busy | Refusal::LockWait | Refusal::Changed | Refusal::TooManyExtents | Refusal::NotYet => 450,
            Refusal::NoLeader | Refusal::Unknown => 451,
            Refusal::Stalled => 426,
            // No verb of FTP asks for that.
            Refusal::NodeAlive | Refusal::NoSuchNode => 550,
        };
        Self::new(code, sentence(&refusal))
    }
}

/// The node stops: a reply of this code is the session's last.
pub(crate) const STOPPED: u16 = 421;

impl From<Stopped> for Reply {
    fn from(stopped: Stopped) -> Self {
        Self::new(STOPPED, sentence(&stopped))
    }
}

impl From<ReadRefused> for Reply {
    fn from(refused: ReadRefused) -> Self {
        match refused {
            ReadRefused::Behind => Self::new(451, sentence(&refused)),
            ReadRefused::Stopped(stopped) => stopped.into(),
        }
    }
}

impl From<UploadError> for Reply {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Refused(refusal) => refusal.into(),
            UploadError::Source(_) => Self::new(426, format!("{} Nothing was changed.", sentence(&error))),
            UploadError::NoReplica(_) => Self::new(452, sentence(&error)),
            UploadError::Base(error) => error.into(),
            UploadError::Stopped => Stopped.into(),
        }
    }
}

impl From<ReadError> for Reply {
    fn from(error: ReadError) -> Self {
        let code = match error {
            ReadError::NoReplica => 450,
            ReadError::Damaged => 451,
            // RFC 3659, section 5.4.
            ReadError::BeyondEnd => 554,
        };
        Self::new(code, sentence(&error))
    }
}

impl From<PathError> for Reply {
    fn from(error: PathError) -> Self {
        let code = match error {
            PathError::Forbidden | PathError::NotCanonical => 501,
            PathError::TooLong => 553,
            PathError::OutsideRoot => 550,
        };
        Self::new(code, sentence(&error))
    }
}

impl From<DataError> for Reply {
    fn from(error: DataError) -> Self {
        let code = match error {
            DataError::NotAsked | DataError::NotOpened => 425,
            // RFC 4217, section 10.2.
            DataError::Handshake(_) => 522,
            DataError::Stalled | DataError::Cut(_) => 426,
        };
        Self::new(code, sentence(&error))
    }
}

impl From<SendError> for Reply {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Data(error) => error.into(),
            SendError::Read(_) | SendError::Disk(_) => Self::new(451, sentence(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_lines_are_well_formed_whatever_they_hold() {
        let reply = Reply::lines(211, "Features", vec!["211 UTF8".into(), "a\r\nb".into()], "End");
        assert_eq!(reply.encode(), b"211-Features\r\n 211 UTF8\r\n a  b\r\n211 End\r\n");
        assert_eq!(Reply::new(200, "Ok").encode(), b"200 Ok\r\n");
    }

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(quoted("/a\"b"), "\"/a\"\"b\"");
    }

    #[test]
    fn failures_that_may_pass_are_told_apart_from_those_that_stay() {
        assert_eq!(Reply::from(Refusal::NotFound).code(), 550);
        assert_eq!(Reply::from(Refusal::LockWait).code(), 450);
        assert_eq!(Reply::from(UploadError::Refused(Refusal::Unknown)).code(), 451);
        assert_eq!(Reply::from(UploadError::NoReplica("disk full".into())).code(), 452);
        assert_eq!(Reply::from(PathError::OutsideRoot).code(), 550);
        assert_eq!(Reply::from(ReadError::BeyondEnd).text(), "Offset beyond the end of the file.");
    }
}
