//! The profiles that are shipped. A sentence that begins with "Assumed" has no document of the
//! vendor behind it: the value is the cautious one.

use std::time::Duration;

use call_model::Codec;

use super::{Dtmf, EarlyMedia, Level, Modify, Profile, Refresher};
use crate::trunk::config::{AnswerChange, HoldForm};
use crate::trunk::diversion::DiversionHeader;
use crate::trunk::identity::{CliSource, IdentityHeader, PrivacyForm};
use crate::trunk::numbers::NumberFormat;
use crate::trunk::referral::{RedirectPolicy, Replacing};
use crate::trunk::retry::DEFAULT_RETRY;

const A_LAW_FIRST: &[Codec] = &[Codec::Pcma, Codec::Pcmu];
const MU_LAW_FIRST: &[Codec] = &[Codec::Pcmu, Codec::Pcma];
const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

/// What every profile begins with.
const PLAIN: Profile = Profile {
    name: "",
    title: "",
    identity: IdentityHeader::PAssertedIdentity,
    privacy: PrivacyForm::Id,
    cli: CliSource::Asserted,
    diversion: DiversionHeader::Diversion,
    numbers: NumberFormat::E164Plus,
    user_phone: false,
    reliable: Level::Off,
    refresher: Refresher::AsAsked,
    hold: HoldForm::SendOnly,
    srtp: Level::Off,
    dtmf: Dtmf::Events,
    early_media: EarlyMedia::Progress,
    answer_change: AnswerChange::Follow,
    modify: Modify::ReInvite,
    codecs: A_LAW_FIRST,
    packet_time_ms: 20,
    options_interval: MINUTE,
    retry: DEFAULT_RETRY,
    target_timeout: Duration::from_secs(8),
    overload_control: false,
    largest_datagram: 1300,
    t38: false,
    refer: false,
    replacing: Replacing::Off,
    redirects: RedirectPolicy::Never,
    notes: &[],
};

impl Profile {
    /// Returns every shipped profile.
    pub fn all() -> Vec<Self> {
        vec![
            Self::asterisk(),
            Self::freeswitch(),
            Self::kamailio(),
            Self::cisco_cube(),
            Self::teams(),
            Self::twilio(),
            Self::telnyx(),
            Self::sipconnect(),
        ]
    }

    /// Asterisk with `chan_pjsip`.
    pub fn asterisk() -> Self {
        Self {
            name: "asterisk",
            title: "Asterisk with chan_pjsip",
            reliable: Level::Preferred,
            refer: true,
            replacing: Replacing::Both,
            redirects: RedirectPolicy::SameHost,
            notes: &[
                ("Replaces", "res_pjsip_refer answers and sends INVITE with Replaces for attended transfer."),
                (
                    "redirects",
                    "Transfer() before the answer sends a 302, whose Contact names the PBX itself.",
                ),
                (
                    "identity header",
                    "pjsip.conf `trust_id_inbound` reads P-Asserted-Identity before Remote-Party-ID.",
                ),
                (
                    "diversion header",
                    "pjsip.conf `send_diversion`, on by default: Diversion is what it writes and reads.",
                ),
                ("100rel", "pjsip.conf `100rel` is `yes` by default: supported, not required."),
                (
                    "timer refresher",
                    "pjsip.conf `timers` is `yes` by default: it asks itself, and its wish is followed.",
                ),
                ("DTMF", "pjsip.conf `dtmf_mode` is `rfc4733` by default."),
                ("T.38", "pjsip.conf `t38_udptl` is `no` by default."),
                ("REFER", "A PBX transfers by REFER: pjsip.conf `allow_transfer` is `yes` by default."),
                (
                    "OPTIONS",
                    "pjsip.conf `qualify_frequency` at the far side does the same; a minute costs nothing.",
                ),
            ],
            ..PLAIN
        }
    }

