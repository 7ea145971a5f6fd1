//! Row F14: T.38 between two trunks (ITU-T T.38 annex D).

use call_model::{ImageAttributes, ImageMedia};

use super::*;

/// What a far side says of its facsimile.
fn image(udptl: &str, attributes: &[&str]) -> Box<ImageMedia> {
    let mut kept = ImageAttributes::default();
    for attribute in attributes {
        let (name, value) = attribute.split_once(':').unwrap();
        assert!(kept.push(name, Some(value)));
    }
    Box::new(ImageMedia { remote_udptl: udptl.parse().unwrap(), attributes: kept })
}

fn asked() -> Box<ImageMedia> {
    image("127.0.0.10:30000", &["T38FaxVersion:0", "T38FaxUdpEC:t38UDPRedundancy"])
}

fn agreed() -> Box<ImageMedia> {
    image("127.0.0.11:40000", &["T38FaxVersion:0", "T38FaxUdpEC:t38UDPFEC"])
}

impl Bench {
    /// What was said of T.38 since the last time: to which leg, and with which attributes.
    fn told_of_images(&mut self) -> Vec<(CallId, &'static str, Option<String>)> {
        let text = |attributes: Option<Box<ImageAttributes>>| {
            attributes.map(|attributes| attributes.iter().collect::<Vec<_>>().join(" "))
        };
        let told = std::mem::take(&mut self.actions).into_iter().filter_map(|action| match action {
            Action::Sip(Command::TakeImages { call, on: true }) => Some((call, "take", None)),
            Action::Sip(Command::OfferImage { call, attributes }) => Some((call, "offer", text(attributes))),
            Action::Sip(Command::AnswerImage { call, attributes }) => {
                Some((call, "answer", text(attributes)))
            }
            Action::Media(MediaCommand::TrunkImage { call, side, image }) => {
                let side = if side == Side::Trunk { "trunk" } else { "onward" };
                Some((call, side, Some(image.remote_udptl.to_string())))
            }
            Action::Media(MediaCommand::TrunkMedia { call, side, media, .. }) => {
                let side = if side == Side::Trunk { "trunk voice" } else { "onward voice" };
                Some((call, side, Some(media.remote_rtp.to_string())))
            }
            _ => None,
        });
        told.collect()
    }

