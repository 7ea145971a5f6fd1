//! REGISTER (RFC 3261 10.3), with Path (RFC 3327) and flows (RFC 5626 6).

use std::net::SocketAddr;
use std::time::Duration;

use super::account::replace;
use super::binding::{Binding, Contact, MAX_URI, Probe, seconds};
use super::config::AccountConfig;
use super::{authenticate, user_of};
use crate::cause::reason_phrase;
use crate::dialog::uas::Refused;
use crate::endpoint::Transport;
use crate::endpoint::core::Core;
use crate::endpoint::io::Path;
use crate::text;
use crate::wire::message::{Head, Name, Request};

/// The option tags of a registrar, beside those of calls.
const EXTENSIONS: [&str; 2] = ["path", "outbound"];
/// The longest way through proxies that is kept.
const MAX_PATH: usize = 8;
/// The longest name of a user agent that is kept, in characters.
const MAX_USER_AGENT: usize = 64;

/// Answers a REGISTER. What is not refused outright gets a transaction, so that its repetition is not
/// taken for a replay of its credentials.
pub(crate) fn on_register(
    core: &mut Core,
    path: Path,
    reply_path: Path,
    source: SocketAddr,
    request: &Request,
) -> Result<(), Refused> {
    let head = &request.head;
    // RFC 3261 10.3 step 2, before anybody is asked who it is (8.2.2.3).
    let required = head.list(&Name::Require);
    let known = |tag: &str| EXTENSIONS.iter().any(|k| tag.eq_ignore_ascii_case(k));
    let group = |tag: &str| tag.eq_ignore_ascii_case("gin");
    let unknown: Vec<_> = required.iter().filter(|t| !known(t) && !group(t)).cloned().collect();
    if !unknown.is_empty() {
        return Err((420, vec![("Unsupported", unknown.join(", "))]));
    }
    // Steps 3 to 5.
    let index = authenticate(core, request, source)?;
    if !core.servers.room(source.ip(), true) {
        let wait = core.io.random.between(2, 10).to_string();
        return Err((503, vec![("Retry-After", wait)]));
    }
    let server = core.servers.start(request, source, reply_path, None);
    let (status, lines) = match register(core, index, path, request, required.iter().any(|t| group(t))) {
        Ok(lines) => (200, lines),
        Err((status, lines)) => {
            core.io.counters.refuse(label(status));
            (status, lines)
        }
    };
    let tag = core.io.random.hex();
    let Some(reply) = core.servers.head(server) else { return Ok(()) };
    let mut out = reply.begin(None, status, reason_phrase(status), Some(&tag));
    out.lines(core.common_lines(index));
    out.line("Supported", "path, outbound, gin");
    for (name, value) in &lines {
        out.line(name, value);
    }
    let bytes = out.finish(None);
    core.servers.respond(&mut core.io, server, status, bytes);
    Ok(())
}

fn label(status: u16) -> &'static str {
    match status {
        403 => "register_forbidden",
        420 => "bad_extension",
        423 => "interval_too_brief",
        439 => "first_hop_lacks_outbound",
        500 => "register_out_of_order",
        _ => "register_bad_request",
    }
}

fn refused(status: u16, why: &str) -> Refused {
    (status, vec![("Warning", format!("399 causeway {}", text::quote(why)))])
}

