//! PBXs and phones that register at the gateway (node 0), written by hand.

use sip_trunk::auth::{Credentials, Secret, parse_challenges, respond};
use sip_trunk::{AccountConfig, AccountSecret, AccountStatus, EndpointConfig, TrunkState};

use crate::net::{address, trunk_name};
use crate::raw::{Ask, Lab, headers, status};

pub const PHONE: &str = "10.0.0.3:5060";
pub const PASSWORD: &str = "open sesame";

/// An account `200` with the trunk `desk`.
pub fn account() -> AccountConfig {
    let secret = AccountSecret::Password(Secret::new(PASSWORD));
    AccountConfig::new("200", "gw.example", secret, trunk_name("desk"))
}

/// A gateway with that account, and a phone as node 2.
pub fn lab() -> Lab {
    lab_with(|_| {})
}

pub fn lab_with(change: impl FnOnce(&mut EndpointConfig)) -> Lab {
    let mut lab = Lab::with(|config| {
        config.accounts.push(account());
        change(config);
    });
    lab.net.add_raw(address(PHONE));
    lab
}

/// A REGISTER of the phone, with its contact.
pub fn register() -> Ask {
    let mut ask = Ask::new("REGISTER");
    ask.uri = "sip:gw.example".to_owned();
    ask.via = "SIP/2.0/UDP 10.0.0.3:5060;branch=z9hG4bKr1;rport".to_owned();
    ask.from = "<sip:200@gw.example>;tag=phone".to_owned();
    ask.to = "<sip:200@gw.example>".to_owned();
    ask.call_id = "reg1@10.0.0.3".to_owned();
    ask.lines = "Contact: <sip:line1@192.168.1.7:5080>\r\n".to_owned();
    ask
}

/// An INVITE of the phone to `sip:alice@gateway`.
pub fn invite() -> Ask {
    let mut ask = Ask::invite();
    ask.uri = "sip:alice@gw.example".to_owned();
    ask.via = "SIP/2.0/UDP 10.0.0.3:5060;branch=z9hG4bKi1;rport".to_owned();
    ask.from = "<sip:200@gw.example>;tag=phone".to_owned();
    ask.to = "<sip:alice@gw.example>".to_owned();
    ask.call_id = "call1@10.0.0.3".to_owned();
    ask.lines = "Contact: <sip:line1@192.168.1.7:5080>\r\n".to_owned();
    ask
}

/// The same request as another transaction.
pub fn again(ask: &Ask, cseq: u32) -> Ask {
    let mut ask = Ask { cseq, ..ask.clone() };
    let (head, _) = ask.via.split_once("branch=").unwrap();
    ask.via = format!("{head}branch=z9hG4bK{}{cseq}{};rport", ask.method, ask.call_id.replace('@', "-"));
    ask
}

/// Answers the strongest challenge of a 401.
pub fn credentials(challenged: &str, ask: &Ask, user: &str, password: &str, count: u32) -> String {
    let values = headers(challenged, "WWW-Authenticate");
    let challenge = parse_challenges(values.iter().map(String::as_str)).remove(0);
    let who = Credentials { username: user.to_owned(), password: Secret::new(password), realm: None };
    let body = ask.body.as_bytes();
    let value = respond(&who, &challenge, &ask.method, &ask.uri, body, count, "c0ffee");
    format!("Authorization: {value}")
}

/// Sends from a node; returns what came back there.
pub fn send(lab: &mut Lab, node: usize, ask: &Ask) -> Vec<String> {
    let to = lab.gateway;
    lab.say(node, to, &ask.text());
    lab.run_ms(20);
    lab.inbox(node)
}

/// Sends from a node and answers the challenge. Returns the request that was sent last and what came
/// back.
pub fn authenticated(lab: &mut Lab, node: usize, ask: &Ask) -> (Ask, Vec<String>) {
    authenticated_as(lab, node, ask, "200", PASSWORD)
}

pub fn authenticated_as(
    lab: &mut Lab,
    node: usize,
    ask: &Ask,
    user: &str,
    password: &str,
) -> (Ask, Vec<String>) {
    let challenged = send(lab, node, ask).pop().expect("no answer");
    assert_eq!(status(&challenged), 401, "{challenged}");
    let second = again(ask, ask.cseq + 1);
    let second = second.clone().line(&credentials(&challenged, &second, user, password, 1));
    let got = send(lab, node, &second);
    (second, got)
}

/// Registers from a node; returns the answer.
pub fn registered(lab: &mut Lab, node: usize, ask: &Ask) -> String {
    authenticated(lab, node, ask).1.pop().expect("no answer")
}

/// What is registered on the trunk `desk`.
pub fn desk(lab: &mut Lab) -> (TrunkState, AccountStatus) {
    let status = lab.endpoint(0).trunk_status();
    let desk = status.iter().find(|t| t.name == trunk_name("desk")).unwrap();
    (desk.state, desk.account.clone().unwrap())
}

/// The URIs that are registered, the latest first.
pub fn contacts(lab: &mut Lab) -> Vec<String> {
    desk(lab).1.contacts.into_iter().map(|c| c.uri).collect()
}
