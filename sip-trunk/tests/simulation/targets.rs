//! Rows A22 to A28: the targets of a trunk, failover between them, and the name they come from.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use call_model::{CallId, Cause};
use sip_trunk::trunk::resolve::{Destination, Failure, Record, RecordData, RecordType, Service};
use sip_trunk::{
    Command, CommandError, EndedBy, EndpointConfig, Event, Listener, Registration, TargetState, Transport,
    TrunkConfig, TrunkState,
};

use crate::net::{A, A_RTP, Net, address, call_id, caller, ended, media, number, trunk_name};
use crate::raw::{Ask, CONTACT, SDP, header, reply, status};

pub const T1: &str = "10.0.0.11:5060";
pub const T2: &str = "10.0.0.12:5060";
pub const T3: &str = "10.0.0.13:5070";

/// A gateway (node 0), hand-written targets (nodes 1 to 3), and a DNS zone that is read when asked.
pub struct Farm {
    pub net: Net,
    pub zone: Vec<Record>,
    pub away: bool,
    /// Nobody answers at all.
    pub mute: bool,
    pub asked: Vec<(String, RecordType)>,
    calls: u64,
    /// Branches of INVITEs that were seen.
    seen: Vec<String>,
}

impl std::ops::Deref for Farm {
    type Target = Net;
    fn deref(&self) -> &Net {
        &self.net
    }
}

impl std::ops::DerefMut for Farm {
    fn deref_mut(&mut self) -> &mut Net {
        &mut self.net
    }
}

pub fn record(name: &str, data: RecordData) -> Record {
    Record { name: name.to_owned(), ttl: 300, data }
}

pub fn a(name: &str, of: &str) -> Record {
    let SocketAddr::V4(of) = address(of) else { panic!("IPv4") };
    record(name, RecordData::A(*of.ip()))
}

pub fn srv(name: &str, priority: u16, port: u16, target: &str) -> Record {
    record(name, RecordData::Srv { priority, weight: 0, port, target: target.to_owned() })
}

impl Farm {
    /// With the targets as addresses.
    pub fn fixed(change: impl FnOnce(&mut EndpointConfig)) -> Self {
        let mut trunk = TrunkConfig::new(trunk_name("far"), address(T1));
        trunk.backups = vec![address(T2), address(T3)];
        trunk.host = "carrier.example".to_owned();
        Self::with(trunk, Vec::new(), change)
    }

    /// With a name that leads to the three targets in order.
    pub fn named(change: impl FnOnce(&mut EndpointConfig)) -> Self {
        let destination = Destination::of("carrier.example".parse().unwrap());
        let zone = vec![
            a("carrier.example", "10.0.0.99:1"),
            srv("_sips._tcp.carrier.example", 10, 5060, "one.carrier.example"),
            srv("_sip._udp.carrier.example", 10, 5060, "one.carrier.example"),
            srv("_sip._udp.carrier.example", 20, 5060, "two.carrier.example"),
            srv("_sip._udp.carrier.example", 30, 5070, "three.carrier.example"),
            a("one.carrier.example", T1),
            a("two.carrier.example", T2),
            a("three.carrier.example", T3),
        ];
        let trunk = TrunkConfig::named(trunk_name("far"), destination);
        Self::with(trunk, zone, change)
    }

    fn with(trunk: TrunkConfig, zone: Vec<Record>, change: impl FnOnce(&mut EndpointConfig)) -> Self {
        // A name without a zone: DNS is away.
        let away = trunk.destination.is_some() && zone.is_empty();
        let mut net = Net::new(5);
        let listeners =
            [Transport::Udp, Transport::Tcp].map(|transport| Listener { transport, local: address(A) });
        let mut config = EndpointConfig::new(listeners.to_vec(), vec![trunk]);
        config.dns = true;
        change(&mut config);
        net.add_endpoint(config);
        for target in [T1, T2, T3] {
            net.add_raw(address(target));
        }
        let mut farm = Self { net, zone, away, mute: false, asked: Vec::new(), calls: 0, seen: Vec::new() };
        farm.step(1);
        farm
    }

    /// Lets time pass, with DNS at work.
    pub fn step(&mut self, ms: u64) {
        let end = self.net.now + Duration::from_millis(ms);
        loop {
            self.answer_dns();
            let left = end.saturating_duration_since(self.net.now);
            if left.is_zero() {
                break;
            }
            self.net.run(left.min(Duration::from_millis(20)));
        }
    }

