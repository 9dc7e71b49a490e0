//! Bytes of a control connection to lines: CRLF or a bare LF ends one, Telnet commands are taken out (RFC 854; RFC 959
//! section 4.1.3 puts them before ABOR), what is too long is skipped to its end. It never interprets a line.

/// Longest line, in bytes, without its end.
pub(crate) const LINE_MAX: usize = 4096;

/// One line of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// Without its end; any bytes.
    Text(Vec<u8>),
    /// Longer than [`LINE_MAX`]: it was dropped whole.
    TooLong,
}

/// Where in a Telnet command the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Telnet {
    #[default]
    Text,
    /// After IAC.
    Command,
    /// After IAC WILL, WONT, DO or DONT.
    Option,
}

const IAC: u8 = 255;
/// Telnet commands with an option byte after them.
const NEGOTIATION: std::ops::RangeInclusive<u8> = 251..=254;

/// Takes bytes, gives lines. It holds at most one unfinished line.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    line: Vec<u8>,
    too_long: bool,
    telnet: Telnet,
}

impl Decoder {
    /// Takes bytes up to the end of the first line; the line, and how many bytes were taken.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> (usize, Option<Line>) {
        for (at, &byte) in bytes.iter().enumerate() {
            let Some(byte) = self.telnet(byte) else { continue };
            if byte == b'\n' {
                return (at + 1, Some(self.end()));
            }
            // One more than the longest, for the CR of its end.
            if self.line.len() <= LINE_MAX {
                self.line.push(byte);
            } else {
                self.too_long = true;
            }
        }
        (bytes.len(), None)
    }

    /// Whether part of a line has come.
    pub(crate) fn is_empty(&self) -> bool {
        self.line.is_empty() && !self.too_long && self.telnet == Telnet::Text
    }

    fn end(&mut self) -> Line {
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if std::mem::take(&mut self.too_long) || line.len() > LINE_MAX { Line::TooLong } else { Line::Text(line) }
    }

    /// The byte, unless it belongs to a Telnet command. A doubled IAC is the byte itself.
    fn telnet(&mut self, byte: u8) -> Option<u8> {
        let (next, out) = match (self.telnet, byte) {
            (Telnet::Text, IAC) => (Telnet::Command, None),
            (Telnet::Text, _) | (Telnet::Command, IAC) => (Telnet::Text, Some(byte)),
            (Telnet::Command, _) if NEGOTIATION.contains(&byte) => (Telnet::Option, None),
            (Telnet::Command | Telnet::Option, _) => (Telnet::Text, None),
        };
        self.telnet = next;
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(mut bytes: &[u8]) -> Vec<Line> {
        let (mut decoder, mut out) = (Decoder::default(), vec![]);
        while !bytes.is_empty() {
            let (taken, line) = decoder.take(bytes);
            bytes = &bytes[taken..];
            out.extend(line);
        }
        out
    }
    fn text(text: &[u8]) -> Line {
        Line::Text(text.to_vec())
    }

    #[test]
    fn both_line_ends_and_pipelined_lines() {
        assert_eq!(lines(b"NOOP\r\nPWD\n\r\nQU"), [text(b"NOOP"), text(b"PWD"), text(b"")]);
        assert_eq!(lines(b"STOR a\rb \r\n"), [text(b"STOR a\rb ")]);
    }

    #[test]
    fn telnet_commands_are_taken_out() {
        // Interrupt Process and Synch, as clients send them before ABOR.
        assert_eq!(lines(b"\xff\xf4\xff\xf2ABOR\r\n"), [text(b"ABOR")]);
        assert_eq!(lines(b"\xff\xfd\x0aNO\xff\xfb\x01OP\r\n"), [text(b"NOOP")]);
        assert_eq!(lines(b"CWD \xff\xff\r\n"), [text(b"CWD \xff")]);
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped_and_the_next_one_counts() {
        let longest = vec![b'a'; LINE_MAX];
        let stream = |n: usize| [&vec![b'a'; n][..], b"\r\nNOOP\r\n"].concat();
        assert_eq!(lines(&stream(LINE_MAX)), [text(&longest), text(b"NOOP")]);
        assert_eq!(lines(&stream(LINE_MAX + 1)), [Line::TooLong, text(b"NOOP")]);
        assert_eq!(lines(&stream(10 * LINE_MAX)), [Line::TooLong, text(b"NOOP")]);
    }

    proptest! {
        #[test]
        fn any_bytes_give_the_same_lines_however_they_arrive(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'\r'), Just(255u8)], 0..300),
            cut in 0..300usize,
        ) {
            let (mut decoder, mut out) = (Decoder::default(), vec![]);
            let cut = cut.min(bytes.len());
            for mut part in [&bytes[..cut], &bytes[cut..]] {
                while !part.is_empty() {
                    let (taken, line) = decoder.take(part);
                    prop_assert!(taken > 0 && taken <= part.len());
                    part = &part[taken..];
                    out.extend(line);
                }
            }
            prop_assert_eq!(out, lines(&bytes));
        }
    }
}
