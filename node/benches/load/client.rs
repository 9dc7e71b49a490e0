//! The smallest FTP client that can keep a server busy: EPSV, one data connection a file, TLS resumed where the server
//! lets it. RFC 959, 2428, 4217. It measures, so it does nothing twice: a reply that is not expected is an error.

use crate::Outcome;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Bytes of one write to, or read from, a data connection.
pub(crate) const BLOCK: usize = 256 * 1024;
/// Longest silence of a server before a load counts as failed.
const SILENCE: Duration = Duration::from_secs(90);

/// Where and as whom.
#[derive(Clone)]
pub(crate) struct Login {
    /// The control port.
    pub(crate) address: SocketAddr,
    /// Who.
    pub(crate) user: String,
    /// The password.
    pub(crate) password: String,
    /// Encrypts control and data; `None` leaves all in clear.
    pub(crate) tls: Option<TlsConnector>,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
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

/// A session, logged in.
pub(crate) struct Session {
    control: BufReader<Wire>,
    login: Login,
}

impl Session {
    /// Connects, encrypts if the login says so, logs in.
    pub(crate) async fn open(login: &Login) -> Outcome<Self> {
        let stream = bounded(TcpStream::connect(login.address)).await?;
        stream.set_nodelay(true)?;
        let mut session = Self { control: BufReader::new(Wire::Plain(stream)), login: login.clone() };
        session.reply(&[220]).await?;
        if let Some(tls) = login.tls.clone() {
            session.command("AUTH TLS", &[234]).await?;
            let Wire::Plain(stream) = session.control.into_inner() else { return Err("encrypted twice".into()) };
            let wire = encrypt(&tls, stream).await?;
            session = Self { control: BufReader::new(wire), login: login.clone() };
            session.command("PBSZ 0", &[200]).await?;
            session.command("PROT P", &[200]).await?;
        }
        session.command(&format!("USER {}", login.user), &[331]).await?;
        session.command(&format!("PASS {}", login.password), &[230]).await?;
        session.command("TYPE I", &[200]).await?;
        Ok(session)
    }

    /// Stores `size` bytes.
    pub(crate) async fn put(&mut self, path: &str, size: u64) -> Outcome<()> {
        let block = vec![0x5a_u8; BLOCK.min(usize::try_from(size)?)];
        let mut data = self.transfer(&format!("STOR {path}")).await?;
        let mut left = size;
        while left > 0 {
            let piece = &block[..block.len().min(usize::try_from(left)?)];
            bounded(data.write_all(piece)).await?;
            left -= piece.len() as u64;
        }
        bounded(data.shutdown()).await?;
        drop(data);
        self.reply(&[226, 250]).await
    }

    /// Fetches all of it; hands out how many bytes.
    pub(crate) async fn get(&mut self, path: &str, block: &mut [u8]) -> Outcome<u64> {
        let mut data = self.transfer(&format!("RETR {path}")).await?;
        let mut size = 0;
        loop {
            match bounded(data.read(block)).await? {
                0 => break,
                read => size += read as u64,
            }
        }
        drop(data);
        self.reply(&[226, 250]).await?;
        Ok(size)
    }

    /// Deletes; a file that is not there is no error.
    pub(crate) async fn delete(&mut self, path: &str) -> Outcome<()> {
        self.command(&format!("DELE {path}"), &[250, 550]).await.map(drop)
    }

    async fn transfer(&mut self, line: &str) -> Outcome<Wire> {
        let said = self.command("EPSV", &[229]).await?;
        let port = said.split('|').nth(3).and_then(|port| port.parse().ok()).ok_or("no port after EPSV")?;
        let stream = bounded(TcpStream::connect(SocketAddr::new(self.login.address.ip(), port))).await?;
        self.command(line, &[125, 150]).await?;
        match &self.login.tls {
            None => Ok(Wire::Plain(stream)),
            Some(tls) => encrypt(tls, stream).await,
        }
    }

    async fn command(&mut self, line: &str, codes: &[u16]) -> Outcome<String> {
        let line = format!("{line}\r\n");
        let wire = self.control.get_mut();
        bounded(wire.write_all(line.as_bytes())).await?;
        bounded(wire.flush()).await?;
        self.read_reply(codes).await.map_err(|error| format!("{}: {error}", line.trim_end()).into())
    }

    async fn reply(&mut self, codes: &[u16]) -> Outcome<()> {
        self.read_reply(codes).await.map(drop)
    }

    async fn read_reply(&mut self, codes: &[u16]) -> Outcome<String> {
        let mut line = String::new();
        // The last line of a reply is the one with a space after its digits.
        while line.as_bytes().get(3) != Some(&b' ') || !line.as_bytes()[..3].iter().all(u8::is_ascii_digit) {
            line.clear();
            if bounded(self.control.read_line(&mut line)).await? == 0 {
                return Err("the server closed the connection".into());
            }
        }
        let code: u16 = line[..3].parse()?;
        if codes.contains(&code) { Ok(line) } else { Err(format!("answered {}", line.trim_end()).into()) }
    }
}

async fn encrypt(tls: &TlsConnector, stream: TcpStream) -> Outcome<Wire> {
    let name = ServerName::from(stream.peer_addr()?.ip());
    Ok(Wire::Tls(Box::new(bounded(tls.connect(name, stream)).await?)))
}

async fn bounded<T>(work: impl Future<Output = io::Result<T>>) -> Outcome<T> {
    timeout(SILENCE, work).await.map_err(|_| format!("no progress in {} s", SILENCE.as_secs()))?.map_err(Into::into)
}

/// TLS without a look at certificates: any server is to be measured, and nothing secret is sent.
pub(crate) fn tls() -> Outcome<TlsConnector> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let verifier = Arc::new(Anyone(provider));
    let config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
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
