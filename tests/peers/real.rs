//! The real peers: Asterisk three times, Kamailio with another Asterisk behind it, baresip, SIPp.

use std::{net::SocketAddrV4, path::Path, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::audio::generate;
use tests::lab::{
    Asterisk, AsteriskOptions, AsteriskTls, Baresip, BaresipOptions, Kamailio, Originate, Sipp, Speech,
    TlsAuthority, ports, speech_file, until,
};

use crate::stage::{ALICE, BOB, SOON, Stage};
use crate::{Scenario, in_time, scenario};

pub(crate) const ALL: &[Scenario] = &[
    in_time("asterisk", "is called: digits both ways, hold, causes", asterisk_is_called),
    scenario("asterisk", "calls, is answered, refused and given up", asterisk_calls),
    in_time("asterisk-registered", "we register; calls both ways", registered),
    in_time("asterisk-tls", "calls both ways over TLS, in which both ends show certificates", secure),
    in_time(
        "kamailio",
        "stands between us and Asterisk: call, hold, digits and goodbye go through it",
        through_proxy,
    ),
    scenario("kamailio", "we register; it passes a call on to us", from_registrar),
    scenario("baresip", "is called, holds and takes back, hangs up", baresip_is_called),
    in_time("baresip", "calls by number and sends digits", baresip_calls),
    scenario("baresip", "registers here with its password; calls both ways", telephone),
    // A gateway that comes to its turn too late says 503.
    in_time("sipp", "calls ten times, five a second, and is answered each time", sipp_calls),
    in_time(
        "sipp",
        "answers and is heard; what of hers it sends back, with our own source, is not",
        sipp_answers,
    ),
];

const PBX: &str = "+15550000199";

/// The real peers that run all the time.
pub(crate) struct Real {
    pub(crate) asterisk: Asterisk,
    pub(crate) registered: Asterisk,
    pub(crate) secure: Asterisk,
    pub(crate) kamailio: Kamailio,
    pub(crate) baresip_at: SocketAddrV4,
    pub(crate) sipp_at: SocketAddrV4,
    behind: Asterisk,
    baresip: Baresip,
    /// It registers at the gateway.
    telephone: Option<Baresip>,
    folder: PathBuf,
}

impl Real {
    /// Fetches what is missing and starts all of them. The gateway listens at `sip`, and at `tls` for TLS.
    pub(crate) fn start(
        folder: &Path,
        sip: SocketAddrV4,
        tls: SocketAddrV4,
        authority: &TlsAuthority,
    ) -> Result<Self> {
        let start = |name: &str, options: &AsteriskOptions| -> Result<Asterisk> {
            let asterisk = Asterisk::start(&folder.join(name), options).context(name.to_owned())?;
            asterisk.trace_sip()?;
            Ok(asterisk)
        };
        let asterisk = start("asterisk", &AsteriskOptions::new(sip))?;
        let account = Some(("trunk1".to_owned(), "open sesame".to_owned()));
        let registered = start("registered", &AsteriskOptions { account, ..AsteriskOptions::new(sip) })?;
        let options = AsteriskOptions::new(tls);
        let (certificate, key) =
            authority.issue("asterisk", &["pbx.example.com", &options.address.to_string()])?;
        let certified = AsteriskTls { certificate, key, ca: authority.ca(), mutual: true };
        let secure = start("secure", &AsteriskOptions { transport: "tls", tls: Some(certified), ..options })?;
        let proxy_at = ports::address();
        let behind = start("behind", &AsteriskOptions::new(SocketAddrV4::new(proxy_at, 5060)))?;
        let kamailio = Kamailio::start(&folder.join("kamailio"), proxy_at, behind.sip())?;
        let user = "+15550900018".to_owned();
        let telephone = BaresipOptions { user, ..BaresipOptions::new(sip, &speech_file(Speech::Italian)?) };
        let baresip = Baresip::start(&folder.join("baresip"), &telephone)?;
        Ok(Self {
            asterisk,
            registered,
            secure,
            kamailio,
            baresip_at: telephone.sip,
            sipp_at: SocketAddrV4::new(ports::address(), 5060),
            behind,
            baresip,
            telephone: None,
            folder: folder.to_owned(),
        })
    }
}

fn real(stage: &Stage) -> Result<&Real> {
    stage.real.as_ref().context("the real peers do not run")
}

fn digits(asterisk: &Asterisk) -> String {
    asterisk.digits().iter().map(|heard| heard.digit).collect()
}

/// alice calls an extension that collects digits, types some and waits until they are heard.
fn types(stage: &mut Stage, number: &str, which: fn(&Real) -> &Asterisk) -> Result<()> {
    let before = digits(which(real(stage)?));
    stage.alice_calls(number)?;
    stage.alice_gets("answered")?;
    stage.alice_gets("media_up")?;
    stage.alice.press("42#")?;
    let expected = before + "42#";
    let asterisk = which(real(stage)?);
    until("the digits", SOON, || (digits(asterisk) == expected).then_some(()))
        .with_context(|| format!("{:?} instead of {expected:?}", digits(asterisk)))?;
    // The end of a digit comes three times, and Asterisk forgets with a re-INVITE that it has heard it.
    std::thread::sleep(Duration::from_millis(200));
    Ok(())
}

fn hang_up(stage: &mut Stage, trunk: &str) -> Result<()> {
    stage.alice.hang_up()?;
    stage.alice_gets("ended")?;
    let record = stage.record(trunk)?;
    ensure!(record["outcome"] == "success" && record["released_by"] == "overlay", "{record}");
    Ok(())
}

/// The PBX calls alice, who answers and hangs up.
fn calls_alice(stage: &mut Stage, to: &str, trunk: &str, which: fn(&Real) -> &Asterisk) -> Result<()> {
    let call = Originate { to, caller: PBX, extension: "608", ring: SOON };
    which(real(stage)?).originate(&call)?;
    let incoming = stage.alice_gets("incoming")?;
    ensure!(incoming["from"] == PBX, "{incoming}");
    stage.alice_answers()?;
    stage.alice_gets("media_up")?;
    hang_up(stage, trunk)
}

fn asterisk_is_called(stage: &mut Stage) -> Result<()> {
    types(stage, "+15550000604", |real| &real.asterisk)?;
    let log = |stage: &Stage, text: &str| -> Result<()> {
        until(text, SOON, || real(stage).ok()?.asterisk.log().contains(text).then_some(()))
    };
    stage.alice.command(&json!({ "command": "hold", "on": true }))?;
    log(stage, "a=sendonly")?;
    log(stage, "a=recvonly")?;
    stage.alice.command(&json!({ "command": "hold", "on": false }))?;
    std::thread::sleep(Duration::from_millis(500));
    hang_up(stage, "asterisk")?;
    stage.alice_calls("+15550000613")?;
    let ended = stage.alice.wait_for("ended", Duration::from_secs(30))?;
    ensure!(ended["digits"] == "0123456789*#" && ended["cause"] == 16, "{ended}");
    for cause in [1, 17, 21, 34] {
        stage.alice_calls(&format!("+155500070{cause:02}"))?;
        let ended = stage.alice_gets("ended")?;
        ensure!(ended["cause"] == cause, "{cause}: {ended}");
    }
    Ok(())
}

fn asterisk_calls(stage: &mut Stage) -> Result<()> {
    calls_alice(stage, ALICE, "asterisk", |real| &real.asterisk)?;
    let call = Originate { to: ALICE, caller: PBX, extension: "608", ring: SOON };
    real(stage)?.asterisk.originate(&call)?;
    stage.alice_gets("incoming")?;
    stage.alice.command(&json!({ "command": "reject", "cause": 17 }))?;
    let record = stage.record("asterisk")?;
    ensure!(record["cause"]["q850"] == 17, "{record}");
    let ring = Duration::from_secs(2);
    real(stage)?.asterisk.originate(&Originate { ring, ..call })?;
    stage.alice_gets("incoming")?;
    let ended = stage.alice_gets("ended")?;
    ensure!(ended["answered"] == false && ended["by"] == "far", "{ended}");
    let record = stage.record("asterisk")?;
    ensure!(record["outcome"] == "client" && record["released_by"] == "trunk", "{record}");
    Ok(())
}

fn registered(stage: &mut Stage) -> Result<()> {
    until("the trunk is up", SOON, || {
        let trunks = stage.gateway.json("/v1/trunks").ok()?;
        let ours =
            trunks["trunks"].as_array()?.iter().find(|trunk| trunk["name"] == "asterisk-registered")?.clone();
        (ours["state"] == "up").then_some(())
    })?;
    real(stage)?.registered.cli("channel originate PJSIP/trunk1 extension 608@lab")?;
    stage.alice_gets("incoming")?;
    stage.alice_answers()?;
    stage.alice_gets("media_up")?;
    hang_up(stage, "asterisk-registered")?;
    types(stage, "+15550700604", |real| &real.registered)?;
    hang_up(stage, "asterisk-registered")
}

fn secure(stage: &mut Stage) -> Result<()> {
    types(stage, "+15550800604", |real| &real.secure)?;
    hang_up(stage, "asterisk-tls")?;
    calls_alice(stage, ALICE, "asterisk-tls", |real| &real.secure)?;
    let log = real(stage)?.secure.log();
    ensure!(
        log.contains("TLS:") && !log.contains("UDP:") && !log.contains("TCP:"),
        "not all of it went by TLS"
    );
    Ok(())
}

// RFC 3261 16.12: what comes after the INVITE follows the route.
fn through_proxy(stage: &mut Stage) -> Result<()> {
    types(stage, "+15551100604", |real| &real.behind)?;
    stage.alice.command(&json!({ "command": "hold", "on": true }))?;
    until("the PBX is held", SOON, || real(stage).ok()?.behind.log().contains("a=recvonly").then_some(()))?;
    stage.alice.command(&json!({ "command": "hold", "on": false }))?;
    std::thread::sleep(Duration::from_millis(500));
    hang_up(stage, "kamailio")?;
    let log = real(stage)?.kamailio.log();
    let gateway = stage.gateway.sip();
    for method in ["INVITE", "ACK", "BYE"] {
        let seen = log.lines().any(|line| {
            line.contains(&format!(">: {method} sip:")) && line.ends_with(&format!("from {}", gateway.ip()))
        });
        ensure!(seen, "no {method} of ours came through the proxy:\n{log}");
    }
    ensure!(!log.contains("INSANE"), "the proxy found something wrong with a request:\n{log}");
    Ok(())
}

fn from_registrar(stage: &mut Stage) -> Result<()> {
    let registered = format!("REGISTER sip:{}", real(stage)?.kamailio.sip().ip());
    until("we have registered", SOON, || {
        real(stage).ok()?.kamailio.log().contains(&registered).then_some(())
    })
    .with_context(|| real(stage).map(|real| real.kamailio.log()).unwrap_or_default())?;
    calls_alice(stage, "causeway", "kamailio", |real| &real.behind)
}

fn baresip_is_called(stage: &mut Stage) -> Result<()> {
    stage.alice_calls("+15550900018")?;
    let baresip = |stage: &mut Stage| -> Result<()> {
        let real = stage.real.as_mut().context("the real peers do not run")?;
        real.baresip.wait_for_event("CALL_ESTABLISHED", SOON).map(|_| ())
    };
    baresip(stage)?;
    stage.alice_gets("answered")?;
    for on in [true, false] {
        stage.real.as_mut().context("the real peers do not run")?.baresip.hold(on)?;
        let hold = stage.alice_gets("hold")?;
        ensure!(hold["on"] == on && hold["by"] == "far", "{hold}");
    }
    stage.real.as_mut().context("the real peers do not run")?.baresip.hang_up()?;
    let ended = stage.alice_gets("ended")?;
    ensure!(ended["cause"] == 16 && ended["by"] == "far", "{ended}");
    Ok(())
}

fn baresip_calls(stage: &mut Stage) -> Result<()> {
    let gateway = stage.gateway.sip();
    let uri = format!("sip:{ALICE}@{gateway}");
    stage.real.as_mut().context("the real peers do not run")?.baresip.dial(&uri)?;
    stage.alice_gets("incoming")?;
    stage.alice_answers()?;
    stage.alice_gets("media_up")?;
    for digit in ['7', '#'] {
        stage.real.as_mut().context("the real peers do not run")?.baresip.press(digit)?;
        let heard = stage.alice_gets("dtmf")?;
        ensure!(heard["digit"] == digit.to_string(), "{heard}");
        std::thread::sleep(Duration::from_millis(300));
    }
    hang_up(stage, "baresip")
}

// RFC 3261 10.3, 22.
fn telephone(stage: &mut Stage) -> Result<()> {
    let gateway = stage.gateway.sip();
    let folder = real(stage)?.folder.join("telephone");
    let options = BaresipOptions {
        user: "200".to_owned(),
        // baresip takes none with spaces.
        password: Some("barley".to_owned()),
        ..BaresipOptions::new(gateway, &speech_file(Speech::Italian)?)
    };
    let telephone = Baresip::start(&folder, &options)?;
    let real = stage.real.as_mut().context("the real peers do not run")?;
    let telephone = real.telephone.insert(telephone);
    // It registers before anybody can listen to its events.
    until("the telephone is registered", SOON, || {
        let trunks = stage.gateway.json("/v1/trunks").ok()?;
        let ours = trunks["trunks"].as_array()?.iter().find(|trunk| trunk["name"] == "telephone")?;
        (ours["state"] == "up").then_some(())
    })
    .with_context(|| telephone.log())?;
    telephone.dial(&format!("sip:{ALICE}@{gateway}"))?;
    stage.alice_gets("incoming")?;
    stage.alice_answers()?;
    stage.alice_gets("media_up")?;
    hang_up(stage, "telephone")?;
    stage.alice_calls("+15551300200")?;
    stage.alice_gets("answered")?;
    stage.alice_gets("heard")?;
    hang_up(stage, "telephone")
}

fn sipp_calls(stage: &mut Stage) -> Result<()> {
    let at = real(stage)?.sipp_at;
    let folder = real(stage)?.folder.join("sipp");
    let mut sipp = Sipp::calls(&folder, at, stage.gateway.sip(), BOB, (10, 5), Duration::from_millis(1500))?;
    sipp.is_done(Duration::from_secs(50))?;
    let list = stage.gateway.json("/v1/calls?limit=250")?;
    let good = |call: &&serde_json::Value| call["trunk"] == "sipp" && call["outcome"] == "success";
    let count = list["calls"].as_array().map_or(0, |calls| calls.iter().filter(good).count());
    ensure!(count >= 10, "{count} of 10 calls were a success");
    Ok(())
}

/// What SIPp says.
const ITS_TONE: f64 = 700.0;

// RFC 3550 8.2: packets with our own SSRC are a loop.
fn sipp_answers(stage: &mut Stage) -> Result<()> {
    let at = real(stage)?.sipp_at;
    let folder = real(stage)?.folder.join("sipp");
    let mut sipp = Sipp::answers(&folder, at, 1, &generate::tone(8000, ITS_TONE, 1.0))?;
    until("SIPp listens", SOON, || std::net::UdpSocket::bind(at).is_err().then_some(()))?;
    stage.alice_calls("+15551000018")?;
    stage.alice_gets("answered")?;
    stage.alice_gets("heard")?;
    std::thread::sleep(Duration::from_millis(1800));
    hang_up(stage, "sipp")?;
    sipp.is_done(SOON)?;
    let share = stage.alice_heard(ITS_TONE, 0.8)?;
    ensure!(share > 0.8, "only {share:.2} of what she heard is the tone of SIPp");
    Ok(())
}
