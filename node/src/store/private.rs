//! Directories that only their owner enters (mode 0700): what clients stored is nobody else's on this machine. Modes are
//! given when a directory is made, not afterwards; never the process's umask, which all threads share.

use super::error::OpenError;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// Of group and others.
const FOREIGN: u32 = 0o077;

/// Makes `dir` unless it is there. Directories above it, where missing, get the usual mode.
pub(super) fn make(dir: &Path) -> Result<(), OpenError> {
    let made = match dir.parent() {
        Some(above) if !above.as_os_str().is_empty() => std::fs::create_dir_all(above),
        _ => Ok(()),
    };
    let made = made.and_then(|()| match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        made => made,
    });
    made.map_err(OpenError::io("create", dir))
}

/// Takes from group and others what they may do in `dir`; whether that was anything.
pub(super) fn tighten(dir: &Path) -> Result<bool, OpenError> {
    let mode = dir.metadata().map_err(OpenError::io("look at", dir))?.permissions().mode();
    if mode & FOREIGN == 0 {
        return Ok(false);
    }
    let tight = Permissions::from_mode(mode & 0o7777 & !FOREIGN);
    std::fs::set_permissions(dir, tight).map_err(OpenError::io("close to other users", dir))?;
    Ok(true)
}

/// What may be in a directory that no node has used yet: the traces of a first start that was cut short, and of mounting.
const FAMILIAR: [&str; 9] = [
    "lock",
    "database",
    "blobs",
    "staging",
    "control.sock",
    "endpoints.json",
    "identity.json",
    "peers.json",
    "lost+found",
];

/// Refuses a directory that is somebody else's, before anything in it or about it is changed.
pub(super) fn refuse_foreign(dir: &Path) -> Result<(), OpenError> {
    if dir.join("identity.json").exists() {
        return Ok(());
    }
    for entry in dir.read_dir().map_err(OpenError::io("look into", dir))? {
        let name = entry.map_err(OpenError::io("look into", dir))?.file_name();
        let familiar = name.to_str().is_some_and(|n| FAMILIAR.iter().any(|f| n.starts_with(f)));
        if !familiar {
            return Err(OpenError::Foreign(dir.to_owned()));
        }
    }
    Ok(())
}

/// Both.
pub(super) fn directory(dir: &Path) -> Result<(), OpenError> {
    make(dir)?;
    tighten(dir)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use std::path::PathBuf;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        std::fs::write(dir.path().join("letter"), "dear").unwrap();
        let (persisted, _reports) = tokio::sync::mpsc::channel(1);
        let refused = Store::open(dir.path(), persisted);
        assert!(matches!(refused, Err(OpenError::Foreign(_))));
        assert_eq!(mode(dir.path()), 0o755);
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_data_directory_is_its_owners_alone_made_or_found() {
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        let dir = root.path().join("above/data");
        let parts: [PathBuf; 5] = ["", "database", "staging", "blobs", "blobs/7f"].map(|part| dir.join(part));
        for _ in 0..2 {
            drop(Store::open(&dir, tokio::sync::mpsc::channel(4).0).unwrap());
            for part in &parts {
                assert_eq!(mode(part), 0o700, "{part:?}");
                std::fs::set_permissions(part, Permissions::from_mode(0o755)).unwrap();
            }
        }
        assert_eq!(mode(root.path()), 0o755, "what is above is not ours");
    }

    #[test]
    fn a_file_in_its_place_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("data");
        std::fs::write(&file, "x").unwrap();
        assert!(matches!(directory(&file), Err(OpenError::Io { context: "create", .. })));
    }
}
