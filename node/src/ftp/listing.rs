//! Lines of listings: like `ls -l` for LIST, facts for MLSD and MLST (RFC 3659, section 7), names for NLST; and the globs
//! of their arguments. Times are UTC. It formats what it is given and reads nothing.

use crate::cluster::Micros;
use crate::store::Row;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Half a year: `ls -l` shows the time of day of what is younger.
const RECENT: Micros = 182 * 24 * 3600 * 1_000_000;

/// Which facts a client wants; chosen by OPTS MLST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts([bool; 4]);

const FACTS: [&str; 4] = ["type", "size", "modify", "perm"];

impl Default for Facts {
    fn default() -> Self {
        Self([true; 4])
    }
}

impl Facts {
    /// From the argument of OPTS MLST: names ended by semicolons; unknown ones are ignored, as RFC 3659 says.
    pub(crate) fn choose(text: &str) -> Self {
        let wanted = |fact: &&str| text.split(';').any(|name| name.trim().eq_ignore_ascii_case(fact));
        Self(FACTS.map(|fact| wanted(&fact)))
    }
    /// As FEAT shows them: a star for those that are on.
    pub(crate) fn features(self) -> String {
        FACTS.iter().zip(self.0).map(|(fact, on)| format!("{fact}{};", if on { "*" } else { "" })).collect()
    }
    /// Those that are on.
    pub(crate) fn chosen(self) -> String {
        FACTS.iter().zip(self.0).filter(|(_, on)| *on).map(|(fact, _)| format!("{fact};")).collect()
    }
}

/// What an entry is, for the `type` fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file.
    File,
    /// A directory in the one listed.
    Directory,
    /// The directory listed itself.
    Current,
    /// The one above it.
    Parent,
}

/// What a user may do with entries, for modes and the `perm` fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// All.
    Change,
    /// Read, delete and rename files, but make none: in the view of conflicts.
    Settle,
    /// Read.
    Read,
}

/// One entry as MLSD and MLST show it, without a line end. `name` is the name or, for MLST, the path.
pub(crate) fn facts(
    facts: Facts,
    kind: Kind,
    size: u64,
    modified: Option<Micros>,
    access: Access,
    name: &str,
) -> String {
    let Facts([kind_on, size_on, modify_on, perm_on]) = facts;
    let mut out = String::with_capacity(80 + name.len());
    if kind_on {
        out += match kind {
            Kind::File => "type=file;",
            Kind::Directory => "type=dir;",
            Kind::Current => "type=cdir;",
            Kind::Parent => "type=pdir;",
        };
    }
    if size_on && kind == Kind::File {
        out += &format!("size={size};");
    }
    if let Some(modified) = modified.filter(|_| modify_on) {
        out += &format!("modify={};", time_val(modified));
    }
    if perm_on {
        out += match (kind, access) {
            (Kind::File, Access::Change) => "perm=dfrw;",
            (Kind::File, Access::Settle) => "perm=dfr;",
            (Kind::File, Access::Read) => "perm=r;",
            (_, Access::Change) => "perm=cdelmp;",
            (_, Access::Settle | Access::Read) => "perm=el;",
        };
    }
    out.push(' ');
    out += name;
    out
}

/// One entry as LIST shows it, without a line end. `now` decides between time of day and year.
pub(crate) fn long(row: &Row, now: Micros, access: Access) -> String {
    let mode = match (row.directory, access != Access::Change) {
        (true, false) => "drwxr-xr-x",
        (true, true) => "dr-xr-xr-x",
        (false, false) => "-rw-r--r--",
        (false, true) => "-r--r--r--",
    };
    let recent = row.modified + RECENT > now && row.modified <= now + 24 * 3600 * 1_000_000;
    let date = date(row.modified, if recent { "%b %e %H:%M" } else { "%b %e  %Y" });
    format!("{mode} 1 trebol   trebol   {:>12} {date} {}", row.size, row.name)
}

/// `YYYYMMDDHHMMSS` (RFC 3659, section 2.3).
pub(crate) fn time_val(modified: Micros) -> String {
    date(modified, "%Y%m%d%H%M%S")
}

/// A time in UTC, in the words of strftime(3).
pub(crate) fn date(modified: Micros, format: &str) -> String {
    let time = i64::try_from(modified).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
    time.unwrap_or_default().to_zoned(TimeZone::UTC).strftime(format).to_string()
}

/// Whether a name holds wildcards.
pub(crate) fn is_glob(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// Whether `name` fits `pattern`: `*` is any text, `?` any one character. Linear in memory, at worst quadratic in time.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go on when a guess at what the last star covers was wrong.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star, covered)) = retry else { return false };
                retry = Some((star, covered + 1));
                p = star;
                n = covered + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOON: Micros = 1_763_985_600_000_000; // 2025-11-24T12:00:00Z

    fn row(name: &str, directory: bool, size: u64, modified: Micros) -> Row {
        Row { name: name.into(), directory, size, modified }
    }

    #[test]
    fn long_lines_look_like_ls() {
        let file = long(&row("a b", false, 12, NOON), NOON + 1, Access::Change);
        assert_eq!(file, "-rw-r--r-- 1 trebol   trebol             12 Nov 24 12:00 a b");
        let old = long(&row("d", true, 0, 0), NOON, Access::Read);
        assert_eq!(old, "dr-xr-xr-x 1 trebol   trebol              0 Jan  1  1970 d");
    }

    #[test]
    fn facts_hold_no_space_and_names_keep_theirs() {
        let all = Facts::default();
        assert_eq!(
            facts(all, Kind::File, 7, Some(NOON), Access::Change, "a b"),
            "type=file;size=7;modify=20251124120000;perm=dfrw; a b"
        );
        assert_eq!(facts(all, Kind::Current, 0, None, Access::Read, "."), "type=cdir;perm=el; .");
        let some = Facts::choose("Size;unknown;TYPE;");
        assert_eq!((some.features().as_str(), some.chosen().as_str()), ("type*;size*;modify;perm;", "type;size;"));
        assert_eq!(facts(Facts::choose(""), Kind::File, 7, Some(NOON), Access::Settle, "x"), " x");
    }

    #[test]
    fn globs_fit_as_in_a_shell() {
        for (pattern, name, fit) in [
            ("*", "", true),
            ("*.txt", "a.txt", true),
            ("*.txt", "a.txt.gz", false),
            ("a*b*c", "a-b-b-c", true),
            ("?", "ñ", true),
            ("?", "", false),
            ("a**", "a", true),
            ("abc", "abd", false),
        ] {
            assert_eq!(fits(pattern, name), fit, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_fits_itself_and_any_part_starred(name in "[a-c*?]{0,12}", cut in 0..12usize) {
            prop_assert!(fits(&name, &name));
            let cut = cut.min(name.len());
            let starred = [&name[..cut], "*"].concat();
            prop_assert!(fits(&starred, &name));
        }
        #[test]
        fn any_time_is_formatted(modified in any::<u64>()) {
            prop_assert_eq!(time_val(modified).len(), 14);
        }
    }
}
