//! The torture messages of RFC 4475 and RFC 5118, and other odd ones, sent to an endpoint from the
//! address of a trunk: each is taken, answered or dropped as the RFC states, and leaves nothing.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, unreachable_pub)]

mod mutations;
mod odd;
mod odd_sdp;
mod rig;

use rig::Family::{V4, V6};
use rig::Outcome::{Answer, Call, Silence};
use rig::{Family, Outcome, Rig};
use sip_trunk::Event;

/// One message: its name, its section, its bytes, what comes of it, and what the answer holds.
pub struct Vector {
    pub name: &'static str,
    pub section: &'static str,
    pub bytes: &'static [u8],
    pub family: Family,
    pub outcome: Outcome,
    pub holds: &'static [&'static str],
}

macro_rules! vectors {
    ($folder:literal $family:ident $($section:literal $name:literal $outcome:expr, $holds:expr;)*) => {
        &[$(Vector {
            name: $name,
            section: $section,
            bytes: include_bytes!(concat!($folder, "/", $name, ".sip")),
            family: $family,
            outcome: $outcome,
            holds: &$holds,
        }),*]
    };
}

const ALLOW: &str = "\r\nAllow: INVITE, ";

/// RFC 4475 3. A REGISTER that is well formed gets 405: an endpoint that is no registrar inspects
/// the method before any other header (RFC 3261 8.2.1), so what a registrar would say is moot.
#[rustfmt::skip]
pub const RFC4475: &[Vector] = vectors! { "rfc4475" V4
    // A request within a dialog, by its To tag: well formed, but the dialog is not known (RFC 3261 12.2.2).
    "3.1.1.1" "wsinv" Answer(481), ["SIP  /    2.0   / UDP  192.168.255.111", "To: sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n\r\n"];
    "3.1.1.2" "intmeth" Answer(501), [ALLOW, "CSeq: 139122385 !interesting-Method0123456789_*+`.%indeed'~\r\n"];
    "3.1.1.3" "esc01" Call, ["From: <sip:I%20have%20spaces@example.net>;tag=938\r\n"];
    "3.1.1.4" "escnull" Answer(405), [ALLOW, "To: sip:null-%00-null@example.com;tag="];
    "3.1.1.5" "esc02" Answer(501), [ALLOW, "CSeq: 29344 RE%47IST%45R\r\n"];
    "3.1.1.6" "lwsdisp" Answer(200), ["From: caller<sip:caller@example.com>;tag=323\r\n"];
    "3.1.1.7" "longreq" Call, ["Via: SIP/2.0/TCP sip33.example.com", "Via: SIP/2.0/TCP sip1.example.com"];
    // What follows the first message in the datagram is ignored.
    "3.1.1.8" "dblreq" Answer(405), ["CSeq: 8 REGISTER\r\n"];
    "3.1.1.9" "semiuri" Answer(200), [];
    "3.1.1.10" "transports" Answer(200), ["Via: SIP/2.0/UDP t1", "Via: SIP/2.0/SCTP t2", "Via: SIP/2.0/TLS t3", "Via: SIP/2.0/UNKNOWN t4", "Via: SIP/2.0/TCP t5"];
    "3.1.1.11" "mpart01" Answer(405), [ALLOW];
    // Responses to nothing that was asked: read, and dropped (RFC 3261 18.1.2).
    "3.1.1.12" "unreason" Silence, [];
    "3.1.1.13" "noreason" Silence, [];
    "3.1.2.1" "badinv01" Answer(400), [];
    "3.1.2.2" "clerr" Answer(400), [];
    "3.1.2.3" "ncl" Answer(400), [];
    "3.1.2.4" "scalar02" Answer(400), [];
    "3.1.2.5" "scalarlg" Silence, [];
    // 3.1.2.6 to 3.1.2.11: an element may also mend these. Two readers would not mend alike: 400.
    "3.1.2.6" "quotbal" Answer(400), [];
    "3.1.2.7" "ltgtruri" Answer(400), [];
    "3.1.2.8" "lwsruri" Answer(400), [];
    "3.1.2.9" "lwsstart" Answer(400), [];
    "3.1.2.10" "trws" Answer(400), [];
    "3.1.2.11" "escruri" Answer(400), [];
    // An element that does not use Date should not refuse for it.
    "3.1.2.12" "baddate" Call, [];
    "3.1.2.13" "regbadct" Answer(405), [];
    "3.1.2.14" "badaspec" Answer(400), [];
    "3.1.2.15" "baddn" Answer(400), [];
    "3.1.2.16" "badvers" Answer(505), [];
    "3.1.2.17" "mismatch01" Answer(400), [];
    // 400 would do; 501 has "better future-proof characteristics".
    "3.1.2.18" "mismatch02" Answer(501), [];
    "3.1.2.19" "bigcode" Silence, [];
    // 400, or matching as in RFC 2543; the answer to OPTIONS keeps no state either way.
    "3.2.1" "badbranch" Answer(200), [];
    "3.3.1" "insuf" Answer(400), ["Via: SIP/2.0/UDP 192.0.2.95;branch=z9hG4bKkdj.insuf;received=10.0.0.2\r\n", "CSeq: 193942 INVITE\r\n"];
    "3.3.2" "unkscm" Answer(416), [];
    "3.3.3" "novelsc" Answer(416), [];
    "3.3.4" "unksm2" Answer(405), ["To: isbn:2983792873;tag="];
    "3.3.5" "bext01" Answer(420), ["Unsupported: nothingSupportsThis, nothingSupportsThisEither\r\n"];
    "3.3.6" "invut" Answer(415), ["Accept: application/sdp"];
    "3.3.7" "regaut01" Answer(405), [];
    "3.3.8" "multi01" Answer(400), [];
    "3.3.9" "mcl01" Answer(400), [];
    // More than one Via: not for us (RFC 3261 8.1.3.3), and never sent on to 255.255.255.255.
    "3.3.10" "bcast" Silence, [];
    // The last hop may answer OPTIONS (RFC 3261 11, 16.3).
    "3.3.11" "zeromf" Answer(200), [];
    "3.3.12" "cparam01" Answer(405), [];
    "3.3.13" "cparam02" Answer(405), [];
    "3.3.14" "regescrt" Answer(405), [];
    // 400 would do; 406 says what is wrong.
    "3.3.15" "sdp01" Answer(406), ["Warning: 399 "];
    "3.4.1" "inv2543" Call, ["Via: SIP/2.0/UDP iftgw.example.com;received=10.0.0.2\r\n"];
};

