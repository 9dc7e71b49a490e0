//! How many records fit into one message: bounded in count and in bytes, well below the limit of a frame on the wire.

use super::marks::Marks;
use super::pending::View;
use super::record::{Body, Effect, Head, PathEntry, Record, Relocated, Version};
use super::version::Later;
use crate::path::FtpPath;
use std::sync::Arc;

/// Encoded bytes of records in one message. The wire refuses frames of 16 MiB.
const BYTES: usize = 4 << 20;

/// As many of `records` as fit, at least one, and whether some were left.
pub(super) fn fill<'a>(records: impl Iterator<Item = &'a Arc<Record>>, limit: usize) -> (Vec<Arc<Record>>, bool) {
    let (mut taken, mut bytes) = (vec![], 0);
    for record in records {
        bytes += weight(record);
        if taken.len() == limit || (bytes > BYTES && !taken.is_empty()) {
            return (taken, true);
        }
        taken.push(record.clone());
    }
    (taken, false)
}

/// One frame of what the log holds beyond `marks`, and whether there is more. Reads little more than it takes.
pub(super) fn read(view: View<'_>, marks: &Marks, limit: usize) -> (Vec<Arc<Record>>, bool) {
    let (mut seen, mut found, mut chunk) = (marks.clone(), vec![], 16);
    loop {
        let more = view.records_beyond(&seen, chunk);
        let end = more.len() < chunk;
        for record in &more {
            seen.raise(record.epoch(), record.position.seq + 1);
        }
        found.extend(more);
        let (taken, left) = fill(found.iter(), limit);
        if left || end {
            return (taken, left);
        }
        chunk *= 2;
    }
}

