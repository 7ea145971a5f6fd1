//! A carrier of telephone calls: announcements before the answer, 200 without a description, packets of 30 ms, telephone
//! events of type 100, telephones that answer at once.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use tests::lab::{
    peer::{Call, Describe, Message, Voice, rtp_of},
    until,
};

use crate::stage::{ALICE, HER_TONE, SOON, Stage, usual_share};
use crate::{Scenario, in_time, scenario};

pub(crate) const ALL: &[Scenario] = &[
    in_time("carrier", "183 with an announcement, 200 without a description, 30 ms, events of type 100", out),
    in_time("carrier", "calls in with 30 ms and events of type 100; digits both ways", comes_in),
    in_time("carrier", "an announcement, then 404 with a cause", announcement_and_refusal),
    scenario("carrier", "a 200 that is repeated is acknowledged each time", repeated_answer),
    scenario("carrier", "two telephones answer; the second is hung up", two_answers),
    scenario("carrier", "a call given up is cancelled, also when it is answered meanwhile", given_up),
];

/// What the carrier plays before the answer.
const ANNOUNCEMENT: f64 = 425.0;

fn out(stage: &mut Stage) -> Result<()> {
    stage.alice_calls("+15550100018")?;
    let carrier = &mut stage.scripts.carrier;
    let call = Call::comes_in(carrier)?;
    let offer = call.invite.media()?;
    ensure!(
        call.invite.uri().starts_with(&format!("sip:+15550100018@{}", carrier.local().ip())),
        "{}",
        call.invite.start
    );
    ensure!(offer.formats.contains(&8) && offer.direction() == "sendrecv", "{}", call.invite.body);
    ensure!(offer.attribute("ptime") == Some("20"), "{}", call.invite.body);
    ensure!(offer.format_of("telephone-event/8000").is_some(), "{}", call.invite.body);
    for method in ["INVITE", "ACK", "CANCEL", "BYE", "OPTIONS"] {
        ensure!(call.invite.lists("allow", method), "Allow lacks {method}");
    }
    let voice = Voice::open(*carrier.local().ip())?;
    let early = Describe::at(voice.local()).events(Some(100)).packets_of(30).to_string();
    call.answer(carrier, 183, "", &early)?;
    voice.speak(rtp_of(&offer)?, &[ANNOUNCEMENT], 30);
    stage.alice_gets("early")?;
    stage.alice_gets("heard")?;
    thread::sleep(Duration::from_millis(1500));
    // RFC 3261 13.2.1: the description of the 183 was the answer to our offer.
    let carrier = &mut stage.scripts.carrier;
    let ack = call.pick_up(carrier, "", "")?;
    ensure!(ack.body.is_empty(), "a description in the ACK: {}", ack.text);
    stage.alice_gets("answered")?;
    voice.forget();
    until("her voice", SOON, || (voice.heard().packets >= 40).then_some(()))?;
    let heard = voice.heard();
    let ours = heard.lengths.iter().filter(|length| **length == 240).count();
    ensure!(ours == heard.packets, "{ours} of {} packets have 30 ms", heard.packets);
    ensure!(
        // What the machine was too late for is left out; packets put together wrongly jump each time.
        heard.sources.len() == 1 && heard.jumps * 10 <= heard.packets,
        "{} sources, {} jumps in {} packets",
        heard.sources.len(),
        heard.jumps,
        heard.packets
    );
    let share = usual_share(&heard.samples, 8000, HER_TONE);
    ensure!(share > 0.8, "only {share:.2} of what the carrier heard is her tone");
    stage.alice.press("42#")?;
    until("her digits", SOON, || (voice.heard().typed() == "42#").then_some(()))?;
    ensure!(voice.heard().others == [100], "payload types {:?}", voice.heard().others);
    call.clone().hang_up(&mut stage.scripts.carrier, "Reason: Q.850;cause=16\r\n")?;
    let ended = stage.alice_gets("ended")?;
    ensure!(ended["cause"] == 16 && ended["by"] == "far", "{ended}");
    let share = stage.alice_heard(ANNOUNCEMENT, 0.8)?;
    ensure!(share > 0.8, "only {share:.2} of what alice heard is the announcement");
    let record = stage.record("carrier")?;
    ensure!(record["outcome"] == "success" && record["released_by"] == "trunk", "{record}");
    ensure!(record["trunk_leg"]["codec"] == "PCMA" && record["dtmf_digits"] == 3, "{record}");
    Ok(())
}

