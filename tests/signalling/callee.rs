//! The called end: rings, answers, and answers the BYE.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use crate::caller::T1;
use crate::message::{Message, Name, Start, description, response};

/// How long an ended call is remembered, so that a repeated BYE is known for one.
const MEMORY: Duration = Duration::from_secs(3);
/// How often a 200 that is not acknowledged is said again.
const REPEATS: u32 = 6;

#[derive(Debug)]
struct Call {
    answer: String,
    acknowledged: bool,
    ended: bool,
}

/// The called end of one socket.
#[derive(Debug)]
pub(crate) struct Callee {
    own: SocketAddrV4,
    calls: HashMap<String, Call>,
    unacknowledged: VecDeque<(Instant, String, u32)>,
    ended: VecDeque<(Instant, String)>,
    repeated: u64,
    own_repeats: u64,
    open: usize,
}

impl Callee {
    /// Answers at `own`.
    pub(crate) fn new(own: SocketAddrV4) -> Self {
        Self {
            own,
            calls: HashMap::new(),
            unacknowledged: VecDeque::new(),
            ended: VecDeque::new(),
            repeated: 0,
            own_repeats: 0,
            open: 0,
        }
    }

    /// Requests that came again though they had been answered.
    pub(crate) fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Answers that had to be said again.
    pub(crate) fn own_repeats(&self) -> u64 {
        self.own_repeats
    }

    /// Calls that nobody has ended.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Forgets every call; what still comes for one is answered all the same.
    pub(crate) fn abandon(&mut self) {
        self.calls.clear();
        self.unacknowledged.clear();
        self.ended.clear();
        self.open = 0;
    }

    /// When [`Callee::on_time`] wants to be called.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.unacknowledged.front().map(|(at, ..)| *at)
    }

    /// Says again what was not acknowledged (RFC 3261 13.3.1.4), and forgets what is over.
    pub(crate) fn on_time(&mut self, now: Instant, send: &mut dyn FnMut(&[u8])) {
        while self.next_due().is_some_and(|at| at <= now) {
            let Some((_, id, count)) = self.unacknowledged.pop_front() else { return };
            let Some(call) = self.calls.get(&id).filter(|call| !call.acknowledged && !call.ended) else {
                continue;
            };
            send(call.answer.as_bytes());
            self.own_repeats += 1;
            if count < REPEATS {
                self.unacknowledged.push_back((now + T1, id, count + 1));
            }
        }
        while self.ended.front().is_some_and(|(at, _)| *at + MEMORY <= now) {
            if let Some((_, id)) = self.ended.pop_front() {
                self.calls.remove(&id);
            }
        }
    }

    /// Takes a message in.
    pub(crate) fn receive(&mut self, bytes: &[u8], now: Instant, send: &mut dyn FnMut(&[u8])) {
        let Some(message) = Message::parse(bytes) else { return };
        let (Start::Request(method), Some(id)) = (message.start, message.header(Name::CallId)) else {
            return;
        };
        match method {
            "INVITE" => self.invite(id, &message, now, send),
            "ACK" => {
                if let Some(call) = self.calls.get_mut(id) {
                    call.acknowledged = true;
                }
            }
            _ => {
                let Some(text) = response(&message, "200 OK", self.own, None) else { return };
                send(text.as_bytes());
                if method == "BYE"
                    && let Some(call) = self.calls.get_mut(id)
                {
                    self.repeated += u64::from(call.ended);
                    if !call.ended {
                        self.open -= 1;
                        self.ended.push_back((now, id.to_owned()));
                    }
                    call.ended = true;
                }
            }
        }
    }

    fn invite(&mut self, id: &str, message: &Message, now: Instant, send: &mut dyn FnMut(&[u8])) {
        if let Some(call) = self.calls.get(id) {
            self.repeated += 1;
            send(call.answer.as_bytes());
            return;
        }
        let body = description(self.own, 1);
        let (Some(ringing), Some(answer)) = (
            response(message, "180 Ringing", self.own, None),
            response(message, "200 OK", self.own, Some(&body)),
        ) else {
            return;
        };
        send(ringing.as_bytes());
        send(answer.as_bytes());
        self.calls.insert(id.to_owned(), Call { answer, acknowledged: false, ended: false });
        self.unacknowledged.push_back((now + T1, id.to_owned(), 1));
        self.open += 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::message::{Dialog, in_dialog, invite};

    fn address(last: u8) -> SocketAddrV4 {
        SocketAddrV4::new([127, 0, 0, last].into(), 5060)
    }

    fn receive(callee: &mut Callee, message: &str, now: Instant) -> Vec<String> {
        let mut sent = Vec::new();
        callee.receive(message.as_bytes(), now, &mut |bytes| {
            sent.push(String::from_utf8(bytes.to_vec()).unwrap());
        });
        sent
    }

    fn pass(callee: &mut Callee, now: Instant) -> usize {
        let mut sent = 0;
        callee.on_time(now, &mut |_| sent += 1);
        sent
    }

    // RFC 3261 13.3.1.4: the 200 is said again until it is acknowledged.
    #[test]
    fn a_call_is_answered_until_that_is_acknowledged_and_ended_once() {
        let (mut callee, now) = (Callee::new(address(2)), Instant::now());
        let sent = receive(&mut callee, &invite(9, "+1", address(1), address(2)), now);
        assert!(sent[0].starts_with("SIP/2.0 180 ") && sent[1].starts_with("SIP/2.0 200 "), "{sent:?}");
        assert!(sent[1].contains("m=audio 40000 "));
        assert_eq!((callee.open(), pass(&mut callee, now), pass(&mut callee, now + T1)), (1, 0, 1));
        let dialog = Dialog::of(&Message::parse(sent[1].as_bytes()).unwrap()).unwrap();
        assert!(receive(&mut callee, &in_dialog("ACK", &dialog, address(1)), now).is_empty());
        assert_eq!((pass(&mut callee, now + 2 * T1), callee.own_repeats()), (0, 1));
        let bye = in_dialog("BYE", &dialog, address(1));
        for repeated in [0, 1] {
            let sent = receive(&mut callee, &bye, now);
            assert!(sent[0].starts_with("SIP/2.0 200 "));
            assert_eq!((callee.open(), callee.repeated()), (0, repeated));
        }
        // What is forgotten is answered all the same.
        pass(&mut callee, now + MEMORY);
        assert_eq!(receive(&mut callee, &bye, now).len(), 1);
        assert_eq!(callee.repeated(), 1);
    }

    #[test]
    fn an_invite_that_comes_again_is_counted_and_gets_the_same_answer() {
        let (mut callee, now) = (Callee::new(address(2)), Instant::now());
        let invite = invite(9, "+1", address(1), address(2));
        let first = receive(&mut callee, &invite, now);
        let again = receive(&mut callee, &invite, now);
        assert_eq!((again.len(), &again[0]), (1, &first[1]));
        assert_eq!((callee.repeated(), callee.open()), (1, 1));
    }

    #[test]
    fn a_call_that_was_given_up_can_still_be_ended() {
        let (mut callee, now) = (Callee::new(address(2)), Instant::now());
        let sent = receive(&mut callee, &invite(9, "+1", address(1), address(2)), now);
        let dialog = Dialog::of(&Message::parse(sent[1].as_bytes()).unwrap()).unwrap();
        callee.abandon();
        assert_eq!((callee.open(), pass(&mut callee, now + T1)), (0, 0));
        assert_eq!(receive(&mut callee, &in_dialog("BYE", &dialog, address(1)), now).len(), 1);
        assert_eq!((callee.open(), callee.repeated()), (0, 0));
    }
}
