//! A control connection in our own hands: for what no client program would send, and for moments no client program lets
//! one choose. RFC 959, 2228, 4217. Blocking, with a read timeout; it never retries.

use crate::{Outcome, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longest silence of a server. The longest documented wait of ours is 30 s, twice.
const SILENCE: Duration = Duration::from_secs(70);
/// In every certificate for clients, whatever the address of its node.
const NAME: &str = "localhost";
/// Longest reply read, in bytes.
const LONGEST_REPLY: usize = 1 << 20;

/// A connection, encrypted or not yet.
pub(crate) enum Wire {
    /// As it came.
    Plain(TcpStream),
    /// After AUTH TLS, or a data connection under PROT P.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// Encrypts; the handshake runs with the first bytes.
    pub(crate) fn encrypt(self, trust: &Arc<ClientConfig>) -> Outcome<Self> {
        let Self::Plain(socket) = self else { return Err("encrypted twice".into()) };
        let session = ClientConnection::new(trust.clone(), NAME.try_into()?)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(session, socket))))
    }

    /// The socket below.
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref(),
        }
    }

    /// Ends as the protocol wants: close_notify under TLS, then FIN.
    pub(crate) fn close(mut self) -> Outcome {
        if let Self::Tls(stream) = &mut self {
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock)?;
            }
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        Ok(self.socket().shutdown(std::net::Shutdown::Write)?)
    }

    /// Ends as a crashed machine would: a reset.
    pub(crate) fn reset(self) -> Outcome {
        Ok(socket2::SockRef::from(self.socket()).set_linger(Some(Duration::ZERO))?)
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Its three digits.
    pub(crate) code: u16,
    /// Its lines, with the digits.
    pub(crate) text: String,
}

/// A session.
pub(crate) struct Control {
    /// `None` only while it is being encrypted.
    wire: Option<Wire>,
    buffered: Vec<u8>,
    trust: Arc<ClientConfig>,
    /// Whether data connections are encrypted.
    protected: bool,
}

/// A client's trust in one authority.
pub(crate) fn trust(ca: &Path) -> Outcome<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

impl Control {
    /// Connects and reads the greeting.
    pub(crate) fn connect(address: SocketAddr, trust: &Arc<ClientConfig>) -> Outcome<Self> {
        let socket = connect(address)?;
        let trust = trust.clone();
        let mut control = Self { wire: Some(Wire::Plain(socket)), buffered: Vec::new(), trust, protected: false };
        let greeting = control.reply()?;
        ensure(greeting.code == 220, || format!("greeted with {}", greeting.text))?;
        Ok(control)
    }

    /// AUTH TLS, PBSZ, PROT P.
    pub(crate) fn secure(&mut self) -> Outcome {
        self.encrypt()?;
        self.protect()
    }

    /// AUTH TLS.
    pub(crate) fn encrypt(&mut self) -> Outcome {
        self.expect("AUTH TLS", 234)?;
        let wire = self.wire.take().ok_or("no connection")?;
        self.wire = Some(wire.encrypt(&self.trust)?);
        Ok(())
    }

    /// PBSZ, PROT P.
    pub(crate) fn protect(&mut self) -> Outcome {
        self.expect("PBSZ 0", 200)?;
        self.expect("PROT P", 200)?;
        self.protected = true;
        Ok(())
    }

    /// USER, PASS, TYPE I.
    pub(crate) fn log_in(&mut self, user: &str, password: &str) -> Outcome {
        self.expect(&format!("USER {user}"), 331)?;
        self.expect(&format!("PASS {password}"), 230)?;
        self.expect("TYPE I", 200)?;
        Ok(())
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Outcome {
        let wire = self.wire.as_mut().ok_or("no connection")?;
        wire.write_all(bytes)?;
        Ok(wire.flush()?)
    }

    /// Reads one reply, of one line or many.
    pub(crate) fn reply(&mut self) -> Outcome<Reply> {
        let mut text = self.line()?;
        let code = text.get(..3).and_then(|digits| digits.parse().ok()).ok_or_else(|| format!("no reply: {text:?}"))?;
        if text.as_bytes().get(3) == Some(&b'-') {
            let last = format!("{code} ");
            while !text.rsplit('\n').next().is_some_and(|line| line.starts_with(&last)) {
                ensure(text.len() < LONGEST_REPLY, || format!("a reply without end: {}", &text[..200]))?;
                text.push('\n');
                text += &self.line()?;
            }
        }
        Ok(Reply { code, text })
    }

    fn line(&mut self) -> Outcome<String> {
        loop {
            if let Some(end) = self.buffered.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffered.drain(..=end).collect();
                return Ok(String::from_utf8(line)?.trim_end().to_owned());
            }
            let mut chunk = [0; 4096];
            let wire = self.wire.as_mut().ok_or("no connection")?;
            let read = wire.read(&mut chunk).map_err(|error| format!("reading a reply: {error}"))?;
            ensure(read > 0, || "the server closed the control connection".to_owned())?;
            self.buffered.extend_from_slice(&chunk[..read]);
        }
    }

