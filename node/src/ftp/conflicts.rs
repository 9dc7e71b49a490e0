//! The view of conflicts: `/.conflicts` in what a user sees mirrors the directories, and shows each version of a file that
//! lost as `<name>.<stamp>.<node>`. Names are made and read here, and looked up; nothing of the view is stored anywhere.
//!
//! - The stamp is when the version was logged, in UTC, and its place in the log: `20251124T120000,123456Z-3-9f86d081884c7d65-12`
//!   is the 12th record of epoch 3 with that nonce. The time is for people and not unique; the place is.
//! - The node is one that held the bytes when the version was logged, by the first eight digits of its id: it tells the side
//!   of a partition. Like the stamp it never changes, wherever the bytes are moved.
//! - A name that would get longer than names may be keeps its beginning, and `~` and its hash stand for the rest. So do
//!   names that look like that by themselves, or two could be shown as one.
//!
//! What is left of the last two dots is therefore the name, whatever dots it has, and a name in the view means one version
//! or none. If a directory has exactly the name of a loser beside it, the name is the loser's.

use super::files::Files;
use super::listing::date;
use crate::cluster::{CONFLICTS, Epoch, File, Head, Location, Position, Version};
use crate::path::{FtpPath, MAX_NAME};
use crate::store::Row;

/// Digits of the hash of a name, 128 bits.
const HASH: usize = 32;
/// Names looked through at a time.
const PAGE: usize = 512;

/// Where a path of a client leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// To a path of the cluster.
    Tree(FtpPath),
    /// Into the view of conflicts, where this path of the cluster would be mirrored.
    Conflicts(FtpPath),
}

/// What is at a place of the view.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    /// A version that lost.
    Loser(Box<Loser>),
    /// A directory that mirrors one with losers in it.
    Directory,
}

/// A version that lost.
#[derive(Debug, Clone)]
pub(crate) struct Loser {
    /// Its path.
    pub(crate) path: FtpPath,
    /// Which version of that.
    pub(crate) position: Position,
    /// What it was.
    pub(crate) file: File,
    /// Where its bytes are.
    pub(crate) location: Location,
}

impl Place {
    /// The path as the cluster knows it, or mirrors it.
    pub(crate) fn path(&self) -> &FtpPath {
        match self {
            Self::Tree(path) | Self::Conflicts(path) => path,
        }
    }
    /// The directory that this place is in, and its name there.
    pub(crate) fn split(&self) -> Option<(Self, &str)> {
        let (parent, name) = self.path().split()?;
        let parent = if matches!(self, Self::Tree(_)) { Self::Tree(parent) } else { Self::Conflicts(parent) };
        Some((parent, name))
    }
}

/// What of a path that a client sees is behind `/.conflicts`, if it is there.
pub(crate) fn within_view(seen: &FtpPath) -> Option<&str> {
    let rest = seen.as_str().strip_prefix('/')?.strip_prefix(CONFLICTS)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// How a version of a file called `name` is called in the view.
pub(crate) fn shown(name: &str, head: &Head) -> String {
    let Position { epoch: Epoch(counter, nonce), seq } = head.position;
    let time = date(head.hlc.0, "%Y%m%dT%H%M%S");
    let side = match &head.what {
        Version::File(file) => file.replicas.first().map(|node| node.to_string()[..8].to_owned()),
        _ => None,
    };
    let suffix = format!(
        ".{time},{:06}Z-{counter}-{nonce:016x}-{seq}.{}",
        head.hlc.0 % 1_000_000,
        side.as_deref().unwrap_or("unknown")
    );
    let room = MAX_NAME - suffix.len();
    if name.len() <= room && shortened(name).is_none() {
        return format!("{name}{suffix}");
    }
    let kept = &name[..boundary(name, room - 1 - HASH)];
    format!("{kept}~{}{suffix}", hash(name))
}

/// The name and the place in the log that a name of the view says. That there is such a version is not said by that.
fn read(shown: &str) -> Option<(&str, Position)> {
    let (rest, _side) = shown.rsplit_once('.')?;
    let (name, stamp) = rest.rsplit_once('.')?;
    let mut parts = stamp.split('-').skip(1);
    let (counter, nonce, seq) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?.parse().ok()?);
    let nonce = u64::from_str_radix(nonce, 16).ok()?;
    Some((name, Position { epoch: Epoch(counter, nonce), seq }))
}

