//! The trunk leg under SRTP that DTLS keys between the media addresses (RFC 5763, RFC 5764): two legs over a network with
//! all its faults.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{
    Codec, Direction, DtlsParameters, DtlsRole, Fingerprint, FingerprintHash, LegMedia, MediaSecurity,
};
use str0m::crypto::dtls::{DtlsOutput, DtlsVersion};
use transcoder::leg::PayloadKind;
use transcoder::leg::rtp::{Received, Refusal, RtpLeg, SourceRule};
use transcoder::rtp::RtpSender;
use transcoder::{DtlsIdentity, LegFailure, MediaError, Port};

#[path = "common/mod.rs"]
mod common;
use common::call::trunk_media;
use common::{Network, Random, Weather, address, certificate};

const A: [&str; 2] = ["192.0.2.1:20000", "192.0.2.1:20001"];
const B: [&str; 2] = ["203.0.113.5:30000", "203.0.113.5:30001"];
const STRANGER: &str = "198.51.100.66:4444";
const SECOND: Duration = Duration::from_secs(1);
const ROLES: [DtlsRole; 2] = [DtlsRole::Active, DtlsRole::Passive];

/// Media with whom DTLS keys it.
fn media(remote: [&str; 2], mux: bool, parameters: DtlsParameters) -> LegMedia {
    let mut media = trunk_media(Codec::Pcma, 20);
    media.telephone_event = None;
    (media.remote_rtp, media.remote_rtcp) = (address(remote[0]), (!mux).then(|| address(remote[1])));
    media.security = MediaSecurity::DtlsSrtp(Box::new(parameters));
    media
}

struct End {
    leg: RtpLeg,
    identity: DtlsIdentity,
    locals: [SocketAddr; 2],
    heard: Vec<Vec<u8>>,
    refused: Vec<Refusal>,
    failures: Vec<LegFailure>,
    /// What went out, with its port.
    sent: Vec<(Port, Vec<u8>)>,
    time: u64,
}