    /// FreeSWITCH with `mod_sofia`.
    pub fn freeswitch() -> Self {
        Self {
            name: "freeswitch",
            title: "FreeSWITCH with mod_sofia",
            identity: IdentityHeader::RemotePartyId,
            cli: CliSource::RemoteParty,
            refer: true,
            replacing: Replacing::Both,
            redirects: RedirectPolicy::SameHost,
            codecs: MU_LAW_FIRST,
            notes: &[
                ("Replaces", "mod_sofia takes INVITE with Replaces for attended transfer and pickup."),
                (
                    "redirects",
                    "The `redirect` application sends a 302; a contact at the switch itself is its own.",
                ),
                ("identity header", "Sofia profile `caller-id-type` is `rpid` by default."),
                (
                    "caller's number in",
                    "Sofia writes Remote-Party-ID by default, beside a From that may be the extension.",
                ),
                ("privacy", "RFC 3325 7 and the `privacy` parameter of Remote-Party-ID are both written."),
                ("100rel", "Sofia profile `enable-100rel` is off unless it is set."),
                ("codecs", "vars.xml `global_codec_prefs` has PCMU before PCMA."),
                ("DTMF", "Sofia profile `dtmf-type` is `rfc2833` by default."),
                (
                    "REFER",
                    "A PBX transfers by REFER; mod_sofia sends it for `deflect` and attended transfer.",
                ),
            ],
            ..PLAIN
        }
    }

    /// Kamailio as a proxy before other things.
    pub fn kamailio() -> Self {
        Self {
            name: "kamailio",
            title: "Kamailio, a proxy before other equipment",
            reliable: Level::Preferred,
            modify: Modify::Update,
            notes: &[
                ("100rel", "A proxy passes PRACK on; what is behind it decides (RFC 3262 4)."),
                (
                    "session change by",
                    "A proxy passes UPDATE on; Allow of the far end decides (RFC 3311 5.1).",
                ),
                (
                    "identity header",
                    "The siputils and uac modules work on From and P-Asserted-Identity alike.",
                ),
                (
                    "largest datagram",
                    "RFC 3261 18.1.1; Kamailio does the same for `udp_mtu` with `udp_mtu_try_proto`.",
                ),
                ("OPTIONS", "The dispatcher module probes by OPTIONS (`ds_ping_interval`) and answers it."),
            ],
            ..PLAIN
        }
    }

    /// Cisco Unified Border Element.
    pub fn cisco_cube() -> Self {
        Self {
            name: "cisco-cube",
            title: "Cisco Unified Border Element",
            reliable: Level::Preferred,
            refresher: Refresher::Gateway,
            codecs: MU_LAW_FIRST,
            refer: true,
            replacing: Replacing::Accept,
            notes: &[
                (
                    "Replaces",
                    "Assumed: `supplementary-service sip refer` passes attended transfers of phones on.",
                ),
                ("identity header", "`asserted-id pai` under `voice service voip / sip`."),
                ("privacy", "`privacy id` is understood beside an anonymous From (RFC 3325 7)."),
                ("100rel", "`rel1xx supported 100rel` is the default."),
                (
                    "timer refresher",
                    "Assumed: a CUBE without `session refresh` does not refresh, so the gateway does.",
                ),
                ("DTMF", "`dtmf-relay rtp-nte` on the dial peer."),
                ("codecs", "Assumed: `voice class codec` of an installation in North America, mu-law first."),
                ("REFER", "`refer consume` or pass-through: CUBE sends REFER of the phones behind it."),
                ("diversion header", "CUBE reads and writes Diversion unless `history-info` is configured."),
                ("OPTIONS", "`voice-class sip options-keepalive` asks every 60 s while the peer is up."),
            ],
            ..PLAIN
        }
    }

    /// Microsoft Teams Direct Routing.
    pub fn teams() -> Self {
        Self {
            name: "teams",
            title: "Microsoft Teams Direct Routing",
            diversion: DiversionHeader::HistoryInfo,
            user_phone: true,
            reliable: Level::Preferred,
            hold: HoldForm::Inactive,
            srtp: Level::Required,
            refer: true,
            replacing: Replacing::Accept,
            notes: &[
                (
                    "Replaces",
                    "Direct Routing: the SBC takes INVITE with Replaces; towards Teams it is rejected.",
                ),
                (
                    "identity header",
                    "Direct Routing: `ForwardPAI` sends and takes P-Asserted-Identity with Privacy.",
                ),
                ("diversion header", "Direct Routing: `ForwardCallHistory` uses History-Info."),
                ("number format", "Direct Routing: the user part of the request URI needs the + of E.164."),
                ("user=phone", "Direct Routing: numbers are written with `user=phone` in its own messages."),
                ("100rel", "Assumed: Direct Routing announces 100rel and works without it."),
                (
                    "hold form",
                    "Direct Routing, deviations from the RFCs: `inactive` is the form of hold it takes.",
                ),
                (
                    "SRTP",
                    "Direct Routing: media is SRTP with keys in the description, over TLS; nothing else.",
                ),
                ("OPTIONS", "Direct Routing: OPTIONS every minute; three missed demote the target."),
                ("retry after", "Direct Routing: 408, 503 and 504 are the default retry set."),
                (
                    "answer change",
                    "Direct Routing: several 183 with different tags; the last word is in the 200.",
                ),
                ("REFER", "Direct Routing: transfers come as REFER with Referred-By."),
                ("largest datagram", "Direct Routing is TLS alone; nothing goes by UDP."),
            ],
            ..PLAIN
        }
    }

