//! The calling end: places calls, holds them, hangs up, and keeps count of what came of each.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use crate::message::{self, Dialog, Message, Start, ack_of_refusal, in_dialog, invite};

/// T1 (RFC 3261 table 4): what is not answered is said again after it.
pub(crate) const T1: Duration = Duration::from_millis(500);
/// How long a request may go without a final answer. Shorter than timer B (RFC 3261 17.1.1.2): nobody waits
/// 32 s for a connection on loopback.
const PATIENCE: Duration = Duration::from_secs(12);

/// What the calls are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Answered, hung up after that time.
    Answered(Duration),
    /// Answered, held until [`Caller::hang_up_all`].
    Held,
    /// Refused with that status.
    Refused(u16),
}

impl Plan {
    /// The number that is called: everyone answers +44, and nobody has +99.
    fn number(self, call: u64) -> String {
        let prefix = if matches!(self, Plan::Refused(_)) { "+99000" } else { "+44207" };
        format!("{prefix}{:07}", call % 10_000_000)
    }
}

/// What came of the calls begun in one phase.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) begun: u64,
    pub(crate) answered: u64,
    /// Ended as planned, to the last answer.
    pub(crate) completed: u64,
    /// Final answers that were not planned, by status.
    pub(crate) refused: BTreeMap<u16, u64>,
    /// No final answer within the patience.
    pub(crate) unanswered: u64,
    /// Ended by the other side, or whose BYE was not answered with 200.
    pub(crate) cut: u64,
    /// Final answers that came again though they had been acknowledged.
    pub(crate) repeated: u64,
    /// Requests that had to be said again.
    pub(crate) own_repeats: u64,
    /// When the last call was begun that did not go as planned.
    pub(crate) last_failed: Option<Instant>,
    /// Milliseconds from INVITE to 100, to the 200, to a 503.
    pub(crate) trying: Vec<f64>,
    pub(crate) set_up: Vec<f64>,
    pub(crate) rejected: Vec<f64>,
}

impl Tally {
    /// Calls that did not go as planned.
    pub(crate) fn failed(&self) -> u64 {
        self.refused.values().sum::<u64>() + self.unanswered + self.cut
    }
}

#[derive(Debug)]
struct Call {
    phase: usize,
    plan: Plan,
    begun: Instant,
    number: String,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Whether any answer has come.
    Inviting {
        heard: bool,
    },
    Active(Dialog),
    Ending(Dialog),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The INVITE again, the n-th time.
    Invite(u32),
    GiveUp,
    HangUp,
    /// The BYE again, the n-th time.
    Bye(u32),
    GiveUpBye,
}

/// The calling end of one socket.
#[derive(Debug)]
pub(crate) struct Caller {
    own: SocketAddrV4,
    peer: SocketAddrV4,
    next: u64,
    calls: HashMap<u64, Call>,
    due: BinaryHeap<Reverse<(Instant, u64, Due)>>,
    tallies: Vec<Tally>,
    answers: u64,
    completions: u64,
}

impl Caller {
    /// Calls from `own` to `peer`.
    pub(crate) fn new(own: SocketAddrV4, peer: SocketAddrV4) -> Self {
        Self {
            own,
            peer,
            next: 1,
            calls: HashMap::new(),
            due: BinaryHeap::new(),
            tallies: vec![Tally::default()],
            answers: 0,
            completions: 0,
        }
    }

    /// Calls that are not over.
    pub(crate) fn open(&self) -> usize {
        self.calls.len()
    }

