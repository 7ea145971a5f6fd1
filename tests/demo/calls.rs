//! The calls, one after the other, and what they show.

use std::{fmt, thread, time::Duration, time::Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::audio::{Audio, Correlation, correlation};
use tests::lab::{Asterisk, Originate, until};

use crate::stage::{ALICE, PBX, Stage};

const SOON: Duration = Duration::from_secs(15);
const DIGITS: &str = "0123456789*#";
/// Q.850 causes with which the PBX refuses, and that alice must hear.
const CAUSES: [u8; 5] = [1, 17, 21, 28, 34];
/// Waveform correlation below which a voice does not count as heard.
const HEARD: f64 = 0.90;
/// The same for a voice that came back from an echo.
const HEARD_TWICE: f64 = 0.80;

/// How often a call is tried before it counts as failed.
const ATTEMPTS: usize = 3;

/// What the calls showed.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    out: Option<f64>,
    inward: Option<f64>,
    echo: Option<f64>,
    setup_ms: Vec<u128>,
    dtmf: bool,
    early_media: bool,
    busy: bool,
    causes: bool,
    hang_up: bool,
}

impl Outcome {
    /// Says whether everything worked and both voices were heard.
    pub(crate) fn good(&self) -> bool {
        let heard = |value: Option<f64>| value.is_some_and(|value| value >= HEARD);
        heard(self.out)
            && heard(self.inward)
            && self.dtmf
            && self.early_media
            && self.busy
            && self.causes
            && self.hang_up
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ok = |good: bool| if good { "ok" } else { "failed" };
        let heard = |value: Option<f64>| value.is_some_and(|value| value >= HEARD);
        let mut setup = self.setup_ms.clone();
        setup.sort_unstable();
        let median = setup.get(setup.len() / 2).copied().unwrap_or(0);
        let number =
            |value: Option<f64>| value.map_or_else(|| "none".to_owned(), |value| format!("{value:.3}"));
        write!(
            f,
            "RESULT demo overlay_to_pstn={} pstn_to_overlay={} corr_out={} corr_in={} corr_echo={} setup_ms={median} dtmf={} early_media={} busy={} causes={} hang_up={}",
            ok(heard(self.out)),
            ok(heard(self.inward)),
            number(self.out),
            number(self.inward),
            number(self.echo),
            ok(self.dtmf),
            ok(self.early_media),
            ok(self.busy),
            ok(self.causes),
            ok(self.hang_up),
        )
    }
}

/// A call, and what it shows.
type Act = fn(&mut Stage, &mut Outcome) -> Result<()>;

/// Plays all calls. One that fails is told, and the others are still played.
pub(crate) fn play(stage: &mut Stage) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let acts: [(&str, Act); 7] = [
        ("alice calls +442079460600; the PBX answers with an echo of her voice", echo),
        ("alice and the PBX talk at once; alice hangs up", both_voices_out),
        ("the PBX calls alice's number; both talk at once; the PBX hangs up", both_voices_in),
        ("alice hears an announcement before the answer, then busy", early_then_busy),
        ("the PBX calls alice, who is busy", busy_alice),
        ("digits, both ways", digits),
        ("the PBX refuses with Q.850 causes, and alice hears the same", causes),
    ];
    for (number, (what, act)) in acts.into_iter().enumerate() {
        println!("\n{}. {what}", number + 1);
        for attempt in 1..=ATTEMPTS {
            let Err(error) = act(stage, &mut outcome) else { break };
            println!("   FAILED: {error:#}");
            stage.alice.hang_up()?;
            stage.asterisk.hang_up_all()?;
            thread::sleep(Duration::from_secs(1));
            if attempt < ATTEMPTS {
                println!("   Once more: a machine that stands still for a moment tears holes into a voice.");
            }
        }
    }
    println!();
    Ok(outcome)
}

/// alice calls; returns once the PBX has answered.
fn call_out(stage: &mut Stage, outcome: &mut Outcome, to: &str) -> Result<()> {
    let began = Instant::now();
    let file = stage.speech_file.clone();
    stage.alice.call(to, Some(&file))?;
    stage.alice.wait_for("answered", SOON)?;
    outcome.setup_ms.push(began.elapsed().as_millis());
    stage.alice.wait_for("media_up", SOON)?;
    Ok(())
}

