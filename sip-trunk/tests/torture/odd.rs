//! Odd SIP: what trunks, phones, scanners and attackers send.

use std::fmt::Write as _;

use crate::rig::Family::V4;
use crate::rig::Outcome::{self, Answer, Call, Silence};
use crate::rig::{Rig, status};
use sip_trunk::Event;

pub const SDP: &str = "v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\n\
    m=audio 30000 RTP/AVP 8 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n";

/// An INVITE with nothing wrong in it.
pub fn invite() -> String {
    format!(
        "INVITE sip:+442079460018@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2:5062;branch=z9hG4bKodd;rport\r\n\
         Max-Forwards: 70\r\nFrom: \"Bob\" <sip:+12025550100@10.0.0.2>;tag=bob\r\nTo: <sip:+442079460018@10.0.0.1>\r\n\
         Call-ID: odd@10.0.0.2\r\nCSeq: 7 INVITE\r\nContact: <sip:peer@10.0.0.2:5062>\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}",
        SDP.len()
    )
}

/// The INVITE with a piece of it exchanged.
fn with(from: &str, to: &str) -> Vec<u8> {
    let invite = invite();
    assert!(invite.contains(from), "{from}");
    invite.replacen(from, to, 1).into_bytes()
}

/// The INVITE with a header line more.
fn plus(line: &str) -> Vec<u8> {
    with("Max-Forwards: 70\r\n", &format!("Max-Forwards: 70\r\n{line}\r\n"))
}

/// The INVITE without a header line.
fn without(name: &str) -> Vec<u8> {
    let invite = invite();
    let (head, body) = invite.split_once("\r\n\r\n").unwrap();
    let prefix = format!("{name}:");
    let lines: Vec<&str> = head.split("\r\n").filter(|l| !l.starts_with(&prefix)).collect();
    assert!(lines.len() < head.split("\r\n").count(), "{name}");
    format!("{}\r\n\r\n{body}", lines.join("\r\n")).into_bytes()
}

/// The INVITE with another value of a header.
fn set(name: &str, value: &str) -> Vec<u8> {
    let invite = invite();
    let (head, body) = invite.split_once("\r\n\r\n").unwrap();
    let prefix = format!("{name}:");
    assert!(head.contains(&format!("\r\n{prefix}")), "{name}");
    let line = |l: &str| if l.starts_with(&prefix) { format!("{prefix} {value}") } else { l.to_owned() };
    let lines: Vec<String> = head.split("\r\n").map(line).collect();
    format!("{}\r\n\r\n{body}", lines.join("\r\n")).into_bytes()
}

/// The INVITE with another body.
pub fn body(kind: &str, body: &str) -> Vec<u8> {
    let invite = invite();
    let head = invite.split("\r\n\r\n").next().unwrap();
    let lines: Vec<&str> = head.split("\r\n").filter(|l| !l.starts_with("Content-")).collect();
    format!("{}\r\n{kind}Content-Length: {}\r\n\r\n{body}", lines.join("\r\n"), body.len()).into_bytes()
}

/// Another request, out of any dialog.
fn request(method: &str) -> Vec<u8> {
    let text = invite().replace("INVITE", method);
    let head = text.split("\r\n\r\n").next().unwrap();
    let lines: Vec<&str> = head.split("\r\n").filter(|l| !l.starts_with("Content-")).collect();
    format!("{}\r\nContent-Length: 0\r\n\r\n", lines.join("\r\n")).into_bytes()
}

fn uri(uri: &str) -> Vec<u8> {
    with("sip:+442079460018@10.0.0.1 SIP", &format!("{uri} SIP"))
}

