//! Which part of a member answers which message. Nothing is decided here but whom a node listens to.

use super::member::{Cx, Member};
use super::message::Message;
use super::types::NodeId;

impl Member {
    pub(super) fn receive(&mut self, cx: Cx<'_>, from: NodeId, message: Message) {
        // Without its Hello a peer is a stranger; it will repeat itself.
        if self.peers.all.contains_key(&from) && self.believes(cx, from, &message) {
            self.dispatch(cx, from, message);
        }
    }

    pub(super) fn dispatch(&mut self, cx: Cx<'_>, from: NodeId, message: Message) {
        match message {
            Message::Heartbeat { sent, echo, info } => self.on_heartbeat(cx, from, sent, echo, *info),
            Message::Election => self.on_election(cx, from),
            Message::Answer => self.on_answer(),
            Message::Collect { epoch, marks } => self.on_collect(cx, from, epoch, &marks),
            Message::Promise { epoch, marks, records, committed, locks } => {
                self.on_promise(cx, from, epoch, marks, &records, &committed, locks);
            }
            Message::Refuse { epoch, promised, held } => self.on_refuse(cx, from, epoch, promised, held),
            Message::Append { epoch, records, committed, more } => {
                self.on_append(cx, from, epoch, &records, committed);
                if more {
                    self.acknowledge(true, true); // the next frame waits for it
                }
            }
            Message::Ack { epoch, received, durable, took } => {
                self.on_ack(cx, from, epoch, (received, durable), took);
            }
            Message::Coordinator { epoch, .. } => self.on_coordinator(cx, from, epoch),
            Message::HandoverAsk => self.on_handover_ask(cx, from),
            Message::Release { epoch } => self.on_release(cx, from, epoch),
            Message::Pull { marks, collecting } => self.on_pull(cx, from, &marks, collecting),
            Message::Pulled { records, committed } => self.on_pulled(cx, from, &records, &committed),
            Message::IndexAsk(ask) => self.on_index_ask(cx, from, &ask),
            Message::IndexAnswer(answer) => self.on_index_answer(cx, from, *answer),
            Message::LockRequest { op, change } => self.on_lock_request(cx, from, op, change),
            Message::Replace { op, token, kept, lost } => self.on_replace(cx, from, op, token, &kept, &lost),
            Message::Renew { op, token } => self.on_renew(cx, from, op, token),
            Message::Commit { op, token, change, staged, floor } => {
                self.on_commit(cx, from, super::grant::Asked { op, token, change, staged, floor });
            }
            Message::Unlock { op, token } => self.on_unlock(cx, from, op, token),
            Message::ReadRequest { round } => self.on_read_request(cx, from, round),
            Message::ReadPosition { round, position } => self.on_read_position(cx, round, position),
            Message::Fetch { what, extents, sources } => self.on_fetch(cx, from, what, extents, sources),
            Message::Fetched { what, copy, blobs } => self.on_fetched(cx, from, what, copy, blobs),
            Message::Merge { blob, run } => self.on_merge(cx, from, blob, run),
            Message::Merged { blob, hash } => self.on_merged(cx, from, blob, hash),
            Message::Have(possession) => self.on_have(cx, from, possession),
            Message::HaveIt(possession) => self.on_have_it(cx, from, &possession),
            Message::Granted { op, token, replicas, hlc } => self.on_granted(cx, op, token, replicas, hlc),
            Message::Replacement { op, token, kept, nodes } => self.on_replacement(op, token, kept, nodes),
            Message::Done { op, outcome } => self.on_done(op, outcome),
            Message::Refused { op, refusal } => self.on_refused(from, op, refusal),
            Message::Stale { op, token } => self.on_stale(cx, op, token),
            Message::NotLeader { op } => self.on_not_leader(cx, op),
        }
    }
}
