//! Data connections (RFC 959 section 3.2, RFC 2428, RFC 4217 section 7): a port that waits for one client, then plain
//! bytes or TLS. Only the address of the control connection may connect. Sending and receiving are `download`, `upload`.

use super::config::FtpConfig;
use super::stream::ClientStream;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Connections that may wait on a passive port: the client's one, and a few of strangers to be turned away.
const BACKLOG: i32 = 8;

/// Where the next search for a free port begins, so that a port is not used again at once.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// What can go wrong on a data connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    /// No PASV or EPSV came before.
    #[error("say PASV or EPSV first")]
    NotAsked,
    /// The client did not connect in time.
    #[error("the data connection was not opened in time")]
    NotOpened,
    /// It connected, and TLS did not come to stand.
    #[error("TLS negotiation failed on the data connection: {0}")]
    Handshake(io::Error),
    /// It stands, and nothing moves.
    #[error("the data connection stalled")]
    Stalled,
    /// It broke.
    #[error("the data connection broke: {0}")]
    Cut(io::Error),
}

/// A port that waits for one connection. Dropped, it is free again.
#[derive(Debug)]
pub(crate) struct Passive {
    listener: TcpListener,
    /// Who may connect.
    peer: IpAddr,
}

impl Passive {
    /// Listens where the control connection arrived (`local`), for its other end (`peer`).
    pub(crate) fn listen(config: &FtpConfig, local: IpAddr, peer: IpAddr) -> io::Result<Self> {
        let Some(range) = &config.passive_ports else {
            return Ok(Self { listener: listen(SocketAddr::new(local, 0), false)?, peer });
        };
        let (first, count) = (*range.start(), u32::from(range.end().saturating_sub(*range.start())) + 1);
        let begin = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        for n in 0..count {
            let step = u16::try_from((begin + n) % count).expect("below the number of ports");
            match listen(SocketAddr::new(local, first + step), true) {
                Ok(listener) => return Ok(Self { listener, peer }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "all passive ports are taken"))
    }
    /// The port.
    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }
    async fn accept(&self) -> io::Result<TcpStream> {
        loop {
            let (stream, from) = self.listener.accept().await?;
            if from.ip().to_canonical() == self.peer {
                return Ok(stream);
            }
            tracing::warn!(%from, "a stranger connected to a passive port and was turned away");
        }
    }
}

/// `reuse` is for ports of a range, which come round again while past connections of theirs may still be in TIME_WAIT; two
/// listeners on one stay impossible. Where the kernel chooses the port it is to choose one that is free of all that.
fn listen(address: SocketAddr, reuse: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(reuse)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// All that is needed to open the data connection of one transfer, apart from the session.
pub(crate) struct Dock {
    passive: Passive,
    tls: Option<TlsAcceptor>,
    accept_timeout: Duration,
    /// Longest time without a byte moving.
    pub(crate) stall: Duration,
}

impl Dock {
    /// With TLS if there is an acceptor.
    pub(crate) fn new(passive: Passive, tls: Option<TlsAcceptor>, config: &FtpConfig) -> Self {
        let (accept_timeout, stall) = (config.accept_timeout, config.stall_timeout);
        Self { passive, tls, accept_timeout, stall }
    }
    /// Waits for the client, and for TLS. The port is released either way.
    pub(crate) async fn open(self) -> Result<ClientStream, DataError> {
        let accepted = timeout(self.accept_timeout, self.passive.accept()).await;
        let stream = accepted.map_err(|_| DataError::NotOpened)?.map_err(DataError::Cut)?;
        drop(self.passive);
        stream.set_nodelay(true).map_err(DataError::Cut)?;
        let Some(acceptor) = self.tls else { return Ok(ClientStream::Plain(stream)) };
        let handshake = timeout(self.accept_timeout, ClientStream::accept_tls(stream, &acceptor)).await;
        handshake.map_err(|_| DataError::Handshake(io::ErrorKind::TimedOut.into()))?.map_err(DataError::Handshake)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ftp::users::Users;
    use socket2::SockRef;
    use std::sync::Arc;

    #[tokio::test]
    async fn only_ports_of_a_range_are_used_again_at_once() {
        let mut config = FtpConfig::new(Arc::new(Users::parse("").unwrap()), None);
        let here = IpAddr::from([127, 0, 0, 1]);
        let free = Passive::listen(&config, here, here).unwrap();
        assert!(!SockRef::from(&free.listener).reuse_address().unwrap());
        let port = free.port().unwrap();
        drop(free);
        config.passive_ports = Some(port..=port);
        let ranged = Passive::listen(&config, here, here).unwrap();
        assert!(SockRef::from(&ranged.listener).reuse_address().unwrap());
        let taken = Passive::listen(&config, here, here).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
