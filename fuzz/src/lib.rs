//! The targets: each takes any bytes and panics if a promise is broken.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use call_model::{Cause, Codec, Direction, Fingerprint, FingerprintHash, ImageAttributes};
use sip_trunk::auth::{
    Authenticated, Authenticator, ClientAuth, Credentials, Ha1, Secret, parse_challenges, respond,
};
use sip_trunk::sdp::{MediaPolicy, OfferAnswer, Srtp};
use sip_trunk::trunk::numbers::{NumberFormat, NumberRules};
use sip_trunk::trunk::parameters::NumberParameters;
use sip_trunk::wire::framer::{Framed, Framer};
use sip_trunk::wire::limits::MessageLimits;
use sip_trunk::wire::tolerance::Tolerance;
use sip_trunk::{
    AccountConfig, AccountSecret, Command, ConnectionId, Endpoint, EndpointConfig, Event, Listener,
    LocalMedia, StreamEvent, Transmit, Transport, TrunkConfig,
};

const PASSWORD: &str = "open sesame";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

fn gateway() -> SocketAddr {
    address("10.0.0.1:5060")
}

fn peer() -> SocketAddr {
    address("10.0.0.2:5060")
}

/// An endpoint with one trunk and one account.
struct Bench {
    endpoint: Endpoint,
    now: Instant,
    calls: Vec<call_model::CallId>,
}

impl Bench {
    fn new() -> Self {
        let listeners =
            [Transport::Udp, Transport::Tcp].map(|transport| Listener { transport, local: gateway() });
        let trunk = TrunkConfig::new("far".parse().expect("name"), peer());
        let mut config = EndpointConfig::new(listeners.to_vec(), vec![trunk]);
        let secret = AccountSecret::Password(Secret::new(PASSWORD));
        let mut account = AccountConfig::new("200", "gw", secret, "desk".parse().expect("name"));
        account.max_contacts = 4;
        config.accounts.push(account);
        config.limits.transactions = 100;
        config.limits.calls = 20;
        let now = Instant::now();
        let endpoint = Endpoint::new(config, [7; 32], now, 1_700_000_000_000).expect("configuration");
        Self { endpoint, now, calls: Vec::new() }
    }

    fn hear(&mut self, source: SocketAddr, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.endpoint.handle_datagram(self.now, gateway(), source, bytes);
        self.sent()
    }

    /// Takes what is sent and said; every response must be one.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        while let Some(event) = self.endpoint.poll_event() {
            if let Event::Incoming { call, .. } = event {
                self.calls.push(call);
            }
        }
        let mut out = Vec::new();
        while let Some(transmit) = self.endpoint.poll_transmit() {
            match transmit {
                Transmit::Datagram { bytes, remote, .. } => {
                    assert_ne!(remote.port(), 0, "nothing can be sent to port 0");
                    out.push(bytes.to_vec());
                }
                Transmit::Stream { bytes, .. } => out.push(bytes.to_vec()),
                Transmit::Connect { connection, .. } => {
                    self.endpoint.handle_stream(self.now, connection, StreamEvent::ConnectFailed);
                }
                Transmit::Close { .. } => {}
            }
        }
        out.iter().for_each(|bytes| well_formed(bytes));
        out
    }

    /// Answers, ends, and lets every timer run out: nothing is left.
    fn rest(&mut self) {
        for call in std::mem::take(&mut self.calls) {
            let media = LocalMedia { rtp: address("10.0.0.1:20000") };
            let _ = self.endpoint.handle_command(self.now, Command::Answer { call, media });
            let cause = Cause::NORMAL_CALL_CLEARING;
            let _ = self.endpoint.handle_command(self.now, Command::Release { call, cause });
        }
        self.sent();
        let mut steps = 0;
        while let Some(at) = self.endpoint.poll_timeout() {
            steps += 1;
            assert!(steps < 20_000, "it does not come to rest");
            self.now = at.max(self.now);
            self.endpoint.handle_timeout(self.now);
            self.sent();
        }
        let left = self.endpoint.counters();
        assert_eq!((left.open_calls, left.held_calls, left.connections), (0, 0, 0));
        assert_eq!((left.client_transactions, left.server_transactions, left.registered_contacts), (0, 0, 0));
    }
}

