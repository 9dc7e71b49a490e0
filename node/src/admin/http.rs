//! Port 2125, for monitoring: `/healthz`, `/readyz`, `/status`, `/metrics` by HTTP/1, one request a connection. Closed
//! unless `admin.listen` is set: whoever reaches it needs no password. It is bounded in connections, in the size of a
//! request and in time, and never changes anything.

use super::ready::{ANSWER, NotReady};
use super::{Admin, NodeStatus, metrics};
use crate::meter::Meter;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Connections at once; the rest wait in the kernel's queue.
const CONNECTIONS: usize = 32;
/// Longest head of a request, in bytes: more than any scraper sends, the least that hyper takes.
const HEAD_MAX: usize = 8192;
/// For the head of a request to come.
const HEAD: Duration = Duration::from_secs(5);
/// For a connection, from its first byte to its last.
const LIFE: Duration = Duration::from_secs(15);

/// What the port shows. Clones show the same.
#[derive(Debug, Clone)]
pub struct Panel(Arc<Shown>);

#[derive(Debug)]
struct Shown {
    /// None before the data directory is open, and after it is closed.
    node: Mutex<Option<Admin>>,
    meter: Meter,
    stop: CancellationToken,
}

impl Panel {
    /// For a node that is not up yet. From `stop` on it is not ready any more.
    pub fn new(meter: Meter, stop: CancellationToken) -> Self {
        Self(Arc::new(Shown { node: Mutex::default(), meter, stop }))
    }
    /// The node is up.
    pub fn open(&self, node: Admin) {
        *self.node() = Some(node);
    }
    /// Lets go of the node, and of its data directory.
    pub fn close(&self) {
        *self.node() = None;
    }
    fn node(&self) -> MutexGuard<'_, Option<Admin>> {
        self.0.node.lock().expect("nothing panics while it holds the node")
    }
    fn up(&self) -> Result<Admin, NotReady> {
        let missing = if self.0.stop.is_cancelled() { NotReady::Stopping } else { NotReady::Starting };
        self.node().clone().ok_or(missing)
    }
    async fn ready(&self) -> Result<(), NotReady> {
        if self.0.stop.is_cancelled() {
            return Err(NotReady::Stopping);
        }
        self.up()?.ready().await
    }
    async fn status(&self) -> Result<NodeStatus, NotReady> {
        let node = self.up()?;
        Ok(timeout(ANSWER, node.status()).await.map_err(|_| NotReady::Silent)??)
    }
}

/// Shows the panel on `listener` until the task in `tasks` is ended.
pub fn show(listener: TcpListener, panel: Panel, tasks: &mut JoinSet<()>) {
    tasks.spawn(accept(listener, pages(panel), HEAD));
}

fn pages(panel: Panel) -> Router {
    // `get` answers HEAD as well, and 405 to all else.
    Router::new()
        .route("/healthz", get(async || "listening\n"))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/metrics", get(figures))
        .with_state(panel)
}

async fn readyz(State(panel): State<Panel>) -> Response {
    match panel.ready().await {
        Ok(()) => "ready\n".into_response(),
        Err(why) => unavailable(why),
    }
}

/// What `trebol status --json` prints.
async fn status(State(panel): State<Panel>) -> Response {
    match panel.status().await {
        Ok(status) => {
            let json = serde_json::to_string(&status).expect("a status is JSON") + "\n";
            ([(CONTENT_TYPE, "application/json")], json).into_response()
        }
        Err(why) => unavailable(why),
    }
}

/// Where the node does not say how it is, there is still what was counted.
async fn figures(State(panel): State<Panel>) -> Response {
    let status = panel.status().await.ok();
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text(&panel.0.meter, status)).into_response()
}

fn unavailable(why: NotReady) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}

