//! Row F20: SRTP that DTLS keys, as session descriptions agree on it.

use call_model::{
    Codec, Direction, DtlsParameters, DtlsRole, Fingerprint, FingerprintHash, LegMedia, MediaSecurity,
};
use sip_trunk::sdp::{MediaPolicy, NegotiationError, OfferAnswer, Srtp};
use sip_trunk::{Command, CommandError, Endpoint, EndpointConfig, Transport};

use crate::dialogs::{assert_clean, body, media_of, release};
use crate::net::{A, A_RTP, B, B_RTP, Pair, config, ended, media};
use crate::raw::{Ask, CONTACT, Lab, SDP, header, reply, sdp, status};
use crate::secure::TEAMS_KEY;

fn ours() -> Fingerprint {
    Fingerprint::new(FingerprintHash::Sha256, &[0xa1; 32]).unwrap()
}

fn theirs() -> Fingerprint {
    Fingerprint::new(FingerprintHash::Sha256, &[0xb2; 32]).unwrap()
}

fn speaks_dtls(config: &mut EndpointConfig) {
    config.trunks[0].srtp = Srtp::Dtls;
    config.media_fingerprint = Some(ours());
}

/// A description of the peer's whose media DTLS keys, with a role.
fn dtls(description: &str, setup: &str) -> String {
    let role = if setup.is_empty() { String::new() } else { format!("a=setup:{setup}\r\n") };
    description.replace("RTP/AVP", "UDP/TLS/RTP/SAVP") + &format!("{role}a=fingerprint:{}\r\n", theirs())
}

fn association(media: &LegMedia) -> &DtlsParameters {
    let MediaSecurity::DtlsSrtp(parameters) = &media.security else { panic!("{:?}", media.security) };
    parameters
}

/// The values of an attribute in a message.
fn values<'a>(message: &'a str, name: &str) -> Vec<&'a str> {
    let line = |line: &'a str| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':');
    body(message).lines().filter_map(line).collect()
}

/// Calls a gateway with a description; its final answer and the media.
fn offer(srtp: Srtp, description: &str) -> (String, Vec<LegMedia>) {
    let mut lab = Lab::with(|config| {
        speaks_dtls(config);
        config.trunks[0].srtp = srtp;
    });
    let got = lab.tell(&Ask::invite().body(description).text());
    let Some(call) = lab.incoming() else { return (got.last().unwrap().clone(), Vec::new()) };
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).pop().unwrap();
    lab.tell(&Ask::within(&ok, "ACK", 1).text());
    let agreed = media_of(&lab.take(0));
    release(&mut lab, call);
    assert_clean(&mut lab);
    (ok, agreed)
}

/// Answers a call of a gateway; its INVITE and the media.
fn answer(srtp: Srtp, description: &str) -> (String, Vec<LegMedia>) {
    let mut lab = Lab::with(|config| {
        speaks_dtls(config);
        config.trunks[0].srtp = srtp;
    });
    let (call, invite) = lab.call_out();
    lab.tell(&reply(&invite, 200, "peer", CONTACT, description));
    let events = lab.take(0);
    let agreed = media_of(&events);
    assert_eq!(ended(&events).is_empty(), !agreed.is_empty(), "{description}");
    if !agreed.is_empty() {
        release(&mut lab, call);
    }
    assert_clean(&mut lab);
    (invite, agreed)
}