fn comes_in(stage: &mut Stage) -> Result<()> {
    let carrier = &mut stage.scripts.carrier;
    let voice = Voice::open(*carrier.local().ip())?;
    let offer = Describe::at(voice.local()).events(Some(100)).packets_of(30).to_string();
    let mut call = Call::out(carrier, ALICE, "+442079460018", "", &offer)?;
    let incoming = stage.alice_gets("incoming")?;
    ensure!(incoming["from"] == "+442079460018", "{incoming}");
    stage.alice_answers()?;
    let carrier = &mut stage.scripts.carrier;
    let (before, answer) = call.is_answered(carrier, "")?;
    // RFC 3261 17.2.1, 13.3.1.1.
    ensure!(before.first().and_then(Message::status) == Some(100), "no 100 at first");
    ensure!(before.iter().any(|response| response.status() == Some(180)), "no 180");
    let media = answer.media()?;
    // RFC 3264 6.1: the numbers of the offer.
    ensure!(media.format_of("telephone-event/8000") == Some(100), "{}", answer.body);
    ensure!(media.formats.first() == Some(&8), "{}", answer.body);
    voice.speak(rtp_of(&media)?, &[ANNOUNCEMENT], 30);
    stage.alice_gets("media_up")?;
    voice.forget();
    until("her voice", SOON, || (voice.heard().packets >= 40).then_some(()))?;
    let heard = voice.heard();
    ensure!(heard.lengths.iter().all(|length| *length == 240), "packets of {:?}", heard.lengths);
    voice.press("159D", 100);
    for digit in ["1", "5", "9", "D"] {
        let event = stage.alice_gets("dtmf")?;
        ensure!(event["digit"] == digit, "{digit}: {event}");
    }
    stage.alice.press("0*")?;
    until("her digits", SOON, || (voice.heard().typed() == "0*").then_some(()))?;
    stage.alice.hang_up()?;
    call.is_ended(&mut stage.scripts.carrier)?;
    let record = stage.record("carrier")?;
    ensure!(record["outcome"] == "success" && record["released_by"] == "overlay", "{record}");
    Ok(())
}

fn announcement_and_refusal(stage: &mut Stage) -> Result<()> {
    stage.alice_calls("+15550100404")?;
    let carrier = &mut stage.scripts.carrier;
    let call = Call::comes_in(carrier)?;
    let offer = call.invite.media()?;
    let voice = Voice::open(*carrier.local().ip())?;
    call.answer(carrier, 183, "", &Describe::at(voice.local()).to_string())?;
    voice.speak(rtp_of(&offer)?, &[ANNOUNCEMENT], 20);
    stage.alice_gets("heard")?;
    thread::sleep(Duration::from_millis(1200));
    // RFC 3326: the cause of the network says more than the status.
    call.refuse(&mut stage.scripts.carrier, 404, "Reason: Q.850;cause=1;text=\"Unallocated\"\r\n")?;
    let ended = stage.alice_gets("ended")?;
    ensure!(ended["cause"] == 1 && ended["sip_status"] == 404 && ended["answered"] == false, "{ended}");
    let share = stage.alice_heard(ANNOUNCEMENT, 0.7)?;
    ensure!(share > 0.8, "only {share:.2} of what alice heard is the announcement");
    let record = stage.record("carrier")?;
    let why = stage.why(&record)?;
    ensure!(record["outcome"] == "upstream" && why.contains("404"), "{record} {why}");
    Ok(())
}