pub type Case = (&'static str, Vec<u8>, Outcome);

pub fn check(cases: Vec<Case>) {
    let mut faults = String::new();
    for (name, bytes, expected) in cases {
        let mut rig = Rig::new(V4);
        let (outcome, answer) = rig.outcome(&bytes);
        if outcome == Call {
            let sent = rig.answer_all();
            assert!(sent.len() == 1 && status(&sent[0]) == 200, "{name}: {sent:?}");
        }
        rig.rest();
        if outcome != expected {
            let _ = writeln!(faults, "{name}: {outcome:?} instead of {expected:?}\n{answer}");
        }
        let mut rig = Rig::new(V4);
        rig.stream(&bytes, 50);
        rig.rest();
    }
    assert!(faults.is_empty(), "{faults}");
}

fn multipart(kind: &str, parts: &str) -> Vec<u8> {
    body(&format!("Content-Type: multipart/mixed{kind}\r\n"), parts)
}

/// RFC 3261 18.3, 7.3.1, 20.14.
#[test]
fn a16_odd_framing_has_its_outcome() {
    let length = format!("Content-Length: {}\r\n", SDP.len());
    let twice = |other: &str| with(&length, &format!("{length}{other}\r\n"));
    let lf = invite().split("\r\n\r\n").next().unwrap().replace("\r\n", "\n") + "\n\n" + SDP;
    let fields = |n: usize| plus(&(0..n).map(|n| format!("X-{n}: y")).collect::<Vec<_>>().join("\r\n"));
    check(vec![
        ("nothing odd", invite().into(), Call),
        ("two equal Content-Length", twice(length.trim_end()), Answer(400)),
        ("two different Content-Length", twice("l: 3"), Answer(400)),
        ("negative Content-Length", set("Content-Length", "-1"), Answer(400)),
        ("Content-Length with a sign", set("Content-Length", "+5"), Answer(400)),
        ("hexadecimal Content-Length", set("Content-Length", "0x10"), Answer(400)),
        ("empty Content-Length", set("Content-Length", ""), Answer(400)),
        ("Content-Length of 20 digits", set("Content-Length", "18446744073709551616"), Answer(400)),
        ("Content-Length beyond the datagram", set("Content-Length", "5000"), Answer(400)),
        ("Content-Length beyond the limit", set("Content-Length", "70000"), Answer(413)),
        ("Content-Length short of the datagram: the rest is noise", set("Content-Length", "0"), Call),
        ("Content-Length that cuts the last line", set("Content-Length", &(SDP.len() - 6).to_string()), Call),
        ("no Content-Length", without("Content-Length"), Call),
        ("LF only", lf.into(), Call),
        ("CR only", invite().replace("\r\n", "\r").into(), Silence),
        ("a bare CR in a value", plus("X: a\rb"), Answer(400)),
        ("leading CRLFs", format!("\r\n\r\n\r\n{}", invite()).into(), Call),
        ("leading blank", format!(" {}", invite()).into(), Silence),
        ("byte order mark", format!("\u{feff}{}", invite()).into(), Silence),
        ("NUL in a value", plus("X: a\0b"), Answer(400)),
        ("NUL in a name", plus("X\0Y: a"), Answer(400)),
        ("NUL behind the message", format!("{}\0\0\0", invite()).into(), Call),
        ("folding by tab", set("CSeq", "7\r\n\tINVITE"), Call),
        ("folding before the first field", with(" SIP/2.0\r\n", " SIP/2.0\r\n x\r\n"), Answer(400)),
        ("a line of blanks only", plus("X: y\r\n   "), Call),
        ("256 fields", fields(256 - 9), Call),
        ("257 fields", fields(257 - 9), Answer(400)),
        (
            "17 KiB of header",
            with("Content-Type", &format!("X: {}\r\nContent-Type", "y".repeat(17 * 1024))),
            Answer(513),
        ),
        ("17 KiB before From: nobody reads so far", plus(&format!("X: {}", "y".repeat(17 * 1024))), Silence),
        ("17 KiB in one name", plus(&format!("{}: y", "X".repeat(17 * 1024))), Silence),
        ("a header without an end", invite().split("Content-Type").next().unwrap().into(), Answer(400)),
        ("cut in the start line", b"INVITE sip:a@b".to_vec(), Silence),
        ("the same message twice in a datagram", [invite(), invite()].concat().into(), Call),
        ("empty datagram", Vec::new(), Silence),
        ("CRLF CRLF", b"\r\n\r\n".to_vec(), Silence),
        ("zeros", vec![0; 4], Silence),
        ("8 KiB of zeros", vec![0; 8192], Silence),
        ("8 KiB of LF", vec![b'\n'; 8192], Silence),
        ("8 KiB of colons", vec![b':'; 8192], Silence),
        ("one byte", b"I".to_vec(), Silence),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), Silence),
        ("STUN", b"\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl".to_vec(), Silence),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), Silence),
    ]);
}

