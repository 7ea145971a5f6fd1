//! Interop profiles: how a kind of peer likes its SIP, as data.
//!
//! A profile is a set of switches. [`TrunkConfig::with_profile`](super::TrunkConfig::with_profile)
//! takes over those that have a place in the endpoint, and [`Profile::explain`] says of each what it
//! is, why, and whether it is honoured.

mod shipped;

use std::fmt;
use std::time::Duration;

use call_model::Codec;

use super::config::{AnswerChange, HoldForm};
use super::diversion::DiversionHeader;
use super::identity::{CliSource, IdentityHeader, PrivacyForm};
use super::numbers::NumberFormat;
use super::referral::{RedirectPolicy, Replacing};
use super::retry::is_last_word;

/// Off, if the peer wants it, or nothing without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Never.
    #[default]
    Off,
    /// Offered, and used if the peer does too.
    Preferred,
    /// No call without it.
    Required,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Level::Off => "off",
            Level::Preferred => "preferred",
            Level::Required => "required",
        }
    }
}

/// Who refreshes a session (RFC 4028).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refresher {
    /// Whoever the peer says; we do not ask for a timer.
    #[default]
    AsAsked,
    /// We do.
    Gateway,
    /// The peer does.
    Peer,
}

/// How digits travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dtmf {
    /// Telephone events in RTP (RFC 4733).
    #[default]
    Events,
    /// INFO.
    Info,
    /// Tones in the audio.
    InBand,
}

/// What a caller gets when early media begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyMedia {
    /// 183 with the session description.
    #[default]
    Progress,
    /// 180 with the session description.
    Ringing,
    /// 180 without one: no early media.
    Suppress,
}

/// The method that changes a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Modify {
    /// Re-INVITE.
    #[default]
    ReInvite,
    /// UPDATE (RFC 3311), if the peer allows it.
    Update,
}

/// The switches of one kind of peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name in configuration.
    pub name: &'static str,
    /// What it is for.
    pub title: &'static str,
    /// The header that tells it who calls.
    pub identity: IdentityHeader,
    /// How it hears that a caller is to be hidden.
    pub privacy: PrivacyForm,
    /// Which of its headers holds the caller's number.
    pub cli: CliSource,
    /// The header in which it hears of diversions.
    pub diversion: DiversionHeader,
    /// How numbers are written.
    pub numbers: NumberFormat,
    /// `;user=phone` behind numbers.
    pub user_phone: bool,
    /// Reliable provisional responses (RFC 3262).
    pub reliable: Level,
    /// Who refreshes a session.
    pub refresher: Refresher,
    /// How a call is held.
    pub hold: HoldForm,
    /// SRTP with keys in the session description (RFC 4568).
    pub srtp: Level,
    /// How digits travel.
    pub dtmf: Dtmf,
    /// What a caller gets when early media begins.
    pub early_media: EarlyMedia,
    /// What a 2xx means that differs from the 18x before.
    pub answer_change: AnswerChange,
    /// The method that changes a session.
    pub modify: Modify,
    /// The codecs, in order of preference.
    pub codecs: &'static [Codec],
    /// Milliseconds of audio per packet.
    pub packet_time_ms: u16,
    /// How often OPTIONS asks whether it lives.
    pub options_interval: Option<Duration>,
    /// Final answers after which another trunk may be tried.
    pub retry: &'static [u16],
    /// How long one of its targets may be silent before a call tries the next.
    pub target_timeout: Duration,
    /// It may ask to be spared calls (RFC 7339).
    pub overload_control: bool,
    /// The largest request sent by UDP where TCP can be had, in bytes.
    pub largest_datagram: usize,
    /// T.38 fax is expected of it. What it offers is put to the other trunk of its call in any case.
    pub t38: bool,
    /// Transfers it asks for by REFER are carried out.
    pub refer: bool,
    /// What is done with Replaces.
    pub replacing: Replacing,
    /// Which of its redirections are followed.
    pub redirects: RedirectPolicy,
    /// Why a switch is not as usual: its name, and a sentence with its source.
    notes: &'static [(&'static str, &'static str)],
}

