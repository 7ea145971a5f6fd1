use std::collections::HashSet;
use std::hash::Hash;

use super::ValidRecord;

/// Answers that settle which record is the newest.
pub const ENOUGH: usize = 3;

/// Decides between the answers to one look-up: the highest sequence of at least [`ENOUGH`] answers
/// wins. Those who have answered are named by `P`.
#[derive(Clone, Debug)]
pub struct Choice<P> {
    best: Option<ValidRecord>,
    answered: HashSet<P>,
    found_nothing: usize,
}

impl<P> Default for Choice<P> {
    fn default() -> Self {
        Self { best: None, answered: HashSet::new(), found_nothing: 0 }
    }
}

impl<P: Eq + Hash> Choice<P> {
    /// Takes a record that was verified. Returns whether it is the best so far.
    pub fn offer(&mut self, record: &ValidRecord) -> bool {
        let newer = self.best.as_ref().is_none_or(|best| record.outranks(best));
        if newer {
            self.best = Some(record.clone());
        }
        newer
    }

    /// Notes that a node has answered.
    pub fn answered_by(&mut self, peer: P) {
        self.answered.insert(peer);
    }

    /// Notes that a server has looked further on behalf of this node, and found nothing.
    pub fn nothing_found(&mut self) {
        self.found_nothing += 1;
    }

    /// Returns the best record so far.
    pub fn best(&self) -> Option<&ValidRecord> {
        self.best.as_ref()
    }

    /// Returns how many nodes have answered, as far as they are known by name.
    pub fn answers(&self) -> usize {
        self.answered.len()
    }

    /// Says whether further answers would change nothing: [`ENOUGH`] nodes have answered and there
    /// is a record, or as many servers have looked further and there is none.
    pub fn is_settled(&self) -> bool {
        if self.best.is_some() { self.answered.len() >= ENOUGH } else { self.found_nothing >= ENOUGH }
    }
}