/// A message of ours has a start line, headers that are some, and the body it says it has.
fn well_formed(bytes: &[u8]) {
    if bytes.iter().all(|byte| b"\r\n".contains(byte)) || bytes.first().is_some_and(|byte| *byte < 4) {
        return;
    }
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("no end of the header");
    let (head, body) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 4..]);
    for line in head.split("\r\n").skip(1) {
        let name = line.split(':').next().unwrap_or_default();
        let token = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        assert!(token && line.contains(": ") && !line.contains(['\r', '\n']), "{line:?}");
    }
    assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{head}");
}

/// A datagram of a trunk, and of a stranger.
pub fn message(data: &[u8]) {
    let mut bench = Bench::new();
    for source in [peer(), address("10.0.0.3:5060")] {
        assert!(bench.hear(source, data).len() <= 2, "one message, many answers");
    }
    bench.rest();
}

/// Bytes of a connection; the first says how they are cut.
pub fn stream(data: &[u8]) {
    let Some((size, data)) = data.split_first() else { return };
    let frames = |size: usize| {
        let limits = MessageLimits::default();
        let mut framer = Framer::new(limits, Tolerance::default());
        let mut out: Vec<Framed> = Vec::new();
        for piece in data.chunks(size.max(1)) {
            framer.push(piece);
            loop {
                match framer.poll() {
                    Ok(Some(frame)) => out.push(frame),
                    Ok(None) => break,
                    Err(_) => return (out, true),
                }
            }
            assert!(framer.head().len() <= limits.header_bytes + limits.body_bytes + data.len());
        }
        (out, false)
    };
    let whole = frames(data.len());
    let cut = frames(usize::from(*size));
    assert_eq!(whole, cut, "cut into pieces of {size}");
    let mut bench = Bench::new();
    let connection = ConnectionId(ConnectionId::INBOUND + 1);
    let (local, remote) = (gateway(), peer());
    bench.endpoint.handle_stream(
        bench.now,
        connection,
        StreamEvent::Opened { local, remote, inbound: true, transport: Transport::Tcp, identity: None },
    );
    for piece in data.chunks(usize::from(*size).max(1)) {
        bench.endpoint.handle_stream(bench.now, connection, StreamEvent::Data(piece));
        bench.sent();
    }
    bench.endpoint.handle_stream(bench.now, connection, StreamEvent::Closed);
    bench.rest();
}

/// A URI.
pub fn uri(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let rules = NumberRules {
        country_code: Some("44".to_owned()),
        national_prefix: Some("0".to_owned()),
        international_prefix: Some("00".to_owned()),
        format: NumberFormat::National,
        user_phone: true,
    };
    for rules in [NumberRules::default(), rules] {
        let Some(address) = rules.address_of_uri(&text) else { continue };
        let written = rules.uri_of(&address, "gw.example");
        assert_eq!(rules.address_of_uri(&written), Some(address), "{text} {written}");
    }
    NumberParameters::of_uri(&text);
    sip_trunk::trunk::numbers::user_part(&text);
}

/// Header lines of an INVITE of a trunk.
pub fn headers(data: &[u8]) {
    let mut bytes = b"INVITE sip:alice@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bKf;rport\r\n\
        From: <sip:+12025550100@10.0.0.2>;tag=f\r\nTo: <sip:alice@10.0.0.1>\r\nCall-ID: f\r\nCSeq: 1 INVITE\r\n\
        Contact: <sip:10.0.0.2>\r\n"
        .to_vec();
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
    message(&bytes);
}

