//! Discovery by DNS: one name that stands for all nodes, such as `tasks.SERVICE` on a swarm. Asked anew every time, of the
//! servers in `/etc/resolv.conf`: Docker's answers live for 600 s, so nothing is ever cached. An answer is a hint whom to
//! call, never a proof that somebody lives or is gone.

use super::discovery::{Discovery, Said};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Resolver, ResolverBuilder};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::time::timeout;

/// For one question to one server.
const QUESTION: Duration = Duration::from_secs(1);
/// For all addresses of one name, retries included.
const LOOKUP: Duration = Duration::from_secs(2);
/// Addresses taken from one answer.
const ANSWERS: usize = 1024;

/// Names that stand for nodes, with the port of each.
#[derive(Debug)]
pub struct DnsNames {
    names: Vec<(String, u16)>,
    /// Instead of those of the system.
    server: Option<SocketAddr>,
    said: Said,
}

/// Why a name gave no address.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("no server to ask: {0}")]
    NoServer(NetError),
    #[error("{0}")]
    Lookup(NetError),
    #[error("no answer in time")]
    Timeout,
}

/// `HOST:PORT` in two, if it is a name with a port.
pub fn name_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let is_name = !host.is_empty() && host.parse::<IpAddr>().is_err() && !host.contains([':', '[', '/', ' ']);
    Some((host, port.parse().ok().filter(|port| is_name && *port != 0)?))
}

impl DnsNames {
    /// From `HOST:PORT` texts; others are left out, for the settings' check has refused them.
    pub fn new(names: &[String]) -> Self {
        let names = names.iter().filter_map(|text| name_and_port(text)).map(|(host, port)| (host.to_owned(), port));
        Self { names: names.collect(), server: None, said: Said::default() }
    }
    /// The same, asking one server only.
    #[cfg(test)]
    fn at(names: &[&str], server: SocketAddr) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Self { server: Some(server), ..Self::new(&names) }
    }

    /// Nothing is kept between two questions: no cache, and what the system is set to may change.
    fn resolver(&self) -> Result<Resolver<TokioRuntimeProvider>, NetError> {
        let mut builder = match self.server {
            Some(server) => at(server),
            None => Resolver::builder_tokio()?,
        };
        let options: &mut ResolverOpts = builder.options_mut();
        (options.cache_size, options.timeout, options.attempts) = (0, QUESTION, 1);
        builder.build()
    }
    /// IPv4 and IPv6 by themselves: a server that knows one kind may be silent about the other.
    async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, NoAnswer> {
        let resolver = self.resolver().map_err(NoAnswer::NoServer)?;
        let four = timeout(LOOKUP, resolver.ipv4_lookup(host));
        let six = timeout(LOOKUP, resolver.ipv6_lookup(host));
        let (four, six) = tokio::join!(four, six);
        let four = four.map_err(|_| NoAnswer::Timeout).and_then(|found| found.map_err(NoAnswer::Lookup));
        let six = six.map_err(|_| NoAnswer::Timeout).and_then(|found| found.map_err(NoAnswer::Lookup));
        match (four, six) {
            (Err(error), Err(_)) => Err(error),
            (four, six) => Ok([four, six].iter().flatten().flat_map(addresses).take(ANSWERS).collect()),
        }
    }
}

fn at(server: SocketAddr) -> ResolverBuilder<TokioRuntimeProvider> {
    let mut connection = ConnectionConfig::udp();
    connection.port = server.port();
    let server = NameServerConfig::new(server.ip(), true, vec![connection]);
    let config = ResolverConfig::from_name_servers(vec![server]);
    Resolver::builder_with_config(config, TokioRuntimeProvider::default())
}

fn addresses(lookup: &Lookup) -> impl Iterator<Item = IpAddr> + '_ {
    lookup.answers().iter().filter_map(|record| record.data.ip_addr())
}

impl Discovery for DnsNames {
    async fn addresses(&self) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        for (host, port) in &self.names {
            let found = self.lookup(host).await;
            self.said.outcome(host, found.as_ref().err());
            all.extend(found.into_iter().flatten().map(|ip| SocketAddr::new(ip, *port)));
        }
        all.sort();
        all.dedup();
        all
    }
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