// RFC 3261 13.2.2.4: the 2xx is the callee's to repeat, the ACK ours.
fn repeated_answer(stage: &mut Stage) -> Result<()> {
    stage.alice_calls("+15550100200")?;
    let carrier = &mut stage.scripts.carrier;
    let mut call = Call::comes_in(carrier)?;
    let voice = Voice::open(*carrier.local().ip())?;
    let answer = Describe::at(voice.local()).to_string();
    let before = carrier.repetitions();
    call.answer(carrier, 200, "", &answer)?;
    call.answer(carrier, 200, "", &answer)?;
    call.answer(carrier, 200, "", &answer)?;
    call.acknowledged(carrier)?;
    // Repeated ACKs are equal to the first.
    carrier.nothing("another ACK", Duration::from_millis(400), |message| message.method() == Some("ACK"))?;
    ensure!(carrier.repetitions() == before + 2, "{} ACKs", carrier.repetitions() - before + 1);
    stage.alice_gets("answered")?;
    call.hang_up(&mut stage.scripts.carrier, "")?;
    stage.alice_gets("ended")?;
    ensure!(stage.record("carrier")?["outcome"] == "success", "not a success");
    Ok(())
}

// RFC 3261 13.2.2.4: the second is acknowledged, then ended.
fn two_answers(stage: &mut Stage) -> Result<()> {
    stage.alice_calls("+15550100222")?;
    let carrier = &mut stage.scripts.carrier;
    let call = Call::comes_in(carrier)?;
    let voice = Voice::open(*carrier.local().ip())?;
    let answer = Describe::at(voice.local()).to_string();
    let other = carrier.word();
    call.answer(carrier, 180, "", "")?;
    call.answer_as(carrier, &other, 180, "", "")?;
    call.answer(carrier, 200, "", &answer)?;
    call.acknowledged(carrier)?;
    let mut second = call.clone();
    second.continue_as(&other);
    call.answer_as(carrier, &other, 200, "", &answer)?;
    second.acknowledged(carrier)?;
    let bye = second.is_ended(carrier)?;
    ensure!(bye.tag("to").as_deref() == Some(other.as_str()), "the wrong one was ended: {}", bye.text);
    stage.alice_gets("answered")?;
    stage.alice.hang_up()?;
    let bye = call.is_ended(&mut stage.scripts.carrier)?;
    ensure!(bye.tag("to").as_deref() == Some(call.tag()), "{}", bye.text);
    ensure!(stage.record("carrier")?["outcome"] == "success", "not a success");
    Ok(())
}

// RFC 3261 9.1: CANCEL waits for a provisional answer; what is answered in spite of it is acknowledged and ended.
fn given_up(stage: &mut Stage) -> Result<()> {
    stage.alice_calls("+15550100487")?;
    let call = Call::comes_in(&mut stage.scripts.carrier)?;
    call.answer(&mut stage.scripts.carrier, 180, "", "")?;
    stage.alice_gets("ringing")?;
    stage.alice.hang_up()?;
    call.is_cancelled(&mut stage.scripts.carrier)?;
    let record = stage.record("carrier")?;
    ensure!(record["outcome"] == "client" && record["released_by"] == "overlay", "{record}");

    stage.alice_calls("+15550100200")?;
    let carrier = &mut stage.scripts.carrier;
    let call = Call::comes_in(carrier)?;
    let voice = Voice::open(*carrier.local().ip())?;
    call.answer(carrier, 180, "", "")?;
    stage.alice_gets("ringing")?;
    stage.alice.hang_up()?;
    let carrier = &mut stage.scripts.carrier;
    let cancel = call.next(carrier, "CANCEL")?;
    carrier.respond(&cancel, 200, "OK", call.tag(), "", "")?;
    call.pick_up(carrier, "", &Describe::at(voice.local()).to_string())?;
    call.is_ended(carrier)?;
    let record = stage.record("carrier")?;
    ensure!(record["outcome"] == "client", "{record}");
    Ok(())
}
