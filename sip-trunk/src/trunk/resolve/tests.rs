use std::time::{Duration, Instant};

use super::*;

const V4: Families = Families { v4: true, v6: false };
const UDP: &[(Service, Families)] = &[(Service::Udp, V4)];
const ALL: &[(Service, Families)] = &[(Service::Udp, V4), (Service::Tcp, V4), (Service::Tls, V4)];

/// A resolver and a zone that answers it.
struct Bench {
    resolver: Resolver,
    now: Instant,
    zone: Vec<Record>,
    /// DNS is away.
    away: bool,
    asked: Vec<(String, RecordType)>,
}

fn srv(name: &str, priority: u16, weight: u16, port: u16, target: &str) -> Record {
    let data = RecordData::Srv { priority, weight, port, target: target.into() };
    Record { name: name.into(), ttl: 300, data }
}

fn a(name: &str, last: u8) -> Record {
    Record { name: name.into(), ttl: 300, data: RecordData::A([10, 0, 0, last].into()) }
}

fn naptr(name: &str, order: u16, service: &str, replacement: &str) -> Record {
    let data = RecordData::Naptr {
        order,
        preference: 10,
        flags: "S".into(),
        service: service.into(),
        regexp: String::new(),
        replacement: replacement.into(),
    };
    Record { name: name.into(), ttl: 300, data }
}

fn cname(name: &str, to: &str) -> Record {
    Record { name: name.into(), ttl: 300, data: RecordData::Cname(to.into()) }
}

fn matches(record: &Record, wanted: RecordType) -> bool {
    matches!(
        (&record.data, wanted),
        (RecordData::A(_), RecordType::A)
            | (RecordData::Aaaa(_), RecordType::Aaaa)
            | (RecordData::Srv { .. }, RecordType::Srv)
            | (RecordData::Naptr { .. }, RecordType::Naptr)
            | (RecordData::Cname(_), _)
    )
}

impl Bench {
    fn new(zone: Vec<Record>) -> Self {
        #[allow(clippy::disallowed_methods)]
        let now = Instant::now();
        let resolver = Resolver::new(ResolverLimits::default());
        Self { resolver, now, zone, away: false, asked: Vec::new() }
    }

    fn look(&mut self, destination: &Destination, offered: &[(Service, Families)]) -> Located {
        for _ in 0..40 {
            let located = self.resolver.locate(self.now, destination, offered);
            let mut any = false;
            while let Some(query) = self.resolver.poll_query() {
                any = true;
                self.asked.push((query.name.to_string(), query.record));
                let fits = |r: &&Record| r.name == query.name.as_str() && matches(r, query.record);
                let found: Vec<_> = self.zone.iter().filter(fits).cloned().collect();
                let answer = match (self.away, found.is_empty()) {
                    (true, _) => Err(Failure::Unavailable),
                    (_, true) => Err(Failure::Nothing { ttl: Some(60) }),
                    _ => Ok(found),
                };
                assert!(self.resolver.handle_answer(self.now, query.id, answer));
            }
            if !any {
                return located;
            }
        }
        panic!("it asks without end");
    }

    fn addresses(&mut self, destination: &Destination, offered: &[(Service, Families)]) -> Vec<String> {
        match self.look(destination, offered) {
            Located::Known { candidates, .. } => {
                candidates.iter().map(|c| format!("{:?} {}", c.service, c.address)).collect()
            }
            other => vec![format!("{other:?}").split(' ').next().unwrap_or_default().to_owned()],
        }
    }
}

fn name(text: &str) -> Destination {
    Destination::of(text.parse().unwrap())
}

// RFC 3263 4.1, 4.2.
#[test]
fn the_srv_port_counts_where_a_name_has_both() {
    let zone = vec![
        a("example.com", 1),
        srv("_sip._udp.example.com", 20, 0, 5070, "b.example.com"),
        srv("_sip._udp.example.com", 10, 0, 5080, "a.example.com"),
        srv("_sips._tcp.example.com", 10, 0, 5081, "a.example.com"),
        a("a.example.com", 2),
        a("b.example.com", 3),
    ];
    let mut bench = Bench::new(zone.clone());
    let udp = Destination { service: Some(Service::Udp), ..name("example.com") };
    assert_eq!(bench.addresses(&udp, ALL), ["Udp 10.0.0.2:5080", "Udp 10.0.0.3:5070"]);
    assert!(!bench.asked.iter().any(|(_, record)| *record == RecordType::Naptr));
    let tls = Destination { service: Some(Service::Tls), ..name("example.com") };
    assert_eq!(bench.addresses(&tls, ALL), ["Tls 10.0.0.2:5081"]);
    assert!(bench.asked.contains(&("_sips._tcp.example.com".to_owned(), RecordType::Srv)));
    // A port: no SRV. An address: no question at all.
    let mut bench = Bench::new(zone);
    let port = Destination { port: Some(5099), ..udp };
    assert_eq!(bench.addresses(&port, ALL), ["Udp 10.0.0.1:5099"]);
    assert_eq!(bench.asked, [("example.com".to_owned(), RecordType::A)]);
    let literal = Destination { host: Host::Address([10, 0, 0, 9].into()), port: None, service: None };
    let mut bench = Bench::new(Vec::new());
    assert_eq!(bench.addresses(&literal, UDP), ["Udp 10.0.0.9:5060"]);
    assert!(bench.asked.is_empty());
}

