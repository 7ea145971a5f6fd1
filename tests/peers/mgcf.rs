//! The edge of the circuit-switched network (3GPP TS 29.163): digits without +, causes of Q.850, digits as tones.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::audio::dtmf_digits;
use tests::lab::{
    peer::{Call, Describe, Voice, rtp_of},
    until,
};

use crate::stage::{ALICE, SOON, Stage};
use crate::{Scenario, in_time, scenario};

pub(crate) const ALL: &[Scenario] = &[
    scenario("mgcf", "is called by digits alone; its causes reach the caller", causes),
    scenario("mgcf", "calls by digits alone; alice's causes reach it", comes_in),
    in_time(
        "mgcf",
        "has no telephone events: its tones are digits, hers are tones; cause 31 at the end",
        tones,
    ),
];

/// The two tones of the keys 1, 5 and 9 (ITU-T Q.23).
const KEYS: [(char, [f64; 2]); 3] = [('1', [697.0, 1209.0]), ('5', [770.0, 1336.0]), ('9', [852.0, 1477.0])];

// RFC 3326: the cause counts, whatever the status.
fn causes(stage: &mut Stage) -> Result<()> {
    for (status, cause) in [(503, 34), (480, 18), (500, 41), (404, 3), (486, 17)] {
        stage.alice_calls("+15550400018")?;
        let mgcf = &mut stage.scripts.mgcf;
        let call = Call::comes_in(mgcf)?;
        ensure!(call.invite.uri().starts_with("sip:15550400018@"), "{}", call.invite.start);
        let caller = call.invite.need("p-asserted-identity")?;
        ensure!(caller.contains("sip:15550009001@"), "{caller}");
        call.refuse(mgcf, status, &format!("Reason: Q.850;cause={cause}\r\n"))?;
        let ended = stage.alice_gets("ended")?;
        ensure!(ended["cause"] == cause && ended["sip_status"] == status, "{status} with {cause}: {ended}");
        let record = stage.record("mgcf")?;
        ensure!(record["cause"]["q850"] == cause, "{record}");
    }
    Ok(())
}

fn comes_in(stage: &mut Stage) -> Result<()> {
    for (cause, status) in [(17, 486), (21, 603), (19, 480)] {
        let mgcf = &mut stage.scripts.mgcf;
        let voice = Voice::open(*mgcf.local().ip())?;
        let digits = ALICE.trim_start_matches('+');
        let mut call = Call::out(mgcf, digits, "442079460018", "", &Describe::at(voice.local()).to_string())?;
        let incoming = stage.alice_gets("incoming")?;
        ensure!(incoming["from"] == "+442079460018", "{incoming}");
        stage.alice.command(&json!({ "command": "reject", "cause": cause }))?;
        let refusal = call.is_refused(&mut stage.scripts.mgcf)?;
        let reason = refusal.need("reason")?;
        ensure!(reason.replace(' ', "").contains(&format!("Q.850;cause={cause}")), "{reason}");
        // RFC 3398 8.2.6.1, as far as it leaves no choice.
        ensure!(refusal.status() == Some(status) || cause == 21, "cause {cause}: {}", refusal.start);
        stage.alice_gets("ended")?;
        let record = stage.record("mgcf")?;
        ensure!(record["to"] == ALICE && record["cause"]["q850"] == cause, "{record}");
    }
    Ok(())
}

fn tones(stage: &mut Stage) -> Result<()> {
    stage.alice_calls("+15550400020")?;
    let mgcf = &mut stage.scripts.mgcf;
    let mut call = Call::comes_in(mgcf)?;
    let voice = Voice::open(*mgcf.local().ip())?;
    let answer = Describe::at(voice.local()).events(None).to_string();
    call.pick_up(mgcf, "", &answer)?;
    let remote = rtp_of(&call.invite.media()?)?;
    voice.speak(remote, &[], 20);
    stage.alice_gets("heard")?;
    for (key, pair) in KEYS {
        voice.speak(remote, &pair, 20);
        thread::sleep(Duration::from_millis(250));
        voice.speak(remote, &[], 20);
        let event = stage.alice_gets("dtmf")?;
        ensure!(event["digit"] == key.to_string(), "{key}: {event}");
        thread::sleep(Duration::from_millis(100));
    }
    until("her voice", SOON, || (voice.heard().packets > 20).then_some(()))?;
    voice.forget();
    stage.alice.press("0*8")?;
    let tones = || dtmf_digits(&voice.heard().audio());
    until("her digits as tones", SOON, || (tones() == "0*8").then_some(()))
        .with_context(|| format!("{:?}", tones()))?;
    ensure!(voice.heard().others.is_empty(), "payload types {:?}", voice.heard().others);
    call.hang_up(&mut stage.scripts.mgcf, "Reason: Q.850;cause=31\r\n")?;
    let ended = stage.alice_gets("ended")?;
    ensure!(ended["cause"] == 31, "{ended}");
    // What she was told as events she does not hear as well.
    let heard = dtmf_digits(&stage.alice.recording()?);
    ensure!(heard.is_empty(), "alice heard {heard:?}");
    ensure!(stage.record("mgcf")?["outcome"] == "success", "not a success");
    Ok(())
}
