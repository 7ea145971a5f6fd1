//! The keys that concern the sessions of a trunk.

use sip_trunk::sdp::Srtp;
use sip_trunk::trunk::profile::{Modify, Refresher};
use sip_trunk::{InfoDigits, RedirectPolicy, Replacing, Transfers};

use super::*;

/// The endpoint's view of the first trunk of the good file with more lines.
fn configured(lines: &str) -> Result<sip_trunk::TrunkConfig, ConfigError> {
    let target = "target = \"udp:127.0.0.10\"";
    let config = parse(&GOOD.replacen(target, &format!("{target}\n{lines}"), 1))?;
    Ok(crate::lifecycle::trunk_config(&config.trunks[0]))
}

#[test]
fn what_is_written_of_sessions_comes_before_the_profile() {
    let plain = configured("").unwrap();
    assert_eq!(
        (plain.srtp, plain.transfers, plain.replacing),
        (Srtp::Never, Transfers::Refuse, Replacing::Off)
    );
    assert_eq!((plain.session_expires, plain.info_digits, plain.telephone_events), (None, None, true));
    let profile =
        sip_trunk::trunk::profile::Profile::all().into_iter().find(|profile| profile.refer).unwrap();
    let own = format!("profile = \"{}\"", profile.name);
    let shipped = configured(&own).unwrap();
    assert_eq!((shipped.transfers, shipped.replacing), (Transfers::Accept, profile.replacing));
    assert_eq!(shipped.redirects.policy, profile.redirects);
    let lines = "srtp = \"required\"\nsrtp_suites = [\"aead_aes_256_gcm\"]\nsession_expires = 90\nrefresher = \"peer\"\n\
        session_change = \"update\"\np_early_media = true\ndtmf = \"info-plain\"\ntransfers = \"refuse\"\nreplaces = \"send\"\n\
        redirects = \"listed\"\nredirect_hosts = [\"sip.example.com\", \"[2001:db8::1]\"]\nredirect_hops = 5";
    let written = configured(&format!("{own}\n{lines}")).unwrap();
    assert_eq!(
        (written.srtp, written.srtp_suites),
        (Srtp::Required, vec![call_model::SrtpSuite::AeadAes256Gcm])
    );
    assert_eq!((written.session_expires, written.refresher), (Some(90), Refresher::Peer));
    assert_eq!((written.modify, written.p_early_media), (Modify::Update, true));
    assert_eq!((written.telephone_events, written.info_digits), (false, Some(InfoDigits::Plain)));
    assert_eq!((written.transfers, written.replacing), (Transfers::Refuse, Replacing::Send));
    assert_eq!((written.redirects.policy, written.redirects.hops), (RedirectPolicy::Listed, 5));
    assert_eq!(written.redirects.hosts, ["sip.example.com", "[2001:db8::1]"]);
    let asked = configured("refresher = \"gateway\"").unwrap();
    assert_eq!(asked.session_expires, Some(1800));
    assert_eq!(configured("srtp = \"dtls\"").unwrap().srtp, Srtp::Dtls);
    let tones = configured("dtmf = \"in-band\"").unwrap();
    assert_eq!((tones.telephone_events, tones.info_digits), (false, None));
}

