//! Watermarks grow with every epoch there ever was, and every heartbeat says them. On one link only what changed since the
//! last heartbeat is written; both ends remember the rest. It knows nothing of what watermarks mean but that they only grow
//! while a link lives: a process never takes a record out of its marks, and a link never outlives its processes.

use crate::cluster::{Marks, Message};

/// What was last said on a link.
#[derive(Debug, Default)]
pub(super) struct Shorthand(Marks);

impl Shorthand {
    /// Leaves out what the other end knows.
    pub(super) fn shorten(&mut self, message: &mut Message) {
        if let Message::Heartbeat { info, .. } = message {
            let said = std::mem::replace(&mut self.0, info.marks.clone());
            info.marks = info.marks.beyond(&said);
        }
    }
    /// Puts back what was left out.
    pub(super) fn expand(&mut self, message: &mut Message) {
        if let Message::Heartbeat { info, .. } = message {
            self.0.join(&info.marks);
            info.marks = self.0.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Epoch, Info};

    fn heartbeat(marks: &Marks) -> Message {
        Message::Heartbeat { sent: 1, echo: 0, info: Box::new(Info { marks: marks.clone(), ..Info::default() }) }
    }
    fn marks_in(message: &Message) -> Marks {
        if let Message::Heartbeat { info, .. } = message { info.marks.clone() } else { Marks::default() }
    }

    #[test]
    fn only_what_is_new_is_written_and_all_of_it_arrives() {
        let (mut here, mut there) = (Shorthand::default(), Shorthand::default());
        let mut marks = Marks::of(Epoch(1, 1), 5);
        for (grown, written) in [(Epoch(2, 1), 2), (Epoch(2, 1), 1), (Epoch(3, 9), 1)] {
            marks.raise(grown, marks.count(grown) + 1);
            let mut message = heartbeat(&marks);
            here.shorten(&mut message);
            assert_eq!(marks_in(&message).iter().count(), written);
            there.expand(&mut message);
            assert_eq!(marks_in(&message), marks);
        }
    }
}