/// Cuts what an operation does into records of at most `most` effects, each far below one frame. There is always one.
pub(super) fn cut(effects: Vec<Effect>, most: usize) -> Vec<Vec<Effect>> {
    let (mut parts, mut part, mut bytes) = (vec![], vec![], 0);
    for effect in effects {
        let weight = weight_of(&effect);
        if !part.is_empty() && (part.len() >= most || bytes + weight > BYTES / 2) {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += weight;
        part.push(effect);
    }
    parts.push(part);
    parts
}

fn ids(n: usize) -> usize {
    n * 40
}
fn positions(n: usize) -> usize {
    n * 80
}

/// No fewer bytes than fields of a later version take as JSON. There are none as a rule.
fn weight_of_later(later: &Later) -> usize {
    later.iter().map(|(name, value)| name.len() * 6 + value.to_string().len() + 4).sum()
}

/// No fewer bytes than the effect takes as JSON.
pub(super) fn weight_of(effect: &Effect) -> usize {
    let file = if let Version::File(file) = &effect.what { Some(file) } else { None };
    let what = file.map_or(0, |f| f.extents.len() * 400 + ids(f.replicas.len()) + weight_of_later(&f.later) + 200);
    // A control character takes six bytes in JSON.
    effect.path.as_str().len() * 6 + positions(effect.over.len()) + what + 100
}

/// How many of things with these weights fit, at least one.
pub(super) fn fit(weights: impl Iterator<Item = usize>, limit: usize) -> usize {
    let mut bytes = 0;
    let fits = |weight: &usize| {
        let first = bytes == 0;
        bytes += weight;
        first || bytes <= BYTES
    };
    weights.take(limit).take_while(fits).count()
}

/// No fewer bytes than a path with its heads takes as JSON.
pub(super) fn weight_of_entry(path: &FtpPath, entry: &PathEntry) -> usize {
    let head = |head: &Head| {
        let file = if let Version::File(file) = &head.what { Some(file) } else { None };
        let what = file.map_or(0, |f| f.extents.len() * 400 + ids(f.replicas.len()) + weight_of_later(&f.later) + 200);
        what + head.location.nodes.len() * 40 + 700
    };
    path.as_str().len() * 6 + entry.heads.iter().map(head).sum::<usize>() + 50
}

/// No fewer bytes than the record takes as JSON.
fn weight(record: &Record) -> usize {
    let body = match &record.body {
        Body::Cover(cover) => positions(cover.marks.iter().count() + cover.voids.len()) + ids(cover.members.len()),
        Body::Write(write) => write.effects.iter().map(weight_of).sum::<usize>() + weight_of_later(&write.later),
        Body::Move(moved) => {
            let register = |v: &Relocated| positions(1) + ids(v.nodes.len()) + v.extents.len() * 400 + 100;
            moved.versions.iter().map(|v| v.path.as_str().len() * 6 + register(v)).sum()
        }
        Body::Drop(dropped) => dropped.heads.iter().map(|(path, _)| path.as_str().len() * 6 + positions(1)).sum(),
    };
    body + ids(record.durability.len()) + 300
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Cover, Epoch, Hlc, NodeId, OpId, Position, Write};

    fn record(body: Body) -> Arc<Record> {
        let position = Position { epoch: Epoch(u64::MAX, u64::MAX), seq: u64::MAX };
        Arc::new(Record { position, hlc: Hlc(u64::MAX), durability: vec![NodeId(u128::MAX); 5], body })
    }
    fn cover(epochs: u64) -> Arc<Record> {
        let marks = Marks::from((0..epochs).map(|n| (Epoch(u64::MAX - n, u64::MAX), u64::MAX)).collect::<Vec<_>>());
        record(Body::Cover(Cover { marks, voids: vec![], members: vec![NodeId(u128::MAX); 5] }))
    }
    fn delete(name: &str) -> Arc<Record> {
        let path = FtpPath::root().resolve(name).unwrap();
        let over = vec![Position { epoch: Epoch(u64::MAX, u64::MAX), seq: u64::MAX }];
        let effects = vec![Effect { path, over, what: Version::Deleted }];
        record(Body::Write(Write { op: OpId(u128::MAX), effects, ..Write::default() }))
    }

    #[test]
    fn a_record_weighs_no_less_than_its_json() {
        let control = vec!["\u{1}".repeat(255); 15].join("/");
        let mut told = Write { op: OpId(u128::MAX), ..Write::default() };
        told.later.insert("\u{1}".repeat(99), serde_json::json!({"control": control.as_str(), "n": vec![u64::MAX; 9]}));
        for record in [cover(1000), delete("/x"), delete(&control), record(Body::Write(told))] {
            assert!(weight(&record) >= serde_json::to_string(&*record).unwrap().len());
        }
    }

    #[test]
    fn an_operation_is_cut_into_records_that_fit() {
        let effects = |n: usize, length: usize| -> Vec<Effect> {
            let path = FtpPath::root().resolve(&"x".repeat(length)).unwrap();
            vec![Effect { path, over: vec![], what: Version::Deleted }; n]
        };
        let sizes = |parts: Vec<Vec<Effect>>| parts.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(cut(vec![], 2)), [0], "nothing to do is an operation, too");
        assert_eq!(sizes(cut(effects(5, 1), 2)), [2, 2, 1]);
        let large = cut(effects(10_000, 255), usize::MAX);
        assert!(large.len() > 5 && large.iter().all(|p| p.iter().map(weight_of).sum::<usize>() <= BYTES / 2));
    }

    #[test]
    fn frames_are_bounded_in_count_and_bytes() {
        let small = vec![delete("/x"); 600];
        assert!(matches!(fill(small.iter(), 512), (taken, true) if taken.len() == 512));
        assert!(matches!(fill(small[..512].iter(), 512), (taken, false) if taken.len() == 512));
        let large = vec![cover(1000); 512];
        let (taken, more) = fill(large.iter(), 512);
        assert!(more && !taken.is_empty());
        assert!(serde_json::to_string(&taken).unwrap().len() < 8 << 20);
    }

    #[test]
    fn a_record_that_fills_a_frame_alone_still_goes() {
        let huge = [cover(100_000), delete("/x")];
        assert!(matches!(fill(huge.iter(), 512), (taken, true) if taken.len() == 1));
    }
}
