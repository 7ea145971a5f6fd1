//! Rows F16 to F19: SRTP with keys in the session description.

use call_model::{LegMedia, MediaSecurity, SrtpKeys, SrtpSuite};
use sip_trunk::sdp::Srtp;
use sip_trunk::{Command, EndpointConfig};

use crate::dialogs::{assert_clean, body, media_of, release};
use crate::net::{A_RTP, B_RTP, Pair, ended, media};
use crate::raw::{Ask, CONTACT, Lab, SDP, header, reply, sdp, status};

/// As Teams writes it: with a lifetime, and no identifier.
pub const TEAMS_KEY: &str =
    "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkw|2^31\r\n";
const TEAMS_BYTES: &[u8] = b"123456789012345678901234567890";

fn policy(srtp: Srtp) -> impl FnOnce(&mut EndpointConfig) {
    move |config| config.trunks[0].srtp = srtp
}

fn savp(description: &str) -> String {
    description.replace("RTP/AVP", "RTP/SAVP")
}

fn keys(media: &LegMedia) -> &SrtpKeys {
    let MediaSecurity::Sdes(keys) = &media.security else { panic!("{:?}", media.security) };
    keys
}

/// The `a=crypto` lines of a message.
fn cryptos(message: &str) -> Vec<&str> {
    body(message).lines().filter_map(|line| line.strip_prefix("a=crypto:")).collect()
}

