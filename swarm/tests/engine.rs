//! The command `swarm` against a real engine: a cluster on this machine's own, and one over two machines played on it. It
//! looks at the product from outside: at what commands print, what FTP clients get, and what is left on engines.
//!
//! `cargo test -p swarm --test engine -- NAME` runs the tests whose names contain NAME. Without an engine they are ignored
//! with the reason, or fail where `TREBOL_REQUIRE_DOCKER=1`. Leftovers of runs that died are removed first, by label.

#[path = "engine/alone.rs"]
mod alone;
#[path = "engine/bed.rs"]
mod bed;
#[path = "engine/inputs.rs"]
mod inputs;
#[path = "engine/pair.rs"]
mod pair;

use bed::Bed;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

/// What a test comes to.
type Outcome<T = ()> = Result<T, Failed>;

/// A test: its name, and what it does.
type Story = (&'static str, fn(&Bed) -> Outcome);

/// What all tests share, made by the first one that runs; or why there is none.
type Shared = Arc<OnceLock<Result<Bed, String>>>;

/// One at a time: they share the engine's one swarm.
fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let bed: Shared = Arc::default();
    let stories = [inputs::STORIES, alone::STORIES, pair::STORIES];
    let trials = stories.into_iter().flatten().map(|story| trial(story, &bed)).collect();
    let code = libtest_mimic::run(&arguments, trials).exit_code();
    if let Some(Ok(bed)) = bed.get() {
        bed.clear();
    }
    code
}

fn trial(&(name, run): &'static Story, bed: &Shared) -> Trial {
    let bed = bed.clone();
    Trial::ignorable_test(name, move || match bed::engine() {
        Err(reason) if std::env::var("TREBOL_REQUIRE_DOCKER").is_ok_and(|set| set == "1") => {
            Err(format!("{reason}, and TREBOL_REQUIRE_DOCKER=1").into())
        }
        Err(reason) => Ok(Completion::ignored_with(reason)),
        Ok(()) => {
            let bed = bed.get_or_init(|| Bed::make().map_err(|error| format!("{error:#}")));
            run(bed.as_ref().map_err(|error| Failed::from(error.clone()))?).map(|()| Completion::Completed)
        }
    })
}

/// Fails with the sentence unless it holds.
fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}