// RFC 3263 4.1.
#[test]
fn naptr_chooses_the_transport_and_its_absence_asks_for_all() {
    let zone = vec![
        naptr("example.com", 50, "SIPS+D2T", "_sips._tcp.x.example.com"),
        naptr("example.com", 90, "SIP+D2U", "_sip._udp.y.example.com"),
        naptr("example.com", 10, "E2U+sip", "nowhere.example.com"),
        srv("_sips._tcp.x.example.com", 1, 0, 5061, "a.example.com"),
        srv("_sip._udp.y.example.com", 1, 0, 5060, "b.example.com"),
        srv("_sip._tcp.example.com", 1, 0, 5068, "a.example.com"),
        a("a.example.com", 2),
        a("b.example.com", 3),
        a("example.com", 4),
    ];
    assert_eq!(Bench::new(zone.clone()).addresses(&name("example.com"), ALL), ["Tls 10.0.0.2:5061"]);
    assert_eq!(Bench::new(zone.clone()).addresses(&name("example.com"), UDP), ["Udp 10.0.0.3:5060"]);
    let zone: Vec<_> = zone.into_iter().filter(|r| !matches!(r.data, RecordData::Naptr { .. })).collect();
    assert_eq!(Bench::new(zone).addresses(&name("example.com"), ALL), ["Tcp 10.0.0.2:5068"]);
    let only = vec![a("example.com", 4)];
    assert_eq!(Bench::new(only).addresses(&name("example.com"), ALL), ["Udp 10.0.0.4:5060"]);
    // RFC 2782: "." is no host.
    let none = vec![srv("_sip._udp.example.com", 0, 0, 1, "."), a("example.com", 4)];
    assert_eq!(Bench::new(none).addresses(&name("example.com"), UDP), ["Nowhere"]);
}

// RFC 2782.
#[test]
fn weights_are_the_odds_within_a_priority() {
    let items = [(1u32, 70u16, 1u16), (1, 30, 2), (0, 0, 3), (1, 0, 4), (1, 70, 1)];
    let mut state = 1u64;
    let mut roll = |limit: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % (limit + 1)
    };
    let mut first = [0u32; 5];
    for _ in 0..10_000 {
        let drawn = draw(&items, |i| *i, &mut roll);
        assert_eq!(drawn.len(), 5);
        assert_eq!(drawn[0].2, 3, "priority comes before everything");
        first[usize::from(drawn[1].2)] += 1;
    }
    assert!((6500..7400).contains(&first[1]), "{first:?}");
    assert!((2600..3400).contains(&first[2]), "{first:?}");
    assert!((1..400).contains(&first[4]), "{first:?}");
}

// RFC 8767 4.
#[test]
fn an_answer_holds_for_its_time_is_refreshed_ahead_and_outlives_dns() {
    let udp = Destination { port: Some(5060), ..name("example.com") };
    let mut bench = Bench::new(vec![a("example.com", 1)]);
    assert_eq!(bench.addresses(&udp, UDP), ["Udp 10.0.0.1:5060"]);
    bench.zone = vec![a("example.com", 2)];
    bench.now += Duration::from_secs(200);
    assert_eq!(bench.addresses(&udp, UDP), ["Udp 10.0.0.1:5060"]);
    assert_eq!(bench.asked.len(), 1);
    // At four fifths of its time it is asked again, and used in the meantime.
    bench.now += Duration::from_secs(45);
    assert_eq!(bench.addresses(&udp, UDP), ["Udp 10.0.0.2:5060"]);
    assert_eq!(bench.asked.len(), 2);
    bench.away = true;
    bench.now += Duration::from_secs(5000);
    assert_eq!(bench.addresses(&udp, UDP), ["Udp 10.0.0.2:5060"], "the last good answer");
    let before = bench.asked.len();
    for _ in 0..600 {
        bench.now += Duration::from_millis(100);
        bench.look(&udp, UDP);
    }
    assert!((2..=7).contains(&(bench.asked.len() - before)), "{}", bench.asked.len() - before);
    bench.now += Duration::from_secs(90_000);
    assert_eq!(bench.addresses(&udp, UDP), ["Unavailable"], "not for ever");
    bench.away = false;
    bench.now += Duration::from_secs(61);
    assert_eq!(bench.addresses(&udp, UDP), ["Udp 10.0.0.2:5060"]);
    // RFC 2308 5: that there is nothing is believed for its time.
    bench.zone.clear();
    let mut bench = Bench::new(Vec::new());
    assert_eq!(bench.addresses(&udp, UDP), ["Nowhere"]);
    bench.zone = vec![a("example.com", 1)];
    bench.now += Duration::from_secs(40);
    assert_eq!(bench.addresses(&udp, UDP), ["Nowhere"]);
    bench.now += Duration::from_secs(25);
    assert_eq!(bench.addresses(&udp, UDP), ["Udp 10.0.0.1:5060"]);
}