impl End {
    fn new(seed: u64, locals: [&str; 2], now: Instant) -> Self {
        let identity = DtlsIdentity::generate().unwrap();
        Self {
            leg: RtpLeg::new(seed, now).with_identity(Some(identity.clone())),
            identity,
            locals: locals.map(address),
            heard: Vec::new(),
            refused: Vec::new(),
            failures: Vec::new(),
            sent: Vec::new(),
            time: 0,
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint()
    }

    /// How many datagrams of DTLS went out on a port.
    fn handshakes(&self, of: Port) -> usize {
        self.sent.iter().filter(|(port, bytes)| *port == of && (20..=63).contains(&bytes[0])).count()
    }

    /// Lets the leg do something and sends what comes of it.
    fn work<T>(&mut self, net: &mut Network, work: impl FnOnce(&mut RtpLeg, &mut Emit<'_>) -> T) -> T {
        let (locals, sent) = (self.locals, &mut self.sent);
        let result = work(&mut self.leg, &mut |port, to, bytes| {
            sent.push((port, bytes.to_vec()));
            net.send(locals[port as usize], to, bytes);
        });
        self.failures.extend(self.leg.poll_failure());
        result
    }

    fn deliver(&mut self, net: &mut Network, port: Port, from: SocketAddr, bytes: &[u8]) {
        let now = net.now;
        match self.leg.handle_datagram(now, port, from, bytes) {
            Ok(Received::Audio(packet, _)) => self.heard.push(packet.payload().to_vec()),
            Ok(Received::Nothing) => {}
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => self.refused.push(refusal),
        }
        self.work(net, |leg, emit| leg.poll_transmit(now, emit));
    }

    /// Sends 20 ms of voice. Says whether it went out.
    fn speak(&mut self, net: &mut Network, payload: &[u8]) -> bool {
        let (now, time) = (net.now, self.time);
        self.time += 160;
        self.work(net, |leg, emit| leg.send(now, PayloadKind::Audio, false, time, payload, emit))
    }
}

type Emit<'a> = dyn FnMut(Port, SocketAddr, &[u8]) + 'a;

struct Pair {
    net: Network,
    a: End,
    b: End,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let net = Network::new(seed);
        let now = net.now;
        Self { net, a: End::new(seed, A, now), b: End::new(seed + 1, B, now) }
    }

    /// What A negotiates in a role, and B in the other.
    fn media(&self, role: DtlsRole, mux: bool) -> [LegMedia; 2] {
        let parameters = |role, theirs: &End| DtlsParameters {
            role,
            fingerprints: vec![theirs.fingerprint()],
            tls_id: None,
        };
        let a = media(B, mux, parameters(role, &self.b));
        [a, media(A, mux, parameters(role.reversed(), &self.a))]
    }

    fn set(&mut self, [a, b]: &[LegMedia; 2]) {
        self.a.leg.set_media(a, self.net.now).unwrap();
        self.b.leg.set_media(b, self.net.now).unwrap();
    }

    fn connected(role: DtlsRole, mux: bool) -> Self {
        let mut pair = Self::new(7);
        let both = pair.media(role, mux);
        pair.set(&both);
        pair.run(SECOND);
        assert!(pair.keyed());
        pair
    }

    fn keyed(&self) -> bool {
        self.a.leg.can_send() && self.b.leg.can_send()
    }

    fn run(&mut self, duration: Duration) {
        self.run_until(duration, |_| false);
    }

    /// Runs until something holds, or the time is over. Returns whether it holds.
    fn run_until(&mut self, duration: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let until = self.net.now + duration;
        loop {
            let now = self.net.now;
            while let Some(datagram) = self.net.due() {
                let (to, net) = (datagram.to, &mut self.net);
                for end in [&mut self.a, &mut self.b] {
                    for port in [Port::Rtp, Port::Rtcp] {
                        if end.locals[port as usize] == to {
                            end.deliver(net, port, datagram.from, &datagram.bytes);
                        }
                    }
                }
            }
            for end in [&mut self.a, &mut self.b] {
                if end.leg.poll_timeout().is_some_and(|at| at <= now) {
                    end.work(&mut self.net, |leg, emit| leg.handle_timeout(now, emit));
                }
            }
            if done(self) {
                return true;
            }
            let timers = [self.net.next_at(), self.a.leg.poll_timeout(), self.b.leg.poll_timeout()];
            let next = timers.into_iter().flatten().min().unwrap_or(until);
            if next >= until {
                self.net.now = until;
                return false;
            }
            self.net.now = next.max(now + Duration::from_micros(10));
        }
    }

    /// Both say something, and what is heard of it is returned.
    fn talk(&mut self) -> (usize, usize) {
        let before = (self.a.heard.len(), self.b.heard.len());
        for n in 0..10 {
            assert!(self.a.speak(&mut self.net, &[n; 160]) && self.b.speak(&mut self.net, &[n | 0x80; 160]));
            self.run(Duration::from_millis(20));
        }
        self.run(SECOND / 10);
        (self.a.heard.len() - before.0, self.b.heard.len() - before.1)
    }
}

// RFC 5764 3, 4.1, 4.2: in either role, with RTCP on the port of RTP and on one of its own, where it has a handshake
// of its own.
#[test]
fn f20_two_legs_agree_on_keys_and_carry_voice_and_reports() {
    for (role, mux) in [(ROLES[0], true), (ROLES[0], false), (ROLES[1], true), (ROLES[1], false)] {
        let mut pair = Pair::new(1);
        let both = pair.media(role, mux);
        pair.set(&both);
        assert!(!pair.a.speak(&mut pair.net, &[1; 160]), "before there are keys");
        assert!(pair.run_until(SECOND, Pair::keyed), "{role:?} {mux}");
        // The paths take 5 ms, and a handshake is two round trips.
        assert!(pair.net.elapsed() <= Duration::from_millis(25), "{:?}", pair.net.elapsed());
        assert_eq!(pair.talk(), (10, 10));
        pair.run(20 * SECOND);
        for (one, other) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
            let counters = one.leg.counters();
            assert_eq!(one.heard.len(), 10);
            assert_eq!((counters.refused(), &one.refused[..], &one.failures[..]), (0, &[][..], &[][..]));
            assert!(counters.rtcp_sent >= 2 && counters.rtcp_received == other.leg.counters().rtcp_sent);
            assert!(one.leg.round_trip().is_some());
            assert_eq!(one.handshakes(Port::Rtcp) > 0, !mux);
            let in_the_clear = |bytes: &[u8]| bytes.windows(16).any(|part| part == [part[0]; 16]);
            let mut media = one.sent.iter().filter(|(_, bytes)| bytes[0] >= 128);
            assert!(media.all(|(_, bytes)| !in_the_clear(bytes)));
        }
        assert_eq!(pair.a.heard[3], [0x83; 160]);
    }
}

