//! A path as clients see it: absolute, canonical, UTF-8. It never touches a file system: versions live under blob names,
//! so no client path can reach outside the store.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Longest name of one component, in bytes (what common file systems allow).
pub const MAX_NAME: usize = 255;
/// Longest whole path, in bytes.
pub const MAX_PATH: usize = 4096;

/// An absolute path without `.`, `..`, empty components, NUL, CR or LF. `/` is the root.
///
/// Ordered bytewise. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FtpPath(Arc<str>);

/// Why a path was refused. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A component is longer than [`MAX_NAME`] or the whole longer than [`MAX_PATH`].
    #[error("name too long")]
    TooLong,
    /// NUL, CR or LF.
    #[error("name contains a control character that FTP cannot carry")]
    Forbidden,
    /// `..` above the root.
    #[error("path leaves the root")]
    OutsideRoot,
    /// Not absolute, or not in canonical form (only from peers and files, never from clients).
    #[error("path is not canonical")]
    NotCanonical,
}

impl FtpPath {
    /// The root directory.
    pub fn root() -> Self {
        Self(Arc::from("/"))
    }

    /// Resolves what a client typed against its working directory. `..` above the root is an error, not the root:
    /// a client that means something outside must be told.
    pub fn resolve(&self, typed: &str) -> Result<Self, PathError> {
        if typed.contains(['\0', '\r', '\n']) {
            return Err(PathError::Forbidden);
        }
        let mut parts: Vec<&str> = if typed.starts_with('/') { vec![] } else { self.components().collect() };
        for part in typed.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop().ok_or(PathError::OutsideRoot)?),
                name if name.len() > MAX_NAME => return Err(PathError::TooLong),
                name => parts.push(name),
            }
        }
        let path = format!("/{}", parts.join("/"));
        if path.len() > MAX_PATH { Err(PathError::TooLong) } else { Ok(Self(path.into())) }
    }

    /// The child `name` of this directory.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        match name {
            "" | "." | ".." => Err(PathError::NotCanonical),
            _ if name.contains('/') => Err(PathError::NotCanonical),
            _ => self.resolve(&format!("./{name}")),
        }
    }

    /// The path as text, beginning with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for `/`.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// The components from the root down; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|c| !c.is_empty())
    }

    /// The directory this path is in, and its name there; `None` for the root.
    pub fn split(&self) -> Option<(Self, &str)> {
        let at = self.0.rfind('/').filter(|_| !self.is_root())?;
        let parent = if at == 0 { Self::root() } else { Self(self.0[..at].into()) };
        Some((parent, &self.0[at + 1..]))
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or("")
    }

    /// True when `self` is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        other.is_root() || self == other || self.0.strip_prefix(&*other.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl TryFrom<String> for FtpPath {
    type Error = PathError;
    fn try_from(text: String) -> Result<Self, PathError> {
        let resolved = Self::root().resolve(&text)?;
        if resolved.as_str() == text { Ok(resolved) } else { Err(PathError::NotCanonical) }
    }
}

impl From<FtpPath> for String {
    fn from(path: FtpPath) -> Self {
        path.0.to_string()
    }
}

impl fmt::Display for FtpPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FtpPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> FtpPath {
        FtpPath::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn resolves_against_the_working_directory() {
        assert_eq!(p("/a/b").resolve("../c").unwrap(), p("/a/c"));
        assert_eq!(p("/a").resolve("/x//y/./").unwrap(), p("/x/y"));
        assert_eq!(p("/a").resolve("..").unwrap(), FtpPath::root());
    }

    #[test]
    fn refuses_what_leaves_the_root_or_cannot_be_carried() {
        assert_eq!(p("/a").resolve("../.."), Err(PathError::OutsideRoot));
        assert_eq!(p("/").resolve("a\0b"), Err(PathError::Forbidden));
        assert_eq!(p("/").resolve(&"x".repeat(256)), Err(PathError::TooLong));
        assert!(FtpPath::try_from("a/b".to_owned()).is_err());
        assert!(FtpPath::try_from("/a//b".to_owned()).is_err());
    }

    #[test]
    fn knows_parents_and_subtrees() {
        assert_eq!(p("/a/b").split(), Some((p("/a"), "b")));
        assert_eq!(p("/a").split(), Some((FtpPath::root(), "a")));
        assert_eq!(FtpPath::root().split(), None);
        assert!(p("/a/b").is_within(&p("/a")) && !p("/ab").is_within(&p("/a")) && p("/a").is_within(&FtpPath::root()));
    }
}