// RFC 5763 5, RFC 5764 8, RFC 8842 5.3: the answerer begins, unless the offer says otherwise.
#[test]
fn f20_an_offer_of_dtls_is_answered_with_a_fingerprint_and_a_role() {
    for (setup, answered, role) in [
        ("actpass", "active", DtlsRole::Active),
        ("active", "passive", DtlsRole::Passive),
        ("PASSIVE ", "active", DtlsRole::Active),
        // RFC 4145 4: what an offer means that says nothing.
        ("", "passive", DtlsRole::Passive),
    ] {
        let offered = dtls(SDP, setup) + "a=tls-id:abcdefghijklmnopqrst123\r\n";
        let (ok, agreed) = offer(Srtp::Dtls, &offered);
        assert!(body(&ok).contains("m=audio 20000 UDP/TLS/RTP/SAVP 8 101\r\n"), "{ok}");
        assert_eq!(values(&ok, "setup"), [answered], "{ok}");
        assert_eq!(values(&ok, "fingerprint"), [format!("sha-256 {}", ["A1"; 32].join(":"))]);
        assert!(values(&ok, "crypto").is_empty() && values(&ok, "tls-id").is_empty(), "{ok}");
        assert!(!body(&ok).contains("rtcp-mux"), "{ok}");
        let association = association(&agreed[0]);
        assert_eq!((association.role, &association.fingerprints[..]), (role, &[theirs()][..]));
        assert_eq!(association.tls_id.as_deref(), Some("abcdefghijklmnopqrst123"));
        assert_eq!(agreed[0].remote_rtcp.map(|at| at.port()), Some(30001));
    }
    let (ok, agreed) = offer(Srtp::Dtls, &(dtls(SDP, "actpass") + "a=rtcp-mux\r\n"));
    assert!(body(&ok).contains("a=rtcp-mux\r\n") && agreed[0].remote_rtcp.is_none(), "{ok}");
}

// RFC 8122 5: of the session where the m-line has none; the strongest that is known; not SHA-1.
#[test]
fn f20_fingerprints_are_those_of_the_line_or_the_session() {
    let line = |fingerprint: &Fingerprint| format!("a=fingerprint:{fingerprint}\r\n");
    let sha_1 = format!("a=fingerprint:sha-1 {}\r\n", ["CC"; 20].join(":"));
    let long = Fingerprint::new(FingerprintHash::Sha512, &[0xc3; 64]).unwrap();
    let other = Fingerprint::new(FingerprintHash::Sha256, &[0xd4; 32]).unwrap();
    let bare = SDP.replace("RTP/AVP", "UDP/TLS/RTP/SAVP");
    let session = |lines: &str| bare.replace("t=0 0\r\n", &format!("t=0 0\r\n{lines}"));
    for (description, expected) in [
        (session(&(line(&theirs()) + "a=setup:active\r\n")), vec![theirs()]),
        (session(&line(&other)) + &line(&theirs()), vec![theirs()]),
        (bare.clone() + &line(&theirs()) + &line(&other), vec![theirs(), other.clone()]),
        (bare.clone() + &line(&theirs()) + &line(&long), vec![long.clone()]),
        (bare.clone() + &sha_1 + &line(&theirs()).to_lowercase(), vec![theirs()]),
    ] {
        let (ok, agreed) = offer(Srtp::Dtls, &description);
        assert_eq!(status(&ok), 200, "{description}");
        assert_eq!(association(&agreed[0]).fingerprints, expected, "{description}");
    }
    for description in [
        bare.clone(),
        bare.clone() + &sha_1,
        bare.clone() + "a=fingerprint:sha-256 00:11\r\n",
        bare.clone() + "a=fingerprint\r\na=setup:actpass\r\n",
        session(&line(&theirs())) + &sha_1,
    ] {
        let (refusal, _) = offer(Srtp::Dtls, &description);
        assert_eq!(status(&refusal), 488, "{description}");
        assert!(header(&refusal, "Warning").contains("No usable fingerprint for DTLS"), "{refusal}");
    }
    for setup in ["holdconn", "both"] {
        let (refusal, _) = offer(Srtp::Dtls, &dtls(SDP, setup));
        assert_eq!(status(&refusal), 488, "{setup}");
        assert!(header(&refusal, "Warning").contains("No usable role for DTLS"), "{refusal}");
    }
}

