//! What Teams Direct Routing does: TLS with certificates of both ends, OPTIONS both ways, several 183, hold as inactive,
//! SRTP with keys in the description.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::lab::{
    peer::{Call, Describe, Media, Message, Voice},
    until,
};

use crate::stage::{ALICE, HEALTH_INTERVAL_S, SOON, Stage};
use crate::{Scenario, Script, beside, in_time, scenario};

pub(crate) const BESIDE: &[Scenario] =
    &[beside("teams", "OPTIONS both ways over TLS, in which both ends show certificates", options)];

pub(crate) const ALL: &[Scenario] = &[
    in_time(
        "teams",
        "several 183 of different telephones; the answer is the second's; keys in the description",
        forks,
    ),
    scenario("teams", "calls in with keys in the description, holds as inactive and takes back", comes_in),
    scenario("teams", "is held as inactive", is_held),
    scenario("teams", "a call without keys is refused with 488", without_keys),
];

/// A key and salt of 30 octets in base64 (RFC 4568 6.1).
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd";

fn crypto(tag: u8) -> String {
    format!("{tag} AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^31")
}

/// The attribute `crypto` of a description must have a suite we know, a key that is not ours, and a tag.
fn tag_of(media: &Media, text: &str) -> Result<u8> {
    ensure!(media.profile == "RTP/SAVP", "{text}");
    let line = media.attribute("crypto").with_context(|| format!("no key in {text}"))?;
    let mut words = line.split(' ');
    let tag = words.next().unwrap_or_default().parse()?;
    ensure!(words.next() == Some("AES_CM_128_HMAC_SHA1_80"), "{line}");
    let key = words.next().and_then(|word| word.strip_prefix("inline:")).unwrap_or_default();
    let key = key.split('|').next().unwrap_or_default();
    ensure!(key.trim_end_matches('=').len() == 40 && key != KEY, "no key of 30 octets: {line}");
    Ok(tag)
}

// RFC 3261 11: each end asks the other whether it lives.
fn options(stage: &mut Stage) -> Result<Script> {
    let mut teams = stage.scripts.health.take().context("it was played already")?;
    let script = move || -> Result<()> {
        teams.answer_options(false);
        for _ in 0..2 {
            let asked = |message: &Message| message.method() == Some("OPTIONS");
            let ping = teams.receive("OPTIONS", Duration::from_secs(3 * HEALTH_INTERVAL_S), asked)?;
            ensure!(ping.need("via")?.starts_with("SIP/2.0/TLS "), "{}", ping.text);
            let contact = ping.contact().context("OPTIONS without Contact")?;
            // Teams knows whose OPTIONS they are by the name in it.
            ensure!(contact == "sip:sbc.example.com:5061;transport=tls", "{contact}");
            teams.respond(&ping, 200, "OK", "teams", "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS\r\n", "")?;
        }
        let (via, id, gateway) = (teams.via(), teams.word(), teams.gateway());
        let text = format!(
            "OPTIONS sip:{gateway};transport=tls SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: <sip:teams.example.com>;tag=a\r\n\
             To: <sip:{gateway}>\r\nCall-ID: {id}\r\nCSeq: 1 OPTIONS\r\nContact: <{}>\r\nContent-Length: 0\r\n\r\n",
            teams.contact()
        );
        teams.send(text)?;
        let answer = teams.receive("answer to OPTIONS", SOON, |message| {
            message.status().is_some() && message.header("call-id") == Some(id.as_str())
        })?;
        ensure!(answer.status() == Some(200) && answer.lists("allow", "INVITE"), "{}", answer.text);
        Ok(())
    };
    let thread = thread::Builder::new().name("health".to_owned()).spawn(script)?;
    let judge = |stage: &mut Stage| {
        until("the trunk is up", SOON, || {
            let trunks = stage.gateway.json("/v1/trunks").ok()?;
            let ours = trunks["trunks"].as_array()?.iter().find(|trunk| trunk["name"] == "teams-health")?;
            (ours["state"] == "up").then_some(())
        })
    };
    Ok(Script { thread, judge })
}

