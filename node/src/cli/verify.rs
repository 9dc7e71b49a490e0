//! `trebol verify`: the bytes on a stopped node's disk against its index.

use super::Failure;
use crate::store::{self, FileReport, Summary};
use std::io::{self, Write};
use std::path::PathBuf;

/// Check a stopped node's files against its index
///
/// Reads and hashes every byte, those of the losers of conflicts too. Exit code 1 if anything is wrong.
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// The node's data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// One JSON object a line: every file, then {"summary": …}
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        let mut printed = Ok(());
        let summary = store::verify(&self.data, |file| {
            if printed.is_ok() {
                printed = self.print(&mut out, file);
            }
        });
        let summary = summary.map_err(Failure::runtime)?;
        printed
            .and_then(|()| self.print_summary(&mut out, &summary))
            .and_then(|()| out.flush())
            .map_err(|error| Failure::Runtime(format!("cannot print: {error}")))?;
        if summary.problems == 0 { Ok(()) } else { Err(Failure::Told) }
    }

    fn print(&self, out: &mut impl Write, file: &FileReport) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut *out, file)?;
            return writeln!(out);
        }
        match &file.problem {
            Some(problem) => {
                let which = if file.loser { " (loser of a conflict)" } else { "" };
                writeln!(out, "{}{which}: {problem}", file.path)
            }
            None => Ok(()),
        }
    }

    fn print_summary(&self, out: &mut impl Write, summary: &Summary) -> io::Result<()> {
        if self.json {
            return writeln!(out, "{}", serde_json::json!({ "summary": summary }));
        }
        let Summary { files, held, bytes, losers, losers_held, problems, surplus, unreferenced, .. } = summary;
        writeln!(out, "{files} files in the index, {held} held here with {bytes} bytes")?;
        writeln!(out, "{losers} losers of conflicts, {losers_held} held here")?;
        writeln!(out, "{problems} with problems")?;
        writeln!(out, "{surplus} held in addition to the index, {unreferenced} stored parts that no file refers to")
    }
}
