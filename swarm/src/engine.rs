//! The engines: connecting, and saying in one sentence why not. Everything else here goes through [`Engine`], which knows
//! whose it is, so that no error is without its host.

use crate::cluster::Host;
use crate::name::Name;
use anyhow::{Context, Error, Result, anyhow, bail};
use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::models::{LocalNodeState, SystemInfo};
use std::time::Duration;
use tokio::time::timeout;

/// For an engine to answer the first time; ssh has to log in.
const FIRST: Duration = Duration::from_secs(20);
/// For any later request to begin to be answered.
const REQUEST: Duration = Duration::from_secs(120);

/// One host's engine, connected. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    /// Whose.
    pub host: Name,
    /// The client.
    pub docker: Docker,
}

impl Engine {
    /// Connects and agrees on a version of the protocol.
    pub async fn connect(host: &Host) -> Result<Self> {
        let (name, address) = (&host.name, &host.engine);
        let docker = Docker::connect_with_host(address)
            .map_err(|error| anyhow!("host {name}: {}", unreachable(address, &error)))?;
        let agreed = timeout(FIRST, docker.negotiate_version()).await;
        let agreed = agreed.with_context(|| format!("host {name}: the engine at {address} does not answer"))?;
        let docker = agreed.map_err(|error| anyhow!("host {name}: {}", unreachable(address, &error)))?;
        Ok(Self { host: name.clone(), docker: docker.with_timeout(REQUEST) })
    }
    /// What the engine says of itself.
    pub async fn info(&self) -> Result<SystemInfo> {
        self.docker.info().await.map_err(|error| self.failed("tell of itself", &error))
    }
    /// The sentence for a request that failed.
    pub fn failed(&self, what: &str, error: &DockerError) -> Error {
        anyhow!("host {}: cannot {what}: {}", self.host, words(error))
    }
}

/// The engine's own words, without the client's around them.
pub fn words(error: &DockerError) -> String {
    match error {
        DockerError::DockerResponseServerError { message, .. } => {
            let message = message.strip_prefix("rpc error: code = ").unwrap_or(message);
            let message = message.split_once(" desc = ").map_or(message, |(_, words)| words);
            message.trim().trim_end_matches('.').to_owned()
        }
        DockerError::DockerStreamError { error } => error.trim().to_owned(),
        DockerError::RequestTimeoutError => "the engine does not answer in time".to_owned(),
        other => chain(other),
    }
}

/// Whether the thing asked about is not there.
pub fn is_missing(error: &DockerError) -> bool {
    matches!(error, DockerError::DockerResponseServerError { status_code: 404, .. })
}

/// Whether the thing to be made is there already.
pub fn is_there(error: &DockerError) -> bool {
    matches!(error, DockerError::DockerResponseServerError { status_code: 409, .. })
}

/// `Ok` also when the thing to be removed is gone.
pub fn unless_missing(result: Result<(), DockerError>) -> Result<(), DockerError> {
    match result {
        Err(error) if is_missing(&error) => Ok(()),
        other => other,
    }
}

/// An error with its causes, which is where the system's words are.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}

/// Why there is no engine, and what to do.
fn unreachable(address: &str, error: &DockerError) -> String {
    let said = words(error);
    let lower = said.to_lowercase();
    if lower.contains("permission denied") {
        return format!("not allowed to use the engine at {address}: join the group that owns it, or run as root");
    }
    if matches!(error, DockerError::SocketNotFoundError(_))
        || lower.contains("no such file")
        || lower.contains("refused")
        || lower.contains("not found")
    {
        return format!("no engine answers at {address}: start Docker there, or name another (engine, DOCKER_HOST)");
    }
    format!("the engine at {address} cannot be used: {said}")
}

/// What an engine is in a swarm; the error says why it is of no use there.
pub fn membership(info: &SystemInfo) -> Result<crate::observed::Membership> {
    use crate::observed::Membership;
    let Some(swarm) = &info.swarm else { bail!("it knows no swarms") };
    let id = swarm.node_id.clone().unwrap_or_default();
    Ok(match swarm.local_node_state {
        Some(LocalNodeState::ACTIVE) if swarm.control_available == Some(true) => Membership::Manager(id),
        Some(LocalNodeState::ACTIVE) => Membership::Worker(id),
        Some(LocalNodeState::LOCKED) => Membership::Unusable("its swarm is locked (`docker swarm unlock`)".to_owned()),
        Some(LocalNodeState::PENDING | LocalNodeState::ERROR) => {
            let said = swarm.error.clone().filter(|error| !error.is_empty());
            Membership::Unusable(said.unwrap_or_else(|| "it is still joining one".to_owned()))
        }
        _ => Membership::Outside,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_words_are_told_plainly() {
        let said = |message: &str| {
            words(&DockerError::DockerResponseServerError { status_code: 500, message: message.to_owned() })
        };
        assert_eq!(said("rpc error: code = InvalidArgument desc = name must be valid"), "name must be valid");
        assert_eq!(said("No such image: x.\n"), "No such image: x");
    }

    #[tokio::test]
    async fn no_engine_is_one_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let mut host = Host::local("h1".parse().unwrap(), 1);
        host.engine = format!("unix://{}/none.sock", dir.path().display());
        let refusal = format!("{:#}", Engine::connect(&host).await.unwrap_err());
        assert!(refusal.starts_with("host h1: no engine answers at unix://"), "{refusal}");
        host.engine = "tcp://127.0.0.1:1".to_owned();
        let refusal = format!("{:#}", Engine::connect(&host).await.unwrap_err());
        assert!(refusal.starts_with("host h1: no engine answers at tcp://"), "{refusal}");
    }
}