/// The voice has been said to its end, and what is on the way has arrived.
fn said(stage: &mut Stage) -> Result<()> {
    stage.alice.wait_for("played", Duration::from_secs(40))?;
    thread::sleep(Duration::from_millis(800));
    Ok(())
}

/// Prints what the gateway knows of the last call: its ladder and its figures.
fn show(stage: &Stage) -> Result<Value> {
    let ended =
        until("the call is over", SOON, || stage.last_call().ok().filter(|call| call["state"] == "ended"))?;
    let id = ended["id"].as_str().context("a call without id")?;
    for line in stage.gateway.causeway(&["call", "ladder", id])?.lines() {
        println!("   {line}");
    }
    for line in stage.gateway.causeway(&["call", "show", id])?.lines().skip(1) {
        println!("   {line}");
    }
    stage.gateway.json(&format!("/v1/calls/{id}"))
}

fn judge(what: &str, reference: &Audio, got: &Audio) -> f64 {
    let measured: Correlation = correlation(reference, got);
    println!("   {what}: {measured}");
    measured.median_block
}

fn echo(stage: &mut Stage, outcome: &mut Outcome) -> Result<()> {
    call_out(stage, outcome, "+442079460600")?;
    said(stage)?;
    stage.alice.hang_up()?;
    stage.alice.wait_for("ended", SOON)?;
    show(stage)?;
    let heard = stage.alice.recording()?;
    outcome.echo = Some(judge("her voice came back", &stage.speech, &heard));
    // Twice through Opus and twice through the network: less of the waveform is left than of one way.
    ensure!(outcome.echo >= Some(HEARD_TWICE), "her voice did not come back well");
    Ok(())
}

fn both_voices_out(stage: &mut Stage, outcome: &mut Outcome) -> Result<()> {
    call_out(stage, outcome, "+442079460620")?;
    said(stage)?;
    stage.alice.hang_up()?;
    let ended = stage.alice.wait_for("ended", SOON)?;
    let record = show(stage)?;
    let at_pbx = stage.asterisk.recordings("620", 1, SOON)?;
    let at_pbx = at_pbx.last().context("the PBX recorded nothing")?;
    outcome.out = Some(judge("the PBX heard alice", &stage.speech, at_pbx));
    let heard = stage.alice.recording()?;
    let back = judge("alice heard the PBX", &stage.speech, &heard);
    ensure!(outcome.out >= Some(HEARD), "the PBX did not hear alice well");
    ensure!(back >= HEARD, "alice did not hear the PBX well");
    ensure!(
        ended["by"] == "local" && record["released_by"] == "overlay",
        "alice hung up, but {ended}, {record}"
    );
    Ok(())
}

fn both_voices_in(stage: &mut Stage, outcome: &mut Outcome) -> Result<()> {
    let ring = Duration::from_secs(20);
    stage.asterisk.originate(&Originate { to: ALICE, caller: PBX, extension: "620", ring })?;
    let incoming = stage.alice.wait_for("incoming", SOON)?;
    println!("   alice's display: {} ({})", incoming["from"].as_str().unwrap_or("unknown"), incoming["role"]);
    ensure!(incoming["from"] == PBX, "the caller was not shown: {incoming}");
    let file = stage.speech_file.clone();
    stage.alice.answer(Some(&file))?;
    stage.alice.wait_for("media_up", SOON)?;
    said(stage)?;
    stage.asterisk.hang_up_all()?;
    let ended = stage.alice.wait_for("ended", SOON)?;
    let record = show(stage)?;
    let at_pbx = stage.asterisk.recordings("620", 2, SOON)?;
    let at_pbx = at_pbx.last().context("the PBX recorded nothing")?;
    let out = judge("the PBX heard alice", &stage.speech, at_pbx);
    let heard = stage.alice.recording()?;
    outcome.inward = Some(judge("alice heard the PBX", &stage.speech, &heard));
    ensure!(out >= HEARD, "the PBX did not hear alice well");
    ensure!(outcome.inward >= Some(HEARD), "alice did not hear the PBX well");
    outcome.hang_up = ended["by"] == "far" && record["released_by"] == "trunk";
    ensure!(outcome.hang_up, "the PBX hung up, but {ended}, {record}");
    Ok(())
}