    /// Twilio Elastic SIP Trunking.
    pub fn twilio() -> Self {
        Self {
            name: "twilio",
            title: "Twilio Elastic SIP Trunking",
            srtp: Level::Preferred,
            codecs: MU_LAW_FIRST,
            options_interval: None,
            notes: &[
                (
                    "number format",
                    "Elastic SIP Trunking: numbers are E.164, written with +, in request URI and caller ID.",
                ),
                (
                    "identity header",
                    "Elastic SIP Trunking takes the caller ID of P-Asserted-Identity, Remote-Party-ID or From.",
                ),
                (
                    "diversion header",
                    "Elastic SIP Trunking: Diversion lets a forwarded call show its own caller.",
                ),
                ("100rel", "Assumed: no statement of the vendor at hand; off is always understood."),
                ("SRTP", "Elastic SIP Trunking: Secure Trunking asks for TLS and SRTP, else RTP."),
                ("codecs", "Assumed: a carrier of North America, mu-law first."),
                ("OPTIONS", "Assumed: edges are addressed by DNS and hold no state of a probe."),
                (
                    "REFER",
                    "Elastic SIP Trunking: REFER asks Twilio for a blind transfer; Twilio itself asks for none.",
                ),
            ],
            ..PLAIN
        }
    }

    /// Telnyx.
    pub fn telnyx() -> Self {
        Self {
            name: "telnyx",
            title: "Telnyx SIP trunking",
            identity: IdentityHeader::PPreferredIdentity,
            srtp: Level::Preferred,
            t38: true,
            codecs: MU_LAW_FIRST,
            notes: &[
                (
                    "privacy",
                    "Telnyx, caller ID policy: `Privacy: id` hides, but a valid number must be there: trust the trunk.",
                ),
                (
                    "identity header",
                    "Telnyx, caller ID policy: P-Preferred-Identity counts first, then P-Asserted-Identity, Remote-Party-ID and From.",
                ),
                (
                    "number format",
                    "Telnyx, caller ID policy: E.164 with + is taken for calls to any country.",
                ),
                ("100rel", "Assumed: no statement of the vendor at hand; off is always understood."),
                ("SRTP", "Assumed: encryption is a setting of the connection, and either is taken."),
                ("T.38", "Assumed: T.38 is offered by its gateways where it is switched on."),
                ("codecs", "Assumed: a carrier of North America, mu-law first."),
            ],
            ..PLAIN
        }
    }

    /// Generic SIPconnect.
    pub fn sipconnect() -> Self {
        Self {
            name: "sipconnect",
            title: "generic SIPconnect 1.1 or 2.0 service provider",
            identity: IdentityHeader::PAssertedIdentity,
            user_phone: true,
            reliable: Level::Preferred,
            notes: &[
                (
                    "identity header",
                    "SIPconnect: the enterprise sends P-Asserted-Identity (clause numbers not at hand).",
                ),
                ("privacy", "SIPconnect: an anonymous From with `Privacy: id` (RFC 3323 4.1, RFC 3325 7)."),
                ("number format", "SIPconnect: numbers are E.164 with + in all URIs."),
                ("user=phone", "SIPconnect: URIs of numbers carry `user=phone`."),
                (
                    "diversion header",
                    "Assumed: 1.1 knows Diversion; use History-Info where the provider asks for 2.0.",
                ),
                ("100rel", "SIPconnect: reliable provisional responses are supported, not required."),
                ("DTMF", "SIPconnect: telephone events (RFC 4733) are mandatory."),
            ],
            ..PLAIN
        }
    }
}
