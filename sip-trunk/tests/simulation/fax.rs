//! Row F14: T.38 between two trunks (ITU-T T.38 annex D, RFC 3362). The peer is the far side of two calls, and what
//! the switch does between them is done here.

use std::time::Duration;

use call_model::{CallId, Direction, ImageAttributes, ImageMedia};
use sip_trunk::sdp::Srtp;
use sip_trunk::{Command, CommandError, Event};

use crate::dialogs::{assert_clean, body, media_of, release};
use crate::net::address;
use crate::raw::{Ask, CONTACT, Lab, SDP, header, headers, reply, sdp, status};

/// What stands in an image line of the one side ...
const OURS: [&str; 8] = [
    "T38FaxVersion:0",
    "T38MaxBitRate:14400",
    "T38FaxFillBitRemoval",
    "T38FaxTranscodingMMR:0",
    "T38FaxRateManagement:transferredTCF",
    "T38FaxMaxBuffer:262",
    "T38FaxMaxDatagram:176",
    "T38FaxUdpEC:t38UDPRedundancy",
];
/// ... and of the other.
const THEIRS: [&str; 4] =
    ["T38FaxVersion:0", "T38FaxFillBitRemoval:0", "T38FaxUdpEC:t38UDPFEC", "T38VendorInfo:0 0 37"];

fn head(version: u32) -> String {
    format!("v=0\r\no=- 1 {version} IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\n")
}

fn image(port: u16, attributes: &[&str]) -> String {
    let lines: String = attributes.iter().map(|attribute| format!("a={attribute}\r\n")).collect();
    format!("m=image {port} udptl t38\r\n{lines}")
}

/// T.38 with the audio line not in use.
fn fax(version: u32, port: u16, attributes: &[&str]) -> String {
    head(version) + "m=audio 0 RTP/AVP 8\r\n" + &image(port, attributes)
}

fn m_lines(message: &str) -> Vec<&str> {
    body(message).lines().filter(|line| line.starts_with("m=")).collect()
}

/// The T.38 attributes of a description.
fn attributes(message: &str) -> Vec<&str> {
    body(message)
        .lines()
        .filter_map(|line| line.strip_prefix("a="))
        .filter(|a| a.starts_with("T38"))
        .collect()
}

fn kept(image: &ImageMedia) -> Vec<&str> {
    image.attributes.iter().collect()
}

fn offered(events: &[Event]) -> Vec<(CallId, ImageMedia)> {
    let offered = |event: &Event| match event {
        Event::ImageOffered { call, image } => Some((*call, (**image).clone())),
        _ => None,
    };
    events.iter().filter_map(offered).collect()
}

fn images(events: &[Event]) -> Vec<(CallId, Option<ImageMedia>)> {
    let image = |event: &Event| match event {
        Event::Image { call, image } => Some((*call, image.as_deref().cloned())),
        _ => None,
    };
    events.iter().filter_map(image).collect()
}

fn withdrawn(events: &[Event]) -> Vec<CallId> {
    let withdrawn = |event: &Event| match event {
        Event::ImageWithdrawn { call } => Some(*call),
        _ => None,
    };
    events.iter().filter_map(withdrawn).collect()
}

/// Two calls of the gateway: one that came in, and one that it placed.
struct Fax {
    lab: Lab,
    first: CallId,
    /// Our answer to the first.
    ok: String,
    second: CallId,
    /// Our INVITE of the second.
    invite: String,
}

impl Fax {
    fn new() -> Self {
        Self::in_lab(Lab::new())
    }

    fn in_lab(mut lab: Lab) -> Self {
        let (first, ok) = lab.call_in_answered();
        let (second, invite) = lab.call_out_answered();
        for call in [first, second] {
            lab.command(0, Command::TakeImages { call, on: true });
        }
        lab.take(0);
        Self { lab, first, ok, second, invite }
    }

    /// The far side of the first call sends a re-INVITE; returns what is answered.
    fn reinvite(&mut self, cseq: u32, description: &str) -> Vec<String> {
        self.lab.tell(&Ask::within(&self.ok, "INVITE", cseq).body(description).text())
    }