    fn answer_dns(&mut self) {
        if self.mute {
            return;
        }
        let now = self.net.now;
        while let Some(query) = self.net.endpoint(0).poll_query() {
            self.asked.push((query.name.to_string(), query.record));
            let fits = |record: &&Record| {
                record.name == query.name.as_str()
                    && matches!(
                        (&record.data, query.record),
                        (RecordData::A(_), RecordType::A) | (RecordData::Srv { .. }, RecordType::Srv)
                    )
            };
            let found: Vec<_> = self.zone.iter().filter(fits).cloned().collect();
            let answer = match (self.away, found.is_empty()) {
                (true, _) => Err(Failure::Unavailable),
                (_, true) => Err(Failure::Nothing { ttl: None }),
                _ => Ok(found),
            };
            self.net.endpoint(0).handle_answer(now, query.id, answer);
        }
    }

    pub fn try_call(&mut self) -> Result<CallId, CommandError> {
        self.calls += 1;
        let call = call_id(self.calls);
        let invite = Command::Invite {
            call,
            trunk: trunk_name("far"),
            called: number("+442079460018"),
            caller: caller("+12025550100"),
            media: media(A_RTP),
        };
        self.net.try_command(0, invite).map(|()| call)
    }

    /// Places a call; returns the node that got the INVITE, and the INVITE.
    pub fn call(&mut self) -> (usize, String) {
        self.try_call().expect("call");
        self.step(20);
        self.invited().expect("no INVITE")
    }

    /// Which target got an INVITE since the last look.
    pub fn invited(&mut self) -> Option<(usize, String)> {
        let mut found = None;
        for node in 1..=3 {
            for invite in self.net.inbox(node).into_iter().filter(|m| m.starts_with("INVITE ")) {
                if !self.seen.contains(&branch(&invite)) {
                    self.seen.push(branch(&invite));
                    found = Some((node, invite));
                }
            }
        }
        found
    }

    pub fn say(&mut self, node: usize, text: &str) {
        self.net.say(node, address(A), text);
        self.step(20);
    }

    pub fn states(&mut self) -> Vec<TargetState> {
        self.net.endpoint(0).trunk_status()[0].targets.iter().map(|t| t.state).collect()
    }

    /// Answers every request of the kind at the nodes that `answers` says, else with silence.
    fn serve(&mut self, method: &str, seconds: u64, answers: &HashMap<usize, u16>) -> [usize; 4] {
        let mut got = [0; 4];
        for _ in 0..seconds * 10 {
            self.step(100);
            for (node, count) in got.iter_mut().enumerate().skip(1) {
                for text in self.net.inbox(node) {
                    if !text.starts_with(method) {
                        continue;
                    }
                    *count += 1;
                    if let Some(status) = answers.get(&node) {
                        let lines = if method == "REGISTER" {
                            format!("Contact: {};expires=60\r\n", header(&text, "Contact"))
                        } else {
                            String::new()
                        };
                        self.net.say(node, address(A), &reply(&text, *status, "srv", &lines, ""));
                    }
                }
            }
        }
        got
    }
}

fn branch(text: &str) -> String {
    header(text, "Via").split("branch=").nth(1).unwrap().split(';').next().unwrap().to_owned()
}

