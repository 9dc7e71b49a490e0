//! The ports of a node, and the addresses at which others reach them.

use super::ServeError;
use crate::admin::Endpoints;
use crate::config::Settings;
use crate::peer::{Discovery, DnsNames};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{interval, timeout};

/// Between two questions to DNS.
const LOOK: Duration = Duration::from_secs(1);
/// For DNS to name a node.
const NAMED: Duration = Duration::from_secs(30);

/// Bound, not yet accepting.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) ftp: TcpListener,
    pub(super) peer: TcpListener,
    pub(super) raw: TcpListener,
    /// Only where it was asked for.
    pub(super) admin: Option<TcpListener>,
}

impl Listeners {
    pub(super) async fn bind(settings: &Settings) -> Result<Self, ServeError> {
        Ok(Self {
            ftp: bind(settings.ftp.listen, "ftp.listen").await?,
            peer: bind(settings.peer.listen, "peer.listen").await?,
            raw: bind(settings.peer.raw_listen, "peer.raw_listen").await?,
            admin: match settings.admin.listen {
                Some(address) => Some(bind(address, "admin.listen").await?),
                None => None,
            },
        })
    }
    /// With the ports they really have.
    pub(super) fn endpoints(&self) -> Result<Endpoints, ServeError> {
        let local = |listener: &TcpListener, setting| {
            listener.local_addr().map_err(|error| refused(([0, 0, 0, 0], 0).into(), setting, error))
        };
        Ok(Endpoints {
            ftp: local(&self.ftp, "ftp.listen")?,
            peer: local(&self.peer, "peer.listen")?,
            raw: local(&self.raw, "peer.raw_listen")?,
            admin: self.admin.as_ref().map(|listener| local(listener, "admin.listen")).transpose()?,
        })
    }
}

async fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|error| refused(address, setting, error))
}

fn refused(address: SocketAddr, setting: &'static str, error: std::io::Error) -> ServeError {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => "; stop the program that has the port, or set another one",
        ErrorKind::PermissionDenied => "; set a port of 1024 or more, or allow this program low ports",
        ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    };
    ServeError::Bind { address, setting, error, advice }
}

/// Where peers reach this node: the port it listens on, at the address that was set, or it listens on, or from which it
/// would call the first seed, or a node that DNS names.
pub(super) async fn advertised(
    settings: &Settings,
    endpoints: &Endpoints,
) -> Result<(SocketAddr, SocketAddr), ServeError> {
    let set = settings.peer.advertise;
    let own = |listen: SocketAddr| Some(listen.ip()).filter(|ip| !ip.is_unspecified());
    let ip = match set.or_else(|| own(endpoints.peer)) {
        None => towards(peer(settings).await),
        ip => ip,
    };
    let ip = ip.ok_or_else(|| {
        ServeError::Settings(
            "no address for peers to reach this node at: set peer.advertise to its IP address".to_owned(),
        )
    })?;
    let raw = set.or_else(|| own(endpoints.raw)).unwrap_or(ip);
    Ok((SocketAddr::new(ip, endpoints.peer.port()), SocketAddr::new(raw, endpoints.raw.port())))
}

/// The address of a peer, perhaps of this node itself. DNS on a swarm names a node only once it is healthy, which for us
/// means listening, and we do: so it is asked until it names somebody.
async fn peer(settings: &Settings) -> Option<SocketAddr> {
    let seed = settings.peer.seeds.first().and_then(|seed| seed.to_socket_addrs().ok()?.next());
    if seed.is_some() || settings.peer.discover.is_empty() {
        return seed;
    }
    let names = DnsNames::new(&settings.peer.discover);
    let mut looks = interval(LOOK);
    let find = async {
        loop {
            looks.tick().await;
            if let Some(peer) = names.addresses().await.first() {
                return *peer;
            }
        }
    };
    tracing::info!("asking DNS for a node, to know at which of this machine's addresses peers reach it");
    let found = timeout(NAMED, find).await;
    if found.is_err() {
        tracing::warn!("DNS names no node yet: peer.advertise would say at which address peers reach this one");
    }
    found.ok()
}

/// The address from which packets to `peer`, or to the world, would leave. Nothing is sent.
fn towards(peer: Option<SocketAddr>) -> Option<IpAddr> {
    // 192.0.2.1 is nobody's (RFC 5737): it stands for "anywhere".
    let anywhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    let from = |to: SocketAddr| {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
    };
    peer.and_then(from).filter(|ip| !ip.is_loopback()).or_else(|| from(anywhere))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_named_with_its_setting() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = Settings::default();
        settings.ftp.listen = taken.local_addr().unwrap();
        let error = Listeners::bind(&settings).await.unwrap_err().to_string();
        let start = format!("cannot listen on {} (ftp.listen): ", settings.ftp.listen);
        assert!(error.starts_with(&start) && error.ends_with("or set another one"), "{error}");
    }

    #[tokio::test]
    async fn the_admin_port_is_closed_unless_asked_for() {
        let mut settings = Settings::default();
        let any = "127.0.0.1:0".parse().unwrap();
        (settings.ftp.listen, settings.peer.listen, settings.peer.raw_listen) = (any, any, any);
        let bound = Listeners::bind(&settings).await.unwrap();
        assert!(bound.admin.is_none() && bound.endpoints().unwrap().admin.is_none());
        settings.admin.listen = Some(any);
        let bound = Listeners::bind(&settings).await.unwrap();
        assert!(bound.endpoints().unwrap().admin.unwrap().port() > 0);
    }

    #[tokio::test]
    async fn peers_are_told_an_address_they_can_dial() {
        let mut settings = Settings::default();
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        let endpoints = Endpoints { ftp: any(21), peer: any(7), raw: any(8), admin: None };
        settings.peer.advertise = Some("10.1.2.3".parse().unwrap());
        let told = advertised(&settings, &endpoints).await.unwrap();
        assert_eq!(told, ("10.1.2.3:7".parse().unwrap(), "10.1.2.3:8".parse().unwrap()));
        settings.peer.advertise = None;
        let local = Endpoints { peer: "127.0.0.1:7".parse().unwrap(), ..endpoints };
        let told = advertised(&settings, &local).await.unwrap();
        assert_eq!(told, ("127.0.0.1:7".parse().unwrap(), "127.0.0.1:8".parse().unwrap()));
    }
}
