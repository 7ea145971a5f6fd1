//! A PBX on TCP: a range of numbers, hold in its forms, changes of the session, session timers.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::lab::{
    peer::{Call, Describe, Peer, Voice, rtp_of},
    until,
};

use crate::stage::{ALICE, ALICE_TOO, BOB, NOBODY, SOON, Stage};
use crate::{Scenario, Script, beside, in_time, scenario};

pub(crate) const BESIDE: &[Scenario] = &[beside(
    "pbx",
    "asks us for session timers, refresher=uas, 90 s: we refresh at half, changing nothing",
    timers,
)];

pub(crate) const ALL: &[Scenario] = &[
    scenario("pbx", "calls each number of its range; one that nobody has is refused", range),
    in_time("pbx", "holds sendonly, inactive and by 0.0.0.0, and takes back each time", holds),
    in_time("pbx", "is held; its 491 is waited out, and the hold tried again", is_held),
    scenario(
        "pbx",
        "a re-INVITE without a description gets an offer; its answer counts",
        without_description,
    ),
    scenario("pbx", "a re-INVITE for fax is refused and the voice goes on", fax),
    scenario("pbx", "a session interval too small is refused with the least one", too_brief),
    scenario("pbx", "a transfer it may not make is declined and the call goes on", transfer),
    scenario("pbx", "what nobody knows of is refused: BYE, re-INVITE and CANCEL of no call", strays),
];

// RFC 4028.
fn timers(stage: &mut Stage) -> Result<Script> {
    let mut peer = stage.scripts.timers.take().context("it was played already")?;
    let script = move || -> Result<()> {
        let voice = Voice::open(*peer.local().ip())?;
        let timer = "Supported: timer\r\nSession-Expires: 90;refresher=uas\r\n";
        let description = Describe::at(voice.local());
        let mut call = Call::out(&mut peer, BOB, "+442079460090", timer, &description.to_string())?;
        let (_, answer) = call.is_answered(&mut peer, "")?;
        let began = Instant::now();
        // RFC 4028 9: whoever is to refresh is named, and that it matters.
        ensure!(answer.need("session-expires")?.replace(' ', "") == "90;refresher=uas", "{}", answer.text);
        ensure!(answer.lists("require", "timer"), "no Require: timer in {}", answer.text);
        let media = answer.media()?;
        voice.speak(rtp_of(&media)?, &[500.0], 20);
        until("bob says it back", SOON, || (voice.heard().packets > 20).then_some(()))?;
        let limit = Duration::from_secs(70);
        let refresh =
            peer.receive("refresh", limit, |message| matches!(message.method(), Some("INVITE" | "UPDATE")))?;
        let after = began.elapsed().as_secs_f64();
        // RFC 4028 10: at half the interval.
        ensure!((40.0..60.0).contains(&after), "it came after {after:.1} s");
        ensure!(refresh.need("session-expires")?.starts_with("90"), "{}", refresh.text);
        // RFC 3264 8: the same version, since nothing has changed.
        if !refresh.body.is_empty() {
            ensure!(refresh.media()?.origin == media.origin, "another version: {}", refresh.body);
        }
        let timer = "Supported: timer\r\nRequire: timer\r\nSession-Expires: 90;refresher=uac\r\n";
        let body = if refresh.body.is_empty() { String::new() } else { description.to_string() };
        peer.respond(&refresh, 200, "OK", "", timer, &body)?;
        if refresh.method() == Some("INVITE") {
            call.next(&mut peer, "ACK")?;
        }
        voice.forget();
        until("bob is still there", SOON, || (voice.heard().packets > 20).then_some(()))?;
        ensure!(voice.heard().sources.len() == 1, "the voice has another source");
        call.hang_up(&mut peer, "")
    };
    let thread = thread::Builder::new().name("timers".to_owned()).spawn(script)?;
    let judge = |stage: &mut Stage| {
        let record = stage.record("pbx-timers")?;
        ensure!(record["outcome"] == "success" && record["released_by"] == "trunk", "{record}");
        Ok(())
    };
    Ok(Script { thread, judge })
}

/// The PBX calls alice, who answers.
fn connect(stage: &mut Stage) -> Result<(Call, Voice, Describe)> {
    let pbx = &mut stage.scripts.pbx;
    let voice = Voice::open(*pbx.local().ip())?;
    let description = Describe::at(voice.local());
    let mut call = Call::out(pbx, ALICE, "+15550200001", "", &description.to_string())?;
    stage.alice_gets("incoming")?;
    stage.alice_answers()?;
    let (_, answer) = call.is_answered(&mut stage.scripts.pbx, "")?;
    stage.alice_gets("media_up")?;
    voice.speak(rtp_of(&answer.media()?)?, &[425.0], 20);
    stage.alice_gets("heard")?;
    Ok((call, voice, description))
}

/// The PBX ends the call, and it was a good one.
fn finish(stage: &mut Stage, mut call: Call) -> Result<()> {
    call.hang_up(&mut stage.scripts.pbx, "")?;
    stage.alice_gets("ended")?;
    let record = stage.record("pbx")?;
    ensure!(record["outcome"] == "success" && record["released_by"] == "trunk", "{record}");
    Ok(())
}

