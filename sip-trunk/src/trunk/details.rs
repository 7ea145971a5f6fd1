//! What an INVITE says of a call beside who calls whom: diversions, number portability, trunk
//! groups, priority and charging.

use call_model::Caller;

use super::config::TrunkConfig;
use super::diversion::{Diversion, read_diversions, write_diversions};
use super::emergency::EmergencyCall;
use super::identity::{CallerHeaders, PrivacyWish, hides_history, read_caller};
use super::parameters::{NumberParameters, TrunkGroup, originating_group};
use crate::referral::Referral;
use crate::text;
use crate::wire::message::{Head, Name};

/// Most values of Resource-Priority that are kept.
const PRIORITIES_MAX: usize = 8;

/// The longest identifier of a charging vector that is kept.
const ICID_MAX: usize = 128;

/// What goes with a call. Everything may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallDetails {
    /// The user part that is called, as it is dialled at the trunk, where the called address is not what it
    /// is to be told: an extension of a PBX such as `200`.
    pub called_user: Option<String>,
    /// The parameters of the called number.
    pub parameters: NumberParameters,
    /// The trunk group the call came over: of Contact (RFC 4904 5), or `otg` of From.
    pub originating_group: Option<TrunkGroup>,
    /// For whom the call was meant, the latest first. From trusted trunks only.
    pub diversions: Vec<Diversion>,
    /// What the caller said of privacy beside wanting it.
    pub privacy: PrivacyWish,
    /// Values of Resource-Priority (RFC 4412), such as `ets.0`. Between trusted trunks only.
    pub priorities: Vec<String>,
    /// The charging vector (RFC 7315 4.6). Between networks only.
    pub charging: Option<Box<ChargingVector>>,
    /// The transfer that brought the call about.
    pub referral: Option<Box<Referral>>,
    /// How many hops the call may still go (RFC 3261 8.1.1.6). One that came over a trunk leaves by
    /// another with one less, so that a loop through several networks ends (RFC 7332 4).
    pub max_forwards: Option<u8>,
    /// A call for help. Neither limits of the trunk nor draining stop it.
    pub emergency: Option<Box<EmergencyCall>>,
    /// Who is connected, where the far side said so since (RFC 4916, RFC 5876). From trusted
    /// trunks only.
    pub connected: Option<Caller>,
}

/// Marks a trunk that leads to another network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interconnect {
    /// Our name there: `orig-ioi` of what we send (RFC 7315 4.6).
    pub operator: Option<String>,
}

/// P-Charging-Vector (RFC 7315 4.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChargingVector {
    /// `icid-value`: the name of the call in the records of all networks.
    pub icid: String,
    /// `icid-generated-at`.
    pub generated_at: Option<String>,
    /// `orig-ioi`: the network the call comes from.
    pub originating: Option<String>,
    /// `term-ioi`: the network the call goes to.
    pub terminating: Option<String>,
}

impl ChargingVector {
    /// Reads a value. `None` without an identifier.
    pub fn parse(header: &str) -> Option<Self> {
        let mut vector = Self::default();
        for (name, value) in text::split(header, ';').filter_map(|p| p.split_once('=')) {
            let value: String = text::printable(&text::unquote(value)).chars().take(ICID_MAX).collect();
            let value = Some(value).filter(|v| !v.is_empty());
            match name.trim().to_ascii_lowercase().as_str() {
                "icid-value" => vector.icid = value.unwrap_or_default(),
                "icid-generated-at" => vector.generated_at = value,
                "orig-ioi" => vector.originating = value,
                "term-ioi" => vector.terminating = value,
                _ => {}
            }
        }
        (!vector.icid.is_empty()).then_some(vector)
    }

    /// Writes the value.
    pub fn write(&self) -> String {
        let written = |value: &str| {
            if value.bytes().all(text::is_token) { value.to_owned() } else { text::quote(value) }
        };
        let mut out = format!("icid-value={}", written(&self.icid));
        let rest = [
            ("icid-generated-at", &self.generated_at),
            ("orig-ioi", &self.originating),
            ("term-ioi", &self.terminating),
        ];
        for (name, value) in rest {
            if let Some(value) = value {
                out.push_str(&format!(";{name}={}", written(value)));
            }
        }
        out
    }
}

impl CallDetails {
    /// Reads the details of an INVITE for the URI `called`. `icid` names the call if another network did not.
    pub(crate) fn of_invite(
        head: &Head,
        called: &str,
        config: &TrunkConfig,
        icid: impl FnOnce() -> String,
    ) -> Self {
        let contact = head.contact_uri().map(|uri| NumberParameters::of_uri(&uri));
        let originating = contact.and_then(|c| c.trunk_group).or_else(|| originating_group(&head.from.value));
        let mut details = Self {
            parameters: NumberParameters::of_uri(called),
            originating_group: originating,
            privacy: PrivacyWish::read(&head.texts(&Name::Privacy)),
            referral: Referral::of_invite(head).map(Box::new),
            max_forwards: Some(u8::try_from(head.max_forwards()).unwrap_or(u8::MAX)),
            ..Self::default()
        };
        if config.trusted {
            details.diversions = read_diversions(
                &head.texts_named("History-Info"),
                &head.texts_named("Diversion"),
                &config.numbers,
            );
            if hides_history(&head.texts(&Name::Privacy)) {
                details.diversions.iter_mut().for_each(|d| d.privacy = true);
            }
            details.priorities = priorities(&head.texts_named("Resource-Priority"));
        }
        if config.interconnect.is_some() {
            let sent = head.texts_named("P-Charging-Vector");
            let sent = sent.first().filter(|_| config.trusted).and_then(|v| ChargingVector::parse(v));
            details.charging =
                Some(Box::new(sent.unwrap_or_else(|| ChargingVector { icid: icid(), ..Default::default() })));
        }
        details
    }