/// Header lines of a REGISTER with the right password.
pub fn register(data: &[u8]) {
    let mut bench = Bench::new();
    let phone = address("10.0.0.3:5060");
    let ask = |cseq: u32, lines: &[u8]| {
        let mut bytes = format!(
            "REGISTER sip:gw SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.3;branch=z9hG4bKr{cseq};rport\r\n\
             From: <sip:200@gw>;tag=f\r\nTo: <sip:200@gw>\r\nCall-ID: f\r\nCSeq: {cseq} REGISTER\r\n"
        )
        .into_bytes();
        bytes.extend_from_slice(lines);
        bytes.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
        bytes
    };
    let challenged = bench.hear(phone, &ask(1, b"X: 1")).concat();
    let challenged = String::from_utf8_lossy(&challenged).into_owned();
    let values = challenged.lines().filter_map(|line| line.strip_prefix("WWW-Authenticate: "));
    let challenges = parse_challenges(values);
    let challenge = challenges.first().expect("a challenge");
    let who = Credentials { username: "200".to_owned(), password: Secret::new(PASSWORD), realm: None };
    // The lines are put behind ours, and once more as a later request.
    for cseq in [2, 3] {
        let value = respond(&who, challenge, "REGISTER", "sip:gw", b"", cseq, "c");
        let mut lines = format!("Authorization: {value}\r\n").into_bytes();
        lines.extend_from_slice(data);
        let sent = bench.hear(phone, &ask(cseq, &lines));
        assert!(sent.len() <= 2, "one REGISTER, many answers");
        let status = bench.endpoint.trunk_status();
        let contacts: usize =
            status.iter().filter_map(|trunk| trunk.account.as_ref()).map(|a| a.contacts.len()).sum();
        assert!(contacts <= 4, "{contacts} contacts");
        let ok =
            sent.iter().map(|bytes| String::from_utf8_lossy(bytes)).find(|m| m.starts_with("SIP/2.0 200"));
        if let Some(ok) = ok {
            let listed = ok.lines().filter(|line| line.starts_with("Contact: ")).count();
            assert_eq!(listed, contacts, "{ok}");
        }
    }
    bench.rest();
}

/// Challenges, and credentials nobody was told.
pub fn digest(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let challenges = parse_challenges(text.split('\n'));
    assert!(challenges.len() <= 8);
    let who = Credentials { username: "200".to_owned(), password: Secret::new(PASSWORD), realm: None };
    let mut client = ClientAuth::new(who);
    if client.challenged(text.split('\n'), [], 0).is_ok() {
        for (_, value) in client.headers("REGISTER", "sip:gw", b"", "c") {
            assert!(!value.contains(PASSWORD) && !value.contains(['\r', '\n']), "{value:?}");
        }
    }
    let source = IpAddr::from([10, 0, 0, 3]);
    let mut server = Authenticator::new("gw".to_owned(), [7; 32], Duration::from_secs(300));
    let ours = server.challenge(1_700_000_000, source, false);
    let known = Ha1::of_password("200", "gw", &Secret::new(PASSWORD));
    let request = Authenticated { method: "REGISTER", uri: "sip:gw", body: b"", unix: 1_700_000_000, source };
    for value in text.split('\n') {
        assert!(server.verify(value, &request, |_| Some(&known)).is_err(), "{value}");
        // The same with a nonce of ours: one line of these parameters, and no right answer.
        let nonce = ours.first().and_then(|c| c.split("nonce=\"").nth(1)).and_then(|c| c.split('"').next());
        let forged = value.replace("NONCE", nonce.unwrap_or_default());
        assert!(server.verify(&forged, &request, |_| Some(&known)).is_err(), "{forged}");
    }
}

