//! FTP clients of the stories: suppaftp over explicit TLS, with trust in the cluster's own authority. Every wait has a
//! bound; nothing is tried twice, unless a node turned its client away before anything was begun.

use crate::access::{PASSWORD, USER};
use crate::wait::within;
use anyhow::{Context, Result, anyhow, bail};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use suppaftp::tokio::{AsyncRustlsConnector, AsyncRustlsFtpStream, AsyncRustlsStream, TransferStream};
use suppaftp::types::FileType;
use suppaftp::{FtpError, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// In every certificate for clients.
const NAME: &str = "localhost";
/// For a node to answer whoever connects.
const GREETING: Duration = Duration::from_secs(15);
/// For an operation to end: the longest documented wait is 30 s, twice.
const OPERATION: Duration = Duration::from_secs(70);

/// Where the nodes of a cluster take clients, and how these log in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clients {
    /// By node.
    pub addresses: Vec<SocketAddr>,
    trust: Arc<ClientConfig>,
}

/// A session of the cluster's user.
pub struct Client(AsyncRustlsFtpStream);

/// An upload that has begun.
pub struct Upload(TransferStream<AsyncRustlsStream>);

/// Why an operation came to nothing.
#[derive(Debug)]
pub enum Refused {
    /// The node takes no clients now: nothing was begun.
    Away(anyhow::Error),
    /// Anything else.
    Failed(anyhow::Error),
}

/// What a client trusts: the certificates in a PEM file.
pub fn trust(authority: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).context("the authority's file")? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

impl Clients {
    /// Clients that trust this.
    pub fn new(addresses: Vec<SocketAddr>, trust: Arc<ClientConfig>) -> Self {
        Self { addresses, trust }
    }
    /// A session at a node.
    pub async fn session(&self, node: usize) -> Result<Client> {
        let enter = async {
            let mut stream = self.encrypted(node).await?;
            stream.login(USER, PASSWORD).await?;
            stream.transfer_type(FileType::Binary).await?;
            Ok(Client(stream))
        };
        within(&format!("a session at node {node}"), GREETING, enter).await
    }
    /// The same, and what came of it: a node whose port is closed, or that ends the connection or says 421 before anybody has
    /// logged in, is away.
    pub async fn try_session(&self, node: usize) -> Result<Client, Refused> {
        let session = self.session(node).await;
        session.map_err(|error| if is_away(&error) { Refused::Away(error) } else { Refused::Failed(error) })
    }
    /// An encrypted connection at a node, of nobody yet.
    pub async fn stranger(&self, node: usize) -> Result<Client> {
        let connect = async { Ok(Client(self.encrypted(node).await?)) };
        within(&format!("a connection to node {node}"), GREETING, connect).await
    }
    /// A connection in clear.
    pub async fn stranger_in_clear(&self, node: usize) -> Result<Client> {
        let address = self.addresses[node];
        let connect = async { Ok(Client(AsyncRustlsFtpStream::connect(address).await?)) };
        within(&format!("a connection to node {node}"), GREETING, connect).await
    }

    async fn encrypted(&self, node: usize) -> Result<AsyncRustlsFtpStream> {
        let stream = AsyncRustlsFtpStream::connect(self.addresses[node]).await?;
        let connector = AsyncRustlsConnector::from(TlsConnector::from(self.trust.clone()));
        Ok(stream.into_secure(connector, NAME).await?)
    }
}

