//! A trunk that means no good, or is broken in ways that look like it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tests::lab::{
    peer::{Call, Describe, Message, Peer, Voice},
    until,
};

use crate::stage::{ALICE, SOON, Stage};
use crate::{Scenario, scenario};

pub(crate) const ALL: &[Scenario] = &[
    scenario("hostile", "says nothing: the caller hears so in time, and no CANCEL is sent", silent),
    scenario(
        "hostile",
        "a storm of 503: each is acknowledged once, nothing is repeated, then a call goes through",
        storm,
    ),
    scenario("hostile", "malformed requests get 400 or nothing, and the next request is heard", malformed),
    scenario("hostile", "malformed answers to our INVITE are passed over", malformed_answers),
    scenario("hostile", "lines hidden in names, numbers and reasons reach nobody", injection),
    scenario("hostile", "two Content-Lengths, two Call-IDs, two CSeqs are refused", doubled),
    scenario("hostile", "too many bytes and too many headers are refused, by UDP and by TCP", oversized),
];

fn silent(stage: &mut Stage) -> Result<()> {
    stage.alice_calls("+15550600408")?;
    stage.scripts.hostile.request("INVITE")?;
    let ended = stage.alice.wait_for("ended", Duration::from_secs(40))?;
    ensure!(ended["answered"] == false && ended["cause"] == 102, "{ended}");
    // RFC 3261 9.1: nothing is cancelled that never was provisionally answered.
    let hostile = &mut stage.scripts.hostile;
    hostile.nothing("a CANCEL", Duration::from_millis(300), |message| message.method() == Some("CANCEL"))?;
    ensure!(hostile.repetitions() >= 2, "the INVITE was not repeated (RFC 3261 17.1.1.2)");
    let record = stage.record("hostile")?;
    let why = stage.why(&record)?;
    ensure!(record["outcome"] == "indeterminate" && why.contains("no answer to INVITE"), "{record} {why}");
    Ok(())
}

fn storm(stage: &mut Stage) -> Result<()> {
    // What is left of a scenario before.
    stage.scripts.hostile.settle(Duration::from_millis(100))?;
    let before = stage.scripts.hostile.repetitions();
    for _ in 0..12 {
        stage.alice_calls("+15550600503")?;
        let hostile = &mut stage.scripts.hostile;
        let invite = hostile.request("INVITE")?;
        hostile.respond(&invite, 503, "Service Unavailable", "storm", "", "")?;
        hostile.respond(&invite, 503, "Service Unavailable", "storm", "", "")?;
        let ack = hostile.request("ACK")?;
        ensure!(ack.branch() == invite.branch(), "{}", ack.text);
        let ended = stage.alice_gets("ended")?;
        ensure!(ended["sip_status"] == 503, "{ended}");
        stage.record("hostile")?;
    }
    let hostile = &mut stage.scripts.hostile;
    hostile.nothing("an INVITE", Duration::from_millis(200), |message| message.method() == Some("INVITE"))?;
    // Each 503 came twice, so that each ACK did; no INVITE was sent again.
    let repeated = hostile.repetitions() - before;
    ensure!(repeated <= 12, "{repeated} repetitions");
    stage.alice_calls("+15550600200")?;
    let hostile = &mut stage.scripts.hostile;
    let mut call = Call::comes_in(hostile)?;
    let voice = Voice::open(*hostile.local().ip())?;
    call.pick_up(hostile, "", &Describe::at(voice.local()).to_string())?;
    stage.alice_gets("answered")?;
    call.hang_up(&mut stage.scripts.hostile, "")?;
    stage.alice_gets("ended")?;
    ensure!(stage.record("hostile")?["outcome"] == "success", "not a success");
    Ok(())
}