    /// Writes the header lines of an INVITE to `target`.
    pub(crate) fn lines(
        &self,
        config: &TrunkConfig,
        target: &str,
        host: &str,
        icid: impl FnOnce() -> String,
    ) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        lines.extend(write_diversions(
            &self.diversions,
            config.diversion,
            target,
            &config.numbers,
            host,
            config.trusted,
        ));
        lines.extend(self.referral.as_deref().map(Referral::lines).unwrap_or_default());
        // RFC 3261 20.26.
        if self.emergency.is_some() {
            lines.push(("Priority", "emergency".to_owned()));
        }
        // RFC 4412 3.1: a priority counts for those who trust each other.
        let priorities: Vec<_> =
            self.priorities.iter().filter(|p| is_priority(p)).take(PRIORITIES_MAX).collect();
        if config.trusted && !priorities.is_empty() {
            let values = priorities.iter().map(|p| p.as_str()).collect::<Vec<_>>();
            lines.push(("Resource-Priority", values.join(", ")));
        }
        // RFC 7315 4.6: between networks, and nowhere else.
        if let Some(interconnect) = &config.interconnect {
            let mut vector = self.charging.as_deref().cloned().unwrap_or_else(|| ChargingVector {
                icid: icid(),
                generated_at: Some(host.to_owned()),
                ..Default::default()
            });
            if interconnect.operator.is_some() {
                vector.originating.clone_from(&interconnect.operator);
            }
            // Each network names itself in its answer.
            vector.terminating = None;
            lines.push(("P-Charging-Vector", vector.write()));
        }
        lines
    }

    /// Says whether the call has already been diverted by whom it is for now.
    pub fn is_loop(&self, called: &call_model::Address) -> bool {
        self.diversions.iter().any(|d| d.number.as_ref() == Some(called))
    }
}

/// Reads who is connected out of a 2xx, a re-INVITE or an UPDATE (RFC 5876).
pub(crate) fn connected(head: &Head, config: &TrunkConfig) -> Option<Caller> {
    if !config.trusted {
        return None;
    }
    let (asserted, party) = (head.list(&Name::PAssertedIdentity), head.texts_named("Remote-Party-ID"));
    if asserted.is_empty() && party.is_empty() {
        return None;
    }
    let privacy = head.texts(&Name::Privacy);
    let headers = CallerHeaders {
        from: "",
        asserted: asserted.iter().map(String::as_str).collect(),
        remote_party: party.first().map(String::as_str),
        privacy: privacy.iter().map(String::as_str).collect(),
        ..CallerHeaders::default()
    };
    let mut caller = read_caller(&headers, true, &config.numbers);
    // There is no From here to be anonymous.
    caller.private = super::identity::wants_privacy(&headers);
    caller.address.is_some().then_some(caller)
}

fn priorities(lines: &[String]) -> Vec<String> {
    let values = lines.iter().flat_map(|line| text::split(line, ','));
    values.filter(|v| is_priority(v)).take(PRIORITIES_MAX).map(str::to_owned).collect()
}

/// `namespace.priority`, each a token without a dot (RFC 4412 3.1).
fn is_priority(value: &str) -> bool {
    let part = |p: &str| !p.is_empty() && !p.contains('.') && p.bytes().all(text::is_token);
    value.len() <= 64 && value.split_once('.').is_some_and(|(namespace, rest)| part(namespace) && part(rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// RFC 7315 4.6.
    #[test]
    fn charging_vectors_are_read_and_written() {
        let text = "icid-value=\"1234 bc\";icid-generated-at=192.0.6.8;orig-ioi=home1.net;foo=x";
        let vector = ChargingVector::parse(text).unwrap();
        assert_eq!((vector.icid.as_str(), vector.originating.as_deref()), ("1234 bc", Some("home1.net")));
        assert_eq!(vector.write(), "icid-value=\"1234 bc\";icid-generated-at=192.0.6.8;orig-ioi=home1.net");
        assert_eq!(ChargingVector::parse("orig-ioi=home1.net"), None);
    }

    /// RFC 4412 3.1.
    #[test]
    fn priorities_are_tokens() {
        let got = priorities(&["ets.0, wps.1".into(), "x, .y, z., a.b.c, q735.3".into()]);
        assert_eq!(got, ["ets.0", "wps.1", "q735.3"]);
    }

    proptest! {
        #[test]
        fn rubbish_is_survived(a in ".{0,99}") {
            prop_assert!(priorities(std::slice::from_ref(&a)).len() <= PRIORITIES_MAX);
            if let Some(vector) = ChargingVector::parse(&a) {
                prop_assert!(!vector.write().contains(['\r', '\n']));
            }
        }
    }
}
