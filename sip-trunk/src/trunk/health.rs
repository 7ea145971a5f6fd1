//! Whether a trunk's targets live: OPTIONS with hysteresis.

use std::net::SocketAddr;
use std::time::Duration;

use call_model::TrunkName;

use super::registration::RegistrationStatus;
use super::targets::{self, Target, TargetStatus};
use crate::dialog::{Dialog, host_of, without_port};
use crate::endpoint::api::Transport;
use crate::endpoint::core::{Core, Extra};
use crate::endpoint::io::hex;
use crate::registrar::AccountStatus;
use crate::transaction::client::{ClientKey, NewRequest, Outcome, Owner, Upcall};
use crate::transaction::timer::{Alarm, Due};
use crate::wire::message::{Method, Name, Response};

/// What is known of a trunk's targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrunkState {
    /// Nothing yet, or it is not asked.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It does not answer, or answers that it cannot work.
    Down,
}

impl TrunkState {
    /// Returns the name used by the API.
    pub fn as_str(self) -> &'static str {
        match self {
            TrunkState::Unknown => "unknown",
            TrunkState::Up => "up",
            TrunkState::Down => "down",
        }
    }
}

/// A trunk as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrunkStatus {
    /// Its name.
    pub name: TrunkName,
    /// Where its requests go: the first target, or what stands for it while there is none.
    pub target: SocketAddr,
    /// Every target, as DNS or the configuration orders them.
    pub targets: Vec<TargetStatus>,
    /// Whether that lives, and knows us where the trunk insists on its registration.
    pub state: TrunkState,
    /// The last answer to OPTIONS; `None` if there was none.
    pub last_status: Option<u16>,
    /// Calls now, both ways.
    pub calls: usize,
    /// Its registration, if it registers.
    pub registration: Option<RegistrationStatus>,
    /// Its contacts, if it registers with us.
    pub account: Option<AccountStatus>,
}

/// The clock of the OPTIONS of one trunk. What they say is kept with each target.
#[derive(Debug, Default)]
pub(crate) struct Health {
    alarm: Alarm,
}

/// Sets the first probe, spread so that many trunks are not asked at once.
pub(crate) fn start(core: &mut Core, index: usize) {
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let Some(interval) = trunk.config.options_interval else { return };
    let spread = interval.min(Duration::from_secs(2)).as_millis() as u64;
    let at = core.io.now + Duration::from_millis(core.io.random.between(0, spread));
    trunk.health.alarm.set(&mut core.io.timers, Due::Trunk(index), Some(at));
}

/// A deadline surfaced: time for a probe of each target.
pub(crate) fn on_timer(core: &mut Core, index: usize, at: std::time::Instant) {
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let (timers, now) = (&mut core.io.timers, core.io.now);
    if !trunk.health.alarm.surfaced(timers, Due::Trunk(index), at, now) {
        return;
    }
    if let Some(interval) = trunk.config.options_interval {
        trunk.health.alarm.set(timers, Due::Trunk(index), Some(now + interval));
    }
    let idle = trunk.targets.iter().filter(|target| target.probe.is_none());
    let idle: Vec<_> = idle.map(|target| (target.transport, target.address)).collect();
    for (transport, remote) in idle {
        probe(core, index, transport, remote);
    }
}

fn probe(core: &mut Core, index: usize, transport: Transport, remote: SocketAddr) {
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let Some(path) = core.io.path(transport, remote, trunk.config.local) else { return };
    let tag = core.io.random.number();
    let dialog = Dialog {
        trunk: index,
        established: false,
        udp_only: false,
        call_id: core.io.random.hex(),
        local: format!("<sip:{}>;tag={}", host_of(path.local), hex(tag)),
        // RFC 3261 19.1.1: no port in From and To.
        remote: format!("<sip:{}>", without_port(&trunk.config.host)),
        remote_tag: String::new(),
        cseq: 1,
        remote_cseq: None,
        target: format!("sip:{}", trunk.config.host),
        routes: Vec::new(),
        fallback: path,
    };
    let own = |t: &&mut Target| (t.transport, t.address) == (transport, remote);
    let Some(target) = trunk.targets.iter_mut().find(own) else { return };
    (target.challenges, target.probe) = (0, Some((dialog, None)));
    send(core, index, transport, remote);
}

