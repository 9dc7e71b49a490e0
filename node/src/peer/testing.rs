//! What the tests of this module and of the raw port need: a certificate authority of their own, and made-up peers.

use super::{PeerTls, Pem};
use crate::cluster::{NodeId, PeerInfo, Rank};
use crate::store::BootChain;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;

/// A peer called `n` whose RPC address is `address`.
pub(crate) fn info(n: u128, address: &str) -> PeerInfo {
    let (node, address) = (NodeId(n), address.parse().unwrap());
    let rank = Rank { priority: 0, address, node };
    PeerInfo { node, rank, raw: address, ftp: "127.0.0.1:21".into(), name: format!("n{n}"), zone: "z".into() }
}

/// A node's boots.
pub(crate) fn boots(chain: &[u64]) -> BootChain {
    BootChain { count: chain.len() as u64, recent: chain.to_vec() }
}

/// A CA.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }
    /// A node of `cluster`, with a key of its own.
    pub(crate) fn tls(&self, cluster: &str) -> PeerTls {
        self.tls_trusting(cluster, self)
    }
    /// A node of `cluster` with a certificate from here that trusts another CA.
    pub(crate) fn tls_trusting(&self, cluster: &str, trusted: &Self) -> PeerTls {
        let (certificate, key) = self.certificate(cluster);
        let ca = trusted.0.pem();
        let pem = Pem { ca: ca.as_bytes(), certificate: certificate.as_bytes(), key: key.as_bytes() };
        PeerTls::new(cluster, pem).unwrap()
    }
    /// A node that takes itself for one of `cluster`, with a certificate for another.
    pub(crate) fn tls_named(&self, cluster: &str, certified: &str) -> PeerTls {
        let (certificate, key) = self.certificate(certified);
        let ca = self.0.pem();
        let pem = Pem { ca: ca.as_bytes(), certificate: certificate.as_bytes(), key: key.as_bytes() };
        assert!(PeerTls::new(cluster, pem).is_err(), "a node notices that its own certificate is wrong");
        PeerTls::new_unchecked(cluster, pem).unwrap()
    }
    /// A TLS client that trusts this CA and shows no certificate.
    pub(crate) async fn connect_without_certificate(
        &self,
        cluster: &str,
        address: SocketAddr,
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = format!("{cluster}.trebol").try_into().unwrap();
        let tcp = TcpStream::connect(address).await.unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
    }

    /// PEM of a certificate for both directions, and of its key.
    fn certificate(&self, cluster: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![format!("{cluster}.trebol")]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}