    fn ack(&mut self, cseq: u32) {
        self.lab.tell(&Ask::within(&self.ok, "ACK", cseq).text());
    }

    /// The ACK of a refusal, which belongs to the INVITE's transaction.
    fn ack_refusal(&mut self, cseq: u32) {
        let mut ack = Ask::within(&self.ok, "ACK", cseq);
        ack.via = Ask::within(&self.ok, "INVITE", cseq).via;
        self.lab.tell(&ack.text());
    }

    /// Puts an offer to the far side of the second call; returns our re-INVITE.
    fn put(&mut self, image: &ImageMedia) -> String {
        let attributes = Some(Box::new(image.attributes.clone()));
        self.lab.command(0, Command::OfferImage { call: self.second, attributes });
        self.lab.run_ms(20);
        let mut sent = self.lab.inbox(1);
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    /// Answers the far side of the first call; returns our final response.
    fn answer(&mut self, image: Option<&ImageMedia>) -> String {
        let attributes = image.map(|image| Box::new(image.attributes.clone()));
        self.lab.command(0, Command::AnswerImage { call: self.first, attributes });
        self.lab.run_ms(20);
        self.lab.inbox(1).into_iter().find(|m| m.starts_with("SIP/2.0 ")).unwrap()
    }

    /// Brings both calls to T.38: returns our answer to the first, and our re-INVITE of the second.
    fn carried(&mut self, cseq: u32, description: &str) -> (String, String) {
        let got = self.reinvite(cseq, description);
        assert_eq!(got.iter().map(|m| status(m)).collect::<Vec<_>>(), [100], "it waits");
        let (call, asked) = offered(&self.lab.take(0)).remove(0);
        assert_eq!((call, asked.remote_udptl), (self.first, address("10.0.0.2:30004")));
        assert_eq!(kept(&asked), OURS);
        let put = self.put(&asked);
        let got = self.lab.tell(&reply(&put, 200, "", CONTACT, &fax(9, 40_004, &THEIRS)));
        assert!(got[0].starts_with("ACK "), "{got:?}");
        let told = images(&self.lab.take(0));
        let taken = told[0].1.clone().unwrap();
        assert_eq!((told.len(), told[0].0, taken.remote_udptl), (1, self.second, address("10.0.0.2:40004")));
        let ok = self.answer(Some(&taken));
        assert_eq!(images(&self.lab.take(0)), [(self.first, Some(asked))]);
        self.ack(cseq);
        (ok, put)
    }

    /// Offers the second call audio again; returns our re-INVITE.
    fn audio(&mut self) -> String {
        self.lab.command(0, Command::OfferImage { call: self.second, attributes: None });
        self.lab.run_ms(20);
        self.lab.inbox(1).remove(0)
    }

    fn end(mut self) {
        let (first, second) = (self.first, self.second);
        release(&mut self.lab, first);
        release(&mut self.lab, second);
        assert_clean(&mut self.lab);
    }
}

// ITU-T T.38 D.2.2, RFC 3264 8.3.3: the image line alone, beside an audio line with port 0, and beside one in use.
#[test]
fn f14_an_offer_of_t38_is_put_to_the_other_trunk_with_its_attributes_and_audio_comes_back() {
    let alone = head(2) + &image(30_004, &OURS);
    let silent = fax(2, 30_004, &OURS);
    let both = sdp(2, "sendrecv") + &image(30_004, &OURS);
    let before = head(2) + &image(30_004, &OURS) + "m=audio 0 RTP/AVP 8\r\n";
    let (audio, picture) = ("m=audio 0 RTP/AVP 8", "m=image 20000 udptl t38");
    for (description, lines) in [
        (alone, vec![picture]),
        (silent, vec![audio, picture]),
        (both, vec![audio, picture]),
        (before, vec![picture, audio]),
    ] {
        let mut call = Fax::new();
        let (ok, put) = call.carried(2, &description);
        assert!(put.starts_with("INVITE ") && header(&put, "To").contains("tag="), "{put}");
        assert_eq!((m_lines(&put), attributes(&put)), (vec![audio, picture], OURS.to_vec()));
        assert_eq!((status(&ok), m_lines(&ok), attributes(&ok)), (200, lines, THEIRS.to_vec()));
        for ours in [&put, &ok] {
            assert!(
                body(ours).contains("c=IN IP4 10.0.0.1\r\n") && !body(ours).contains("10.0.0.2"),
                "{ours}"
            );
            assert!(!body(ours).contains("a=sendrecv"), "{ours}");
        }
        // Audio again, on the side that begins and then on the other.
        let got = call.reinvite(3, &(sdp(3, "sendrecv") + "m=image 0 udptl t38\r\n"));
        assert_eq!(status(&got[0]), 200);
        assert_eq!(m_lines(&got[0]), ["m=audio 20000 RTP/AVP 8 101", "m=image 0 udptl t38"]);
        call.ack(3);
        let events = call.lab.take(0);
        assert_eq!(media_of(&events)[0].remote_rtp, address("10.0.0.2:30000"));
        let put = call.audio();
        assert_eq!(m_lines(&put), ["m=audio 20000 RTP/AVP 8 0 101", "m=image 0 udptl t38"]);
        let answer = sdp(10, "sendrecv") + "m=image 0 udptl t38\r\n";
        call.lab.tell(&reply(&put, 200, "", CONTACT, &answer));
        let events = call.lab.take(0);
        assert!(matches!(events[..], [Event::Media { call: of, .. }] if of == call.second), "{events:?}");
        // A second facsimile has the line of the first.
        let (ok, put) = call.carried(4, &fax(4, 30_004, &OURS));
        assert_eq!(m_lines(&ok), [audio, picture]);
        assert_eq!(m_lines(&put), [audio, picture]);
        call.end();
    }
}

// RFC 3261 14.1, RFC 3264 6: the far side's refusal goes back, and audio is as it was.
#[test]
fn f14_what_the_other_trunk_refuses_is_488_and_g711_goes_on() {
    let refused = fax(9, 0, &[]);
    let denied = fax(9, 40_004, &THEIRS).replace("c=IN IP4 10.0.0.2", "c=IN IP4 224.0.0.5");
    let named = fax(9, 40_004, &THEIRS).replace("c=IN IP4 10.0.0.2", "c=IN IP4 fax.example.com");
    let other = fax(9, 40_004, &THEIRS).replace("udptl", "TCPTL");
    for (code, answer) in [
        (488, ""),
        (415, ""),
        (606, ""),
        (603, ""),
        (200, &refused[..]),
        (200, &denied),
        (200, &named),
        (200, &other),
    ] {
        let mut call = Fax::new();
        call.reinvite(2, &fax(2, 30_004, &OURS));
        let asked = offered(&call.lab.take(0)).remove(0).1;
        let put = call.put(&asked);
        let mut got = call.lab.tell(&reply(&put, code, "", CONTACT, answer));
        assert!(got.remove(0).starts_with("ACK "));
        let events = call.lab.take(0);
        assert_eq!(images(&events), [(call.second, None)], "{code}");
        assert!(media_of(&events).is_empty());
        if code == 200 {
            // Nothing is carried there now: audio is offered at once.
            assert_eq!(m_lines(&got[0])[0], "m=audio 20000 RTP/AVP 8 0 101");
            call.lab.tell(&reply(
                &got[0],
                200,
                "",
                CONTACT,
                &(sdp(10, "sendrecv") + "m=image 0 udptl t38\r\n"),
            ));
            assert_eq!(media_of(&call.lab.take(0)).len(), 1);
        } else {
            assert!(got.is_empty(), "{got:?}");
        }
        let refusal = call.answer(None);
        assert_eq!((status(&refusal), header(&refusal, "Warning").starts_with("304 ")), (488, true));
        call.ack_refusal(2);
        assert!(call.lab.take(0).is_empty());
        // As it was, so nothing changes.
        let got = call.reinvite(3, SDP);
        assert_eq!((status(&got[0]), body(&got[0])), (200, body(&call.ok)));
        call.ack(3);
        assert!(call.lab.take(0).is_empty());
        call.end();
    }
}

#[test]
fn f14_an_image_line_beside_audio_is_refused_alone() {
    let mut call = Fax::new();
    let moved = sdp(2, "sendrecv").replace("30000", "30050") + &image(30_004, &OURS);
    call.reinvite(2, &moved);
    assert!(media_of(&call.lab.take(0)).is_empty(), "the whole offer waits");
    let ok = call.answer(None);
    assert_eq!(m_lines(&ok), ["m=audio 20000 RTP/AVP 8 101", "m=image 0 udptl t38"]);
    call.ack(2);
    assert_eq!(media_of(&call.lab.take(0))[0].remote_rtp, address("10.0.0.2:30050"));
    call.end();
}

#[test]
fn f14_other_lines_of_the_image_stay_behind_and_its_attributes_are_bounded() {
    let mut call = Fax::new();
    let many: Vec<String> = (0..200).map(|n| format!("T38X{n}:{n}")).collect();
    let long = format!("T38Y:{}", "y".repeat(ImageAttributes::MAX_LENGTH));
    let mut all = vec!["sendrecv", "mid:2", "label:10.0.0.2", "crypto:1 NULL inline:x", "T38Z", &long];
    all.extend(many.iter().map(String::as_str));
    call.reinvite(2, &fax(2, 30_004, &all));
    let asked = offered(&call.lab.take(0)).remove(0).1;
    let expected: Vec<&str> = ["T38Z"]
        .into_iter()
        .chain(many.iter().map(String::as_str))
        .take(ImageAttributes::MAX_ATTRIBUTES)
        .collect();
    let put = call.put(&asked);
    assert_eq!(attributes(&put), expected);
    assert!(!body(&put).contains("a=mid") && !body(&put).contains("a=label"), "{put}");
    // A line that is named is answered by its name (RFC 5888 6).
    call.lab.tell(&reply(&put, 200, "", CONTACT, &fax(9, 40_004, &THEIRS)));
    let taken = images(&call.lab.take(0)).remove(0).1.unwrap();
    assert!(body(&call.answer(Some(&taken))).ends_with("a=T38VendorInfo:0 0 37\r\na=mid:2\r\n"));
    call.ack(2);
    call.end();
}

#[test]
fn f14_an_offer_waits_eight_seconds_and_comes_once() {
    let mut call = Fax::new();
    let offer = fax(2, 30_004, &OURS);
    call.reinvite(2, &offer);
    assert_eq!(offered(&call.lab.take(0)).len(), 1);
    // The same once more (RFC 3261 17.2.1), another one (14.2), and an UPDATE (RFC 3311 5.2).
    let got = call.reinvite(2, &offer);
    assert_eq!(status(&got[0]), 100);
    let got = call.reinvite(3, SDP);
    assert_eq!((status(&got[0]), header(&got[0], "Retry-After").parse::<u8>().is_ok()), (500, true));
    call.ack_refusal(3);
    let got = call.lab.tell(&Ask::within(&call.ok, "UPDATE", 4).body(SDP).text());
    assert_eq!((status(&got[0]), headers(&got[0], "Retry-After").len()), (500, 1));
    call.lab.run(Duration::from_millis(7_800));
    assert!(call.lab.take(0).is_empty());
    call.lab.run(Duration::from_millis(200));
    let got = call.lab.inbox(1);
    assert_eq!(status(&got[0]), 488);
    call.ack_refusal(2);
    assert_eq!(withdrawn(&call.lab.take(0)), [call.first]);
    let late = Command::AnswerImage { call: call.first, attributes: None };
    assert_eq!(call.lab.try_command(0, late), Err(CommandError::WrongState));
    call.end();
}

// RFC 3261 9.2, 15.1.2.
#[test]
fn f14_an_offer_that_waits_ends_with_its_cancel_and_with_its_call() {
    let mut call = Fax::new();
    call.reinvite(2, &fax(2, 30_004, &OURS));
    call.lab.take(0);
    let mut cancel = Ask::within(&call.ok, "CANCEL", 2);
    cancel.via = Ask::within(&call.ok, "INVITE", 2).via;
    let got = call.lab.tell(&cancel.text());
    assert_eq!(
        got.iter().map(|m| (status(m), header(m, "CSeq"))).collect::<Vec<_>>(),
        [(200, "2 CANCEL".to_owned()), (487, "2 INVITE".to_owned())]
    );
    call.ack_refusal(2);
    assert_eq!(call.lab.take(0), [Event::ImageWithdrawn { call: call.first }]);
    assert_eq!(status(&call.reinvite(3, SDP)[0]), 200, "the call goes on");
    call.ack(3);
    call.end();

    for far in [true, false] {
        let mut call = Fax::new();
        call.reinvite(2, &fax(2, 30_004, &OURS));
        let got = if far {
            call.lab.tell(&Ask::within(&call.ok, "BYE", 3).text())
        } else {
            let first = call.first;
            release(&mut call.lab, first);
            call.lab.inbox(1)
        };
        let of_invite =
            got.iter().find(|m| m.starts_with("SIP/") && header(m, "CSeq") == "2 INVITE").unwrap();
        assert_eq!(status(of_invite), 487, "{got:?}");
        call.ack_refusal(2);
        if let Some(bye) = got.iter().find(|m| m.starts_with("BYE ")) {
            call.lab.tell(&reply(bye, 200, "", "", ""));
        }
        let second = call.second;
        release(&mut call.lab, second);
        assert_clean(&mut call.lab);
    }
}

// RFC 3261 14.1: both far sides want T.38 at once, as those of one facsimile may.
#[test]
fn f14_two_offers_that_cross_become_one_session() {
    let mut call = Fax::new();
    call.reinvite(2, &fax(2, 30_004, &OURS));
    let asked = offered(&call.lab.take(0)).remove(0).1;
    let put = call.put(&asked);
    // Ours is open, and so is theirs.
    let theirs = |cseq: u32| Ask::back(&call.invite, "INVITE", cseq).body(&fax(9, 40_004, &THEIRS));
    let (glare, again) = (theirs(5), theirs(6));
    let got = call.lab.tell(&glare.text());
    assert_eq!(status(&got[0]), 491);
    let mut ack = Ask::back(&call.invite, "ACK", 5);
    ack.via = glare.via;
    call.lab.tell(&ack.text());
    call.lab.tell(&reply(&put, 491, "", "", ""));
    // Theirs comes first then: it is what we wanted.
    let got = call.lab.tell(&again.text());
    let ok = got.iter().find(|m| m.starts_with("SIP/")).unwrap();
    assert_eq!((status(ok), attributes(ok)), (200, OURS.to_vec()));
    call.lab.tell(&Ask::back(&call.invite, "ACK", 6).text());
    let events = call.lab.take(0);
    assert!(offered(&events).is_empty());
    let taken = images(&events).remove(0).1.unwrap();
    assert_eq!(kept(&taken), THEIRS);
    assert_eq!(attributes(&call.answer(Some(&taken))), THEIRS);
    call.ack(2);
    call.lab.run(Duration::from_secs(10));
    assert!(call.lab.inbox(1).is_empty(), "nothing is left to be wanted");
    call.end();
}

#[test]
fn f14_a_far_side_that_is_busy_with_its_own_is_asked_again() {
    let mut call = Fax::new();
    call.reinvite(2, &fax(2, 30_004, &OURS));
    let asked = offered(&call.lab.take(0)).remove(0).1;
    let put = call.put(&asked);
    call.lab.tell(&reply(&put, 491, "", "", ""));
    call.lab.run(Duration::from_millis(4_100));
    let again = call.lab.inbox(1).remove(0);
    assert_eq!(attributes(&again), OURS);
    call.lab.tell(&reply(&again, 200, "", CONTACT, &fax(9, 40_004, &THEIRS)));
    assert_eq!(images(&call.lab.take(0)).len(), 1);
    call.answer(None);
    call.ack_refusal(2);
    call.end();
}

// RFC 3264 8, RFC 4028 7.4, RFC 3261 14.2: what refreshes the session leaves it as it is.
#[test]
fn f14_a_session_that_carries_t38_is_refreshed_and_moved_as_any_other() {
    let mut call = Fax::new();
    let offer = fax(2, 30_004, &OURS);
    let (ok, put) = call.carried(2, &offer);
    let refresh = Ask::within(&call.ok, "INVITE", 3).body(&offer).line("Supported: timer");
    let got = call.lab.tell(&refresh.line("Session-Expires: 120;refresher=uas").text());
    assert_eq!((status(&got[0]), body(&got[0])), (200, body(&ok)));
    call.ack(3);
    assert!(call.lab.take(0).is_empty());
    // Ours, half of the interval later.
    call.lab.run(Duration::from_secs(61));
    let ours = call.lab.inbox(1).remove(0);
    assert_eq!((ours.starts_with("INVITE "), body(&ours)), (true, body(&ok)));
    let got = call.lab.tell(&reply(&ours, 200, "", CONTACT, &offer));
    assert!(got[0].starts_with("ACK "));
    assert!(call.lab.take(0).is_empty());
    // Without a description: the offer is ours.
    let got = call.lab.tell(&Ask::within(&call.ok, "INVITE", 4).text());
    assert_eq!((status(&got[0]), body(&got[0])), (200, body(&ok)));
    call.lab.tell(&Ask::within(&call.ok, "ACK", 4).body(&offer).text());
    assert!(call.lab.take(0).is_empty());
    // To another port, on either side.
    let got = call.reinvite(5, &fax(3, 30_008, &OURS));
    assert_eq!((status(&got[0]), body(&got[0])), (200, body(&ok)));
    call.ack(5);
    let told = images(&call.lab.take(0));
    assert_eq!(told[0].1.as_ref().unwrap().remote_udptl, address("10.0.0.2:30008"));
    let moved = Ask::back(&call.invite, "INVITE", 7).body(&fax(10, 40_008, &THEIRS));
    let got = call.lab.tell(&moved.text());
    assert_eq!((status(&got[0]), body(&got[0])), (200, body(&put)));
    call.lab.tell(&Ask::back(&call.invite, "ACK", 7).text());
    assert_eq!(images(&call.lab.take(0))[0].0, call.second);
    call.end();
}

#[test]
fn f14_a_hold_waits_for_audio_and_goes_out_with_it() {
    let mut call = Fax::new();
    call.carried(2, &fax(2, 30_004, &OURS));
    call.lab.command(0, Command::Hold { call: call.second, on: true });
    call.lab.run_ms(20);
    assert!(call.lab.inbox(1).is_empty());
    let put = call.audio();
    assert!(body(&put).contains("a=sendonly\r\nm=image 0 udptl t38\r\n"), "{put}");
    call.lab.tell(&reply(&put, 200, "", CONTACT, &(sdp(10, "recvonly") + "m=image 0 udptl t38\r\n")));
    assert_eq!(media_of(&call.lab.take(0))[0].direction, Direction::SendOnly);
    call.lab.run(Duration::from_secs(10));
    assert!(call.lab.inbox(1).is_empty(), "one offer was enough");
    call.end();
}

// The offer was withdrawn while the far side thought about it: what it agreed to is taken back.
#[test]
fn f14_an_answer_that_comes_too_late_is_followed_by_audio() {
    let mut call = Fax::new();
    call.reinvite(2, &fax(2, 30_004, &OURS));
    let asked = offered(&call.lab.take(0)).remove(0).1;
    let put = call.put(&asked);
    call.lab.tell(&reply(&put, 100, "", "", ""));
    call.lab.run(Duration::from_secs(9));
    assert_eq!(withdrawn(&call.lab.take(0)), [call.first]);
    call.ack_refusal(2);
    call.lab.inbox(1);
    call.lab.command(0, Command::OfferImage { call: call.second, attributes: None });
    let got = call.lab.tell(&reply(&put, 200, "", CONTACT, &fax(9, 40_004, &THEIRS)));
    assert!(got[0].starts_with("ACK "));
    assert_eq!(m_lines(&got[1]), ["m=audio 20000 RTP/AVP 8 0 101", "m=image 0 udptl t38"]);
    call.lab.tell(&reply(&got[1], 200, "", CONTACT, &(sdp(10, "sendrecv") + "m=image 0 udptl t38\r\n")));
    assert_eq!(media_of(&call.lab.take(0)).len(), 1);
    call.end();
}

// Against RFC 3264 6, but gateways do it: the answer has the image line alone. They get offers of their kind.
#[test]
fn f14_an_answer_of_an_image_line_alone_is_mended() {
    let mut call = Fax::new();
    call.reinvite(2, &fax(2, 30_004, &OURS));
    let asked = offered(&call.lab.take(0)).remove(0).1;
    let put = call.put(&asked);
    call.lab.tell(&reply(&put, 200, "", CONTACT, &(head(9) + &image(40_004, &THEIRS))));
    let taken = images(&call.lab.take(0)).remove(0).1.unwrap();
    assert_eq!(taken.remote_udptl, address("10.0.0.2:40004"));
    assert_eq!(call.lab.endpoint(0).counters().repaired["sdp_media_lines"], 1);
    let put = call.audio();
    assert_eq!(m_lines(&put), ["m=audio 20000 RTP/AVP 8 0 101"]);
    call.lab.tell(&reply(&put, 200, "", CONTACT, &sdp(10, "sendrecv")));
    assert_eq!(media_of(&call.lab.take(0)).len(), 1);
    call.answer(None);
    call.ack_refusal(2);
    call.end();
}

// UDPTL is not protected.
#[test]
fn f14_a_trunk_that_requires_srtp_takes_no_t38() {
    let keys = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n";
    let secure = SDP.replace("RTP/AVP", "RTP/SAVP") + keys;
    let mut lab = Lab::with(|config| config.trunks[0].srtp = Srtp::Required);
    let call = lab.call_in(&Ask::invite().body(&secure).text());
    lab.command(0, Command::Answer { call, media: crate::net::media(crate::net::A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).pop().unwrap();
    assert_eq!(status(&ok), 200);
    lab.tell(&Ask::within(&ok, "ACK", 1).text());
    lab.command(0, Command::TakeImages { call, on: true });
    lab.take(0);
    let got = lab.tell(&Ask::within(&ok, "INVITE", 2).body(&fax(2, 30_004, &OURS)).text());
    assert_eq!(status(&got[0]), 488);
    assert!(lab.take(0).is_empty());
    lab.command(0, Command::OfferImage { call, attributes: Some(Box::default()) });
    lab.run_ms(20);
    assert_eq!(lab.take(0), [Event::Image { call, image: None }]);
    assert!(!lab.inbox(1).iter().any(|m| m.starts_with("INVITE ")));
    release(&mut lab, call);
    assert_clean(&mut lab);
}

#[test]
fn f14_t38_is_for_answered_calls_that_may_take_it() {
    let mut call = Fax::new();
    let first = call.first;
    call.lab.command(0, Command::TakeImages { call: first, on: false });
    assert_eq!(status(&call.reinvite(2, &fax(2, 30_004, &OURS))[0]), 488);
    call.ack_refusal(2);
    assert!(call.lab.take(0).is_empty());
    let none = Command::AnswerImage { call: first, attributes: None };
    assert_eq!(call.lab.try_command(0, none), Err(CommandError::WrongState));
    call.end();
    let mut lab = Lab::new();
    let (early, _) = lab.call_out();
    let offer = Command::OfferImage { call: early, attributes: Some(Box::default()) };
    assert_eq!(lab.try_command(0, offer), Err(CommandError::WrongState));
}