// RFC 6347 4.2.4: flights are sent again; fragments and messages come in any order.
#[test]
fn f20_a_handshake_survives_loss_copies_and_disorder() {
    for seed in 0..40 {
        println!("seed {seed}");
        let mut pair = Pair::new(seed);
        pair.net.weather = Weather {
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(200),
            loss_per_mille: 200,
            duplicate_per_mille: 200,
        };
        let both = pair.media(ROLES[seed as usize % 2], seed % 4 < 2);
        pair.set(&both);
        assert!(pair.run_until(600 * SECOND, Pair::keyed), "seed {seed}: {:?}", pair.net.elapsed());
        pair.net.weather = Weather { delay: Duration::from_millis(20), ..Weather::default() };
        pair.run(SECOND);
        assert_eq!(pair.talk(), (10, 10), "seed {seed}");
        assert_eq!((pair.a.failures.len(), pair.b.failures.len()), (0, 0), "seed {seed}");
    }
}

// RFC 8122 5, RFC 5763 5: whose certificate is another than the description says is nobody to talk to.
#[test]
fn f20_a_wrong_certificate_ends_the_handshake_and_is_counted() {
    for role in ROLES {
        let mut pair = Pair::new(3);
        let [mut a, b] = pair.media(role, false);
        let other = DtlsIdentity::generate().unwrap().fingerprint();
        let MediaSecurity::DtlsSrtp(parameters) = &mut a.security else { unreachable!() };
        parameters.fingerprints = vec![other];
        pair.set(&[a, b]);
        pair.run(5 * SECOND);
        assert_eq!(pair.a.failures, [LegFailure::Fingerprint], "{role:?}");
        assert_eq!(pair.a.leg.counters().refused_for(Refusal::Fingerprint), 1);
        assert!(!pair.a.leg.can_send() && !pair.a.speak(&mut pair.net, &[1; 160]));
        pair.run(60 * SECOND);
        let counters = pair.a.leg.counters();
        assert_eq!((counters.received, counters.rtcp_received, counters.sent), (0, 0, 0));
        assert_eq!(pair.a.failures.len(), 1, "said once");
        // Another offer and answer sets it right.
        let both = pair.media(role, false);
        pair.a.leg.set_media(&both[0], pair.net.now).unwrap();
        let identity = Some(pair.b.identity.clone());
        pair.b.leg = RtpLeg::new(9, pair.net.now).with_identity(identity);
        pair.b.leg.set_media(&both[1], pair.net.now).unwrap();
        assert!(pair.run_until(SECOND, Pair::keyed));
        assert_eq!(pair.talk(), (10, 10));
    }
}

// RFC 8122 5.1: any of the fingerprints will do, but of the strongest hash function only.
#[test]
fn f20_one_of_the_strongest_fingerprints_must_match() {
    let verdict = |choose: fn(Fingerprint, Fingerprint) -> Vec<Fingerprint>| {
        let mut pair = Pair::new(4);
        let [mut a, b] = pair.media(DtlsRole::Passive, true);
        let (right, wrong) = (pair.b.fingerprint(), pair.a.fingerprint());
        let MediaSecurity::DtlsSrtp(parameters) = &mut a.security else { unreachable!() };
        parameters.fingerprints = choose(right, wrong);
        pair.set(&[a, b]);
        pair.run(SECOND);
        pair.a.leg.can_send()
    };
    assert!(verdict(|right, wrong| vec![wrong, right]));
    assert!(!verdict(|_, wrong| vec![wrong]));
    assert!(!verdict(|right, _| {
        vec![right, Fingerprint::new(FingerprintHash::Sha384, &[7; 48]).unwrap()]
    }));
    assert!(!verdict(|right, _| {
        vec![Fingerprint::new(FingerprintHash::Sha512, &[7; 64]).unwrap(), right]
    }));
}

