//! Incoming calls: nobody gets through to the owner of the node unverified.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use call_model::{Address, CallId, Caller, Cause};
use libp2p::PeerId;

use super::calls::{Call, Owner};
use super::config::NodeRole;
use super::pump::StreamId;
use super::streams::CallStream;
use super::task::{Task, Timer};
use super::{CallerRole, NodeEvent, Refusal, VerifiedCaller};
use crate::calling::{
    Body, CallSession, Frame, FrameDecoder, Glare, Invite, SessionCommand, SessionEvent, glare,
};
use crate::identity::{
    Abilities, Assertion, IdentityError, InviteContext, Role, Standing, VerifiedParty, verify_invite,
};

/// How long an inbound stream may take to say what it is for.
pub(super) const FIRST_FRAME: Duration = Duration::from_secs(10);
/// Streams of one peer that have not said yet what they are for.
const MAX_FRESH_PER_PEER: usize = 32;
/// Peers that have such streams.
const MAX_FRESH_PEERS: usize = 1024;
/// How long the assertion in an invite is valid.
const ASSERTION_LIFE: u64 = 60;

/// An inbound stream before its first frame.
pub(super) struct Fresh {
    decoder: FrameDecoder,
}

impl Fresh {
    pub(super) fn new() -> Self {
        Self { decoder: FrameDecoder::new() }
    }
}

/// A call that another node makes to this one.
pub(super) struct Incoming {
    pub(super) session: CallSession,
    pub(super) peer: PeerId,
    pub(super) stream: Option<StreamId>,
    /// What may void the caller's certificate while the call lasts.
    pub(super) standing: Standing,
    /// Whether the caller's certificate lets it send text.
    may_text: bool,
    told_end: bool,
}

/// Whose call the owner of the node hears of.
struct Admission {
    caller: VerifiedCaller,
    standing: Standing,
    may_text: bool,
}

/// Why an invite is refused: what is counted, and what its sender hears.
struct Refused {
    reason: Refusal,
    cause: Cause,
    status: u16,
    text: &'static str,
    /// Whether the caller has broken a rule, beyond any difference of clocks or of what the two
    /// nodes know.
    provable: bool,
}

impl Refused {
    fn unverified(reason: Refusal, provable: bool) -> Self {
        let text = "the caller is not verified";
        Self { reason, cause: Cause::CALL_REJECTED, status: 403, text, provable }
    }
}

