//! Measures this server, or any other, as FTP clients feel it: rates and latencies of small and large files, plain and
//! under TLS, memory of the nodes, and the gap in writes after a leader's death.
//!
//! `cargo bench -p node --bench load -- --help`. Client and servers share the machine: compare only inside one run.

mod client;
mod failover;
mod nodes;
mod processor;
mod work;

use clap::Parser;
use client::Login;
use nodes::Nodes;
use std::error::Error;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;
use work::{Load, Measured};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Measures an FTP server: its own five-node cluster unless told another target.
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Arguments {
    /// Another server, HOST:PORT; it must allow EPSV
    #[arg(long, requires = "user", requires = "password")]
    target: Option<String>,
    /// Its user
    #[arg(long)]
    user: Option<String>,
    /// The user's password
    #[arg(long)]
    password: Option<String>,
    /// The target's process, to tell the processor time that it and its children use
    #[arg(long, requires = "target")]
    pid: Option<i32>,
    /// Put before every path, such as a directory of the target
    #[arg(long, default_value = "/")]
    prefix: String,
    /// Nodes of the own cluster
    #[arg(long, default_value_t = 5)]
    nodes: usize,
    /// All sessions at one node, instead of spread over all
    #[arg(long)]
    one_node: bool,
    /// All sessions at one node that is drained first: it has no copy of anything, so all bytes pass through it. Takes four
    /// nodes at least
    #[arg(long, conflicts_with_all = ["target", "kills"])]
    proxied: bool,
    /// Only in clear, or only under TLS
    #[arg(long, value_parser = ["plain", "tls"])]
    only: Option<String>,
    /// Small files a load moves at most
    #[arg(long, default_value_t = 20_000)]
    small_files: u64,
    /// Bytes of a small file
    #[arg(long, default_value_t = 10_000)]
    small_bytes: u64,
    /// Sessions for small files
    #[arg(long, default_value_t = 8)]
    small_sessions: usize,
    /// Large files a load moves at most
    #[arg(long, default_value_t = 4)]
    large_files: u64,
    /// MiB of a large file
    #[arg(long, default_value_t = 256)]
    large_mib: u64,
    /// Sessions for large files
    #[arg(long, default_value_t = 2)]
    large_sessions: usize,
    /// No load begins a transfer after so many seconds
    #[arg(long, default_value_t = 15)]
    longest_s: u64,
    /// Small files stored first, so that the index is not empty
    #[arg(long, default_value_t = 0)]
    preload: u64,
    /// Instead of loads: kill so many leaders of the own cluster and measure the gap in writes
    #[arg(long, default_value_t = 0, conflicts_with = "target")]
    kills: usize,
    /// Sessions that store files of 64 MiB all the while leaders are killed: whether file bytes delay an election
    #[arg(long, default_value_t = 0, requires = "kills")]
    beside: usize,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ran = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(measure(&arguments)));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: &Arguments) -> Outcome<()> {
    let Some(target) = &arguments.target else { return measure_own(arguments).await };
    let address = target.to_socket_addrs()?.next().ok_or("the target has no address")?;
    let (user, password) = (arguments.user.clone().unwrap_or_default(), arguments.password.clone().unwrap_or_default());
    let used = || arguments.pid.map(processor::of_tree).into_iter().collect();
    loads(arguments, &[address], &user, &password, &used).await
}

async fn measure_own(arguments: &Arguments) -> Outcome<()> {
    let mut nodes = Nodes::start(arguments.nodes).await?;
    let used = if arguments.one_node || arguments.proxied { 1 } else { nodes.all.len() };
    let addresses: Vec<_> = nodes.all.iter().take(used).map(|node| node.ftp).collect();
    let (user, password) = (nodes.user.clone(), nodes.password.clone());
    let which = if arguments.proxied { ", which is drained" } else { "" };
    println!("{} nodes, sessions at {used}{which}", nodes.all.len());
    if arguments.proxied {
        nodes.drain(0).await?;
    }
    if arguments.preload > 0 {
        preload(arguments, &logins(&addresses, &user, &password, false)?).await?;
        print_memory(&nodes, "after the preload")?;
    }
    if arguments.kills > 0 {
        let all: Vec<_> = nodes.all.iter().map(|node| node.ftp).collect();
        let logins = logins(&all, &user, &password, false)?;
        let (gaps, moved) = failover::run(&mut nodes, &logins, arguments.kills, arguments.beside).await?;
        let [p50, p99, max] = [gaps.value_at_quantile(0.5), gaps.value_at_quantile(0.99), gaps.max()].map(milliseconds);
        println!("write gap over {} kills: p50 {p50:.0} ms, p99 {p99:.0} ms, max {max:.0} ms", gaps.len());
        if arguments.beside > 0 {
            println!("beside them {} sessions stored {moved} files of 64 MiB", arguments.beside);
        }
    } else {
        let held = || if arguments.proxied { nodes.holds_nothing(0) } else { Ok(()) };
        loads(arguments, &addresses, &user, &password, &|| held().and_then(|()| nodes.processor())).await?;
    }
    print_memory(&nodes, "at the end")?;
    nodes.stop().await
}

