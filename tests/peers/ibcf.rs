//! The border of another operator's network (3GPP TS 29.165): two proxies in the dialog, reliable provisional responses
//! required, charging vectors, asserted identities and withheld numbers.

use anyhow::{Context as _, Result, ensure};
use tests::lab::peer::{Call, Describe, Message, Peer, Voice, rtp_of};

use crate::stage::{ALICE, Stage};
use crate::{Scenario, scenario};

pub(crate) const ALL: &[Scenario] = &[
    scenario("ibcf", "two proxies in the dialog, 183 with 100rel: PRACK, ACK and BYE go the whole way", out),
    scenario("ibcf", "calls in through two proxies, requires 100rel, withholds the number", comes_in),
    scenario("ibcf", "is told the number that alice withholds, marked as private", withheld),
    scenario("ibcf", "a PRACK of no response is refused", unknown_prack),
];

/// The proxy farther from the gateway; only its name is known here.
const FAR: &str = "<sip:core.home.example;lr;x=\"a,b\">";

fn near(peer: &Peer) -> String {
    format!("<sip:{};lr>", peer.local())
}

fn out(stage: &mut Stage) -> Result<()> {
    stage.alice_calls("+15550300018")?;
    let ibcf = &mut stage.scripts.ibcf;
    let call = Call::comes_in(ibcf)?;
    let invite = &call.invite;
    ensure!(invite.lists("require", "100rel"), "no Require: 100rel in {}", invite.text);
    // RFC 7315 4.6.
    let vector = invite.need("p-charging-vector")?;
    ensure!(vector.contains("icid-value=") && vector.contains("orig-ioi=home.example"), "{vector}");
    let asserted = invite.need("p-asserted-identity")?;
    ensure!(asserted.contains(ALICE), "{asserted}");
    let voice = Voice::open(*ibcf.local().ip())?;
    // As the responses come back through both proxies: the farther is written first.
    let routes = format!("Record-Route: {FAR}, {}\r\n", near(ibcf));
    let target = "sip:as@192.0.2.77:5070;ob;line=7f";
    let dialog = format!("{routes}Contact: <{target}>\r\n");
    let reliable = format!("{dialog}Require: 100rel\r\nRSeq: 4711\r\n");
    let answer = Describe::at(voice.local()).to_string();
    call.answer(ibcf, 183, &reliable, &answer)?;
    let whole_way = |message: &Message, peer: &Peer| -> Result<()> {
        ensure!(message.uri() == target, "{} instead of {target}", message.uri());
        // RFC 3261 12.1.2: the nearest first.
        ensure!(message.all("route") == [near(peer), FAR.to_owned()], "routes {:?}", message.all("route"));
        Ok(())
    };
    let prack = call.next(ibcf, "PRACK")?;
    whole_way(&prack, ibcf)?;
    let acknowledged = format!("4711 {} INVITE", call.invite.cseq().0);
    ensure!(prack.need("rack")? == acknowledged, "RAck {}", prack.need("rack")?);
    ibcf.respond(&prack, 200, "OK", "", "", "")?;
    voice.speak(rtp_of(&call.invite.media()?)?, &[425.0], 20);
    stage.alice_gets("heard")?;
    let ibcf = &mut stage.scripts.ibcf;
    let ack = call.pick_up(ibcf, &dialog, "")?;
    whole_way(&ack, ibcf)?;
    stage.alice_gets("answered")?;
    stage.alice.hang_up()?;
    let bye = call.is_ended(&mut stage.scripts.ibcf)?;
    whole_way(&bye, &stage.scripts.ibcf)?;
    ensure!(stage.record("ibcf")?["outcome"] == "success", "not a success");
    Ok(())
}

