//! Who may speak on the ports between nodes: mutual TLS 1.3 (RFC 8446) under the cluster's own CA. Both sides check that
//! the other's certificate names `<cluster>.trebol`. No session is resumed, so that a certificate that was replaced or
//! has expired counts from the next connection on. `insecure` is plain TCP, by the operator's word only.

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// Turns TCP connections between nodes into authenticated ones. Cheap to clone; used for both ports.
#[derive(Clone)]
pub struct PeerTls(Option<Arc<Secure>>);

struct Secure {
    name: ServerName<'static>,
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    chain: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
}

/// The PEM text that a node is given: see [`PeerTls::new`].
#[derive(Debug, Clone, Copy)]
pub struct Pem<'a> {
    /// One or more CA certificates: a bundle, so that the CA can rotate.
    pub ca: &'a [u8],
    /// This node's certificate, with intermediates if there are any.
    pub certificate: &'a [u8],
    /// Its private key.
    pub key: &'a [u8],
}

/// Why the TLS material is of no use. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// The cluster's name does not make a DNS name.
    #[error("the cluster name {0:?} is no DNS label (letters, digits and hyphens)")]
    ClusterName(String),
    /// A PEM text cannot be read, or is empty.
    #[error("the peer {what} cannot be read as PEM: {error}")]
    Pem {
        /// Which.
        what: &'static str,
        /// What the parser says.
        error: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not fit, or the CA is none.
    #[error("the peer certificates are of no use: {0}")]
    Rustls(#[from] rustls::Error),
    /// No usable CA.
    #[error("the peer CA is of no use: {0}")]
    Ca(#[from] rustls::server::VerifierBuilderError),
    /// This node's own certificate is for another name: no peer would have it.
    #[error("the peer certificate is not valid for {name}: {error}")]
    OwnName {
        /// The name wanted.
        name: String,
        /// What is wrong.
        error: rustls::Error,
    },
    /// It is not from the CA, or not valid at this time: no peer would have it.
    #[error("peers would refuse the peer certificate: {0}")]
    Refused(rustls::Error),
}

/// BLAKE3 of a certificate's public key (its SubjectPublicKeyInfo): stays the same when a certificate is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHash(pub [u8; 32]);

/// A connection to or from a peer, with what its certificate proves.
#[derive(Debug)]
pub struct Secured {
    /// The bytes.
    pub stream: PeerStream,
    /// The peer's key; `None` on plain connections.
    pub key: Option<KeyHash>,
}

/// A connection between nodes.
#[derive(Debug)]
pub enum PeerStream {
    /// `insecure` mode.
    Plain(TcpStream),
    /// The usual one.
    Tls(Box<TlsStream<TcpStream>>),
}

impl PeerTls {
    /// Plain TCP, no authentication: only for `--insecure-peers`.
    pub fn insecure() -> Self {
        Self(None)
    }
    /// Whether peers are authenticated.
    pub fn is_secure(&self) -> bool {
        self.0.is_some()
    }
    /// Mutual TLS for the cluster called `cluster`. The node's own certificate is checked for the name as well, so that a
    /// mistake shows at the start and not as refusals elsewhere.
    pub fn new(cluster: &str, pem: Pem<'_>) -> Result<Self, TlsConfigError> {
        let name = dns_name(cluster)?;
        let chain = certificates("certificate", pem.certificate)?;
        check_name(&chain[0], &name)
            .map_err(|error| TlsConfigError::OwnName { name: name.to_str().into_owned(), error })?;
        Self::new_unchecked(cluster, pem)
    }
    /// The same, whatever name the own certificate has.
    pub(super) fn new_unchecked(cluster: &str, pem: Pem<'_>) -> Result<Self, TlsConfigError> {
        let name = dns_name(cluster)?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates("CA", pem.ca)? {
            roots.add(certificate)?;
        }
        let roots = Arc::new(roots);
        let chain = certificates("certificate", pem.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(pem.key).map_err(|error| TlsConfigError::Pem { what: "key", error })?;

        let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = &[&rustls::version::TLS13];
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)?
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        client.resumption = Resumption::disabled();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key)?;
        server.send_tls13_tickets = 0;
        Ok(Self(Some(Arc::new(Secure {
            name,
            connector: TlsConnector::from(Arc::new(client)),
            acceptor: TlsAcceptor::from(Arc::new(server)),
            chain,
            roots,
        }))))
    }
    /// Whether a peer with the same CA would take this node's certificate at this time.
    pub fn check_own(&self, now: UnixTime) -> Result<(), TlsConfigError> {
        let Some(Secure { name, chain, roots, .. }) = self.0.as_deref() else { return Ok(()) };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider).build()?;
        let (own, between) = chain.split_first().expect("at least one certificate was read");
        verifier.verify_server_cert(own, between, name, &[], now).map(drop).map_err(TlsConfigError::Refused)
    }
    /// Secures a connection that was dialled. Put a timeout around it.
    pub async fn connect(&self, stream: TcpStream) -> io::Result<Secured> {
        let Some(secure) = &self.0 else { return Ok(Secured { stream: PeerStream::Plain(stream), key: None }) };
        // The connector checks the server's name itself.
        let tls = secure.connector.connect(secure.name.clone(), stream).await?;
        secured(tls.into(), None)
    }
    /// Secures a connection that was accepted. Put a timeout around it.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Secured> {
        let Some(secure) = &self.0 else { return Ok(Secured { stream: PeerStream::Plain(stream), key: None }) };
        let tls = secure.acceptor.accept(stream).await?;
        secured(tls.into(), Some(&secure.name))
    }
}

/// Takes the peer's key, after a check of the name that TLS itself makes in one direction only.
fn secured(tls: TlsStream<TcpStream>, check: Option<&ServerName<'static>>) -> io::Result<Secured> {
    let refuse = |what: String| io::Error::new(io::ErrorKind::PermissionDenied, what);
    let certificate = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let Some(certificate) = certificate else { return Err(refuse("the peer showed no certificate".into())) };
    if let Some(name) = check {
        check_name(certificate, name)
            .map_err(|e| refuse(format!("the peer's certificate is not for {}: {e}", name.to_str())))?;
    }
    let parsed = ParsedCertificate::try_from(certificate).map_err(|e| refuse(e.to_string()))?;
    let key = KeyHash(*blake3::hash(&parsed.subject_public_key_info()).as_bytes());
    Ok(Secured { stream: PeerStream::Tls(Box::new(tls)), key: Some(key) })
}

fn check_name(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), rustls::Error> {
    rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
}

fn dns_name(cluster: &str) -> Result<ServerName<'static>, TlsConfigError> {
    let error = || TlsConfigError::ClusterName(cluster.to_owned());
    // One label: a dot would make the name another cluster's subdomain.
    if cluster.contains('.') {
        return Err(error());
    }
    ServerName::try_from(format!("{cluster}.trebol")).map_err(|_| error())
}

/// At least one certificate.
fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let error = |error| TlsConfigError::Pem { what, error };
    let list: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(error)?;
    if list.is_empty() { Err(error(rustls::pki_types::pem::Error::NoItemsFound)) } else { Ok(list) }
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_secure() { "PeerTls" } else { "PeerTls(insecure)" })
    }
}

impl PeerStream {
    /// The socket below, for its options and its addresses.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