    /// Whether the server ended the connection in order, with nothing more to say.
    pub(crate) fn ends(&mut self) -> Outcome {
        let wire = self.wire.as_mut().ok_or("no connection")?;
        let read = wire.read_to_end(&mut self.buffered).map_err(|error| format!("no orderly end: {error}"))?;
        ensure(read == 0 && self.buffered.is_empty(), || format!("more to read: {:?}", self.buffered))
    }

    /// One command and its reply.
    pub(crate) fn command(&mut self, line: &str) -> Outcome<Reply> {
        self.send(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// One command that must be answered so.
    pub(crate) fn expect(&mut self, line: &str, code: u16) -> Outcome<Reply> {
        let reply = self.command(line)?;
        let verb = line.split(' ').next().unwrap_or_default();
        ensure(reply.code == code, || format!("{verb} was answered {}, not {code}", reply.text))?;
        Ok(reply)
    }

    /// EPSV and the connection to the port it names, not yet encrypted.
    pub(crate) fn passive(&mut self) -> Outcome<Wire> {
        let reply = self.expect("EPSV", 229)?;
        let port = reply.text.split('|').nth(3).and_then(|port| port.parse().ok());
        let port: u16 = port.ok_or_else(|| format!("no port in {}", reply.text))?;
        let mut address = self.wire.as_ref().ok_or("no connection")?.socket().peer_addr()?;
        address.set_port(port);
        Ok(Wire::Plain(connect(address)?))
    }

    /// Starts a transfer: the data connection is open and, under PROT P, encrypted, and the server said 150.
    pub(crate) fn transfer(&mut self, line: &str) -> Outcome<Wire> {
        let data = self.passive()?;
        let reply = self.command(line)?;
        ensure(matches!(reply.code, 125 | 150), || format!("{line} was answered {}", reply.text))?;
        if self.protected { data.encrypt(&self.trust) } else { Ok(data) }
    }

    /// STOR to its end; the reply is the caller's to judge, a refusal before the first byte too.
    pub(crate) fn put(&mut self, path: &str, bytes: &[u8]) -> Outcome<Reply> {
        self.give(&format!("STOR {path}"), bytes)
    }

    /// The same of any command that takes bytes.
    pub(crate) fn give(&mut self, command: &str, bytes: &[u8]) -> Outcome<Reply> {
        let data = self.passive()?;
        let reply = self.command(command)?;
        if !matches!(reply.code, 125 | 150) {
            return Ok(reply);
        }
        let mut data = if self.protected { data.encrypt(&self.trust)? } else { data };
        // A server that refuses the rest stops reading, and its reply says why.
        let _ = data.write_all(bytes).map_err(Into::into).and_then(|()| data.close());
        self.reply()
    }

    /// RETR to its end, which must be a good one.
    pub(crate) fn get(&mut self, path: &str) -> Outcome<Vec<u8>> {
        self.receive(&format!("RETR {path}"))
    }

    /// MLSD, NLST or LIST.
    pub(crate) fn list(&mut self, line: &str) -> Outcome<String> {
        Ok(String::from_utf8(self.receive(line)?)?)
    }

    fn receive(&mut self, line: &str) -> Outcome<Vec<u8>> {
        let mut data = self.transfer(line)?;
        let mut bytes = Vec::new();
        // Under TLS an end without close_notify is an error here, as it must be.
        data.read_to_end(&mut bytes).map_err(|error| format!("{line}: {error}"))?;
        let reply = self.reply()?;
        ensure(reply.code == 226, || format!("{line} ended with {}", reply.text))?;
        Ok(bytes)
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.set_write_timeout(Some(SILENCE))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}