// RFC 5764 4.1: what comes before the keys is neither believed nor answered.
#[test]
fn f20_media_before_the_keys_is_refused() {
    let mut pair = Pair::new(5);
    let both = pair.media(DtlsRole::Passive, false);
    pair.a.leg.set_media(&both[0], pair.net.now).unwrap();
    let mut packet = vec![0xd5; 172];
    RtpSender::new(9).write_header(pair.net.now, 8, false, 0, 160, &mut packet).unwrap();
    pair.a.deliver(&mut pair.net, Port::Rtp, address(B[0]), &packet);
    let report = [0x80, 201, 0, 1, 1, 2, 3, 4];
    pair.a.deliver(&mut pair.net, Port::Rtcp, address(B[1]), &report);
    assert_eq!(pair.a.refused, [Refusal::Keyless, Refusal::Keyless]);
    pair.run(30 * SECOND);
    assert!(pair.a.sent.is_empty(), "neither reports nor a first message");
    pair.b.leg.set_media(&both[1], pair.net.now).unwrap();
    assert!(pair.run_until(SECOND, Pair::keyed));
    pair.a.deliver(&mut pair.net, Port::Rtp, address(B[0]), &packet);
    assert_eq!(pair.a.refused.last(), Some(&Refusal::Unauthentic));
    assert_eq!(pair.talk(), (10, 10));
}

// Without ICE nobody but the described address gets into the handshake: neither to begin it nor to spoil it.
#[test]
fn f20_strangers_and_rubbish_do_not_spoil_a_handshake() {
    let signalling = SourceRule::Signalling(address("198.51.100.67:1").ip());
    for rule in [SourceRule::Negotiated, SourceRule::Authenticated, signalling] {
        let mut pair = Pair::new(6);
        let both = pair.media(DtlsRole::Passive, true);
        pair.a.leg.set_source_rule(rule);
        pair.set(&both);
        pair.run(Duration::from_millis(2));
        let hello = pair.b.sent[0].1.clone();
        let answered = pair.a.sent.len();
        pair.a.deliver(&mut pair.net, Port::Rtp, address(STRANGER), &hello);
        pair.a.deliver(&mut pair.net, Port::Rtcp, address(B[1]), &hello);
        assert_eq!(pair.a.refused, [Refusal::Source, Refusal::Source], "no such component, no such source");
        assert_eq!(pair.a.sent.len(), answered);
        let mut random = Random(6);
        for n in 0..2_000 {
            let mut rubbish = if n % 2 == 0 { hello.clone() } else { random.bytes(60) };
            rubbish[0] = 20 + (random.next() % 44) as u8;
            for _ in 0..n % 7 {
                let at = random.below(rubbish.len() as u64) as usize;
                rubbish[at] = random.next() as u8;
            }
            rubbish[0] = rubbish[0].clamp(20, 63);
            pair.a.deliver(&mut pair.net, Port::Rtp, address(STRANGER), &rubbish);
        }
        assert!(pair.run_until(5 * SECOND, Pair::keyed));
        assert_eq!(pair.talk(), (10, 10));
        // Under keys as well.
        pair.a.deliver(&mut pair.net, Port::Rtp, address(STRANGER), &hello);
        pair.a.deliver(&mut pair.net, Port::Rtp, address(B[0]), &vec![22; 1_501]);
        assert_eq!(pair.a.refused.last(), Some(&Refusal::Handshake));
        assert_eq!(pair.talk(), (10, 10));
    }
}

