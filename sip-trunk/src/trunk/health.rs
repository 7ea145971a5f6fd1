//! Whether a trunk's target lives: OPTIONS with hysteresis.

use std::net::SocketAddr;
use std::time::Duration;

use call_model::TrunkName;

use super::TrunkConfig;
use super::registration::RegistrationStatus;
use crate::auth::ClientAuth;
use crate::dialog::{Dialog, host_of, without_port};
use crate::endpoint::api::Event;
use crate::endpoint::core::{Core, Extra};
use crate::endpoint::io::hex;
use crate::transaction::client::{NewRequest, Outcome, Owner};
use crate::transaction::timer::{Alarm, Due};
use crate::wire::message::{Method, Name, Response};

/// What is known of a trunk's target.
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
    /// Where its requests go.
    pub target: SocketAddr,
    /// Whether that lives, and knows us where the trunk insists on its registration.
    pub state: TrunkState,
    /// The last answer to OPTIONS; `None` if there was none.
    pub last_status: Option<u16>,
    /// Calls now, both ways.
    pub calls: usize,
    /// Its registration, if it registers.
    pub registration: Option<RegistrationStatus>,
}

/// The OPTIONS machine of one trunk.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) state: TrunkState,
    pub(crate) last_status: Option<u16>,
    alarm: Alarm,
    /// Failures in a row while not down, successes in a row while down.
    streak: u32,
    pub(super) auth: Option<ClientAuth>,
    /// The probe under way: kept to repeat it with credentials.
    probe: Option<Dialog>,
    challenges: u8,
}

impl Health {
    pub(crate) fn new(config: &TrunkConfig) -> Self {
        Self {
            state: TrunkState::Unknown,
            last_status: None,
            alarm: Alarm::default(),
            streak: 0,
            auth: config.credentials.clone().map(ClientAuth::new),
            probe: None,
            challenges: 0,
        }
    }
}

/// Sets the first probe, spread so that many trunks are not asked at once.
pub(crate) fn start(core: &mut Core, index: usize) {
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let Some(interval) = trunk.config.options_interval else { return };
    let spread = interval.min(Duration::from_secs(2)).as_millis() as u64;
    let at = core.io.now + Duration::from_millis(core.io.random.between(0, spread));
    trunk.health.alarm.set(&mut core.io.timers, Due::Trunk(index), Some(at));
}

/// A deadline surfaced: time for a probe.
pub(crate) fn on_timer(core: &mut Core, index: usize, at: std::time::Instant) {
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let (timers, now) = (&mut core.io.timers, core.io.now);
    if !trunk.health.alarm.surfaced(timers, Due::Trunk(index), at, now) {
        return;
    }
    if let Some(interval) = trunk.config.options_interval {
        trunk.health.alarm.set(timers, Due::Trunk(index), Some(now + interval));
    }
    if trunk.health.probe.is_some() {
        return;
    }
    let (transport, remote, local) = (trunk.config.transport, trunk.config.target, trunk.config.local);
    let Some(path) = core.io.path(transport, remote, local) else { return };
    let tag = core.io.random.number();
    let target = format!("sip:{}", trunk.config.host);
    let probe = Dialog {
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
        target,
        routes: Vec::new(),
        fallback: path,
    };
    trunk.health.challenges = 0;
    trunk.health.probe = Some(probe);
    send(core, index);
}

fn send(core: &mut Core, index: usize) {
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let Some(dialog) = trunk.health.probe.clone() else { return };
    let mut extra = Extra::default();
    let cnonce = core.io.random.hex();
    if let Some(auth) = &mut trunk.health.auth {
        extra.lines = auth.headers("OPTIONS", &dialog.target, &[], &cnonce);
    }
    extra.lines.push(("Accept", crate::sdp::CONTENT_TYPE.to_owned()));
    let patience = Some(trunk.config.options_timeout);
    let branch = core.io.random.number();
    let path = dialog.fallback;
    let bytes = core.write_request(&dialog, Method::Options, dialog.cseq, &path, branch, &extra);
    let (method, cseq, owner) = (Method::Options, dialog.cseq, Owner::Trunk(index));
    let (trunk, in_dialog) = (index, false);
    let probe = NewRequest { branch, method, cseq, bytes, path, owner, trunk, in_dialog, patience };
    core.clients.start(&mut core.io, probe);
}

/// The probe came to an end, or to a provisional response.
pub(crate) fn on_outcome(core: &mut Core, index: usize, outcome: Outcome) {
    let (status, detail) = match outcome {
        Outcome::Response(response, _) if response.status < 200 => return,
        Outcome::Response(response, _) => {
            if challenged(core, index, &response) {
                return;
            }
            (Some(response.status), format!("{} {}", response.status, response.reason))
        }
        Outcome::Timeout => (None, "no answer".to_owned()),
        Outcome::TransportError => (None, "transport error".to_owned()),
    };
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let (health, config) = (&mut trunk.health, &trunk.config);
    health.probe = None;
    health.last_status = status;
    // Whoever answers lives, whatever the answer, unless it says that it cannot work.
    let lives = status.is_some_and(|s| s != 408 && s != 503);
    let changed = match (health.state, lives) {
        (TrunkState::Unknown, true) => true,
        (TrunkState::Up, true) | (TrunkState::Down, false) => {
            health.streak = 0;
            false
        }
        (TrunkState::Down, true) => {
            health.streak += 1;
            health.streak >= config.options_successes
        }
        (TrunkState::Unknown | TrunkState::Up, false) => {
            health.streak += 1;
            health.streak >= config.options_failures
        }
    };
    if changed {
        health.streak = 0;
        health.state = if lives { TrunkState::Up } else { TrunkState::Down };
        let up = lives && trunk.registered_if_required();
        core.events.push_back(Event::TrunkHealth { trunk: trunk.config.name.clone(), up, detail });
    }
}

/// Answers a challenge of the probe, once (RFC 3261 22).
fn challenged(core: &mut Core, index: usize, response: &Response) -> bool {
    let Some(trunk) = core.trunks.get_mut(index) else { return false };
    let health = &mut trunk.health;
    if !matches!(response.status, 401 | 407) {
        return false;
    }
    let (Some(auth), Some(probe)) = (&mut health.auth, &mut health.probe) else { return false };
    let www = response.head.texts(&Name::WwwAuthenticate);
    let proxy = response.head.texts(&Name::ProxyAuthenticate);
    let answered = health.challenges;
    if auth.challenged(www.iter().map(String::as_str), proxy.iter().map(String::as_str), answered).is_err() {
        return false;
    }
    health.challenges += 1;
    probe.cseq += 1;
    send(core, index);
    true
}
