//! TLS towards clients (RFC 4217): one certificate, two configurations. Clients are not asked for certificates.
//!
//! Both configurations share one stateless ticketer, so that a session begun on the control connection can be resumed on
//! any number of data connections (rustls' stateful store hands a ticket out once). Data connections are given no fresh
//! tickets: some clients that only send never read them, and see a reset at the end of an upload.

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// How client connections are secured. Cheap to clone.
#[derive(Clone)]
pub struct FtpTls {
    control: TlsAcceptor,
    data: TlsAcceptor,
}

/// Why certificate or key are of no use. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum FtpTlsError {
    /// A PEM text cannot be read, or is empty.
    #[error("the FTP {what} cannot be read as PEM: {error}")]
    Pem {
        /// Which.
        what: &'static str,
        /// What the parser says.
        error: rustls::pki_types::pem::Error,
    },
    /// They do not fit together.
    #[error("the FTP certificate and key are of no use: {0}")]
    Rustls(#[from] rustls::Error),
}

impl FtpTls {
    /// From a certificate chain and its private key, both PEM.
    pub fn new(certificate: &[u8], key: &[u8]) -> Result<Self, FtpTlsError> {
        let pem = |what| move |error| FtpTlsError::Pem { what, error };
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(pem("certificate"))?;
        if chain.is_empty() {
            return Err(pem("certificate")(rustls::pki_types::pem::Error::NoItemsFound));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(pem("key"))?;
        let mut control = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        control.ticketer = aws_lc_rs::Ticketer::new()?;
        let mut data = control.clone();
        data.send_tls13_tickets = 0;
        Ok(Self { control: Arc::new(control).into(), data: Arc::new(data).into() })
    }
    /// For control connections.
    pub(crate) fn control(&self) -> &TlsAcceptor {
        &self.control
    }
    /// For data connections.
    pub(crate) fn data(&self) -> &TlsAcceptor {
        &self.data
    }
}

impl fmt::Debug for FtpTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FtpTls")
    }
}
