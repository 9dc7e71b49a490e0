//! One direction of the traffic between two nodes: a connection that this node dialled carries what it sends, one that it
//! accepted carries what it receives. Messages are lossy by contract, but only from some point on: a link that cannot keep
//! up is dropped and dialled again, it never leaves out the middle.

use super::acquaintance::Presence;
use super::frame::{FRAME_MAX, FrameError, encode, read_frame};
use super::greeter::Greeted;
use super::shorthand::Shorthand;
use super::tls::PeerStream;
use crate::cluster::{Message, NodeId, PeerInfo};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Messages that wait for one peer.
const QUEUE: usize = 8192;
/// Heartbeats that wait for one peer: four seconds of them.
const HEARTBEATS: usize = 16;
/// Bytes gathered for one write.
const WRITE_BATCH: usize = 256 << 10;
/// A write that makes no progress for so long ends the link.
const WRITE_STALL: Duration = Duration::from_secs(5);
/// Between two log lines of one link about messages that could not be encoded.
const COMPLAIN: Duration = Duration::from_secs(60);
/// An idle link says that it lives.
const PING: Duration = Duration::from_secs(2);
/// A silent link is dead.
const SILENCE: Duration = Duration::from_secs(10);
/// Data that the other kernel has not taken for so long ends the link; after a partition a fresh connection is faster
/// than waiting for TCP's next retransmission.
const UNACKNOWLEDGED: Duration = Duration::from_secs(3);

/// One frame on the RPC port, behind the Hello.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "nearly all packets are messages")]
pub(crate) enum Packet {
    /// "I live." Not passed on.
    Ping,
    /// For the member.
    Message(Message),
}

/// What links tell the driver. In the order of one link's life: `Up`, then `Down`.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A dialled connection said Hello.
    Up(PeerInfo, Outgoing),
    /// It broke. It is being redialled.
    Down(NodeId),
    /// The redial found the port closed.
    PortRefused(NodeId),
    /// A peer said Hello on a connection that it dialled.
    Heard(PeerInfo),
    /// A message came.
    Received(NodeId, Message),
}

/// The driver's end of a dialled link. Dropped, the link ends.
#[derive(Debug)]
pub(crate) struct Outgoing {
    heartbeats: mpsc::Sender<Message>,
    messages: mpsc::Sender<Message>,
    stop: CancellationToken,
}

