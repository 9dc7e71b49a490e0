//! Where other nodes might be. Discovery only says whom to call; who is a member is for the Hello and the core to say.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

/// For one name to be resolved.
const LOOKUP: Duration = Duration::from_secs(2);

/// A source of addresses, asked every two seconds or so.
pub trait Discovery: Send + Sync + 'static {
    /// Addresses of RPC ports that may belong to nodes of the cluster, this node's own perhaps among them. Empty when
    /// nothing can be said now.
    fn addresses(&self) -> impl Future<Output = Vec<SocketAddr>> + Send;
}

/// A fixed list of `host:port`, each resolved anew every time.
#[derive(Debug, Clone)]
pub struct StaticSeeds(Vec<String>);

impl StaticSeeds {
    /// From `host:port` texts. One that cannot be resolved is asked for again the next time.
    pub fn new(seeds: Vec<String>) -> Self {
        Self(seeds)
    }
}

impl Discovery for StaticSeeds {
    async fn addresses(&self) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        for seed in &self.0 {
            match timeout(LOOKUP, tokio::net::lookup_host(seed.as_str())).await {
                Ok(Ok(addresses)) => all.extend(addresses),
                Ok(Err(error)) => tracing::debug!(%seed, %error, "seed not resolved"),
                Err(_) => tracing::debug!(%seed, "seed not resolved in time"),
            }
        }
        all.sort();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn seeds_that_do_not_resolve_leave_the_others() {
        let seeds = ["127.0.0.1:2", "no port", "127.0.0.1:1", "127.0.0.1:2"].map(String::from).to_vec();
        let addresses = StaticSeeds::new(seeds).addresses().await;
        assert_eq!(addresses, ["127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()]);
    }
}