/// RFC 3261 7.1, 19.1, 25.1; RFC 3966; RFC 5031.
#[test]
fn a16_odd_start_lines_have_their_outcome() {
    check(vec![
        ("lower-case method is another method", invite().replace("INVITE", "invite").into(), Answer(501)),
        ("lower-case version", with("SIP/2.0\r\nVia", "sip/2.0\r\nVia"), Call),
        ("version 3", with("SIP/2.0\r\nVia", "SIP/3.0\r\nVia"), Answer(505)),
        ("version 2.00", with("SIP/2.0\r\nVia", "SIP/2.00\r\nVia"), Answer(505)),
        ("tab in the start line", with("INVITE sip", "INVITE\tsip"), Answer(400)),
        ("no request URI", uri(""), Answer(400)),
        ("tel URI", uri("tel:+442079460018"), Call),
        ("tel URI with context", uri("tel:7042;phone-context=example.com"), Call),
        ("sips URI without TLS", uri("sips:+442079460018@10.0.0.1"), Answer(416)),
        ("emergency URN", uri("urn:service:sos"), Answer(416)),
        ("http URI", uri("http://10.0.0.1/"), Answer(416)),
        ("URI of 4 KiB", uri(&format!("sip:{}@10.0.0.1", "9".repeat(4096))), Call),
        ("URI without a user", uri("sip:10.0.0.1"), Call),
        ("URI with a password", uri("sip:bob:secret@10.0.0.1"), Call),
        ("URI with an empty user", uri("sip:@10.0.0.1"), Answer(400)),
        ("URI without a host", uri("sip:bob@"), Answer(400)),
        ("scheme only", uri("sip:"), Answer(400)),
        ("half an escape", uri("sip:%4@10.0.0.1"), Answer(400)),
        ("no hexadecimal escape", uri("sip:%zz@10.0.0.1"), Answer(400)),
        ("raw # in the user part", uri("sip:*31#0031@10.0.0.1"), Call),
        ("IPv6 zone", uri("sip:a@[fe80::1%25eth0]"), Answer(400)),
        ("IPv6 without an end", uri("sip:a@[2001:db8::1"), Answer(400)),
        ("port 65536", uri("sip:a@10.0.0.1:65536"), Answer(400)),
        ("empty port", uri("sip:a@10.0.0.1:"), Answer(400)),
        ("two at signs", uri("sip:a@b@10.0.0.1"), Answer(400)),
        ("UTF-8 in the user part", uri("sip:j\u{f6}rg@10.0.0.1"), Answer(400)),
        ("non-UTF-8 in the user part", with_byte("sip:+44", 0xff), Answer(400)),
        ("headers in the request URI", uri("sip:bob@10.0.0.1?Subject=x"), Answer(400)),
    ]);
}

/// The INVITE with one byte put behind the first `after`.
fn with_byte(after: &str, byte: u8) -> Vec<u8> {
    let mut bytes = invite().into_bytes();
    let at = invite().find(after).unwrap() + after.len();
    bytes.insert(at, byte);
    bytes
}