/// Carries a REGISTER out, all or nothing. Returns the lines of its 200.
fn register(
    core: &mut Core,
    index: usize,
    path: Path,
    request: &Request,
    group: bool,
) -> Result<Vec<(&'static str, String)>, Refused> {
    let head = &request.head;
    let now = core.io.now;
    let Some(account) = core.trunks.get(index).and_then(|trunk| trunk.account.as_ref()) else {
        return Err((500, Vec::new()));
    };
    let config = account.config();
    // Step 4: nobody registers for another.
    if user_of(&head.to.value).as_deref() != Some(config.user.as_str()) {
        return Err(refused(403, "this address of record is not yours"));
    }
    if !config.transports.contains(&path.transport) {
        return Err(refused(403, "not over this transport"));
    }
    if group && !config.many_users {
        return Err((420, vec![("Unsupported", "gin".to_owned())]));
    }
    let values = head.list(&Name::Contact);
    if values.is_empty() {
        return Ok(listing(core, index, false));
    }
    let serial = core.accounts.serial + 1;
    let asked = Asked { path, head, config, serial, now, expires: head.text(&Name::Expires) };
    let bindings = account.bindings();
    let (bindings, outbound) = match values.iter().any(|value| value.trim() == "*") {
        true => (asked.removal(bindings, &values)?, false),
        false => asked.update(bindings, &values)?,
    };
    core.accounts.serial += 1 + values.len() as u64;
    let vias = head.text(&Name::Path).is_some();
    replace(core, index, bindings, "registered contacts changed");
    let mut lines = listing(core, index, outbound);
    if vias {
        // RFC 3327 5.3: what is kept is told.
        lines.extend(head.texts(&Name::Path).into_iter().take(MAX_PATH).map(|value| ("Path", value)));
    }
    Ok(lines)
}

/// Step 8: all contacts, with what is left of their time.
fn listing(core: &Core, index: usize, outbound: bool) -> Vec<(&'static str, String)> {
    let account = core.trunks.get(index).and_then(|trunk| trunk.account.as_ref());
    let bindings = account.map_or(&[][..], super::Account::bindings);
    let now = core.io.now;
    let line = |b: &Binding| ("Contact", b.contact.write(b.left(now)));
    let mut lines: Vec<_> = bindings.iter().map(line).collect();
    if outbound {
        // RFC 5626 6.
        lines.push(("Require", "outbound".to_owned()));
    }
    lines
}

/// A REGISTER that changes something.
struct Asked<'a> {
    path: Path,
    head: &'a Head,
    config: &'a AccountConfig,
    serial: u64,
    now: std::time::Instant,
    expires: Option<String>,
}

