//! Redirections of the calls we place (RFC 3261 8.1.3.4): which contacts of a 3xx count, and the
//! INVITE to the one that was chosen.

use std::sync::Arc;

use call_model::Address;

use super::call::{Call, Phase};
use super::without_port;
use crate::endpoint::api::{CommandError, Event};
use crate::endpoint::core::Core;
use crate::referral::{RedirectContact, plain_uri};
use crate::trunk::details::CallDetails;
use crate::trunk::diversion::{Diversion, DiversionReason, read_diversions, write_diversions};
use crate::trunk::identity::NameAddr;
use crate::trunk::numbers::user_part;
use crate::trunk::{RedirectPolicy, Trunk};
use crate::wire::message::{Head, Name, Response, uri_host, uri_target};

/// What a call on a trunk that may redirect has behind and before it.
#[derive(Debug)]
pub(super) struct Redirection {
    /// Who is called now, where that is known.
    called: Option<Address>,
    /// What was called, or is kept to be: nothing is called twice.
    seen: Vec<String>,
    targets: Vec<Target>,
    hops: u8,
    /// The user was told of the targets and has not chosen.
    waits: bool,
}

/// A contact that may be followed.
#[derive(Debug)]
struct Target {
    contact: RedirectContact,
    /// The request URI of its INVITE.
    uri: String,
    /// The diversions that it hears of.
    diversions: Vec<Diversion>,
}

/// The most contacts of one 3xx that are looked at, and the most that are kept.
const MAX_READ: usize = 16;
const MAX_KEPT: usize = 8;

/// The most that one call may follow, whatever is configured.
const MAX_HOPS: u8 = 10;

impl Redirection {
    /// Begins with whom a call is for. `None` where its trunk may not redirect.
    pub(super) fn new(trunk: &Trunk, called: &Address, target: &str) -> Option<Box<Self>> {
        if trunk.config.redirects.policy == RedirectPolicy::Never {
            return None;
        }
        let (called, seen) = (Some(called.clone()), vec![place(target)]);
        Some(Box::new(Self { called, seen, targets: Vec::new(), hops: 0, waits: false }))
    }

    /// Adds what a 3xx offers, ahead of what an earlier one did. Returns the reasons for which
    /// contacts were passed over.
    fn add(
        &mut self,
        head: &Head,
        trunk: &Trunk,
        details: &CallDetails,
        reason: DiversionReason,
    ) -> Vec<&'static str> {
        let mut passed = Vec::new();
        let mut fresh = Vec::new();
        for value in head.list(&Name::Contact).iter().take(MAX_READ) {
            match self.target(value, head, trunk, details, reason) {
                Ok(target) if self.targets.len() + fresh.len() < MAX_KEPT => {
                    self.seen.push(place(&target.uri));
                    fresh.push(target);
                }
                Ok(_) => passed.push("redirect_contacts"),
                Err(why) => passed.push(why),
            }
        }
        // RFC 3261 8.1.3.4, 20.10: the larger q first; equal ones stay in order.
        fresh.sort_by_key(|target| std::cmp::Reverse(target.contact.preference));
        self.targets.splice(0..0, fresh);
        passed
    }

    fn target(
        &self,
        value: &str,
        head: &Head,
        trunk: &Trunk,
        details: &CallDetails,
        reason: DiversionReason,
    ) -> Result<Target, &'static str> {
        let config = &trunk.config;
        let contact = NameAddr::parse(value).ok_or("redirect_syntax")?;
        // RFC 3261 19.1.5: headers of a URI are not taken over unseen, so none are.
        let plain = contact.uri.split('?').next().and_then(plain_uri).ok_or("redirect_syntax")?;
        let method = |p: &str| p.to_ascii_lowercase().starts_with("method=");
        if plain.split(';').skip(1).any(method) {
            return Err("redirect_syntax");
        }
        let target = config.numbers.address_of_uri(&plain);
        let scheme = plain.split_once(':').map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
        let uri = match (scheme.as_str(), &target) {
            ("sip", _) if lets(trunk, &plain) => plain.clone(),
            // A number is the trunk's to route.
            ("tel", Some(number)) => config.numbers.uri_of(number, &config.host),
            ("sip", _) => return Err("redirect_host"),
            _ => return Err("redirect_scheme"),
        };
        let same = target.is_some() && target == self.called;
        let returns = target.as_ref().is_some_and(|target| !same && details.is_loop(target));
        if returns || self.seen.contains(&place(&uri)) {
            return Err("redirect_loop");
        }
        let quality = contact.parameter("q").and_then(|q| q.trim().parse::<f32>().ok()).unwrap_or(1.0);
        let preference = (quality.clamp(0.0, 1.0) * 1000.0).round() as u16;
        let diversions = match same {
            // Sent to another place, not to another number.
            true => details.diversions.clone(),
            false => self.diverted(head, trunk, details, reason),
        };
        Ok(Target { contact: RedirectContact { uri: plain, target, preference }, uri, diversions })
    }

    /// Returns the diversions of a call that this 3xx diverts (RFC 7544 3): those the far side tells
    /// of, and whom it was for, ahead of those before.
    fn diverted(
        &self,
        head: &Head,
        trunk: &Trunk,
        details: &CallDetails,
        reason: DiversionReason,
    ) -> Vec<Diversion> {
        let mut diversions = Vec::new();
        if trunk.config.trusted {
            let (history, diversion) = (head.texts_named("History-Info"), head.texts_named("Diversion"));
            diversions = read_diversions(&history, &diversion, &trunk.config.numbers);
        }
        let known = |list: &[Diversion], number: &Option<Address>| list.iter().any(|d| d.number == *number);
        diversions.retain(|d| !known(&details.diversions, &d.number));
        if !known(&diversions, &self.called) && self.called.is_some() {
            let diversion = Diversion { number: self.called.clone(), reason, counter: 1, privacy: false };
            diversions.push(diversion);
        }
        diversions.extend(details.diversions.iter().cloned());
        diversions
    }
}

