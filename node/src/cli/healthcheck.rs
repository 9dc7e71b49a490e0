//! `trebol healthcheck`: whether a node listens, for what starts and stops containers. A node that waits for its data directory
//! or for a leader is healthy: a swarm names a task in DNS only once it is, so that nodes which waited for each other
//! before they were would never meet. Whether clients had better go elsewhere is said by `/readyz`.
//!
//! It connects to the FTP port and leaves. The kernel answers as soon as the port is bound, which is the first thing that
//! a node does. A session that says nothing is neither counted nor logged.

use super::Failure;
use super::flags::Layers;
use crate::admin::{ENDPOINTS, Endpoints};
use crate::config::{FtpSettings, Settings};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// For the kernel of this machine to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether this machine's node listens: exit code 0, or 1 with a sentence
///
/// It need not have a leader, nor its data directory, which another process may still hold. Takes the settings from where
/// `trebol serve` takes them; where they name no port, from the data directory.
#[derive(Debug, clap::Args)]
pub(super) struct Healthcheck {
    #[command(flatten)]
    layers: Layers,
}

impl Healthcheck {
    pub(super) fn run(&self) -> Result<(), Failure> {
        // Not 2, which some runners of health checks reserve.
        let settings = self.layers.load().map_err(Failure::runtime)?;
        let address = reachable(listening(&settings)?);
        TcpStream::connect_timeout(&address, PATIENCE).map(drop).map_err(|error| {
            Failure::Runtime(format!(
                "no node listens on {address}: {error}; name its settings or its --data as for serve"
            ))
        })
    }
}

/// Where the node takes clients. The settings are asked first: the data directory may still say where the process listens
/// that holds it.
fn listening(settings: &Settings) -> Result<SocketAddr, Failure> {
    let set = settings.ftp.listen;
    if set.port() != 0 && set != FtpSettings::default().listen {
        return Ok(set);
    }
    match endpoints(&settings.node.data) {
        Some(endpoints) => Ok(endpoints.ftp),
        None if set.port() != 0 => Ok(set),
        None => Err(Failure::Runtime(format!(
            "no node has listened in {} yet, and ftp.listen names no port",
            settings.node.data.display()
        ))),
    }
}

/// What the node that had the directory last said of itself.
fn endpoints(data: &Path) -> Option<Endpoints> {
    serde_json::from_slice(&std::fs::read(data.join(ENDPOINTS)).ok()?).ok()
}

/// An address of this machine that reaches what listens there.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_port_is_that_of_the_settings_else_of_the_data_directory_else_the_usual_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.node.data = dir.path().to_owned();
        assert_eq!(listening(&settings).unwrap(), address("0.0.0.0:21"));
        settings.ftp.listen = address("127.0.0.1:0");
        let Err(Failure::Runtime(sentence)) = listening(&settings) else { panic!("no port is known") };
        assert!(sentence.contains("ftp.listen names no port"), "{sentence}");
        let said = r#"{"version":1,"pid":7,"ftp":"127.0.0.1:2121","peer":"127.0.0.1:1","raw":"127.0.0.1:2"}"#;
        std::fs::write(dir.path().join(ENDPOINTS), said).unwrap();
        assert_eq!(listening(&settings).unwrap(), address("127.0.0.1:2121"));
        settings.ftp.listen = FtpSettings::default().listen;
        assert_eq!(listening(&settings).unwrap(), address("127.0.0.1:2121"));
        settings.ftp.listen = address("10.0.0.1:2100");
        assert_eq!(listening(&settings).unwrap(), address("10.0.0.1:2100"));
    }

    #[test]
    fn what_listens_on_all_addresses_is_reached_on_loopback() {
        assert_eq!(reachable(address("0.0.0.0:21")), address("127.0.0.1:21"));
        assert_eq!(reachable(address("[::]:21")), address("[::1]:21"));
        assert_eq!(reachable(address("10.0.0.1:21")), address("10.0.0.1:21"));
    }
}
