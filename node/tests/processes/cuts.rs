//! Uploads cut half-way, in every way a connection can end: the old version stays, nothing else shows, and the bytes are
//! gone after the collection time.

use crate::cluster::{Cluster, trebol};
use crate::control::{Control, Wire, trust};
use crate::wait::wait_for;
use crate::{Outcome, Story, ensure};
use libtest_mimic::Failed;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[("cuts::leave_the_old_version_and_no_litter", &[], cut_in_every_way)];

/// How an upload ends early.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// The data connection ends under TLS without close_notify.
    Silent,
    /// It is reset.
    Reset,
    /// ABOR, then the data connection ends as it should.
    Aborted,
    /// The client vanishes with all its connections.
    Vanished,
}

/// For collection to happen: its settings in this test are seconds.
const COLLECTED: Duration = Duration::from_secs(60);

fn cut_in_every_way() -> Outcome {
    let environment = [
        ("TREBOL_FTP_REQUIRE_TLS", "false"),
        ("TREBOL_CORE_STAGED_GRACE_S", "2"),
        ("TREBOL_CORE_REPLACED_GRACE_S", "1"),
    ];
    Cluster::run(&environment, |cluster| {
        let old = vec![7; 300_000];
        cluster.session(0)?.put("/kept", &old)?;
        cluster.settle()?;
        let blobs = blobs(cluster)?;
        ensure(blobs == 3, || format!("{blobs} blobs for one file"))?;
        for cut in [Cut::Silent, Cut::Reset, Cut::Aborted, Cut::Vanished] {
            // Half of something small, and of something that is on three disks before it is cut.
            for size in [20_000, 3_000_000] {
                for path in ["/kept", "/new"] {
                    one_cut(cluster, true, cut, path, size, &old)?;
                }
            }
        }
        // A plain connection that just ends is a whole upload: RFC 959 knows no other end of a stream.
        for cut in [Cut::Reset, Cut::Aborted] {
            for path in ["/kept", "/new"] {
                one_cut(cluster, false, cut, path, 3_000_000, &old)?;
            }
        }
        wait_for("the collection of what was cut", COLLECTED, || {
            let left = self::blobs(cluster)?;
            ensure(left == 3, || format!("{left} blobs are left of 3"))
        })?;
        cluster.stop()?;
        (0..5).try_for_each(|node| nothing_unreferenced(cluster, node))
    })
}

fn session(cluster: &Cluster, encrypted: bool, node: usize) -> Outcome<Control> {
    if encrypted {
        return cluster.session(node);
    }
    let mut control = Control::connect(cluster.nodes[node].ftp, &trust(&cluster.ca)?)?;
    control.log_in(&cluster.user, &cluster.password)?;
    Ok(control)
}

fn one_cut(cluster: &Cluster, encrypted: bool, cut: Cut, path: &str, size: usize, old: &[u8]) -> Outcome {
    let what = format!("{cut:?} of {size} bytes to {path}, encrypted: {encrypted}");
    let mut control = session(cluster, encrypted, 1)?;
    let mut data = control.transfer(&format!("STOR {path}"))?;
    data.write_all(&vec![9; size])?;
    data.flush()?;
    match cut {
        Cut::Silent => drop(data),
        Cut::Reset => data.reset()?,
        Cut::Aborted => abort(&mut control, data)?,
        Cut::Vanished => {
            drop(data);
            drop(control);
            control = session(cluster, encrypted, 1)?;
        }
    }
    if matches!(cut, Cut::Silent | Cut::Reset) {
        let reply = control.reply()?;
        ensure(matches!(reply.code, 426 | 451), || format!("{what}: answered {}", reply.text))?;
    }
    // The session goes on, here and elsewhere: as before.
    for control in [&mut control, &mut cluster.session(3)?] {
        let names = control.list("NLST")?;
        ensure(names.lines().eq(["kept"]), || format!("{what}: now there are {names:?}"))?;
        ensure(control.get("/kept")? == old, || format!("{what}: the old version is gone"))?;
    }
    // Its lock is free: the next writer does not wait for a lease.
    let reply = control.put("/kept", old)?;
    ensure(reply.code == 226, || format!("{what}: then {}", reply.text))
}

/// RFC 959: the transfer is answered 426, ABOR itself 226.
fn abort(control: &mut Control, data: Wire) -> Outcome {
    let first = control.command("ABOR")?;
    ensure(first.code == 426, || format!("an aborted STOR was answered {}", first.text))?;
    let second = control.reply()?;
    ensure(second.code == 226, || format!("ABOR was answered {}", second.text))?;
    // The server may have closed it already.
    let _ = data.close();
    Ok(())
}

/// Files of bytes on all disks, finished or not.
fn blobs(cluster: &Cluster) -> Outcome<usize> {
    fn count(directory: &Path) -> Result<usize, Failed> {
        let mut files = 0;
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            files += if path.is_dir() { count(&path)? } else { 1 };
        }
        Ok(files)
    }
    let directories = cluster.nodes.iter().flat_map(|node| ["blobs", "staging"].map(|name| node.data.join(name)));
    directories.filter(|directory| directory.exists()).map(|directory| count(&directory)).sum()
}

/// `verify` counts what no version refers to, small files' bytes in the database among it.
fn nothing_unreferenced(cluster: &Cluster, node: usize) -> Outcome {
    let data = cluster.nodes[node].data.to_str().ok_or("a data directory that is no text")?;
    let (status, said) = trebol(&["verify", "--json", "--data", data], &[])?;
    ensure(status.success(), || said.clone())?;
    let summary: Value = serde_json::from_str(said.lines().last().unwrap_or_default())?;
    ensure(summary["summary"]["unreferenced"] == 0, || format!("node {node}: {summary}"))
}
