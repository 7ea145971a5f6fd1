//! Digits that come by two ways, and early media that is not let through.

use super::*;
use crate::config::{DigitForm, Sessions};

impl Bench {
    /// Digits that go out in media, and by INFO.
    fn sent_digits(&self) -> (String, String) {
        let (mut media, mut info) = (String::new(), String::new());
        for action in &self.actions {
            match action {
                Action::Media(MediaCommand::SendDtmf { digit, .. }) => media.push(digit.as_char()),
                Action::Sip(Command::Dtmf { digit, .. }) => info.push(digit.as_char()),
                _ => {}
            }
        }
        (media, info)
    }

    fn user_digits(&self) -> usize {
        let digit = |told: &&&SessionCommand| matches!(told, SessionCommand::Dtmf { .. });
        self.told_overlay().iter().filter(digit).count()
    }
}

fn digit(c: char) -> DtmfDigit {
    DtmfDigit::from_char(c).unwrap()
}

// RFC 4733 and INFO at once: one press is one digit.
#[test]
fn f11_a_digit_by_info_and_in_rtp_is_counted_once() {
    let mut bench = Bench::new(|_| {});
    let call = answered_outgoing(&mut bench);
    bench.actions.clear();
    let heard = |c, forwarded| MediaEvent::Dtmf {
        call,
        side: Side::Trunk,
        digit: digit(c),
        duration_ms: 100,
        forwarded,
    };
    bench.media(heard('5', true));
    bench.pass(30);
    bench.sip(Event::Dtmf { call, digit: digit('5'), duration_ms: 100 });
    assert_eq!(bench.sent_digits(), (String::new(), String::new()), "it went on in media already");
    assert_eq!(bench.switch.record(call).unwrap().dtmf_digits, 1);
    // The other way round, to a user without telephone events in RTP.
    bench.pass(500);
    bench.sip(Event::Dtmf { call, digit: digit('7'), duration_ms: 100 });
    assert_eq!(bench.sent_digits().0, "7");
    bench.media(MediaEvent::DtmfUnsent { call, side: Side::Overlay, digit: digit('7'), duration_ms: 100 });
    bench.media(heard('7', false));
    assert_eq!((bench.user_digits(), bench.switch.record(call).unwrap().dtmf_digits), (1, 2));
    // A second press of the same key counts.
    bench.pass(300);
    bench.media(heard('7', false));
    assert_eq!((bench.user_digits(), bench.switch.record(call).unwrap().dtmf_digits), (2, 3));
}

// RFC 6086: what media does not carry goes to the trunk by INFO, where it takes that.
#[test]
fn f11_digits_go_by_info_to_a_trunk_that_takes_them_so() {
    let mut bench = Bench::new(|config| {
        let dtmf = Some(DigitForm::Info(sip_trunk::InfoDigits::Relay));
        config.trunks[0].sessions = Sessions { dtmf, ..Sessions::default() };
    });
    let call = answered_outgoing(&mut bench);
    bench.actions.clear();
    bench.overlay(call, SessionEvent::Dtmf { digit: digit('1'), duration_ms: 100 });
    let side = Side::Overlay;
    bench.media(MediaEvent::Dtmf { call, side, digit: digit('2'), duration_ms: 100, forwarded: false });
    assert_eq!(bench.sent_digits(), (String::new(), "12".to_owned()));
    // A trunk that takes telephone events gets no INFO.
    let mut bench = Bench::new(|_| {});
    let call = answered_outgoing(&mut bench);
    bench.actions.clear();
    bench.overlay(call, SessionEvent::Dtmf { digit: digit('1'), duration_ms: 100 });
    bench.media(MediaEvent::DtmfUnsent { call, side: Side::Trunk, digit: digit('1'), duration_ms: 100 });
    assert_eq!(bench.sent_digits(), ("1".to_owned(), String::new()));
}

// RFC 5009 8: media that is not let through is no early media and no hold.
#[test]
fn c26_early_media_that_is_not_let_through_is_neither_told_nor_taken_for_hold() {
    let mut bench = Bench::new(|_| {});
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call);
    let early =
        |direction| Event::Media { call, media: leg_media(direction), early: true, signalling: SIGNALLING };
    for direction in [Direction::Inactive, Direction::SendOnly] {
        bench.sip(early(direction));
        let muted = |action: &Action| match action {
            Action::Media(MediaCommand::TrunkMedia { media, .. }) => media.direction == direction,
            _ => false,
        };
        assert!(bench.actions.iter().any(muted), "media is told the direction");
    }
    let told =
        |bench: &Bench| bench.told_overlay().iter().map(|told| format!("{told:?}")).collect::<String>();
    assert!(!told(&bench).contains("Progress"), "nothing would be heard");
    bench.sip(Event::Ringing { call });
    assert!(told(&bench).contains("Ringing"), "the caller plays a tone of its own");
    let mut open = Bench::new(|_| {});
    let call = open.overlay_calls(Some("alice"), NUMBER);
    open.opened(call);
    let early =
        |direction| Event::Media { call, media: leg_media(direction), early: true, signalling: SIGNALLING };
    open.sip(early(Direction::Inactive));
    open.sip(early(Direction::RecvOnly));
    assert!(told(&open).contains("Progress"), "it is let through now");
    open.sip(Event::Answered { call });
    open.sip(Event::Media {
        call,
        media: leg_media(Direction::SendRecv),
        early: false,
        signalling: SIGNALLING,
    });
    assert!(!told(&open).contains("Hold"), "{}", told(&open));
}