#[test]
fn mistakes_about_sessions_are_named() {
    let cases = [
        (
            "srtp = \"yes\"",
            "srtp: \"yes\" is no choice; write \"never\", \"preferred\", \"required\" or \"dtls\"",
        ),
        (
            "srtp_suites = [\"AEAD_AES_128_GCM\"]",
            "srtp_suites: no SRTP with keys in signalling beside it; add srtp = \"preferred\" or \"required\"",
        ),
        (
            "srtp_suites = [\"AEAD_AES_128_GCM\"]\nsrtp = \"dtls\"",
            "srtp_suites: no SRTP with keys in signalling beside it; add srtp = \"preferred\" or \"required\"",
        ),
        (
            "srtp_suites = [\"X\"]\nsrtp = \"required\"",
            "srtp_suites: \"X\" is no suite; write some of AES_CM_128_HMAC_SHA1_80, ",
        ),
        ("session_expires = 89", "session_expires: 89 is out of range; write a number from 90 to 86400"),
        ("refresher = \"us\"", "refresher: \"us\" is no choice; write \"as-asked\", \"gateway\" or \"peer\""),
        ("session_change = \"x\"", "session_change: \"x\" is no choice; write \"reinvite\" or \"update\""),
        (
            "dtmf = \"info\"",
            "dtmf: \"info\" is no choice; write \"events\", \"info-relay\", \"info-plain\" or \"in-band\"",
        ),
        ("transfers = \"yes\"", "transfers: \"yes\" is no choice; write \"accept\" or \"refuse\""),
        (
            "replaces = \"yes\"",
            "replaces: \"yes\" is no choice; write \"off\", \"accept\", \"send\" or \"both\"",
        ),
        (
            "redirects = \"yes\"",
            "redirects: \"yes\" is no choice; write \"never\", \"same-host\" or \"listed\"",
        ),
        (
            "redirects = \"listed\"",
            "redirect_hosts: hosts are listed for redirects = \"listed\", and for nothing else; write both",
        ),
        ("redirect_hosts = [\"a.example\"]", "redirect_hosts: hosts are listed for redirects"),
        (
            "redirect_hosts = [\"a.example:5060\"]\nredirects = \"listed\"",
            "redirect_hosts: \"a.example:5060\" is no host; write names or addresses without a port",
        ),
        ("redirect_hops = 2", "redirect_hops: no redirection is followed; add redirects"),
        (
            "redirect_hops = 11\nredirects = \"same-host\"",
            "redirect_hops: 11 is out of range; write a number from 1 to 10",
        ),
    ];
    for (line, expected) in cases {
        let error = configured(line).unwrap_err().to_string();
        assert!(error.contains(&format!("trunks[0].{expected}")), "{line}: {error}");
        assert!(error.starts_with("/etc/causeway/causeway.toml:"), "{error}");
    }
}

// RFC 7587. A route that is open to trunks leads from trunk to trunk, where G.711 and G.722 alone are passed on.
#[test]
fn f07_a_trunk_may_speak_opus_to_overlay_users() {
    let config = configured("codecs = [\"opus\", \"PCMA\"]").unwrap();
    assert_eq!(config.codecs, [Codec::Opus, Codec::Pcma]);
    let open = GOOD.replacen("trunks = [\"pbx\"]", "trunks = [\"pbx\"]\nfrom = [\"pbx\"]", 1);
    assert!(parse(&open).is_ok());
    let target = "target = \"udp:127.0.0.10\"";
    let said =
        parse(&open.replacen(target, &format!("{target}\ncodecs = [\"opus\"]"), 1)).unwrap_err().to_string();
    let expected =
        "routes[0].from: trunk \"pbx\" speaks Opus, which calls between trunks do not; take \"opus\" out";
    assert!(said.contains(expected), "{said}");
}

// RFC 3551 4.5.2. Narrow band is what a trunk speaks that says nothing of it; wide band goes from trunk to trunk too.
#[test]
fn a_trunk_may_speak_g722_to_overlay_users_and_to_trunks() {
    let usual = configured("").unwrap();
    assert!(!usual.codecs.contains(&Codec::G722), "{:?}", usual.codecs);
    let config = configured("codecs = [\"G722\", \"PCMA\"]").unwrap();
    assert_eq!(config.codecs, [Codec::G722, Codec::Pcma]);
    let target = "target = \"udp:127.0.0.10\"";
    let wide = GOOD.replacen(target, &format!("{target}\ncodecs = [\"G722\"]"), 1);
    let open = wide.replacen("trunks = [\"pbx\"]", "trunks = [\"pbx\"]\nfrom = [\"pbx\"]", 1);
    assert!(parse(&open).is_ok(), "{:?}", parse(&open).unwrap_err().to_string());
}