/// One switch of a profile, explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The name of the switch.
    pub switch: &'static str,
    /// Its value.
    pub value: String,
    /// Why, with the source.
    pub why: &'static str,
    /// The endpoint does so. If not, it does what it does without a profile.
    pub honoured: bool,
}

/// The explanation of a whole profile; prints one switch a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The profile's name and purpose.
    pub title: String,
    /// Its switches, always in the same order.
    pub switches: Vec<Explained>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        for Explained { switch, value, why, honoured } in &self.switches {
            let not_yet = if *honoured { "" } else { " (not yet)" };
            writeln!(f, "{switch}: {value}{not_yet}. {why}")?;
        }
        Ok(())
    }
}

impl Profile {
    /// Explains every switch: its value, why, and whether the endpoint honours it.
    pub fn explain(&self) -> Explanation {
        let yes_no = |on: bool| if on { "yes" } else { "no" }.to_owned();
        let codecs: Vec<_> = self.codecs.iter().map(|c| format!("{c:?}").to_uppercase()).collect();
        let retry: Vec<_> = self.retry.iter().map(u16::to_string).collect();
        let options =
            self.options_interval.map_or("never".to_owned(), |i| format!("every {} s", i.as_secs()));
        let refresher = match self.refresher {
            Refresher::AsAsked => "as asked",
            Refresher::Gateway => "gateway",
            Refresher::Peer => "peer",
        };
        let dtmf = match self.dtmf {
            Dtmf::Events => "telephone events",
            Dtmf::Info => "INFO",
            Dtmf::InBand => "in-band",
        };
        let early = match self.early_media {
            EarlyMedia::Progress => "183 with SDP",
            EarlyMedia::Ringing => "180 with SDP",
            EarlyMedia::Suppress => "180 without SDP",
        };
        // The word of the option tag's own header.
        let reliable = match self.reliable {
            Level::Preferred => "supported",
            level => level.as_str(),
        };
        let modify = match self.modify {
            Modify::ReInvite => "re-INVITE",
            Modify::Update => "UPDATE",
        };
        let rows = [
            ("identity header", self.identity.as_str().to_owned(), true),
            ("privacy", self.privacy.as_str().to_owned(), true),
            ("caller's number in", self.cli.as_str().to_owned(), true),
            ("diversion header", self.diversion.as_str().to_owned(), true),
            ("number format", self.numbers.as_str().to_owned(), true),
            ("user=phone", yes_no(self.user_phone), true),
            ("100rel", reliable.to_owned(), true),
            ("timer refresher", refresher.to_owned(), true),
            ("hold form", self.hold.as_str().to_owned(), true),
            ("SRTP", self.srtp.as_str().to_owned(), true),
            ("DTMF", dtmf.to_owned(), self.dtmf != Dtmf::InBand),
            ("early media", early.to_owned(), self.early_media == EarlyMedia::Progress),
            ("answer change", self.answer_change.as_str().to_owned(), true),
            ("session change by", modify.to_owned(), true),
            ("codecs", codecs.join(", "), true),
            ("packet time", format!("{} ms", self.packet_time_ms), true),
            ("OPTIONS", options, true),
            ("retry after", retry.join(", "), true),
            ("next target after", format!("{} s", self.target_timeout.as_secs()), true),
            ("overload control", yes_no(self.overload_control), true),
            ("largest datagram", format!("{} bytes", self.largest_datagram), true),
            ("T.38", yes_no(self.t38), true),
            ("REFER", yes_no(self.refer), true),
            ("Replaces", self.replacing.as_str().to_owned(), true),
            ("redirects", self.redirects.as_str().to_owned(), true),
        ];
        let switches = rows.into_iter().map(|(switch, value, honoured)| {
            let own = self.notes.iter().find(|(name, _)| *name == switch).map(|(_, why)| *why);
            Explained { switch, why: own.unwrap_or_else(|| usual(switch)), value, honoured }
        });
        Explanation { title: format!("{}: {}", self.name, self.title), switches: switches.collect() }
    }

