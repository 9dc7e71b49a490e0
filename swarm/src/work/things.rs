//! Networks, secrets and volumes.

use super::{Work, until};
use crate::engine::{Engine, is_missing, is_there, unless_missing, words};
use crate::name::{self, Name};
use crate::spec;
use crate::wanted::{self, CA};
use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bollard::models::{NetworkCreateRequest, SecretSpec};
use bollard::query_parameters::{ListSecretsOptions, RemoveVolumeOptions};
use std::collections::BTreeMap;
use std::time::Duration;

/// For the engine to let go of what a removed container used.
const LET_GO: Duration = Duration::from_secs(60);

impl Work<'_> {
    pub(super) async fn create_network(&self) -> Result<()> {
        let manager = self.engines.manager();
        let request = NetworkCreateRequest {
            name: name::network(&self.wanted.cluster.name),
            driver: Some("overlay".to_owned()),
            labels: Some(spec::labels(self.wanted, None).into_iter().collect()),
            ..NetworkCreateRequest::default()
        };
        match manager.docker.create_network(request).await {
            Err(error) if is_there(&error) => {
                let name = name::network(&self.wanted.cluster.name);
                bail!(
                    "a network called {name} is there and is not this cluster's: remove it, or name the cluster otherwise"
                )
            }
            Err(error) => Err(manager.failed("create the network", &error)),
            Ok(_) => Ok(()),
        }
    }

    pub(super) async fn remove_network(&self) -> Result<()> {
        let (manager, network) = (self.engines.manager(), name::network(&self.wanted.cluster.name));
        let remove = async || manager.docker.remove_network(&network).await;
        insist(manager, &format!("remove the network {network}"), remove).await
    }

    pub(super) async fn create_secret(&self, role: &str, name: &str) -> Result<()> {
        let manager = self.engines.manager();
        let content = self.contents.get(role).with_context(|| format!("nothing was made for the secret {role}"))?;
        let mut labels = spec::labels(self.wanted, None);
        labels.insert(name::SECRET.to_owned(), role.to_owned());
        if role == CA {
            labels.insert(name::AUTHORITY.to_owned(), wanted::authority(content));
        }
        let secret = SecretSpec {
            name: Some(name.to_owned()),
            labels: Some(labels.into_iter().collect()),
            // How an engine takes it (RFC 4648, section 4).
            data: Some(BASE64_STANDARD.encode(content)),
            ..SecretSpec::default()
        };
        match manager.docker.create_secret(secret).await {
            Err(error) if !is_there(&error) => Err(manager.failed(&format!("create the secret {role}"), &error)),
            _ => Ok(()),
        }
    }

    pub(super) async fn remove_secret(&self, name: &str) -> Result<()> {
        let manager = self.engines.manager();
        let remove = async || manager.docker.delete_secret(name).await;
        insist(manager, &format!("remove the secret {name}"), remove).await
    }

    pub(super) async fn remove_volume(&self, host: &Name, volume: &str) -> Result<()> {
        let engine = self.engines.of(host)?;
        let remove = async || engine.docker.remove_volume(volume, None::<RemoveVolumeOptions>).await;
        insist(engine, &format!("remove the volume {volume}"), remove).await
    }

    /// Ids of secrets by name.
    pub(super) async fn secret_ids(&self) -> Result<BTreeMap<String, String>> {
        let manager = self.engines.manager();
        let secrets = manager.docker.list_secrets(None::<ListSecretsOptions>).await;
        let secrets = secrets.map_err(|error| manager.failed("list secrets", &error))?;
        Ok(secrets.into_iter().filter_map(|secret| Some((secret.spec?.name?, secret.id?))).collect())
    }
}

/// Removes something that may still be in use for a moment.
async fn insist(
    engine: &Engine,
    what: &str,
    remove: impl AsyncFn() -> std::result::Result<(), bollard::errors::Error>,
) -> Result<()> {
    let last = std::cell::RefCell::new(String::new());
    let removed = until(LET_GO, async || match unless_missing(remove().await) {
        Ok(()) => Ok(Some(())),
        // 400, 403, 409, 500: every kind of thing has its own number for "in use".
        Err(error) if !is_missing(&error) => {
            *last.borrow_mut() = words(&error);
            Ok(None)
        }
        Err(error) => Err(engine.failed(what, &error)),
    });
    match removed.await? {
        Some(()) => Ok(()),
        None => bail!("host {}: cannot {what}: {}", engine.host, last.into_inner()),
    }
}