// What a trunk's media is keyed with is no matter of chance: DTLS, the description, or nothing.
#[test]
fn f20_what_is_keyed_otherwise_is_488_on_either_side() {
    let savp = SDP.replace("RTP/AVP", "RTP/SAVP") + TEAMS_KEY;
    let with_feedback = dtls(SDP, "actpass").replace("RTP/SAVP", "RTP/SAVPF");
    let dtls = dtls(SDP, "actpass");
    for (srtp, description) in [
        (Srtp::Never, &dtls),
        (Srtp::Preferred, &dtls),
        (Srtp::Required, &dtls),
        (Srtp::Dtls, &savp),
        (Srtp::Dtls, &SDP.to_owned()),
        (Srtp::Dtls, &(SDP.to_owned() + TEAMS_KEY)),
        (Srtp::Dtls, &with_feedback),
    ] {
        let (refusal, agreed) = offer(srtp, description);
        assert_eq!((status(&refusal), agreed.len()), (488, 0), "{srtp:?} {description}");
        assert!(header(&refusal, "Warning").starts_with("302 "), "{refusal}");
        let (_, agreed) = answer(srtp, &description.replace("actpass", "active"));
        let plain = srtp == Srtp::Preferred && !description.contains("SAVP");
        assert_eq!(agreed.len(), usize::from(plain), "{srtp:?} {description}");
    }
    // The line that is keyed as it should be is taken, wherever it stands.
    let both = SDP.to_owned() + &dtls[dtls.find("m=audio").unwrap()..].replace("30000", "30010");
    let (ok, agreed) = offer(Srtp::Dtls, &both);
    assert!(body(&ok).contains("m=audio 0 RTP/AVP 8\r\nm=audio 20000 UDP/TLS/RTP/SAVP 8 101\r\n"), "{ok}");
    assert_eq!(agreed[0].remote_rtp.port(), 30010);
}

// RFC 5763 5: we offer both roles, and one port for both kinds of packets; the answer chooses.
#[test]
fn f20_our_offer_leaves_role_and_port_to_the_answer() {
    let mux = "a=rtcp-mux\r\n";
    for (answered, role, shared) in [
        (dtls(SDP, "active"), Some(DtlsRole::Passive), false),
        (dtls(SDP, "active") + mux, Some(DtlsRole::Passive), true),
        (dtls(SDP, "passive") + mux, Some(DtlsRole::Active), true),
        // Who chooses nothing waits for us.
        (dtls(SDP, ""), Some(DtlsRole::Active), false),
        (dtls(SDP, "actpass"), Some(DtlsRole::Active), false),
        (dtls(SDP, "holdconn"), None, false),
        (dtls(SDP, "active").replace("sha-256", "sha-1"), None, false),
        (dtls(SDP, "active").replace("UDP/TLS/RTP/SAVP", "RTP/SAVP"), None, false),
    ] {
        let (invite, agreed) = answer(Srtp::Dtls, &answered);
        assert!(body(&invite).contains("m=audio 20000 UDP/TLS/RTP/SAVP 8 0 101\r\n"), "{invite}");
        assert_eq!((values(&invite, "setup"), values(&invite, "fingerprint").len()), (vec!["actpass"], 1));
        assert!(body(&invite).contains(mux) && values(&invite, "crypto").is_empty(), "{invite}");
        assert_eq!(agreed.first().map(|media| association(media).role), role, "{answered}");
        if let Some(media) = agreed.first() {
            assert_eq!(media.remote_rtcp.is_none(), shared, "{answered}");
        }
    }
}