async fn preload(arguments: &Arguments, logins: &[Login]) -> Outcome<()> {
    let load = Load {
        put: true,
        size: 100,
        sessions: arguments.small_sessions,
        files: arguments.preload,
        longest: Duration::from_secs(3600),
        prefix: format!("{}preload-", arguments.prefix),
    };
    print(&load, "preload", &work::run(&load, logins).await?);
    Ok(())
}

/// `used` tells the processor time of each server so far, of those that are known.
async fn loads(
    arguments: &Arguments,
    addresses: &[SocketAddr],
    user: &str,
    password: &str,
    used: &dyn Fn() -> Outcome<Vec<f64>>,
) -> Outcome<()> {
    for encrypted in [false, true] {
        let name = if encrypted { "tls" } else { "plain" };
        if arguments.only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let logins = logins(addresses, user, password, encrypted)?;
        let small = (arguments.small_bytes, arguments.small_sessions, arguments.small_files, "small-");
        let large = (arguments.large_mib << 20, arguments.large_sessions, arguments.large_files, "large-");
        for (size, sessions, files, kind) in [small, large] {
            if files == 0 {
                continue;
            }
            let longest = Duration::from_secs(arguments.longest_s);
            let prefix = format!("{}{kind}{name}-", arguments.prefix);
            let put = Load { put: true, size, sessions, files, longest, prefix };
            let stored = one_load(&put, name, &logins, used).await?;
            // What was stored may be fewer than asked for, when time ran out.
            let get = Load { put: false, files: stored, ..put.clone() };
            one_load(&get, name, &logins, used).await?;
            work::clean(&put, stored, &logins[0]).await?;
        }
    }
    Ok(())
}

/// Runs it and says what came of it; hands out how many files were moved.
async fn one_load(load: &Load, name: &str, logins: &[Login], used: &dyn Fn() -> Outcome<Vec<f64>>) -> Outcome<u64> {
    let before = used()?;
    let measured = work::run(load, logins).await?;
    print(load, name, &measured);
    if !before.is_empty() {
        let used = used()?.into_iter().zip(before).map(|(after, before)| format!("{:.1}", after - before));
        println!("        processor time of each server, s: {}", used.collect::<Vec<_>>().join(", "));
    }
    Ok(measured.files)
}

fn logins(addresses: &[SocketAddr], user: &str, password: &str, encrypted: bool) -> Outcome<Vec<Login>> {
    let tls = if encrypted { Some(client::tls()?) } else { None };
    let (user, password) = (user.to_owned(), password.to_owned());
    let login = |address: &SocketAddr| Login {
        address: *address,
        user: user.clone(),
        password: password.clone(),
        tls: tls.clone(),
    };
    Ok(addresses.iter().map(login).collect())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn print(load: &Load, name: &str, measured: &Measured) {
    let verb = if load.put { "put" } else { "get" };
    let seconds = measured.took.as_secs_f64();
    let rate = measured.files as f64 / seconds;
    let megabytes = rate * load.size as f64 / 1e6;
    let at = |quantile: f64| milliseconds(measured.latency.value_at_quantile(quantile));
    println!(
        "{name:7} {verb} {:>9} B x {} sessions: {:6} files in {seconds:6.2} s, {rate:9.1} /s, {megabytes:8.1} MB/s, \
         p50 {:.2} ms, p99 {:.2} ms",
        load.size,
        load.sessions,
        measured.files,
        at(0.5),
        at(0.99)
    );
}

fn print_memory(nodes: &Nodes, when: &str) -> Outcome<()> {
    let each = nodes.memory()?.into_iter().map(|(name, now, peak)| format!("{name} {now} (peak {peak})"));
    println!("memory {when}, MiB: {}", each.collect::<Vec<_>>().join(", "));
    Ok(())
}
