//! A blob file of this disk read block by block on blocking threads, one block ahead. Reads only.

use super::wire::CHUNK_MAX;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::task::{JoinHandle, spawn_blocking};

/// What is left to read of a file.
#[derive(Debug)]
pub(crate) struct Blocks {
    file: Arc<File>,
    offset: u64,
    left: u64,
    ahead: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Blocks {
    /// `length` bytes from `offset` on.
    pub(crate) fn new(file: impl Into<Arc<File>>, offset: u64, length: u64) -> Self {
        Self { file: file.into(), offset, left: length, ahead: None }
    }
    /// The next block of at most [`CHUNK_MAX`] bytes, `None` at the end. A file that is too short is an error. Safe to
    /// cancel: a block that was not handed out comes next.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.ahead.is_none() {
            self.ahead = self.read();
        }
        let Some(reading) = &mut self.ahead else { return Ok(None) };
        let block = reading.await;
        self.ahead = None;
        let block = block??;
        self.ahead = self.read();
        Ok(Some(block))
    }

    fn read(&mut self) -> Option<JoinHandle<io::Result<Bytes>>> {
        let length = usize::try_from(self.left).unwrap_or(CHUNK_MAX).min(CHUNK_MAX);
        if length == 0 {
            return None;
        }
        let (file, offset) = (self.file.clone(), self.offset);
        self.offset += length as u64;
        self.left -= length as u64;
        Some(spawn_blocking(move || {
            let mut block = vec![0; length];
            file.read_exact_at(&mut block, offset)?;
            Ok(block.into())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn range_is_read_exactly_and_a_short_file_is_an_error() {
        let bytes: Vec<u8> = (0..CHUNK_MAX * 2 + 77).map(|i| (i % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let mut blocks = Blocks::new(file.try_clone().unwrap(), 5, bytes.len() as u64 - 10);
        let mut read = Vec::new();
        while let Some(block) = blocks.next().await.unwrap() {
            read.extend_from_slice(&block);
        }
        assert_eq!(read, bytes[5..bytes.len() - 5]);

        let mut blocks = Blocks::new(file, bytes.len() as u64 - 10, 11);
        assert_eq!(blocks.next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