fn comes_in(stage: &mut Stage) -> Result<()> {
    let ibcf = &mut stage.scripts.ibcf;
    let voice = Voice::open(*ibcf.local().ip())?;
    let extra = format!(
        "Record-Route: {}, {FAR}\r\nRequire: 100rel\r\nSupported: 100rel\r\nP-Asserted-Identity: \"Ann\" <sip:+442079460018@home.example>\r\n\
         Privacy: ID\r\nP-Charging-Vector: icid-value=4711;icid-generated-at=192.0.2.9;orig-ioi=other.example\r\n",
        near(ibcf)
    );
    let uri = format!("sip:{ALICE}@{}", ibcf.gateway());
    let from = "\"Anonymous\" <sip:anonymous@anonymous.invalid>";
    let mut call = Call::out_to(ibcf, &uri, from, &extra, &Describe::at(voice.local()).to_string())?;
    let incoming = stage.alice_gets("incoming")?;
    // RFC 3325 7: nobody outside of the trust learns it, in any letter case.
    ensure!(incoming["private"] == true && incoming["from"].is_null(), "{incoming}");
    ensure!(incoming["display_name"].is_null(), "{incoming}");
    let ibcf = &mut stage.scripts.ibcf;
    let ringing = call.response(ibcf, 1, "INVITE", |status| (101..200).contains(&status))?;
    // RFC 3262 3.
    ensure!(ringing.lists("require", "100rel"), "not reliable: {}", ringing.text);
    ensure!(ringing.all("record-route") == [near(ibcf), FAR.to_owned()], "{:?}", ringing.all("record-route"));
    call.heed(&ringing);
    let rack = format!("RAck: {} 1 INVITE\r\n", ringing.need("rseq")?);
    let mut dialog = call.clone();
    let answer = dialog.ask(ibcf, "PRACK", &rack, "")?;
    ensure!(answer.status() == Some(200), "PRACK: {}", answer.start);
    stage.alice_answers()?;
    let ibcf = &mut stage.scripts.ibcf;
    let answer = call.response(ibcf, 1, "INVITE", |status| status >= 200)?;
    ensure!(answer.status() == Some(200), "{}", answer.start);
    call.acknowledge(ibcf, "")?;
    stage.alice_gets("media_up")?;
    stage.alice.hang_up()?;
    let bye = call.is_ended(&mut stage.scripts.ibcf)?;
    // RFC 3261 12.1.1: the callee keeps the order.
    let ibcf = &stage.scripts.ibcf;
    ensure!(bye.all("route") == [near(ibcf), FAR.to_owned()], "routes {:?}", bye.all("route"));
    ensure!(bye.uri() == ibcf.contact(), "{}", bye.uri());
    let record = stage.record("ibcf")?;
    ensure!(record["outcome"] == "success", "{record}");
    Ok(())
}

fn withheld(stage: &mut Stage) -> Result<()> {
    stage.alice_calls_hidden("+15550300019")?;
    let ibcf = &mut stage.scripts.ibcf;
    let call = Call::comes_in(ibcf)?;
    let invite = &call.invite;
    // RFC 3323 4.1, RFC 3325 7.
    ensure!(invite.need("from")?.contains("anonymous@anonymous.invalid"), "{}", invite.need("from")?);
    ensure!(
        invite.need("privacy")?.split(';').any(|value| value.trim() == "id"),
        "{}",
        invite.need("privacy")?
    );
    ensure!(invite.need("p-asserted-identity")?.contains(ALICE), "{}", invite.text);
    let contact = invite.contact().context("no Contact")?;
    ensure!(!contact.contains("15550009001"), "the Contact shows it: {contact}");
    call.refuse(ibcf, 433, "")?;
    let ended = stage.alice_gets("ended")?;
    ensure!(ended["sip_status"] == 433, "{ended}");
    stage.record("ibcf")?;
    Ok(())
}

// RFC 3262 3: a PRACK that fits no response is 481, and the response is repeated until one does.
fn unknown_prack(stage: &mut Stage) -> Result<()> {
    let ibcf = &mut stage.scripts.ibcf;
    let voice = Voice::open(*ibcf.local().ip())?;
    let extra = "Require: 100rel\r\nSupported: 100rel\r\n";
    let mut call = Call::out(ibcf, ALICE, "+442079460018", extra, &Describe::at(voice.local()).to_string())?;
    stage.alice_gets("incoming")?;
    let ibcf = &mut stage.scripts.ibcf;
    let ringing = call.response(ibcf, 1, "INVITE", |status| (101..200).contains(&status))?;
    call.heed(&ringing);
    let number: u32 = ringing.need("rseq")?.parse()?;
    let mut dialog = call.clone();
    let answer = dialog.ask(ibcf, "PRACK", &format!("RAck: {} 1 INVITE\r\n", number + 7), "")?;
    ensure!(answer.status() == Some(481), "{}", answer.start);
    let answer = dialog.ask(ibcf, "PRACK", &format!("RAck: {number} 1 INVITE\r\n"), "")?;
    ensure!(answer.status() == Some(200), "{}", answer.start);
    stage.alice.command(&serde_json::json!({ "command": "reject", "cause": 21 }))?;
    let refusal = call.is_refused(&mut stage.scripts.ibcf)?;
    ensure!(refusal.status().is_some_and(|status| status >= 400), "{}", refusal.start);
    stage.alice_gets("ended")?;
    Ok(())
}
