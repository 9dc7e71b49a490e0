//! The files of a machine without a registry, as a tar: this machine's own engine with every library it links, or Debian's
//! packages.

use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Changes when what is put together here does.
pub(super) const EDITION: &str = "1";
/// What an engine and images/host/start run. The first names must be there.
const PROGRAMS: [&str; 8] =
    ["dockerd", "containerd", "containerd-shim-runc-v2", "runc", "docker-proxy", "iptables", "mount", "mkdir"];
/// What they run if it is there.
const HANDY: [&str; 6] = ["docker-init", "ip6tables", "ip", "tc", "modprobe", "unpigz"];
/// Where programs are looked for, beside the search path of who runs this.
const PLACES: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Where Debian's and others' iptables keep what they load when they run.
const XTABLES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/xtables",
    "/usr/lib/aarch64-linux-gnu/xtables",
    "/usr/lib64/xtables",
    "/usr/lib/xtables",
];
const DIRECTORIES: [&str; 9] =
    ["dev/", "etc/", "machine/", "proc/", "run/", "sys/", "tmp/", "var/lib/docker/", "usr/local/bin/"];

/// From the programs of this machine. Blocking.
pub(super) fn from_this_machine() -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(true);
    for directory in DIRECTORIES {
        entry(&mut tar, directory, tar::EntryType::Directory, 0o755, b"")?;
    }
    entry(&mut tar, "etc/passwd", tar::EntryType::Regular, 0o644, b"root:x:0:0:root:/:/bin/sh\n")?;
    entry(&mut tar, "etc/group", tar::EntryType::Regular, 0o644, b"root:x:0:\n")?;
    let mut run = tar::Header::new_gnu();
    run.set_entry_type(tar::EntryType::Symlink);
    run.set_size(0);
    tar.append_link(&mut run, "var/run", "../run")?;

    let mut libraries = BTreeSet::new();
    let shell = std::fs::canonicalize("/bin/sh").context("this machine has no /bin/sh")?;
    let mut programs = vec![(PathBuf::from("bin/sh"), shell)];
    for name in PROGRAMS {
        programs.push(named(name).with_context(|| format!("this machine has no {name}"))?);
    }
    programs.extend(HANDY.into_iter().filter_map(named));
    for (inside, outside) in programs {
        libraries.extend(linked(&outside)?);
        tar.append_path_with_name(&outside, &inside).with_context(|| format!("cannot read {}", outside.display()))?;
    }
    for plugin in XTABLES.iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten() {
        let path = plugin.context("cannot list what iptables loads")?.path();
        libraries.extend(linked(&path)?);
        libraries.insert(path);
    }
    for library in libraries {
        let inside = library.strip_prefix("/").unwrap_or(&library);
        tar.append_path_with_name(&library, inside).with_context(|| format!("cannot read {}", library.display()))?;
    }
    tar.into_inner().context("the files of a machine cannot be put together")
}

fn entry(tar: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content).context("the files of a machine cannot be put together")
}

/// Where a program shall be inside, under the name it is called by, and the file that it is.
pub fn named(name: &str) -> Option<(PathBuf, PathBuf)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::split_paths(&path).collect::<Vec<_>>();
    let places = own.into_iter().chain(PLACES.map(PathBuf::from));
    let file = places.map(|place| place.join(name)).find_map(|file| std::fs::canonicalize(file).ok())?;
    Some((Path::new("usr/bin").join(name), file))
}

/// The libraries that a program or library loads, by the names it loads them by.
pub fn linked(file: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(file).stdin(Stdio::null()).output().context("cannot run ldd")?;
    // Of a static program it says so and fails.
    let text = String::from_utf8_lossy(&output.stdout);
    let paths = text.lines().flat_map(str::split_whitespace).filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).filter(|path| path != file).collect())
}

/// From Debian's packages: a minute, and half a GiB.
pub(super) async fn from_packages() -> Result<Vec<u8>> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let root = dir.path().join("root");
    let mut bootstrap = tokio::process::Command::new("debootstrap");
    bootstrap.args(["--variant=minbase", "--include=docker.io,iptables,iproute2,ca-certificates", "stable"]).arg(&root);
    let output = bootstrap.stdin(Stdio::null()).kill_on_drop(true).output().await.context("cannot run debootstrap")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        bail!("debootstrap fails: {}", said.lines().last().unwrap_or("without a word"));
    }
    let pack = move || -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        tar.follow_symlinks(false);
        tar.append_dir_all(".", &root).context("cannot pack what debootstrap made")?;
        entry(&mut tar, "machine/", tar::EntryType::Directory, 0o755, b"")?;
        tar.into_inner().context("cannot pack what debootstrap made")
    };
    let packed = tokio::task::spawn_blocking(pack).await.context("what debootstrap made was not packed")?;
    drop(dir);
    packed
}
