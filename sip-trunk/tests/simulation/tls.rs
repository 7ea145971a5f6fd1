//! Rows A14, A18, A20 and A21 over TLS: who is who by certificate, `sips`, and connections used both ways.

use call_model::Cause;
use sip_trunk::trunk::resolve::{Destination, Service};
use sip_trunk::{
    Command, EndpointConfig, Event, Listener, PeerIdentity, SubjectName, Transport, TrunkConfig,
};

use crate::accounts::{account, register};
use crate::net::{A, A_RTP, B, Pair, address, call_id, caller, ended, media, number, trunk_name};
use crate::raw::{Ask, Lab, SDP, header, reply, status};
use crate::targets::{Farm, T1};

fn certificate(names: &[&str]) -> PeerIdentity {
    let names: Vec<_> = names.iter().map(|name| SubjectName::Dns((*name).to_owned())).collect();
    PeerIdentity::new(&names, None)
}

fn listens_on_tls(config: &mut EndpointConfig) {
    let local = config.listeners[0].local;
    config.listeners.push(Listener { transport: Transport::Tls, local });
}

fn pair(change: impl FnOnce(&mut EndpointConfig)) -> Pair {
    Pair::with(Transport::Tls, |a, b| {
        listens_on_tls(a);
        listens_on_tls(b);
        change(a);
    })
}

/// The gateway with a TLS trunk, known by its certificate if `names` are written.
fn lab(names: &[&str]) -> Lab {
    Lab::with(|config| {
        listens_on_tls(config);
        config.trunks[0].transport = Transport::Tls;
        config.trunks[0].certificate_names = names.iter().map(|name| (*name).to_owned()).collect();
    })
}

fn over_tls(ask: Ask) -> Ask {
    let via = ask.via.replace("SIP/2.0/UDP", "SIP/2.0/TLS");
    let lines = ask.lines.replace("5060;ob", "5060;transport=tls");
    Ask { via, lines, ..ask }
}

// RFC 3261 18, 26.2.
#[test]
fn a_call_over_tls_says_so_and_names_the_trunk_whose_certificate_is_expected() {
    let mut pair = pair(|_| {});
    let (_, b) = pair.answered();
    assert_eq!(pair.dialled, [(Transport::Tls, address(B), Some(trunk_name("far")))]);
    let invite = &pair.log.iter().find(|m| m.3.starts_with("INVITE")).unwrap().3;
    assert!(header(invite, "Via").starts_with("SIP/2.0/TLS 10.0.0.1:5060;"), "{invite}");
    assert!(header(invite, "Contact").contains(";transport=tls>"), "{invite}");
    pair.command(1, Command::Release { call: b, cause: Cause::NORMAL_CALL_CLEARING });
    pair.run_ms(100);
    assert_eq!(ended(&pair.take(0)).len(), 1);
    pair.assert_clean();
}

// RFC 3261 18.1.1: the size of a request matters on UDP only.
#[test]
fn a14_a_large_request_stays_on_tls() {
    let mut pair = pair(|a| a.user_agent = "z".repeat(900));
    let mut caller = caller("+12025550100");
    caller.display_name = Some("x".repeat(80));
    let (call, trunk, called) = (call_id(1), trunk_name("far"), number("+442079460018"));
    pair.command(0, Command::Invite { call, trunk, called, caller, media: media(A_RTP) });
    pair.run_ms(100);
    let invite = &pair.log.iter().find(|m| m.3.starts_with("INVITE")).unwrap().3;
    assert!(invite.len() > 1300 && header(invite, "Via").starts_with("SIP/2.0/TLS "), "{invite}");
    assert_eq!(pair.dialled.len(), 1);
    assert!(pair.take(1).iter().any(|e| matches!(e, Event::Incoming { .. })));
}

#[test]
fn a18_a_tls_connection_lost_in_a_call_is_opened_again_by_tls() {
    let mut pair = pair(|_| {});
    let (a, _) = pair.answered();
    pair.cut_all();
    pair.run_ms(50);
    pair.take(1);
    pair.command(0, Command::Hold { call: a, on: true });
    pair.run_ms(100);
    assert!(pair.take(1).iter().any(|e| matches!(e, Event::Media { .. })));
    assert_eq!(pair.dialled.len(), 2);
    assert!(pair.dialled.iter().all(|(transport, ..)| *transport == Transport::Tls));
}

