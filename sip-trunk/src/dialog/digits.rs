//! Digits in INFO, both ways: `application/dtmf-relay` and `application/dtmf`. Neither was ever
//! standardised; peers are read as they write.

use std::collections::VecDeque;

use call_model::DtmfDigit;

use super::call::{Call, Phase};
use crate::endpoint::api::{CommandError, Event};
use crate::endpoint::core::Core;
use crate::transaction::client::{ClientKey, Outcome, Upcall};
use crate::trunk::InfoDigits;
use crate::wire::message::{Method, Name, Request};

/// The most digits of a call that wait for the one before them.
const QUEUE_MAX: usize = 32;
/// What a digit without a duration is taken for, in milliseconds.
const USUAL_MS: u16 = 250;
/// Hook flash, in event code (RFC 4733 3.2) and as some write it.
const FLASH: [&str; 4] = ["16", "flash", "hf", "!"];

/// The digits of a call that go out by INFO: one at a time, so that they keep their order.
#[derive(Debug, Default)]
pub(super) struct Digits {
    queue: VecDeque<(DtmfDigit, u16)>,
    pending: Option<Pending>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    key: ClientKey,
    digit: DtmfDigit,
    duration_ms: u16,
}

impl Call {
    /// Carries out `Dtmf`.
    pub(crate) fn send_digit(
        &mut self,
        core: &mut Core,
        digit: DtmfDigit,
        duration_ms: u16,
    ) -> Result<(), CommandError> {
        let form = core.trunks.get(self.trunk).and_then(|trunk| trunk.config.info_digits);
        if form.is_none() || !matches!(self.phase, Phase::Confirmed) {
            return Err(CommandError::WrongState);
        }
        let digits = self.digits.get_or_insert_default();
        if digits.queue.len() >= QUEUE_MAX {
            core.io.counters.refuse("info_digits");
            return Err(CommandError::WrongState);
        }
        digits.queue.push_back((digit, duration_ms));
        self.send_next_digit(core);
        Ok(())
    }

    fn send_next_digit(&mut self, core: &mut Core) {
        let Some(digits) = self.digits.as_mut().filter(|digits| digits.pending.is_none()) else { return };
        let Some((digit, duration_ms)) = digits.queue.pop_front() else { return };
        self.challenges = 0;
        self.send_info(core, digit, duration_ms);
    }

    fn send_info(&mut self, core: &mut Core, digit: DtmfDigit, duration_ms: u16) {
        let form = core.trunks.get(self.trunk).and_then(|trunk| trunk.config.info_digits);
        let (kind, body) = match form.unwrap_or_default() {
            InfoDigits::Relay => {
                ("application/dtmf-relay", format!("Signal={digit}\r\nDuration={duration_ms}\r\n"))
            }
            InfoDigits::Plain => ("application/dtmf", digit.to_string()),
        };
        let key = self.send_request_with(core, Method::Info, Vec::new(), Some((kind, body.as_bytes())));
        if let Some(digits) = &mut self.digits {
            digits.pending = Some(Pending { key, digit, duration_ms });
        }
    }

    /// Says whether an INFO of ours is the one of a digit.
    pub(super) fn awaits_info(&self, key: ClientKey) -> bool {
        self.digits.as_ref().and_then(|digits| digits.pending).is_some_and(|pending| pending.key == key)
    }

    /// A digit was taken, or not: the next. One that is lost ends nothing.
    pub(super) fn on_info_outcome(&mut self, core: &mut Core, upcall: &Upcall) {
        if matches!(&upcall.outcome, Outcome::Response(response, _) if response.status < 200) {
            return;
        }
        let Some(pending) = self.digits.as_mut().and_then(|digits| digits.pending.take()) else { return };
        if !matches!(self.phase, Phase::Confirmed) {
            return;
        }
        if let Outcome::Response(response, source) = &upcall.outcome
            && matches!(response.status, 401 | 407)
            && self.take_challenge(core, response, *source)
        {
            return self.send_info(core, pending.digit, pending.duration_ms);
        }
        self.send_next_digit(core);
    }

    /// INFO with a digit, or without a body.
    pub(super) fn on_info(&mut self, core: &mut Core, request: &Request, server: u64) {
        if request.body.is_empty() {
            return self.reply(core, server, 200, Vec::new());
        }
        let kind = request.head.text(&Name::ContentType).unwrap_or_default().to_ascii_lowercase();
        let text = String::from_utf8_lossy(&request.body);
        let signal = match kind.split(';').next().unwrap_or("").trim() {
            "application/dtmf-relay" | "application/dtmf" => read(&text),
            _ => {
                let accept = "application/dtmf-relay, application/dtmf".to_owned();
                return self.reply(core, server, 415, vec![("Accept", accept)]);
            }
        };
        let Some(signal) = signal else { return self.reply(core, server, 400, Vec::new()) };
        self.reply(core, server, 200, Vec::new());
        if let Signal::Digit(digit, duration_ms) = signal {
            core.events.push_back(Event::Dtmf { call: self.id, digit, duration_ms });
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Digit(DtmfDigit, u16),
    /// Understood, and nothing to us.
    Flash,
}

/// Reads `Signal=5` and `Duration=160`, or the digit alone, whatever the type says: peers mix them up.
fn read(text: &str) -> Option<Signal> {
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(['=', ':'])?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let signal = value("signal").or_else(|| text.lines().map(str::trim).find(|line| !line.is_empty()))?;
    let signal = signal.trim_matches('"');
    if FLASH.iter().any(|flash| signal.eq_ignore_ascii_case(flash)) {
        return Some(Signal::Flash);
    }
    let mut characters = signal.chars();
    let digit = match (characters.next()?, characters.next()) {
        (digit, None) => DtmfDigit::from_char(digit)?,
        // Some write the event code for star, hash and A to D.
        _ => signal.parse().ok().filter(|event| *event >= 10).and_then(DtmfDigit::from_event)?,
    };
    let duration = value("duration").and_then(|d| d.parse::<u16>().ok()).filter(|&ms| ms > 0);
    Some(Signal::Digit(digit, duration.unwrap_or(USUAL_MS).clamp(40, 10_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f11_digits_are_read_as_peers_write_them() {
        let digit = |c: char, ms| DtmfDigit::from_char(c).map(|digit| Signal::Digit(digit, ms));
        for (text, expected) in [
            ("Signal=5\r\nDuration=160\r\n", digit('5', 160)),
            ("Signal= *\nDuration= 100", digit('*', 100)),
            ("signal = #\r\nduration = 0\r\n", digit('#', USUAL_MS)),
            ("Signal=11\r\nDuration=99999\r\n", digit('#', USUAL_MS)),
            ("Signal=12\r\nDuration=1\r\n", digit('A', 40)),
            ("Duration=200\r\nSignal=d\r\n", digit('D', 200)),
            ("Signal: 7\r\n", digit('7', USUAL_MS)),
            ("9", digit('9', USUAL_MS)),
            ("\r\n 0 \r\n", digit('0', USUAL_MS)),
            ("10", digit('*', USUAL_MS)),
            ("Signal=16\r\n", Some(Signal::Flash)),
            ("Signal=Flash", Some(Signal::Flash)),
            ("!", Some(Signal::Flash)),
            ("Signal=17", None),
            ("Signal=", None),
            ("Signal=x", None),
            ("55", None),
            ("", None),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }
}
