//! A path as clients see it: absolute, canonical, UTF-8. It never touches a file system: versions live under blob names,
//! so no client path can reach outside the store.

use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::ops::Bound;
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

    /// What lies strictly below this path in an ordered map of paths: one range, between `/a/` and `/a0`, for `0` follows
    /// the slash. `/a-b`, which sorts between `/a` and `/a/b`, is not in it.
    pub fn below_in<'a, V>(&self, map: &'a BTreeMap<Self, V>) -> btree_map::Range<'a, Self, V> {
        let stem = self.0.trim_end_matches('/');
        let (start, end) = (format!("{stem}/"), format!("{stem}0"));
        map.range::<str, _>((Bound::Excluded(start.as_str()), Bound::Excluded(end.as_str())))
    }

    /// This path with its beginning `from` replaced by `to`, as when a directory is renamed. `from` must be the path itself
    /// or above it.
    pub fn moved(&self, from: &Self, to: &Self) -> Result<Self, PathError> {
        let rest = self.0.strip_prefix(from.0.trim_end_matches('/')).ok_or(PathError::NotCanonical)?;
        let rest = rest.trim_start_matches('/');
        if rest.is_empty() { Ok(to.clone()) } else { to.resolve(&format!("./{rest}")) }
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

/// Ordered and hashed as its text is, so that ranges of paths need no path at their ends.
impl Borrow<str> for FtpPath {
    fn borrow(&self) -> &str {
        &self.0
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

    #[test]
    fn what_lies_below_is_one_range() {
        let paths = ["/a", "/a-b", "/a-b/c", "/a/b", "/a/b/c", "/a0", "/b"].map(|text| (p(text), ()));
        let map = BTreeMap::from(paths);
        let below = |dir: &str| -> Vec<&str> { p(dir).below_in(&map).map(|(path, ())| path.as_str()).collect() };
        assert_eq!(below("/a"), ["/a/b", "/a/b/c"]);
        assert_eq!(below("/a-b"), ["/a-b/c"]);
        assert_eq!(below("/"), map.keys().map(FtpPath::as_str).collect::<Vec<_>>());
        assert!(below("/b").is_empty());
    }

    #[test]
    fn a_moved_path_keeps_what_is_behind_its_directory() {
        assert_eq!(p("/a/b/c").moved(&p("/a"), &p("/x/y")).unwrap(), p("/x/y/b/c"));
        assert_eq!(p("/a").moved(&p("/a"), &p("/x")).unwrap(), p("/x"));
        assert_eq!(p("/a/b").moved(&FtpPath::root(), &p("/x")).unwrap(), p("/x/a/b"));
        assert_eq!(p("/a").moved(&p("/b"), &p("/x")), Err(PathError::NotCanonical));
        let long = p(&format!("/a/{}", vec!["x".repeat(250); 16].join("/")));
        assert_eq!(long.moved(&p("/a"), &p(&format!("/{}", "y".repeat(200)))), Err(PathError::TooLong));
    }
}