fn send(core: &mut Core, index: usize, transport: Transport, remote: SocketAddr) {
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let patience = Some(trunk.config.options_timeout);
    let own = |t: &&mut Target| (t.transport, t.address) == (transport, remote);
    let Some(target) = trunk.targets.iter_mut().find(own) else { return };
    let Some((dialog, _)) = target.probe.clone() else { return };
    let mut extra = Extra::default();
    let cnonce = core.io.random.hex();
    if let Some(auth) = &mut target.auth {
        extra.lines = auth.headers("OPTIONS", &dialog.target, &[], &cnonce);
    }
    extra.lines.push(("Accept", crate::sdp::CONTENT_TYPE.to_owned()));
    let branch = core.io.random.number();
    let path = dialog.fallback;
    let bytes = core.write_request(&dialog, Method::Options, dialog.cseq, &path, branch, &extra);
    let (method, cseq, owner) = (Method::Options, dialog.cseq, Owner::Trunk(index));
    let (trunk, in_dialog) = (index, false);
    let probe = NewRequest { branch, method, cseq, bytes, path, owner, trunk, in_dialog, patience };
    let key = core.clients.start(&mut core.io, probe);
    let targets = core.trunks.get_mut(index).map(|t| &mut t.targets);
    if let Some((_, pending)) =
        targets.and_then(|set| set.iter_mut().find(own)).and_then(|target| target.probe.as_mut())
    {
        *pending = Some(key);
    }
}

/// The probe of a target came to an end, or to a provisional response.
pub(crate) fn on_outcome(core: &mut Core, index: usize, upcall: &Upcall) {
    let pending = |t: &Target| t.probe.as_ref().is_some_and(|(_, key)| *key == Some(upcall.key));
    let (status, detail) = match &upcall.outcome {
        Outcome::Response(response, _) if response.status < 200 => return,
        Outcome::Response(response, _) => {
            if challenged(core, index, upcall.key, response) {
                return;
            }
            (Some(response.status), format!("{} {}", response.status, response.reason))
        }
        Outcome::Timeout => (None, "no answer".to_owned()),
        Outcome::TransportError => (None, "transport error".to_owned()),
    };
    targets::change(core, index, &detail, |set, config| {
        // The name may lead elsewhere by now.
        let Some(target) = set.iter_mut().find(|t| pending(t)) else { return };
        target.probe = None;
        target.last_status = status;
        // Whoever answers lives, whatever the answer, unless it says that it cannot work.
        let lives = status.is_some_and(|s| s != 408 && s != 503);
        let enough = match (target.demoted, lives) {
            (true, true) => config.options_successes,
            (false, false) => config.options_failures,
            _ => {
                target.streak = 0;
                target.proved |= lives;
                return;
            }
        };
        target.streak += 1;
        if target.streak >= enough {
            (target.streak, target.demoted) = (0, !lives);
            target.proved |= lives;
        }
    });
}

/// Answers a challenge of the probe, once (RFC 3261 22).
fn challenged(core: &mut Core, index: usize, key: ClientKey, response: &Response) -> bool {
    let Some(trunk) = core.trunks.get_mut(index) else { return false };
    if !matches!(response.status, 401 | 407) {
        return false;
    }
    let pending = |t: &&mut Target| t.probe.as_ref().is_some_and(|(_, own)| *own == Some(key));
    let Some(target) = trunk.targets.iter_mut().find(pending) else { return false };
    let (Some(auth), Some((dialog, _))) = (&mut target.auth, &mut target.probe) else { return false };
    let www = response.head.texts(&Name::WwwAuthenticate);
    let proxy = response.head.texts(&Name::ProxyAuthenticate);
    let answered = target.challenges;
    if auth.challenged(www.iter().map(String::as_str), proxy.iter().map(String::as_str), answered).is_err() {
        return false;
    }
    target.challenges += 1;
    dialog.cseq += 1;
    let (transport, remote) = (target.transport, target.address);
    send(core, index, transport, remote);
    true
}
