//! `tap`: an ear in a network namespace. With arguments it listens to what passes between nodes and prints, five times a
//! second and on lines of their own, how many bytes went over each port and how often any of the arguments was among them.
//! Without, it does nothing at all, so that its container stays and other programs may run there. Ends with its container.

use e2e::frames::{CONTROL, between_nodes, count};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// All kinds of packets (packet(7)).
const ALL: u16 = 3;
/// Between two lines.
const TOLD: Duration = Duration::from_millis(200);
/// Larger than any frame, those too that the card would cut up.
const FRAME: usize = 1 << 17;
/// What the kernel may keep for this program while it does not run.
const QUEUE: usize = 32 << 20;

fn main() -> ExitCode {
    let texts: Vec<String> = std::env::args().skip(1).collect();
    if texts.is_empty() {
        loop {
            std::thread::park();
        }
    }
    match listen(&texts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tap: {error}");
            ExitCode::FAILURE
        }
    }
}

fn listen(texts: &[String]) -> std::io::Result<()> {
    let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(ALL.to_be()))))?;
    socket.set_recv_buffer_size(QUEUE)?;
    socket.set_read_timeout(Some(TOLD))?;
    let (mut frame, mut told, mut out) = (vec![0; FRAME], Instant::now(), std::io::stdout().lock());
    let (mut control, mut raw, mut found) = (0, 0, 0);
    writeln!(out, "listening")?;
    out.flush()?;
    loop {
        match socket.read(&mut frame) {
            Ok(length) => {
                if let Some((port, bytes)) = between_nodes(&frame[..length]) {
                    *(if port == CONTROL { &mut control } else { &mut raw }) += bytes.len();
                    found += texts.iter().map(|text| count(bytes, text.as_bytes())).sum::<u64>();
                }
            }
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {}
            Err(error) => return Err(error),
        }
        if told.elapsed() >= TOLD {
            told = Instant::now();
            writeln!(out, r#"{{"control":{control},"raw":{raw},"found":{found}}}"#)?;
            out.flush()?;
        }
    }
}
