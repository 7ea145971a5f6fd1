//! Row E17: calls for help, as they go out.

use std::sync::Arc;

use call_model::Caller;
use sip_trunk::trunk::details::CallDetails;
use sip_trunk::trunk::emergency::{EmergencyCall, EmergencyForm, EmergencyService};
use sip_trunk::trunk::location::{CivicAddress, Location, Point};
use sip_trunk::{Command, CommandError, Event, LargeRequests, TrunkConfig};

use crate::dialogs::{assert_clean, release};
use crate::identity::{invite_with, lab};
use crate::net::{A_RTP, call_id, caller, media, number, trunk_name};
use crate::raw::{CONTACT, Lab, SDP, header, headers, reply};

fn emergency(dialled: &str) -> CallDetails {
    CallDetails { emergency: Some(Box::new(EmergencyCall::new(dialled))), ..CallDetails::default() }
}

// RFC 6881 ED-7, RFC 3261 20.26.
#[test]
fn e17_an_emergency_call_goes_out_as_dialled_whatever_the_trunk_may_carry() {
    let mut lab = lab(|trunk| trunk.max_calls = 0);
    lab.command(0, Command::Drain { on: true });
    let invite = invite_with(&mut lab, caller("+12025550100"), emergency("112"));
    assert!(invite.starts_with("INVITE sip:112@10.0.0.2"), "{invite}");
    assert!(header(&invite, "To").starts_with("<sip:112@"));
    assert_eq!(headers(&invite, "Priority"), ["emergency"]);
    let command = |dialled: &str| Command::InviteWith {
        call: call_id(78),
        trunk: trunk_name("far"),
        called: number("+112"),
        caller: Caller::default(),
        media: media(A_RTP),
        details: Arc::new(emergency(dialled)),
    };
    assert_eq!(lab.try_command(0, command("1>2")), Err(CommandError::Unusable));
    let mut plain = command("");
    if let Command::InviteWith { details, .. } = &mut plain {
        Arc::make_mut(details).emergency = None;
    }
    assert_eq!(lab.try_command(0, plain), Err(CommandError::Draining));
}

/// Somewhere that an element cannot hold as it stands.
fn nowhere(name: &str) -> CallDetails {
    let civic = [("NAM", name), ("A1", "Berlin"), ("HNO", "1")];
    let civic = CivicAddress::new("DE", Some("de"), civic).unwrap();
    let location = Location::new(Some(civic), Some(Point::new(52.5307, 13.3832, 25).unwrap())).unwrap();
    let service = EmergencyService::parse("sos.police").unwrap();
    let call = EmergencyCall { dialled: "110".to_owned(), service, location: Some(Arc::new(location)) };
    CallDetails { emergency: Some(Box::new(call)), ..CallDetails::default() }
}

/// A lab whose trunk takes large requests in datagrams, each of which is one message.
fn over_udp(change: impl FnOnce(&mut TrunkConfig)) -> Lab {
    lab(|trunk| {
        trunk.large_requests = LargeRequests::AllowUdp;
        change(trunk);
    })
}

/// Takes a multipart body apart as RFC 2046 5.1.1 says: heads and contents.
fn parts(message: &str) -> Vec<(String, String)> {
    let kind = header(message, "Content-Type");
    let boundary = kind.strip_prefix("multipart/mixed;boundary=").unwrap_or_else(|| panic!("{kind}"));
    let body = message.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(header(message, "Content-Length"), body.len().to_string());
    let delimiter = format!("--{boundary}");
    let (before, rest) = body.split_once(&format!("{delimiter}\r\n")).unwrap();
    let (inside, after) = rest.split_once(&format!("\r\n{delimiter}--")).unwrap();
    assert_eq!((before, after.trim()), ("", ""));
    let between = format!("\r\n{delimiter}\r\n");
    let parts = inside.split(&between);
    let parts = parts.map(|part| part.split_once("\r\n\r\n").unwrap());
    let parts: Vec<_> =
        parts.map(|(head, content)| (format!("\r\n{head}\r\n"), content.to_owned())).collect();
    assert!(parts.iter().all(|(head, content)| !head.contains(boundary) && !content.contains(boundary)));
    parts
}

/// Reads a document far enough to know that its elements close in the order in which they open, and returns
/// their names with what stands in them directly.
fn elements(document: &str) -> Vec<(String, String)> {
    let mut rest = document.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>").unwrap();
    let (mut open, mut found): (Vec<usize>, Vec<(String, String)>) = (Vec::new(), Vec::new());
    while let Some((text, tag)) = rest.split_once('<') {
        assert!(!text.contains('>'), "{text}");
        if let Some(&at) = open.last() {
            found[at].1.push_str(text.trim());
        }
        let (tag, after) = tag.split_once('>').unwrap();
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(found[open.pop().unwrap()].0, name),
            None => {
                open.push(found.len());
                found.push((tag.split_whitespace().next().unwrap().to_owned(), String::new()));
            }
        }
        rest = after;
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{document}");
    found
}

