//! Whoever is not of the cluster gets nothing on the ports between nodes: not a byte, and no entry among the members.

use crate::cluster::Cluster;
use crate::{Outcome, Story, ensure};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[("strangers::get_nothing_on_the_ports_between_nodes", &[], strangers)];

/// The first frame that a node might send: a stranger learns it from the source.
const HELLO: &[u8] = b"\x00\x00\x00\x0f\x01{\"version\":1}  ";
/// Longest wait for a refusal.
const REFUSAL: Duration = Duration::from_secs(20);

/// A certificate and its key.
type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn strangers() -> Outcome {
    Cluster::run(&[], |cluster| {
        cluster.settle()?;
        let ports = peer_ports(cluster, 0)?;
        let foreign = authority()?;
        let own = own_authority(cluster)?;
        let strangers: [(&str, Option<Identity>); 4] = [
            ("without a certificate", None),
            ("of another authority", Some(identity(&foreign, "trebol.trebol")?)),
            ("of another authority, in the name of another cluster", Some(identity(&foreign, "other.trebol")?)),
            ("of this authority, in the name of another cluster", Some(identity(&own, "other.trebol")?)),
        ];
        for port in ports {
            nothing("in clear", port, TcpStream::connect(port)?)?;
            for (who, identity) in &strangers {
                let session = ClientConnection::new(Arc::new(config(identity.as_ref())?), "trebol.trebol".try_into()?)?;
                nothing(who, port, StreamOwned::new(session, TcpStream::connect(port)?))?;
            }
        }
        let status = cluster.settle()?;
        let members = status["members"].as_array().map_or(0, Vec::len);
        ensure(members == 5, || format!("{members} members after the strangers came"))?;
        let reply = cluster.session(0)?.put("/after", b"as before")?;
        ensure(reply.code == 226, || reply.text)
    })
}

/// Says hello and reads until the end: a refusal may be an alert or a reset, but never a byte of data.
fn nothing(who: &str, port: SocketAddr, mut wire: impl Socket) -> Outcome {
    wire.socket().set_read_timeout(Some(REFUSAL))?;
    let _ = wire.write_all(HELLO).and_then(|()| wire.flush());
    let mut got = Vec::new();
    let end = wire.read_to_end(&mut got);
    // To whom does not speak TLS at all the refusal itself is in clear: one fatal alert (RFC 8446, section 6).
    if wire.in_clear() && matches!(got[..], [0x15, 3, _, 0, 2, 2, _]) {
        got.clear();
    }
    ensure(got.is_empty(), || format!("a stranger {who} got {} bytes from {port}", got.len()))?;
    let waited = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    ensure(!waited, || format!("a stranger {who} is not turned away by {port}"))
}

trait Socket: Read + Write {
    fn in_clear(&self) -> bool;
    fn socket(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn in_clear(&self) -> bool {
        true
    }
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Socket for StreamOwned<ClientConnection, TcpStream> {
    fn in_clear(&self) -> bool {
        false
    }
    fn socket(&self) -> &TcpStream {
        self.get_ref()
    }
}

/// Coordination and raw bytes, from what the node wrote down of itself.
fn peer_ports(cluster: &Cluster, node: usize) -> Outcome<[SocketAddr; 2]> {
    let file = cluster.nodes[node].data.join("endpoints.json");
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let said: serde_json::Value = serde_json::from_str(&text)?;
    let port = |name: &str| said[name].as_str().and_then(|text| text.parse().ok()).ok_or(format!("no {name}: {said}"));
    Ok([port("peer")?, port("raw")?])
}

fn authority() -> Outcome<Issuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(Issuer::new(params, KeyPair::generate()?))
}

/// The cluster's own, whose key `dev` keeps beside the certificate.
fn own_authority(cluster: &Cluster) -> Outcome<Issuer<'static, KeyPair>> {
    let key = fs::read_to_string(cluster.ca.with_file_name("ca.key"))?;
    // Only the name and the key of an issuer go into what it signs.
    let pem = fs::read_to_string(&cluster.ca)?;
    let _ = pem;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(Issuer::new(params, KeyPair::from_pem(&key)?))
}

fn identity(issuer: &Issuer<'static, KeyPair>, name: &str) -> Outcome<Identity> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
}

fn config(identity: Option<&Identity>) -> Outcome<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    // A stranger does not care whom it talks to.
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)));
    Ok(match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key())?,
    })
}

#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
