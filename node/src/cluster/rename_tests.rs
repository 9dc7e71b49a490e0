//! Renaming directories, as the leader judges it.

use super::super::decide::tests::{Tree, file, path};
use super::super::decide::{admit, effects as decide};
use super::*;
use crate::cluster::{Change, Position};

fn made() -> Version {
    Version::Directory { modified: 1 }
}
fn rename(from: &str, to: &str) -> Change {
    Change::Rename { from: path(from), to: path(to) }
}
fn tree() -> Tree {
    Tree::default()
        .with("/d", made())
        .with("/d/f", file())
        .with("/d/i/g", file())
        .with("/d-", file())
        .with("/e", made())
}
/// What becomes of which path, deletes without a mark.
fn told(tree: &Tree, from: &str, to: &str) -> Vec<String> {
    let effects = decide(tree, &rename(from, to), None, 9).unwrap();
    effects.iter().map(|e| format!("{}{}", e.path, if e.what == Version::Deleted { "" } else { " +" })).collect()
}

#[test]
fn all_that_is_visible_moves_and_implied_directories_go_along() {
    assert_eq!(
        told(&tree(), "/d", "/e/x"),
        ["/e/x +", "/d", "/e/x/f +", "/d/f", "/e/x/i/g +", "/d/i/g"],
        "and not /d-, which sorts between"
    );
    assert_eq!(told(&tree(), "/d/i", "/i"), ["/i/g +", "/d/i/g"]);
    let effects = decide(&tree(), &rename("/d", "/x"), None, 9).unwrap();
    assert_eq!(effects[0].what, made(), "with its time");
    assert_eq!(effects[1].over, [Position { seq: 1, ..Position::default() }]);
}

#[test]
fn losers_stay_and_what_a_directory_hides_goes_along() {
    let hidden = tree().with("/d/i", file());
    assert!(told(&hidden, "/d", "/x").contains(&"/x/i +".to_owned()));
    // A delete that came to be on another side hides the made directory, which lives on by what is in it.
    let deleted = tree().with("/d", Version::Deleted);
    assert_eq!(told(&deleted, "/d", "/x")[..2], ["/x/f +", "/d/f"]);
}

#[test]
fn a_directory_goes_only_to_where_nothing_is() {
    let judged = |from: &str, to: &str| {
        let admitted = admit(&tree(), &rename(from, to));
        assert_eq!(decide(&tree(), &rename(from, to), None, 9).map(drop), admitted, "judged alike before and after");
        admitted
    };
    assert_eq!(judged("/d", "/x"), Ok(()));
    for there in ["/e", "/d-", "/"] {
        assert_eq!(judged("/d", there), Err(Refusal::Exists), "{there}");
    }
    assert_eq!(judged("/d/i", "/d"), Err(Refusal::Exists));
    assert_eq!(judged("/d", "/d"), Err(Refusal::IntoItself));
    assert_eq!(judged("/d", "/d/i/x"), Err(Refusal::IntoItself));
    assert_eq!(judged("/", "/x"), Err(Refusal::IntoItself));
    assert_eq!(judged("/d", "/q/x"), Err(Refusal::NoParent));
    assert_eq!(judged("/d", "/e/.conflicts"), Err(Refusal::Reserved));
    assert_eq!(judged("/q", "/x"), Err(Refusal::NotFound));
}

#[test]
fn a_path_that_would_be_too_long_keeps_all_where_it_is() {
    let deep = format!("/d/{}", vec!["x".repeat(250); 16].join("/"));
    let tree = tree().with(&deep, file());
    let long = format!("/{}", "y".repeat(200));
    assert_eq!(decide(&tree, &rename("/d", &long), None, 9), Err(Refusal::TooLong));
    assert!(decide(&tree, &rename("/d", "/y"), None, 9).is_ok());
}