/// RFC 3261 8.1.1, 8.2, 20.
#[test]
fn a16_odd_mandatory_fields_have_their_outcome() {
    let via = |value: &str| set("Via", value);
    check(vec![
        ("no Via: nobody to answer", without("Via"), Silence),
        ("no From", without("From"), Answer(400)),
        ("no To", without("To"), Answer(400)),
        ("no Call-ID", without("Call-ID"), Answer(400)),
        ("no CSeq: nobody would know the answer", without("CSeq"), Silence),
        ("no Max-Forwards", without("Max-Forwards"), Call),
        ("no Contact", without("Contact"), Answer(400)),
        ("empty Via", via(""), Silence),
        ("empty From", set("From", ""), Answer(400)),
        ("empty To", set("To", ""), Answer(400)),
        ("empty Call-ID", set("Call-ID", ""), Answer(400)),
        ("empty CSeq", set("CSeq", ""), Silence),
        ("empty Contact", set("Contact", ""), Answer(400)),
        ("CSeq of 20 digits", set("CSeq", "18446744073709551616 INVITE"), Answer(400)),
        ("CSeq of 2**31, one too many (8.1.1.5)", set("CSeq", "2147483648 INVITE"), Answer(400)),
        ("CSeq of 2**31 - 1", set("CSeq", "2147483647 INVITE"), Call),
        ("negative CSeq", set("CSeq", "-1 INVITE"), Answer(400)),
        ("CSeq without a method", set("CSeq", "7"), Answer(400)),
        ("CSeq without a number", set("CSeq", "INVITE"), Answer(400)),
        ("CSeq of another method", set("CSeq", "7 BYE"), Answer(400)),
        ("CSeq in lower case", set("CSeq", "7 invite"), Answer(400)),
        ("CSeq twice", plus("CSeq: 7 INVITE"), Answer(400)),
        ("To twice", plus("t: <sip:x@y>"), Answer(400)),
        ("From twice", plus("f: <sip:x@y>;tag=1"), Answer(400)),
        ("Call-ID twice", plus("i: x"), Answer(400)),
        ("Max-Forwards twice", plus("Max-Forwards: 70"), Answer(400)),
        ("Max-Forwards 0", set("Max-Forwards", "0"), Answer(483)),
        ("Max-Forwards of letters", set("Max-Forwards", "many"), Answer(400)),
        ("negative Max-Forwards", set("Max-Forwards", "-1"), Answer(400)),
        ("Call-ID of 8 KiB", set("Call-ID", &"c".repeat(8192)), Call),
        (
            "To tag of a dialog that is not known",
            set("To", "<sip:a@10.0.0.1>;tag=00000000000000ff"),
            Answer(481),
        ),
        ("From without a tag", set("From", "<sip:bob@10.0.0.2>"), Call),
        ("display name with an open quote", set("From", "\"Bob <sip:bob@10.0.0.2>;tag=bob"), Answer(400)),
        ("display name in Latin-1", with_byte("\"Bob", 0xe9), Call),
        (
            "display name of 4 KiB",
            set("From", &format!("\"{}\" <sip:b@10.0.0.2>;tag=b", "n".repeat(4096))),
            Call,
        ),
        ("brackets that do not close", set("From", "<sip:bob@10.0.0.2;tag=bob"), Answer(400)),
        ("From without a URI", set("From", "<>;tag=bob"), Answer(400)),
        ("Via of SCTP", via("SIP/2.0/SCTP 10.0.0.2;branch=z9hG4bKodd"), Call),
        ("Via of a transport that is none", via("SIP/2.0/CARRIER-PIGEON 10.0.0.2;branch=z9hG4bKodd"), Call),
        ("Via of version 1", via("SIP/1.0/UDP 10.0.0.2;branch=z9hG4bKodd"), Call),
        ("Via of HTTP", via("HTTP/1.1/TCP 10.0.0.2;branch=z9hG4bKodd"), Call),
        ("Via port 0", via("SIP/2.0/UDP 10.0.0.2:0;branch=z9hG4bKodd"), Answer(400)),
        ("Via port 65536", via("SIP/2.0/UDP 10.0.0.2:65536;branch=z9hG4bKodd"), Answer(400)),
        ("Via without a host", via("SIP/2.0/UDP ;branch=z9hG4bKodd"), Answer(400)),
        ("Via without a branch", via("SIP/2.0/UDP 10.0.0.2"), Call),
        ("Via with an IPv6 zone", via("SIP/2.0/UDP [fe80::1%eth0];branch=z9hG4bKodd"), Answer(400)),
        ("100 Vias", plus(&vec!["Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx"; 100].join("\r\n")), Call),
        ("a broken Via beneath", plus("Via: rubbish"), Call),
        ("Contact that is a star", set("Contact", "*"), Answer(400)),
        ("Contact that is no URI", set("Contact", "<rubbish>"), Answer(400)),
        ("two Contacts", set("Contact", "<sip:a@10.0.0.2>, <sip:b@10.0.0.2>"), Call),
    ]);
}