/// A request that is good, to be spoilt.
fn invite(peer: &mut Peer) -> String {
    let (via, id, gateway, local) = (peer.via(), peer.word(), peer.gateway(), peer.local());
    let body = Describe::at(local).to_string();
    format!(
        "INVITE sip:{ALICE}@{gateway} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: \"Eve\" <sip:+15550600001@{local}>;tag=eve\r\n\
         To: <sip:{ALICE}@{gateway}>\r\nCall-ID: {id}\r\nCSeq: 1 INVITE\r\nContact: <sip:eve@{local}>\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The gateway still hears and answers.
fn is_alive(peer: &mut Peer) -> Result<()> {
    let (via, id, gateway) = (peer.via(), peer.word(), peer.gateway());
    peer.send(format!(
        "OPTIONS sip:{gateway} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: <sip:eve@x>;tag=a\r\nTo: <sip:{gateway}>\r\n\
         Call-ID: {id}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    ))?;
    let answer =
        peer.receive("answer to OPTIONS", SOON, |message| message.header("call-id") == Some(id.as_str()))?;
    ensure!(answer.status() == Some(200), "{}", answer.start);
    Ok(())
}

/// Sends a spoilt INVITE. It gets a refusal of 400 to 499, 505 or 513, which is acknowledged, or nothing.
fn is_refused(peer: &mut Peer, what: &str, text: &str) -> Result<Option<u16>> {
    peer.send(text)?;
    // The gateway answers what comes next after what came before.
    is_alive(peer)?;
    let mut status = None;
    let end = Duration::from_millis(20);
    while let Ok(answer) = peer.receive("answer", end, |message| message.status().is_some()) {
        match answer.status() {
            Some(100) => {}
            Some(refused @ (400..500 | 505 | 513)) => {
                status = Some(refused);
                // An answer to what has no From has none either, and no ACK.
                if let ("INVITE", Some(from)) = (answer.cseq().1.as_str(), answer.header("from")) {
                    let (via, id) = (answer.need("via")?, answer.header("call-id").unwrap_or_default());
                    let ack = format!(
                        "ACK sip:{} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {id}\r\nCSeq: {} ACK\r\nContent-Length: 0\r\n\r\n",
                        peer.gateway(),
                        from,
                        answer.header("to").unwrap_or_default(),
                        answer.cseq().0
                    );
                    peer.send(ack)?;
                }
            }
            _ => bail!("{what}: {}", answer.text),
        }
    }
    Ok(status)
}

fn malformed(stage: &mut Stage) -> Result<()> {
    let peer = &mut stage.scripts.hostile;
    let whole = invite(peer);
    let without = |header: &str| -> String {
        let kept = whole.split("\r\n").filter(|line| !line.starts_with(header));
        kept.collect::<Vec<_>>().join("\r\n")
    };
    let spoilt: [(&str, String); 16] = [
        ("no Via", without("Via:")),
        ("no From", without("From:")),
        ("no To", without("To:")),
        ("no Call-ID", without("Call-ID:")),
        ("no CSeq", without("CSeq:")),
        ("a CSeq of another method", whole.replace("1 INVITE", "1 BYE")),
        ("a CSeq too large", whole.replace("CSeq: 1", "CSeq: 4294967296")),
        ("a CSeq that is none", whole.replace("CSeq: 1", "CSeq: -1")),
        ("another version", whole.replacen(" SIP/2.0\r\n", " SIP/7.0\r\n", 1)),
        ("no request URI", whole.replacen(&format!("sip:{ALICE}@{}", peer.gateway()), "", 1)),
        ("a request URI of no scheme", whole.replacen("INVITE sip:", "INVITE ", 1)),
        ("brackets left open", whole.replace("Contact: <sip:eve@", "Contact: <<sip:eve@")),
        ("more body said than sent", whole.replace("Content-Length: ", "Content-Length: 9")),
        ("a body that is no description", whole.replace("v=0", "w=0")),
        ("a port that is none", whole.replace("m=audio ", "m=audio 9")),
        ("hops that are none", whole.replace("Max-Forwards: 70", "Max-Forwards: many")),
    ];
    for (what, text) in &spoilt {
        is_refused(peer, what, text).context(*what)?;
    }
    for (what, bytes) in [
        ("nothing", &b""[..]),
        ("zeros", &[0; 300][..]),
        ("all ones", &[255; 300][..]),
        ("a start line", b"INVITE sip:a@b SIP/2.0\r\n"),
        ("a status line", b"SIP/2.0 200 OK\r\n\r\n"),
        ("another protocol", b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"),
        ("half a character", b"INVITE sip:\xc3@b SIP/2.0\r\nVia: \xff\xfe\r\n\r\n"),
        ("a status of six digits", b"SIP/2.0 200200 OK\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\r\n"),
    ] {
        peer.send(bytes)?;
        is_alive(peer).context(what)?;
    }
    Ok(())
}

// RFC 3261 17.1.3, 18.1.2: what fits no transaction is dropped, whatever it is.
fn malformed_answers(stage: &mut Stage) -> Result<()> {
    stage.alice_calls("+15550600201")?;
    let peer = &mut stage.scripts.hostile;
    let mut call = Call::comes_in(peer)?;
    let good = {
        let invite = &call.invite;
        let line = |name: &str| invite.header(name).unwrap_or_default().to_owned();
        format!(
            "SIP/2.0 200 OK\r\nVia: {}\r\nFrom: {}\r\nTo: {};tag=x\r\nCall-ID: {}\r\nCSeq: {}\r\nContact: <sip:x@{}>\r\nContent-Length: 0\r\n\r\n",
            line("via"),
            line("from"),
            line("to"),
            line("call-id"),
            line("cseq"),
            peer.local()
        )
    };
    for (from, to) in [
        ("SIP/2.0 200", "SIP/2.0 99"),
        ("SIP/2.0 200", "SIP/2.0 700"),
        ("SIP/2.0 200", "SIP/2.0 2OO"),
        ("z9hG4bK", "z9hG4bKother"),
        (" INVITE\r\n", " BYE\r\n"),
        ("Call-ID: ", "Call-ID: not-"),
        ("\r\nVia: ", "\r\nX: "),
        ("Content-Length: 0", "Content-Length: 77"),
    ] {
        peer.send(good.replacen(from, to, 1))?;
    }
    is_alive(peer)?;
    let voice = Voice::open(*peer.local().ip())?;
    call.pick_up(peer, "", &Describe::at(voice.local()).to_string())?;
    stage.alice_gets("answered")?;
    call.hang_up(&mut stage.scripts.hostile, "")?;
    let ended = stage.alice_gets("ended")?;
    ensure!(ended["answered"] == true, "{ended}");
    ensure!(stage.record("hostile")?["outcome"] == "success", "not a success");
    Ok(())
}

fn injection(stage: &mut Stage) -> Result<()> {
    let (peer, evil) = (&mut stage.scripts.hostile, "X-Evil: yes");
    let whole = invite(peer);
    let hidden = [
        "%0d%0aX-Evil:%20yes%0d%0a",
        "%0aX-Evil: yes",
        "\\\r\nX-Evil: yes",
        "\rX-Evil: yes",
        "\0X-Evil: yes",
    ];
    for word in hidden {
        for (from, to) in [
            (format!("INVITE sip:{ALICE}"), format!("INVITE sip:{ALICE}{word}")),
            (format!("To: <sip:{ALICE}"), format!("To: <sip:nobody{word}")),
            ("tag=eve".to_owned(), format!("tag=eve{word}")),
        ] {
            let text =
                whole.replacen(&from, &to, 1).replace("Call-ID: ", &format!("Call-ID: {}-", peer.word()));
            peer.send(text)?;
            is_alive(peer)?;
        }
    }
    // Two that are well formed and ring: a number with lines in it and a name with them.
    let gateway = peer.gateway();
    for from in ["<sip:+1555%0d%0aX-Evil:%20yes@x>", "\"Eve%0d%0aX-Evil: yes\\\r\\\n\" <sip:+15550600001@x>"]
    {
        let voice = Voice::open(*peer.local().ip())?;
        let body = Describe::at(voice.local()).to_string();
        if let Ok(call) = Call::out_to(peer, &format!("sip:{ALICE}@{gateway}"), from, "", &body) {
            is_alive(peer)?;
            drop(call);
        }
    }
    peer.settle(Duration::from_millis(300))?;
    // What it says in a refusal is for the log and the caller.
    stage.alice_calls("+15550600480")?;
    let peer = &mut stage.scripts.hostile;
    let call = Call::comes_in(peer)?;
    call.refuse(
        peer,
        480,
        "Reason: Q.850;cause=18;text=\"a%0d%0aX-Evil: yes\"\r\nWarning: 399 x \"\\\"X-Evil: yes\"\r\n",
    )?;
    stage.alice_gets("ended")?;
    let said = stage.scripts.hostile.received();
    let lines = said.lines().filter(|line| line.trim_start().starts_with(evil)).count();
    ensure!(lines == 0, "{lines} lines of the gateway are the peer's own");
    let events = stage.alice.process().output();
    ensure!(
        !events.lines().any(|line| line.starts_with("X-Evil") || line.contains("\\nX-Evil")),
        "alice got a line"
    );
    let log = stage.gateway.log();
    ensure!(!log.lines().any(|line| line.trim_start().starts_with("X-Evil")), "the log has a line");
    Ok(())
}

// RFC 4475 3.3.8, 3.3.9: a request that says two things is none.
fn doubled(stage: &mut Stage) -> Result<()> {
    let peer = &mut stage.scripts.hostile;
    for header in ["Content-Length", "Call-ID", "CSeq", "From", "To"] {
        let whole = invite(peer);
        let line = whole
            .split("\r\n")
            .find(|line| line.starts_with(&format!("{header}:")))
            .context("no such line")?;
        let other = match header {
            "Content-Length" => "Content-Length: 3".to_owned(),
            "CSeq" => "CSeq: 2 INVITE".to_owned(),
            _ => format!("{header}: <sip:other@x>;tag=other"),
        };
        let text = whole.replacen(line, &format!("{line}\r\n{other}"), 1);
        let status = is_refused(peer, header, &text)?;
        ensure!(status.is_none_or(|status| status == 400), "two {header}: {status:?}");
    }
    let ringing = stage.gateway.json("/v1/calls?live=true&limit=50")?;
    let on = |trunk: &str| {
        ringing["calls"].as_array().is_some_and(|all| all.iter().any(|call| call["trunk"] == trunk))
    };
    ensure!(!on("hostile"), "{ringing}");
    Ok(())
}

fn oversized(stage: &mut Stage) -> Result<()> {
    let peer = &mut stage.scripts.hostile;
    let whole = invite(peer);
    let long =
        whole.replacen("\r\nMax-Forwards", &format!("\r\nX-Long: {}\r\nMax-Forwards", "a".repeat(40_000)), 1);
    is_refused(peer, "a header of 40,000 bytes", &long)?;
    let many =
        whole.replacen("\r\nMax-Forwards", &format!("\r\n{}Max-Forwards", "X-Many: a\r\n".repeat(2000)), 1);
    is_refused(peer, "2000 headers", &many)?;
    let vias = whole.replacen(
        "\r\nMax-Forwards",
        &format!("\r\n{}Max-Forwards", "Via: SIP/2.0/UDP a;branch=z9hG4bK\r\n".repeat(500)),
        1,
    );
    is_refused(peer, "500 Vias", &vias)?;
    // A stream that never comes to an end is closed, or what it holds refused.
    let mut stream = Peer::tcp("stream", peer.local(), peer.gateway())?;
    for (what, text) in [
        (
            "a body of 10 MB said",
            whole.replacen("/UDP ", "/TCP ", 1).replace("Content-Length: ", "Content-Length: 10000"),
        ),
        ("a header without end", format!("OPTIONS sip:a@b SIP/2.0\r\nX: {}", "a".repeat(400_000))),
    ] {
        // The gateway may close before all is sent.
        let _ = stream.send(&text);
        let refused = |message: &Message| message.status().is_some_and(|status| status >= 400);
        until(what, SOON, || {
            let answered = stream.receive("refusal", Duration::from_millis(50), refused).is_ok();
            (answered || !stream.is_connected()).then_some(())
        })?;
        stream.disconnect();
        is_alive(&mut stage.scripts.hostile).context(what)?;
    }
    Ok(())
}