// RFC 8842 4.1, 5.3, 5.5: what is about something else leaves the association alone, whoever offers.
#[test]
fn f20_hold_and_refreshes_keep_the_association() {
    for (setup, ours) in [("actpass", "active"), ("active", "passive")] {
        let mut lab = Lab::with(speaks_dtls);
        let call = lab.call_in(&Ask::invite().body(&dtls(SDP, setup)).text());
        lab.command(0, Command::Answer { call, media: media(A_RTP) });
        lab.run_ms(20);
        let ok = lab.inbox(1).pop().unwrap();
        lab.tell(&Ask::within(&ok, "ACK", 1).text());
        let before = media_of(&lab.take(0)).remove(0).security;
        // Their hold, with either way to say the role.
        for (cseq, setup) in [(2, "actpass"), (3, setup)] {
            let held = dtls(&sdp(cseq, "sendonly"), setup);
            let got = lab.tell(&Ask::within(&ok, "INVITE", cseq).body(&held).text());
            lab.tell(&Ask::within(&ok, "ACK", cseq).text());
            assert_eq!(values(&got[0], "setup"), [ours], "{setup}");
            assert!(media_of(&lab.take(0)).iter().all(|media| media.security == before));
        }
        // Ours says the role there is.
        lab.command(0, Command::Hold { call, on: true });
        lab.run_ms(20);
        let hold = lab.inbox(1).pop().unwrap();
        assert_eq!((values(&hold, "setup"), values(&hold, "fingerprint").len()), (vec![ours], 1));
        let answered = dtls(&sdp(4, "recvonly"), if ours == "active" { "passive" } else { "active" });
        lab.tell(&reply(&hold, 200, "", CONTACT, &answered));
        let events = lab.take(0);
        assert!(media_of(&events).iter().all(|media| media.security == before), "{events:?}");
        // An answer that takes our role for itself leaves no media, and so no call.
        lab.command(0, Command::Hold { call, on: false });
        lab.run_ms(20);
        let resume = lab.inbox(1).pop().unwrap();
        lab.tell(&reply(&resume, 200, "", CONTACT, &dtls(&sdp(5, "sendrecv"), ours)));
        let events = lab.take(0);
        assert_eq!((media_of(&events).len(), ended(&events).len()), (0, 1), "{events:?}");
    }
}

// RFC 8842 4.1: another fingerprint, another role, another tls-id: each is another association.
#[test]
fn f20_another_fingerprint_or_role_is_another_association() {
    let mut lab = Lab::with(speaks_dtls);
    let call = lab.call_in(&Ask::invite().body(&dtls(SDP, "active")).text());
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).pop().unwrap();
    lab.tell(&Ask::within(&ok, "ACK", 1).text());
    let mut before = association(&media_of(&lab.take(0))[0]).clone();
    assert_eq!(before.role, DtlsRole::Passive);
    let other = Fingerprint::new(FingerprintHash::Sha256, &[0xd4; 32]).unwrap();
    let moved = |text: String| text.replace(&theirs().to_string(), &other.to_string());
    for (cseq, description, setup) in [
        (2, dtls(&sdp(2, "sendrecv"), "passive"), "active"),
        (3, moved(dtls(&sdp(3, "sendrecv"), "actpass")), "active"),
        (4, moved(dtls(&sdp(4, "sendrecv"), "active")), "passive"),
        (5, moved(dtls(&sdp(5, "sendrecv"), "actpass")) + "a=tls-id:abcdefghijklmnopqrst\r\n", "active"),
    ] {
        let got = lab.tell(&Ask::within(&ok, "INVITE", cseq).body(&description).text());
        lab.tell(&Ask::within(&ok, "ACK", cseq).text());
        assert_eq!((status(&got[0]), values(&got[0], "setup")), (200, vec![setup]), "{cseq}");
        let after = association(&media_of(&lab.take(0))[0]).clone();
        assert_ne!(after, before, "{cseq}");
        before = after;
    }
    // One that cannot be checked is refused, and everything stays.
    let sha_1 = dtls(&sdp(6, "sendrecv"), "actpass").replace("sha-256", "sha-1");
    let got = lab.tell(&Ask::within(&ok, "INVITE", 6).body(&sha_1).text());
    assert_eq!(status(&got[0]), 488);
    lab.tell(&Ask::within(&ok, "ACK", 6).branch("INVITE6x").text());
    assert!(media_of(&lab.take(0)).is_empty());
    release(&mut lab, call);
}

