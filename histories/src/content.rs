//! Every content that some read of a history returned, as a tree of pieces: the root is the empty file, a child is its
//! parent with one more piece appended. What is not in it was never seen, and need not be told apart.

use std::collections::BTreeMap;

/// A content of the tree.
pub(crate) type Node = u32;
/// A piece that occurs in a content somebody read.
pub(crate) type Piece = u32;

/// The empty file.
pub(crate) const EMPTY: Node = 0;

#[derive(Debug)]
pub(crate) struct Contents<V> {
    pieces: BTreeMap<V, Piece>,
    children: BTreeMap<(Node, Piece), Node>,
    /// Parent and last piece of each content; the root's are its own and never asked for.
    last: Vec<(Node, Piece)>,
    /// The contents that end with a piece.
    ending: BTreeMap<Piece, Vec<Node>>,
}

impl<V: Ord + Clone> Contents<V> {
    pub(crate) fn of<'a>(read: impl IntoIterator<Item = &'a [V]>) -> Self
    where
        V: 'a,
    {
        let mut contents = Self {
            pieces: BTreeMap::new(),
            children: BTreeMap::new(),
            last: vec![(EMPTY, 0)],
            ending: BTreeMap::new(),
        };
        for content in read {
            content.iter().fold(EMPTY, |node, piece| contents.grow(node, piece));
        }
        contents
    }
    fn grow(&mut self, node: Node, piece: &V) -> Node {
        let next = self.pieces.len() as Piece;
        let piece = *self.pieces.entry(piece.clone()).or_insert(next);
        if let Some(child) = self.children.get(&(node, piece)) {
            return *child;
        }
        let child = self.last.len() as Node;
        self.last.push((node, piece));
        self.children.insert((node, piece), child);
        self.ending.entry(piece).or_default().push(child);
        child
    }
    pub(crate) fn piece(&self, piece: &V) -> Option<Piece> {
        self.pieces.get(piece).copied()
    }
    /// A content, if it is the beginning of one that was read.
    pub(crate) fn find(&self, content: &[V]) -> Option<Node> {
        content.iter().try_fold(EMPTY, |node, piece| self.child(node, self.piece(piece)?))
    }
    pub(crate) fn child(&self, node: Node, piece: Piece) -> Option<Node> {
        self.children.get(&(node, piece)).copied()
    }
    /// Whether a content ends with these pieces.
    pub(crate) fn ends(&self, node: Node, tail: &[Piece]) -> bool {
        let mut at = node;
        for piece in tail.iter().rev() {
            let (parent, last) = self.last[at as usize];
            if at == EMPTY || last != *piece {
                return false;
            }
            at = parent;
        }
        true
    }
    /// Whether any content does.
    pub(crate) fn any_ends(&self, tail: &[Piece]) -> bool {
        let Some(last) = tail.last() else { return true };
        self.ending.get(last).into_iter().flatten().any(|node| self.ends(*node, tail))
    }
}