/// Says whether a trunk may send calls to the host of a URI.
fn lets(trunk: &Trunk, uri: &str) -> bool {
    let Some(host) = uri_host(uri) else { return false };
    let config = &trunk.config;
    let same = |other: &str| without_port(other).eq_ignore_ascii_case(&host);
    let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let at_trunk = same(&config.host)
        || trunk.registrar.as_ref().is_some_and(|r| same(&r.config().domain))
        || bare(&host).parse().is_ok_and(|address| trunk.owns(address));
    let listed = || config.redirects.hosts.iter().any(|h| bare(h).eq_ignore_ascii_case(&bare(&host)));
    match config.redirects.policy {
        RedirectPolicy::Never => false,
        RedirectPolicy::SameHost => at_trunk,
        RedirectPolicy::Listed => at_trunk || listed(),
    }
}

/// Writes what makes two URIs one place here: user, host and port (RFC 3261 19.1.4).
fn place(uri: &str) -> String {
    let port = uri_target(uri).and_then(|target| target.port).unwrap_or(5060);
    format!("{}@{}:{port}", user_part(uri).unwrap_or_default(), uri_host(uri).unwrap_or_default())
}

impl Call {
    /// Puts the contacts of a 3xx before the user, or what is left of earlier ones after the refusal
    /// of one (RFC 3261 8.1.3.4). Says whether there are any; if not, the call is over.
    pub(super) fn redirected(&mut self, core: &mut Core, response: &Response) -> bool {
        let status = response.status;
        let Some(trunk) = core.trunks.get(self.trunk) else { return false };
        let Phase::Outgoing(outgoing) = &mut self.phase else { return false };
        let reason =
            if outgoing.ringing { DiversionReason::Deflection } else { DiversionReason::Unconditional };
        let Some(redirection) = &mut outgoing.redirection else { return false };
        // 305 and 380 mean something else, and after 6xx nobody else is to be asked (RFC 3261 21.6).
        let passed = match status {
            300..=302 => redirection.add(&response.head, trunk, &self.details, reason),
            _ => Vec::new(),
        };
        passed.into_iter().for_each(|why| core.io.counters.refuse(why));
        if status >= 600 || redirection.targets.is_empty() {
            return false;
        }
        if redirection.hops >= trunk.config.redirects.hops.min(MAX_HOPS) {
            core.io.counters.refuse("redirect_hops");
            return false;
        }
        redirection.waits = true;
        outgoing.key = None;
        outgoing.forks.clear();
        let contacts = redirection.targets.iter().map(|target| target.contact.clone()).collect();
        core.events.push_back(Event::Redirected { call: self.id, status, contacts });
        true
    }

    /// Carries out `FollowRedirect`: the INVITE again, with the same To, From and Call-ID
    /// (RFC 3261 8.1.3.4).
    pub(crate) fn follow_redirect(&mut self, core: &mut Core, index: usize) -> Result<(), CommandError> {
        let Phase::Outgoing(outgoing) = &mut self.phase else { return Err(CommandError::WrongState) };
        let redirection = outgoing.redirection.as_mut().filter(|r| r.waits && index < r.targets.len());
        let redirection = redirection.ok_or(CommandError::WrongState)?;
        let trunk = core.trunks.get(self.trunk).ok_or(CommandError::UnknownTrunk)?;
        let chosen = redirection.targets.remove(index);
        redirection.waits = false;
        redirection.hops = redirection.hops.saturating_add(1);
        redirection.called = chosen.contact.target;
        Arc::make_mut(&mut self.details).diversions = chosen.diversions;
        let (config, host) = (&trunk.config, trunk.own_host(&self.dialog.fallback));
        outgoing.lines.retain(|(name, _)| !["Diversion", "History-Info"].contains(name));
        outgoing.lines.extend(write_diversions(
            &self.details.diversions,
            config.diversion,
            &chosen.uri,
            &config.numbers,
            &host,
            config.trusted,
        ));
        self.dialog.target = chosen.uri;
        self.challenges = 0;
        self.send_invite(core);
        self.arm(core);
        Ok(())
    }
}
