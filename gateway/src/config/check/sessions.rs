//! The keys of a `[[trunks]]` entry that concern its sessions.

use std::net::IpAddr;

use call_model::SrtpSuite;
use sip_trunk::sdp::Srtp;
use sip_trunk::trunk::emergency::EmergencyForm;
use sip_trunk::trunk::profile::{Level, Modify, Profile, Refresher};
use sip_trunk::trunk::resolve::Domain;
use sip_trunk::{InfoDigits, RedirectPolicy, Replacing, Transfers};

use super::{Check, Checked};
use crate::config::{DigitForm, Sessions, shape};

impl Check<'_> {
    pub(super) fn sessions(
        &self,
        at: &str,
        raw: &shape::Trunk,
        profile: Option<&Profile>,
    ) -> Checked<Sessions> {
        let key = |name: &str| format!("{at}.{name}");
        let srtp = self.choice(
            key("srtp"),
            raw.srtp.as_deref(),
            &[Srtp::Never, Srtp::Preferred, Srtp::Required, Srtp::Dtls].map(|srtp| (srtp.as_str(), srtp)),
        )?;
        let clear = match (srtp, profile) {
            (Some(srtp), _) => !srtp.has_signalled_keys(),
            (None, Some(profile)) => profile.srtp == Level::Off,
            (None, None) => true,
        };
        let redirects = self.choice(
            key("redirects"),
            raw.redirects.as_deref(),
            &[
                ("never", RedirectPolicy::Never),
                ("same-host", RedirectPolicy::SameHost),
                ("listed", RedirectPolicy::Listed),
            ],
        )?;
        let policy = redirects.or(profile.map(|profile| profile.redirects)).unwrap_or_default();
        Ok(Sessions {
            srtp,
            srtp_suites: self.suites(&key("srtp_suites"), raw.srtp_suites.as_deref(), clear)?,
            session_expires: raw
                .session_expires
                .map(|seconds| self.within(&key("session_expires"), Some(seconds), seconds, 90..=86_400))
                .transpose()?
                .map(|seconds| seconds as u32),
            refresher: self.choice(
                key("refresher"),
                raw.refresher.as_deref(),
                &[
                    ("as-asked", Refresher::AsAsked),
                    ("gateway", Refresher::Gateway),
                    ("peer", Refresher::Peer),
                ],
            )?,
            session_change: self.choice(
                key("session_change"),
                raw.session_change.as_deref(),
                &[("reinvite", Modify::ReInvite), ("update", Modify::Update)],
            )?,
            p_early_media: raw.p_early_media,
            dtmf: self.choice(
                key("dtmf"),
                raw.dtmf.as_deref(),
                &[
                    ("events", DigitForm::Events),
                    ("info-relay", DigitForm::Info(InfoDigits::Relay)),
                    ("info-plain", DigitForm::Info(InfoDigits::Plain)),
                    ("in-band", DigitForm::InBand),
                ],
            )?,
            emergency: self.choice(
                key("emergency"),
                raw.emergency.as_deref(),
                &[EmergencyForm::Dialled, EmergencyForm::Service].map(|form| (form.as_str(), form)),
            )?,
            transfers: self.choice(
                key("transfers"),
                raw.transfers.as_deref(),
                &[("accept", Transfers::Accept), ("refuse", Transfers::Refuse)],
            )?,
            replaces: self.choice(
                key("replaces"),
                raw.replaces.as_deref(),
                &[
                    ("off", Replacing::Off),
                    ("accept", Replacing::Accept),
                    ("send", Replacing::Send),
                    ("both", Replacing::Both),
                ],
            )?,
            redirects,
            redirect_hosts: self.redirect_hosts(&key("redirect_hosts"), raw, policy)?,
            redirect_hops: match raw.redirect_hops {
                Some(_) if policy == RedirectPolicy::Never => {
                    let remedy = "add redirects = \"same-host\", or leave it out";
                    return self.error(key("redirect_hops"), "no redirection is followed", remedy);
                }
                Some(hops) => Some(self.within(&key("redirect_hops"), Some(hops), hops, 1..=10)? as u8),
                None => None,
            },
        })
    }

    pub(super) fn choice<T: Copy>(
        &self,
        key: String,
        text: Option<&str>,
        choices: &[(&str, T)],
    ) -> Checked<Option<T>> {
        let Some(text) = text else { return Ok(None) };
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                let (last, before) =
                    names.split_last().map_or(("", &[][..]), |(last, rest)| (last.as_str(), rest));
                let remedy = format!("write {} or {last}", before.join(", "));
                self.error(key, format!("\"{text}\" is no choice"), remedy)
            }
        }
    }

    fn suites(&self, key: &str, raw: Option<&[String]>, clear: bool) -> Checked<Option<Vec<SrtpSuite>>> {
        let Some(raw) = raw else { return Ok(None) };
        if clear {
            return self.error(
                key,
                "no SRTP with keys in signalling beside it",
                "add srtp = \"preferred\" or \"required\"",
            );
        }
        let all: Vec<&str> = SrtpSuite::ALL.into_iter().map(SrtpSuite::as_str).collect();
        let mut suites = Vec::new();
        for text in raw {
            match SrtpSuite::from_name(text) {
                Some(suite) if !suites.contains(&suite) => suites.push(suite),
                Some(_) => return self.error(key, format!("\"{text}\" twice"), "name each suite once"),
                None => {
                    let remedy = format!("write some of {}", all.join(", "));
                    return self.error(key, format!("\"{text}\" is no suite"), remedy);
                }
            }
        }
        if suites.is_empty() {
            return self.error(key, "no suite", "name one, or leave the key out");
        }
        Ok(Some(suites))
    }

    fn redirect_hosts(&self, key: &str, raw: &shape::Trunk, policy: RedirectPolicy) -> Checked<Vec<String>> {
        let hosts = raw.redirect_hosts.clone().unwrap_or_default();
        let wanted = raw.redirects.as_deref() == Some("listed");
        if (hosts.is_empty() && wanted) || (!hosts.is_empty() && policy != RedirectPolicy::Listed) {
            let problem = "hosts are listed for redirects = \"listed\", and for nothing else";
            let remedy = "write both, such as redirect_hosts = [\"sip.example.com\"], or neither";
            return self.error(key, problem, remedy);
        }
        let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        if let Some(bad) = hosts.iter().find(|host| !bare(host) && host.parse::<Domain>().is_err()) {
            let remedy = "write names or addresses without a port, such as \"sip.example.com\"";
            return self.error(key, format!("\"{bad}\" is no host"), remedy);
        }
        Ok(hosts)
    }
}
