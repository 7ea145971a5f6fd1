//! One DTLS association of a trunk leg (RFC 5764): its handshake, the certificate of the peer, the keys.

use std::time::{Duration, Instant};

use call_model::{DtlsParameters, DtlsRole, Fingerprint, FingerprintHash, SrtpKeys};
use dimpl::Dtls;
use str0m::crypto::dtls::{DtlsImplError, DtlsOutput};

use super::keying::{MasterKeys, with_scratch};
use super::webrtc::{DtlsIdentity, LegFailure, fingerprint_of};
use crate::error::MediaError;

/// Handshakes that may go wrong, other than by silence, before the association is given up: what comes is not
/// authenticated before the end, so one bad message proves nothing.
const FAULTS_MAX: u8 = 8;
/// How long a client waits after one before it begins anew.
const PAUSE: Duration = Duration::from_secs(1);
/// Largest datagram that is taken: nobody sends a DTLS record over more than an Ethernet frame.
const DATAGRAM_MAX: usize = 1_500;
/// The least time between two timeouts.
const GRAIN: Duration = Duration::from_millis(1);
/// Datagrams of one answer, a bound for a loop: a flight has a handful.
const OUTPUTS_MAX: usize = 64;

/// What an association has come to.
pub(super) enum Outcome {
    /// The peer has the certificate that was described, and these are the keys (RFC 5764 4.2).
    Keys(SrtpKeys),
    /// It is over without keys. Comes once, and last.
    Failed(LegFailure),
}

pub(super) struct Association {
    /// `None` while a client pauses, and once the association is over.
    instance: Option<Box<Dtls>>,
    identity: DtlsIdentity,
    role: DtlsRole,
    fingerprints: Vec<Fingerprint>,
    /// The certificate was one of those.
    verified: bool,
    keyed: bool,
    over: bool,
    faults: u8,
    wake: Option<Instant>,
    /// Of the client whose handshake this is (RFC 5246 7.4.1.2).
    client_random: Option<ClientRandom>,
    /// The handshake of a client that begins anew, and when that was. Until it is through, what was agreed on before
    /// counts (RFC 6347 4.2.8).
    successor: Option<(Instant, Box<Association>)>,
}

/// The random octets of a ClientHello.
type ClientRandom = [u8; 32];

impl Association {
    /// Begins an association; a client's first message goes out at the next timeout, which is due at once.
    pub(super) fn new(
        identity: &DtlsIdentity,
        parameters: &DtlsParameters,
        now: Instant,
    ) -> Result<Self, MediaError> {
        let mut association = Self {
            instance: None,
            identity: identity.clone(),
            role: parameters.role,
            fingerprints: strongest(&parameters.fingerprints),
            verified: false,
            keyed: false,
            over: false,
            faults: 0,
            wake: None,
            client_random: None,
            successor: None,
        };
        association.begin(now).ok_or(MediaError::Certificate)?;
        Ok(association)
    }

    fn begin(&mut self, now: Instant) -> Option<()> {
        let mut instance = self.identity.dtls(now)?;
        instance.set_active(self.role == DtlsRole::Active);
        self.instance = Some(instance);
        self.client_random = None;
        self.verified = false;
        self.wake = Some(now);
        Some(())
    }