// Whatever comes from the right address: nothing stops the process, and at last the leg gives up.
#[test]
fn f20_rubbish_from_the_right_address_is_survived() {
    for seed in 0..30 {
        println!("seed {seed}");
        let mut pair = Pair::new(seed);
        let [a, b] = pair.media(ROLES[seed as usize % 2], true);
        pair.a.leg.set_media(&a, pair.net.now).unwrap();
        // With a peer, and with nothing but rubbish.
        if seed % 4 < 2 {
            pair.b.leg.set_media(&b, pair.net.now).unwrap();
        }
        let mut random = Random(seed);
        for n in 0..300 {
            pair.run(Duration::from_millis(20));
            let sample = pair.a.sent.iter().chain(&pair.b.sent).map(|(_, bytes)| bytes);
            let mut rubbish = match sample.clone().nth(random.below(sample.count().max(1) as u64) as usize) {
                Some(bytes) if n % 4 != 0 => bytes.clone(),
                _ => random.bytes(80),
            };
            for _ in 0..random.below(4) {
                let at = random.below(rubbish.len() as u64) as usize;
                rubbish[at] = random.next() as u8;
            }
            rubbish[0] = 20 + rubbish[0] % 44;
            pair.a.deliver(&mut pair.net, Port::Rtp, address(B[0]), &rubbish);
        }
        assert!(pair.a.failures.len() <= 1 && pair.a.heard.is_empty());
        // Bounded, however much came.
        assert!(pair.a.handshakes(Port::Rtp) < 300, "{}", pair.a.handshakes(Port::Rtp));
        if seed % 4 >= 2 {
            pair.b.leg.set_media(&b, pair.net.now).unwrap();
        }
        assert!(pair.run_until(120 * SECOND, Pair::keyed), "seed {seed}");
        assert_eq!(pair.talk(), (10, 10), "seed {seed}");
    }
}

// RFC 5246 7.2.2: a peer that has nothing in common with us says so; once may be anybody's joke.
#[test]
fn f20_a_peer_that_refuses_time_and_again_ends_the_handshake() {
    let mut pair = Pair::new(14);
    let both = pair.media(DtlsRole::Active, true);
    pair.a.leg.set_media(&both[0], pair.net.now).unwrap();
    pair.b.locals = [address(STRANGER); 2];
    for n in 0..8u8 {
        assert!(pair.a.failures.is_empty(), "{n}");
        pair.run(2 * SECOND);
        let alert = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, n, 0, 2, 2, 40];
        pair.a.deliver(&mut pair.net, Port::Rtp, address(B[0]), &alert);
    }
    pair.run(SECOND);
    assert_eq!(pair.a.failures, [LegFailure::Handshake]);
    let sent = pair.a.sent.len();
    pair.run(100 * SECOND);
    assert_eq!((pair.a.sent.len(), pair.a.failures.len()), (sent, 1));
    assert_eq!(pair.a.leg.counters().refused_for(Refusal::Handshake), 8);
}

// RFC 5763 5: who answers may begin before the answer is here. What it sent is not lost, wherever it came from.
#[test]
fn f20_a_handshake_that_begins_before_the_answer_is_taken_up() {
    let mut pair = Pair::new(8);
    let both = pair.media(DtlsRole::Passive, true);
    pair.b.leg.set_media(&both[1], pair.net.now).unwrap();
    pair.run(Duration::from_millis(100));
    assert_eq!((pair.a.sent.len(), &pair.a.refused[..]), (0, &[][..]));
    pair.a.leg.set_media(&both[0], pair.net.now).unwrap();
    assert!(pair.run_until(Duration::from_millis(25), Pair::keyed), "the client did not have to ask again");
    // A stranger's is dropped like any other of his.
    let hello = pair.b.sent[0].1.clone();
    let mut late = Pair::new(9);
    late.a.deliver(&mut late.net, Port::Rtp, address(STRANGER), &hello);
    let both = late.media(DtlsRole::Passive, true);
    late.a.leg.set_media(&both[0], late.net.now).unwrap();
    late.run(SECOND / 10);
    assert_eq!((late.a.sent.len(), late.a.leg.counters().refused_for(Refusal::Source)), (0, 1));
    // Without a certificate none is expected.
    let mut bare = RtpLeg::new(1, late.net.now);
    let refusal = bare.handle_datagram(late.net.now, Port::Rtp, address(B[0]), &hello).unwrap_err();
    assert_eq!(refusal, Refusal::NotNegotiated);
    let refused = bare.set_media(&both[0], late.net.now);
    assert_eq!(refused, Err(MediaError::TrunkMedia("DTLS without a certificate")));
    assert!(bare.media().is_none());
}