impl Task {
    /// Takes the beginning of an inbound stream.
    pub(super) fn on_first_bytes(&mut self, now: Instant, id: StreamId, bytes: &[u8]) {
        let Some(stream) = self.calls.streams.get_mut(&id) else { return };
        let peer = stream.peer;
        let Owner::Fresh(fresh) = &mut stream.owner else { return };
        let mut rest = bytes;
        let frame = match fresh.decoder.feed(&mut rest) {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%peer, reason = error.as_str(), "call stream refused");
                self.refuse_stream(id, Refusal::FrameInvalid);
                return;
            }
        };
        self.settle_fresh(id);
        match &frame.body {
            Body::Invite { .. } => self.on_invite(now, id, peer, frame, rest),
            Body::Resume { .. } => self.on_resume(now, id, peer, &frame, rest),
            _ => self.refuse_stream(id, Refusal::FrameInvalid),
        }
    }

    /// An inbound stream has not said what it is for. A slow path may be why.
    pub(super) fn on_silent_stream(&mut self, id: StreamId) {
        self.refusals.add(Refusal::FrameInvalid);
        self.settle_fresh(id);
        self.drop_stream(id);
    }

    fn refuse_stream(&mut self, id: StreamId, reason: Refusal) {
        if let Some(peer) = self.calls.streams.get(&id).map(|stream| stream.peer) {
            self.offended(&peer, reason);
        }
        self.settle_fresh(id);
        self.drop_stream(id);
    }

    /// Takes a stream that a peer has opened.
    pub(super) fn on_inbound_stream(&mut self, now: Instant, peer: PeerId, stream: CallStream) {
        let of_peer = self.calls.fresh.get(&peer).map_or(0, HashSet::len);
        let crowded = of_peer >= MAX_FRESH_PER_PEER || self.calls.fresh.len() >= MAX_FRESH_PEERS;
        if crowded || self.calls.streams.len() >= 2 * self.limits.calls {
            self.refusals.add(Refusal::StreamQuota);
            return;
        }
        let id = self.start_stream(peer, stream, Owner::Fresh(Fresh::new()));
        self.calls.fresh.entry(peer).or_default().insert(id);
        self.timers.set(Timer::FirstFrame(id), Some(now + FIRST_FRAME));
    }

    /// An inbound stream has said what it is for, or is gone.
    pub(super) fn settle_fresh(&mut self, id: StreamId) {
        self.timers.set(Timer::FirstFrame(id), None);
        self.calls.fresh.retain(|_, streams| {
            streams.remove(&id);
            !streams.is_empty()
        });
    }

    fn on_invite(&mut self, now: Instant, id: StreamId, peer: PeerId, frame: Frame, rest: &[u8]) {
        let Body::Invite { invite, .. } = &frame.body else { return };
        let invite = (**invite).clone();
        let call = invite.call;
        if self.calls.table.contains_key(&call) {
            self.refuse_stream(id, Refusal::CallReplayed);
            return;
        }
        let mut session = match CallSession::incoming(frame, self.session_timers(), now) {
            Ok(session) => session.taking_refer(!self.role.is_server()),
            Err(_) => {
                self.refuse_stream(id, Refusal::FrameInvalid);
                return;
            }
        };
        match self.judge(&invite, &peer) {
            Ok(Admission { caller, standing, may_text }) => {
                session.handle_bytes(now, rest);
                if let Some(stream) = self.calls.streams.get_mut(&id) {
                    stream.owner = Owner::Incoming(call);
                }
                let incoming =
                    Incoming { session, peer, stream: Some(id), standing, may_text, told_end: false };
                self.calls.table.insert(call, Call::Incoming(Box::new(incoming)));
                self.emit(NodeEvent::Incoming { call, from: caller, to: invite.to, media: invite.media });
                self.service(now, call);
            }
            Err(refused) => {
                tracing::info!(%call, reason = refused.reason.as_str(), "incoming call refused");
                self.refuse_invite(now, id, &peer, session, refused);
            }
        }
    }

    /// Says no on the stream and forgets the call at once: whoever proves nothing takes no place
    /// that a caller could have.
    fn refuse_invite(
        &mut self,
        now: Instant,
        id: StreamId,
        peer: &PeerId,
        mut session: CallSession,
        refused: Refused,
    ) {
        let Refused { reason, cause, status, text, provable } = refused;
        let reject = SessionCommand::Reject { cause, sip_status: Some(status), text: text.to_owned() };
        // A session that has just begun takes a reject.
        let _ = session.handle_command(now, reject);
        if let Some(stream) = self.calls.streams.get(&id) {
            while let Some(bytes) = session.poll_transmit() {
                stream.output.write(bytes);
            }
        }
        self.drop_stream(id);
        if provable {
            self.offended(peer, reason);
        } else {
            self.refusals.add(reason);
        }
    }

    /// Decides whether the owner of the node hears of an invite.
    fn judge(&mut self, invite: &Invite, peer: &PeerId) -> Result<Admission, Refused> {
        if self.draining || self.calls.table.len() >= self.limits.calls {
            return Err(Refused {
                reason: Refusal::CallLimit,
                cause: Cause::SWITCHING_EQUIPMENT_CONGESTION,
                status: 503,
                text: "no room for the call",
                provable: false,
            });
        }
        let assertion = Assertion {
            call: invite.call,
            from: &invite.from,
            to: &invite.to,
            nonce: invite.nonce,
            expires_unix: invite.expires_unix,
            media: &invite.media,
        };
        let mut context = InviteContext {
            trust: &self.trust,
            revocations: &self.revocations,
            nonces: &mut self.nonces,
            unix: super::task::unix_now(),
        };
        let party = verify_invite(&invite.certificate, &assertion, &invite.signature, peer, &mut context)
            .map_err(|error| Refused::unverified(reason_of(&error), is_provable(&error)))?;
        let standing = party.standing().clone();
        let may_text = may_text(&party);
        let caller = match party {
            VerifiedParty::Handle(holder) => {
                let needed = match invite.to {
                    Address::Number(_) => Abilities::CALL_NUMBERS,
                    Address::Handle(_) => Abilities::CALL_HANDLES,
                };
                if !holder.abilities.contains(needed) {
                    return Err(Refused {
                        reason: Refusal::CallCertificate,
                        cause: Cause::BEARER_CAPABILITY_NOT_AUTHORIZED,
                        status: 403,
                        text: "the caller's certificate does not permit this call",
                        provable: true,
                    });
                }
                let own = Address::Handle(holder.handle.clone());
                VerifiedCaller {
                    caller: Caller {
                        address: invite.from.address.clone().or(Some(own)),
                        ..invite.from.clone()
                    },
                    handle: Some(holder.handle),
                    numbers: holder.numbers,
                    role: CallerRole::User,
                    peer: peer.to_string(),
                }
            }
            VerifiedParty::Node(node) if node.role == Role::Gateway => VerifiedCaller {
                caller: invite.from.clone(),
                handle: None,
                numbers: Vec::new(),
                role: CallerRole::Gateway,
                peer: peer.to_string(),
            },
            VerifiedParty::Node(_) => return Err(Refused::unverified(Refusal::CallCertificate, true)),
        };
        self.check_callee(invite, &caller)?;
        Ok(Admission { caller, standing, may_text })
    }

    /// A user takes calls for its own handle only, and settles calls that cross.
    fn check_callee(&mut self, invite: &Invite, caller: &VerifiedCaller) -> Result<(), Refused> {
        let NodeRole::User { certificate } = &self.role else { return Ok(()) };
        if matches!(&invite.to, Address::Handle(handle) if *handle != certificate.claims().handle) {
            return Err(Refused {
                reason: Refusal::CallCallerMismatch,
                cause: Cause::UNALLOCATED_NUMBER,
                status: 404,
                text: "no such user here",
                provable: false,
            });
        }
        if !certificate.claims().abilities.contains(Abilities::BE_CALLED) {
            return Err(Refused {
                reason: Refusal::CallCertificate,
                cause: Cause::BEARER_CAPABILITY_NOT_AUTHORIZED,
                status: 403,
                text: "the user's certificate does not permit being called",
                provable: false,
            });
        }
        let Some(handle) = &caller.handle else { return Ok(()) };
        let crossing = self.calls.table.iter().find_map(|(call, entry)| match entry {
            Call::Outgoing(outgoing) if outgoing.is_ringing(handle) => Some(*call),
            _ => None,
        });
        let Some(own) = crossing else { return Ok(()) };
        match glare(own, invite.call) {
            Glare::KeepOwn => Err(Refused {
                reason: Refusal::CallLimit,
                cause: Cause::USER_BUSY,
                status: 486,
                text: "calling you at this moment",
                provable: false,
            }),
            Glare::YieldOwn => {
                self.yielded.push(own);
                Ok(())
            }
        }
    }

    /// A caller puts its call on a new stream.
    fn on_resume(&mut self, now: Instant, id: StreamId, peer: PeerId, frame: &Frame, rest: &[u8]) {
        let Body::Resume { call, .. } = frame.body else { return };
        let unix = self.unix();
        let resumed = match self.calls.table.get_mut(&call) {
            // Only the device that holds the call may move it, while its certificate is good.
            Some(Call::Incoming(incoming))
                if incoming.peer == peer && incoming.standing.is_good(&self.revocations, unix) =>
            {
                incoming.session.reattach(now, frame).is_ok().then(|| incoming.stream.replace(id))
            }
            _ => None,
        };
        let Some(before) = resumed else {
            if let Some(stream) = self.calls.streams.get(&id) {
                stream.output.write(Frame::resume_refused().encode());
            }
            // The call may have ended here while its stream was lost.
            self.refusals.add(Refusal::ResumeUnknown);
            self.settle_fresh(id);
            self.drop_stream(id);
            return;
        };
        if let Some(stream) = self.calls.streams.get_mut(&id) {
            stream.owner = Owner::Incoming(call);
        }
        if let Some(before) = before {
            self.drop_stream(before);
        }
        if let Some(Call::Incoming(incoming)) = self.calls.table.get_mut(&call) {
            incoming.session.handle_bytes(now, rest);
        }
        self.service(now, call);
    }

    pub(super) fn service_incoming(&mut self, now: Instant, call: CallId) -> Option<Instant> {
        let Some(Call::Incoming(incoming)) = self.calls.table.get_mut(&call) else { return None };
        let mut stuck = false;
        while let Some(bytes) = incoming.session.poll_transmit() {
            if let Some(stream) = incoming.stream.and_then(|id| self.calls.streams.get(&id)) {
                stuck |= !stream.output.write(bytes);
            }
        }
        let mut events = Vec::new();
        while let Some(event) = incoming.session.poll_event() {
            let refused = matches!(event, SessionEvent::Message { .. }) && !incoming.may_text;
            let heard = !incoming.told_end && !refused && !matches!(event, SessionEvent::Invited(_));
            incoming.told_end |= matches!(event, SessionEvent::Ended { .. });
            if heard {
                events.push(event);
            }
        }
        let stream = incoming.stream;
        let finished = incoming.session.is_finished();
        if stuck {
            incoming.stream = None;
            incoming.session.handle_closed(now);
        }
        let next = incoming.session.poll_timeout();
        for event in events {
            self.emit(NodeEvent::Call { call, event });
        }
        if let Some(stream) = stream.filter(|_| finished || stuck) {
            self.drop_stream(stream);
        }
        if finished {
            self.calls.table.remove(&call);
            return None;
        }
        if stuck {
            return self.service_incoming(now, call);
        }
        next
    }

    /// Signs an invite to one device.
    pub(super) fn assert_invite(&self, call: CallId, from: Caller, to: Address, media: String) -> Invite {
        let nonce = self.random();
        let expires_unix = self.unix() + ASSERTION_LIFE;
        let assertion = Assertion { call, from: &from, to: &to, nonce, expires_unix, media: &media };
        let signature = assertion.sign(&self.key).to_vec();
        Invite { call, certificate: self.credential.clone(), from, to, media, nonce, expires_unix, signature }
    }

    /// Completes what the owner of the node says of the caller. `None` where a user would call
    /// under an address that is not its own.
    pub(super) fn complete_caller(&self, from: Caller) -> Option<Caller> {
        let display_name = from.display_name.as_deref().and_then(Caller::clean_display_name);
        let address = match (&self.party, from.address) {
            (VerifiedParty::Handle(holder), None) => Some(Address::Handle(holder.handle.clone())),
            (VerifiedParty::Handle(_), Some(address)) => {
                Some(Some(address).filter(|address| self.party.may_call_as(address))?)
            }
            // A name from the telephone side is no overlay identity.
            (VerifiedParty::Node(_), address) => address.filter(|address| self.party.may_call_as(address)),
        };
        Some(Caller { address, display_name, private: from.private })
    }
}

