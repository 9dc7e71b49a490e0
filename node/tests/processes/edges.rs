//! What operators should not do, and what machines do to them: typos, taken ports, held directories, full disks. One clear
//! sentence each, and no file suffers.

use crate::clients::succeed;
use crate::cluster::{Cluster, STOP, TREBOL, trebol};
use crate::verify::{Surplus, all_whole};
use crate::wait::wait_for;
use crate::{Outcome, Story, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("edges::a_typo_in_the_settings_is_named", &[], typo),
    ("edges::a_port_in_use_is_named", &[], port_in_use),
    ("edges::a_held_data_directory_is_waited_for_or_refused", &[], held_directory),
    ("edges::a_full_disk_on_one_replica_is_no_error", &["mount"], full_disk),
];

/// A disk too small for its share of the files below, large enough for the log.
const SMALL_DISK: &str = "size=64m";
/// Files sent to a cluster with such a disk until it is full, at most, and bytes of each. Placement goes by disk use: when
/// the others hold more than such a disk can, it must be chosen.
const FULL: (usize, usize) = (64, 8 << 20);

fn typo() -> Outcome {
    Cluster::run(&[], |cluster| {
        let good = fs::read_to_string(cluster.settings(0)?)?;
        let file = cluster.scratch("typo")?.join("trebol.toml");
        fs::write(&file, good.replace("[ftp]", "[ftp]\nlissten = \"127.0.0.1:0\""))?;
        let (status, said) = trebol(&["serve", "--config", file.to_str().ok_or("no text")?], &[])?;
        ensure(status.code() == Some(2), || format!("a typo ends with {status}: {said}"))?;
        ensure(said.contains("lissten") && said.contains("\"listen\""), || format!("no word of the typo: {said}"))
    })
}

fn port_in_use() -> Outcome {
    Cluster::run(&[], |cluster| {
        let taken = cluster.nodes[1].ftp.to_string();
        let held = cluster.nodes[0].data.clone();
        cluster.terminate(0)?;
        let settings = cluster.settings(0)?;
        let arguments = ["serve", "--config", settings.to_str().ok_or("no text")?, "--ftp-listen", &taken];
        let (status, said) = trebol(&arguments, &[])?;
        ensure(status.code() == Some(1), || format!("a taken port ends with {status}: {said}"))?;
        ensure(said.contains(&taken) && said.contains("listen"), || format!("no word of {taken}: {said}"))?;
        ensure(held.exists(), || "the data directory is gone".to_owned())
    })
}

fn held_directory() -> Outcome {
    Cluster::run(&[], |cluster| {
        cluster.session(0)?.put("/kept", b"as it was")?;
        let data = cluster.nodes[0].data.to_str().ok_or("no text")?.to_owned();
        let holder = cluster.nodes[0].pid.as_raw_nonzero().to_string();
        let (status, said) = trebol(&["verify", "--data", &data], &[])?;
        ensure(!status.success() && said.contains(&holder), || {
            format!("verify of a held directory: {status}, {said}")
        })?;
        let dev = cluster.scratch("dev")?;
        let (status, said) = trebol(&["dev", "--data", dev.to_str().ok_or("no text")?], &[])?;
        ensure(!status.success() && said.lines().count() == 1, || {
            format!("dev in a held directory: {status}, {said}")
        })?;

        // A second process on the directory waits, and serves when the first is gone.
        let log = cluster.scratch("second")?.join("log");
        let settings = cluster.settings(0)?;
        let arguments =
            ["--ftp-listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0", "--peer-raw-listen", "127.0.0.1:0"];
        let mut second = Command::new(TREBOL);
        second.args(["serve", "--config"]).arg(settings).args(arguments).stdin(Stdio::null());
        let mut second = Beside(second.stdout(Stdio::null()).stderr(fs::File::create(&log)?).spawn()?);
        wait_for("word that it waits", STOP, || {
            let said = fs::read_to_string(&log)?;
            ensure(said.contains(&holder), || format!("it says {said:?}"))
        })?;
        ensure(second.0.try_wait()?.is_none(), || "it ended".to_owned())?;
        cluster.kill(0)?;
        let mut session = wait_for("the second process to serve", STOP, || {
            let said = fs::read_to_string(cluster.nodes[0].data.join("endpoints.json"))?;
            let said: serde_json::Value = serde_json::from_str(&said)?;
            let address = said["ftp"].as_str().ok_or("no address yet")?.parse()?;
            ensure(address != cluster.nodes[0].ftp, || "it has not begun".to_owned())?;
            crate::control::Control::connect(address, &crate::control::trust(&cluster.ca)?)
        })?;
        session.secure()?;
        session.log_in(&cluster.user, &cluster.password)?;
        ensure(session.get("/kept")? == b"as it was", || "/kept has changed".to_owned())
    })
}

fn full_disk() -> Outcome {
    // Placement would keep away from a disk so small: here it must not.
    let environment = [("TREBOL_CORE_DISK_RESERVE_BYTES", "0")];
    let mut mounted = None;
    Cluster::run(&environment, |cluster| {
        cluster.terminate(2)?;
        mounted = Some(Mounted::over(&cluster.nodes[2].data)?);
        cluster.restart(2)?;
        cluster.settle()?;
        let mut session = cluster.session(0)?;
        let bytes = |number: usize| vec![u8::try_from(number).unwrap_or_default(); FULL.1];
        let mut sent = 0;
        // Not from the status: it is a second old, and all of this takes hardly two.
        while !cluster.log()?.contains("its disk is full") {
            ensure(sent < FULL.0, || "the disk never filled up".to_owned())?;
            let reply = session.put(&format!("/file-{sent}"), &bytes(sent))?;
            ensure(reply.code == 226, || format!("/file-{sent}: {}", reply.text))?;
            sent += 1;
        }
        drop(session);
        let mut session = cluster.session(2)?;
        for number in 0..sent {
            ensure(session.get(&format!("/file-{number}"))? == bytes(number), || format!("/file-{number} differs"))?;
        }
        drop(session);
        cluster.settle()?;
        let kept = all_whole(cluster, Surplus::AfterDeath)?;
        // Before the cluster's directory is removed: a mount in it would stay.
        drop(mounted.take());
        ensure(kept.len() == sent, || format!("{} files of {sent}", kept.len()))
    })
}

/// A small disk in the place of a data directory, with its content; gone when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn over(directory: &Path) -> Outcome<Self> {
        let aside = directory.with_extension("aside");
        fs::rename(directory, &aside)?;
        fs::create_dir(directory)?;
        succeed(Command::new("mount").args(["-t", "tmpfs", "-o", SMALL_DISK, "tmpfs"]).arg(directory))?;
        let mounted = Self(directory.to_owned());
        succeed(Command::new("cp").arg("-a").arg(aside.join(".")).arg(directory))?;
        fs::remove_dir_all(&aside)?;
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: the node may still be on its way out.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A process of ours beside the cluster, killed when dropped.
struct Beside(std::process::Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