async fn accept(listener: TcpListener, pages: Router, head: Duration) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS => accepted,
        };
        match accepted {
            Ok((stream, _)) => drop(connections.spawn(answer(stream, pages.clone(), head))),
            Err(error) => {
                // Out of descriptors, most likely: wait until one of ours is free, or a while.
                tracing::warn!(%error, "the admin port cannot accept");
                let _ = timeout(Duration::from_secs(1), connections.join_next()).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, pages: Router, head: Duration) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(HEAD_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(pages));
    match timeout(LIFE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a request to the admin port failed"),
        Err(_) => tracing::debug!("a request to the admin port took too long"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// For a server that is here to answer on a busy machine.
    const LONG: Duration = Duration::from_secs(20);

    struct Port {
        address: SocketAddr,
        stop: CancellationToken,
        _tasks: JoinSet<()>,
    }

    impl Port {
        async fn open() -> Self {
            Self::open_with(HEAD).await
        }
        async fn open_with(head: Duration) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (address, stop, mut tasks) = (listener.local_addr().unwrap(), CancellationToken::new(), JoinSet::new());
            tasks.spawn(accept(listener, pages(Panel::new(Meter::default(), stop.clone())), head));
            Self { address, stop, _tasks: tasks }
        }
        /// All that comes for these bytes until the connection ends.
        async fn ask(&self, bytes: &[u8]) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let mut text = Vec::new();
            let asked = async {
                // The server may close before it has read all of it.
                let _ = stream.write_all(bytes).await;
                let _ = stream.read_to_end(&mut text).await;
            };
            timeout(LONG, asked).await.expect("the connection ends");
            String::from_utf8(text).unwrap()
        }
        async fn request(&self, line: &str) -> String {
            self.ask(format!("{line} HTTP/1.1\r\nHost: n\r\n\r\n").as_bytes()).await
        }
    }

    fn code(response: &str) -> u16 {
        response.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    #[tokio::test]
    async fn a_node_that_waits_for_its_data_directory_is_healthy_and_not_ready() {
        let port = Port::open().await;
        let healthy = port.request("GET /healthz").await;
        assert!(code(&healthy) == 200 && healthy.ends_with("\r\n\r\nlistening\n"), "{healthy}");
        let ready = port.request("GET /readyz").await;
        assert!(code(&ready) == 503 && ready.ends_with("the data directory is not open yet\n"), "{ready}");
        assert_eq!(code(&port.request("GET /status").await), 503);
        let figures = port.request("GET /metrics").await;
        assert!(code(&figures) == 200 && figures.contains("application/openmetrics-text; version=1.0.0"), "{figures}");
        assert!(figures.contains("\ntrebol_sessions_open 0\n") && figures.ends_with("# EOF\n"), "{figures}");
        port.stop.cancel();
        let ready = port.request("GET /readyz").await;
        assert!(code(&ready) == 503 && ready.ends_with("the node is shutting down\n"), "{ready}");
        assert_eq!(code(&port.request("GET /healthz").await), 200);
    }

    #[tokio::test]
    async fn only_reading_is_possible_and_only_of_what_there_is() {
        let port = Port::open().await;
        let head = port.request("HEAD /healthz").await;
        assert!(code(&head) == 200 && head.ends_with("\r\n\r\n"), "{head}");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            for page in ["/healthz", "/readyz", "/status", "/metrics"] {
                let refused = port.request(&format!("{method} {page}")).await;
                assert_eq!(code(&refused), 405, "{method} {page}: {refused}");
            }
        }
        for page in ["/", "/healthz/", "/status/../metrics", "/control.sock", "/%2e%2e"] {
            assert_eq!(code(&port.request(&format!("GET {page}")).await), 404, "{page}");
        }
    }

    #[tokio::test]
    async fn what_is_too_long_or_too_slow_is_ended() {
        let port = Port::open_with(Duration::from_secs(1)).await;
        let long = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 * HEAD_MAX));
        assert_eq!(code(&port.ask(long.as_bytes()).await), 431);
        let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(200));
        assert_eq!(code(&port.ask(many.as_bytes()).await), 431);
        assert_eq!(code(&port.ask(b"\x16\x03\x01 no HTTP at all\r\n\r\n").await), 400);
        let slow = port.ask(b"GET /healthz HTTP/1.1\r\nHost: n\r\n").await;
        assert!(!slow.contains("200"), "{slow}");
    }

    #[tokio::test]
    async fn idle_connections_do_not_keep_others_out_for_long() {
        let port = Port::open_with(Duration::from_millis(200)).await;
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS {
            idle.push(TcpStream::connect(port.address).await.unwrap());
        }
        assert_eq!(code(&port.request("GET /healthz").await), 200);
    }
}
