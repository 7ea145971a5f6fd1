//! OPTIONS to contacts over UDP: do they live, and does the way there stay open.

use std::time::Duration;

use super::account::{Account, arm};
use super::reach::path_to;
use crate::dialog::{Dialog, host_of};
use crate::endpoint::Transport;
use crate::endpoint::core::{Core, Extra};
use crate::endpoint::io::hex;
use crate::transaction::client::{NewRequest, Outcome, Owner};
use crate::wire::message::Method;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks those contacts of an account whose time has come.
pub(super) fn send_due(core: &mut Core, index: usize) {
    let now = core.io.now;
    let Some(account) = core.trunks.get_mut(index).and_then(|t| t.account.as_mut()) else { return };
    let Some(every) = account.config().keep_alive else { return };
    let symmetric = account.config().symmetric;
    let mut probes = Vec::new();
    for binding in &mut account.bindings {
        if binding.flow.transport != Transport::Udp || binding.probe.next.is_some_and(|at| at > now) {
            continue;
        }
        binding.probe.next = Some(now + every);
        if !std::mem::replace(&mut binding.probe.pending, true) {
            probes.push((binding.serial, binding.contact.uri.clone(), binding.path.clone(), binding.clone()));
        }
    }
    for (serial, target, routes, binding) in probes {
        let path = path_to(&core.io, &binding, symmetric);
        let tag = core.io.random.number();
        let dialog = Dialog {
            trunk: index,
            established: false,
            udp_only: true,
            call_id: core.io.random.hex(),
            local: format!("<sip:{}>;tag={}", host_of(path.local), hex(tag)),
            remote: format!("<{target}>"),
            remote_tag: String::new(),
            cseq: 1,
            remote_cseq: None,
            target,
            routes,
            fallback: path,
        };
        let branch = core.io.random.number();
        let bytes = core.write_request(&dialog, Method::Options, 1, &path, branch, &Extra::default());
        let owner = Owner::Contact(index, serial);
        let (method, cseq, trunk, in_dialog, patience) = (Method::Options, 1, index, false, Some(PATIENCE));
        let probe = NewRequest { branch, method, cseq, bytes, path, owner, trunk, in_dialog, patience };
        core.clients.start(&mut core.io, probe);
    }
}

/// The question came to an end, or to a provisional response. Whatever the answer, who answers lives.
pub(crate) fn on_outcome(core: &mut Core, index: usize, serial: u64, outcome: &Outcome) {
    let lives = match outcome {
        Outcome::Response(response, _) if response.status < 200 => return,
        Outcome::Response(..) => true,
        Outcome::Timeout | Outcome::TransportError => false,
    };
    let account: Option<&mut Account> = core.trunks.get_mut(index).and_then(|t| t.account.as_mut());
    let Some(account) = account else { return };
    if let Some(binding) = account.bindings.iter_mut().find(|b| b.serial == serial) {
        binding.probe.pending = false;
        binding.probe.missed = if lives { 0 } else { binding.probe.missed.saturating_add(1) };
    }
    arm(core, index);
}
