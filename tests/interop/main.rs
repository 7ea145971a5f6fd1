//! What a PBX does besides carrying a voice, with a real one: Asterisk, and baresip for the telephone that holds.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod between_trunks;

use std::time::Duration;

use serde_json::{Value, json};
use tests::lab::{
    self, Asterisk, AsteriskOptions, Authority, Baresip, BaresipOptions, Daemon, DaemonOptions, Folder,
    Originate, Phone, PhoneOptions, Plan, Signal, Speech, TrunkOptions, ports,
};

const SOON: Duration = Duration::from_secs(20);
const ALICE: &str = Plan::ALICE;
const PBX: &str = "+15550000199";

struct Network {
    alice: Phone,
    pbx: Asterisk,
    gateway: Daemon,
    _folder: Folder,
}

/// What differs between networks: what the PBX is told, and what the gateway is told of it.
struct Shape {
    transport: &'static str,
    codecs: &'static str,
    pbx_asks: Option<&'static str>,
    gateway_knows: Option<&'static str>,
    /// Registers as `trunk1` with the password that the gateway knows.
    registers: bool,
    /// `log.filter` of the gateway.
    log: &'static str,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            transport: "udp",
            codecs: "alaw,ulaw",
            pbx_asks: None,
            gateway_knows: None,
            registers: false,
            log: "info",
        }
    }
}

fn network(shape: &Shape) -> Network {
    let credentials = |password: &str| ("causeway".to_owned(), password.to_owned());
    let mut plan = Plan::new("interop").unwrap();
    let options = &mut plan.options;
    let pbx = AsteriskOptions {
        transport: shape.transport,
        codecs: shape.codecs,
        credentials: shape.pbx_asks.map(credentials),
        account: shape.registers.then(|| ("trunk1".to_owned(), "open sesame".to_owned())),
        ..AsteriskOptions::new(options.sip())
    };
    let pbx = Asterisk::start(&plan.folder.path().join("asterisk"), &pbx).unwrap();
    pbx.trace_sip().unwrap();
    options.log = shape.log.to_owned();
    options.trunks = vec![TrunkOptions {
        transport: shape.transport,
        credentials: shape.gateway_knows.map(|password| match shape.registers {
            true => ("trunk1".to_owned(), password.to_owned()),
            false => credentials(password),
        }),
        options_interval_s: 0,
        extra: match shape.registers {
            true => format!("register = {{ user = \"trunk1\", contact_user = {ALICE:?}, required = true }}"),
            false => String::new(),
        },
        ..TrunkOptions::new("pbx", pbx.sip())
    }];
    let lab::Network { alice, gateway, folder, .. } = plan.start().unwrap();
    Network { alice, pbx, gateway, _folder: folder }
}

impl Network {
    /// alice calls an extension and waits for the answer.
    fn answered(&mut self, extension: &str) {
        self.alice.call(&Asterisk::number(extension), None).unwrap();
        self.alice.wait_for("answered", SOON).unwrap();
        self.alice.wait_for("media_up", SOON).unwrap();
    }

    /// The last call, once it is over and the PBX has no channel left.
    fn over(&self) -> Value {
        lab::until("no channel is left", SOON, || {
            self.pbx.channels().is_ok_and(|count| count == 0).then_some(())
        })
        .unwrap();
        lab::until("the call is over", SOON, || {
            let call = self.gateway.json("/v1/calls?limit=1").ok()?["calls"][0].clone();
            call["outcome"].is_string().then_some(call)
        })
        .unwrap()
    }

    fn digits(&self) -> String {
        self.pbx.digits().iter().map(|heard| heard.digit).collect()
    }

    fn press(&mut self, digits: &str) {
        let expected = self.digits() + digits;
        self.alice.press(digits).unwrap();
        lab::until("the PBX hears the digits", SOON, || (self.digits() == expected).then_some(()))
            .unwrap_or_else(|error| panic!("{error}: {} instead of {expected}", self.digits()));
        // The end of a digit is sent three times (RFC 4733 2.5.1.4). Asterisk forgets with a re-INVITE that it has
        // heard it, and counts what is repeated once more.
        std::thread::sleep(Duration::from_millis(200));
    }

    fn rings_at_alice(&mut self, to: &str, ring: Duration) -> Value {
        self.pbx.originate(&Originate { to, caller: PBX, extension: "608", ring }).unwrap();
        self.alice.wait_for("incoming", SOON).unwrap()
    }
}