// RFC 5031 3, RFC 6442 3.1 and 4.2, RFC 6881 ED-62, RFC 5621 4, RFC 5491 3.4.
#[test]
fn e17_a_trunk_of_its_own_gets_the_urn_of_the_service_and_the_location() {
    let name = "Müller & \"Söhne\" <3. OG> ]]>--boundary";
    let mut lab = over_udp(|trunk| trunk.emergency = EmergencyForm::Service);
    let invite = invite_with(&mut lab, caller("+12025550100"), nowhere(name));
    assert!(invite.starts_with("INVITE urn:service:sos.police SIP/2.0\r\n"), "{invite}");
    assert_eq!(header(&invite, "To"), "<urn:service:sos.police>");
    assert_eq!(headers(&invite, "Route"), ["<sip:10.0.0.2;lr>"]);
    assert_eq!(headers(&invite, "Geolocation-Routing"), ["yes"]);
    assert_eq!(headers(&invite, "Priority"), ["emergency"]);
    let pointer = header(&invite, "Geolocation");
    let id = pointer.strip_prefix("<cid:").unwrap().strip_suffix('>').unwrap();

    let parts = parts(&invite);
    let [(description, sdp), (about, document)] = &parts[..] else { panic!("{parts:?}") };
    assert_eq!(header(description, "Content-Type"), "application/sdp");
    assert!(sdp.starts_with("v=0\r\n") && sdp.contains("\r\nm=audio "), "{sdp}");
    assert_eq!(header(about, "Content-Type"), "application/pidf+xml");
    assert_eq!(header(about, "Content-ID"), format!("<{id}>"));
    assert_eq!(header(about, "Content-Disposition"), "by-reference;handling=optional");

    let elements = elements(document);
    let said = |name: &str| -> Vec<&str> {
        elements.iter().filter(|(known, _)| known == name).map(|(_, text)| text.as_str()).collect()
    };
    assert_eq!(said("ca:country"), ["DE"]);
    assert_eq!(said("ca:NAM"), ["Müller &amp; &quot;Söhne&quot; &lt;3. OG&gt; ]]&gt;--boundary"]);
    assert_eq!((said("gml:pos"), said("gs:radius")), (vec!["52.5307 13.3832"], vec!["25"]));
    assert_eq!(said("gp:geopriv").len(), said("dm:device").len());
    assert_eq!(said("gbp:retransmission-allowed"), ["true", "true"]);
    assert!(document.contains("entity=\"pres:+12025550100@10.0.0.1\""), "{document}");

    // The call itself is one like any other.
    lab.tell(&reply(&invite, 200, "peer", CONTACT, SDP));
    assert!(lab.take(0).iter().any(|event| matches!(event, Event::Answered { .. })));
    release(&mut lab, call_id(77));
    assert_clean(&mut lab);
}

// RFC 6442 4.4, RFC 3261 21.4.13: what a trunk does not understand of a call for help does not stop it.
#[test]
fn e17_a_trunk_that_does_not_take_the_location_gets_the_call_without() {
    for refusal in [415, 424] {
        let mut lab = over_udp(|_| {});
        let invite = invite_with(&mut lab, caller("+12025550100"), nowhere("x"));
        assert!(invite.starts_with("INVITE sip:110@10.0.0.2"), "as dialled: {invite}");
        assert_eq!(parts(&invite).len(), 2);
        let told = lab.tell(&reply(&invite, refusal, "peer", "", ""));
        let again = told.iter().find(|message| message.starts_with("INVITE ")).unwrap();
        assert_eq!(header(again, "Content-Type"), "application/sdp");
        assert!(headers(again, "Geolocation").is_empty() && headers(again, "Geolocation-Routing").is_empty());
        assert_eq!(headers(again, "Priority"), ["emergency"]);
        // Once: a trunk that still does not take it refuses the call.
        lab.tell(&reply(again, refusal, "other", "", ""));
        assert!(lab.take(0).iter().any(|event| matches!(event, Event::Ended { .. })), "{refusal}");
        assert_clean(&mut lab);
    }
}

// RFC 3261 13.2.1: an INVITE without an offer carries the location alone.
#[test]
fn e17_a_call_without_an_offer_carries_the_location_alone() {
    let mut lab = over_udp(|trunk| trunk.delayed_offer = true);
    let invite = invite_with(&mut lab, Caller::default(), nowhere("x"));
    let parts = parts(&invite);
    assert_eq!(parts.len(), 1);
    assert_eq!(header(&parts[0].0, "Content-Type"), "application/pidf+xml");
    assert!(parts[0].1.contains("entity=\"pres:anonymous@"), "{}", parts[0].1);
}
