use mio::Token;

use super::session::SOCKETS;
use super::sockets::TOKENS;

const NOBODY: u32 = 0;
const MISSED: u32 = u32::MAX;

/// Which call of a thread has the socket of a token. Looked up for every event, so it is a table
/// of all tokens; of its 512 kB only what is written to takes memory.
pub(super) struct Places(Vec<u32>);

impl Places {
    pub(super) fn new() -> Self {
        Self(vec![NOBODY; TOKENS])
    }

    /// Returns the slot of the call and which of its sockets it is.
    pub(super) fn find(&self, token: Token) -> Option<(usize, usize)> {
        match self.0.get(token.0) {
            None | Some(&(NOBODY | MISSED)) => None,
            Some(&place) => Some(((place - 1) as usize / SOCKETS, (place - 1) as usize % SOCKETS)),
        }
    }

    /// Enters a call. Returns whether an event came while the socket was on its way to it: there
    /// will be no other for what waits.
    pub(super) fn enter(&mut self, token: Token, slot: usize, index: usize) -> bool {
        // More slots than ports there cannot be.
        let place = u32::try_from(slot * SOCKETS + index + 1).unwrap_or(NOBODY);
        self.0.get_mut(token.0).is_some_and(|entry| std::mem::replace(entry, place) == MISSED)
    }

    pub(super) fn clear(&mut self, token: Token) {
        if let Some(entry) = self.0.get_mut(token.0) {
            *entry = NOBODY;
        }
    }

    /// Notes an event for a socket that no call has yet.
    pub(super) fn miss(&mut self, token: Token) {
        if let Some(entry) = self.0.get_mut(token.0) {
            *entry = MISSED;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_found_by_its_socket_until_it_is_over() {
        let mut places = Places::new();
        for token in [0, 40_000, TOKENS - 1].map(Token) {
            assert_eq!(places.find(token), None);
            assert!(!places.enter(token, 30_000, 3));
            assert_eq!(places.find(token), Some((30_000, 3)));
            places.clear(token);
            assert_eq!(places.find(token), None);
        }
        assert_eq!(places.find(Token(TOKENS)), None);
    }

    #[test]
    fn an_event_before_the_call_is_told_once() {
        let mut places = Places::new();
        places.miss(Token(7));
        assert_eq!(places.find(Token(7)), None);
        assert!(places.enter(Token(7), 0, 0));
        assert_eq!(places.find(Token(7)), Some((0, 0)));
        assert!(!places.enter(Token(7), 1, 0));
    }
}