// A telephone may ring for long before the other side opens its media.
#[test]
fn f20_a_client_goes_on_asking_until_the_peer_is_there() {
    let mut pair = Pair::new(10);
    let both = pair.media(DtlsRole::Active, false);
    pair.a.leg.set_media(&both[0], pair.net.now).unwrap();
    // The peer does not look at its port yet.
    let deaf = std::mem::replace(&mut pair.b.locals, [address(STRANGER); 2]);
    pair.run(400 * SECOND);
    assert!((30..120).contains(&pair.a.handshakes(Port::Rtp)), "{}", pair.a.handshakes(Port::Rtp));
    pair.b.locals = deaf;
    pair.b.leg.set_media(&both[1], pair.net.now).unwrap();
    assert!(pair.run_until(20 * SECOND, Pair::keyed));
    assert_eq!(pair.talk(), (10, 10));
    assert!(pair.a.failures.is_empty());
}

// RFC 8842 4.1: hold, resumption and whatever leaves fingerprints and roles as they are keep the association.
#[test]
fn f20_a_description_with_the_same_fingerprint_keeps_the_association() {
    for role in ROLES {
        let mut pair = Pair::connected(role, true);
        let before = pair.a.handshakes(Port::Rtp) + pair.b.handshakes(Port::Rtp);
        let [mut a, b] = pair.media(role, true);
        a.direction = Direction::SendOnly;
        pair.set(&[a.clone(), b.clone()]);
        a.direction = Direction::Inactive;
        a.remote_rtp = address("0.0.0.0:30000");
        pair.set(&[a, b]);
        pair.run(SECOND);
        let mut both = pair.media(role, true);
        both[0].packet_time_ms = 30;
        pair.set(&both);
        assert!(pair.keyed(), "at once");
        assert_eq!(pair.talk(), (10, 10));
        assert_eq!(pair.a.handshakes(Port::Rtp) + pair.b.handshakes(Port::Rtp), before);
    }
}

// RFC 8842 4.1, RFC 5763 6.6: another certificate, role or tls-id, or another transport of a peer that has no tls-id,
// is another association.
#[test]
fn f20_what_makes_another_association_keys_anew() {
    let change = |change: fn(&mut Pair, &mut [LegMedia; 2])| {
        let mut pair = Pair::connected(DtlsRole::Active, true);
        let before = pair.a.handshakes(Port::Rtp);
        let mut both = pair.media(DtlsRole::Active, true);
        change(&mut pair, &mut both);
        pair.set(&both);
        let stopped = !pair.a.leg.can_send();
        assert!(pair.run_until(SECOND, Pair::keyed));
        assert_eq!(pair.talk(), (10, 10));
        assert_eq!(stopped, pair.a.handshakes(Port::Rtp) > before);
        stopped
    };
    // Another certificate: another device, which knows nothing of what was.
    assert!(change(|pair, both| {
        pair.b = End::new(77, B, pair.net.now);
        *both = pair.media(DtlsRole::Active, true);
    }));
    assert!(change(|pair, both| *both = pair.media(DtlsRole::Passive, true)));
    assert!(change(|_, both| {
        for (media, id) in both.iter_mut().zip(["aaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbb"]) {
            let MediaSecurity::DtlsSrtp(parameters) = &mut media.security else { unreachable!() };
            parameters.tls_id = Some(id.into());
        }
    }));
    // The same certificate elsewhere.
    assert!(change(|pair, both| {
        const MOVED: [&str; 2] = ["203.0.113.9:30008", "203.0.113.9:30009"];
        let identity = pair.b.identity.clone();
        pair.b = End::new(78, MOVED, pair.net.now);
        pair.b.leg = RtpLeg::new(78, pair.net.now).with_identity(Some(identity.clone()));
        pair.b.identity = identity;
        both[0].remote_rtp = address(MOVED[0]);
    }));
    assert!(!change(|_, _| {}));
}

// RFC 8842 4.2: a peer that names its association may move with it.
#[test]
fn f20_an_association_with_a_name_moves_with_the_transport() {
    const MOVED: &str = "203.0.113.9:30008";
    let mut pair = Pair::new(12);
    let mut both = pair.media(DtlsRole::Active, true);
    let MediaSecurity::DtlsSrtp(parameters) = &mut both[0].security else { unreachable!() };
    parameters.tls_id = Some("abcdefghijklmnopqrst".into());
    pair.set(&both);
    assert!(pair.run_until(SECOND, Pair::keyed));
    both[0].remote_rtp = address(MOVED);
    pair.b.locals[0] = address(MOVED);
    let before = pair.a.handshakes(Port::Rtp);
    pair.set(&both);
    assert!(pair.keyed());
    assert_eq!((pair.talk(), pair.a.handshakes(Port::Rtp)), ((10, 10), before));
}