/// Calls the gateway with a description; its final answer and the media.
fn offer(srtp: Srtp, description: &str) -> (String, Vec<LegMedia>) {
    let mut lab = Lab::with(policy(srtp));
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

// RFC 4568 5.1.2, 7.1.2: SAVP is answered as SAVP, with the tag and suite chosen and a key of ours.
#[test]
fn f16_f17_a_savp_offer_is_answered_with_a_key() {
    let offered = savp(SDP)
        + "a=crypto:3 F8_128_HMAC_SHA1_80 inline:AAAA\r\n"
        + &TEAMS_KEY.replace(":1 ", ":7 ")
        + &TEAMS_KEY.replace("_80", "_32");
    for srtp in [Srtp::Preferred, Srtp::Required] {
        let (ok, agreed) = offer(srtp, &offered);
        assert!(body(&ok).contains("m=audio 20000 RTP/SAVP 8 101\r\n"), "{ok}");
        let lines = cryptos(&ok);
        assert_eq!(lines.len(), 1, "{ok}");
        assert!(lines[0].starts_with("7 AES_CM_128_HMAC_SHA1_80 inline:"), "{ok}");
        let keys = keys(&agreed[0]);
        assert_eq!(keys.suite, SrtpSuite::AesCm128HmacSha1_80);
        assert_eq!(keys.receive[0].key_and_salt(), TEAMS_BYTES);
        assert_eq!(keys.receive[0].lifetime(), Some(1 << 31));
        assert_ne!(keys.send.key_and_salt(), TEAMS_BYTES);
        assert!(!format!("{agreed:?}").contains("49, 50"), "no key in {agreed:?}");
    }
}

// RFC 4568 7.1.2: what cannot be protected is refused, and never answered as RTP/AVP.
#[test]
fn f17_a_savp_offer_that_cannot_be_met_is_488_and_never_avp() {
    let no_key = savp(SDP);
    let bad_key = savp(SDP) + "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAA\r\n";
    let other_suite = savp(SDP) + &TEAMS_KEY.replace("AES_CM_128_HMAC_SHA1_80", "AES_256_CM_HMAC_SHA1_80");
    let bare = savp(SDP) + &TEAMS_KEY.replace("|2^31", "|2^31 UNENCRYPTED_SRTP");
    let good = savp(SDP) + TEAMS_KEY;
    for (srtp, description) in [
        (Srtp::Never, &good),
        (Srtp::Preferred, &no_key),
        (Srtp::Preferred, &bad_key),
        (Srtp::Preferred, &bare),
        (Srtp::Required, &other_suite),
        (Srtp::Required, &SDP.to_owned()),
    ] {
        let (refusal, agreed) = offer(srtp, description);
        assert_eq!(status(&refusal), 488, "{srtp:?} {description}");
        assert!(!header(&refusal, "Warning").is_empty());
        assert!(agreed.is_empty());
    }
    // A plain line beside it is taken only where plain RTP will do.
    let both = savp(SDP) + "a=crypto:1 NONE inline:x\r\nm=audio 30010 RTP/AVP 8\r\n";
    assert!(
        body(&offer(Srtp::Preferred, &both).0).contains("m=audio 0 RTP/SAVP 8\r\nm=audio 20000 RTP/AVP 8")
    );
    assert_eq!(status(&offer(Srtp::Required, &both).0), 488);
    // And a secure one behind a plain one is preferred to it.
    let both = SDP.to_owned() + "m=audio 30010 RTP/SAVP 8\r\n" + TEAMS_KEY;
    let (ok, agreed) = offer(Srtp::Preferred, &both);
    assert!(body(&ok).contains("m=audio 0 RTP/AVP 8\r\nm=audio 20000 RTP/SAVP 8"), "{ok}");
    assert_eq!((agreed[0].remote_rtp.port(), keys(&agreed[0]).receive.len()), (30010, 1));
}

// By policy: AES-256 and GCM (RFC 6188, RFC 7714), in the peer's order of preference.
#[test]
fn f16_the_suites_are_the_trunks_choice() {
    let long = "inline:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLQ==";
    let gcm = "inline:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGw==";
    let description = savp(SDP)
        + &format!("a=crypto:1 AES_256_CM_HMAC_SHA1_80 {long}\r\na=crypto:2 AEAD_AES_128_GCM {gcm}\r\n")
        + &TEAMS_KEY.replace(":1 ", ":3 ");
    for (suites, tag) in [
        (vec![SrtpSuite::AeadAes128Gcm, SrtpSuite::AesCm256HmacSha1_80], "1 "),
        (vec![SrtpSuite::AeadAes128Gcm], "2 "),
        (vec![SrtpSuite::AesCm128HmacSha1_80], "3 "),
    ] {
        let mut lab = Lab::with(|config| {
            config.trunks[0].srtp = Srtp::Required;
            config.trunks[0].srtp_suites = suites.clone();
        });
        let call = lab.call_in(&Ask::invite().body(&description).text());
        lab.inbox(1);
        lab.command(0, Command::Answer { call, media: media(A_RTP) });
        lab.run_ms(20);
        let ok = lab.inbox(1).pop().unwrap();
        assert!(cryptos(&ok)[0].starts_with(tag), "{ok}");
        assert!(suites.contains(&keys(&media_of(&lab.take(0))[0]).suite));
    }
}

// RFC 8643 4: RTP/AVP with keys; SRTP if the answer has one, else plain RTP.
#[test]
fn f18_preferred_offers_keys_and_falls_back() {
    for (answer, secure) in [(SDP.to_owned() + TEAMS_KEY, true), (SDP.to_owned(), false)] {
        let mut lab = Lab::with(policy(Srtp::Preferred));
        let (call, invite) = lab.call_out();
        assert!(body(&invite).contains("m=audio 20000 RTP/AVP 8 0 101\r\n"), "{invite}");
        let lines: Vec<_> = cryptos(&invite).iter().map(|l| l.split(" inline:").next().unwrap()).collect();
        assert_eq!(lines, ["1 AES_CM_128_HMAC_SHA1_80", "2 AES_CM_128_HMAC_SHA1_32"]);
        lab.tell(&reply(&invite, 200, "peer", CONTACT, &answer));
        let agreed = media_of(&lab.take(0));
        match secure {
            true => assert_eq!(keys(&agreed[0]).receive[0].key_and_salt(), TEAMS_BYTES),
            false => assert_eq!(agreed[0].security, MediaSecurity::None),
        }
        release(&mut lab, call);
        assert_clean(&mut lab);
    }
    // The other way: an offer of RTP/AVP with keys is answered in kind, one without as plain RTP.
    let (ok, agreed) = offer(Srtp::Preferred, &(SDP.to_owned() + TEAMS_KEY));
    assert!(body(&ok).contains("m=audio 20000 RTP/AVP 8 101\r\n") && cryptos(&ok).len() == 1, "{ok}");
    assert_eq!(keys(&agreed[0]).receive.len(), 1);
    let (ok, agreed) = offer(Srtp::Preferred, SDP);
    assert!(cryptos(&ok).is_empty() && agreed[0].security == MediaSecurity::None);
    let (ok, agreed) = offer(Srtp::Never, &(SDP.to_owned() + TEAMS_KEY));
    assert!(cryptos(&ok).is_empty() && agreed[0].security == MediaSecurity::None);
}

// RFC 4568 7.1.3: an answer must name what was offered; `required` takes nothing less.
#[test]
fn f18_an_answer_without_a_usable_key_ends_the_call_where_srtp_is_required() {
    let good = savp(SDP) + TEAMS_KEY;
    for (srtp, answer, fine) in [
        (Srtp::Required, good.clone(), true),
        (Srtp::Required, SDP.to_owned(), false),
        (Srtp::Required, savp(SDP), false),
        (Srtp::Required, good.replace(":1 ", ":9 "), false),
        (Srtp::Required, good.replace("_80", "_32"), false),
        (Srtp::Preferred, SDP.to_owned() + &TEAMS_KEY.replace(":1 ", ":9 "), false),
        (Srtp::Never, good, false),
    ] {
        let mut lab = Lab::with(policy(srtp));
        let (call, invite) = lab.call_out();
        let transport = if srtp == Srtp::Required { "RTP/SAVP" } else { "RTP/AVP" };
        assert!(body(&invite).contains(&format!("m=audio 20000 {transport} 8 0 101")), "{invite}");
        assert_eq!(cryptos(&invite).is_empty(), srtp == Srtp::Never);
        lab.tell(&reply(&invite, 200, "peer", CONTACT, &answer));
        let events = lab.take(0);
        assert_eq!(media_of(&events).len(), usize::from(fine), "{srtp:?} {answer}");
        assert_eq!(ended(&events).is_empty(), fine, "{srtp:?} {answer}");
        if fine {
            release(&mut lab, call);
        }
        assert_clean(&mut lab);
    }
}

// RFC 4568 7.1.4: the same key again changes nothing, another one is followed, and gets a new one of
// ours, for the peer may have passed the call on.
#[test]
fn f19_a_new_key_in_a_reinvite_is_followed() {
    let mut lab = Lab::with(policy(Srtp::Required));
    let first = savp(SDP) + TEAMS_KEY;
    let call = lab.call_in(&Ask::invite().body(&first).text());
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).pop().unwrap();
    lab.tell(&Ask::within(&ok, "ACK", 1).text());
    let before = media_of(&lab.take(0)).remove(0);
    let got = lab.tell(&Ask::within(&ok, "INVITE", 2).body(&first).text());
    assert_eq!(body(&got[0]), body(&ok));
    lab.tell(&Ask::within(&ok, "ACK", 2).text());
    assert!(lab.take(0).is_empty());
    let held = savp(&sdp(2, "sendonly")) + TEAMS_KEY;
    let got = lab.tell(&Ask::within(&ok, "INVITE", 3).body(&held).text());
    lab.tell(&Ask::within(&ok, "ACK", 3).text());
    assert_eq!(cryptos(&got[0]), cryptos(&ok), "a hold is no reason for another key");
    assert_eq!(media_of(&lab.take(0))[0].security, before.security);
    let other = savp(&sdp(3, "sendrecv")) + &TEAMS_KEY.replace("MTIz", "OTIz");
    let got = lab.tell(&Ask::within(&ok, "INVITE", 4).body(&other).text());
    lab.tell(&Ask::within(&ok, "ACK", 4).text());
    assert_ne!(cryptos(&got[0]), cryptos(&ok));
    let after = media_of(&lab.take(0)).remove(0);
    assert_ne!(keys(&after).receive, keys(&before).receive);
    assert_ne!(keys(&after).send, keys(&before).send);
    // Our own hold keeps what was agreed.
    lab.command(0, Command::Hold { call, on: true });
    lab.run_ms(20);
    let hold = lab.inbox(1).pop().unwrap();
    let ours = cryptos(&hold);
    assert!(
        body(&hold).contains("RTP/SAVP") && ours[0].ends_with(cryptos(&got[0])[0].split(' ').nth(2).unwrap())
    );
    release(&mut lab, call);
}