/// RFC 3261 20: fields that an endpoint does not need, or may do without, do no harm.
#[test]
fn a16_odd_other_fields_have_their_outcome() {
    check(vec![
        ("field without a colon", plus("Nonsense"), Answer(400)),
        ("field without a name", plus(": x"), Answer(400)),
        ("field name that is no token", plus("Su(bject: x"), Answer(400)),
        ("blank before the colon", plus("Subject \t: x"), Call),
        ("empty Subject", plus("Subject:"), Call),
        ("empty Supported", plus("Supported:"), Call),
        ("empty Require", plus("Require:"), Call),
        ("Require of something unknown", plus("Require: precondition, x"), Answer(420)),
        ("Require over two lines", plus("Require: timer\r\nRequire: x"), Answer(420)),
        ("Route of rubbish", plus("Route: ;;;,,,<<<"), Call),
        ("Record-Route of rubbish", plus("Record-Route: ;;;,,,<<<"), Call),
        ("Date of no calendar", plus("Date: tomorrow"), Call),
        ("negative Expires", plus("Expires: -1"), Call),
        ("Privacy of rubbish", plus("Privacy: ;;,\"\r\nPrivacy:"), Call),
        (
            "identities of rubbish",
            plus("P-Asserted-Identity: <\"\r\nRemote-Party-ID: ;;\r\nDiversion: <"),
            Call,
        ),
        ("Session-Expires below the least", plus("Supported: timer\r\nSession-Expires: 1"), Answer(422)),
        ("Reason of rubbish", plus("Reason: Q.850;cause=\"99999999999\"\r\nReason: ;"), Call),
        ("Accept of another type", plus("Accept: text/plain"), Answer(406)),
        ("empty Accept", plus("Accept:"), Answer(406)),
        ("Accept of a range", plus("Accept: text/plain, application/*;q=0.5"), Call),
        ("Accept of everything", plus("Accept: */*"), Call),
        ("Allow without INVITE", plus("Allow: BYE"), Call),
        ("Authorization of rubbish", plus("Authorization: Digest ,,,=\"\r\nProxy-Authorization: x"), Call),
    ]);
}

/// RFC 3261 7.4, 8.2.3; RFC 2046 5.1; RFC 5621.
#[test]
fn a16_odd_bodies_have_their_outcome() {
    let part = format!("--x\r\nContent-Type: application/sdp\r\n\r\n{SDP}\r\n--x--\r\n");
    let isup = format!("--x\r\nContent-Type: application/isup\r\n\r\n\u{1}\0\r\n{part}");
    check(vec![
        ("no body", body("", ""), Call),
        ("a body without a type", body("", SDP), Call),
        ("type with parameters", body("c: APPLICATION/SDP ; charset=utf-8\r\n", SDP), Call),
        ("unknown type", body("Content-Type: text/html\r\n", "<p>"), Answer(415)),
        ("type of rubbish", body("Content-Type: ;\r\n", SDP), Answer(415)),
        (
            "packed body",
            body("Content-Type: application/sdp\r\nContent-Encoding: gzip\r\n", "\u{1f}"),
            Answer(415),
        ),
        ("multipart", multipart(";boundary=x", &part), Call),
        ("multipart, quoted boundary", multipart("; boundary=\"x\"", &part), Call),
        ("multipart with ISUP before", multipart(";boundary=x", &isup), Call),
        ("multipart without a boundary", multipart("", &part), Answer(415)),
        ("multipart with an empty boundary", multipart(";boundary=", &part), Answer(415)),
        (
            "multipart with a boundary of 71",
            multipart(&format!(";boundary={}", "x".repeat(71)), &part),
            Answer(415),
        ),
        ("multipart with another boundary", multipart(";boundary=y", &part), Answer(415)),
        ("multipart without an end", multipart(";boundary=x", part.trim_end_matches("--x--\r\n")), Call),
        (
            "multipart of nothing but boundaries",
            multipart(";boundary=x", &"--x\r\n".repeat(10_000)),
            Answer(415),
        ),
        ("multipart of 64 KiB", multipart(";boundary=x", &"-".repeat(65_536)), Answer(415)),
        (
            "body of 64 KiB and one",
            body("Content-Type: application/sdp\r\n", &"v".repeat(65_537)),
            Answer(413),
        ),
    ]);
}

