//! Interop profiles: what each says of itself and what an endpoint with it sends, against golden
//! files. `GOLDEN=write cargo test -p sip-trunk` writes them anew.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use call_model::Direction;
use sip_trunk::trunk::details::CallDetails;
use sip_trunk::trunk::diversion::{Diversion, DiversionReason};
use sip_trunk::trunk::profile::{Level, Profile};
use sip_trunk::{Command, Event, RedirectPolicy, Reliable, Replacing, Transfers, TrunkConfig};

use crate::dialogs::{assert_clean, media_of, release};
use crate::identity::{invite_with, lab};
use crate::net::{A_RTP, caller, media, number};
use crate::raw::{Ask, CONTACT, Lab, SDP, header, reply};
use crate::secure::TEAMS_KEY;

/// What a profile decides of a message; tags and identifiers left out.
fn shape(message: &str) -> String {
    let (head, body) = message.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    let mut out = format!("{}\n", lines.next().unwrap());
    let shown = [
        "from",
        "to",
        "contact",
        "p-asserted-identity",
        "p-preferred-identity",
        "remote-party-id",
        "privacy",
        "diversion",
        "history-info",
        "require",
        "supported",
        "session-expires",
    ];
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        if shown.contains(&name.to_lowercase().as_str()) {
            let value = value.split(";tag=").next().unwrap();
            writeln!(out, "{name}: {value}").unwrap();
        }
    }
    for line in body.lines().filter(|l| l.starts_with("m=") || l.starts_with("a=")) {
        let line = line.split("inline:").next().unwrap();
        writeln!(out, "{line}").unwrap();
    }
    out.push('\n');
    out
}

fn with(profile: &Profile) -> Lab {
    lab(|trunk| *trunk = trunk.clone().with_profile(profile))
}

/// What a peer of a profile says of its media.
fn description(profile: &Profile) -> String {
    match profile.srtp {
        Level::Required => SDP.replace("RTP/AVP", "RTP/SAVP") + TEAMS_KEY,
        _ => SDP.to_owned(),
    }
}

/// Everything a profile makes of the same calls.
fn golden(profile: &Profile) -> String {
    let theirs = description(profile);
    let mut out = format!("{}\n", profile.explain());
    let mut details = CallDetails::default();
    details.diversions.push(Diversion {
        number: Some(number("+12025550111")),
        reason: DiversionReason::NoAnswer,
        counter: 1,
        privacy: false,
    });
    let mut known = caller("+12025550100");
    known.display_name = Some("Ann".into());
    out.push_str("--- a diverted call\n");
    out.push_str(&shape(&invite_with(&mut with(profile), known.clone(), details)));
    known.private = true;
    out.push_str("--- a hidden caller\n");
    let mut lab = with(profile);
    let invite = invite_with(&mut lab, known, CallDetails::default());
    out.push_str(&shape(&invite));

    out.push_str("--- answered, then held\n");
    lab.tell(&reply(&invite, 183, "peer", CONTACT, &theirs));
    let other = theirs.replace("30000", "32000").replace("1 1 IN", "1 2 IN");
    lab.tell(&reply(&invite, 200, "peer", CONTACT, &other));
    let ports: Vec<_> = media_of(&lab.take(0)).iter().map(|m| m.remote_rtp.port()).collect();
    writeln!(out, "media goes to ports {ports:?}\n").unwrap();
    let call = crate::net::call_id(77);
    lab.command(0, Command::Hold { call, on: true });
    lab.run_ms(20);
    let hold = lab.inbox(1).into_iter().find(|m| m.starts_with("INVITE ")).unwrap();
    out.push_str(&shape(&hold));

    out.push_str("--- a call from it: early media, then the answer\n");
    let mut lab = with(profile);
    let ask = Ask::invite()
        .body(&theirs)
        .line("P-Asserted-Identity: <sip:+12025550101@x>")
        .line("Remote-Party-ID: <sip:+12025550103@x>;privacy=off");
    let call = lab.call_in(&ask.text());
    let events = lab.take(0);
    let Some(Event::Incoming { caller, .. }) = events.first() else { panic!() };
    writeln!(out, "the caller is {}", caller.address.as_ref().unwrap()).unwrap();
    lab.inbox(1);
    lab.command(0, Command::Ringing { call });
    lab.command(0, Command::Progress { call, media: media(A_RTP) });
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    for message in lab.inbox(1) {
        out.push_str(&shape(&message));
    }
    out
}

#[test]
fn every_profile_is_as_its_golden_file_says() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for profile in Profile::all() {
        let path = folder.join(format!("{}.txt", profile.name));
        let got = golden(&profile);
        if std::env::var("GOLDEN").is_ok_and(|v| v == "write") {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &got).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(got, expected, "{}: run with GOLDEN=write and read the difference", path.display());
    }
}