#[test]
fn a_call_given_up_while_it_rings_is_cancelled() {
    let mut network = network(&Shape::default());
    network.alice.call(&Asterisk::number("607"), None).unwrap();
    network.alice.wait_for("ringing", SOON).unwrap();
    assert_eq!(network.pbx.channels().unwrap(), 1);
    network.alice.hang_up().unwrap();
    let ended = network.alice.wait_for("ended", SOON).unwrap();
    assert_eq!((&ended["answered"], &ended["by"]), (&false.into(), &"local".into()), "{ended}");
    let call = network.over();
    assert_eq!((&call["outcome"], &call["released_by"]), (&"client".into(), &"overlay".into()), "{call}");
    let log = network.pbx.log();
    assert!(log.contains("CANCEL sip:") && log.contains("SIP/2.0 487 Request Terminated"), "{log}");
}

#[test]
fn a_pbx_that_gives_up_is_heard_by_the_user_it_rang() {
    let mut network = network(&Shape::default());
    let incoming = network.rings_at_alice(ALICE, Duration::from_secs(2));
    assert_eq!(incoming["from"], PBX, "{incoming}");
    let ended = network.alice.wait_for("ended", SOON).unwrap();
    assert_eq!((&ended["answered"], &ended["by"]), (&false.into(), &"far".into()), "{ended}");
    let call = network.over();
    assert_eq!((&call["outcome"], &call["released_by"]), (&"client".into(), &"trunk".into()), "{call}");
}

#[test]
fn the_pbx_calls_a_user_by_name() {
    let mut network = network(&Shape::default());
    let incoming = network.rings_at_alice("alice", SOON);
    assert_eq!((&incoming["from"], &incoming["to"]), (&PBX.into(), &"alice".into()), "{incoming}");
    network.alice.answer(None).unwrap();
    network.alice.wait_for("media_up", SOON).unwrap();
    network.press("42");
    network.pbx.hang_up_all().unwrap();
    let ended = network.alice.wait_for("ended", SOON).unwrap();
    assert_eq!((&ended["cause"], &ended["by"]), (&16.into(), &"far".into()), "{ended}");
    let call = network.over();
    assert_eq!(
        (&call["outcome"], &call["direction"]),
        (&"success".into(), &"trunk_to_overlay".into()),
        "{call}"
    );
}

#[test]
fn calls_cross_a_trunk_over_tcp_both_ways() {
    let mut network = network(&Shape { transport: "tcp", ..Shape::default() });
    network.answered("604");
    network.press("7");
    network.alice.hang_up().unwrap();
    network.alice.wait_for("ended", SOON).unwrap();
    assert_eq!(network.over()["outcome"], "success");
    network.rings_at_alice(ALICE, SOON);
    network.alice.answer(None).unwrap();
    network.alice.wait_for("media_up", SOON).unwrap();
    network.alice.hang_up().unwrap();
    assert_eq!(network.over()["released_by"], "overlay");
    let log = network.pbx.log();
    assert!(log.contains(&format!("TCP:{}", network.gateway.sip().ip())), "{log}");
    assert!(!log.contains("UDP:"), "{log}");
}

#[test]
fn a_pbx_that_asks_for_credentials_is_shown_them() {
    let shape =
        Shape { pbx_asks: Some("open sesame"), gateway_knows: Some("open sesame"), ..Shape::default() };
    let mut network = network(&shape);
    network.answered("612");
    network.alice.hang_up().unwrap();
    network.alice.wait_for("ended", SOON).unwrap();
    assert_eq!(network.over()["outcome"], "success");
    let log = network.pbx.log();
    assert!(log.contains("SIP/2.0 401 Unauthorized") && log.contains("Authorization: Digest"), "{log}");
    // RFC 3261 22: the password itself is in no log.
    assert!(!network.gateway.log().contains("sesame"));
}