// RTCP may join the port of RTP, and leave it, in a later description.
#[test]
fn f20_rtcp_moves_between_the_ports() {
    let mut pair = Pair::connected(DtlsRole::Passive, true);
    for mux in [false, true, false] {
        let both = pair.media(DtlsRole::Passive, mux);
        let began = pair.a.handshakes(Port::Rtcp);
        pair.set(&both);
        assert!(pair.keyed());
        pair.run(SECOND);
        assert_eq!(pair.a.handshakes(Port::Rtcp) > began, !mux, "what ended is not taken up again");
        let before = pair.a.leg.counters().rtcp_received;
        assert_eq!(pair.talk(), (10, 10));
        pair.a.sent.clear();
        pair.run(15 * SECOND);
        assert!(pair.a.leg.counters().rtcp_received > before);
        let reports = pair.a.sent.iter().filter(|(_, bytes)| bytes[0] >= 128);
        assert!(reports.into_iter().all(|(port, _)| *port == if mux { Port::Rtp } else { Port::Rtcp }));
        assert_eq!((pair.a.leg.counters().refused(), pair.b.leg.counters().refused()), (0, 0));
    }
}

// RFC 5764 4.1 would have a handshake for RTCP; a peer that leaves it out is heard all the same.
#[test]
fn f20_voice_does_not_wait_for_the_handshake_of_rtcp() {
    let mut pair = Pair::new(13);
    let both = pair.media(DtlsRole::Active, false);
    pair.set(&both);
    pair.b.locals[1] = address(STRANGER);
    assert!(pair.run_until(SECOND, Pair::keyed));
    pair.run(200 * SECOND);
    assert_eq!(pair.talk(), (10, 10));
    assert_eq!((pair.a.leg.counters().rtcp_sent, pair.a.failures.len()), (0, 0));
}

// RFC 5763 6.6, RFC 6347 4.1.2.7: the end is said; the other side's call ends by signalling.
#[test]
fn f20_the_end_is_a_close_notify() {
    let mut pair = Pair::connected(DtlsRole::Active, true);
    assert_eq!(pair.talk(), (10, 10));
    let now = pair.net.now;
    pair.a.sent.clear();
    pair.a.work(&mut pair.net, |leg, emit| leg.stop(now, emit));
    // An encrypted alert (RFC 6347 4.1), behind the RTCP BYE.
    assert_eq!(pair.a.sent.len(), 2);
    assert_eq!(pair.a.sent[1].1[0], 21);
    pair.run(SECOND);
    assert_eq!((pair.b.leg.counters().byes, pair.b.failures.len()), (1, 0));
    assert!(pair.b.leg.can_send());
    pair.run(100 * SECOND);
    assert!(pair.a.sent.len() == 2 && !pair.a.speak(&mut pair.net, &[1; 160]));
}

// RFC 6347 4.2.3: a certificate of many fragments; the implementation under it takes any that fits a handshake.
#[test]
fn f20_a_certificate_of_any_size_is_taken() {
    for (role, comment) in [(ROLES[0], 100), (ROLES[0], 7_000), (ROLES[1], 7_000)] {
        let mut pair = Pair::new(15);
        let theirs = certificate::large(comment);
        let [mut a, _] = pair.media(role, true);
        let MediaSecurity::DtlsSrtp(parameters) = &mut a.security else { unreachable!() };
        parameters.fingerprints = vec![certificate::fingerprint(&theirs)];
        let provider = str0m::crypto::from_feature_flags().dtls_provider;
        let now = pair.net.now;
        let mut peer = provider.new_dtls(&theirs, now, DtlsVersion::Dtls12, Some(1_200)).unwrap();
        peer.set_active(role == DtlsRole::Passive);
        pair.a.leg.set_media(&a, now).unwrap();
        let mut taken = 0;
        let mut keys = false;
        for _ in 0..200 {
            pair.run(Duration::from_millis(10));
            let now = pair.net.now;
            peer.handle_timeout(now).unwrap();
            for (_, bytes) in &pair.a.sent[taken..] {
                peer.handle_packet(bytes).unwrap();
            }
            taken = pair.a.sent.len();
            let mut buffer = vec![0; 2_000];
            loop {
                match peer.poll_output(&mut buffer) {
                    DtlsOutput::Packet(bytes) => pair.net.send(address(B[0]), address(A[0]), bytes),
                    DtlsOutput::KeyingMaterial(..) => keys = true,
                    DtlsOutput::Timeout(_) => break,
                    _ => {}
                }
            }
        }
        assert!(keys && pair.a.leg.can_send(), "{role:?} {comment}");
        assert_eq!(pair.a.leg.counters().refused(), 0);
    }
}