// RFC 5922 7.3: the names of the certificate tell whose requests these are, wherever they come from.
#[test]
fn a20_a_peer_is_known_by_its_certificate() {
    for (names, shown, from, accepted) in [
        (&["pbx.example.com"][..], Some(&["other.example.com", "PBX.example.com"][..]), 1, true),
        (&["pbx.example.com"], Some(&["other.example.com"]), 1, false),
        (&["pbx.example.com"], None, 1, false),
        (&["pbx.example.com"], Some(&["*.example.com"]), 1, false),
        // From an address nobody has heard of.
        (&["pbx.example.com"], Some(&["pbx.example.com"]), 2, true),
        (&["pbx.example.com"], None, 2, false),
        (&[], Some(&["pbx.example.com"]), 2, false),
        (&[], None, 1, true),
    ] {
        let mut lab = lab(names);
        let stranger = lab.net.add_raw(address("10.0.0.9:5060"));
        assert_eq!(stranger, 2);
        if let Some(shown) = shown {
            lab.identities.insert(from, certificate(shown));
        }
        let connection = lab.raw_connect_by(from, 45_000, address(A), Transport::Tls);
        lab.run_ms(20);
        lab.raw_write(from, connection, &over_tls(Ask::new("OPTIONS")).text());
        lab.run_ms(20);
        let got = lab.inbox(from);
        let answered = got.iter().any(|m| m.starts_with("SIP/2.0 200"));
        assert_eq!(answered, accepted, "{names:?} {shown:?} from {from}: {got:?}");
        assert_eq!(lab.endpoint(0).counters().connections, usize::from(accepted));
    }
}

// RFC 5922 7.3.
#[test]
fn a20_an_address_is_not_enough_for_a_trunk_that_is_known_by_its_certificate() {
    let mut lab = lab(&["pbx.example.com"]);
    let answers = lab.tell(&Ask::new("OPTIONS").text());
    assert_eq!(status(&answers[0]), 403, "by UDP");
    let connection = lab.raw_connect(1, 45_001, address(A));
    lab.run_ms(20);
    lab.raw_write(1, connection, &Ask::new("OPTIONS").text());
    lab.run_ms(20);
    assert!(!lab.inbox(1).concat().contains("SIP/2.0"), "by TCP");
    assert_eq!(lab.endpoint(0).counters().refused["certificate"], 1);
    let endpoint = lab.endpoint(0);
    assert!(endpoint.admits(address(A), address("10.0.0.9:1"), Transport::Tls));
    assert!(!endpoint.admits(address(A), address("10.0.0.2:1"), Transport::Tcp));
}

// RFC 5630 3.1.1, RFC 3261 12.1.1: over TLS `sips` is what it says, and our Contact is one too.
#[test]
fn a21_sips_over_tls_is_taken_and_answered_with_a_sips_contact() {
    let mut lab = lab(&[]);
    let connection = lab.raw_connect_by(1, 45_000, address(A), Transport::Tls);
    lab.run_ms(20);
    let mut invite = over_tls(Ask::invite());
    invite.uri = "sips:+442079460018@10.0.0.1".to_owned();
    invite.lines = "Contact: <sips:peer@10.0.0.2:5060>\r\n".to_owned();
    lab.raw_write(1, connection, &invite.text());
    lab.run_ms(20);
    let call = lab.incoming().expect("no Incoming");
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).concat();
    let ok = &ok[ok.find("SIP/2.0 200").unwrap()..];
    assert_eq!(header(ok, "Contact"), "<sips:10.0.0.1:5060>");
    lab.raw_write(1, connection, &over_tls(Ask::within(ok, "ACK", 1)).text());
    lab.run_ms(20);
    // What we send to a `sips` target goes by TLS, with a `sips` Contact.
    lab.command(0, Command::Hold { call, on: true });
    lab.run_ms(20);
    let again = lab.inbox(1).concat();
    assert!(again.starts_with("INVITE sips:peer@10.0.0.2:5060 "), "{again}");
    assert!(header(&again, "Via").starts_with("SIP/2.0/TLS "), "{again}");
    assert_eq!(header(&again, "Contact"), "<sips:10.0.0.1:5060>");
    assert!(lab.dialled.iter().all(|(transport, ..)| *transport == Transport::Tls));
}

