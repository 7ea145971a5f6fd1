//! The octets of the packets that wait.

/// Octets that there is room for from the start: 20 ms of G.711, or of Opus at 64 kbit/s.
const USUAL: usize = 160;

/// Places for payloads, all of the same length: that of the longest payload so far, rounded up. Most calls never need
/// a tenth of what Opus allows in a packet.
#[derive(Debug)]
pub(super) struct Payloads {
    octets: Box<[u8]>,
    places: usize,
    room: usize,
    longest: usize,
}

impl Payloads {
    /// Builds so many places. `longest` is the length of the longest payload that will ever be kept.
    pub(super) fn new(places: usize, longest: usize) -> Self {
        let room = USUAL.min(longest);
        Self { octets: vec![0; places * room].into_boxed_slice(), places, room, longest }
    }

    /// Makes room for payloads of this length, `longest` at most. What one packet needed the next will too: this
    /// allocates a few times in a call at most.
    pub(super) fn make_room(&mut self, len: usize) {
        if len <= self.room {
            return;
        }
        let room = len.next_power_of_two().min(self.longest).max(len);
        let mut octets = vec![0; self.places * room].into_boxed_slice();
        for (new, old) in octets.chunks_exact_mut(room).zip(self.octets.chunks_exact(self.room.max(1))) {
            new[..self.room].copy_from_slice(old);
        }
        (self.octets, self.room) = (octets, room);
    }

    /// Puts a payload, for which there is room, in its place.
    pub(super) fn put(&mut self, place: usize, payload: &[u8]) {
        let start = place * self.room;
        self.octets[start..start + payload.len()].copy_from_slice(payload);
    }

    /// Copies the first octets of a place to another.
    pub(super) fn copy(&mut self, from: usize, to: usize, len: usize) {
        let start = from * self.room;
        self.octets.copy_within(start..start + len, to * self.room);
    }

    /// Returns the first octets of a place.
    pub(super) fn get(&self, place: usize, len: usize) -> &[u8] {
        let start = place * self.room;
        &self.octets[start..start + len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_kept_as_the_places_grow() {
        let mut payloads = Payloads::new(3, 1_000);
        payloads.put(0, &[1; 160]);
        payloads.put(2, &[2, 3]);
        payloads.make_room(160);
        assert_eq!(payloads.room, 160);
        for (needed, room) in [(161, 256), (700, 1_000), (1_000, 1_000)] {
            payloads.make_room(needed);
            assert_eq!(payloads.room, room);
            payloads.put(1, &vec![9; needed]);
            assert_eq!(payloads.get(0, 160), [1; 160]);
            assert_eq!(payloads.get(1, needed), vec![9; needed]);
            assert_eq!(payloads.get(2, 2), [2, 3]);
        }
        payloads.copy(2, 0, 2);
        assert_eq!(payloads.get(0, 3), [2, 3, 1]);
    }
}