#[test]
fn a_host_that_fails_does_not_hold_up_the_others() {
    let zone = [
        srv("_sip._udp.example.com", 10, 0, 5060, "a.example.com"),
        srv("_sip._udp.example.com", 20, 0, 5060, "broken.example.com"),
    ];
    let udp = Destination { service: Some(Service::Udp), ..name("example.com") };
    let mut resolver = Resolver::new(ResolverLimits::default());
    let now = Bench::new(Vec::new()).now;
    let mut last = None;
    for _ in 0..3 {
        last = Some(resolver.locate(now, &udp, UDP));
        while let Some(query) = resolver.poll_query() {
            let answer = match (query.record, query.name.as_str()) {
                (RecordType::Srv, _) => Ok(zone.to_vec()),
                (_, "a.example.com") => Ok(vec![a("a.example.com", 1)]),
                _ => Err(Failure::Unavailable),
            };
            resolver.handle_answer(now, query.id, answer);
        }
    }
    match last {
        Some(Located::Known { candidates, complete, again }) => {
            assert_eq!((candidates.len(), complete), (1, true));
            assert!(again <= now + Duration::from_secs(2), "the other is asked again soon");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn circles_lies_and_floods_end() {
    let udp = Destination { port: Some(5060), ..name("a.example.com") };
    let circle = vec![cname("a.example.com", "b.example.com"), cname("b.example.com", "a.example.com")];
    assert_eq!(Bench::new(circle).addresses(&udp, UDP), ["Nowhere"]);
    let mut bench = Bench::new(vec![cname("a.example.com", "b.example.com"), a("b.example.com", 7)]);
    assert_eq!(bench.addresses(&udp, UDP), ["Udp 10.0.0.7:5060"]);
    // What is of another name is not believed.
    let mut resolver = Resolver::new(ResolverLimits::default());
    let now = bench.now;
    resolver.locate(now, &udp, UDP);
    let query = resolver.poll_query().unwrap();
    assert!(!resolver.handle_answer(now, query.id + 1, Ok(vec![a("a.example.com", 8)])));
    resolver.handle_answer(now, query.id, Ok(vec![a("evil.example.com", 66)]));
    assert!(matches!(resolver.locate(now, &udp, UDP), Located::Nowhere { .. }));
    // A flood of records and of names stays within the bounds.
    let limits = ResolverLimits { entries: 8, in_flight: 4, candidates: 5, ..ResolverLimits::default() };
    let mut resolver = Resolver::new(limits);
    resolver.locate(now, &udp, UDP);
    let query = resolver.poll_query().unwrap();
    resolver.handle_answer(now, query.id, Ok((0..=255).map(|n| a("a.example.com", n)).collect()));
    match resolver.locate(now, &udp, UDP) {
        Located::Known { candidates, .. } => assert_eq!(candidates.len(), 5),
        other => panic!("{other:?}"),
    }
    for n in 0..100 {
        let other = Destination { port: Some(1), ..name(&format!("n{n}.example.com")) };
        resolver.locate(now, &other, UDP);
    }
    assert_eq!(std::iter::from_fn(|| resolver.poll_query()).count(), 4);
    assert!(resolver.entries.len() <= 8);
    assert!(resolver.refused() >= 90);
    // A question nobody answers is given up, and asked again later.
    let mut resolver = Resolver::new(ResolverLimits::default());
    resolver.locate(now, &udp, UDP);
    assert!(matches!(resolver.locate(now + Duration::from_secs(16), &udp, UDP), Located::Unavailable { .. }));
    for bad in ["", "a..b", "-_.1", "ex ample.com", "1.2.3.4", &"a.".repeat(130)] {
        assert!(bad.parse::<Domain>().is_err(), "{bad}");
    }
}
