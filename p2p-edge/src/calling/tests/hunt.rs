use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use call_model::Cause;

use super::{invite, token};
use crate::calling::*;

const S: Duration = Duration::from_secs(1);

/// A hunt and the devices it calls, joined without latency.
struct Scene {
    now: Instant,
    hunt: Hunt,
    devices: BTreeMap<DeviceId, CallSession>,
    events: Vec<SessionEvent>,
}

impl Scene {
    fn new(devices: u32) -> Self {
        let now = Instant::now();
        let hunt = Hunt::new(invite().call, SessionTimers::default().with_ringing(60 * S), now);
        let mut scene = Self { now, hunt, devices: BTreeMap::new(), events: Vec::new() };
        for n in 0..devices {
            assert!(scene.hunt.add(DeviceId(n)));
        }
        scene
    }

    /// Devices with all streams open and the invite acknowledged.
    fn connected(devices: u32) -> Self {
        let mut scene = Self::new(devices);
        scene.hunt.no_more(scene.now);
        for n in 0..devices {
            assert_eq!(scene.connect(n), Ok(true));
        }
        scene.run();
        scene
    }

    fn connect(&mut self, n: u32) -> Result<bool, CommandError> {
        self.hunt.connected(self.now, DeviceId(n), invite(), token(n as u8))
    }

    fn run(&mut self) {
        loop {
            let mut quiet = true;
            while let Some((device, bytes)) = self.hunt.poll_transmit() {
                quiet = false;
                if let Some(session) = self.devices.get_mut(&device) {
                    session.handle_bytes(self.now, &bytes);
                } else {
                    let frame = FrameDecoder::new().feed(&mut &bytes[..]).unwrap().unwrap();
                    let session = CallSession::incoming(frame, SessionTimers::default(), self.now).unwrap();
                    self.devices.insert(device, session);
                }
            }
            for (device, session) in &mut self.devices {
                while let Some(bytes) = session.poll_transmit() {
                    quiet = false;
                    self.hunt.handle_bytes(self.now, *device, &bytes);
                }
            }
            if quiet {
                break;
            }
        }
        let events = std::iter::from_fn(|| self.hunt.poll_event());
        self.events.extend(events.filter(|event| !matches!(event, SessionEvent::Exchange(_))));
    }

    fn device(&mut self, n: u32, command: SessionCommand) {
        self.devices.get_mut(&DeviceId(n)).unwrap().handle_command(self.now, command).unwrap();
        self.run();
    }

    fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(at) = self.hunt.poll_timeout().filter(|at| *at <= until) {
            self.now = at;
            self.hunt.handle_timeout(at);
            self.run();
        }
        self.now = until;
    }

    fn device_end(&mut self, n: u32) -> Option<(Cause, EndedBy)> {
        let session = self.devices.get_mut(&DeviceId(n)).unwrap();
        std::iter::from_fn(|| session.poll_event()).find_map(|event| match event {
            SessionEvent::Ended { cause, by, .. } => Some((cause, by)),
            _ => None,
        })
    }

    #[track_caller]
    fn assert_ended(&self, expected: Cause, status: Option<u16>) {
        let ends: Vec<_> = self.events.iter().filter(|e| matches!(e, SessionEvent::Ended { .. })).collect();
        let [SessionEvent::Ended { cause, sip_status, .. }] = ends[..] else { panic!("{:?}", self.events) };
        assert_eq!((*cause, *sip_status), (expected, status));
        assert!(matches!(self.events.last(), Some(SessionEvent::Ended { .. })));
    }
}

fn reject(cause: Cause, sip_status: u16) -> SessionCommand {
    SessionCommand::Reject { cause, sip_status: Some(sip_status), text: String::new() }
}

fn answer(n: u32) -> SessionCommand {
    SessionCommand::Answer { media: format!("answer {n}") }
}