/// The link's end of it.
#[derive(Debug)]
pub(crate) struct Queues {
    heartbeats: mpsc::Receiver<Message>,
    messages: mpsc::Receiver<Message>,
    stop: CancellationToken,
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkEnd {
    #[error("closed by the peer")]
    Closed,
    #[error("the peer takes messages too slowly")]
    Slow,
    #[error("no sign of life")]
    Silent,
    #[error("replaced by a newer connection, or stopped")]
    Stopped,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A dialled link's two ends.
pub(crate) fn queues(stop: CancellationToken) -> (Outgoing, Queues) {
    let (heartbeats, their_heartbeats) = mpsc::channel(HEARTBEATS);
    let (messages, their_messages) = mpsc::channel(QUEUE);
    let outgoing = Outgoing { heartbeats, messages, stop: stop.clone() };
    (outgoing, Queues { heartbeats: their_heartbeats, messages: their_messages, stop })
}

impl Outgoing {
    /// Queues a message; never waits. Heartbeats overtake the rest, for they must not wait behind it. A full queue ends
    /// the link: what is queued is lost, and so is all that comes until it is up again.
    pub(crate) fn send(&self, message: Message) {
        let lane = if matches!(message, Message::Heartbeat { .. }) { &self.heartbeats } else { &self.messages };
        if lane.try_send(message).is_err() {
            self.stop.cancel();
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Runs a dialled link until it breaks: sends what is queued, and listens for nothing but its end.
pub(crate) async fn send_all(greeted: Greeted, mut queues: Queues) -> LinkEnd {
    let Greeted { stream, presence: _presence, .. } = greeted;
    if let Err(error) = socket2::SockRef::from(stream.get_ref().tcp()).set_tcp_user_timeout(Some(UNACKNOWLEDGED)) {
        return error.into();
    }
    let (mut reader, mut writer) = tokio::io::split(stream);
    let stop = queues.stop.clone();
    tokio::select! {
        () = stop.cancelled() => if queues.is_full() { LinkEnd::Slow } else { LinkEnd::Stopped },
        end = closed(&mut reader) => end,
        end = write_all(&mut writer, &mut queues) => end,
    }
}

/// Waits for the end of a connection that has nothing to say.
async fn closed(reader: &mut ReadHalf<BufReader<PeerStream>>) -> LinkEnd {
    let mut byte = [0];
    match reader.read(&mut byte).await {
        Ok(0) => LinkEnd::Closed,
        // A process that was killed says no TLS goodbye.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => LinkEnd::Closed,
        Ok(_) => io::Error::new(io::ErrorKind::InvalidData, "the peer answered on a one-way connection").into(),
        Err(error) => error.into(),
    }
}

async fn write_all(writer: &mut WriteHalf<BufReader<PeerStream>>, queues: &mut Queues) -> LinkEnd {
    let mut bytes = Vec::new();
    // At once, to show that this connection is the one in use.
    let mut first = Some(Packet::Ping);
    let mut left_out = LeftOut::default();
    let mut shorthand = Shorthand::default();
    loop {
        let packet = if first.is_some() { first.take() } else { queues.next().await };
        let Some(packet) = packet else { return LinkEnd::Stopped };
        bytes.clear();
        bytes.shrink_to(WRITE_BATCH);
        let mut next = Some(packet);
        while let Some(mut packet) = next {
            if let Packet::Message(message) = &mut packet {
                shorthand.shorten(message);
            }
            // Only a bug makes a message that long: the link could not carry it the next time either.
            if let Err(error) = encode(&packet, &mut bytes) {
                shorthand = Shorthand::default(); // what was left out is not known there
                if let Some(count) = left_out.line(Instant::now()) {
                    tracing::error!(message = kind(&packet), %error, count, "messages left out");
                }
            }
            next = if bytes.len() < WRITE_BATCH { queues.try_next() } else { None };
        }
        let write = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        match timeout(WRITE_STALL, write).await {
            Err(_) => return LinkEnd::Slow,
            Ok(Err(error)) => return error.into(),
            Ok(Ok(())) => {}
        }
    }
}

/// Messages that could not be encoded, and are lost though their link lives on.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    count: u64,
    said: Option<Instant>,
}

impl LeftOut {
    /// Counts one. Whether to write a line about it: then the number lost since the last one.
    pub(super) fn line(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.said.is_some_and(|said| now.duration_since(said) < COMPLAIN) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

/// What a packet is called, whatever its length.
pub(super) fn kind(packet: &Packet) -> String {
    /// Takes the first word of what is written, then no more.
    struct FirstWord(String);
    impl Write for FirstWord {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let word = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            self.0.push_str(word);
            if word.len() == text.len() { Ok(()) } else { Err(fmt::Error) }
        }
    }
    let mut name = FirstWord(String::new());
    // It fails as soon as the word ends.
    let _ = match packet {
        Packet::Ping => write!(name, "{packet:?}"),
        Packet::Message(message) => write!(name, "{message:?}"),
    };
    name.0
}

impl Queues {
    /// The next packet, a ping when there is none for a while; `None` when the driver dropped its end.
    pub(super) async fn next(&mut self) -> Option<Packet> {
        tokio::select! {
            biased;
            message = self.heartbeats.recv() => message.map(Packet::Message),
            message = self.messages.recv() => message.map(Packet::Message),
            () = sleep(PING) => Some(Packet::Ping),
        }
    }
    fn try_next(&mut self) -> Option<Packet> {
        self.heartbeats.try_recv().or_else(|_| self.messages.try_recv()).ok().map(Packet::Message)
    }
    fn is_full(&self) -> bool {
        self.heartbeats.capacity() == 0 || self.messages.capacity() == 0
    }
}

/// The next packet of an accepted link.
async fn next_packet(stream: &mut BufReader<PeerStream>, buffer: &mut Vec<u8>) -> Result<Packet, LinkEnd> {
    let read = timeout(SILENCE, read_frame(stream, buffer, FRAME_MAX)).await;
    read.map_err(|_| LinkEnd::Silent)??.ok_or(LinkEnd::Closed)
}

/// Waits until the dialler uses the connection: one that led to a node that it is linked with already goes unused.
pub(crate) async fn used(stream: &mut BufReader<PeerStream>) -> Result<(), LinkEnd> {
    match timeout(SILENCE, stream.fill_buf()).await.map_err(|_| LinkEnd::Silent)?? {
        [] => Err(LinkEnd::Closed),
        _ => Ok(()),
    }
}

/// Runs an accepted link until it ends: hands what comes to the driver, no faster than the driver takes it.
pub(crate) async fn receive_all(
    presence: &Presence,
    from: NodeId,
    mut stream: BufReader<PeerStream>,
    events: mpsc::Sender<LinkEvent>,
    stop: CancellationToken,
) -> LinkEnd {
    let (mut buffer, mut shorthand) = (Vec::new(), Shorthand::default());
    let receive = async {
        loop {
            let packet = match next_packet(&mut stream, &mut buffer).await {
                Err(end) => return end,
                Ok(packet) => packet,
            };
            presence.heard(Instant::now());
            let Packet::Message(mut message) = packet else { continue };
            shorthand.expand(&mut message);
            if events.send(LinkEvent::Received(from, message)).await.is_err() {
                return LinkEnd::Stopped;
            }
        }
    };
    let end = tokio::select! {
        // First: once a newer connection has taken over, nothing of this one may be heard.
        biased;
        () = stop.cancelled() => return LinkEnd::Stopped, // the newer one is heard
        end = receive => end,
    };
    presence.ended();
    end
}
