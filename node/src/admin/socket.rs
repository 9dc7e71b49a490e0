//! Unix sockets by path, however long the path: the kernel takes 107 bytes (unix(7)), so a long one is reached through the
//! directory's descriptor under /proc/self/fd. Never leaves a socket that others may open, where the directory is closed to
//! them.

use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// Longest path handed to the kernel as it is, in bytes.
const PATH_MAX: usize = 100;

/// A short name for `dir`, valid as long as the descriptor lives.
fn short(dir: &Path) -> io::Result<(PathBuf, Option<OwnedFd>)> {
    // Room for the longest name put behind it.
    if dir.as_os_str().len() + "/control.sock.new".len() <= PATH_MAX {
        return Ok((dir.to_owned(), None));
    }
    let fd = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())), Some(fd)))
}

/// Listens on `dir/name`, in place of whatever is there; only for who holds the directory's lock. bind(2) takes no mode and
/// the umask belongs to all threads, so what keeps others out from the first moment is the directory, which the store
/// closes to them (0700). The socket's own mode comes before its name, for directories that somebody opens again.
pub(super) fn listen(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let (short, _fd) = short(dir)?;
    let draft = short.join(format!("{name}.new"));
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&draft)?;
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&draft, short.join(name))?;
    Ok(listener)
}

/// Connects to `dir/name`.
pub(super) async fn connect(dir: &Path, name: &str) -> io::Result<UnixStream> {
    let (short, _fd) = short(dir)?;
    UnixStream::connect(short.join(name)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::DirBuilderExt;

    #[tokio::test]
    async fn sockets_work_in_directories_of_any_length_and_are_private() {
        let root = tempfile::tempdir().unwrap();
        for name in ["short".to_owned(), "long".repeat(50)] {
            let dir = root.path().join(name);
            std::fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
            let _stale = listen(&dir, "s").unwrap();
            let listener = listen(&dir, "s").unwrap();
            let (accepted, connected) = tokio::join!(listener.accept(), connect(&dir, "s"));
            assert!(accepted.is_ok() && connected.is_ok());
            assert_eq!(std::fs::metadata(dir.join("s")).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
