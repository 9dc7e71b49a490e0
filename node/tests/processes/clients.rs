//! The programs that users have: found, run with a bound on their time, and told how to reach a cluster. They keep their
//! own defaults but for trust in the cluster's authority.

use crate::cluster::Cluster;
use crate::wait::wait_for;
use crate::{Outcome, ensure};
use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Longest run of one client. A mirror of 2,000 files over a busy pair of cores takes tens of seconds.
pub(crate) const LONGEST: Duration = Duration::from_secs(420);

/// What a program did.
#[derive(Debug)]
pub(crate) struct Ran {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// What it printed.
    pub(crate) stdout: String,
    /// What it complained of.
    pub(crate) stderr: String,
}

/// Whether a program is in the PATH.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Whether this process may mount a file system. Outside a container that takes root, inside more than that.
pub(crate) fn may_mount() -> bool {
    let Ok(directory) = tempfile::tempdir() else { return false };
    let mount = |command: &mut Command| run(command, Duration::from_secs(10)).is_ok_and(|ran| ran.status.success());
    mount(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(directory.path()))
        && mount(Command::new("umount").arg(directory.path()))
}

/// Runs a program to its end, or kills it after `bound`.
pub(crate) fn run(command: &mut Command, bound: Duration) -> Outcome<Ran> {
    let output = tempfile::tempdir()?;
    let (stdout, stderr) = (output.path().join("stdout"), output.path().join("stderr"));
    // Files, not pipes: nobody has to read while it runs.
    command.stdin(Stdio::null()).stdout(fs::File::create(&stdout)?).stderr(fs::File::create(&stderr)?);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut running = Running { child: command.spawn()?, program };
    let status = running.finish(bound);
    let read = |path: &Path| Ok::<_, Failed>(String::from_utf8_lossy(&fs::read(path)?).into_owned());
    let (stdout, stderr) = (read(&stdout)?, read(&stderr)?);
    match status {
        Ok(status) => Ok(Ran { status, stdout, stderr }),
        Err(failed) => Err(format!("{}\n{stdout}\n{stderr}", failed.message().unwrap_or_default()).into()),
    }
}

/// Runs a program that must end well; hands out what it printed.
pub(crate) fn succeed(command: &mut Command) -> Outcome<String> {
    let ran = run(command, LONGEST)?;
    ensure(ran.status.success(), || format!("{command:?} ended with {}:\n{}\n{}", ran.status, ran.stdout, ran.stderr))?;
    Ok(ran.stdout)
}

/// A program that runs beside the test. Dropped, it is killed.
pub(crate) struct Running {
    child: Child,
    program: String,
}

impl Running {
    /// Starts it with its output thrown away.
    pub(crate) fn start(command: &mut Command) -> Outcome<Self> {
        Self::start_logged(command, Stdio::null())
    }

    /// Starts it with its complaints kept.
    pub(crate) fn start_logged(command: &mut Command, log: impl Into<Stdio>) -> Outcome<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        Ok(Self { child, program })
    }

    /// SIGTERM, and waits for its end.
    pub(crate) fn terminate(&mut self, bound: Duration) -> Outcome<ExitStatus> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.finish(bound)
    }

    /// Waits for its end.
    pub(crate) fn finish(&mut self, bound: Duration) -> Outcome<ExitStatus> {
        let what = format!("the end of {}", self.program);
        wait_for(&what, bound, || self.child.try_wait()?.ok_or_else(|| Failed::from("it runs")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// lftp at a node, with TLS required and one try for everything; runs `script` after the login. Every line of the
/// control connection goes to `log`.
pub(crate) fn lftp(cluster: &Cluster, node: usize, log: &Path, script: &str) -> Outcome<Command> {
    let file = log.with_extension("lftp");
    let (address, ca) = (cluster.nodes[node].ftp, cluster.ca.display());
    let (user, password) = (&cluster.user, &cluster.password);
    let lines = format!(
        "debug -o {} 9\nset cmd:fail-exit true\nset ftp:ssl-force true\nset ftp:ssl-protect-data true\n\
         set ssl:ca-file {ca}\nset net:max-retries 1\nset net:persist-retries 0\nset net:timeout 90\n\
         open -u {user},{password} ftp://{address}\n{script}\n",
        log.display()
    );
    fs::write(&file, lines)?;
    let mut command = Command::new("lftp");
    // No settings of whoever runs the tests.
    command.arg("--norc").arg("-f").arg(file).env("HOME", log.parent().ok_or("no directory for the log")?);
    Ok(command)
}

/// curl with TLS required, on control and data.
pub(crate) fn curl(cluster: &Cluster, node: usize, path: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--ssl-reqd", "--disable", "--cacert"]).arg(&cluster.ca);
    command.arg("--user").arg(format!("{}:{}", cluster.user, cluster.password));
    command.arg(format!("ftp://{}/{path}", cluster.nodes[node].ftp));
    command
}

/// A Python program with ftplib; `ftp` is a session at the node, encrypted and logged in; `argv` are its arguments.
pub(crate) fn python(cluster: &Cluster, node: usize, program: &str, arguments: &[&Path]) -> Command {
    let address = cluster.nodes[node].ftp;
    let start = format!(
        "import ftplib, ssl, sys\n\
         argv = sys.argv[1:]\n\
         context = ssl.create_default_context(cafile=argv.pop(0))\n\
         user, password = argv.pop(0), argv.pop(0)\n\
         ftp = ftplib.FTP_TLS(context=context, timeout=90)\n\
         ftp.connect('{}', {})\n\
         ftp.login(user, password)\n\
         ftp.prot_p()\n",
        address.ip(),
        address.port()
    );
    let mut command = Command::new("python3");
    command.arg("-c").arg(start + program).arg(&cluster.ca).arg(&cluster.user).arg(&cluster.password).args(arguments);
    command.env("PYTHONUTF8", "1");
    command
}