// RFC 3263 4.3, RFC 3261 17.1.1.3: the 503 is acknowledged on its branch, then the next target gets a
// request of its own.
#[test]
fn a23_a_503_is_acknowledged_and_the_next_target_is_asked() {
    let mut farm = Farm::fixed(|_| {});
    let (node, first) = farm.call();
    assert_eq!(node, 1);
    farm.say(1, &reply(&first, 503, "busy", "", ""));
    let acks: Vec<_> = farm.inbox(1).into_iter().filter(|m| m.starts_with("ACK ")).collect();
    assert_eq!(acks.len(), 1);
    assert_eq!(branch(&acks[0]), branch(&first));
    let (node, second) = farm.invited().expect("the next");
    assert_eq!(node, 2);
    assert_ne!(branch(&second), branch(&first));
    assert_eq!(header(&second, "Call-ID"), header(&first, "Call-ID"));
    assert_eq!(header(&second, "From"), header(&first, "From"));
    assert!(!header(&second, "To").contains(";tag="));
    assert_eq!(header(&second, "CSeq"), "2 INVITE");
    // The order on the wire: 503, ACK, INVITE.
    let order: Vec<_> = farm.log.iter().map(|m| m.3.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(order, ["INVITE", "SIP/2.0", "ACK", "INVITE"]);
    farm.say(2, &reply(&second, 200, "peer", CONTACT, SDP));
    assert!(farm.take(0).iter().any(|e| matches!(e, Event::Answered { .. })));
    assert_eq!(farm.endpoint(0).counters().failovers, 1);
    // Without Retry-After it is out of favour only: others come first.
    assert_eq!(farm.states()[0], TargetState::Suspect);
    assert_eq!(farm.call().0, 2);
    farm.step(61_000);
    farm.invited();
    assert_eq!(farm.call().0, 1);
}

// RFC 3261 21.5.4.
#[test]
fn a23_retry_after_keeps_calls_away_for_its_time() {
    let mut farm = Farm::fixed(|config| config.trunks[0].backups.truncate(1));
    let (_, invite) = farm.call();
    farm.say(1, &reply(&invite, 503, "busy", "Retry-After: 120 (soon)\r\n", ""));
    let (node, invite) = farm.invited().unwrap();
    assert_eq!(node, 2);
    farm.say(2, &reply(&invite, 486, "user", "", ""));
    assert_eq!(ended(&farm.take(0)), [(Cause::USER_BUSY, Some(486), EndedBy::Far)]);
    farm.step(60_000);
    farm.invited();
    // Not even as a second choice.
    let (node, invite) = farm.call();
    assert_eq!(node, 2);
    farm.say(2, &reply(&invite, 503, "busy", "Retry-After: 30\r\n", ""));
    assert_eq!(farm.invited(), None);
    assert_eq!(ended(&farm.take(0))[0].1, Some(503));
    // Both want to be left alone: nothing is sent at all.
    assert_eq!(farm.try_call(), Err(CommandError::Overloaded));
    farm.step(31_000);
    farm.invited();
    assert_eq!(farm.call().0, 2);
    farm.step(60_000);
    farm.invited();
    assert_eq!(farm.call().0, 1);
}

// RFC 3263 4.3: silence, and in all not longer than the trunk may take.
#[test]
fn a24_a_silent_target_gives_way_to_the_next_in_bounded_time() {
    let mut farm = Farm::fixed(|config| {
        config.trunks[0].target_timeout = Duration::from_secs(6);
        config.trunks[0].failover_limit = Duration::from_secs(15);
    });
    let call = farm.try_call().unwrap();
    let mut seen = Vec::new();
    for tenth in 0..200u64 {
        farm.step(100);
        for (n, text) in [1, 2, 3].map(|n| (n, farm.inbox(n))) {
            for invite in text.iter().filter(|t| t.starts_with("INVITE ")) {
                if seen.iter().all(|(_, known, _)| *known != n) {
                    seen.push((tenth / 10, n, branch(invite)));
                }
            }
        }
    }
    let order: Vec<_> = seen.iter().map(|(at, n, _)| (*at, *n)).collect();
    assert_eq!(order, [(0, 1), (6, 2), (12, 3)]);
    assert!(seen[0].2 != seen[1].2 && seen[1].2 != seen[2].2);
    let ends: Vec<_> = farm.events[0]
        .iter()
        .filter(|e| matches!(e, Event::Ended { call: of, by: EndedBy::Timeout, .. } if *of == call))
        .collect();
    assert_eq!(ends.len(), 1, "after 15 s, and once");
    // After its turn nothing is repeated to a target.
    let repeated = |to: &str| {
        let to = address(to);
        farm.log.iter().filter(|m| m.2 == to && m.3.starts_with("INVITE")).map(|m| m.0.as_secs()).max()
    };
    assert!(repeated(T1) <= Some(6) && repeated(T2) <= Some(12), "{:?} {:?}", repeated(T1), repeated(T2));
    assert_eq!(farm.states(), [TargetState::Suspect; 3]);
    farm.step(70_000);
    farm.assert_empty(0);
}

#[test]
fn a24_whoever_wakes_up_late_is_told_to_stop() {
    let mut farm = Farm::fixed(|_| {});
    let (_, first) = farm.call();
    farm.step(8100);
    let (node, second) = farm.invited().unwrap();
    assert_eq!(node, 2);
    farm.say(2, &reply(&second, 180, "two", CONTACT, ""));
    // A late 180 is cancelled, a late 200 is acknowledged and ended.
    farm.say(1, &reply(&first, 180, "one", "", ""));
    assert!(farm.inbox(1).iter().any(|m| m.starts_with("CANCEL ")));
    let contact = "Contact: <sip:one@10.0.0.11:5060>\r\n";
    farm.say(1, &reply(&first, 200, "one", contact, SDP));
    let late = farm.inbox(1);
    assert!(
        late.iter().any(|m| m.starts_with("ACK ")) && late.iter().any(|m| m.starts_with("BYE ")),
        "{late:?}"
    );
    let events = farm.take(0);
    assert!(!events.iter().any(|e| matches!(e, Event::Answered { .. } | Event::Ended { .. })), "{events:?}");
    farm.say(2, &reply(&second, 200, "two", "Contact: <sip:two@10.0.0.12:5060>\r\n", SDP));
    assert!(farm.take(0).iter().any(|e| matches!(e, Event::Answered { .. })));
    let acks: Vec<_> = farm.inbox(2).into_iter().filter(|m| m.starts_with("ACK ")).collect();
    assert_eq!(acks.len(), 1);
}

#[test]
fn a24_a_broken_connection_gives_way_at_once() {
    let mut farm = Farm::fixed(|config| config.trunks[0].transport = Transport::Tcp);
    farm.closed_ports.push(address(T1));
    farm.try_call().unwrap();
    farm.step(60);
    assert!(farm.inbox(2).concat().starts_with("INVITE "));
    assert_eq!(farm.states()[0], TargetState::Suspect);
}

// Whoever rang is not rung a second time.
#[test]
fn a27_no_other_target_after_the_word_of_the_user_or_a_ring() {
    for code in [404, 480, 484, 486, 487, 500, 600, 603, 604, 607, 608] {
        let mut farm = Farm::fixed(|_| {});
        let (_, invite) = farm.call();
        farm.say(1, &reply(&invite, code, "user", "", ""));
        farm.step(60_000);
        assert_eq!(farm.invited(), None, "{code}");
        assert_eq!(ended(&farm.take(0))[0].1, Some(code));
    }
    for code in [408, 503] {
        let mut farm = Farm::fixed(|_| {});
        let (_, invite) = farm.call();
        farm.say(1, &reply(&invite, 100, "", "", ""));
        farm.say(1, &reply(&invite, 180, "user", CONTACT, ""));
        farm.say(1, &reply(&invite, code, "user", "", ""));
        farm.step(60_000);
        assert_eq!(farm.invited(), None, "{code} after 180");
        assert_eq!(ended(&farm.take(0))[0].1, Some(code));
        let mut farm = Farm::fixed(|_| {});
        let (_, invite) = farm.call();
        farm.say(1, &reply(&invite, 100, "", "", ""));
        farm.say(1, &reply(&invite, code, "server", "", ""));
        assert_eq!(farm.invited().map(|i| i.0), Some(2), "{code} before");
    }
}

// RFC 3263 4.1, 4.2.
#[test]
fn a25_srv_comes_before_the_address_of_the_name_itself() {
    let mut farm = Farm::named(|_| {});
    assert!(
        farm.asked.contains(&("carrier.example".to_owned(), RecordType::Naptr))
            || farm.asked.contains(&("_sip._udp.carrier.example".to_owned(), RecordType::Srv))
    );
    let (node, invite) = farm.call();
    assert_eq!(node, 1);
    assert!(invite.starts_with("INVITE sip:+442079460018@carrier.example SIP/2.0"), "{invite}");
    let status = farm.endpoint(0).trunk_status()[0].targets.clone();
    let targets: Vec<_> = status.iter().map(|t| t.address).collect();
    assert_eq!(targets, [T1, T2, T3].map(address), "with the ports of SRV");
    farm.say(1, &reply(&invite, 503, "busy", "", ""));
    let (node, invite) = farm.invited().unwrap();
    assert_eq!(node, 2);
    farm.say(2, &reply(&invite, 503, "busy", "", ""));
    assert_eq!(farm.invited().unwrap().0, 3);
    // With TLS it would be _sips._tcp (RFC 3263 4.1); a port means no SRV.
    assert_eq!(Service::Tls.labels(), "_sips._tcp");
    let port = |config: &mut EndpointConfig| {
        let trunk = &mut config.trunks[0];
        let destination = trunk.destination.as_mut().unwrap();
        (destination.port, destination.service) = (Some(5060), Some(Service::Udp));
    };
    let mut farm = Farm::named(port);
    assert_eq!(farm.asked, [("carrier.example".to_owned(), RecordType::A)]);
    assert_eq!(farm.endpoint(0).trunk_status()[0].target, address("10.0.0.99:5060"));
}

#[test]
fn a25_an_answer_ends_with_its_time_and_outlives_dns() {
    let mut farm = Farm::named(|_| {});
    farm.zone.retain(|r| r.name != "two.carrier.example");
    farm.zone.push(a("two.carrier.example", "10.0.0.22:1"));
    let targets = |farm: &mut Farm| -> Vec<String> {
        farm.endpoint(0).trunk_status()[0].targets.iter().map(|t| t.address.to_string()).collect()
    };
    farm.step(200_000);
    assert_eq!(targets(&mut farm)[1], T2);
    farm.step(101_000);
    assert_eq!(targets(&mut farm)[1], "10.0.0.22:5060");
    // Requests of the new target are heard, those of the old one are a stranger's.
    let incoming = Ask::invite().text();
    farm.say_from(address("10.0.0.22:5060"), address(A), incoming.as_bytes());
    farm.step(20);
    assert_eq!(farm.events[0].iter().filter(|e| matches!(e, Event::Incoming { .. })).count(), 1);
    let before = farm.endpoint(0).counters().refused.get("unknown_source").copied().unwrap_or_default();
    farm.say_from(address(T2), address(A), incoming.replace("branch=", "branch=z9hG4bKold").as_bytes());
    farm.step(20);
    assert_eq!(farm.endpoint(0).counters().refused["unknown_source"], before + 1);
    farm.away = true;
    farm.step(3_600_000);
    assert_eq!(targets(&mut farm).len(), 3, "the last good answer");
    assert_eq!(farm.call().0, 1);
    // Those who are gone are gone.
    farm.away = false;
    farm.zone.clear();
    farm.step(400_000);
    assert!(targets(&mut farm).is_empty());
    assert_eq!(farm.endpoint(0).trunk_status()[0].state, TrunkState::Down);
    assert_eq!(farm.try_call(), Err(CommandError::Unusable));
}

#[test]
fn a25_a_trunk_whose_name_cannot_be_asked_for_is_down_until_it_can() {
    let destination = Destination::of("carrier.example".parse().unwrap());
    let trunk = TrunkConfig::named(trunk_name("far"), destination);
    let mut farm = Farm::with(trunk, Vec::new(), |_| {});
    let health = |farm: &mut Farm| -> Vec<bool> {
        let up = |e: &Event| match e {
            Event::TrunkHealth { up, .. } => Some(*up),
            _ => None,
        };
        farm.take(0).iter().filter_map(up).collect()
    };
    farm.step(3000);
    assert_eq!(health(&mut farm), [false]);
    assert_eq!(farm.try_call(), Err(CommandError::Unusable));
    (farm.zone, farm.away) = (vec![a("carrier.example", T1)], false);
    farm.step(65_000);
    assert_eq!(health(&mut farm), [true]);
    assert_eq!(farm.call().0, 1);
}

// RFC 3263 4: the route set and the remote target are followed by name too.
#[test]
fn a25_a_request_within_a_call_waits_for_its_next_hop_and_not_for_ever() {
    for mute in [false, true] {
        let mut farm = Farm::fixed(|_| {});
        farm.zone = vec![a("proxy.carrier.example", T2)];
        let (_, invite) = farm.call();
        farm.mute = mute;
        let lines = "Contact: <sip:x@pbx.invalid>\r\nRecord-Route: <sip:proxy.carrier.example:5060;lr>\r\n";
        let ok = reply(&invite, 200, "peer", lines, SDP);
        farm.net.say(1, address(A), &ok);
        farm.net.run_ms(10);
        assert_eq!(farm.sent(0, "ACK "), 0, "it waits");
        // A repeated 2xx does not upset it.
        farm.net.say(1, address(A), &ok);
        farm.net.run_ms(10);
        assert_eq!(farm.sent(0, "BYE "), 0);
        farm.step(100);
        farm.command(0, Command::Release { call: call_id(1), cause: Cause::NORMAL_CALL_CLEARING });
        farm.step(if mute { 5000 } else { 50 });
        let way = |m: &&(Duration, SocketAddr, SocketAddr, String)| {
            m.3.starts_with("ACK ") || m.3.starts_with("BYE ")
        };
        let sent: Vec<_> = farm.log.iter().filter(way).collect();
        let to = if mute { T1 } else { T2 };
        assert!(sent.iter().filter(|m| m.2 == address(to)).count() >= 2, "{mute} {sent:?}");
        let late = sent.iter().filter(|m| m.3.starts_with("BYE ")).map(|m| m.0).min().unwrap();
        assert!(late < Duration::from_millis(3500), "{late:?}");
        assert!(farm.log.iter().any(|m| m.3.starts_with("BYE ") && m.3.contains("Route: <sip:proxy.")));
    }
}

#[test]
fn a26_one_target_fails_and_calls_on_the_others_go_on() {
    let mut farm = Farm::named(|config| config.trunks[0].options_interval = Some(Duration::from_secs(10)));
    let (_, one) = farm.call();
    farm.say(1, &reply(&one, 200, "one", "Contact: <sip:one@10.0.0.11:5060>\r\n", SDP));
    farm.say(1, &reply(&one, 200, "one", "Contact: <sip:one@10.0.0.11:5060>\r\n", SDP));
    let (_, two) = farm.call();
    farm.say(1, &reply(&two, 503, "busy", "", ""));
    let (node, two) = farm.invited().unwrap();
    assert_eq!(node, 2);
    farm.say(2, &reply(&two, 200, "two", "Contact: <sip:two@10.0.0.12:5060>\r\n", SDP));
    farm.take(0);
    // Target 1 dies. OPTIONS go to each, and only what concerns 1 fails.
    let got = farm.serve("OPTIONS", 65, &HashMap::from([(2, 200), (3, 200)]));
    assert!(got[1] >= 6 && got[2] >= 6 && got[3] >= 6, "{got:?}");
    assert_eq!(farm.states(), [TargetState::Demoted, TargetState::Up, TargetState::Up]);
    assert_eq!(farm.endpoint(0).trunk_status()[0].state, TrunkState::Up);
    let events = farm.take(0);
    assert!(ended(&events).is_empty(), "both calls stand");
    assert!(!events.iter().any(|e| matches!(e, Event::TrunkHealth { up: false, .. })));
    let bye = Ask { call_id: header(&two, "Call-ID"), ..Ask::back(&two, "BYE", 1) };
    let mut bye = bye;
    bye.from = format!("{};tag=two", header(&two, "To"));
    bye.via = "SIP/2.0/UDP 10.0.0.12:5060;branch=z9hG4bKbye2;rport".to_owned();
    farm.say(2, &bye.text());
    let answers: Vec<_> = farm.inbox(2).into_iter().filter(|m| m.starts_with("SIP/2.0")).collect();
    assert_eq!(status(&answers[0]), 200);
    assert_eq!(ended(&farm.take(0)).len(), 1);
    // A new call goes to the live ones at once.
    assert_eq!(farm.call().0, 2);
}

#[test]
fn a26_registration_follows_the_live_target() {
    let mut farm = Farm::named(|config| {
        config.trunks[0].registration = Some(Registration::new("pbx", "carrier.example"));
    });
    let got = farm.serve("REGISTER", 5, &HashMap::from([(1, 200), (2, 200)]));
    assert_eq!((got[1], got[2]), (1, 0));
    // Target 1 dies: its refresh is not answered, and the next one gets it soon.
    let got = farm.serve("REGISTER", 90, &HashMap::from([(2, 200), (3, 200)]));
    assert!(got[1] >= 1 && got[2] >= 1, "{got:?}");
    let status = farm.endpoint(0).trunk_status()[0].registration.clone().unwrap();
    assert_eq!((status.registrar, status.failures), (address(T2), 0));
    assert_eq!(farm.call().0, 2, "by the registered flow");
    // All silent: it goes round, and backs off.
    let got = farm.serve("REGISTER", 400, &HashMap::new());
    assert!(got[1] > 0 && got[2] > 0 && got[3] > 0, "{got:?}");
}

#[test]
fn a28_targets_that_miss_k_of_n_are_demoted_tried_last_and_recover() {
    let mut farm = Farm::fixed(|config| config.trunks[0].options_interval = Some(Duration::from_secs(60)));
    let all = HashMap::from([(1, 200), (2, 405), (3, 200)]);
    let some = HashMap::from([(2, 405), (3, 200)]);
    farm.serve("OPTIONS", 65, &all);
    assert_eq!(farm.states(), [TargetState::Up; 3]);
    farm.take(0);
    // Two misses are none; the third counts.
    farm.serve("OPTIONS", 115, &some);
    assert_ne!(farm.states()[0], TargetState::Demoted);
    farm.serve("OPTIONS", 70, &some);
    assert_eq!(farm.states()[0], TargetState::Demoted);
    let alarms = |farm: &mut Farm| -> Vec<(String, TargetState)> {
        let alarm = |e: &Event| match e {
            Event::TargetHealth { target, state, .. } => Some((target.to_string(), *state)),
            _ => None,
        };
        farm.take(0).iter().filter_map(alarm).collect()
    };
    let alarm = alarms(&mut farm);
    assert_eq!(alarm.last(), Some(&(T1.to_owned(), TargetState::Demoted)), "{alarm:?}");
    // It is tried last, not never.
    let (node, invite) = farm.call();
    assert_eq!(node, 2);
    farm.say(2, &reply(&invite, 503, "x", "", ""));
    let (node, invite) = farm.invited().unwrap();
    assert_eq!(node, 3);
    farm.say(3, &reply(&invite, 503, "x", "", ""));
    assert_eq!(farm.invited().unwrap().0, 1);
    // One answer is no recovery, two are.
    let got = farm.serve("OPTIONS", 60, &all);
    assert_eq!((got[1], farm.states()[0]), (1, TargetState::Demoted));
    farm.serve("OPTIONS", 60, &all);
    assert_eq!(farm.states()[0], TargetState::Up);
    assert_eq!(alarms(&mut farm).last(), Some(&(T1.to_owned(), TargetState::Up)));
    // When all fail the trunk is down.
    farm.serve("OPTIONS", 300, &HashMap::new());
    assert_eq!(farm.states(), [TargetState::Demoted; 3]);
    assert_eq!(farm.endpoint(0).trunk_status()[0].state, TrunkState::Down);
    assert!(farm.take(0).iter().any(|e| matches!(e, Event::TrunkHealth { up: false, .. })));
}

// RFC 4320 4.1, 4.2.
#[test]
fn a22_a_request_that_times_out_makes_its_target_suspect_and_no_408_is_sent() {
    let mut farm = Farm::fixed(|_| {});
    let (_, invite) = farm.call();
    farm.say(1, &reply(&invite, 200, "peer", "Contact: <sip:one@10.0.0.11:5060>\r\n", SDP));
    farm.command(0, Command::Release { call: call_id(1), cause: Cause::NORMAL_CALL_CLEARING });
    farm.step(31_000);
    assert_eq!(farm.states()[0], TargetState::Unknown);
    farm.step(2000);
    assert_eq!(farm.states()[0], TargetState::Suspect, "its BYE was not answered");
    farm.invited();
    assert_eq!(farm.call().0, 2);
    // A request of theirs is answered at once, and never with 408, early or late.
    for (n, method) in
        ["OPTIONS", "BYE", "INFO", "UPDATE", "PRACK", "NOTIFY", "MESSAGE", "FOO"].iter().enumerate()
    {
        let mut ask = Ask::new(method).branch(&format!("late{n}"));
        ask.via = ask.via.replace("10.0.0.2", "10.0.0.13").replace(":5060", ":5070");
        ask.call_id = format!("late{n}");
        farm.inbox(3);
        farm.say(3, &ask.text());
        assert_eq!(farm.inbox(3).len(), 1, "{method}");
    }
    farm.step(70_000);
    assert!(!farm.log.iter().any(|m| m.3.starts_with("SIP/2.0 408")));
}