/// Says whether a party may send text: a user whose certificate says so, and every gateway.
pub(super) fn may_text(party: &VerifiedParty) -> bool {
    match party {
        VerifiedParty::Handle(holder) => holder.abilities.contains(Abilities::TEXT),
        VerifiedParty::Node(_) => true,
    }
}

/// Says whether an invite was refused for what it is: not for a clock, a revocation, another root
/// or a full table.
fn is_provable(error: &IdentityError) -> bool {
    matches!(
        error,
        IdentityError::WrongKey { .. }
            | IdentityError::AddressNotCertified { .. }
            | IdentityError::BadSignature { .. }
            | IdentityError::Malformed { .. }
            | IdentityError::Replayed
    )
}

fn reason_of(error: &IdentityError) -> Refusal {
    match error {
        IdentityError::Replayed => Refusal::CallReplayed,
        IdentityError::TooManyAssertions => Refusal::CallLimit,
        IdentityError::AssertionExpired { .. } | IdentityError::AssertionTooLong { .. } => {
            Refusal::CallExpired
        }
        IdentityError::WrongKey { .. } => Refusal::CallKeyMismatch,
        IdentityError::AddressNotCertified { .. } => Refusal::CallCallerMismatch,
        IdentityError::BadSignature { subject } if subject == "the caller's assertion" => {
            Refusal::CallSignature
        }
        IdentityError::Malformed { what: "the signature" } => Refusal::CallSignature,
        _ => Refusal::CallCertificate,
    }
}
