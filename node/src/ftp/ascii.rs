//! TYPE A: line ends are CRLF on the wire and LF in the store (RFC 959, section 3.1.1.1). Both directions work on chunks
//! and remember what the last one ended with. Nothing else of a text is changed.

use bytes::{BufMut, Bytes, BytesMut};

/// Towards the store: CRLF becomes LF. A CR before anything else stays.
#[derive(Debug, Default)]
pub(crate) struct FromWire {
    /// The last chunk ended with a CR, which is held back.
    held: bool,
}

impl FromWire {
    /// Converts one chunk.
    pub(crate) fn chunk(&mut self, bytes: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            if self.held && byte != b'\n' {
                out.put_u8(b'\r');
            }
            self.held = byte == b'\r';
            if !self.held {
                out.put_u8(byte);
            }
        }
        out.freeze()
    }
    /// What was held back, at the end.
    pub(crate) fn end(&mut self) -> Bytes {
        if std::mem::take(&mut self.held) { Bytes::from_static(b"\r") } else { Bytes::new() }
    }
}

/// Towards the client: LF becomes CRLF. One that has its CR already is left alone, or a text stored in TYPE I by a client
/// with CRLF would arrive with CR CR LF.
#[derive(Debug, Default)]
pub(crate) struct ToWire {
    after_cr: bool,
}

impl ToWire {
    /// Converts one chunk.
    pub(crate) fn chunk(&mut self, bytes: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(bytes.len() + bytes.len() / 16 + 1);
        for &byte in bytes {
            if byte == b'\n' && !self.after_cr {
                out.put_u8(b'\r');
            }
            self.after_cr = byte == b'\r';
            out.put_u8(byte);
        }
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn from_wire(chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut state = FromWire::default();
        let mut out: Vec<u8> = chunks.iter().flat_map(|c| state.chunk(c)).collect();
        out.extend(state.end());
        out
    }
    fn to_wire(chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut state = ToWire::default();
        chunks.iter().flat_map(|c| state.chunk(c)).collect()
    }

    #[test]
    fn line_ends_are_converted_and_lone_crs_kept() {
        assert_eq!(from_wire(&[b"a\r\nb\rc\r\r\nd\r".to_vec()]), b"a\nb\rc\r\nd\r");
        assert_eq!(to_wire(&[b"a\nb\r\n\n".to_vec()]), b"a\r\nb\r\n\r\n");
    }

    fn texts() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let byte = prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'x')];
        prop::collection::vec(prop::collection::vec(byte, 0..4), 0..8)
    }

    proptest! {
        #[test]
        fn borders_of_chunks_do_not_matter(chunks in texts()) {
            let whole = vec![chunks.concat()];
            prop_assert_eq!(from_wire(&chunks), from_wire(&whole));
            prop_assert_eq!(to_wire(&chunks), to_wire(&whole));
        }
        #[test]
        fn texts_without_cr_come_back_as_they_were(chunks in texts()) {
            let text: Vec<u8> = chunks.concat().into_iter().filter(|b| *b != b'\r').collect();
            prop_assert_eq!(from_wire(&[to_wire(std::slice::from_ref(&text))]), text);
        }
    }
}
