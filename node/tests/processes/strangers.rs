//! Whoever is not of the cluster gets nothing on the ports between nodes: not a byte, and no entry among the members.
//! A node of the cluster does get an answer to the same words, or the test would show nothing.

use crate::cluster::Cluster;
use crate::{Outcome, Story, ensure};
use node::cluster::PROTOCOL;
use node::peer::{Hello, Port, encode};
use node::pki::{Authority, Issued};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[("strangers::get_nothing_on_the_ports_between_nodes", &[], strangers)];

/// Longest wait for a refusal.
const REFUSAL: Duration = Duration::from_secs(20);
/// The cluster that strangers are of.
const OTHER: &str = "other";

fn strangers() -> Outcome {
    Cluster::run(&[], |cluster| {
        let status = cluster.settle()?;
        let own = cluster_name(cluster)?;
        let authority = |files: &str| Ok::<_, libtest_mimic::Failed>(Authority::open(&cluster.scratch(files)?, &own)?);
        // The cluster's own authority, for certificates that it should not have made.
        for file in ["ca.pem", "ca.key"] {
            fs::copy(cluster.ca.with_file_name(file), cluster.scratch("own")?.join(file))?;
        }
        let foreign = authority("foreign")?.peer("a", &own)?;
        let misnamed = authority("own")?.peer("b", OTHER)?;
        let member = authority("own")?.peer("c", &own)?;
        for (port, address) in peer_ports(&status)? {
            let words = hello(&status, &own, port)?;
            let clear = said(TcpStream::connect(address)?, &words)?;
            // To whom does not speak TLS the refusal itself is in clear: one fatal alert (RFC 8446, section 6).
            let alert = clear.is_empty() || matches!(clear[..], [0x15, 3, _, 0, 2, 2, _]);
            ensure(alert, || format!("a stranger in clear got {} bytes from {port:?}", clear.len()))?;
            for (who, files) in [("nobody's", None), ("a foreign", Some(&foreign)), ("a misnamed", Some(&misnamed))] {
                let got = said(encrypted(address, files)?, &words)?;
                ensure(got.is_empty(), || format!("{who} certificate got {} bytes from {port:?}", got.len()))?;
            }
            // With a certificate that is stolen, or of a cluster with the same name, the Hello decides.
            let got = said(encrypted(address, Some(&member))?, &hello(&status, OTHER, port)?)?;
            let refusal: &[u8] = br#"{"refused":{"reason":"wrong_cluster"}}"#;
            ensure(got.get(5..) == Some(refusal), || format!("another cluster's Hello got {got:?} from {port:?}"))?;
        }
        let members = cluster.settle()?["members"].as_array().map_or(0, Vec::len);
        ensure(members == 5, || format!("{members} members after the strangers came"))?;
        let reply = cluster.session(0)?.put("/after", b"as before")?;
        ensure(reply.code == 226, || reply.text)?;

        let [_, (port, address)] = peer_ports(&status)?;
        let mut wire = encrypted(address, Some(&member))?;
        wire.write_all(&hello(&status, &own, port)?)?;
        let mut got = vec![0; 15];
        wire.read_exact(&mut got)?;
        ensure(got[5..] == *br#"{"welcome""#, || format!("a node of the cluster is told {got:?}"))
    })
}

/// Says hello and reads to the end: a refusal may be an alert or a reset, or words.
pub(crate) fn said(mut wire: impl Socket, words: &[u8]) -> Outcome<Vec<u8>> {
    wire.socket().set_read_timeout(Some(REFUSAL))?;
    let _ = wire.write_all(words).and_then(|()| wire.flush());
    let mut got = Vec::new();
    let end = wire.read_to_end(&mut got);
    let waited = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    ensure(!waited, || format!("after {} bytes the connection is still open", got.len()))?;
    Ok(got)
}

pub(crate) fn cluster_name(cluster: &Cluster) -> Outcome<String> {
    let file = cluster.settings(0)?;
    let settings: toml::Table = fs::read_to_string(file)?.parse()?;
    let name = settings.get("node").and_then(|node| node.get("cluster")).and_then(toml::Value::as_str);
    Ok(name.ok_or("no node.cluster in the settings")?.to_owned())
}

/// Coordination and raw bytes, from what the node says of itself.
pub(crate) fn peer_ports(status: &Value) -> Outcome<[(Port, SocketAddr); 2]> {
    let of = |name: &str| -> Outcome<SocketAddr> {
        Ok(status["endpoints"][name].as_str().ok_or_else(|| format!("no {name}: {status}"))?.parse()?)
    };
    Ok([(Port::Rpc, of("peer")?), (Port::Raw, of("raw")?)])
}

/// The first frame of a node that nobody knows yet.
fn hello(status: &Value, cluster: &str, port: Port) -> Outcome<Vec<u8>> {
    let mut info = status["members"][0]["info"].clone();
    let node = Value::from("0123456789abcdef0123456789abcdef");
    (info["node"], info["rank"]["node"]) = (node.clone(), node);
    let info = serde_json::from_value(info)?;
    let hello = Hello {
        protocol: PROTOCOL,
        oldest: None,
        cluster: cluster.to_owned(),
        port,
        info,
        boot: serde_json::from_str(r#"{"count":1,"recent":[1]}"#)?,
        peers: Vec::new(),
    };
    let mut frame = Vec::new();
    encode(&hello, &mut frame)?;
    Ok(frame)
}

pub(crate) fn encrypted(
    address: SocketAddr,
    files: Option<&Issued>,
) -> Outcome<StreamOwned<ClientConnection, TcpStream>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    // A stranger does not care whom it talks to.
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)));
    let config = match files {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let certificate = CertificateDer::from_pem_file(&files.certificate)?;
            builder.with_client_auth_cert(vec![certificate], PrivateKeyDer::from_pem_file(&files.key)?)?
        }
    };
    let session = ClientConnection::new(Arc::new(config), "peer.trebol".try_into()?)?;
    Ok(StreamOwned::new(session, TcpStream::connect(address)?))
}

pub(crate) trait Socket: Read + Write {
    fn socket(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Socket for StreamOwned<ClientConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref()
    }
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
