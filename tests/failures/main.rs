//! What goes wrong in the field, and the exact word or code with which each is told.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::{SocketAddrV4, UdpSocket},
    process::{Command, Output},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use p2p_edge::identity::{Authority as Signer, NodeBundle, NodeClaims, NodeKey, Validity};
use serde_json::{Value, json};
use tests::lab::{self, Authority, Credential, Daemon, Folder, Phone, Plan, Signal, TrunkOptions, ports};

const SOON: Duration = Duration::from_secs(20);

/// A gateway whose only trunk is a socket of this test, and alice.
struct Network {
    alice: Phone,
    gateway: Daemon,
    trunk: UdpSocket,
    authority: Authority,
    credential: Credential,
    folder: Folder,
}

fn network(extra: &str) -> Network {
    let mut plan = Plan::new("failures").unwrap();
    let trunk = UdpSocket::bind((ports::address(), 5060)).unwrap();
    let std::net::SocketAddr::V4(at) = trunk.local_addr().unwrap() else { unreachable!("bound to IPv4") };
    let options = &mut plan.options;
    options.trunks = vec![TrunkOptions { options_interval_s: 0, ..TrunkOptions::new("silent", at) }];
    options.numbers.push(("+15550009002".to_owned(), "bob".to_owned()));
    options.extra = extra.to_owned();
    let lab::Network { alice, gateway, authority, credential, folder } = plan.start().unwrap();
    Network { alice, gateway, trunk, authority, credential, folder }
}

impl Network {
    /// alice calls and hears the end: cause and SIP status.
    fn refused(&mut self, to: &str, limit: Duration) -> (u64, Option<u64>) {
        self.alice.call(to, None).unwrap();
        let ended = self.alice.wait_for("ended", limit).unwrap();
        assert_eq!(ended["answered"], false, "{ended}");
        (ended["cause"].as_u64().unwrap(), ended["sip_status"].as_u64())
    }

    fn last_call(&self) -> Value {
        self.gateway.json("/v1/calls?limit=1").unwrap()["calls"][0].clone()
    }

    /// Sends an INVITE as the trunk and returns the first final answer.
    fn invite(&self, user: &str) -> String {
        let (gateway, own) = (self.gateway.sip(), self.trunk.local_addr().unwrap());
        let sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8\r\n",
            ip = own.ip()
        );
        let invite = format!(
            "INVITE sip:{user}@{gateway} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK-{user}\r\nMax-Forwards: 70\r\n\
             From: <sip:+15550001@{own}>;tag=1\r\nTo: <sip:{user}@{gateway}>\r\nCall-ID: {user}@test\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:test@{own}>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        );
        self.trunk.set_read_timeout(Some(SOON)).unwrap();
        self.trunk.send_to(invite.as_bytes(), gateway).unwrap();
        let mut buffer = [0; 4096];
        loop {
            let (length, _) = self.trunk.recv_from(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if !text.starts_with("SIP/2.0 1") {
                return text;
            }
        }
    }
}

impl Network {
    /// Acknowledges a 200 as the trunk.
    fn acknowledge(&self, answer: &str) {
        let header = |name: &str| {
            let line = answer.lines().find(|line| line.to_ascii_lowercase().starts_with(name)).unwrap();
            line.split_once(':').unwrap().1.trim().to_owned()
        };
        let (gateway, own) = (self.gateway.sip(), self.trunk.local_addr().unwrap());
        let ack = format!(
            "ACK sip:{gateway} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK-ack\r\nMax-Forwards: 70\r\nFrom: {}\r\n\
             To: {}\r\nCall-ID: {}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
            header("from"),
            header("to"),
            header("call-id")
        );
        self.trunk.send_to(ack.as_bytes(), gateway).unwrap();
    }