// What explain() calls honoured must show in the configuration, and what it does not must be marked.
#[test]
fn a_profile_does_not_claim_what_the_endpoint_does_not_do() {
    let teams = Profile::teams().explain().to_string();
    assert!(teams.contains("SRTP: required. "), "{teams}");
    assert!(Profile::kamailio().explain().to_string().contains("session change by: UPDATE. "));
    assert!(teams.contains("hold form: inactive. "), "{teams}");
    assert!(teams.contains("100rel: supported. "), "{teams}");
    assert!(teams.contains("REFER: yes. ") && teams.contains("Replaces: accept. "), "{teams}");
}

// RFC 3264 8.4, RFC 6337 5.3: a peer that knows `inactive` alone is held so.
#[test]
fn d05_hold_takes_the_form_of_the_trunk() {
    let mut profile = Profile::teams();
    profile.srtp = Level::Off;
    let mut lab = with(&profile);
    let (call, invite) = lab.call_out_answered();
    lab.take(0);
    lab.command(0, Command::Hold { call, on: true });
    lab.run_ms(20);
    let hold = lab.inbox(1).pop().unwrap();
    assert!(hold.contains("\r\na=inactive\r\n"), "{hold}");
    let answer = SDP.replace("1 1 IN", "1 2 IN").replace("sendrecv", "inactive");
    lab.tell(&reply(&hold, 200, "", CONTACT, &answer));
    assert_eq!(media_of(&lab.take(0))[0].direction, Direction::Inactive);
    lab.command(0, Command::Hold { call, on: false });
    lab.run_ms(20);
    let resume = lab.inbox(1).pop().unwrap();
    assert!(resume.contains("\r\na=sendrecv\r\n"), "{resume}");
    lab.tell(&reply(&resume, 200, "", CONTACT, &SDP.replace("1 1 IN", "1 3 IN")));
    assert_eq!(media_of(&lab.take(0))[0].direction, Direction::SendRecv);
    assert!(!header(&invite, "From").is_empty());
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 3262: offered, insisted on, or neither, as the profile says.
#[test]
fn c09_a_profile_says_what_becomes_of_100rel() {
    let mut insists = Profile::teams();
    insists.reliable = Level::Required;
    for (profile, expected) in [
        (Profile::twilio(), Reliable::Off),
        (Profile::teams(), Reliable::Supported),
        (insists, Reliable::Required),
    ] {
        let target = crate::net::address(crate::net::B);
        let trunk = TrunkConfig::new(crate::net::trunk_name("far"), target).with_profile(&profile);
        assert_eq!(trunk.reliable_provisional, expected);
    }
}

// RFC 3515, RFC 3891, RFC 3261 8.1.3.4: who may send calls elsewhere.
#[test]
fn d13_d16_d18_a_profile_says_who_may_transfer_take_over_and_redirect() {
    for (profile, transfers, replacing, redirects) in [
        (Profile::asterisk(), Transfers::Accept, Replacing::Both, RedirectPolicy::SameHost),
        (Profile::teams(), Transfers::Accept, Replacing::Accept, RedirectPolicy::Never),
        (Profile::twilio(), Transfers::Refuse, Replacing::Off, RedirectPolicy::Never),
    ] {
        let target = crate::net::address(crate::net::B);
        let trunk = TrunkConfig::new(crate::net::trunk_name("far"), target).with_profile(&profile);
        let got = (trunk.transfers, trunk.replacing, trunk.redirects.policy);
        assert_eq!(got, (transfers, replacing, redirects), "{}", profile.name);
    }
}

// RFC 3261 11: a profile that probes does so, one that does not stays silent.
#[test]
fn a28_a_profile_says_whether_options_asks() {
    for (profile, probes) in [(Profile::teams(), true), (Profile::twilio(), false)] {
        let mut lab = with(&profile);
        lab.run(Duration::from_secs(70));
        assert_eq!(lab.sent(0, "OPTIONS ") > 0, probes, "{}", profile.name);
    }
}

// RFC 3261 18.1.1: the largest request on UDP is the trunk's to say.
#[test]
fn a14_the_largest_datagram_is_a_switch() {
    for (largest, transport) in [(1300, "SIP/2.0/UDP"), (500, "SIP/2.0/TCP")] {
        let mut lab = lab(|trunk| trunk.largest_datagram = largest);
        lab.command(
            0,
            Command::Invite {
                call: crate::net::call_id(77),
                trunk: crate::net::trunk_name("far"),
                called: number("+442079460018"),
                caller: caller("+12025550100"),
                media: media(A_RTP),
            },
        );
        lab.run_ms(20);
        let invite = lab.log.iter().find(|(_, _, _, text)| text.starts_with("INVITE ")).unwrap().3.clone();
        assert!(invite.contains(transport), "{invite}");
    }
}

// RFC 4733: a trunk whose digits are in the audio is offered no events.
#[test]
fn events_are_not_offered_where_digits_are_in_band() {
    let mut lab = lab(|trunk| trunk.telephone_events = false);
    let (_, invite) = lab.call_out();
    assert!(!invite.contains("telephone-event"), "{invite}");
    let call = lab.call_in(&Ask::invite().text());
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).into_iter().find(|m| m.starts_with("SIP/2.0 200")).unwrap();
    assert!(!ok.contains("telephone-event"), "{ok}");
}