/// RFC 3261 8.2.1, 12.2.2, 18.1.2: requests and responses that belong to nothing.
#[test]
fn a16_messages_of_no_dialog_have_their_outcome() {
    let response = |line: &str| with("INVITE sip:+442079460018@10.0.0.1 SIP/2.0", line);
    check(vec![
        ("BYE", request("BYE"), Answer(481)),
        ("PRACK", request("PRACK"), Answer(481)),
        ("UPDATE", request("UPDATE"), Answer(481)),
        ("INFO", request("INFO"), Answer(481)),
        ("NOTIFY", request("NOTIFY"), Answer(481)),
        ("CANCEL", request("CANCEL"), Answer(481)),
        ("ACK", request("ACK"), Silence),
        ("broken ACK", String::from_utf8(request("ACK")).unwrap().replace("From", "Frm").into(), Silence),
        ("REGISTER", request("REGISTER"), Answer(405)),
        ("PUBLISH", request("PUBLISH"), Answer(405)),
        ("MESSAGE", request("MESSAGE"), Answer(405)),
        ("unknown method", request("FROBNICATE"), Answer(501)),
        ("OPTIONS", request("OPTIONS"), Answer(200)),
        ("200 to nothing", response("SIP/2.0 200 OK"), Silence),
        ("100 to nothing", response("SIP/2.0 100"), Silence),
        ("status 99", response("SIP/2.0 099 No"), Silence),
        ("status 700", response("SIP/2.0 700 No"), Silence),
        ("status of letters", response("SIP/2.0 OK OK"), Silence),
        ("response of version 3", response("SIP/3.0 200 OK"), Silence),
    ]);
}

/// RFC 3261 18.2.1: `received` is what we saw, not what the sender says.
#[test]
fn a16_received_is_never_believed() {
    let mut rig = Rig::new(V4);
    let spoofed = "SIP/2.0/UDP 10.0.0.2;received=203.0.113.1;rport=9;branch=z9hG4bKodd";
    let (_, answer) = rig.outcome(&set("Via", spoofed));
    assert!(answer.contains(";received=10.0.0.2;rport=5062;"), "{answer}");
    rig.rest();
}

/// RFC 4475 3.2.1: a branch that is the cookie alone does not make two calls one.
#[test]
fn a16_branches_of_the_cookie_alone_name_nothing() {
    let mut rig = Rig::new(V4);
    for call in ["a", "b"] {
        let invite = invite().replace("z9hG4bKodd", "z9hG4bK").replace("odd@", call);
        assert_eq!(rig.outcome(invite.as_bytes()).0, Call);
        // A repetition is still known as one.
        assert_eq!(status(&rig.hear(invite.as_bytes())[0]), 100);
    }
    assert_eq!(rig.calls().len(), 2);
    rig.rest();
}

/// RFC 3261 9.1, 9.2: a CANCEL is matched by its branch; its CSeq number is not ours to judge.
#[test]
fn a16_cancel_is_matched_by_branch() {
    let mut rig = Rig::new(V4);
    rig.outcome(invite().as_bytes());
    let other = String::from_utf8(request("CANCEL")).unwrap();
    let stranger = other.replace("z9hG4bKodd", "z9hG4bKother");
    assert_eq!(rig.outcome(stranger.as_bytes()).0, Answer(481));
    let sent = rig.hear(other.replace("CSeq: 7 ", "CSeq: 8 ").as_bytes());
    let statuses: Vec<u16> = sent.iter().map(|m| status(m)).collect();
    assert_eq!(statuses, [200, 487]);
    rig.rest();
}

