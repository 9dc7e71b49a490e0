//! Where other nodes might be. Discovery only says whom to call; who is a member is for the Hello and the core to say.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Mutex;
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

/// Both at once.
impl<A: Discovery, B: Discovery> Discovery for (A, B) {
    async fn addresses(&self) -> Vec<SocketAddr> {
        let (mut all, more) = tokio::join!(self.0.addresses(), self.1.addresses());
        all.extend(more);
        all.sort();
        all.dedup();
        all
    }
}

/// What was last logged about each name: the same is not said again every two seconds.
#[derive(Debug, Default)]
pub(super) struct Said(Mutex<BTreeMap<String, bool>>);

impl Said {
    /// Logs how a lookup went when that is another way than the last time.
    pub(super) fn outcome(&self, name: &str, error: Option<&impl fmt::Display>) {
        let failed = error.is_some();
        if !self.would_say(name, failed) {
            return;
        }
        match error {
            Some(error) => tracing::warn!(%name, %error, "name of peers not resolved; it is asked for again and again"),
            None => tracing::info!(%name, "name of peers resolved"),
        }
        self.0.lock().expect("no panic while held").insert(name.to_owned(), failed);
    }
    /// Whether there is something new to say.
    pub(super) fn would_say(&self, name: &str, failed: bool) -> bool {
        let known = self.0.lock().expect("no panic while held").get(name).copied();
        // That the first try went well is no news.
        known.unwrap_or(false) != failed
    }
}

/// A fixed list of `host:port`, each resolved anew every time.
#[derive(Debug)]
pub struct StaticSeeds(Vec<String>, Said);

impl StaticSeeds {
    /// From `host:port` texts. One that cannot be resolved is asked for again the next time.
    pub fn new(seeds: Vec<String>) -> Self {
        Self(seeds, Said::default())
    }
}

impl Discovery for StaticSeeds {
    async fn addresses(&self) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        for seed in &self.0 {
            let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
            let found = timeout(LOOKUP, tokio::net::lookup_host(seed.as_str())).await.map_err(late).flatten();
            self.1.outcome(seed, found.as_ref().err());
            all.extend(found.into_iter().flatten());
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