#[test]
fn all_ring_and_the_first_answer_wins() {
    let mut scene = Scene::connected(3);
    for n in 0..3 {
        scene.device(n, SessionCommand::Ringing);
    }
    scene.device(1, answer(1));
    assert_eq!(scene.events, [SessionEvent::Ringing, SessionEvent::Answered { media: "answer 1".into() }]);
    assert_eq!(scene.hunt.winner(), Some(DeviceId(1)));
    for loser in [0, 2] {
        assert_eq!(scene.device_end(loser), Some((Cause::NON_SELECTED_USER_CLEARING, EndedBy::Far)));
        assert!(scene.hunt.is_device_finished(DeviceId(loser)));
    }
    scene.hunt.handle_command(scene.now, SessionCommand::MediaUp).unwrap();
    scene.device(1, SessionCommand::MediaUp);
    scene.advance(100 * S);
    scene
        .hunt
        .handle_command(
            scene.now,
            SessionCommand::Bye { cause: Cause::NORMAL_CALL_CLEARING, text: String::new() },
        )
        .unwrap();
    scene.run();
    scene.assert_ended(Cause::NORMAL_CALL_CLEARING, None);
    assert_eq!(scene.device_end(1), Some((Cause::NORMAL_CALL_CLEARING, EndedBy::Far)));
    assert!(scene.hunt.is_finished());
}

#[test]
fn of_two_answers_at_once_one_is_taken_and_the_other_hung_up() {
    let mut scene = Scene::connected(2);
    for n in [0, 1] {
        scene.devices.get_mut(&DeviceId(n)).unwrap().handle_command(scene.now, answer(n)).unwrap();
    }
    scene.run();
    assert_eq!(scene.hunt.winner(), Some(DeviceId(0)));
    assert_eq!(scene.device_end(1), Some((Cause::NON_SELECTED_USER_CLEARING, EndedBy::Far)));
    assert_eq!(scene.device_end(0), None);
    assert_eq!(scene.events, [SessionEvent::Answered { media: "answer 0".into() }]);
}

#[test]
fn when_all_reject_the_most_telling_cause_is_reported() {
    let mut scene = Scene::connected(3);
    scene.device(0, reject(Cause::NO_ANSWER_FROM_USER, 480));
    scene.device(1, reject(Cause::USER_BUSY, 486));
    assert_eq!(scene.events, []);
    scene.device(2, reject(Cause::INCOMPATIBLE_DESTINATION, 488));
    scene.assert_ended(Cause::USER_BUSY, Some(486));
    assert!(scene.hunt.is_finished());
}

#[test]
fn a_refusal_that_speaks_for_the_user_ends_the_hunt() {
    let mut scene = Scene::connected(2);
    scene.device(0, SessionCommand::Ringing);
    scene.device(1, reject(Cause::CALL_REJECTED, 603));
    scene.assert_ended(Cause::CALL_REJECTED, Some(603));
    assert_eq!(scene.device_end(0).unwrap().1, EndedBy::Far);
}

#[test]
fn nothing_reachable_in_six_seconds_is_an_absent_subscriber() {
    let mut scene = Scene::new(2);
    scene.advance(5 * S);
    assert_eq!(scene.events, []);
    scene.advance(2 * S);
    scene.assert_ended(Cause::SUBSCRIBER_ABSENT, Some(480));
    assert_eq!(scene.connect(0), Ok(false), "a stream that opens too late is not used");
    assert!(scene.hunt.is_finished());
}

#[test]
fn a_hunt_without_devices_or_whose_dials_all_fail_ends_at_once() {
    let mut scene = Scene::new(0);
    scene.hunt.no_more(scene.now);
    scene.run();
    scene.assert_ended(Cause::SUBSCRIBER_ABSENT, Some(480));

    let mut scene = Scene::new(2);
    scene.hunt.no_more(scene.now);
    scene.hunt.failed(scene.now, DeviceId(0));
    scene.run();
    assert_eq!(scene.events, []);
    scene.hunt.failed(scene.now, DeviceId(1));
    scene.run();
    scene.assert_ended(Cause::SUBSCRIBER_ABSENT, Some(480));
}

#[test]
fn a_stream_lost_before_the_acknowledgement_is_an_absent_device_not_an_end() {
    let mut scene = Scene::new(2);
    scene.hunt.no_more(scene.now);
    scene.connect(0).unwrap();
    scene.hunt.handle_closed(scene.now, DeviceId(0));
    scene.connect(1).unwrap();
    scene.run();
    scene.device(1, answer(1));
    assert_eq!(scene.events, [SessionEvent::Answered { media: "answer 1".into() }]);
}

