//! Calls between two trunks: one Asterisk is the PBX, another the carrier, and the gateway stands in between.

use std::{fs, thread};

use tests::audio::{Audio, correlation, read_wav};

use super::*;

/// How long both sides talk.
const TALK: Duration = Duration::from_secs(11);

struct Between {
    pbx: Asterisk,
    carrier: Asterisk,
    gateway: Daemon,
    _folder: Folder,
}

/// The PBX speaks A-law and the carrier mu-law, or both the same.
fn between(pbx_codecs: &'static str, carrier_codecs: &'static str) -> Between {
    let folder = Folder::new("between").unwrap();
    let authority = Authority::init(&folder.path().join("authority")).unwrap();
    let identity = authority.gateway("gateway", &["+44"], &["+1555"]).unwrap();
    let mut options = DaemonOptions::gateway("gateway", &identity);
    let start = |name: &str, codecs| {
        let asterisk = AsteriskOptions { codecs, ..AsteriskOptions::new(options.sip()) };
        let asterisk = Asterisk::start(&folder.path().join(name), &asterisk).unwrap();
        asterisk.trace_sip().unwrap();
        asterisk
    };
    let (pbx, carrier) = (start("pbx", pbx_codecs), start("carrier", carrier_codecs));
    let voice = lab::speech_file(Speech::Italian).unwrap();
    fs::copy(voice, pbx.folder().join("speech.wav")).unwrap();
    let trunk = |name: &str, sip| TrunkOptions {
        options_interval_s: 0,
        extra: "trusted = true".to_owned(),
        ..TrunkOptions::new(name, sip)
    };
    options.trunks = vec![trunk("pbx", pbx.sip()), trunk("carrier", carrier.sip())];
    options.numbers = vec![(ALICE.to_owned(), "alice".to_owned())];
    options.extra = "
[[routes]]
prefix = \"44\"
trunks = [\"carrier\"]
from = [\"pbx\"]
[[routes]]
prefix = \"1\"
trunks = [\"pbx\"]
from = [\"carrier\"]
"
    .to_owned();
    let gateway = Daemon::start(folder.path(), &authority, &identity, options).unwrap();
    Between { pbx, carrier, gateway, _folder: folder }
}

impl Between {
    /// Waits until both sides are rid of the call, and returns its record.
    fn over(&self) -> Value {
        lab::until("no channel is left", SOON, || {
            let idle = |asterisk: &Asterisk| asterisk.channels().is_ok_and(|count| count == 0);
            (idle(&self.pbx) && idle(&self.carrier)).then_some(())
        })
        .unwrap();
        lab::until("the call is over", SOON, || {
            let call = self.gateway.json("/v1/calls?limit=1").ok()?["calls"][0].clone();
            call["outcome"].is_string().then_some(call)
        })
        .unwrap()
    }

    fn is_answered(&self) {
        lab::until("the call is answered", SOON, || {
            let call = self.gateway.json("/v1/calls?limit=1").ok()?["calls"][0].clone();
            (call["state"] == "active").then_some(())
        })
        .unwrap();
    }
}

fn assert_heard(what: &str, said: &Audio, heard: &Audio) {
    let result = correlation(said, heard);
    println!("{what}: {result}");
    assert!(result.overlap_s > 6.0, "{what}: {result}");
    assert!(result.median_block > 0.9, "{what}: {result}");
}

fn both_ways(pbx_codecs: &'static str, carrier_codecs: &'static str, codecs: (&str, &str)) {
    lab::in_real_time(|| {
        let network = between(pbx_codecs, carrier_codecs);
        let call = Originate { to: "+442079460620", caller: PBX, extension: "620", ring: SOON };
        network.pbx.originate(&call).unwrap();
        network.is_answered();
        thread::sleep(TALK); // real time: speech
        network.pbx.hang_up_all().unwrap();
        let call = network.over();
        assert_eq!(
            (&call["direction"], &call["trunk"], &call["onward"], &call["released_by"]),
            (&"trunk_to_trunk".into(), &"pbx".into(), &"carrier".into(), &"trunk".into()),
            "{call}"
        );
        assert_eq!(
            (&call["trunk_leg"]["codec"], &call["onward_leg"]["codec"]),
            (&codecs.0.into(), &codecs.1.into()),
            "{call}"
        );
        let said = |asterisk: &Asterisk| read_wav(&asterisk.folder().join("speech.wav")).unwrap();
        let heard = |asterisk: &Asterisk| asterisk.recordings("620", 1, SOON).unwrap().remove(0);
        assert_heard("the carrier heard the PBX", &said(&network.pbx), &heard(&network.carrier));
        assert_heard("the PBX heard the carrier", &said(&network.carrier), &heard(&network.pbx));
        let ladder = network.gateway.causeway(&["call", "ladder", call["id"].as_str().unwrap()]).unwrap();
        assert!(ladder.contains("pbx (") && ladder.contains("carrier ("), "{ladder}");
    });
}

#[test]
fn a_pbx_and_a_carrier_hear_each_other_in_one_law() {
    both_ways("alaw", "alaw", ("PCMA", "PCMA"));
}

#[test]
fn a_pbx_and_a_carrier_hear_each_other_in_two_laws() {
    both_ways("alaw", "ulaw", ("PCMA", "PCMU"));
}

// RFC 4733, RFC 3264 8.4, RFC 3398.
#[test]
fn digits_causes_and_refusals_cross_between_trunks() {
    let network = between("ulaw", "alaw,ulaw");
    // The carrier calls an extension of the PBX that sends digits.
    let call = Originate { to: "+15550000613", caller: "+442079460001", extension: "604", ring: SOON };
    network.carrier.originate(&call).unwrap();
    lab::until("the carrier hears the digits", SOON, || {
        let heard: String = network.carrier.digits().iter().map(|heard| heard.digit).collect();
        (heard == "0123456789*#").then_some(())
    })
    .unwrap();
    network.carrier.hang_up_all().unwrap();
    let call = network.over();
    assert_eq!((&call["outcome"], &call["dtmf_digits"]), (&"success".into(), &12.into()), "{call}");
    // Busy, no such number, and a caller who gives up while it rings.
    for (extension, status) in [("7017", 486), ("7001", 404)] {
        let to = format!("+44207946{extension}");
        network.pbx.originate(&Originate { to: &to, caller: PBX, extension: "608", ring: SOON }).unwrap();
        let call = lab::until("the call is refused", SOON, || {
            let call = network.gateway.json("/v1/calls?limit=1").ok()?["calls"][0].clone();
            (call["to"] == to.as_str() && call["outcome"].is_string()).then_some(call)
        })
        .unwrap();
        assert_eq!(
            (&call["outcome"], &call["cause"]["sip_status"]),
            (&"upstream".into(), &status.into()),
            "{call}"
        );
        assert!(network.pbx.log().contains(&format!("SIP/2.0 {status}")));
    }
    let ring = Duration::from_secs(2);
    network.pbx.originate(&Originate { to: "+442079460607", caller: PBX, extension: "608", ring }).unwrap();
    lab::until("the carrier is cancelled", SOON, || {
        network.carrier.log().contains("CANCEL sip:").then_some(())
    })
    .unwrap();
    let call = network.over();
    assert_eq!((&call["outcome"], &call["released_by"]), (&"client".into(), &"trunk".into()), "{call}");
    // A number that leads nowhere but back, and one that no route is open to.
    network
        .carrier
        .originate(&Originate { to: "+442079460600", caller: PBX, extension: "608", ring })
        .unwrap();
    let call = lab::until("the call is refused", SOON, || {
        let call = network.gateway.json("/v1/calls?limit=1").ok()?["calls"][0].clone();
        (call["to"] == "+442079460600" && call["outcome"].is_string()).then_some(call)
    })
    .unwrap();
    assert_eq!(call["cause"]["q850"], 1, "{call}");
    let why = network.gateway.causeway(&["call", "why", call["id"].as_str().unwrap()]).unwrap();
    assert!(why.contains("is not open to calls from carrier"), "{why}");
}

#[test]
fn g05_a_broken_file_changes_nothing_and_a_good_one_applies_to_the_next_call() {
    let mut network = between("alaw", "alaw");
    let live = Originate { to: "+442079460608", caller: PBX, extension: "608", ring: SOON };
    network.pbx.originate(&live).unwrap();
    network.is_answered();
    let good = fs::read_to_string(network.gateway.config()).unwrap();
    let broken = good.replace("from = [\"pbx\"]", "from = [\"nobody\"]");
    let line = 1 + broken.lines().position(|line| line.contains("nobody")).unwrap();
    fs::write(network.gateway.config(), &broken).unwrap();
    let said = network.gateway.causeway(&["reload"]).unwrap_err().to_string();
    let named = format!("causeway.toml:{line}");
    assert!(said.contains(&named) && said.contains("no trunk is called \"nobody\""), "{said}");
    let (status, body) = network.gateway.request("POST", "/v1/reload").unwrap();
    assert!(status == 422 && body.contains(&named), "{status} {body}");
    network.gateway.process().signal(Signal::Hup);
    lab::until("the log names the line three times", SOON, || {
        (network.gateway.log().matches(&named).count() >= 3).then_some(())
    })
    .unwrap();
    assert_eq!(network.gateway.json("/v1/calls?live=true").unwrap()["calls"][0]["state"], "active");
    // Another route, and a limit: in force at once, with the call still up.
    let closed = good.replace("from = [\"pbx\"]", "from = []");
    fs::write(network.gateway.config(), closed).unwrap();
    let said = network.gateway.causeway(&["reload"]).unwrap();
    assert!(said.contains("applied: routes"), "{said}");
    network.pbx.originate(&Originate { to: "+442079460600", ..live.clone() }).unwrap();
    let call = lab::until("the second call is refused", SOON, || {
        let calls = network.gateway.json("/v1/calls?limit=5").ok()?["calls"].clone();
        calls
            .as_array()?
            .iter()
            .find(|call| call["to"] == "+442079460600" && call["outcome"].is_string())
            .cloned()
    })
    .unwrap();
    assert_eq!(call["cause"]["q850"], 1, "{call}");
    fs::write(network.gateway.config(), good).unwrap();
    network.gateway.process().signal(Signal::Hup);
    lab::until("the route is open again", SOON, || {
        let test = network.gateway.json("/v1/routes/test?to=%2B442079460600&trunk=pbx").ok()?;
        (test["placed"] == true).then_some(())
    })
    .unwrap();
    assert_eq!(network.gateway.json("/v1/calls?live=true").unwrap()["calls"][0]["state"], "active");
    network.pbx.hang_up_all().unwrap();
    network.over();
}
