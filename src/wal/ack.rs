//! What may be told to the server: received and durable are not the same.
//!
//! The server frees its log up to the *flushed* position we report, for ever. So it is the end of the
//! last commit that is durable in every read model. Only when nothing at all is on its way may it be
//! what was received: then an idle publication in a busy database does not hold the log back.

use crate::lsn::Lsn;

/// The positions of one stream. Pure; fed by the reader, asked before each status update.
///
/// ```text
/// durable ≤ handed over ≤ received        flushed = durable, or received when all is durable
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    received: Lsn,
    handed_over: Lsn,
    durable: Lsn,
    inside_transaction: bool,
    flushed: Lsn,
}

impl Acknowledgement {
    /// At `start`, where the stream begins: everything before it is durable.
    pub fn new(start: Lsn) -> Self {
        Self {
            received: start,
            handed_over: start,
            durable: start,
            inside_transaction: false,
            flushed: start,
        }
    }

    /// The server's log was seen up to here: the end of a keepalive or of a commit. Never call it
    /// with the position of a message inside a transaction.
    pub fn received(&mut self, end: Lsn) {
        self.received = self.received.max(end);
    }

    /// A transaction has begun to arrive. Until it is handed over nothing received counts as flushed.
    pub fn began(&mut self) {
        self.inside_transaction = true;
    }

    /// A transaction whose commit ends at `end` had nothing for the lanes.
    pub fn skipped(&mut self, end: Lsn) {
        self.inside_transaction = false;
        self.received(end);
    }

    /// A transaction whose commit ends at `end` went on to the lanes, which will report it durable.
    pub fn handed_over(&mut self, end: Lsn) {
        self.inside_transaction = false;
        self.received(end);
        self.handed_over = self.handed_over.max(end);
    }

    /// Every lane has everything up to `end`, the end of a commit, safely on disk.
    pub fn durable(&mut self, end: Lsn) {
        self.durable = self.durable.max(end);
    }

    /// Up to where we have received.
    pub fn received_lsn(&self) -> Lsn {
        self.received
    }

    /// Whether anything is on its way to the disk.
    pub fn is_idle(&self) -> bool {
        !self.inside_transaction && self.handed_over <= self.durable
    }

    /// Up to where the server may forget. Never goes back.
    pub fn flushed(&mut self) -> Lsn {
        let safe = if self.is_idle() { self.received } else { self.durable.min(self.handed_over) };
        self.flushed = self.flushed.max(safe);
        self.flushed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_on_its_way_is_not_acknowledged() {
        let mut positions = Acknowledgement::new(Lsn(10));
        positions.handed_over(Lsn(20));
        positions.handed_over(Lsn(30));
        positions.received(Lsn(40));
        assert_eq!(positions.flushed(), Lsn(10));

        positions.durable(Lsn(20));
        assert_eq!(positions.flushed(), Lsn(20));

        positions.durable(Lsn(30));
        assert_eq!(positions.flushed(), Lsn(40));
    }

    #[test]
    fn an_idle_stream_acknowledges_what_keepalives_say() {
        let mut positions = Acknowledgement::new(Lsn(10));

        positions.received(Lsn(50));

        assert_eq!(positions.flushed(), Lsn(50));
    }

    #[test]
    fn a_transaction_that_is_still_arriving_holds_back() {
        let mut positions = Acknowledgement::new(Lsn(10));
        positions.began();
        positions.received(Lsn(50));
        assert_eq!(positions.flushed(), Lsn(10));

        positions.handed_over(Lsn(60));
        positions.durable(Lsn(60));
        assert_eq!(positions.flushed(), Lsn(60));
    }

    #[test]
    fn a_transaction_without_work_does_not_hold_back() {
        let mut positions = Acknowledgement::new(Lsn(10));
        positions.began();
        positions.skipped(Lsn(20));
        assert_eq!(positions.flushed(), Lsn(20));

        positions.handed_over(Lsn(30));
        positions.skipped(Lsn(40));
        assert_eq!(positions.flushed(), Lsn(20));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Received(u64),
        Transaction(u64),
        Durable(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1..50_u64).prop_map(Step::Received),
            (1..50_u64).prop_map(Step::Transaction),
            (0..4_usize).prop_map(Step::Durable),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn the_server_is_never_told_to_forget_what_is_not_durable(steps in steps()) {
            let mut positions = Acknowledgement::new(Lsn(0));
            let (mut head, mut pending, mut last) = (0, Vec::new(), Lsn(0));
            for step in steps {
                match step {
                    Step::Received(ahead) => {
                        head += ahead;
                        positions.received(Lsn(head));
                    }
                    Step::Transaction(size) => {
                        positions.began();
                        head += size;
                        positions.handed_over(Lsn(head));
                        pending.push(head);
                    }
                    Step::Durable(count) => {
                        let done = pending.drain(..pending.len().min(count)).next_back();
                        positions.durable(Lsn(done.unwrap_or(0)));
                    }
                }
                let flushed = positions.flushed();
                prop_assert!(last <= flushed);
                if let Some(first) = pending.first() {
                    prop_assert!(flushed < Lsn(*first));
                } else {
                    prop_assert_eq!(flushed, Lsn(head));
                }
                last = flushed;
            }
        }
    }
}