#[test]
fn the_look_up_may_name_the_reason() {
    let mut scene = Scene::new(0);
    scene.hunt.abandon(scene.now, Cause::UNALLOCATED_NUMBER, Some(404), "no such number");
    scene.run();
    scene.assert_ended(Cause::UNALLOCATED_NUMBER, Some(404));
}

#[test]
fn no_answer_anywhere_ends_by_policy() {
    let mut scene = Scene::connected(2);
    scene.device(0, SessionCommand::Ringing);
    scene.advance(61 * S);
    scene.assert_ended(Cause::NO_ANSWER_FROM_USER, Some(480));
    assert_eq!(scene.device_end(0).unwrap().1, EndedBy::Far);
    assert!(scene.hunt.is_finished());
}

#[test]
fn early_media_is_passed_on_from_a_single_device_only() {
    let progress = || SessionCommand::Progress { media: "early".into() };
    let mut scene = Scene::connected(2);
    scene.device(0, progress());
    assert_eq!(scene.events, [SessionEvent::Ringing]);

    let mut scene = Scene::connected(1);
    scene.device(0, progress());
    assert_eq!(scene.events, [SessionEvent::Progress { media: "early".into() }]);
    assert!(!scene.hunt.add(DeviceId(9)), "media is keyed to the first device");
    scene.hunt.handle_command(scene.now, SessionCommand::MediaUp).unwrap();
    scene.device(0, answer(0));
    let state = scene.hunt.session(DeviceId(0)).unwrap().state();
    assert_eq!(state, SessionState::Active);
}

#[test]
fn a_caller_who_gives_up_cancels_every_device() {
    let mut scene = Scene::connected(2);
    assert!(scene.hunt.add(DeviceId(5)));
    scene.device(0, SessionCommand::Ringing);
    scene.hunt.handle_command(scene.now, SessionCommand::Cancel { answered_elsewhere: false }).unwrap();
    scene.run();
    scene.assert_ended(Cause::NORMAL_CALL_CLEARING, Some(487));
    for n in [0, 1] {
        assert_eq!(scene.device_end(n), Some((Cause::NORMAL_CALL_CLEARING, EndedBy::Far)));
    }
    assert!(scene.hunt.is_device_finished(DeviceId(5)) && scene.hunt.is_finished());
    let again = scene.hunt.handle_command(scene.now, SessionCommand::MediaUp);
    assert_eq!(again, Err(CommandError::Ended));
}

#[test]
fn the_winner_can_be_put_on_another_stream() {
    let mut scene = Scene::connected(1);
    scene.device(0, answer(0));
    scene.hunt.handle_command(scene.now, SessionCommand::MediaUp).unwrap();
    scene.device(0, SessionCommand::MediaUp);
    scene.hunt.handle_closed(scene.now, DeviceId(0));
    assert_eq!(scene.hunt.wanting_resume().collect::<Vec<_>>(), [DeviceId(0)]);
    assert!(scene.hunt.resume(scene.now, DeviceId(0)));
    let (_, bytes) = scene.hunt.poll_transmit().unwrap();
    let frame = FrameDecoder::new().feed(&mut &bytes[..]).unwrap().unwrap();
    scene.devices.get_mut(&DeviceId(0)).unwrap().reattach(scene.now, &frame).unwrap();
    scene.run();
    scene.device(0, SessionCommand::Message { text: "still here".into() });
    assert_eq!(scene.events.last(), Some(&SessionEvent::Message { text: "still here".into() }));
    assert_eq!(scene.hunt.wanting_resume().count(), 0);
}