// RFC 5763 6.4, C8: each early dialog has the certificate of its own device.
#[test]
fn f20_a_200_with_another_fingerprint_than_the_183_is_followed() {
    let mut lab = Lab::with(speaks_dtls);
    let (call, invite) = lab.call_out();
    let first = dtls(SDP, "active");
    lab.tell(&reply(&invite, 183, "early", CONTACT, &first));
    let early = media_of(&lab.take(0)).remove(0);
    let other = Fingerprint::new(FingerprintHash::Sha256, &[0xd4; 32]).unwrap();
    let second = dtls(SDP, "passive").replace(&theirs().to_string(), &other.to_string());
    lab.tell(&reply(&invite, 200, "peer", CONTACT, &second));
    let late = media_of(&lab.take(0)).remove(0);
    assert_eq!((association(&early).role, association(&late).role), (DtlsRole::Passive, DtlsRole::Active));
    assert_eq!(association(&late).fingerprints, [other]);
    release(&mut lab, call);
}

#[test]
fn f20_two_endpoints_agree_on_opposite_roles() {
    for delayed in [false, true] {
        let mut pair = Pair::with(Transport::Udp, |a, b| {
            speaks_dtls(a);
            speaks_dtls(b);
            b.media_fingerprint = Some(theirs());
            a.trunks[0].delayed_offer = delayed;
        });
        let (a, b) = pair.call();
        pair.command(1, Command::Answer { call: b, media: media(B_RTP) });
        pair.run_ms(100);
        let (mine, far) = (media_of(&pair.take(0)).remove(0), media_of(&pair.take(1)).remove(0));
        assert_eq!(association(&mine).role, association(&far).role.reversed());
        assert_eq!(association(&mine).fingerprints, [theirs()]);
        assert_eq!(association(&far).fingerprints, [ours()]);
        assert_eq!((mine.remote_rtcp, far.remote_rtcp, mine.codec), (None, None, Codec::Pcma));
        // Each holds the other, and the roles stay.
        for node in [0, 1] {
            for on in [true, false] {
                pair.command(node, Command::Hold { call: if node == 0 { a } else { b }, on });
                pair.run_ms(200);
                let (ours, theirs) = (media_of(&pair.take(0)).remove(0), media_of(&pair.take(1)).remove(0));
                assert_eq!((&ours.security, &theirs.security), (&mine.security, &far.security));
                assert_eq!(ours.direction == Direction::SendRecv, !on);
            }
        }
        pair.command(0, Command::Release { call: a, cause: call_model::Cause::NORMAL_CALL_CLEARING });
        pair.assert_clean();
    }
}

// Who is to speak DTLS has a certificate.
#[test]
fn f20_a_trunk_with_dtls_needs_a_certificate() {
    let now = std::time::Instant::now();
    let mut bare = config(A, B, Transport::Udp);
    bare.trunks[0].srtp = Srtp::Dtls;
    let error = Endpoint::new(bare.clone(), [1; 32], now, 0).unwrap_err();
    assert!(error.to_string().ends_with("no certificate for DTLS"), "{error}");
    let secured = bare.trunks[0].clone();
    bare.trunks[0].srtp = Srtp::Never;
    let mut endpoint = Endpoint::new(bare.clone(), [1; 32], now, 0).unwrap();
    assert_eq!(endpoint.reconfigure_trunk(now, secured.clone()), Err(CommandError::Unusable));
    // A call from before has none either.
    let mut policy = MediaPolicy::new(vec![Codec::Pcma], 20);
    policy.srtp = Srtp::Dtls;
    let mut session = OfferAnswer::new(1);
    let offered = dtls(SDP, "actpass");
    let error = NegotiationError::Fingerprint;
    assert_eq!(session.receive_offer(offered.as_bytes(), &policy).unwrap_err(), error);
    let offer = session.make_offer("10.0.0.1:20000".parse().unwrap(), &policy, Direction::SendRecv);
    assert_eq!(offer.unwrap_err(), error);
    bare.media_fingerprint = Some(ours());
    let mut endpoint = Endpoint::new(bare, [1; 32], now, 0).unwrap();
    assert_eq!(endpoint.reconfigure_trunk(now, secured), Ok(()));
}
