//! A file as its clients know it: absent, or present with a content; a content is a list of pieces, one for each write. The
//! states are reduced to what the reads of this one history can tell apart, and that exactly: contents nobody read are one
//! state, contents nobody named are narrowed by the first read that sees them.

use crate::content::{Contents, EMPTY, Node, Piece};
use crate::history::Operation;
use crate::model::Model;

/// What an operation does to a file. `V` names a piece of content; pieces of different writes should differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act<V> {
    /// Nothing. A read is this, and so is a refusal that shows something of the state.
    Read,
    /// The file is this afterwards, whatever was there.
    Put(Vec<V>),
    /// The file has this piece at its end afterwards; if there was none, it is this.
    Append(V),
    /// There is no file afterwards.
    Delete,
    /// Some file is there afterwards, and the history does not say which: the target of a rename.
    Place,
    /// Anything may be there afterwards, or nothing: what the history cannot follow.
    Disturb,
}

/// What an operation showed its client of the state it took effect in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen<V> {
    /// Nothing.
    Nothing,
    /// That there was no file.
    Absent,
    /// That there was one.
    Present,
    /// This content.
    Content(Vec<V>),
}

/// An operation on a file and what it showed. If its outcome is unknown, then what it needed: it takes no effect where its
/// client would have been shown something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeing<V> {
    /// What it does.
    pub act: Act<V>,
    /// What it showed, or needs.
    pub seen: Seen<V>,
}

impl<V> Act<V> {
    /// This act, with what it showed.
    pub fn seeing(self, seen: Seen<V>) -> Seeing<V> {
        Seeing { act: self, seen }
    }
}

impl<V> Seeing<V> {
    /// Whether it can change the file. What cannot says nothing unless it was answered.
    pub fn changes(&self) -> bool {
        !matches!(self.act, Act::Read)
    }
}

/// What is known of a file before its history begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initially {
    /// There was none.
    Absent,
    /// Nothing: there was none, or any.
    Unknown,
}

/// [`Seeing`], reduced to what can be told apart in its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOp {
    does: Does,
    needs: Needs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Nothing,
    Put(Option<Node>),
    Append(Option<Piece>),
    Delete,
    Place,
    Disturb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Absent,
    Present,
    Content(Node),
}

/// What a file can be, as far as its history tells.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FileState {
    /// Absent, or any file.
    Unknown,
    /// There is none.
    Absent,
    /// A content that is the beginning of one that was read.
    Read(Node),
    /// A content that nobody read, nor anything that begins with it.
    Unread,
    /// Any content that ends with these pieces.
    Ending(Vec<Piece>),
}

/// The sequential specification of one file in one history.
#[derive(Debug)]
pub struct FileModel<V> {
    contents: Contents<V>,
    initially: Initially,
}

impl<V: Ord + Clone> FileModel<V> {
    /// The model of a history, and that history in the model's terms, index by index.
    pub fn of(operations: &[Operation<Seeing<V>>], initially: Initially) -> (Self, Vec<Operation<FileOp>>) {
        let read = operations.iter().filter_map(|o| match &o.op.seen {
            Seen::Content(content) => Some(content.as_slice()),
            _ => None,
        });
        let model = Self { contents: Contents::of(read), initially };
        let reduced =
            operations.iter().map(|o| Operation { op: model.reduce(&o.op), invoked: o.invoked, returned: o.returned });
        let reduced = reduced.collect();
        (model, reduced)
    }
    fn reduce(&self, op: &Seeing<V>) -> FileOp {
        let does = match &op.act {
            Act::Read => Does::Nothing,
            Act::Put(content) => Does::Put(self.contents.find(content)),
            Act::Append(piece) => Does::Append(self.contents.piece(piece)),
            Act::Delete => Does::Delete,
            Act::Place => Does::Place,
            Act::Disturb => Does::Disturb,
        };
        let needs = match &op.seen {
            Seen::Nothing => Needs::Nothing,
            Seen::Absent => Needs::Absent,
            Seen::Present => Needs::Present,
            Seen::Content(content) => {
                Needs::Content(self.contents.find(content).expect("every content seen went into the tree"))
            }
        };
        FileOp { does, needs }
    }
    /// The state in which `needs` is met, knowing what that tells.
    fn narrowed(&self, state: &FileState, needs: Needs) -> Option<FileState> {
        use FileState::{Absent, Ending, Read, Unknown};
        match (needs, state) {
            (Needs::Nothing, state) => Some(state.clone()),
            (Needs::Absent, Absent | Unknown) => Some(Absent),
            (Needs::Absent, _) | (Needs::Present | Needs::Content(_), Absent) => None,
            (Needs::Present, Unknown) => Some(Ending(vec![])),
            (Needs::Present, state) => Some(state.clone()),
            (Needs::Content(node), Unknown) => Some(Read(node)),
            (Needs::Content(node), Ending(tail)) => self.contents.ends(node, tail).then_some(Read(node)),
            (Needs::Content(node), state) => (*state == Read(node)).then_some(Read(node)),
        }
    }
    fn appended(&self, state: FileState, piece: Option<Piece>) -> FileState {
        use FileState::{Absent, Ending, Read, Unknown, Unread};
        let Some(piece) = piece else { return Unread };
        let tail = match state {
            Unread => return Unread,
            Absent => return self.contents.child(EMPTY, piece).map_or(Unread, Read),
            Read(node) => return self.contents.child(node, piece).map_or(Unread, Read),
            Unknown => vec![piece],
            Ending(mut tail) => {
                tail.push(piece);
                tail
            }
        };
        if self.contents.any_ends(&tail) { Ending(tail) } else { Unread }
    }
}

impl<V: Ord + Clone> Model for FileModel<V> {
    type Op = FileOp;
    type State = FileState;

    fn initial(&self) -> FileState {
        match self.initially {
            Initially::Absent => FileState::Absent,
            Initially::Unknown => FileState::Unknown,
        }
    }
    fn step(&self, state: &FileState, op: &FileOp) -> Option<FileState> {
        let state = self.narrowed(state, op.needs)?;
        Some(match op.does {
            Does::Nothing => state,
            Does::Put(content) => content.map_or(FileState::Unread, FileState::Read),
            Does::Append(piece) => self.appended(state, piece),
            Does::Delete => FileState::Absent,
            Does::Place => FileState::Ending(vec![]),
            Does::Disturb => FileState::Unknown,
        })
    }
    fn observes(&self, op: &FileOp) -> bool {
        op.does == Does::Nothing
    }
    fn alike(&self, one: &FileOp, other: &FileOp) -> bool {
        one == other
    }
}