// RFC 5923 8.2: whoever proved who they are and asks for it is called back over the same connection.
#[test]
fn requests_go_over_the_connection_of_a_peer_that_proved_itself() {
    for (shown, alias, dials) in [(true, ";alias", 0), (false, ";alias", 1), (true, "", 1)] {
        let mut lab = lab(&[]);
        if shown {
            lab.identities.insert(1, certificate(&["pbx.example.com"]));
        }
        let connection = lab.raw_connect_by(1, 45_000, address(A), Transport::Tls);
        lab.run_ms(20);
        let mut options = over_tls(Ask::new("OPTIONS"));
        options.via.push_str(alias);
        lab.raw_write(1, connection, &options.text());
        lab.run_ms(20);
        lab.inbox(1);
        let (_, invite) = lab.call_out();
        assert_eq!(lab.dialled.len(), dials, "certificate {shown}, {alias:?}");
        let over = lab.latest_link(1);
        lab.raw_write(1, if dials == 0 { connection } else { over }, &reply(&invite, 200, "t", "", SDP));
        lab.run_ms(20);
        assert!(lab.take(0).iter().any(|e| matches!(e, Event::Answered { .. })));
    }
}

// RFC 3261 26.3.1: what is meant for TLS goes over no other connection to the same address.
#[test]
fn tcp_and_tls_to_one_address_are_two_connections() {
    let mut lab = lab(&[]);
    lab.raw_connect(1, 5060, address(A));
    lab.run_ms(20);
    lab.call_out();
    assert_eq!(lab.dialled, [(Transport::Tls, address(B), Some(trunk_name("far")))]);
}

// RFC 3263 4.1, RFC 5922 7: what a name leads to by TLS is the trunk's, whose certificate is expected.
#[test]
fn a20_where_a_name_leads_to_by_tls_the_certificate_of_the_trunk_is_expected() {
    let mut farm = Farm::named(|config| {
        config.listeners.push(Listener { transport: Transport::Tls, local: address(A) });
        let name = Destination::of("carrier.example".parse().unwrap());
        let by_tls = Destination { service: Some(Service::Tls), ..name };
        let certificate_names = vec!["carrier.example".to_owned()];
        let named = TrunkConfig::named(trunk_name("far"), by_tls);
        config.trunks[0] = TrunkConfig { certificate_names, ..named };
    });
    let (node, invite) = farm.call();
    assert!(node == 1 && header(&invite, "Via").starts_with("SIP/2.0/TLS "), "{invite}");
    assert_eq!(farm.dialled, [(Transport::Tls, address(T1), Some(trunk_name("far")))]);
    // Its address alone does not make it known when it comes to us.
    for (shown, refused) in [(false, 1), (true, 1)] {
        if shown {
            farm.identities.insert(1, certificate(&["carrier.example"]));
        }
        farm.raw_connect_by(1, 45_000 + u16::from(shown), address(A), Transport::Tls);
        farm.step(20);
        assert_eq!(farm.endpoint(0).counters().refused["certificate"], refused);
        assert_eq!(farm.endpoint(0).counters().connections, 1 + usize::from(shown));
    }
}

// With accounts a stranger may turn out to be one, whatever it shows; the others stay strangers.
#[test]
fn who_has_an_account_is_let_in_beside_those_known_by_certificate() {
    let mut lab = Lab::with(|config| {
        listens_on_tls(config);
        config.trunks[0].transport = Transport::Tls;
        config.trunks[0].certificate_names = vec!["pbx.example.com".to_owned()];
        config.accounts.push(account());
        config.accounts[0].transports = vec![Transport::Tls];
    });
    let phone = lab.net.add_raw(address("10.0.0.3:5060"));
    assert!(lab.endpoint(0).admits(address(A), address("10.0.0.3:1"), Transport::Tls));
    let connection = lab.raw_connect_by(phone, 45_000, address(A), Transport::Tls);
    lab.run_ms(20);
    lab.raw_write(phone, connection, &over_tls(register()).text());
    lab.run_ms(20);
    assert_eq!(status(&lab.inbox(phone).concat()), 401);
    let mut stranger = over_tls(Ask::new("OPTIONS"));
    stranger.call_id = "stranger".to_owned();
    lab.raw_write(phone, connection, &stranger.text());
    lab.run_ms(20);
    assert_eq!(status(&lab.inbox(phone).concat()), 403);
}