/// alice is heard anew.
fn she_is_heard(voice: &Voice) -> Result<()> {
    voice.forget();
    until("alice is heard", SOON, || (voice.heard().packets > 20).then_some(()))
}

fn range(stage: &mut Stage) -> Result<()> {
    for number in [ALICE, ALICE_TOO] {
        let pbx = &mut stage.scripts.pbx;
        let voice = Voice::open(*pbx.local().ip())?;
        let mut call = Call::out(pbx, number, "+15550200001", "", &Describe::at(voice.local()).to_string())?;
        let incoming = stage.alice_gets("incoming")?;
        ensure!(incoming["to"] == "alice" && incoming["from"] == "+15550200001", "{incoming}");
        stage.alice.command(&json!({ "command": "reject", "cause": 17 }))?;
        let refusal = call.is_refused(&mut stage.scripts.pbx)?;
        ensure!(refusal.status() == Some(486), "{}", refusal.start);
        stage.alice_gets("ended")?;
        let record = stage.record("pbx")?;
        ensure!(record["to"] == number, "{record}");
    }
    let pbx = &mut stage.scripts.pbx;
    let voice = Voice::open(*pbx.local().ip())?;
    let mut call = Call::out(pbx, NOBODY, "+15550200001", "", &Describe::at(voice.local()).to_string())?;
    let refusal = call.is_refused(pbx)?;
    ensure!(refusal.status() == Some(404), "{}", refusal.start);
    Ok(())
}

// RFC 3264 8.4, RFC 6337 5.3.
fn holds(stage: &mut Stage) -> Result<()> {
    let (mut call, voice, mut description) = connect(stage)?;
    for (direction, answered) in [("sendonly", "recvonly"), ("inactive", "inactive")] {
        description = description.directed(direction);
        let answer = call.ask(&mut stage.scripts.pbx, "INVITE", "", &description.to_string())?;
        ensure!(answer.status() == Some(200), "{}", answer.start);
        ensure!(answer.media()?.direction() == answered, "{direction}: {}", answer.body);
        let hold = stage.alice_gets("hold")?;
        ensure!(hold["on"] == true && hold["by"] == "far", "{hold}");
        // What was on the way has come; then nothing may.
        thread::sleep(Duration::from_millis(150));
        voice.forget();
        thread::sleep(Duration::from_millis(400));
        ensure!(voice.heard().packets == 0, "{} packets while held {direction}", voice.heard().packets);
        description = description.directed("sendrecv");
        let answer = call.ask(&mut stage.scripts.pbx, "INVITE", "", &description.to_string())?;
        ensure!(answer.media()?.direction() == "sendrecv", "{}", answer.body);
        let hold = stage.alice_gets("hold")?;
        ensure!(hold["on"] == false, "{hold}");
        she_is_heard(&voice)?;
    }
    // RFC 3264 8.4: the old form, which must be understood.
    let nowhere = description.clone().directed("sendonly").connection("0.0.0.0");
    let answer = call.ask(&mut stage.scripts.pbx, "INVITE", "", &nowhere.to_string())?;
    ensure!(answer.media()?.direction() == "recvonly", "{}", answer.body);
    ensure!(stage.alice_gets("hold")?["on"] == true, "she was not told");
    let back = nowhere.directed("sendrecv").connection(&voice.local().ip().to_string());
    call.ask(&mut stage.scripts.pbx, "INVITE", "", &back.to_string())?;
    ensure!(stage.alice_gets("hold")?["on"] == false, "she was not told");
    she_is_heard(&voice)?;
    finish(stage, call)
}

// RFC 3261 14.1: whoever made the Call-ID waits 2.1 to 4 s, the other up to 2 s.
fn is_held(stage: &mut Stage) -> Result<()> {
    stage.alice_calls("+15550200002")?;
    let pbx = &mut stage.scripts.pbx;
    let call = Call::comes_in(pbx)?;
    let voice = Voice::open(*pbx.local().ip())?;
    let description = Describe::at(voice.local());
    call.pick_up(pbx, "", &description.to_string())?;
    stage.alice_gets("answered")?;
    stage.alice_gets("media_up")?;
    stage.alice.command(&json!({ "command": "hold", "on": true }))?;
    let pbx = &mut stage.scripts.pbx;
    let first = call.next(pbx, "INVITE")?;
    ensure!(first.media()?.direction() == "sendonly", "{}", first.body);
    pbx.respond(&first, 491, "Request Pending", "", "", "")?;
    let refused = Instant::now();
    call.next(pbx, "ACK")?;
    let again = call.next(pbx, "INVITE")?;
    let after = refused.elapsed().as_secs_f64();
    ensure!((2.0..4.6).contains(&after), "tried again after {after:.2} s");
    ensure!(again.cseq().0 > first.cseq().0 && again.branch() != first.branch(), "{}", again.text);
    let held = description.clone().directed("recvonly");
    pbx.respond(&again, 200, "OK", "", "", &held.to_string())?;
    call.next(pbx, "ACK")?;
    stage.alice.command(&json!({ "command": "hold", "on": false }))?;
    let pbx = &mut stage.scripts.pbx;
    let back = call.next(pbx, "INVITE")?;
    ensure!(back.media()?.direction() == "sendrecv", "{}", back.body);
    pbx.respond(&back, 200, "OK", "", "", &held.directed("sendrecv").to_string())?;
    call.next(pbx, "ACK")?;
    she_is_heard(&voice)?;
    stage.alice.hang_up()?;
    call.is_ended(&mut stage.scripts.pbx)?;
    ensure!(stage.record("pbx")?["outcome"] == "success", "not a success");
    Ok(())
}

