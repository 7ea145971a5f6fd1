//! A trunk to a SIP telephone: a second implementation besides Asterisk, and the one that is left where Asterisk cannot
//! be had. Speech crosses the gateway both ways.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{thread, time::Duration};

use tests::{
    audio::{Audio, correlation},
    lab::{self, Baresip, BaresipOptions, Daemon, Folder, Phone, Plan, Speech, TrunkOptions},
};

const SOON: Duration = Duration::from_secs(20);
/// Long enough for 7 s of speech to be compared.
const TALK: Duration = Duration::from_secs(8);
const ALICE: &str = Plan::ALICE;

struct Network {
    alice: Phone,
    telephone: Baresip,
    gateway: Daemon,
    _folder: Folder,
}

/// Alice says French, the telephone Italian.
fn network(codec: &'static str) -> Network {
    let mut plan = Plan::new("softphone").unwrap();
    let options = &mut plan.options;
    let telephone = BaresipOptions {
        codec,
        ..BaresipOptions::new(options.sip(), &lab::speech_file(Speech::Italian).unwrap())
    };
    let codecs = if codec == "opus" { "codecs = [\"opus\", \"PCMA\"]" } else { "" };
    options.trunks = vec![TrunkOptions {
        options_interval_s: 0,
        extra: codecs.to_owned(),
        ..TrunkOptions::new("telephone", telephone.sip)
    }];
    let lab::Network { alice, gateway, folder, .. } = plan.start().unwrap();
    let telephone = Baresip::start(&folder.path().join("telephone"), &telephone).unwrap();
    Network { alice, telephone, gateway, _folder: folder }
}

fn assert_survived(what: &str, said: &Audio, heard: &Audio) {
    let result = correlation(said, heard);
    println!("{what}: {result}");
    assert!(result.overlap_s > 6.0, "{what}: {result}");
    assert!(result.median_block > 0.9 && result.share_above_90 > 0.8, "{what}: {result}");
}

fn assert_both_heard(network: &mut Network) {
    let said = (lab::speech(Speech::French).unwrap(), lab::speech(Speech::Italian).unwrap());
    lab::until("the telephone's recording is closed", SOON, || {
        network.telephone.heard().ok().filter(|all| !all.is_empty())
    })
    .unwrap();
    let heard = network.telephone.heard().unwrap();
    assert_survived("from the overlay to the telephone", &said.0, heard.last().unwrap());
    assert_survived("from the telephone to the overlay", &said.1, &network.alice.recording().unwrap());
}

#[test]
fn an_overlay_user_calls_a_telephone() {
    lab::in_real_time(|| {
        let mut network = network("pcma");
        network.alice.call("+15550001000", Some(&lab::speech_file(Speech::French).unwrap())).unwrap();
        network.alice.wait_for("answered", SOON).unwrap();
        network.alice.wait_for("heard", SOON).unwrap();
        thread::sleep(TALK); // real time: speech
        network.alice.hang_up().unwrap();
        network.alice.wait_for("ended", SOON).unwrap();
        network.telephone.wait_for_event("CALL_CLOSED", SOON).unwrap();
        assert_both_heard(&mut network);
    });
}

#[test]
fn a_telephone_calls_an_overlay_user_by_number() {
    lab::in_real_time(|| {
        let mut network = network("pcmu");
        let uri = format!("sip:{ALICE}@{}", network.gateway.sip());
        network.telephone.dial(&uri).unwrap();
        network.alice.wait_for("incoming", SOON).unwrap();
        network.alice.answer(Some(&lab::speech_file(Speech::French).unwrap())).unwrap();
        network.telephone.wait_for_event("CALL_ESTABLISHED", SOON).unwrap();
        network.alice.wait_for("heard", SOON).unwrap();
        thread::sleep(TALK); // real time: speech
        network.telephone.hang_up().unwrap();
        let ended = network.alice.wait_for("ended", SOON).unwrap();
        assert_eq!((&ended["cause"], &ended["by"]), (&16.into(), &"far".into()), "{ended}");
        assert_both_heard(&mut network);
    });
}

// RFC 7587: nothing is transcoded where both sides speak Opus.
#[test]
fn f07_speech_and_digits_cross_a_trunk_in_opus() {
    lab::in_real_time(|| {
        let mut network = network("opus");
        network.alice.call("+15550001000", Some(&lab::speech_file(Speech::French).unwrap())).unwrap();
        network.alice.wait_for("answered", SOON).unwrap();
        network.alice.wait_for("heard", SOON).unwrap();
        thread::sleep(TALK); // real time: speech
        network.telephone.press('5').unwrap();
        let digit = network.alice.wait_for("dtmf", SOON).unwrap();
        assert_eq!(digit["digit"], "5", "{digit}");
        network.alice.hang_up().unwrap();
        network.alice.wait_for("ended", SOON).unwrap();
        network.telephone.wait_for_event("CALL_CLOSED", SOON).unwrap();
        let call = network.gateway.json("/v1/calls?limit=1").unwrap()["calls"][0].clone();
        assert_eq!(call["trunk_leg"]["codec"], "opus", "{call}");
        assert!(call["trunk_leg"]["packets_received"].as_u64().unwrap() > 300, "{call}");
        assert_both_heard(&mut network);
    });
}
