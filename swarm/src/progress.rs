//! How far something is: a bar on a terminal, plain lines elsewhere, both on stderr, for stdout belongs to results. Never
//! decides anything.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// Where progress is shown.
#[derive(Debug, Clone)]
pub struct Progress(Shown);

#[derive(Debug, Clone)]
enum Shown {
    Bar(ProgressBar),
    Lines,
    Nothing,
}

impl Progress {
    /// A bar if stderr is a terminal, else lines.
    pub fn on_stderr() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(Shown::Lines);
        }
        let bar = ProgressBar::new(0).with_style(
            ProgressStyle::with_template("{spinner} [{pos}/{len}] {wide_msg}").expect("the template is constant"),
        );
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(Shown::Bar(bar))
    }
    /// For tests.
    pub fn silent() -> Self {
        Self(Shown::Nothing)
    }
    /// So many steps more are to come.
    pub fn expect(&self, steps: usize) {
        if let Shown::Bar(bar) = &self.0 {
            bar.inc_length(steps as u64);
        }
    }
    /// A step begins.
    pub fn step(&self, what: &str) {
        match &self.0 {
            Shown::Bar(bar) => bar.set_message(what.to_owned()),
            Shown::Lines => eprintln!("swarm: {what}"),
            Shown::Nothing => {}
        }
    }
    /// What a step is just at. Only a terminal shows it.
    pub fn detail(&self, what: &str) {
        if let Shown::Bar(bar) = &self.0 {
            bar.set_message(what.to_owned());
        }
    }
    /// A step is done.
    pub fn done(&self) {
        if let Shown::Bar(bar) = &self.0 {
            bar.inc(1);
        }
    }
    /// Something that somebody should know stays on the screen.
    pub fn note(&self, sentence: &str) {
        match &self.0 {
            Shown::Bar(bar) => bar.suspend(|| eprintln!("swarm: {sentence}")),
            Shown::Lines => eprintln!("swarm: {sentence}"),
            Shown::Nothing => {}
        }
    }
    /// Takes the bar away.
    pub fn finish(&self) {
        if let Shown::Bar(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
