//! DTLS on a trunk leg (RFC 5763, RFC 5764): what of it comes and goes on the ports of media, and whose keys count.

use std::net::SocketAddr;
use std::time::Instant;

use call_model::{LegMedia, MediaSecurity};

use super::{Content, Refusal, RtpEmit, RtpLeg};
use crate::bridge::Port;
use crate::error::MediaError;
use crate::leg::components::Components;
use crate::leg::latch::{Latch, Origin};
use crate::leg::security::Security;
use crate::leg::webrtc::{DtlsIdentity, LegFailure};

/// Octets of a datagram that is kept until there is a description to judge it by.
const MAX_DATAGRAM: usize = 1_500;

impl RtpLeg {
    /// Gives the leg a certificate. Without, it takes no media that DTLS keys.
    #[must_use]
    pub fn with_identity(mut self, identity: Option<DtlsIdentity>) -> Self {
        self.identity = identity;
        self
    }

    /// Begins the DTLS associations that a description asks for, goes on with those there are, or ends them.
    pub(super) fn set_dtls(&mut self, media: &LegMedia, now: Instant) -> Result<(), MediaError> {
        let MediaSecurity::DtlsSrtp(parameters) = &media.security else {
            self.dtls = None;
            return Ok(());
        };
        let identity = self.identity.as_ref().ok_or(MediaError::TrunkMedia("DTLS without a certificate"))?;
        if parameters.fingerprints.is_empty() {
            return Err(MediaError::TrunkMedia("DTLS without a fingerprint"));
        }
        let described = Some(media.remote_rtp).filter(|at| at.port() != 0 && !at.ip().is_unspecified());
        let separate = media.remote_rtcp.is_some();
        match self.dtls.as_mut().filter(|dtls| dtls.continues(parameters, described)) {
            Some(dtls) => dtls.update(identity, described, separate, now)?,
            None => {
                let dtls = Components::new(identity, parameters, described, separate, now)?;
                self.dtls = Some(Box::new(dtls));
            }
        }
        Ok(())
    }

    /// RFC 5763 5: who answers may begin the handshake before the answer is here.
    pub(super) fn take_early(&mut self, now: Instant) {
        if let Some((port, source, datagram)) = self.early.take()
            && self.dtls.is_some()
        {
            let result = self.receive_dtls(now, port, source, &datagram);
            // It counts as any other.
            let _ = result.inspect_err(|&refusal| self.counters.refused[refusal as usize] += 1);
        }
    }

    pub(super) fn expects_dtls(&self) -> bool {
        match &self.media {
            Some(media) => matches!(media.security, MediaSecurity::DtlsSrtp(_)),
            None => self.identity.is_some(),
        }
    }

    /// Takes a datagram of DTLS. What it calls for goes out with [`poll_transmit`](Self::poll_transmit).
    pub(super) fn receive_dtls(
        &mut self,
        now: Instant,
        port: Port,
        source: SocketAddr,
        datagram: &[u8],
    ) -> Result<(Content, usize), Refusal> {
        if self.media.is_none() {
            if datagram.len() > MAX_DATAGRAM {
                return Err(Refusal::Malformed);
            }
            self.early = Some((port, source, datagram.into()));
            return Ok((Content::Nothing, 0));
        }
        // Without ICE the description alone says who the peer is, and what the rule believes in its place: a stranger
        // must not get into the handshake. Here SRTP can prove nothing yet.
        let origin = self.latches[port as usize].judge(source, false);
        if origin == Origin::Stranger {
            return Err(Refusal::Source);
        }
        let dtls = self.dtls.as_mut().ok_or(Refusal::Handshake)?;
        if dtls.handle_datagram(now, port, datagram) {
            self.follow(port, source, origin);
            Ok((Content::Nothing, 0))
        } else {
            Err(Refusal::Handshake)
        }
    }

    /// Sends what a datagram of DTLS called for. What is left for [`handle_timeout`](Self::handle_timeout) is late by
    /// as much.
    pub fn poll_transmit(&mut self, now: Instant, emit: RtpEmit<'_>) {
        let Some(dtls) = &mut self.dtls else { return };
        let latches = &self.latches;
        dtls.handle_timeout(now, &mut |port, bytes| send_dtls(latches, port, bytes, emit));
    }

    /// Returns why DTLS will give no keys, once: then no media comes until the next offer and answer.
    pub fn poll_failure(&mut self) -> Option<LegFailure> {
        let failure = self.dtls.as_mut()?.poll_failure()?;
        self.counters.refused[Refusal::Fingerprint as usize] += u64::from(failure == LegFailure::Fingerprint);
        Some(failure)
    }

    /// Says whether media may be sent now: it was negotiated, nobody holds, and there are keys if any are wanted.
    pub fn can_send(&self) -> bool {
        self.media.as_ref().is_some_and(|media| {
            let keyed = match media.security {
                MediaSecurity::DtlsSrtp(_) => {
                    self.dtls.as_ref().is_some_and(|dtls| dtls.security(Port::Rtp).is_some())
                }
                _ => true,
            };
            keyed && media.direction.sends()
        })
    }

    /// Ends the associations.
    pub(super) fn close_dtls(&mut self, emit: RtpEmit<'_>) {
        if let Some(mut dtls) = self.dtls.take() {
            dtls.close(&mut |port, bytes| send_dtls(&self.latches, port, bytes, emit));
        }
        self.identity = None;
        self.early = None;
    }
}

/// Returns what the packets of a kind are protected with, `None` for plain RTP.
pub(super) fn security_of<'a>(
    media: &LegMedia,
    signalled: &'a mut Option<Box<Security>>,
    dtls: &'a mut Option<Box<Components>>,
    rtcp: bool,
) -> Result<Option<&'a mut Security>, Refusal> {
    let security = match media.security {
        MediaSecurity::None => return Ok(None),
        MediaSecurity::Sdes(_) => signalled.as_deref_mut(),
        MediaSecurity::DtlsSrtp(_) => {
            dtls.as_mut().and_then(|dtls| dtls.security_mut(component(media, rtcp)))
        }
    };
    security.map(Some).ok_or(Refusal::Keyless)
}

/// Returns what was made of a datagram: `length` octets, where it was protected.
pub(super) fn plain_of<'a>(
    media: Option<&LegMedia>,
    signalled: &'a Option<Box<Security>>,
    dtls: &'a Option<Box<Components>>,
    datagram: &'a [u8],
    length: usize,
    rtcp: bool,
) -> &'a [u8] {
    let Some(media) = media else { return datagram };
    let security = match &media.security {
        MediaSecurity::None => return datagram,
        MediaSecurity::Sdes(_) => signalled.as_deref(),
        MediaSecurity::DtlsSrtp(_) => dtls.as_ref().and_then(|dtls| dtls.security(component(media, rtcp))),
    };
    security.map_or(&[], |security| security.plain(length))
}

/// The component of a kind of packet: RTCP has one of its own, unless it shares the port of RTP (RFC 5761).
fn component(media: &LegMedia, rtcp: bool) -> Port {
    if rtcp && media.remote_rtcp.is_some() { Port::Rtcp } else { Port::Rtp }
}

/// RFC 7983 7.
pub(super) fn is_dtls(datagram: &[u8]) -> bool {
    matches!(datagram, [20..=63, ..])
}

fn send_dtls(latches: &[Latch; 2], port: Port, bytes: &[u8], emit: RtpEmit<'_>) {
    let usable = |remote: &SocketAddr| !remote.ip().is_unspecified() && remote.port() != 0;
    if let Some(destination) = latches[port as usize].remote().filter(usable) {
        emit(port, destination, bytes);
    }
}