    /// Finds a shipped profile by name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|p| p.name == name)
    }

    /// Says whether the profile asks for something no trunk may be asked: retrying after an answer
    /// that is the callee's word, or a packet time that is no multiple of 10.
    pub fn is_sound(&self) -> bool {
        !self.retry.iter().any(|s| is_last_word(*s))
            && self.packet_time_ms.is_multiple_of(10)
            && !self.codecs.is_empty()
            && self.largest_datagram >= 1300
    }
}

/// Why a switch is as it is where nothing particular is known of the peer.
fn usual(switch: &str) -> &'static str {
    match switch {
        "identity header" => "RFC 3325 is what networks of today use between trusted parties.",
        "privacy" => "RFC 3325 7: the number stays in the asserted identity and `id` hides it.",
        "caller's number in" => "RFC 3325 5: what the network asserts counts before what a user wrote.",
        "diversion header" => "RFC 5806 is historic but the one most peers read.",
        "number format" => "RFC 3966 5.1.4: a global number needs no context to be understood.",
        "user=phone" => "RFC 3261 19.1.6: not needed where the peer knows numbers by their form.",
        "100rel" => "RFC 3262 is optional; off spares a round trip and is always understood.",
        "timer refresher" => "RFC 4028 7.1: the peer's wish is followed, and no timer is asked for.",
        "hold form" => "RFC 3264 8.4: `sendonly` lets music play.",
        "SRTP" => "RFC 4568: keys in the description need TLS below, which this trunk may not have.",
        "DTMF" => "RFC 4733 is what every peer of this kind has.",
        "early media" => "RFC 3960 3.2: 183 says that the tones come in the audio.",
        "answer change" => "Carriers send another description in the 2xx and mean it (row C8).",
        "session change by" => "RFC 3261 14: every peer takes a re-INVITE; UPDATE is optional.",
        "codecs" => "RFC 3551: G.711 is static and everywhere; A-law first, as most of the world.",
        "packet time" => "RFC 3551 4.2: 20 ms is the default of G.711.",
        "OPTIONS" => "RFC 3261 11: a target that does not answer is not used.",
        "retry after" => "RFC 3263 4.3: no answer, overload, and a broken path say elsewhere.",
        "next target after" => {
            "RFC 3263 4.3: 64 T1 is longer than a caller waits; a target that works says 100 within 200 ms."
        }
        "overload control" => "RFC 7339 5.1: most peers do not know it, and some read Via with care.",
        "largest datagram" => "RFC 3261 18.1.1: larger requests go by TCP.",
        "T.38" => {
            "An image line is put to the other trunk of a call; where there is none it is refused, and G.711 goes on."
        }
        "REFER" => "RFC 3515 2.4.2: a transfer is refused by policy and the call goes on.",
        "Replaces" => "RFC 3891 5: who may take over calls is a matter of trust.",
        "redirects" => "RFC 3261 8.1.3.4: where a call goes is ours to decide; a 302 ends it with its cause.",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_profile_is_sound_and_explained() {
        let all = Profile::all();
        assert_eq!(all.len(), 8);
        for profile in &all {
            assert!(profile.is_sound(), "{}", profile.name);
            assert_eq!(Profile::by_name(profile.name).as_ref(), Some(profile));
            let explained = profile.explain();
            assert_eq!(explained.switches.len(), 25);
            assert!(explained.switches.iter().all(|s| s.why.len() > 20), "{explained}");
            // A note about a switch that does not exist would never be read.
            let known = |name: &str| explained.switches.iter().any(|s| s.switch == name);
            assert!(profile.notes.iter().all(|(name, _)| known(name)), "{}", profile.name);
        }
    }
}