fn early_then_busy(stage: &mut Stage, outcome: &mut Outcome) -> Result<()> {
    stage.alice.call(&Asterisk::number("610"), None)?;
    stage.alice.wait_for("early", SOON)?;
    stage.alice.wait_for("heard", SOON)?;
    let ended = stage.alice.wait_for("ended", SOON)?;
    show(stage)?;
    let heard = stage.alice.recording()?;
    println!(
        "   {:.1} s of announcement at {:.0} rms; then {}",
        heard.seconds(),
        heard.rms(),
        ended["cause_text"]
    );
    outcome.early_media = heard.seconds() > 2.0 && heard.rms() > 0.005 && ended["answered"] == false;
    ensure!(outcome.early_media, "no announcement was heard: {ended}");
    ensure!(ended["cause"] == 17, "alice did not hear busy: {ended}");
    outcome.busy = true;
    Ok(())
}

fn busy_alice(stage: &mut Stage, outcome: &mut Outcome) -> Result<()> {
    outcome.busy = false;
    let ring = Duration::from_secs(20);
    stage.asterisk.originate(&Originate { to: ALICE, caller: PBX, extension: "608", ring })?;
    stage.alice.wait_for("incoming", SOON)?;
    stage.alice.command(&json!({ "command": "reject", "cause": 17 }))?;
    stage.alice.wait_for("ended", SOON)?;
    let record = show(stage)?;
    outcome.busy = record["cause"]["q850"] == 17 && record["trunk"] == "pbx";
    let ladder =
        stage.gateway.json(&format!("/v1/calls/{}/ladder", record["id"].as_str().unwrap_or_default()))?;
    let heard_busy = ladder["exchanges"].as_array().is_some_and(|steps| {
        steps.iter().any(|step| step["label"].as_str().is_some_and(|label| label.starts_with("486")))
    });
    ensure!(outcome.busy && heard_busy, "the PBX did not hear 486: {record}");
    Ok(())
}

fn digits(stage: &mut Stage, outcome: &mut Outcome) -> Result<()> {
    let before = stage.asterisk.digits().len();
    call_out(stage, outcome, &Asterisk::number("604"))?;
    stage.alice.press(DIGITS)?;
    let heard = until("the PBX has heard every digit", Duration::from_secs(20), || {
        let digits: String = stage.asterisk.digits()[before..].iter().map(|heard| heard.digit).collect();
        (digits.len() >= DIGITS.len()).then_some(digits)
    })?;
    println!("   the PBX heard {heard}");
    stage.alice.hang_up()?;
    stage.alice.wait_for("ended", SOON)?;
    stage.alice.call(&Asterisk::number("613"), None)?;
    let ended = stage.alice.wait_for("ended", Duration::from_secs(30))?;
    let told = ended["digits"].as_str().unwrap_or_default();
    println!("   alice heard {told}");
    show(stage)?;
    outcome.dtmf = heard == DIGITS && told == DIGITS;
    ensure!(outcome.dtmf, "sent {DIGITS}, the PBX heard {heard}, alice heard {told}");
    Ok(())
}

fn causes(stage: &mut Stage, outcome: &mut Outcome) -> Result<()> {
    let mut wrong = Vec::new();
    for cause in CAUSES {
        stage.alice.call(&Asterisk::number(&format!("7{cause:03}")), None)?;
        let ended = stage.alice.wait_for("ended", SOON)?;
        println!(
            "   Q.850 {cause}: alice heard {} {}, SIP {}",
            ended["cause"], ended["cause_text"], ended["sip_status"]
        );
        if ended["cause"] != cause {
            wrong.push(cause);
        }
    }
    outcome.causes = wrong.is_empty();
    ensure!(outcome.causes, "other causes were heard for {wrong:?}");
    Ok(())
}