/// RFC 5118 4.
#[rustfmt::skip]
pub const RFC5118: &[Vector] = vectors! { "rfc5118" V6
    "4.1" "ipv6-good" Answer(405), ["Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKas3-111;received=2001:db8::20\r\n"];
    "4.2" "ipv6-bad" Answer(400), [];
    "4.3" "port-ambiguous" Answer(405), [];
    "4.4" "port-unambiguous" Answer(405), [];
    "4.5" "via-received-param-with-delim" Answer(481), ["received=2001:db8::20;branch=z9hG4bKas3-111\r\n"];
    "4.5" "via-received-param-no-delim" Answer(200), ["received=2001:db8::20;branch=z9hG4bKas3\r\n"];
    // 4.6 and 4.9 are well formed; the trunk does not speak their G.726.
    "4.6" "ipv6-in-sdp" Answer(488), ["Warning: 305 "];
    "4.7" "mult-ip-in-header" Answer(481), ["Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKjhja8781hjuaij65144\r\n", "Via: SIP/2.0/TCP [2001:db8::9:255];branch=z9hG4bK451jj;received=192.0.2.200\r\n"];
    "4.8" "mult-ip-in-sdp" Call, [];
    "4.9" "ipv4-mapped-ipv6" Answer(488), ["Warning: 305 "];
    // Three colons come from the grammar of RFC 3261: accepted, never made.
    "4.10" "ipv6-bug-abnf-3-colons" Answer(200), [];
    "4.10" "ipv6-correct-abnf-2-colons" Answer(200), [];
};

fn check(vector: &Vector) -> Result<(), String> {
    let mut rig = Rig::new(vector.family);
    let (outcome, answer) = rig.outcome(vector.bytes);
    rig.rest();
    let whose = format!("{} {}", vector.section, vector.name);
    if outcome != vector.outcome {
        return Err(format!("{whose}: {outcome:?} instead of {:?}\n{answer}", vector.outcome));
    }
    match vector.holds.iter().find(|part| !answer.contains(**part)) {
        Some(part) => Err(format!("{whose}: no {part:?} in\n{answer}")),
        None => Ok(()),
    }
}

fn check_all(vectors: &[Vector]) {
    let faults: Vec<String> = vectors.iter().filter_map(|v| check(v).err()).collect();
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), vectors.len(), faults.join("\n"));
}

/// RFC 4475 3.
#[test]
fn a16_every_message_of_rfc_4475_has_its_outcome() {
    assert_eq!(RFC4475.len(), 49);
    check_all(RFC4475);
}

/// RFC 5118 4.
#[test]
fn a16_every_message_of_rfc_5118_has_its_outcome() {
    assert_eq!(RFC5118.len(), 12);
    check_all(RFC5118);
}

/// The calls that came of the messages can be answered; nobody acknowledges, and they end.
#[test]
fn a16_calls_of_torture_messages_can_be_answered() {
    let calls = RFC4475.iter().chain(RFC5118).filter(|v| v.outcome == Call);
    for vector in calls {
        let mut rig = Rig::new(vector.family);
        rig.hear(vector.bytes);
        let sent = rig.answer_all();
        assert_eq!(sent.len(), 1, "{}: {sent:#?}", vector.name);
        assert_eq!(rig::status(&sent[0]), 200, "{}: {sent:#?}", vector.name);
        rig.rest();
    }
}