// RFC 6347 4.2.8: a client that has lost what it knew begins anew, and what was agreed on before counts until it is
// through. Whoever else begins gets nowhere.
#[test]
fn f20_a_client_that_begins_anew_is_followed() {
    for mux in [true, false] {
        let mut pair = Pair::connected(DtlsRole::Passive, mux);
        assert_eq!(pair.talk(), (10, 10));
        let old = pair.b.sent[0].1.clone();
        let (first, both) = (
            std::mem::replace(&mut pair.b, End::new(80, B, pair.net.now)),
            pair.media(DtlsRole::Passive, mux),
        );
        // A stranger at the peer's address, with another certificate.
        pair.b.leg.set_media(&both[1], pair.net.now).unwrap();
        pair.run(10 * SECOND);
        assert!(pair.a.leg.can_send() && pair.a.failures.is_empty());
        pair.b = first;
        assert_eq!(pair.talk(), (10, 10));
        // The first message once more, late.
        let answered = pair.a.handshakes(Port::Rtp);
        pair.a.deliver(&mut pair.net, Port::Rtp, address(B[0]), &old);
        pair.run(20 * SECOND);
        assert_eq!(pair.talk(), (10, 10));
        assert!(pair.a.handshakes(Port::Rtp) <= answered + 1, "nothing but our last message again");
        // The peer itself.
        pair.b.leg = RtpLeg::new(81, pair.net.now).with_identity(Some(pair.b.identity.clone()));
        let both = pair.media(DtlsRole::Passive, mux);
        pair.b.leg.set_media(&both[1], pair.net.now).unwrap();
        pair.run(Duration::from_millis(7));
        assert!(pair.a.leg.can_send() && !pair.b.leg.can_send(), "nothing is given up yet");
        assert!(pair.run_until(5 * SECOND, |pair| pair.b.leg.can_send()), "{mux}");
        pair.run(SECOND / 10);
        assert_eq!(pair.talk(), (10, 10));
        assert!(pair.a.failures.is_empty());
    }
}

// RFC 7362 4, RFC 5763 5: a peer behind an address translator begins, and is answered where it came from. The
// certificate says whether it is the right one.
#[test]
fn f20_f22_a_handshake_from_where_the_signalling_comes_is_answered_there() {
    let public = ["203.0.113.77:41000", "203.0.113.77:52001"];
    for (mux, believed) in [(true, true), (false, true), (true, false)] {
        let mut pair = Pair::new(8);
        pair.b.locals = public.map(address);
        let rule = if believed {
            SourceRule::Signalling(address(public[0]).ip())
        } else {
            SourceRule::Authenticated
        };
        pair.a.leg.set_source_rule(rule);
        let both = pair.media(DtlsRole::Passive, mux);
        pair.set(&both);
        assert_eq!(pair.run_until(5 * SECOND, Pair::keyed), believed, "mux {mux}");
        if !believed {
            assert!(pair.a.refused.iter().all(|refusal| *refusal == Refusal::Source));
            assert_eq!(pair.a.handshakes(Port::Rtp), 0);
            continue;
        }
        assert_eq!(pair.talk(), (10, 10));
        assert_eq!(pair.a.leg.counters().moves, if mux { 1 } else { 2 });
        // The next that comes from there, or from anywhere, is too late.
        let hello = pair.b.sent[0].1.clone();
        pair.a.deliver(&mut pair.net, Port::Rtp, address("203.0.113.77:41002"), &hello);
        pair.a.deliver(&mut pair.net, Port::Rtp, address(B[0]), &hello);
        assert_eq!(pair.a.refused, [Refusal::Source, Refusal::Source]);
        assert_eq!(pair.talk(), (10, 10));
    }
}