// RFC 4568 5.1.3, C8: a 200 with another key than the 183 is followed.
#[test]
fn f19_a_200_with_another_key_than_the_183_is_followed() {
    let mut lab = Lab::with(policy(Srtp::Required));
    let (call, invite) = lab.call_out();
    let first = savp(SDP) + TEAMS_KEY;
    lab.tell(&reply(&invite, 183, "peer", CONTACT, &first));
    let early = media_of(&lab.take(0)).remove(0);
    lab.tell(&reply(&invite, 200, "peer", CONTACT, &first.replace("MTIz", "OTIz")));
    let late = media_of(&lab.take(0)).remove(0);
    assert_eq!(keys(&early).send, keys(&late).send);
    assert_ne!(keys(&early).receive, keys(&late).receive);
    release(&mut lab, call);
    assert_clean(&mut lab);
}

#[test]
fn f18_two_endpoints_agree_on_keys() {
    for delayed in [false, true] {
        for (a_policy, b_policy, secure) in [
            (Srtp::Required, Srtp::Required, true),
            (Srtp::Required, Srtp::Preferred, true),
            (Srtp::Preferred, Srtp::Preferred, true),
            (Srtp::Preferred, Srtp::Never, false),
        ] {
            let mut pair = Pair::with(sip_trunk::Transport::Udp, |a, b| {
                (a.trunks[0].srtp, b.trunks[0].srtp) = (a_policy, b_policy);
                a.trunks[0].delayed_offer = delayed;
            });
            let (a, b) = pair.call();
            pair.command(1, Command::Answer { call: b, media: media(B_RTP) });
            pair.run_ms(100);
            let (ours, theirs) = (media_of(&pair.take(0)).remove(0), media_of(&pair.take(1)).remove(0));
            if secure {
                let (ours, theirs) = (keys(&ours), keys(&theirs));
                assert_eq!((&ours.send, ours.suite), (&theirs.receive[0], theirs.suite));
                assert_eq!(theirs.send, ours.receive[0]);
                assert_ne!(ours.send, theirs.send);
            } else {
                assert_eq!((ours.security, theirs.security), (MediaSecurity::None, MediaSecurity::None));
            }
            pair.command(0, Command::Release { call: a, cause: call_model::Cause::NORMAL_CALL_CLEARING });
            pair.assert_clean();
        }
    }
}