#[test]
fn a_device_that_gives_up_before_it_rings_may_be_replaced() {
    // Congestion and 503 are about the device; a busy user, a refusal and what comes after ringing are not.
    let cases = [
        (reject(Cause::SWITCHING_EQUIPMENT_CONGESTION, 503), false, true),
        (reject(Cause::NORMAL_UNSPECIFIED, 503), false, true),
        (reject(Cause::SWITCHING_EQUIPMENT_CONGESTION, 503), true, false),
        (reject(Cause::USER_BUSY, 486), false, false),
        (reject(Cause::CALL_REJECTED, 403), false, false),
    ];
    for (refusal, rings, replaced) in cases {
        let mut scene = Scene::new(1);
        scene.connect(0).unwrap();
        scene.run();
        assert!(scene.hunt.is_device_alive(DeviceId(0)) && !scene.hunt.may_be_replaced(DeviceId(0)));
        if rings {
            scene.device(0, SessionCommand::Ringing);
        }
        assert_eq!(scene.hunt.has_alerted(DeviceId(0)), rings);
        scene.device(0, refusal.clone());
        assert!(!scene.hunt.is_device_alive(DeviceId(0)));
        assert_eq!(scene.hunt.may_be_replaced(DeviceId(0)), replaced, "{refusal:?} {rings}");
    }
    // One that does not even acknowledge.
    let mut scene = Scene::new(1);
    scene.connect(0).unwrap();
    scene.advance(5 * S);
    assert!(scene.hunt.may_be_replaced(DeviceId(0)));
}

#[test]
fn a_device_that_dies_while_it_rings_may_be_replaced() {
    for rings in [false, true] {
        let mut scene = Scene::new(1);
        scene.connect(0).unwrap();
        scene.run();
        if rings {
            scene.device(0, SessionCommand::Ringing);
        }
        scene.hunt.handle_closed(scene.now, DeviceId(0));
        scene.run();
        // It may come back until then.
        assert!(!scene.hunt.may_be_replaced(DeviceId(0)), "rings {rings}");
        scene.advance(SessionTimers::default().resume + S);
        assert!(scene.hunt.may_be_replaced(DeviceId(0)), "rings {rings}");
        assert!(!scene.hunt.has_ended() && scene.hunt.add(DeviceId(1)));
        scene.connect(1).unwrap();
        scene.run();
        scene.device(1, SessionCommand::Ringing);
        scene.device(1, answer(1));
        assert_eq!(scene.hunt.winner(), Some(DeviceId(1)));
    }
}

#[test]
fn early_media_of_the_device_that_replaced_another_is_passed_on() {
    let mut scene = Scene::new(1);
    scene.connect(0).unwrap();
    scene.run();
    scene.device(0, reject(Cause::SWITCHING_EQUIPMENT_CONGESTION, 503));
    assert!(scene.hunt.add(DeviceId(1)));
    scene.connect(1).unwrap();
    scene.run();
    scene.device(1, SessionCommand::Progress { media: "early".into() });
    assert_eq!(scene.events, [SessionEvent::Progress { media: "early".into() }]);
}

#[test]
fn what_keeps_a_device_from_being_asked_is_said() {
    let mut scene = Scene::new(1);
    scene.hunt.no_more(scene.now);
    let cause = Cause::SWITCHING_EQUIPMENT_CONGESTION;
    scene.hunt.refused(scene.now, DeviceId(0), cause, 503, "no more than 9");
    scene.run();
    scene.assert_ended(cause, Some(503));
    assert!(scene.hunt.may_be_replaced(DeviceId(0)));
}

#[test]
fn one_that_is_tried_in_the_place_of_another_has_the_same_time() {
    let mut scene = Scene::new(1);
    scene.advance(5 * S);
    scene.hunt.failed(scene.now, DeviceId(0));
    assert!(scene.hunt.add(DeviceId(1)));
    scene.hunt.reach_anew(scene.now);
    scene.advance(3 * S);
    assert!(!scene.hunt.has_ended(), "8 s after the beginning");
    scene.advance(2 * S);
    scene.assert_ended(Cause::SUBSCRIBER_ABSENT, Some(480));
}

#[test]
fn a_device_that_is_lost_while_it_rings_makes_room_within_the_time_given() {
    let mut scene = Scene::connected(1);
    scene.device(0, SessionCommand::Ringing);
    scene.hunt.handle_closed(scene.now, DeviceId(0));
    assert_eq!(scene.hunt.wanting_resume().collect::<Vec<_>>(), [DeviceId(0)]);
    let by = scene.now + S;
    scene.hunt.resume_by(scene.now, DeviceId(0), by);
    assert_eq!(scene.hunt.poll_timeout(), Some(by));
    scene.hunt.give_up(scene.now, DeviceId(0));
    assert!(scene.hunt.may_be_replaced(DeviceId(0)));
}