fn forks(stage: &mut Stage) -> Result<()> {
    stage.alice_calls("+15550500018")?;
    let teams = &mut stage.scripts.teams;
    let mut call = Call::comes_in(teams)?;
    ensure!(call.invite.uri().contains("user=phone"), "{}", call.invite.start);
    ensure!(call.invite.contact().is_some_and(|uri| uri.contains("sbc.example.com")), "{}", call.invite.text);
    let tag = tag_of(&call.invite.media()?, &call.invite.body)?;
    let (one, two) = (Voice::open(*teams.local().ip())?, Voice::open(*teams.local().ip())?);
    let describe = |voice: &Voice| Describe::at(voice.local()).protected(&crypto(tag)).to_string();
    let other = teams.word();
    call.answer(teams, 183, "", &describe(&one))?;
    call.answer_as(teams, &other, 183, "", &describe(&two))?;
    stage.alice_gets("early")?;
    let teams = &mut stage.scripts.teams;
    call.continue_as(&other);
    call.answer(teams, 200, "", &describe(&two))?;
    call.acknowledged(teams)?;
    stage.alice_gets("answered")?;
    // SRTP goes where the answer says: something comes to the second telephone, and no plain A-law.
    until("packets for the second telephone", SOON, || (two.heard().packets > 20).then_some(()))?;
    one.forget();
    thread::sleep(Duration::from_millis(300));
    ensure!(one.heard().packets == 0, "the first telephone still gets packets");
    // Ten octets of authentication (RFC 4568 6.2.1).
    ensure!(two.heard().lengths.iter().all(|length| *length == 170), "{:?}", two.heard().lengths);
    stage.alice.hang_up()?;
    call.is_ended(&mut stage.scripts.teams)?;
    ensure!(stage.record("teams")?["outcome"] == "success", "not a success");
    Ok(())
}

fn comes_in(stage: &mut Stage) -> Result<()> {
    let teams = &mut stage.scripts.teams;
    let voice = Voice::open(*teams.local().ip())?;
    let mut description = Describe::at(voice.local()).protected(&crypto(7));
    let mut call = Call::out(teams, ALICE, "+15550500001", "", &description.to_string())?;
    stage.alice_gets("incoming")?;
    stage.alice_answers()?;
    let (_, answer) = call.is_answered(&mut stage.scripts.teams, "")?;
    // RFC 4568 5.1.2: the tag of what was chosen.
    ensure!(tag_of(&answer.media()?, &answer.body)? == 7, "{}", answer.body);
    for (direction, on) in [("inactive", true), ("sendrecv", false)] {
        description = description.directed(direction);
        let answer = call.ask(&mut stage.scripts.teams, "INVITE", "", &description.to_string())?;
        let media = answer.media()?;
        ensure!(media.direction() == direction && tag_of(&media, &answer.body)? == 7, "{}", answer.body);
        let hold = stage.alice_gets("hold")?;
        ensure!(hold["on"] == on && hold["by"] == "far", "{hold}");
    }
    call.hang_up(&mut stage.scripts.teams, "")?;
    stage.alice_gets("ended")?;
    ensure!(stage.record("teams")?["outcome"] == "success", "not a success");
    Ok(())
}

fn is_held(stage: &mut Stage) -> Result<()> {
    stage.alice_calls("+15550500020")?;
    let teams = &mut stage.scripts.teams;
    let call = Call::comes_in(teams)?;
    let tag = tag_of(&call.invite.media()?, &call.invite.body)?;
    let voice = Voice::open(*teams.local().ip())?;
    let mut description = Describe::at(voice.local()).protected(&crypto(tag));
    call.pick_up(teams, "", &description.to_string())?;
    stage.alice_gets("answered")?;
    stage.alice_gets("media_up")?;
    for (on, direction) in [(true, "inactive"), (false, "sendrecv")] {
        stage.alice.command(&json!({ "command": "hold", "on": on }))?;
        let teams = &mut stage.scripts.teams;
        let change = call.next(teams, "INVITE")?;
        ensure!(change.media()?.direction() == direction, "{}", change.body);
        description = description.directed(direction);
        teams.respond(&change, 200, "OK", "", "", &description.to_string())?;
        call.next(teams, "ACK")?;
    }
    stage.alice.hang_up()?;
    call.is_ended(&mut stage.scripts.teams)?;
    ensure!(stage.record("teams")?["outcome"] == "success", "not a success");
    Ok(())
}

fn without_keys(stage: &mut Stage) -> Result<()> {
    let teams = &mut stage.scripts.teams;
    let voice = Voice::open(*teams.local().ip())?;
    let plain = Describe::at(voice.local()).to_string();
    let mut call = Call::out(teams, ALICE, "+15550500001", "", &plain)?;
    let refusal = call.is_refused(teams)?;
    ensure!(refusal.status() == Some(488), "{}", refusal.start);
    Ok(())
}
