//! Ethernet frames as far as an ear on the wire needs them: IPv4 (RFC 791), TCP (RFC 9293), which port, which bytes.

/// Coordination between nodes.
pub const CONTROL: u16 = 2123;
/// File bytes between nodes.
pub const RAW: u16 = 2124;

const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [8, 0];
const TCP: u8 = 6;

/// The bytes of a TCP segment, and the port between nodes that it goes to or comes from, if it is one.
pub fn between_nodes(frame: &[u8]) -> Option<(u16, &[u8])> {
    let packet = frame.get(ETHERNET..)?;
    if frame[12..14] != IPV4 || packet.first()? >> 4 != 4 || *packet.get(9)? != TCP {
        return None;
    }
    let (header, length) = (usize::from(packet[0] & 15) * 4, usize::from(pair(packet, 2)?));
    // A frame is padded to 60 bytes; a length of 0 is one that the card would have cut up.
    let end = if length == 0 { packet.len() } else { length.min(packet.len()) };
    let segment = packet.get(header..end)?;
    let port = [pair(segment, 0)?, pair(segment, 2)?].into_iter().find(|port| [CONTROL, RAW].contains(port))?;
    Some((port, segment.get(usize::from(segment.get(12)? >> 4) * 4..)?))
}

/// How often a text is in some bytes.
pub fn count(bytes: &[u8], text: &[u8]) -> u64 {
    if text.is_empty() { 0 } else { bytes.windows(text.len()).filter(|window| *window == text).count() as u64 }
}

fn pair(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(from: u16, to: u16, bytes: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(IPV4);
        let length = u16::try_from(40 + bytes.len()).unwrap().to_be_bytes();
        frame.extend([0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, TCP, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([from.to_be_bytes(), to.to_be_bytes()].concat());
        frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend(bytes);
        frame
    }

    #[test]
    fn bytes_between_nodes_are_told_by_their_port_in_both_directions() {
        assert_eq!(between_nodes(&frame(40_000, CONTROL, b"ab")), Some((CONTROL, &b"ab"[..])));
        assert_eq!(between_nodes(&frame(RAW, 40_000, b"ab")), Some((RAW, &b"ab"[..])));
        assert_eq!(between_nodes(&frame(40_000, 21, b"ab")), None);
        let mut padded = frame(40_000, RAW, b"ab");
        padded.extend([0; 4]);
        assert_eq!(between_nodes(&padded), Some((RAW, &b"ab"[..])));
    }

    #[test]
    fn what_is_no_whole_segment_is_passed_over() {
        let whole = frame(1, RAW, b"abc");
        for length in 0..54 {
            assert_eq!(between_nodes(&whole[..length]), None, "{length} bytes");
        }
        let mut other = whole.clone();
        other[23] = 17;
        assert_eq!(between_nodes(&other), None, "UDP");
        let mut other = whole;
        other[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(between_nodes(&other), None, "ARP");
    }

    #[test]
    fn texts_are_counted_wherever_they_stand() {
        assert_eq!((count(b"abcabc", b"bc"), count(b"aaa", b"aa"), count(b"a", b"ab"), count(b"a", b"")), (2, 2, 0, 0));
    }
}
