//! Shows Causeway at work: an overlay of an authority, a supernode, a gateway and two users; a real PBX behind the
//! gateway's trunk; calls both ways with recorded speech, and a measure of how much of it arrived.
//!
//! With `ONCE=1` it ends after one round, with status 0 only when all of it worked. Otherwise everything stays up, to be
//! looked at, until Enter or Ctrl-C.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tests::{
    audio::{Audio, correlation},
    lab::{
        self, Asterisk, AsteriskOptions, Authority, Daemon, DaemonOptions, Folder, Originate, Phone,
        PhoneOptions, Speech, TrunkOptions,
    },
};

const SOON: Duration = Duration::from_secs(20);
/// How long the two sides talk.
const TALK: Duration = Duration::from_secs(9);
const ALICE: &str = "+15550009001";
const BOB: &str = "+15550009002";

fn main() -> ExitCode {
    let once = std::env::var("ONCE").is_ok_and(|value| value == "1");
    match demo(once) {
        Ok(count) => {
            println!("RESULT demo passed={count} failed=0");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("\nfailed: {error:#}\nRESULT demo passed=0 failed=1");
            ExitCode::FAILURE
        }
    }
}

/// A title, and what is done under it.
type Round = (&'static str, fn(&mut Network) -> Result<()>);

/// Everything that runs, in the order in which it is ended.
struct Network {
    alice: Phone,
    bob: Phone,
    gateway: Daemon,
    supernode: Daemon,
    asterisk: Asterisk,
    folder: Folder,
}

fn demo(once: bool) -> Result<usize> {
    let start = Instant::now();
    let mut network = network()?;
    println!(
        "  all up after {:.1} s; files are in {}",
        start.elapsed().as_secs_f32(),
        network.folder.path().display()
    );
    let rounds: [Round; 5] = [
        ("An overlay user calls a telephone number", call_out),
        ("A telephone calls an overlay user's number", call_in),
        ("Digits cross both ways", digits),
        ("A busy telephone is busy", busy),
        ("Two overlay users call each other, without any gateway", overlay_only),
    ];
    for (index, (title, round)) in rounds.iter().enumerate() {
        println!("\n{}. {title}", index + 1);
        round(&mut network)?;
    }
    println!("\nAll {} rounds worked, in {:.0} s.", rounds.len(), start.elapsed().as_secs_f32());
    if !once {
        println!("\nEverything stays up. Look around with");
        println!("  {}", network.gateway.command_line());
        println!(
            "followed by: health | trunks | calls | call why ID | call ladder ID | route test +15550000600"
        );
        println!("Press Enter to end.");
        std::io::stdin().read_line(&mut String::new())?;
    }
    Ok(rounds.len())
}

fn network() -> Result<Network> {
    println!("Starting an authority, a supernode, a gateway, a PBX and two overlay users ...");
    let folder = Folder::new("demo")?;
    let authority = Authority::init(&folder.path().join("authority"))?;
    let supernode_id = authority.supernode("supernode")?;
    let gateway_id = authority.gateway("gateway", &["+1555"], &["+1555"])?;
    let supernode = Daemon::start(
        folder.path(),
        &authority,
        &supernode_id,
        DaemonOptions::supernode("supernode", &supernode_id),
    )?;

    let mut options = DaemonOptions::gateway("gateway", &gateway_id);
    let asterisk = Asterisk::start(&folder.path().join("asterisk"), &AsteriskOptions::new(options.sip()))?;
    println!("  PBX: {}", asterisk.cli("core show version")?.split(" built").next().unwrap_or_default());
    options.bootstrap = vec![supernode.multiaddress()];
    options.offers = vec!["+1555".to_owned()];
    options.trunks = vec![TrunkOptions::new("pbx", asterisk.sip())];
    options.numbers = vec![(ALICE.to_owned(), "alice".to_owned()), (BOB.to_owned(), "bob".to_owned())];
    let gateway = Daemon::start(folder.path(), &authority, &gateway_id, options)?;

    let bootstrap = [supernode.multiaddress()];
    let user = |name: &str, number: &str| -> Result<Phone> {
        Phone::start(folder.path(), &authority.user(name, &[number])?, &PhoneOptions::new(name, &bootstrap))
    };
    let (mut alice, mut bob) = (user("alice", ALICE)?, user("bob", BOB)?);
    alice.wait_until_online(SOON)?;
    bob.wait_until_online(SOON)?;
    gateway.wait_until_ready()?;
    Ok(Network { alice, bob, gateway, supernode, asterisk, folder })
}

fn call_out(network: &mut Network) -> Result<()> {
    let said = lab::speech_file(Speech::French)?;
    let number = Asterisk::number("620");
    println!("  alice dials {number}: the PBX answers, plays English and records; alice speaks French");
    let started = Instant::now();
    network.alice.call(&number, Some(&said))?;
    network.alice.wait_for("answered", SOON)?;
    println!("  answered after {} ms", started.elapsed().as_millis());
    network.alice.wait_for("heard", SOON)?;
    thread::sleep(TALK); // real time: speech
    network.alice.hang_up()?;
    network.alice.wait_for("ended", SOON)?;
    let recorded = network.asterisk.recordings("620", 1, SOON)?;
    survived("what alice said, as the PBX recorded it", &lab::speech(Speech::French)?, &recorded[0])?;
    let played = tests::audio::read_wav(&network.asterisk.folder().join("speech.wav"))?;
    survived("what the PBX said, as alice heard it  ", &played, &network.alice.recording()?)?;
    let id = newest_call(network)?;
    println!(
        "  the messages of this call:\n{}",
        indented(&network.gateway.causeway(&["call", "ladder", &id])?)
    );
    println!("  why it went as it did:\n{}", indented(&network.gateway.causeway(&["call", "why", &id])?));
    Ok(())
}

fn call_in(network: &mut Network) -> Result<()> {
    let said = lab::speech_file(Speech::Italian)?;
    println!("  the PBX dials {BOB}; bob answers and speaks Italian");
    let call = Originate { to: BOB, caller: "+15551234567", extension: "620", ring: SOON };
    network.asterisk.originate(&call)?;
    let incoming = network.bob.wait_for("incoming", SOON)?;
    println!("  bob's telephone rings: {} calls", incoming["from"].as_str().unwrap_or("somebody"));
    ensure!(incoming["from"] == "+15551234567", "the caller's number is lost: {incoming}");
    network.bob.answer(Some(&said))?;
    network.bob.wait_for("heard", SOON)?;
    thread::sleep(TALK); // real time: speech
    network.bob.hang_up()?;
    network.bob.wait_for("ended", SOON)?;
    let recorded = network.asterisk.recordings("620", 2, SOON)?;
    survived("what bob said, as the PBX recorded it", &lab::speech(Speech::Italian)?, &recorded[1])?;
    let played = tests::audio::read_wav(&network.asterisk.folder().join("speech.wav"))?;
    survived("what the PBX said, as bob heard it  ", &played, &network.bob.recording()?)
}

fn digits(network: &mut Network) -> Result<()> {
    network.alice.call(&Asterisk::number("604"), None)?;
    network.alice.wait_for("media_up", SOON)?;
    network.alice.press("0123456789*#")?;
    let heard = |asterisk: &Asterisk| asterisk.digits().iter().map(|heard| heard.digit).collect::<String>();
    let all = lab::until("the PBX hears twelve digits", SOON, || {
        let digits = heard(&network.asterisk);
        (digits.len() >= 12).then_some(digits)
    })?;
    println!("  alice pressed 0123456789*#, the PBX heard {all}");
    ensure!(all == "0123456789*#", "digits were lost or mixed up: {all}");
    network.alice.hang_up()?;
    network.alice.wait_for("ended", SOON)?;
    network.alice.call(&Asterisk::number("613"), None)?;
    let ended = network.alice.wait_for("ended", SOON)?;
    let got = ended["digits"].as_str().unwrap_or_default();
    println!("  the PBX pressed 0123456789*#, alice heard {got}");
    ensure!(got == "0123456789*#", "digits were lost or mixed up: {ended}");
    Ok(())
}

fn busy(network: &mut Network) -> Result<()> {
    network.alice.call(&Asterisk::number("7017"), None)?;
    let ended = network.alice.wait_for("ended", SOON)?;
    println!(
        "  alice is told: cause {} ({})",
        ended["cause"],
        ended["cause_text"].as_str().unwrap_or_default()
    );
    ensure!(ended["cause"] == 17, "busy is cause 17 (Q.850): {ended}");
    Ok(())
}

fn overlay_only(network: &mut Network) -> Result<()> {
    let said = lab::speech_file(Speech::French)?;
    network.alice.call("bob", Some(&said))?;
    network.bob.wait_for("incoming", SOON)?;
    network.bob.answer(None)?;
    network.bob.wait_for("heard", SOON)?;
    thread::sleep(TALK); // real time: speech
    network.alice.hang_up()?;
    network.bob.wait_for("ended", SOON)?;
    survived("what alice said, as bob heard it", &lab::speech(Speech::French)?, &network.bob.recording()?)?;
    let health = network.supernode.causeway(&["health"])?;
    println!("  the supernode they met by: {}", health.lines().next().unwrap_or_default());
    Ok(())
}

/// Fails unless most of what was said can be told from what was heard.
fn survived(what: &str, said: &Audio, heard: &Audio) -> Result<()> {
    let result = correlation(said, heard);
    println!("  {what}: {result}");
    ensure!(result.overlap_s > 6.0, "too little was heard: {result}");
    ensure!(
        result.median_block > 0.9 && result.share_above_90 > 0.8,
        "{what}: too little survived: {result}"
    );
    Ok(())
}

fn newest_call(network: &Network) -> Result<String> {
    let calls = network.gateway.causeway(&["--json", "calls", "--limit", "1"])?;
    let calls: serde_json::Value = serde_json::from_str(&calls)?;
    // The list is either the answer itself or one of its fields.
    let list = calls.as_array().or_else(|| calls.as_object()?.values().find_map(|value| value.as_array()));
    let id = list.and_then(|list| list.first()?["id"].as_str());
    id.map(str::to_owned).ok_or_else(|| anyhow::anyhow!("the gateway knows of no call: {calls}"))
}

fn indented(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("    {line}\n")).collect()
}
