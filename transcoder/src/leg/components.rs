//! The DTLS associations of a trunk leg: one for RTP and what shares its port, another for RTCP where that has a port of
//! its own (RFC 5764 4.1), each with keys of its own.

use std::net::SocketAddr;
use std::time::Instant;

use call_model::DtlsParameters;

use super::association::{Association, Outcome};
use super::security::Security;
use super::webrtc::{DtlsIdentity, LegFailure};
use crate::bridge::Port;
use crate::error::MediaError;

/// The ports, in the order of the components.
const PORTS: [Port; 2] = [Port::Rtp, Port::Rtcp];

struct Component {
    association: Association,
    security: Option<Box<Security>>,
}

impl Component {
    fn new(
        identity: &DtlsIdentity,
        parameters: &DtlsParameters,
        now: Instant,
    ) -> Result<Option<Self>, MediaError> {
        Ok(Some(Self { association: Association::new(identity, parameters, now)?, security: None }))
    }
}

pub(super) struct Components {
    parameters: DtlsParameters,
    /// Where the peer's description has RTP; `None` while it has not said.
    described: Option<SocketAddr>,
    components: [Option<Component>; 2],
    failure: Option<LegFailure>,
}

impl Components {
    /// Begins the association for RTP, and one for RTCP if it is `separate`.
    pub(super) fn new(
        identity: &DtlsIdentity,
        parameters: &DtlsParameters,
        described: Option<SocketAddr>,
        separate: bool,
        now: Instant,
    ) -> Result<Self, MediaError> {
        let rtp = Component::new(identity, parameters, now)?;
        let rtcp = if separate { Component::new(identity, parameters, now)? } else { None };
        let parameters = parameters.clone();
        Ok(Self { parameters, described, components: [rtp, rtcp], failure: None })
    }

    /// Says whether the associations go on under a new description: RFC 8842 4.1. A peer without `tls-id` that moves
    /// its media may be another one with the same certificate, for whom RFC 5763 6.6 asks the same transport.
    pub(super) fn continues(&self, parameters: &DtlsParameters, described: Option<SocketAddr>) -> bool {
        let moved = described.is_some_and(|new| self.described.is_some_and(|old| old != new));
        self.parameters == *parameters && (!moved || parameters.tls_id.is_some())
    }

    /// Goes on under a new description.
    pub(super) fn update(
        &mut self,
        identity: &DtlsIdentity,
        described: Option<SocketAddr>,
        separate: bool,
        now: Instant,
    ) -> Result<(), MediaError> {
        let [rtp, rtcp] = &mut self.components;
        if !separate {
            *rtcp = None;
        } else if rtcp.is_none() && rtp.is_some() {
            *rtcp = Component::new(identity, &self.parameters, now)?;
        }
        self.described = described.or(self.described);
        Ok(())
    }

    /// Takes a datagram of DTLS. Returns false if it is refused.
    pub(super) fn handle_datagram(&mut self, now: Instant, port: Port, datagram: &[u8]) -> bool {
        let component = self.components[port as usize].as_mut();
        component.is_some_and(|component| component.association.handle_datagram(now, datagram))
    }

    /// Returns the keys of a component, once there are any.
    pub(super) fn security(&self, port: Port) -> Option<&Security> {
        self.components[port as usize].as_ref()?.security.as_deref()
    }

    /// As [`security`](Self::security), to be used.
    pub(super) fn security_mut(&mut self, port: Port) -> Option<&mut Security> {
        self.components[port as usize].as_mut()?.security.as_deref_mut()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let components = self.components.iter().flatten();
        components.filter_map(|component| component.association.poll_timeout()).min()
    }

    /// Does what is due and sends what is to be sent.
    pub(super) fn handle_timeout(&mut self, now: Instant, emit: &mut dyn FnMut(Port, &[u8])) {
        for (slot, port) in self.components.iter_mut().zip(PORTS) {
            let Some(component) = slot else { continue };
            match component.association.handle_timeout(now, &mut |bytes| emit(port, bytes)) {
                None => {}
                Some(Outcome::Keys(keys)) => component.security = Some(Box::new(Security::new(&keys))),
                // Voice can do without reports.
                Some(Outcome::Failed(LegFailure::Handshake)) if port == Port::Rtcp => *slot = None,
                Some(Outcome::Failed(failure)) => {
                    self.failure = Some(failure);
                    self.components = [None, None];
                    return;
                }
            }
        }
    }

    /// Returns why there will be no keys, once.
    pub(super) fn poll_failure(&mut self) -> Option<LegFailure> {
        self.failure.take()
    }

    /// Sends a close_notify in each association.
    pub(super) fn close(&mut self, emit: &mut dyn FnMut(Port, &[u8])) {
        for (component, port) in self.components.iter_mut().zip(PORTS) {
            if let Some(component) = component {
                component.association.close(&mut |bytes| emit(port, bytes));
            }
        }
        self.components = [None, None];
    }
}