    /// The far side of one leg has offered T.38, and that of the other taken it.
    fn carrying(&mut self, from: CallId, to: CallId) {
        self.sip(Event::ImageOffered { call: from, image: asked() });
        self.sip(Event::Image { call: to, image: Some(agreed()) });
        self.sip(Event::Image { call: from, image: Some(asked()) });
        self.actions.clear();
    }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

const ASKED: &str = "T38FaxVersion:0 T38FaxUdpEC:t38UDPRedundancy";
const AGREED: &str = "T38FaxVersion:0 T38FaxUdpEC:t38UDPFEC";

#[test]
fn f14_both_legs_may_offer_t38_once_the_call_is_answered() {
    let mut bench = transit();
    let call = bench.trunk_calls(FAR);
    bench.relay_opened(call);
    let (onward, _) = bench.placed();
    bench.sip(Event::Media {
        call: onward,
        media: leg_media(Direction::SendRecv),
        early: true,
        signalling: SIGNALLING,
    });
    assert!(bench.told_of_images().iter().all(|(_, what, _)| *what != "take"));
    bench.sip(Event::Answered { call: onward });
    assert_eq!(bench.told_of_images(), [(call, "take", None), (onward, "take", None)]);
    // A call with an overlay user stays G.711: the endpoint refuses by itself (row F13).
    let mut bench = Bench::new(|_| {});
    let call = answered_outgoing(&mut bench);
    assert!(bench.told_of_images().iter().all(|(_, what, _)| *what != "take"));
    bench.sip(Event::ImageOffered { call, image: asked() });
    assert_eq!(bench.told_of_images(), [(call, "answer", None)]);
}

#[test]
fn f14_an_offer_of_t38_goes_over_and_the_answer_comes_back_whichever_side_asks() {
    for caller_asks in [true, false] {
        let mut bench = transit();
        let (call, onward) = bench.answered_transit();
        let (from, to) = if caller_asks { (call, onward) } else { (onward, call) };
        let (side, other) = if caller_asks { ("trunk", "onward") } else { ("onward", "trunk") };
        bench.sip(Event::ImageOffered { call: from, image: asked() });
        assert_eq!(bench.told_of_images(), [(to, "offer", some(ASKED))]);
        bench.sip(Event::Image { call: to, image: Some(agreed()) });
        let answer = (from, "answer", some(AGREED));
        assert_eq!(bench.told_of_images(), [(call, other, some("127.0.0.11:40000")), answer]);
        bench.sip(Event::Image { call: from, image: Some(asked()) });
        assert_eq!(bench.told_of_images(), [(call, side, some("127.0.0.10:30000"))]);
        // A far side may move.
        bench.sip(Event::Image { call: to, image: Some(image("127.0.0.11:40002", &[])) });
        assert_eq!(bench.told_of_images(), [(call, other, some("127.0.0.11:40002"))]);
        let said = |bench: &Bench| {
            let record = bench.switch.record(call).unwrap();
            record.decisions.iter().filter(|step| &*step.detail == "T.38 on both trunks").count()
        };
        assert_eq!(said(&bench), 1);
        // Either may go back to audio, and the other follows.
        let back = Event::Media {
            call: from,
            media: leg_media(Direction::SendRecv),
            early: false,
            signalling: SIGNALLING,
        };
        bench.sip(back.clone());
        let told = bench.told_of_images();
        assert_eq!((told.len(), &told[1]), (2, &(to, "offer", None)));
        bench.sip(Event::Media {
            call: to,
            media: leg_media(Direction::SendRecv),
            early: false,
            signalling: SIGNALLING,
        });
        assert_eq!(bench.told_of_images().len(), 1, "that is all");
        bench.carrying(from, to);
        assert_eq!(said(&bench), 1, "once is enough");
    }
}

#[test]
fn f14_a_refusal_and_a_withdrawal_go_over_too() {
    let mut bench = transit();
    let (call, onward) = bench.answered_transit();
    bench.sip(Event::ImageOffered { call, image: asked() });
    bench.actions.clear();
    // A second one finds the first under way.
    bench.sip(Event::ImageOffered { call: onward, image: agreed() });
    assert_eq!(bench.told_of_images(), [(onward, "answer", None)]);
    bench.sip(Event::Image { call: onward, image: None });
    assert_eq!(bench.told_of_images(), [(call, "answer", None)]);
    bench.sip(Event::ImageOffered { call, image: asked() });
    bench.actions.clear();
    bench.sip(Event::ImageWithdrawn { call });
    assert_eq!(bench.told_of_images(), [(onward, "offer", None)]);
    // The answer came too late: nobody waits for it, and audio follows it.
    bench.sip(Event::Image { call: onward, image: Some(agreed()) });
    assert_eq!(bench.told_of_images(), [(call, "onward", some("127.0.0.11:40000"))]);
    bench.sip(Event::Media {
        call: onward,
        media: leg_media(Direction::SendRecv),
        early: false,
        signalling: SIGNALLING,
    });
    assert_eq!(bench.told_of_images().len(), 1);
    // Of a call that is over nobody is told anything.
    bench.sip_ended(call, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Far);
    bench.actions.clear();
    bench.sip(Event::Image { call: onward, image: Some(agreed()) });
    assert!(bench.told_of_images().is_empty());
}

#[test]
fn f14_a_hold_that_ends_a_facsimile_is_a_hold() {
    let mut bench = transit();
    let (call, onward) = bench.answered_transit();
    bench.carrying(call, onward);
    bench.sip(Event::Media {
        call,
        media: leg_media(Direction::RecvOnly),
        early: false,
        signalling: SIGNALLING,
    });
    assert_eq!(bench.told_sip(), [(onward, "hold")]);
    assert_eq!(bench.told_of_images().last(), Some(&(onward, "offer", None)));
}