    /// Takes a datagram. Returns false if it is none for this association.
    pub(super) fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) -> bool {
        if self.role == DtlsRole::Passive
            && let Some(random) = client_random(datagram)
        {
            if self.keyed && self.client_random != Some(random) {
                return self.succeed(now, random, datagram);
            }
            self.client_random = Some(random);
        }
        // What follows a first message does not say whose it is: it is for who understands it.
        let succeeds = self.successor.as_mut().is_some_and(|(_, next)| next.handle_datagram(now, datagram));
        self.take_datagram(now, datagram) || succeeds
    }

    /// Takes the first message of a client that has lost its association, or says so.
    fn succeed(&mut self, now: Instant, random: ClientRandom, datagram: &[u8]) -> bool {
        let known = self.successor.as_ref().is_some_and(|(since, next)| {
            next.client_random == Some(random) || now.saturating_duration_since(*since) < PAUSE
        });
        if !known {
            let parameters =
                DtlsParameters { role: self.role, fingerprints: self.fingerprints.clone(), tls_id: None };
            let next = Self::new(&self.identity, &parameters, now);
            self.successor = next.ok().map(|next| (now, Box::new(next)));
        }
        self.successor.as_mut().is_some_and(|(_, next)| next.handle_datagram(now, datagram))
    }

    fn take_datagram(&mut self, now: Instant, datagram: &[u8]) -> bool {
        let Some(instance) = self.instance.as_mut().filter(|_| datagram.len() <= DATAGRAM_MAX) else {
            return false;
        };
        let result = instance.handle_timeout(now).and_then(|()| instance.handle_packet(datagram));
        self.wake = Some(now);
        match result {
            Ok(()) => true,
            Err(error) => {
                self.fault(now, &error);
                false
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let next = self.successor.as_ref().and_then(|(_, next)| next.poll_timeout());
        self.wake.into_iter().chain(next).min()
    }

    /// Does what is due and sends what is to be sent.
    pub(super) fn handle_timeout(&mut self, now: Instant, emit: &mut dyn FnMut(&[u8])) -> Option<Outcome> {
        if let Some((_, next)) = &mut self.successor {
            match next.handle_timeout(now, emit) {
                Some(Outcome::Keys(keys)) => {
                    let (_, next) = self.successor.take()?;
                    *self = *next;
                    return Some(Outcome::Keys(keys));
                }
                // Whoever it was, it was not the peer.
                Some(Outcome::Failed(_)) => self.successor = None,
                // It was silent, or did not know what it began.
                None if next.client_random.is_none() => self.successor = None,
                None => {}
            }
        }
        self.handle_own_timeout(now, emit)
    }

    fn handle_own_timeout(&mut self, now: Instant, emit: &mut dyn FnMut(&[u8])) -> Option<Outcome> {
        if self.wake.is_none_or(|at| at > now) {
            return None;
        }
        self.wake = None;
        if self.over {
            return (!self.keyed).then_some(Outcome::Failed(LegFailure::Handshake));
        }
        if self.instance.is_none() && (self.keyed || self.begin(now).is_none()) {
            return None;
        }
        let instance = self.instance.as_mut()?;
        if let Err(error) = instance.handle_timeout(now) {
            self.fault(now, &error);
            return None;
        }
        self.drain(now, emit)
    }

    /// RFC 5764 4.1: keys count once the handshake is through and the certificate is the one described.
    fn drain(&mut self, now: Instant, emit: &mut dyn FnMut(&[u8])) -> Option<Outcome> {
        let mut keys = None;
        for _ in 0..OUTPUTS_MAX {
            let instance = self.instance.as_mut()?;
            let fingerprints = &self.fingerprints;
            let step = with_scratch(|scratch| match instance.poll_output(scratch) {
                DtlsOutput::Packet(packet) => {
                    emit(packet);
                    Step::Next
                }
                DtlsOutput::PeerCert(certificate) => {
                    let matches = |known: &Fingerprint| fingerprint_of(known.hash(), certificate) == *known;
                    Step::Certificate(fingerprints.iter().any(matches))
                }
                DtlsOutput::KeyingMaterial(material, profile) => {
                    Step::Keys(MasterKeys::split(&material, profile, instance.is_active()))
                }
                DtlsOutput::Timeout(at) => Step::Wait(at),
                // What else an association carries is none of ours; the end of the call comes by signalling.
                _ => Step::Next,
            });
            match step {
                Step::Next => {}
                Step::Certificate(true) => self.verified = true,
                Step::Certificate(false) => return Some(self.fail(LegFailure::Fingerprint)),
                Step::Keys(Some(material)) if self.verified => {
                    self.keyed = true;
                    keys = Some(Outcome::Keys(material.into_keys()));
                }
                // Without a certificate, or for a transform that was not offered.
                Step::Keys(_) => return Some(self.fail(LegFailure::Handshake)),
                Step::Wait(at) => {
                    self.wake = Some(at.max(now + GRAIN));
                    break;
                }
            }
        }
        keys
    }

    fn fail(&mut self, failure: LegFailure) -> Outcome {
        self.instance = None;
        self.over = true;
        self.wake = None;
        Outcome::Failed(failure)
    }

    /// The instance is of no use any more. Keys that were agreed on stay: SRTP does not need it.
    fn fault(&mut self, now: Instant, error: &DtlsImplError) {
        self.instance = None;
        self.wake = None;
        if self.keyed {
            return;
        }
        // A peer that is silent may have to be told of the answer yet.
        if !matches!(error, DtlsImplError::Timeout(_)) {
            self.faults += 1;
        }
        if self.faults >= FAULTS_MAX {
            self.over = true;
            self.wake = Some(now);
            return;
        }
        match self.role {
            DtlsRole::Passive => {
                self.begin(now);
            }
            DtlsRole::Active => self.wake = Some(now + PAUSE),
        }
    }

    /// Sends a close_notify, if there is something to close. Nothing is sent after.
    pub(super) fn close(&mut self, emit: &mut dyn FnMut(&[u8])) {
        self.successor = None;
        let Some(mut instance) = self.instance.take().filter(|_| self.keyed) else { return };
        self.wake = None;
        if instance.close().is_err() {
            return;
        }
        with_scratch(|scratch| {
            for _ in 0..OUTPUTS_MAX {
                match instance.poll_output(scratch) {
                    DtlsOutput::Packet(packet) => emit(packet),
                    DtlsOutput::Timeout(_) => break,
                    _ => {}
                }
            }
        });
    }
}

/// What an instance said, without its buffer.
enum Step {
    Next,
    Certificate(bool),
    Keys(Option<MasterKeys>),
    Wait(Instant),
}

/// Returns what tells one client's handshake from another, if this is the first message of one: a record of a handshake
/// in epoch 0 (RFC 6347 4.1) that holds the beginning of a ClientHello (4.2.2).
fn client_random(datagram: &[u8]) -> Option<ClientRandom> {
    const RANDOM: std::ops::Range<usize> = 13 + 12 + 2..13 + 12 + 2 + 32;
    let (record, message) = datagram.split_at_checked(13)?;
    let begins = matches!(record, [22, _, _, 0, 0, ..]) && message.first() == Some(&1);
    let whole = message.get(6..9) == Some(&[0; 3]);
    datagram.get(RANDOM).filter(|_| begins && whole)?.try_into().ok()
}

/// RFC 8122 5.1: of several hash functions the strongest counts.
fn strongest(fingerprints: &[Fingerprint]) -> Vec<Fingerprint> {
    let best: Option<FingerprintHash> = fingerprints.iter().map(Fingerprint::hash).max();
    fingerprints.iter().filter(|known| Some(known.hash()) == best).cloned().collect()
}