    /// Waits for the BYE of the gateway.
    fn bye(&self, limit: Duration) -> String {
        self.trunk.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = [0; 4096];
        loop {
            let (length, _) = self.trunk.recv_from(&mut buffer).unwrap();
            if buffer[..length].starts_with(b"BYE ") {
                return String::from_utf8_lossy(&buffer[..length]).into_owned();
            }
        }
    }
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default()
}

#[test]
fn calls_to_nobody_are_told_apart() {
    let mut network = network("");
    // Unallocated: no record of the handle anywhere.
    assert_eq!(network.refused("nobody", SOON), (1, Some(404)));
    // No gateway offers the prefix.
    assert_eq!(network.refused("+390612345678", SOON), (3, Some(404)));
    // From the trunk: a number that nobody has, and no number at all.
    assert_eq!(first_line(&network.invite("+15558888888")), "SIP/2.0 404 Not Found");
    assert!(network.invite("+15558888887").contains("Reason: Q.850;cause=1;"));
    assert_eq!(first_line(&network.invite("***")), "SIP/2.0 484 Address Incomplete");
    // bob has a number, but never enrolled: nothing is found in the overlay.
    let answer = network.invite("+15550009002");
    assert_eq!(first_line(&answer), "SIP/2.0 404 Not Found", "{answer}");
}

#[test]
fn an_unroutable_number_is_refused_by_its_gate() {
    let mut network = network("[policy]\ndeny_prefixes = [\"+1555900\"]\n");
    assert_eq!(network.refused("+15559001234", SOON), (21, None));
    let call = network.last_call();
    let why = network.gateway.causeway(&["call", "why", call["id"].as_str().unwrap()]).unwrap();
    assert!(why.contains("The policy gate refused (policy.deny_prefixes): +1555900 is denied."), "{why}");
    let test = network.gateway.causeway(&["route", "test", "+15559001234", "--from", "alice"]).unwrap();
    assert!(test.starts_with("would be refused"), "{test}");
    let test = network.gateway.causeway(&["route", "test", "+15550000001", "--from", "alice"]).unwrap();
    assert!(test.starts_with("would be placed: silent"), "{test}");
}

#[test]
fn a_trunk_that_does_not_answer_ends_the_call_after_timer_b() {
    let mut network = network("");
    // RFC 3261 17.1.1.2: Timer B is 64 times T1, 32 s.
    let (cause, status) = network.refused("+15550000600", Duration::from_secs(45));
    assert_eq!((cause, status), (102, None));
    let call = network.last_call();
    assert_eq!(call["outcome"], "indeterminate", "{call}");
    let id = call["id"].as_str().unwrap();
    let why = network.gateway.causeway(&["call", "why", id]).unwrap();
    assert!(why.contains("The far_answer gate refused (trunks.silent): silent did not answer"), "{why}");
}

#[test]
fn a_user_that_vanishes_mid_call_ends_it_on_the_trunk() {
    let mut network = network("");
    network.alice.command(&json!({ "command": "policy", "mode": "now" })).unwrap();
    let answer = network.invite("+15550009001");
    assert_eq!(first_line(&answer), "SIP/2.0 200 OK", "{answer}");
    network.acknowledge(&answer);
    network.alice.wait_for("media_up", SOON).unwrap();
    network.alice.process().signal(Signal::Kill);
    // Signalling has 20 s to come back; ICE finds out at about the same time that nobody is there.
    let bye = network.bye(Duration::from_secs(60));
    let reason = bye.lines().find(|line| line.starts_with("Reason:")).unwrap();
    assert!(reason.starts_with("Reason: Q.850;cause="), "{bye}");
    let call = network.last_call();
    assert_ne!(call["released_by"], "trunk", "{call}");
    assert!([27, 38, 41].contains(&call["cause"]["q850"].as_u64().unwrap()), "{call}");
}

fn run_daemon(config: &std::path::Path) -> Output {
    let mut command = Command::new(lab::binary("causewayd").unwrap());
    command.arg("--config").arg(config).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_second_daemon_on_the_same_port_says_which() {
    let network = network("");
    let output = run_daemon(network.gateway.config());
    assert_eq!(output.status.code(), Some(69), "{}", said(&output));
    let sip: SocketAddrV4 = network.gateway.sip();
    let expected = format!(
        "causewayd: sip.listen: UDP:{sip} cannot be bound: Address already in use (os error 98); is another daemon on it?\n"
    );
    assert!(said(&output).ends_with(&expected), "{}", said(&output));
    // The first one goes on.
    network.gateway.wait_until_ready().unwrap();
}

#[test]
fn an_expired_certificate_is_named_with_the_remedy() {
    let network = network("");
    let folder = network.folder.path().join("authority");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let signer = Signer::from_pem(&read("enrolment.key.pem"), &read("enrolment.pem")).unwrap();
    // It was valid for the first second of the authority's life, which must have passed.
    let begin = signer.validity().not_before;
    lab::until("the certificate has ended", SOON, || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        (now > begin + 2).then_some(())
    })
    .unwrap();
    let key = NodeKey::from_seed([9; 32]);
    let validity = Validity { not_before: begin, not_after: begin + 1 };
    let chain = signer.issue_node("late", &key.public(), &NodeClaims::supernode(), 77, validity).unwrap();
    let identity = network.folder.path().join("late.pem");
    fs::write(&identity, NodeBundle { key, chain }.to_pem()).unwrap();
    let config = network.folder.path().join("late.toml");
    let (trust, address) = (network.authority.trust_file(), ports::address());
    let text = format!(
        "[overlay]\nrole = \"supernode\"\nidentity_file = {identity:?}\ntrust_file = {trust:?}\nlisten = [\"/ip4/{address}/tcp/4001\"]\n"
    );
    fs::write(&config, text).unwrap();
    let output = run_daemon(&config);
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
    let message = said(&output);
    assert!(
        message.starts_with(&format!("causewayd: overlay.identity_file: {}: ", identity.display())),
        "{message}"
    );
    assert!(
        message.contains("late") && message.contains("expired") && message.contains("causeway authority"),
        "{message}"
    );
    drop(network.credential);
}

/// A closed network has no name servers; addresses are enough there.
#[test]
fn a_machine_without_name_servers_joins_all_the_same() {
    let folder = Folder::new("nameless").unwrap();
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let pki = p2p_edge::testing::Pki::new(unix).unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("node.pem"), pki.supernode(1).unwrap().to_pem()).unwrap();
    fs::write(at("root.pem"), pki.root.certificate_pem()).unwrap();
    fs::write(at("empty"), "").unwrap();
    let text = format!(
        "[overlay]\nrole = \"supernode\"\nidentity_file = {:?}\ntrust_file = {:?}\nlisten = [\"/ip4/{}/tcp/4001\"]\n",
        at("node.pem"),
        at("root.pem"),
        ports::address()
    );
    fs::write(at("causeway.toml"), text).unwrap();
    let script = format!(
        "mount --bind {} /etc/resolv.conf && exec {} --config {}",
        at("empty").display(),
        lab::binary("causewayd").unwrap().display(),
        at("causeway.toml").display()
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    let daemon = lab::Process::spawn("nameless", folder.path(), &command).unwrap();
    lab::until("it has joined", SOON, || daemon.errors().contains("overlay joined").then_some(())).unwrap();
    assert!(daemon.errors().contains("no name servers"), "{}", daemon.errors());
}

#[test]
fn a_broken_configuration_starts_nothing() {
    let folder = Folder::new("broken").unwrap();
    let config = folder.path().join("causeway.toml");
    fs::write(
        &config,
        "[overlay]\nrole = \"king\"\nidentity_file = \"x\"\ntrust_file = \"y\"\nlisten = []\n",
    )
    .unwrap();
    for check in [false, true] {
        let mut command = Command::new(lab::binary("causewayd").unwrap());
        command.arg("--config").arg(&config);
        if check {
            command.arg("--check");
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        let expected = format!(
            "{}:2: overlay.role: \"king\" is no role; write \"gateway\" or \"supernode\"\n",
            config.display()
        );
        assert!(said(&output).ends_with(&expected), "{}", said(&output));
    }
}

#[test]
fn sigterm_ends_calls_with_goodbyes_on_both_sides() {
    let mut network = network("");
    network.alice.command(&json!({ "command": "policy", "mode": "now" })).unwrap();
    let answer = network.invite("+15550009001");
    assert_eq!(first_line(&answer), "SIP/2.0 200 OK", "{answer}");
    network.acknowledge(&answer);
    network.alice.wait_for("media_up", SOON).unwrap();
    let began = std::time::Instant::now();
    network.gateway.process().signal(Signal::Term);
    let bye = network.bye(SOON);
    assert!(bye.contains("Reason: Q.850;cause=31;"), "{bye}");
    let ended = network.alice.wait_for("ended", SOON).unwrap();
    assert_eq!((ended["by"].as_str(), ended["cause"].as_u64()), (Some("far"), Some(31)), "{ended}");
    let status = network.gateway.process().wait(SOON).unwrap();
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < Duration::from_secs(5), "the last words took {:?}", began.elapsed());
}