/// Writes responses to an INVITE of the gateway.
pub struct Responder(pub String);

impl Responder {
    fn header(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        self.0.split("\r\n").find_map(|l| l.strip_prefix(&prefix)).unwrap()
    }

    pub fn response(&self, line: &str, tag: &str, more: &str, body: &str) -> String {
        format!(
            "SIP/2.0 {line}\r\nVia: {}\r\nFrom: {}\r\nTo: {}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n{more}\
             Contact: <sip:peer@10.0.0.2>\r\nContent-Length: {}\r\n\r\n{body}",
            self.header("Via"),
            self.header("From"),
            self.header("To"),
            self.header("Call-ID"),
            self.header("CSeq"),
            body.len()
        )
    }
}

pub const TYPE: &str = "Content-Type: application/sdp\r\n";

/// RFC 3261 17.1, 13.2.2: an outgoing call outlives rubbish, and is answered after it.
#[test]
fn a16_odd_responses_do_not_end_a_call() {
    let mut rig = Rig::new(V4);
    let to = Responder(rig.place());
    let ringing = to.response("180 Ringing", ";tag=x", "", "");
    let rubbish = [
        to.response("100 ", "", "", ""),
        to.response("180", ";tag=x", "", ""),
        to.response("183 Progress", ";tag=x", TYPE, "rubbish\0\u{ff}"),
        to.response("183 Progress", ";tag=y", TYPE, "v=0\r\nm=audio"),
        to.response("183 Progress", ";tag=z", "Content-Type: image/png\r\n", "\u{89}PNG"),
        to.response("199 Early Dialog Terminated", ";tag=z", "Reason: ;;;\r\n", ""),
        to.response("180 = 2**3 * 5**2 \u{43d}\u{43e}", ";tag=x", "RSeq: x\r\nRequire:\r\n", ""),
        ringing.replace("180", "099"),
        ringing.replace("180", "700"),
        ringing.replace("180", "999"),
        ringing.replace("180", "4294967301"),
        ringing.replace("INVITE", "BYE"),
        ringing.replace("CSeq: ", "CSeq: 99"),
        ringing.replace("z9hG4bK", "z9hG4bKx"),
        ringing.replace("Content-Length: 0", "Content-Length: 5"),
        ringing.replace("Via:", "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\nVia:"),
    ];
    for text in &rubbish {
        let sent = rig.hear(text.as_bytes());
        assert!(sent.is_empty(), "{text}\n{sent:?}");
    }
    assert!(!rig.events.iter().any(|e| matches!(e, Event::Ended { .. })), "{:?}", rig.events);
    let sent = rig.hear(to.response("200 OK", ";tag=x", TYPE, SDP).as_bytes());
    assert!(sent.len() == 1 && sent[0].starts_with("ACK "), "{sent:?}");
    assert!(rig.events.iter().any(|e| matches!(e, Event::Answered { .. })));
    rig.hang_up();
    rig.rest();
}

/// RFC 3261 8.1.3.3, RFC 4475 3.3.10: a response with another Via beneath ours went astray.
#[test]
fn a16_responses_with_two_vias_are_dropped() {
    let mut rig = Rig::new(V4);
    let to = Responder(rig.place());
    let busy = to.response("486 Busy Here", ";tag=x", "", "");
    let other = "SIP/2.0/UDP 255.255.255.255;branch=z9hG4bK1saber23";
    let beneath = busy.replacen("From:", &format!("Via: {other}\r\nFrom:"), 1);
    let beside = busy.replacen("\r\nFrom:", &format!(", {other}\r\nFrom:"), 1);
    for text in [&beneath, &beside] {
        assert!(text.contains("1saber23"));
        assert!(rig.hear(text.as_bytes()).is_empty(), "{text}");
    }
    assert!(!rig.events.iter().any(|e| matches!(e, Event::Ended { .. })));
    assert!(rig.hear(busy.as_bytes())[0].starts_with("ACK "));
    rig.rest();
}
