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