impl Client {
    /// STOR to its end, which must be a good one.
    pub async fn put(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.try_put(path, bytes).await.map_err(Refused::into_error)
    }
    /// The same, and what came of it.
    pub async fn try_put(&mut self, path: &str, bytes: &[u8]) -> Result<(), Refused> {
        let put = async {
            let mut stream = self.0.put_with_stream(path).await.map_err(Refused::before)?;
            let sent = async { stream.write_all(bytes).await };
            sent.await.map_err(|error| Refused::Failed(error.into()))?;
            stream.finish().await.map_err(|error| Refused::Failed(error.into()))
        };
        bounded(&format!("STOR {path}"), put).await
    }
    /// Begins STOR: the server has said 150.
    pub async fn begin(&mut self, path: &str) -> Result<Upload> {
        let begun = async { Ok(Upload(self.0.put_with_stream(path).await?)) };
        within(&format!("150 for STOR {path}"), OPERATION, begun).await
    }
    /// RETR to its end, which must be a good one.
    pub async fn get(&mut self, path: &str) -> Result<Vec<u8>> {
        self.try_get(path).await.map_err(Refused::into_error)
    }
    /// The same, and what came of it.
    pub async fn try_get(&mut self, path: &str) -> Result<Vec<u8>, Refused> {
        let get = async {
            let mut stream = self.0.retr_as_stream(path).await.map_err(Refused::before)?;
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.map_err(|error| Refused::Failed(error.into()))?;
            stream.finish().await.map_err(|error| Refused::Failed(error.into()))?;
            Ok(bytes)
        };
        bounded(&format!("RETR {path}"), get).await
    }
    /// Names in a directory, without it.
    pub async fn names(&mut self, directory: &str) -> Result<Vec<String>> {
        let list = async { Ok(self.0.nlst(Some(directory)).await?) };
        let names = within(&format!("NLST {directory}"), OPERATION, list).await?;
        Ok(names.iter().filter_map(|name| name.rsplit('/').next()).map(str::to_owned).collect())
    }
    /// MKD.
    pub async fn make_directory(&mut self, path: &str) -> Result<()> {
        within(&format!("MKD {path}"), OPERATION, async { Ok(self.0.mkdir(path).await?) }).await
    }
    /// APPE to its end, which must be a good one.
    pub async fn append(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let append = async {
            let mut stream = self.0.append_with_stream(path).await?;
            stream.write_all(bytes).await?;
            Ok(stream.finish().await?)
        };
        within(&format!("APPE {path}"), OPERATION, append).await
    }
    /// The code that a command is answered with, whatever it is.
    pub async fn code(&mut self, line: &str) -> Result<u32> {
        Ok(self.reply(line).await?.0)
    }
    /// The same with its text.
    pub async fn reply(&mut self, line: &str) -> Result<(u32, String)> {
        let verb = line.split(' ').next().unwrap_or_default();
        let reply = async {
            // No code is expected, so that each is told as the unexpected one.
            match self.0.custom_command(line, &[]).await {
                Ok(reply) | Err(FtpError::UnexpectedResponse(reply)) => {
                    Ok((reply.status.code(), String::from_utf8_lossy(&reply.body).into_owned()))
                }
                Err(error) => Err(error.into()),
            }
        };
        within(&format!("an answer to {verb}"), OPERATION, reply).await
    }
}

impl Upload {
    /// Sends some bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let send = async {
            self.0.write_all(bytes).await?;
            Ok(self.0.flush().await?)
        };
        within("the server to take bytes", OPERATION, send).await
    }
    /// Ends it; the reply must be 226.
    pub async fn finish(self) -> Result<()> {
        within("the end of an upload", OPERATION, async { Ok(self.0.finish().await?) }).await
    }
}

impl Refused {
    /// For an answer before any byte: 421 is a node that stops.
    fn before(error: FtpError) -> Self {
        match error {
            FtpError::UnexpectedResponse(reply) if reply.status == Status::NotAvailable => {
                Self::Away(anyhow!("answered {reply}"))
            }
            other => Self::Failed(other.into()),
        }
    }
    /// What was said.
    pub fn into_error(self) -> anyhow::Error {
        match self {
            Self::Away(error) | Self::Failed(error) => error,
        }
    }
}

/// Whether this says that a node takes no clients now: 421, or no connection to be had or kept.
fn is_away(error: &anyhow::Error) -> bool {
    let away =
        [ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof, ErrorKind::BrokenPipe];
    error.chain().any(|cause| match cause.downcast_ref::<FtpError>() {
        Some(FtpError::UnexpectedResponse(reply)) => reply.status == Status::NotAvailable,
        Some(FtpError::ConnectionError(error)) => away.contains(&error.kind()),
        _ => false,
    })
}

/// An operation that takes too long has failed.
async fn bounded<T>(what: &str, work: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
    match timeout(OPERATION, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(Refused::Away(error))) => Err(Refused::Away(error.context(what.to_owned()))),
        Ok(Err(Refused::Failed(error))) => Err(Refused::Failed(error.context(what.to_owned()))),
        Err(_) => Err(Refused::Failed(anyhow!("waited {} s for the end of {what}", OPERATION.as_secs()))),
    }
}

/// Fails unless a code is the expected one.
pub fn expect(line: &str, got: u32, expected: u32) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    bail!("{line} was answered {got}, not {expected}")
}