/// What was kept of a name, and its hash, if it looks shortened.
fn shortened(name: &str) -> Option<(&str, &str)> {
    let (kept, hash) = name.rsplit_once('~')?;
    let digits = hash.len() == HASH && hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    digits.then_some((kept, hash))
}

/// The greatest number of bytes up to `most` that ends with a whole character.
fn boundary(name: &str, most: usize) -> usize {
    (0..=most.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0)
}

fn hash(name: &str) -> String {
    blake3::hash(name.as_bytes()).to_hex()[..HASH].to_owned()
}

/// What the view has at the mirrored `path`; `root` is what its own root mirrors, which is always there. Blocking.
pub(crate) fn entry(files: &dyn Files, path: &FtpPath, root: &FtpPath) -> Option<Entry> {
    if path == root {
        return Some(Entry::Directory);
    }
    let loser = || loser(files, path).map(|loser| Entry::Loser(Box::new(loser)));
    loser().or_else(|| (!files.conflicts(path, None, 1).is_empty()).then_some(Entry::Directory))
}

fn loser(files: &dyn Files, path: &FtpPath) -> Option<Loser> {
    let (dir, typed) = path.split()?;
    let (name, position) = read(typed)?;
    let of = |name: &str| {
        let path = dir.join(name).ok()?;
        let head = files.losers(&path).into_iter().find(|head| head.position == position)?;
        // Only the one name that is shown: not one with zeros in front, or with another side.
        if shown(name, &head) != typed {
            return None;
        }
        let Version::File(file) = head.what else { return None };
        Some(Loser { path, position, file, location: head.location })
    };
    let Some((kept, digits)) = shortened(name) else { return of(name) };
    let (mut after, mut candidates) = (kept.to_owned(), vec![kept.to_owned()]);
    loop {
        if let Some(found) = candidates.iter().filter(|name| hash(name) == digits).find_map(|name| of(name)) {
            return Some(found);
        }
        if !after.starts_with(kept) {
            return None;
        }
        let page = files.conflicts(&dir, Some(&after), PAGE);
        after = page.last()?.name.clone();
        candidates = page.into_iter().map(|child| child.name).collect();
    }
}