// RFC 3261 14.2, RFC 6337 2.1: the 200 has the offer, the ACK the answer.
fn without_description(stage: &mut Stage) -> Result<()> {
    let (mut call, voice, _) = connect(stage)?;
    let pbx = &mut stage.scripts.pbx;
    let cseq = call.send(pbx, "INVITE", "", "")?;
    let offer = call.response(pbx, cseq, "INVITE", |status| status >= 200)?;
    ensure!(offer.status() == Some(200), "{}", offer.start);
    let media = offer.media()?;
    ensure!(media.formats.contains(&8) && media.direction() == "sendrecv", "{}", offer.body);
    // Media moves to another socket.
    let moved = Voice::open(*pbx.local().ip())?;
    call.acknowledge(pbx, &Describe::at(moved.local()).directed("sendrecv").to_string())?;
    moved.speak(rtp_of(&media)?, &[850.0], 20);
    voice.hush();
    she_is_heard(&moved)?;
    finish(stage, call)
}

// RFC 3261 14.2: what is refused changes nothing.
fn fax(stage: &mut Stage) -> Result<()> {
    let (mut call, voice, description) = connect(stage)?;
    let (address, port) = (voice.local().ip().to_owned(), voice.local().port() + 1);
    let fax = format!(
        "v=0\r\no=peer 99 9 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=image {port} udptl t38\r\na=T38FaxVersion:0\r\n"
    );
    let answer = call.ask(&mut stage.scripts.pbx, "INVITE", "", &fax)?;
    ensure!(answer.status() == Some(488), "{}", answer.start);
    she_is_heard(&voice)?;
    let again = description.directed("sendrecv").directed("sendrecv");
    let answer = call.ask(&mut stage.scripts.pbx, "INVITE", "", &again.to_string())?;
    ensure!(answer.status() == Some(200), "after the refusal: {}", answer.start);
    finish(stage, call)
}

// RFC 3515 2.4.2: trunks transfer only where they may.
fn transfer(stage: &mut Stage) -> Result<()> {
    let (mut call, voice, _) = connect(stage)?;
    let extra = format!("Refer-To: <sip:{BOB}@{}>\r\n", stage.scripts.pbx.gateway());
    let answer = call.ask(&mut stage.scripts.pbx, "REFER", &extra, "")?;
    ensure!(answer.status() == Some(603), "{}", answer.start);
    she_is_heard(&voice)?;
    finish(stage, call)
}

// RFC 4028 6.
fn too_brief(stage: &mut Stage) -> Result<()> {
    let pbx = &mut stage.scripts.pbx;
    let voice = Voice::open(*pbx.local().ip())?;
    let timer = "Supported: timer\r\nSession-Expires: 60\r\n";
    let mut call = Call::out(pbx, ALICE, "+15550200001", timer, &Describe::at(voice.local()).to_string())?;
    let refusal = call.is_refused(pbx)?;
    ensure!(refusal.status() == Some(422), "{}", refusal.start);
    let least: u32 = refusal.need("min-se")?.parse()?;
    ensure!(least >= 90, "Min-SE {least}");
    Ok(())
}

// RFC 3261 12.2.2, 9.2.
fn strays(stage: &mut Stage) -> Result<()> {
    let gateway = stage.scripts.pbx.gateway();
    let pbx: &mut Peer = &mut stage.scripts.pbx;
    for method in ["BYE", "INVITE", "CANCEL", "INFO"] {
        let (via, id) = (pbx.via(), pbx.word());
        let text = format!(
            "{method} sip:{ALICE}@{gateway} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: <sip:x@y>;tag=a\r\n\
             To: <sip:{ALICE}@{gateway}>;tag=nobody\r\nCall-ID: {id}\r\nCSeq: 4 {method}\r\nContact: <{}>\r\nContent-Length: 0\r\n\r\n",
            pbx.contact()
        );
        pbx.send(text)?;
        let answer = pbx.receive(method, SOON, |message| {
            message.header("call-id") == Some(id.as_str())
                && message.status().is_some_and(|status| status >= 200)
        })?;
        ensure!(answer.status() == Some(481), "{method}: {}", answer.start);
        if method == "INVITE" {
            let text = format!(
                "ACK sip:{ALICE}@{gateway} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: <sip:x@y>;tag=a\r\n\
                 To: <sip:{ALICE}@{gateway}>;tag=nobody\r\nCall-ID: {id}\r\nCSeq: 4 ACK\r\nContent-Length: 0\r\n\r\n"
            );
            pbx.send(text)?;
        }
    }
    Ok(())
}
