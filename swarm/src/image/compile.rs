//! Compiles `trebol` with this machine's own toolchain into one static binary: for this machine's architecture, libc linked
//! in, so that an image needs nothing else. The target has to be named, or procedural macros would be static as well.

use crate::progress::Progress;
use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

/// libc is linked in, and what only a debugger reads left out: what travels between engines is a third of it.
const RUSTFLAGS: &str = "-C target-feature=+crt-static -C strip=debuginfo";
/// Lines of the compiler that are shown when it fails.
const SHOWN: usize = 40;

/// What to compile.
#[derive(Debug, Clone)]
pub struct Source {
    /// The root of the workspace.
    pub workspace: PathBuf,
    /// Cargo's profile: `release`, `dev`.
    pub profile: String,
    /// Features of the crate `node`.
    pub features: Vec<String>,
}

/// Of what `cargo build --message-format=json` says, the part that names the binary.
#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// The workspace that this command runs in: Cargo's, else the one around the working directory.
pub fn workspace() -> Result<PathBuf> {
    let is_root = |dir: &Path| dir.join("images/node/Dockerfile").is_file() && dir.join("node/Cargo.toml").is_file();
    let cargo = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = std::env::current_dir().ok();
    let places = cargo.iter().chain(&here).flat_map(|dir| dir.ancestors());
    let found = places.map(Path::to_owned).find(|dir| is_root(dir));
    found.context("there is no workspace of Trébol here to build an image from: name an image with --image")
}

impl Source {
    /// For production, from the workspace around.
    pub fn release() -> Result<Self> {
        Ok(Self { workspace: workspace()?, profile: "release".to_owned(), features: Vec::new() })
    }

    /// The static binary. Compiles only what changed.
    pub async fn compile(&self, progress: &Progress) -> Result<PathBuf> {
        let target = target().await?;
        let mut command = Command::new(cargo());
        command.current_dir(&self.workspace).args([
            "build",
            "--package",
            "node",
            "--bin",
            "trebol",
            "--target",
            &target,
        ]);
        command.args(["--profile", &self.profile, "--message-format", "json-render-diagnostics"]);
        if !self.features.is_empty() {
            command.args(["--features", &self.features.join(",")]);
        }
        let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
        command.env("RUSTFLAGS", format!("{flags} {RUSTFLAGS}").trim()).env_remove("CARGO_ENCODED_RUSTFLAGS");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child =
            command.spawn().context("cannot run cargo: install the Rust toolchain, or name an image with --image")?;
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (binary, last) = tokio::join!(executable(stdout), follow(stderr, progress));
        let status = child.wait().await.context("cargo was lost")?;
        if !status.success() {
            bail!("trebol does not compile:\n{}", last.join("\n"));
        }
        binary.ok_or_else(|| anyhow!("cargo does not say where it put trebol"))
    }
}

/// The cargo that runs this, if one does.
fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// This machine's own target, with a libc that can be linked in.
async fn target() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").stdin(Stdio::null()).output().await;
    let output = output.context("cannot run rustc: install the Rust toolchain, or name an image with --image")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say which machine this is")?;
    if host.contains("-linux-") {
        return Ok(host.to_owned());
    }
    bail!("images are for Linux and this machine is {host}: name an image with --image")
}

/// The binary that cargo names.
async fn executable(stdout: impl AsyncRead + Unpin) -> Option<PathBuf> {
    let (mut lines, mut found) = (BufReader::new(stdout).lines(), None);
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(message) = serde_json::from_str::<Message>(&line)
            && message.reason == "compiler-artifact"
            && message.target.is_some_and(|target| target.name == "trebol")
        {
            found = message.executable.or(found);
        }
    }
    found
}

/// Shows what cargo says; its last lines.
async fn follow(stderr: impl AsyncRead + Unpin, progress: &Progress) -> Vec<String> {
    let (mut lines, mut last) = (BufReader::new(stderr).lines(), VecDeque::new());
    while let Ok(Some(line)) = lines.next_line().await {
        progress.detail(line.trim());
        if last.len() == SHOWN {
            last.pop_front();
        }
        last.push_back(line);
    }
    last.into()
}
