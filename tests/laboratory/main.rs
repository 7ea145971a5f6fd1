//! The laboratory itself: Asterisk and a softphone talk to each other without the product, so that a failure of a
//! suite can be told from a failure of what it is measured with.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{net::SocketAddrV4, time::Duration};

use tests::{
    audio::{correlation, read_wav},
    lab::{self, Asterisk, AsteriskOptions, Baresip, BaresipOptions, Originate, Speech},
};

const SOON: Duration = Duration::from_secs(10);

struct Pair {
    asterisk: Asterisk,
    phone: Baresip,
    _folder: lab::Folder,
}

fn pair() -> Pair {
    let folder = lab::Folder::new("laboratory").unwrap();
    let said = lab::speech_file(Speech::French).unwrap();
    // The two have to know of each other: the phone's address is chosen first, Asterisk's with it.
    let address = lab::ports::address();
    let options = BaresipOptions::new(SocketAddrV4::new(address, 5060), &said);
    let asterisk = AsteriskOptions { address, ..AsteriskOptions::new(options.sip) };
    let asterisk = Asterisk::start(&folder.path().join("asterisk"), &asterisk).unwrap();
    let phone = Baresip::start(&folder.path().join("phone"), &options).unwrap();
    Pair { asterisk, phone, _folder: folder }
}

fn uri(pair: &Pair, extension: &str) -> String {
    format!("sip:{}@{}", Asterisk::number(extension), pair.asterisk.sip())
}

#[test]
fn speech_crosses_in_both_directions() {
    lab::in_real_time(|| {
        let mut pair = pair();
        let called = uri(&pair, "620");
        pair.phone.dial(&called).unwrap();
        pair.phone.wait_for_event("CALL_ESTABLISHED", SOON).unwrap();
        std::thread::sleep(Duration::from_secs(10)); // real time: speech
        pair.phone.hang_up().unwrap();
        let recorded = pair.asterisk.recordings("620", 1, SOON).unwrap();
        let to_asterisk = correlation(&lab::speech(Speech::French).unwrap(), &recorded[0]);
        assert!(to_asterisk.median_block > 0.95 && to_asterisk.overlap_s > 8.0, "{to_asterisk}");
        let heard = pair.phone.heard().unwrap();
        let from_asterisk =
            correlation(&read_wav(&pair.asterisk.folder().join("speech.wav")).unwrap(), &heard[0]);
        assert!(from_asterisk.median_block > 0.95 && from_asterisk.overlap_s > 8.0, "{from_asterisk}");
        println!("to Asterisk: {to_asterisk}\nfrom Asterisk: {from_asterisk}");
        let crossed = correlation(&lab::speech(Speech::French).unwrap(), &heard[0]);
        assert!(crossed.median_block < 0.6, "what one side said is not what it heard: {crossed}");
    });
}

#[test]
fn asterisk_places_a_call_and_ends_it() {
    let mut pair = pair();
    let call = Originate { to: "+15550001000", caller: "+15557654321", extension: "609", ring: SOON };
    pair.asterisk.originate(&call).unwrap();
    let established = pair.phone.wait_for_event("CALL_ESTABLISHED", SOON).unwrap();
    assert!(established["peeruri"].as_str().unwrap().contains("+15557654321"), "{established}");
    pair.phone.wait_for_event("CALL_CLOSED", SOON).unwrap();
    lab::until("no channel is left", SOON, || pair.asterisk.channels().is_ok_and(|n| n == 0).then_some(()))
        .unwrap();
}

#[test]
fn a_busy_extension_is_busy() {
    let mut pair = pair();
    let called = uri(&pair, "7017");
    pair.phone.dial(&called).unwrap();
    let closed = pair.phone.wait_for_event("CALL_CLOSED", SOON).unwrap();
    assert!(closed["param"].as_str().unwrap().contains("486"), "{closed}");
}

#[test]
fn digits_are_counted() {
    let mut pair = pair();
    let called = uri(&pair, "604");
    pair.phone.dial(&called).unwrap();
    pair.phone.wait_for_event("CALL_ESTABLISHED", SOON).unwrap();
    for (index, digit) in "159".chars().enumerate() {
        pair.phone.press(digit).unwrap();
        lab::until("the digit arrives", SOON, || (pair.asterisk.digits().len() > index).then_some(()))
            .unwrap();
    }
    let heard = pair.asterisk.digits();
    assert_eq!(heard.iter().map(|heard| heard.digit).collect::<String>(), "159");
    assert!(heard.iter().all(|heard| (40..1000).contains(&heard.duration_ms)), "{heard:?}");
}