    /// Calls answered and calls completed so far, whenever they were begun.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.answers, self.completions)
    }

    /// Counts calls begun from here on by themselves.
    pub(crate) fn begin_phase(&mut self) -> usize {
        self.tallies.push(Tally::default());
        self.tallies.len() - 1
    }

    /// What came so far of the calls of a phase.
    pub(crate) fn tally(&self, phase: usize) -> &Tally {
        &self.tallies[phase]
    }

    /// Places a call. It is `send`ed like all that follows.
    pub(crate) fn begin(&mut self, plan: Plan, now: Instant, send: &mut dyn FnMut(&[u8])) {
        let id = self.next;
        self.next += 1;
        let number = plan.number(id);
        send(invite(id, &number, self.own, self.peer).as_bytes());
        let phase = self.tallies.len() - 1;
        self.tallies[phase].begun += 1;
        self.calls
            .insert(id, Call { phase, plan, begun: now, number, state: State::Inviting { heard: false } });
        self.due.push(Reverse((now + T1, id, Due::Invite(1))));
        self.due.push(Reverse((now + PATIENCE, id, Due::GiveUp)));
    }

    /// Hangs up every call that is held, so many a second.
    pub(crate) fn hang_up_all(&mut self, now: Instant, rate: f64) {
        let active = self.calls.iter().filter(|(_, call)| matches!(call.state, State::Active(_)));
        for (index, (&id, _)) in active.enumerate() {
            let at = now + Duration::from_secs_f64(index as f64 / rate);
            self.due.push(Reverse((at, id, Due::HangUp)));
        }
    }

    /// Forgets calls of which nothing has come; they count as unanswered.
    pub(crate) fn abandon(&mut self) {
        for (_, call) in self.calls.drain() {
            let tally = &mut self.tallies[call.phase];
            tally.unanswered += 1;
            tally.last_failed = tally.last_failed.max(Some(call.begun));
        }
        self.due.clear();
    }

    /// When [`Caller::on_time`] wants to be called.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// Does what is due.
    pub(crate) fn on_time(&mut self, now: Instant, send: &mut dyn FnMut(&[u8])) {
        while self.next_due().is_some_and(|at| at <= now) {
            let Some(Reverse((_, id, due))) = self.due.pop() else { return };
            let Some(call) = self.calls.get_mut(&id) else { continue };
            let tally = &mut self.tallies[call.phase];
            // RFC 3261 17.1.1.2, 17.1.2.2: the interval doubles.
            let later = |count: u32| now + T1 * 2_u32.pow(count.min(3));
            match (due, &call.state) {
                (Due::Invite(count), State::Inviting { heard: false }) => {
                    tally.own_repeats += 1;
                    send(invite(id, &call.number, self.own, self.peer).as_bytes());
                    self.due.push(Reverse((later(count), id, Due::Invite(count + 1))));
                }
                (Due::HangUp, State::Active(dialog)) => {
                    send(in_dialog("BYE", dialog, self.own).as_bytes());
                    call.state = State::Ending(dialog.clone());
                    self.due.push(Reverse((now + T1, id, Due::Bye(1))));
                    self.due.push(Reverse((now + PATIENCE, id, Due::GiveUpBye)));
                }
                (Due::Bye(count), State::Ending(dialog)) => {
                    tally.own_repeats += 1;
                    send(in_dialog("BYE", dialog, self.own).as_bytes());
                    self.due.push(Reverse((later(count), id, Due::Bye(count + 1))));
                }
                (Due::GiveUp, State::Inviting { .. }) => {
                    tally.unanswered += 1;
                    self.fail(id);
                }
                (Due::GiveUpBye, State::Ending(_)) => {
                    tally.cut += 1;
                    self.fail(id);
                }
                _ => {}
            }
        }
    }

    /// Takes a message in.
    pub(crate) fn receive(&mut self, bytes: &[u8], now: Instant, send: &mut dyn FnMut(&[u8])) {
        let Some(message) = Message::parse(bytes) else { return };
        match message.start {
            Start::Request(method) => self.requested(method, &message, send),
            Start::Response(status) => match message.method() {
                Some("INVITE") => self.invited(status, &message, now, send),
                Some("BYE") if status >= 200 => self.ended(status, &message),
                _ => {}
            },
        }
    }

    /// A request of the other side: whatever it is, it is well; a BYE cuts the call short.
    fn requested(&mut self, method: &str, message: &Message, send: &mut dyn FnMut(&[u8])) {
        if method == "ACK" {
            return;
        }
        if let Some(text) = message::response(message, "200 OK", self.own, None) {
            send(text.as_bytes());
        }
        if let Some(id) = message.call().filter(|_| method == "BYE")
            && let Some(call) = self.calls.get(&id)
            && matches!(call.state, State::Active(_))
        {
            self.tallies[call.phase].cut += 1;
            self.fail(id);
        }
    }

    fn invited(&mut self, status: u16, message: &Message, now: Instant, send: &mut dyn FnMut(&[u8])) {
        let Some(id) = message.call() else { return };
        let Some(call) = self.calls.get_mut(&id) else { return self.stray(status, id, message, send) };
        let tally = &mut self.tallies[call.phase];
        let elapsed = 1000.0 * now.saturating_duration_since(call.begun).as_secs_f64();
        let State::Inviting { heard } = &mut call.state else {
            if status >= 200 {
                tally.repeated += 1;
                self.stray(status, id, message, send);
            }
            return;
        };
        match status {
            100..200 => {
                if !*heard {
                    tally.trying.push(elapsed);
                }
                *heard = true;
            }
            200..300 => {
                let Some(dialog) = Dialog::of(message) else { return };
                send(in_dialog("ACK", &dialog, self.own).as_bytes());
                tally.answered += 1;
                tally.set_up.push(elapsed);
                self.answers += 1;
                if let Plan::Answered(hold) = call.plan {
                    self.due.push(Reverse((now + hold, id, Due::HangUp)));
                }
                call.state = State::Active(dialog);
            }
            _ => {
                if let Some(text) = ack_of_refusal(message, &call.number, self.peer) {
                    send(text.as_bytes());
                }
                if status == 503 {
                    tally.rejected.push(elapsed);
                }
                if call.plan == Plan::Refused(status) {
                    tally.completed += 1;
                    tally.set_up.push(elapsed);
                    self.completions += 1;
                    self.calls.remove(&id);
                } else {
                    *tally.refused.entry(status).or_default() += 1;
                    self.fail(id);
                }
            }
        }
    }

    /// A final answer that was acknowledged before, or to a call that was given up.
    fn stray(&mut self, status: u16, id: u64, message: &Message, send: &mut dyn FnMut(&[u8])) {
        if status >= 300 {
            // Its INVITE is over; the number counts for nothing in the acknowledgement of a repetition.
            let number = Plan::Held.number(id);
            if let Some(text) = ack_of_refusal(message, &number, self.peer) {
                send(text.as_bytes());
            }
            if let Some(tally) = self.tallies.last_mut().filter(|_| !self.calls.contains_key(&id)) {
                tally.repeated += 1;
            }
        } else if status >= 200
            && let Some(dialog) = Dialog::of(message)
        {
            send(in_dialog("ACK", &dialog, self.own).as_bytes());
            // RFC 3261 15: a call that nobody waits for any more is ended.
            if !self.calls.contains_key(&id) {
                send(in_dialog("BYE", &dialog, self.own).as_bytes());
            }
        }
    }

    fn ended(&mut self, status: u16, message: &Message) {
        let Some(id) = message.call() else { return };
        let Some(call) = self.calls.get(&id).filter(|call| matches!(call.state, State::Ending(_))) else {
            return;
        };
        let tally = &mut self.tallies[call.phase];
        if status == 200 {
            tally.completed += 1;
            self.completions += 1;
            self.calls.remove(&id);
        } else {
            tally.cut += 1;
            self.fail(id);
        }
    }

    fn fail(&mut self, id: u64) {
        if let Some(call) = self.calls.remove(&id) {
            let last = &mut self.tallies[call.phase].last_failed;
            *last = (*last).max(Some(call.begun));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const HOLD: Duration = Duration::from_millis(300);

    fn address(last: u8) -> SocketAddrV4 {
        SocketAddrV4::new([127, 0, 0, last].into(), 5060)
    }

    /// A caller, what it sent, and the time.
    struct Bench {
        caller: Caller,
        sent: Vec<String>,
        now: Instant,
    }

    impl Bench {
        /// With one call begun.
        fn calling(plan: Plan) -> Self {
            let caller = Caller::new(address(1), address(2));
            let mut bench = Self { caller, sent: Vec::new(), now: Instant::now() };
            let sent = &mut bench.sent;
            bench.caller.begin(plan, bench.now, &mut |bytes| sent.push(text(bytes)));
            bench
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
            let sent = &mut self.sent;
            self.caller.on_time(self.now, &mut |bytes| sent.push(text(bytes)));
        }

        /// The other side answers a request that was sent.
        fn answer(&mut self, request: usize, status: &str) {
            let request = self.sent[request].clone();
            let request = Message::parse(request.as_bytes()).unwrap();
            self.take(&message::response(&request, status, address(2), None).unwrap());
        }

        fn take(&mut self, message: &str) {
            let sent = &mut self.sent;
            self.caller.receive(message.as_bytes(), self.now, &mut |bytes| sent.push(text(bytes)));
        }

        fn methods(&self) -> Vec<&str> {
            self.sent.iter().map(|text| text.split(' ').next().unwrap()).collect()
        }

        fn tally(&self) -> &Tally {
            self.caller.tally(0)
        }
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_call_is_held_hung_up_and_counted_once() {
        let mut bench = Bench::calling(Plan::Answered(HOLD));
        bench.pass(Duration::from_millis(2));
        bench.answer(0, "100 Trying");
        bench.answer(0, "180 Ringing");
        bench.pass(Duration::from_millis(3));
        bench.answer(0, "200 OK");
        bench.pass(HOLD);
        assert_eq!(bench.methods(), ["INVITE", "ACK", "BYE"]);
        bench.answer(2, "200 OK");
        bench.answer(2, "200 OK");
        let tally = bench.tally();
        assert_eq!((tally.begun, tally.answered, tally.completed, tally.failed()), (1, 1, 1, 0));
        assert_eq!((tally.trying.len(), tally.set_up.len()), (1, 1));
        assert!((tally.trying[0] - 2.0).abs() < 1e-6 && (tally.set_up[0] - 5.0).abs() < 1e-6);
        assert_eq!((bench.caller.open(), bench.caller.counts()), (0, (1, 1)));
    }

    // RFC 3261 17.1.1.2: again after T1, 2 T1, 4 T1; not any more once something has come.
    #[test]
    fn an_invite_is_said_again_until_something_is_heard() {
        let mut bench = Bench::calling(Plan::Held);
        for (wait, sent) in [(1, 2), (1, 2), (1, 3), (4, 4)] {
            bench.pass(T1 * wait);
            assert_eq!(bench.sent.len(), sent);
        }
        assert!(bench.sent.iter().all(|text| *text == bench.sent[0]));
        bench.answer(0, "100 Trying");
        bench.pass(T1 * 8);
        assert_eq!((bench.sent.len(), bench.tally().own_repeats), (4, 3));
    }

    // RFC 3261 17.1.1.3, 13.2.2.4.
    #[test]
    fn final_answers_that_come_again_are_acknowledged_again_and_counted() {
        let mut answered = Bench::calling(Plan::Held);
        answered.answer(0, "200 OK");
        answered.answer(0, "200 OK");
        assert_eq!(answered.methods(), ["INVITE", "ACK", "ACK"]);
        assert_eq!((answered.tally().answered, answered.tally().repeated), (1, 1));
        let mut refused = Bench::calling(Plan::Refused(404));
        refused.answer(0, "404 Not Found");
        refused.answer(0, "404 Not Found");
        assert_eq!(refused.methods(), ["INVITE", "ACK", "ACK"]);
        assert_eq!((refused.tally().completed, refused.tally().repeated), (1, 1));
    }

    #[test]
    fn a_refusal_that_was_not_planned_fails_the_call() {
        let mut bench = Bench::calling(Plan::Answered(HOLD));
        bench.pass(Duration::from_millis(7));
        bench.answer(0, "503 Service Unavailable");
        let tally = bench.tally();
        assert_eq!((tally.failed(), tally.refused.get(&503)), (1, Some(&1)));
        assert!((tally.rejected[0] - 7.0).abs() < 1e-6 && tally.last_failed.is_some());
        let mut bench = Bench::calling(Plan::Refused(404));
        bench.answer(0, "480 Temporarily Unavailable");
        assert_eq!((bench.tally().failed(), bench.tally().completed), (1, 0));
    }

    #[test]
    fn what_is_answered_after_it_was_given_up_is_ended() {
        let mut bench = Bench::calling(Plan::Held);
        bench.answer(0, "100 Trying");
        bench.pass(PATIENCE);
        assert_eq!((bench.tally().unanswered, bench.caller.open()), (1, 0));
        bench.answer(0, "200 OK");
        assert_eq!(bench.methods(), ["INVITE", "ACK", "BYE"]);
        assert_eq!((bench.tally().answered, bench.tally().failed()), (0, 1));
    }

    #[test]
    fn a_call_that_the_other_side_ends_is_cut_short() {
        let mut bench = Bench::calling(Plan::Held);
        bench.answer(0, "200 OK");
        let bye = bench.sent[1].replace("ACK", "BYE");
        bench.take(&bye);
        assert!(bench.sent[2].starts_with("SIP/2.0 200 OK\r\n"), "{}", bench.sent[2]);
        assert_eq!((bench.tally().cut, bench.caller.open()), (1, 0));
    }

    #[test]
    fn held_calls_are_ended_at_the_rate_asked_for() {
        let mut bench = Bench::calling(Plan::Held);
        bench.answer(0, "200 OK");
        bench.pass(PATIENCE * 3);
        assert_eq!(bench.caller.open(), 1);
        bench.caller.hang_up_all(bench.now, 10.0);
        bench.pass(Duration::ZERO);
        assert_eq!(bench.methods(), ["INVITE", "ACK", "BYE"]);
        bench.pass(PATIENCE);
        assert_eq!((bench.tally().cut, bench.caller.open()), (1, 0));
    }

    #[test]
    fn phases_are_counted_apart() {
        let mut bench = Bench::calling(Plan::Held);
        let phase = bench.caller.begin_phase();
        bench.caller.begin(Plan::Held, bench.now, &mut |_| {});
        bench.answer(0, "486 Busy Here");
        bench.caller.abandon();
        assert_eq!(bench.tally().failed(), 1);
        assert_eq!((bench.caller.tally(phase).begun, bench.caller.tally(phase).unanswered), (1, 1));
    }
}