/// A session description: as an offer, and as the answer to one of ours, whatever keys the media.
pub fn sdp(data: &[u8]) {
    for (tolerant, srtp) in
        [(true, Srtp::Never), (false, Srtp::Never), (true, Srtp::Preferred), (true, Srtp::Dtls)]
    {
        let mut policy = MediaPolicy::new(vec![Codec::Pcma, Codec::Pcmu], 20);
        (policy.tolerant, policy.srtp) = (tolerant, srtp);
        let read_by_ourselves = |body: &[u8]| read_by_ourselves(body, srtp);
        let local = address("10.0.0.1:20000");
        let mut session = secured(1 << 20);
        if session.receive_offer(data, &policy).is_ok()
            && let Ok(answer) = session.make_answer(local, &policy, Direction::SendRecv)
        {
            let lines = |body: &[u8]| body.split(|&b| b == b'\n').filter(|l| l.starts_with(b"m=")).count();
            assert!(lines(&answer.body) >= 1 && lines(&answer.body) <= lines(data).max(1));
            read_by_ourselves(&answer.body);
        }
        let mut session = secured(1 << 20);
        let offer = session.make_offer(local, &policy, Direction::SendRecv).expect("an offer");
        read_by_ourselves(&offer);
        let _ = session.accept_answer(data, &policy);
        let again = session.make_offer(local, &policy, Direction::SendOnly);
        if let Ok(body) = again {
            read_by_ourselves(&body);
        }
        // Where media has to be under SRTP there is no T.38.
        if matches!(srtp, Srtp::Never) {
            images(data, local, &policy);
        }
    }
}

/// A session that can key its media in any way.
fn secured(session: u64) -> OfferAnswer {
    let fingerprint = Fingerprint::new(FingerprintHash::Sha256, &[7; 32]);
    OfferAnswer::new(session).with_seed([7; 32]).with_fingerprint(fingerprint)
}

/// The same as an offer of T.38, and as the answer to one.
fn images(data: &[u8], local: SocketAddr, policy: &MediaPolicy) {
    let mut session = OfferAnswer::new(1 << 20);
    let offer = session.make_offer(local, policy, Direction::SendRecv).expect("an offer");
    session.withdraw_offer();
    let mut attributes = ImageAttributes::default();
    if let Ok(Some(image)) = session.receive_image_offer(data, policy) {
        assert_ne!(image.remote_udptl.port(), 0);
        attributes = image.attributes;
        if let Ok(answer) = session.make_image_answer(local, &attributes) {
            assert_eq!(image_of_ours(&answer.body, policy), attributes);
        }
    }
    let mut session = OfferAnswer::new(1 << 20);
    if session.receive_offer(&offer, policy).is_ok() {
        session.make_answer(local, policy, Direction::SendRecv).expect("an answer");
    }
    let ours = session.make_image_offer(local, policy, &attributes).expect("an offer of T.38");
    assert_eq!(image_of_ours(&ours, policy), attributes);
    let _ = session.accept_image_answer(data, policy);
    // Whatever came of it, audio may be offered again.
    read_by_ourselves(
        &session.make_offer(local, policy, Direction::SendRecv).expect("an offer of audio"),
        policy.srtp,
    );
}

/// The attributes of a description of T.38 of ours, read back.
fn image_of_ours(body: &[u8], policy: &MediaPolicy) -> ImageAttributes {
    let read = OfferAnswer::new(1).receive_image_offer(body, policy);
    read.ok().flatten().expect("T.38").attributes
}

/// What we write, we read: strictly, unless it refuses every line.
fn read_by_ourselves(body: &[u8], srtp: Srtp) {
    let text = String::from_utf8_lossy(body);
    assert!(text.starts_with("v=0\r\n") && text.ends_with("\r\n"), "{text}");
    let mut policy = MediaPolicy::new(vec![Codec::Pcma, Codec::Pcmu], 20);
    (policy.tolerant, policy.srtp) = (false, srtp);
    let read = secured(1).receive_offer(body, &policy);
    assert!(read.is_ok(), "{read:?} {text}");
}
