//! Small histories whose answer one sees.

use histories::{Act, Checked, History, Initially, Limits, Seeing, Seen, Time, Verdict};

type Line = (Seeing<u64>, Time, Option<Time>);

fn put(piece: u64, from: Time, to: Time) -> Line {
    (Act::Put(vec![piece]).seeing(Seen::Nothing), from, Some(to))
}
fn read(content: &[u64], from: Time, to: Time) -> Line {
    (Act::Read.seeing(Seen::Content(content.to_vec())), from, Some(to))
}
fn absent(from: Time, to: Time) -> Line {
    (Act::Read.seeing(Seen::Absent), from, Some(to))
}
fn append(piece: u64, from: Time, to: Time) -> Line {
    (Act::Append(piece).seeing(Seen::Nothing), from, Some(to))
}
fn delete(from: Time, to: Time) -> Line {
    (Act::Delete.seeing(Seen::Present), from, Some(to))
}
fn unknown((op, from, _): Line) -> Line {
    (op, from, None)
}

fn checked(initially: Initially, lines: &[Line]) -> Checked {
    let mut history = History::default();
    for (op, from, to) in lines {
        history.add((), op.clone(), *from, *to);
    }
    history.check(initially, Limits::default()).remove(0).1
}
fn good(lines: &[Line]) {
    let checked = checked(Initially::Absent, lines);
    assert!(matches!(checked.verdict, Verdict::Linearizable(_)), "{checked:?}");
}
/// Checks that the history is broken at the operation with this index.
fn bad(lines: &[Line], operation: usize) {
    let checked = checked(Initially::Absent, lines);
    assert!(matches!(&checked.verdict, Verdict::Broken(b) if b.operation == operation), "{checked:?}");
}

#[test]
fn a_read_sees_the_last_write() {
    good(&[put(1, 0, 10), read(&[1], 20, 30)]);
    bad(&[put(1, 0, 10), put(2, 20, 30), read(&[1], 40, 50)], 2);
    bad(&[put(1, 0, 10), absent(20, 30)], 1);
}

#[test]
fn concurrent_writes_take_either_order_but_all_see_the_same() {
    good(&[put(1, 0, 10), put(2, 0, 10), read(&[1], 20, 30), read(&[1], 40, 50)]);
    good(&[put(1, 0, 10), put(2, 0, 10), read(&[2], 20, 30)]);
    bad(&[put(1, 0, 10), put(2, 0, 10), read(&[1], 20, 30), read(&[2], 40, 50)], 3);
}

#[test]
fn a_read_during_a_write_may_see_either_but_the_next_not_less() {
    good(&[put(1, 0, 10), put(2, 20, 90), read(&[1], 30, 40), read(&[2], 50, 60)]);
    bad(&[put(1, 0, 10), put(2, 20, 90), read(&[2], 30, 40), read(&[1], 50, 60)], 3);
}

#[test]
fn equal_instants_are_concurrent() {
    good(&[put(1, 0, 10), absent(10, 20)]);
    bad(&[put(1, 0, 10), absent(11, 20)], 1);
}

#[test]
fn an_unknown_write_may_come_late_or_never_but_once() {
    let lost = unknown(put(2, 20, 0));
    good(&[put(1, 0, 10), lost.clone(), read(&[1], 30, 40), read(&[1], 50, 60)]);
    good(&[put(1, 0, 10), lost.clone(), read(&[1], 30, 40), read(&[2], 50, 60)]);
    bad(&[put(1, 0, 10), lost.clone(), read(&[2], 30, 40), read(&[1], 50, 60)], 3);
    bad(&[put(1, 0, 10), lost.clone(), read(&[2], 30, 40), put(3, 50, 60), read(&[2], 70, 80)], 4);
    bad(&[read(&[2], 0, 10), lost], 0); // not before it was invoked
}

#[test]
fn an_unknown_operation_takes_no_effect_where_it_would_have_been_refused() {
    let create = (Act::Put(vec![2]).seeing(Seen::Absent), 20, None);
    good(&[create.clone(), read(&[2], 30, 40)]);
    bad(&[put(1, 0, 10), create, read(&[2], 30, 40)], 2);
}

