//! For tests: a client that shows every byte of the control connection. Not part of any build.

use super::testing::LONG;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A control connection from the client's side.
pub(crate) struct Client {
    pub(super) stream: Box<dyn Stream>,
    pub(super) buffer: Vec<u8>,
    pub(super) connector: TlsConnector,
}

impl Client {
    /// One to which nothing was said yet.
    pub(crate) fn over(stream: TcpStream, connector: &TlsConnector) -> Self {
        Self { stream: Box::new(stream), buffer: vec![], connector: connector.clone() }
    }
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        timeout(LONG, self.stream.write_all(bytes)).await.unwrap().unwrap();
        self.stream.flush().await.unwrap();
    }
    /// The next reply, all its lines joined; code 0 when the connection is closed.
    pub(crate) async fn reply(&mut self) -> (u16, String) {
        let mut lines: Vec<String> = vec![];
        loop {
            let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") else {
                let read = timeout(LONG, self.stream.read_buf(&mut self.buffer)).await.expect("a reply in time");
                if read.unwrap_or(0) == 0 {
                    return (0, String::new());
                }
                continue;
            };
            let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let line = String::from_utf8(line[..end].to_vec()).unwrap();
            lines.push(line.clone());
            if line.as_bytes().get(3) == Some(&b' ') && !line.starts_with(' ') {
                return (line[..3].parse().unwrap(), lines.join("\n"));
            }
        }
    }
    pub(crate) async fn command(&mut self, line: &str) -> (u16, String) {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.reply().await
    }
    pub(crate) async fn expect(&mut self, line: &str, code: u16) -> String {
        let (got, text) = self.command(line).await;
        assert_eq!(got, code, "{line}: {text}");
        text
    }
    pub(crate) async fn replies(&mut self, codes: &[u16]) {
        for code in codes {
            let (got, text) = self.reply().await;
            assert_eq!(got, *code, "{text}");
        }
    }
    /// AUTH TLS.
    pub(crate) async fn secure(mut self) -> Self {
        self.expect("AUTH TLS", 234).await;
        let name = ServerName::try_from("localhost").unwrap();
        let stream = timeout(LONG, self.connector.connect(name, self.stream)).await.unwrap().unwrap();
        Self { stream: Box::new(stream), buffer: vec![], connector: self.connector }
    }
    /// EPSV, and the TCP connection.
    pub(crate) async fn data(&mut self) -> TcpStream {
        let text = self.expect("EPSV", 229).await;
        let port: u16 = text.split('|').nth(3).unwrap().parse().unwrap();
        TcpStream::connect(("127.0.0.1", port)).await.unwrap()
    }
    /// TLS over a data connection.
    pub(crate) async fn secure_data(&self, stream: TcpStream) -> tokio_rustls::client::TlsStream<TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        timeout(LONG, self.connector.connect(name, stream)).await.unwrap().unwrap()
    }
    /// STOR of all bytes, to the last reply.
    pub(crate) async fn store(&mut self, path: &str, bytes: &[u8], tls: bool) -> (u16, String) {
        self.give(&format!("STOR {path}"), bytes, tls).await.1
    }
    /// All bytes to a command: the text of its 150, and the last reply.
    pub(crate) async fn give(&mut self, command: &str, bytes: &[u8], tls: bool) -> (String, (u16, String)) {
        let data = self.data().await;
        let begun = self.expect(command, 150).await;
        let mut data: Box<dyn Stream> = if tls { Box::new(self.secure_data(data).await) } else { Box::new(data) };
        timeout(LONG, data.write_all(bytes)).await.unwrap().unwrap();
        data.shutdown().await.unwrap();
        (begun, self.reply().await)
    }
    /// Whatever a command sends, to its 226.
    pub(crate) async fn fetch(&mut self, command: &str, tls: bool) -> Vec<u8> {
        let data = self.data().await;
        self.expect(command, 150).await;
        let mut data: Box<dyn Stream> = if tls { Box::new(self.secure_data(data).await) } else { Box::new(data) };
        let mut bytes = vec![];
        timeout(LONG, data.read_to_end(&mut bytes)).await.unwrap().unwrap();
        self.replies(&[226]).await;
        bytes
    }
}