/// Everything the daemon says of itself, with everything it can say switched on, while it calls, is called, is asked for
/// credentials and carries digits.
#[test]
fn g10_no_secret_leaves_the_daemon_and_no_number_stands_in_its_log() {
    let shape = Shape {
        pbx_asks: Some("open sesame"),
        gateway_knows: Some("open sesame"),
        log: "trace,quinn=info,libp2p=info",
        ..Shape::default()
    };
    let mut network = network(&shape);
    network.answered("604");
    network.press("4711");
    network.alice.hang_up().unwrap();
    network.over();
    network.rings_at_alice(ALICE, SOON);
    network.alice.answer(None).unwrap();
    network.alice.wait_for("media_up", SOON).unwrap();
    network.alice.hang_up().unwrap();
    let call = network.over();
    let id = call["id"].as_str().unwrap();

    let trace = network.pbx.log();
    let digest = |name: &str| {
        let before = format!("{name}=\"");
        let values = trace.split(&before).skip(1).filter_map(|rest| rest.split('"').next());
        values.map(str::to_owned).collect::<Vec<_>>()
    };
    let answers = digest("response");
    assert!(!answers.is_empty(), "the PBX was shown no credentials: {trace}");
    let token = std::fs::read_to_string(network.gateway.token_file()).unwrap().trim().to_owned();
    let secrets = answers.into_iter().chain(["open sesame".to_owned(), token]).collect::<Vec<_>>();

    let log = network.gateway.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "nothing but the usual was logged");
    let mut said = vec![("the log".to_owned(), log.clone())];
    for path in ["/metrics", "/v1/trunks", "/v1/health", "/v1/calls", &format!("/v1/calls/{id}")] {
        said.push((path.to_owned(), network.gateway.get(path).unwrap().1));
    }
    for command in [&["trunks"][..], &["call", "why", id], &["call", "ladder", id]] {
        said.push((command.join(" "), network.gateway.causeway(command).unwrap_or_default()));
    }
    for (place, text) in &said {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{place} tells a secret");
        }
    }
    // Numbers and handles are masked in the log: who may read it may not know who called whom.
    for private in [ALICE, PBX, &Asterisk::number("604")] {
        let line = log.lines().find(|line| line.contains(private));
        assert!(line.is_none(), "{line:?}");
    }
    // A digit may be part of a secret. As part of a longer number it is none that was pressed: a time, a token.
    let pressed = log.lines().find(|line| line.split(|c: char| !c.is_ascii_digit()).any(|run| run == "4711"));
    assert!(pressed.is_none(), "{pressed:?}");
}

#[test]
fn wrong_credentials_end_the_call_and_are_named() {
    let shape =
        Shape { pbx_asks: Some("open sesame"), gateway_knows: Some("open barley"), ..Shape::default() };
    let mut network = network(&shape);
    network.alice.call(&Asterisk::number("612"), None).unwrap();
    let ended = network.alice.wait_for("ended", SOON).unwrap();
    assert_eq!((&ended["cause"], &ended["sip_status"]), (&21.into(), &401.into()), "{ended}");
    let call = network.over();
    let why = network.gateway.causeway(&["call", "why", call["id"].as_str().unwrap()]).unwrap();
    assert!(why.contains("401"), "{why}");
    // One challenge is answered once: RFC 3261 22.2 forbids to try the same credentials again.
    let challenges = network.pbx.log().matches("SIP/2.0 401 Unauthorized").count();
    assert_eq!(challenges, 2);
    assert!(!network.gateway.log().contains("barley"));
}

#[test]
fn a_trunk_registers_and_is_called_by_its_contact() {
    let shape = Shape { registers: true, gateway_knows: Some("open sesame"), ..Shape::default() };
    let mut network = network(&shape);
    let contact = lab::until("the PBX knows the contact", SOON, || {
        let said = network.pbx.cli("pjsip show contacts").ok()?;
        said.lines().find(|line| line.contains("trunk1/")).map(str::to_owned)
    })
    .unwrap();
    assert!(contact.contains(&format!("{ALICE}@{}", network.gateway.sip().ip())), "{contact}");
    lab::until("the trunk is up", SOON, || {
        (network.gateway.json("/v1/trunks").ok()?["trunks"][0]["state"] == "up").then_some(())
    })
    .unwrap();
    network.pbx.cli("channel originate PJSIP/trunk1 extension 608@lab").unwrap();
    network.alice.wait_for("incoming", SOON).unwrap();
    network.alice.answer(None).unwrap();
    network.alice.wait_for("media_up", SOON).unwrap();
    network.alice.hang_up().unwrap();
    assert_eq!(network.over()["outcome"], "success");
    network.answered("604");
    network.press("8");
    network.alice.hang_up().unwrap();
    assert_eq!(network.over()["direction"], "overlay_to_trunk");
}