#[test]
fn deletes_and_existence() {
    good(&[put(1, 0, 10), delete(20, 30), absent(40, 50)]);
    bad(&[put(1, 0, 10), delete(20, 30), read(&[1], 40, 50)], 2);
    bad(&[put(1, 0, 10), delete(20, 30), delete(40, 50)], 2);
    good(&[put(1, 0, 10), delete(20, 60), absent(25, 30), put(2, 31, 35), read(&[2], 70, 80)]);
    bad(&[put(1, 0, 10), delete(20, 60), absent(25, 30), put(2, 31, 35), absent(70, 80)], 4);
}

#[test]
fn appends_keep_their_order() {
    good(&[append(1, 0, 10), append(2, 20, 30), read(&[1, 2], 40, 50)]);
    bad(&[append(1, 0, 10), append(2, 20, 30), read(&[2, 1], 40, 50)], 2);
    good(&[append(1, 0, 30), append(2, 20, 30), read(&[2, 1], 40, 50)]);
    bad(&[append(1, 0, 10), append(2, 20, 30), read(&[1, 2, 2], 40, 50)], 2);
    bad(&[append(1, 0, 10), append(2, 20, 30), read(&[2], 40, 50)], 2);
}

#[test]
fn content_nobody_named_is_known_once_it_is_read() {
    let place = (Act::Place.seeing(Seen::Nothing), 20, Some(30));
    good(&[put(1, 0, 10), place.clone(), read(&[7], 40, 50), read(&[7], 60, 70)]);
    bad(&[put(1, 0, 10), place.clone(), read(&[7], 40, 50), read(&[8], 60, 70)], 3);
    bad(&[put(1, 0, 10), place.clone(), absent(40, 50)], 2);
    good(&[place.clone(), append(3, 40, 50), read(&[7, 3], 60, 70)]);
    bad(&[place, append(3, 40, 50), read(&[3, 7], 60, 70)], 2);
}

#[test]
fn what_was_before_the_history_may_be_unknown() {
    let lines = [read(&[7], 0, 10), delete(20, 30), absent(40, 50)];
    assert!(matches!(checked(Initially::Unknown, &lines).verdict, Verdict::Linearizable(_)));
    bad(&lines, 0);
    let lines = [delete(0, 10), read(&[7], 20, 30)];
    let Verdict::Broken(blocked) = checked(Initially::Unknown, &lines).verdict else { panic!("it was deleted") };
    assert_eq!((blocked.operation, blocked.order), (1, vec![0]));
}

#[test]
fn keys_are_checked_for_themselves() {
    let mut history = History::default();
    history.add("a", put(1, 0, 10).0, 0, Some(10));
    history.add("b", read(&[1], 20, 30).0, 20, Some(30));
    let verdicts = history.check(Initially::Absent, Limits::default());
    let broken: Vec<_> = verdicts.iter().filter(|(_, c)| matches!(c.verdict, Verdict::Broken(_))).collect();
    assert!(broken.len() == 1 && *broken[0].0 == "b", "{verdicts:?}");
}

#[test]
fn a_limit_is_never_an_answer() {
    let lines: Vec<Line> =
        (0..20).map(|n| put(n, 0, 100)).chain([read(&[3], 110, 120), read(&[4], 130, 140)]).collect();
    let mut history = History::default();
    lines.iter().for_each(|(op, from, to)| history.add((), op.clone(), *from, *to));
    let gave_up = |limits| matches!(history.check(Initially::Absent, limits)[0].1.verdict, Verdict::GaveUp { .. });
    assert!(gave_up(Limits { steps: 50, ..Limits::default() }));
    assert!(gave_up(Limits { configurations: 5, ..Limits::default() }));
    let crowd: Vec<Line> = (0..129).map(|n| put(n, 0, 100)).collect();
    assert!(matches!(checked(Initially::Absent, &crowd).verdict, Verdict::GaveUp { .. }));
    assert!(matches!(checked(Initially::Absent, &crowd[..128]).verdict, Verdict::Linearizable(_)));
}

#[test]
fn nothing_at_all_is_linearizable() {
    let (model, operations) = histories::FileModel::<u64>::of(&[], Initially::Absent);
    let checked = histories::check(&model, &operations, Limits::default());
    assert_eq!(checked.verdict, Verdict::Linearizable(vec![]));
}
