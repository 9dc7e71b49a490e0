//! Windows of histories: of a good one every window is good, and what is broken inside a window is found in it.

use crate::recorded::{Recipe, record};
use crate::rng::Rng;
use histories::{FileModel, Initially, Limits, Seeing, Seen, Verdict, Window, check, cut};

#[test]
fn every_window_of_a_real_history_is_linearizable() {
    let mut rng = Rng(11);
    for seed in 1..=200 {
        let history = record(&Recipe { seed, operations: 200, unknown: 5, ..Recipe::default() });
        let end = history.iter().filter_map(|op| op.returned).max().unwrap_or(0);
        let from = rng.below(end);
        let window = Window { from, to: from + rng.below(end - from) };
        let part: Vec<_> = cut(&history, window, Seeing::changes).into_iter().map(|(_, op)| op).collect();
        let (model, operations) = FileModel::of(&part, Initially::Unknown);
        let verdict = check(&model, &operations, Limits::default()).verdict;
        assert!(matches!(verdict, Verdict::Linearizable(_)), "seed {seed} {window:?}: {verdict:?}");
    }
}

#[test]
fn a_stale_read_is_found_in_a_window_around_it() {
    let mut found = 0;
    for seed in 1..=50 {
        let mut history = record(&Recipe { seed, operations: 200, clients: 3, ..Recipe::default() });
        let reads: Vec<usize> = (100..history.len())
            .filter(|n| matches!(history[*n].op.seen, Seen::Content(_)) && !history[*n].op.changes())
            .collect();
        let (old, new) = (reads[0], reads[reads.len() - 1]);
        if history[old].op.seen == history[new].op.seen {
            continue;
        }
        history[new].op.seen = history[old].op.seen.clone();
        let window = Window { from: history[old].invoked.saturating_sub(50), to: u64::MAX };
        let part = cut(&history, window, Seeing::changes);
        let operations: Vec<_> = part.iter().map(|(_, op)| op.clone()).collect();
        let (model, operations) = FileModel::of(&operations, Initially::Unknown);
        if let Verdict::Broken(blocked) = check(&model, &operations, Limits::default()).verdict {
            assert_eq!(part[blocked.operation].0, new, "seed {seed}");
            found += 1;
        }
    }
    assert!(found > 30, "only {found} stale reads of 50 were found");
}