#[test]
fn a_trunk_of_mu_law_alone_is_spoken_to_in_mu_law() {
    let mut network = network(&Shape { codecs: "ulaw", ..Shape::default() });
    network.answered("605");
    let ended = network.alice.wait_for("ended", Duration::from_secs(40)).unwrap();
    assert_eq!((&ended["cause"], &ended["by"]), (&16.into(), &"far".into()), "{ended}");
    let call = network.over();
    assert_eq!(call["trunk_leg"]["codec"], "PCMU", "{call}");
    assert!(call["trunk_leg"]["packets_received"].as_u64().unwrap() > 300, "{call}");
    assert!(network.alice.recording().unwrap().rms() > 0.005);
}

#[test]
fn a_trunk_without_a_common_codec_refuses_and_the_caller_hears_why() {
    let mut network = network(&Shape { codecs: "gsm", ..Shape::default() });
    network.alice.call(&Asterisk::number("600"), None).unwrap();
    let ended = network.alice.wait_for("ended", SOON).unwrap();
    // RFC 3398 8.2.6.1: 488 is cause 65.
    assert_eq!((&ended["cause"], &ended["sip_status"]), (&65.into(), &488.into()), "{ended}");
    assert_eq!(network.over()["outcome"], "upstream");
}

#[test]
fn a_user_holds_the_pbx_and_takes_it_back() {
    let mut network = network(&Shape::default());
    network.answered("604");
    network.press("1");
    // RFC 3264 8.4: hold is `sendonly`, and what is taken back is `sendrecv` again.
    network.alice.command(&json!({ "command": "hold", "on": true })).unwrap();
    lab::until("the PBX is held", SOON, || network.pbx.log().contains("a=sendonly").then_some(())).unwrap();
    lab::until("the PBX agreed", SOON, || network.pbx.log().contains("a=recvonly").then_some(())).unwrap();
    network.alice.command(&json!({ "command": "hold", "on": false })).unwrap();
    network.press("2");
    let log = network.pbx.log();
    let after = log.rsplit_once("a=recvonly").unwrap().1;
    assert!(after.contains("a=sendrecv"), "{after}");
    assert_eq!(network.digits(), "12");
    network.alice.hang_up().unwrap();
    assert_eq!(network.over()["outcome"], "success");
}

#[test]
fn a_telephone_holds_the_user_and_takes_them_back() {
    let folder = Folder::new("interop").unwrap();
    let authority = Authority::init(&folder.path().join("authority")).unwrap();
    let identity = authority.gateway("gateway", &["+1555"], &["+1555"]).unwrap();
    let mut options = DaemonOptions::gateway("gateway", &identity);
    let telephone = BaresipOptions::new(options.sip(), &lab::speech_file(Speech::Italian).unwrap());
    options.offers = vec!["+1555".to_owned()];
    options.trunks =
        vec![TrunkOptions { options_interval_s: 0, ..TrunkOptions::new("telephone", telephone.sip) }];
    let gateway = Daemon::start(folder.path(), &authority, &identity, options).unwrap();
    let mut telephone = Baresip::start(&folder.path().join("telephone"), &telephone).unwrap();
    let user = authority.user("alice", &[]).unwrap();
    let alice =
        PhoneOptions { address: ports::address(), ..PhoneOptions::new("alice", &[gateway.multiaddress()]) };
    let mut alice = Phone::start(folder.path(), &user, &alice).unwrap();
    alice.wait_until_online(SOON).unwrap();
    gateway.wait_until_ready().unwrap();

    alice.call("+15550001000", None).unwrap();
    telephone.wait_for_event("CALL_ESTABLISHED", SOON).unwrap();
    alice.wait_for("answered", SOON).unwrap();
    for on in [true, false] {
        telephone.hold(on).unwrap();
        let hold = alice.wait_for("hold", SOON).unwrap();
        assert_eq!((&hold["on"], &hold["by"]), (&on.into(), &"far".into()), "{hold}");
    }
    telephone.hang_up().unwrap();
    let ended = alice.wait_for("ended", SOON).unwrap();
    assert_eq!((&ended["cause"], &ended["by"]), (&16.into(), &"far".into()), "{ended}");
}