/// Rows of a directory of the view, for up to `limit` names beyond `after`, and where to go on, if there may be more.
/// Blocking.
pub(crate) fn list(files: &dyn Files, dir: &FtpPath, after: Option<&str>, limit: usize) -> (Vec<Row>, Option<String>) {
    let page = files.conflicts(dir, after, limit);
    let next = page.last().filter(|_| page.len() == limit).map(|child| child.name.clone());
    let mut rows = vec![];
    for child in page {
        let Ok(path) = dir.join(&child.name) else { continue };
        if child.below {
            rows.push(Row { name: child.name.clone(), directory: true, size: 0, modified: 0 });
        }
        let losers = if child.itself { files.losers(&path) } else { vec![] };
        for head in losers {
            let Version::File(file) = &head.what else { continue };
            let name = shown(&child.name, &head);
            rows.push(Row { name, directory: false, size: file.size, modified: file.modified });
        }
    }
    (rows, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Hash, Hlc, NodeId, OpId};
    use proptest::prelude::*;

    fn head(hlc: u64, position: Position, node: Option<u128>) -> Head {
        let replicas = node.map(NodeId).into_iter().collect();
        let what = Version::File(File {
            extents: vec![],
            size: 3,
            hash: Some(Hash([1; 32])),
            modified: 1,
            replicas,
            ..File::default()
        });
        Head { position, hlc: Hlc(hlc), op: OpId(1), confirmed: true, what, location: Location::default() }
    }
    fn at(counter: u64, nonce: u64, seq: u64) -> Position {
        Position { epoch: Epoch(counter, nonce), seq }
    }

    #[test]
    fn a_name_says_when_where_in_the_log_and_on_whose_side() {
        let lost = head(1_763_985_600_123_456, at(3, 0x9f86_d081_884c_7d65, 12), Some(0xabcd_ef01 << 96));
        let name = shown("a.tar.gz", &lost);
        assert_eq!(name, "a.tar.gz.20251124T120000,123456Z-3-9f86d081884c7d65-12.abcdef01");
        assert_eq!(read(&name), Some(("a.tar.gz", lost.position)));
        assert!(shown("f", &head(0, at(1, 1, 1), None)).ends_with("-1.unknown"));
    }

    #[test]
    fn what_is_in_the_view_is_told_by_the_first_name() {
        let p = |text: &str| FtpPath::try_from(text.to_owned()).unwrap();
        for (path, rest) in [("/.conflicts", Some("")), ("/.conflicts/a/b", Some("/a/b")), ("/.conflictsx", None)] {
            assert_eq!(within_view(&p(path)), rest);
        }
        assert_eq!((within_view(&p("/")), within_view(&p("/d/.conflicts"))), (None, None));
    }

    #[test]
    fn a_name_that_looks_shortened_is_shortened() {
        let (long, lost) = ("ñ".repeat(127), head(5, at(1, 2, 3), Some(1)));
        let name = shown(&long, &lost);
        assert!((MAX_NAME - 1..=MAX_NAME).contains(&name.len()), "{name}");
        let (twin, _) = read(&name).unwrap();
        assert_ne!(shown(twin, &lost), name, "or two files that one record names would have one name");
    }

    /// Names of files: anything that is no path, and what could be taken for the names made here.
    fn any_name() -> impl Strategy<Value = String> {
        let hostile = prop_oneof![
            "[^/\0\r\n]{1,255}",
            "[ -.\"'~*?\\\\]{1,20}",
            "[xñ日]{80,255}",
            "[a-z]{0,3}(~[0-9a-f]{32}){1,6}",
            "[a-z.]{0,9}(\\.20251124T120000,123456Z-3-9f86d081884c7d65-12\\.abcdef01){1,4}",
        ];
        let cut = |name: String| name[..boundary(&name, MAX_NAME)].to_owned();
        hostile.prop_map(cut).prop_filter("no name", |name| !matches!(name.as_str(), "" | "." | ".."))
    }
    fn any_head() -> impl Strategy<Value = Head> {
        (any::<u64>(), any::<[u64; 3]>(), any::<Option<u128>>())
            .prop_map(|(hlc, [counter, nonce, seq], node)| head(hlc, at(counter, nonce, seq), node))
    }

    proptest! {
        #[test]
        fn names_fit_and_are_read_back(name in any_name(), lost in any_head()) {
            let shown = shown(&name, &lost);
            prop_assert!(FtpPath::root().join(&shown).is_ok(), "{shown}");
            let (base, position) = read(&shown).unwrap();
            prop_assert_eq!(position, lost.position);
            match shortened(base) {
                None => prop_assert_eq!(base, name),
                Some((kept, digits)) => prop_assert!(name.starts_with(kept) && hash(&name) == digits),
            }
        }
        #[test]
        fn two_names_of_one_record_are_two(a in any_name(), b in any_name(), lost in any_head()) {
            prop_assert_eq!(a == b, shown(&a, &lost) == shown(&b, &lost));
            // Nor is the name that stands for a long one.
            let name = shown(&a, &lost);
            let (twin, _) = read(&name).unwrap();
            prop_assert!(twin == a || shown(twin, &lost) != name);
        }
        #[test]
        fn anything_is_read_without_panic(name in any_name()) {
            let _ = read(&name);
        }
    }
}