/// A repeated message gets the same answer and makes no second call (RFC 3261 8.2.7, 17.2).
#[test]
fn a16_repeated_torture_messages_change_nothing() {
    for vector in RFC4475.iter().chain(RFC5118) {
        let mut rig = Rig::new(vector.family);
        let first = rig.hear(vector.bytes);
        let second = rig.hear(vector.bytes);
        assert_eq!(first, second, "{}", vector.name);
        assert!(rig.calls().len() <= 1, "{}", vector.name);
        rig.rest();
    }
}

/// From an address of no trunk there is 403 or nothing, and no state.
#[test]
fn a16_torture_messages_of_strangers_are_not_read() {
    for vector in RFC4475.iter().chain(RFC5118) {
        let mut rig = Rig::new(vector.family);
        let stranger = match vector.family {
            V4 => "203.0.113.9:5060",
            V6 => "[2001:db8:bad::1]:5060",
        };
        let sent = rig.hear_from(stranger.parse().unwrap(), vector.bytes);
        assert!(sent.iter().all(|m| m.starts_with("SIP/2.0 403 ")), "{}: {sent:#?}", vector.name);
        assert!(rig.calls().is_empty() && sent.len() <= 1, "{}", vector.name);
        rig.rest();
    }
}

/// On a stream, in pieces of any size: the same answers for each size, and nothing left.
#[test]
fn a16_torture_messages_on_a_stream_are_survived() {
    for vector in RFC4475.iter().chain(RFC5118) {
        let play = |size: usize| {
            let mut rig = Rig::new(vector.family);
            let sent = rig.stream(vector.bytes, size);
            rig.rest();
            sent
        };
        let whole = play(usize::MAX);
        for size in [1, 7, 64] {
            assert_eq!(play(size), whole, "{} in pieces of {size}", vector.name);
        }
    }
}

/// RFC 3261 18.3, 20.14: on a stream Content-Length alone frames, and what cannot be framed ends the
/// connection after its answer, because nobody knows where the next message begins.
#[test]
fn a16_framing_faults_end_a_stream() {
    let options = b"OPTIONS sip:10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.2;branch=z9hG4bKafter\r\n\
        From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: after\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";
    // The answers to the message with an OPTIONS behind it.
    let table: [(&str, &[u16]); 8] = [
        ("ncl", &[400]),
        ("mcl01", &[400]),
        ("inv2543", &[400]),
        ("badvers", &[505]),
        // 9999 bytes were promised: the OPTIONS is among them.
        ("clerr", &[]),
        // Faults behind the framing cost the message alone.
        ("scalar02", &[400, 200]),
        ("semiuri", &[200, 200]),
        // What a datagram ends with is noise; on a stream it is the next message: an INVITE without
        // Contact, whose length is less than its body.
        ("dblreq", &[405, 400]),
    ];
    for (name, expected) in table {
        let mut rig = Rig::new(V4);
        let bytes = [vector(name).bytes, options].concat();
        let statuses: Vec<u16> = rig.stream(&bytes, 100).iter().map(|m| rig::status(m)).collect();
        assert_eq!(statuses, expected, "{name}");
        rig.rest();
    }
}

fn vector(name: &str) -> &'static Vector {
    RFC4475.iter().find(|v| v.name == name).unwrap()
}

/// RFC 4475 3.1.1.1, 3.1.1.3, 3.4.1: what is read out of the messages is what they mean.
#[test]
fn a16_torture_messages_are_understood() {
    let called = |bytes: &[u8]| {
        let mut rig = Rig::new(V4);
        rig.hear(bytes);
        let called = rig.events.iter().find_map(|e| match e {
            Event::Incoming { called_user, caller, has_offer, .. } => {
                assert!(has_offer);
                Some((called_user.clone(), caller.display_name.clone()))
            }
            _ => None,
        });
        rig.rest();
        called
    };
    let user = |name: &str| called(vector(name).bytes).map(|(user, _)| user);
    assert_eq!(user("esc01").as_deref(), Some("sips:user@example.com"));
    assert_eq!(user("inv2543").as_deref(), Some("UserB"));
    assert_eq!(user("baddate").as_deref(), Some("user"));
    // But for its To tag the tortuous INVITE begins a call.
    let text = String::from_utf8(vector("wsinv").bytes.to_vec()).unwrap();
    let fresh = text.replacen(" ;   tag    = 1918181833n", "", 1);
    let expected = ("vivekg".to_owned(), Some("J Rosenberg \\\"".to_owned()));
    assert_eq!(called(fresh.as_bytes()), Some(expected));
}

/// RFC 4475 3.1.1.12, 3.1.1.13, 3.3.10 against 3.1.2.5, 3.1.2.19: both kinds of response get silence,
/// the former because they were read and belong to nothing.
#[test]
fn a16_responses_are_dropped_for_the_right_reason() {
    let stray = |name: &str| {
        let mut rig = Rig::new(V4);
        rig.hear(vector(name).bytes);
        rig.endpoint.counters().refused.contains_key("stray_response")
    };
    assert!(["unreason", "noreason", "bcast"].into_iter().all(stray));
    assert!(!["scalarlg", "bigcode"].into_iter().any(stray));
}
