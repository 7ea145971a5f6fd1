//! What a `[[trunks]]` entry says of its sessions: their protection, timers, digits and transfers.

use call_model::SrtpSuite;
use sip_trunk::sdp::Srtp;
use sip_trunk::trunk::emergency::EmergencyForm;
use sip_trunk::trunk::profile::{Dtmf, Modify, Refresher};
use sip_trunk::{InfoDigits, RedirectPolicy, Replacing, Transfers, TrunkConfig};

use super::Trunk;

/// The session interval that is asked for where a refresher is named and no interval, in seconds
/// (RFC 4028 4).
const USUAL_INTERVAL: u32 = 1800;

/// How digits are sent to a trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigitForm {
    /// Telephone events in RTP (RFC 4733).
    Events,
    /// INFO, in one of its forms.
    Info(InfoDigits),
    /// As tones in the audio, which pass as they come.
    InBand,
}

/// The keys of a trunk that concern its sessions. `None`: as its profile has it, or the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// SRTP, with keys in the session description (RFC 4568) or of DTLS (RFC 5763).
    pub srtp: Option<Srtp>,
    /// The suites of it, in order of preference.
    pub srtp_suites: Option<Vec<SrtpSuite>>,
    /// The session interval that is asked for, in seconds, 90 to 86,400 (RFC 4028 4).
    pub session_expires: Option<u32>,
    /// Who shall refresh sessions.
    pub refresher: Option<Refresher>,
    /// The method that changes a session.
    pub session_change: Option<Modify>,
    /// Early media is let through only as P-Early-Media allows (RFC 5009).
    pub p_early_media: Option<bool>,
    /// How digits are sent.
    pub dtmf: Option<DigitForm>,
    /// What emergency calls on it are written for.
    pub emergency: Option<EmergencyForm>,
    /// What becomes of the transfers it asks for (RFC 3515).
    pub transfers: Option<Transfers>,
    /// What is done with Replaces (RFC 3891).
    pub replaces: Option<Replacing>,
    /// Which of its redirections are followed (RFC 3261 8.1.3.4).
    pub redirects: Option<RedirectPolicy>,
    /// The hosts of [`RedirectPolicy::Listed`].
    pub redirect_hosts: Vec<String>,
    /// How many contacts one call may follow, 1 to 10.
    pub redirect_hops: Option<u8>,
}

impl Trunk {
    /// Says whether the trunk is sent digits by INFO: as is written, else as its profile has it.
    pub(crate) fn takes_info(&self) -> bool {
        match self.sessions.dtmf {
            Some(form) => matches!(form, DigitForm::Info(_)),
            None => self.profile.as_ref().is_some_and(|profile| profile.dtmf == Dtmf::Info),
        }
    }
}

impl Sessions {
    /// Puts what was written in the place of what a profile or the defaults say.
    pub(crate) fn apply(&self, config: &mut TrunkConfig) {
        fn set<T: Clone>(place: &mut T, written: Option<&T>) {
            if let Some(written) = written {
                place.clone_from(written);
            }
        }
        set(&mut config.srtp, self.srtp.as_ref());
        set(&mut config.srtp_suites, self.srtp_suites.as_ref());
        if let Some(refresher) = self.refresher {
            config.refresher = refresher;
            config.session_expires = match refresher {
                Refresher::AsAsked => None,
                Refresher::Gateway | Refresher::Peer => config.session_expires.or(Some(USUAL_INTERVAL)),
            };
        }
        config.session_expires = self.session_expires.or(config.session_expires);
        set(&mut config.modify, self.session_change.as_ref());
        set(&mut config.p_early_media, self.p_early_media.as_ref());
        if let Some(form) = self.dtmf {
            config.telephone_events = form == DigitForm::Events;
            config.info_digits = match form {
                DigitForm::Info(form) => Some(form),
                DigitForm::Events | DigitForm::InBand => None,
            };
        }
        set(&mut config.emergency, self.emergency.as_ref());
        set(&mut config.transfers, self.transfers.as_ref());
        set(&mut config.replacing, self.replaces.as_ref());
        set(&mut config.redirects.policy, self.redirects.as_ref());
        config.redirects.hosts.clone_from(&self.redirect_hosts);
        set(&mut config.redirects.hops, self.redirect_hops.as_ref());
    }
}