impl Asked<'_> {
    /// Step 6: `*` removes everything, and stands alone.
    fn removal(&self, bindings: &[Binding], values: &[String]) -> Result<Vec<Binding>, Refused> {
        let zero = self.expires.as_deref().and_then(|e| seconds(e.trim())) == Some(0);
        if values.len() != 1 || !zero {
            return Err(refused(400, "* stands alone, with Expires: 0"));
        }
        if bindings.iter().any(|b| self.is_old_for(b)) {
            return Err((500, Vec::new()));
        }
        Ok(Vec::new())
    }

    /// Says whether this request was sent before the one that made a binding.
    fn is_old_for(&self, binding: &Binding) -> bool {
        binding.call_id == self.head.call_id && self.head.cseq <= binding.cseq
    }

    /// Step 7: each contact is added, refreshed or removed. Says too whether it was registered by the
    /// rules of RFC 5626.
    fn update(&self, bindings: &[Binding], values: &[String]) -> Result<(Vec<Binding>, bool), Refused> {
        let path = self.route_back()?;
        let mut left = bindings.to_vec();
        let mut contacts = Vec::new();
        for value in values {
            let contact =
                Contact::parse(value).ok_or_else(|| refused(400, "no request can be sent there"))?;
            contacts.push((self.granted(&contact)?, contact));
        }
        let outbound = self.outbound(&contacts, &path)?;
        let added = contacts.iter().filter(|(granted, _)| *granted > 0).count();
        if added > self.config.max_contacts {
            return Err(refused(403, "too many contacts"));
        }
        for (number, (granted, contact)) in contacts.into_iter().enumerate() {
            let known = left.iter().position(|b| contact.replaces(&b.contact, outbound && b.outbound));
            if let Some(at) = known {
                if left.get(at).is_some_and(|b| self.is_old_for(b) && b.refreshed != self.serial) {
                    return Err((500, Vec::new()));
                }
                left.remove(at);
            }
            if granted > 0 {
                left.push(self.binding(contact, granted, number, &path, outbound));
            }
        }
        while left.len() > self.config.max_contacts {
            let oldest = left.iter().enumerate().min_by_key(|(_, b)| b.refreshed).map(|(at, _)| at);
            match oldest.filter(|_| self.config.replace_oldest) {
                Some(at) => drop(left.remove(at)),
                None => return Err(refused(403, "too many contacts")),
            }
        }
        Ok((left, outbound))
    }

    /// How long a contact is granted, in seconds; 0 removes it.
    fn granted(&self, contact: &Contact) -> Result<u64, Refused> {
        let (min, max) = (self.config.min_expires.as_secs(), self.config.max_expires.as_secs());
        let header = self.expires.as_deref().map(|e| seconds(e.trim()).unwrap_or(3600));
        match contact.expires.or(header) {
            Some(0) => Ok(0),
            // RFC 3261 10.3 step 7 lets that be done below an hour only.
            Some(wanted) if wanted < min && wanted < 3600 => {
                Err((423, vec![("Min-Expires", min.to_string())]))
            }
            wanted => Ok(wanted.unwrap_or(3600).clamp(min, max)),
        }
    }

    /// RFC 3327 5.3: proxies put themselves on the way only if the user agent knows of that.
    fn route_back(&self) -> Result<Vec<String>, Refused> {
        let path = self.head.list(&Name::Path);
        if path.is_empty() {
            return Ok(path);
        }
        if !self.head.has_token(&Name::Supported, "path") {
            return Err((420, vec![("Unsupported", "path".to_owned())]));
        }
        if path.len() > MAX_PATH || path.iter().any(|route| route.len() > MAX_URI) {
            return Err(refused(400, "the Path is too long"));
        }
        Ok(path)
    }

    /// RFC 5626 6: whether a contact is registered as a flow.
    fn outbound(&self, contacts: &[(u64, Contact)], path: &[String]) -> Result<bool, Refused> {
        let flows = contacts.iter().filter(|(_, c)| c.instance.is_some() && c.reg_id.is_some());
        let live = flows.clone().filter(|(granted, _)| *granted > 0).count();
        if flows.count() == 0 || !self.head.has_token(&Name::Supported, "outbound") {
            return Ok(false);
        }
        if live > 1 {
            return Err(refused(400, "one flow registers one contact"));
        }
        // The first proxy, which named itself last, keeps the flow; without one, we do.
        let keeps = |route: &String| {
            let uri = crate::wire::message::addr_uri(route).and_then(super::Parts::of);
            uri.is_some_and(|uri| uri.parameter("ob").is_some())
        };
        match path.last() {
            Some(first) if keeps(first) => Ok(true),
            None if self.head.has_one_via() => Ok(true),
            _ => Err((439, Vec::new())),
        }
    }

    fn binding(
        &self,
        contact: Contact,
        granted: u64,
        number: usize,
        path: &[String],
        outbound: bool,
    ) -> Binding {
        let datagrams = self.path.transport == Transport::Udp;
        let next = self.config.keep_alive.filter(|_| datagrams).map(|every| self.now + every);
        let user_agent = self.head.text(&Name::UserAgent).unwrap_or_default();
        Binding {
            serial: self.serial + 1 + number as u64,
            call_id: self.head.call_id.clone(),
            cseq: self.head.cseq,
            expires: self.now + Duration::from_secs(granted),
            refreshed: self.serial,
            flow: self.path,
            path: path.to_vec(),
            outbound: outbound && contact.instance.is_some() && contact.reg_id.is_some(),
            user_agent: text::printable(&user_agent).chars().take(MAX_USER_AGENT).collect(),
            probe: Probe { next, ..Probe::default() },
            contact,
        }
    }
}
