//! What a WebRTC leg is told and what it tells.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::digest;
use call_model::{Fingerprint, FingerprintHash};
use dimpl::Dtls;
use str0m::config::{CryptoProvider, DtlsCert};

use super::dtls;
#[cfg(doc)]
use super::{DTLS_LIMIT, ICE_LIMIT, MAX_LOCAL_ADDRESSES, RECONNECT_LIMIT};
use crate::error::MediaError;
use crate::leg::LegPacket;
use crate::rtp::redundancy::RedundancyError;

/// The DTLS identity of the process: one certificate, whose fingerprint is in every session
/// description. Generating a key pair is dear; cloning this is not.
#[derive(Clone)]
pub struct DtlsIdentity {
    pub(super) certificate: Arc<DtlsCert>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl DtlsIdentity {
    /// Generates a self-signed certificate.
    pub fn generate() -> Result<Self, MediaError> {
        let provider = Arc::new(dtls::crypto_provider());
        let certificate = provider.dtls_provider.generate_certificate().ok_or(MediaError::Certificate)?;
        Ok(Self { certificate: Arc::new(certificate), provider })
    }

    /// Returns the SHA-256 fingerprint of the certificate, for session descriptions (RFC 8122 5).
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint_of(FingerprintHash::Sha256, &self.certificate.certificate)
    }

    /// Builds an instance of DTLS 1.2 with this certificate, which nothing is round.
    pub(in crate::leg) fn dtls(&self, now: Instant) -> Option<Box<Dtls>> {
        dtls::new_instance(&self.certificate, now).ok().map(Box::new)
    }
}

/// Returns the fingerprint of a certificate in DER.
pub(crate) fn fingerprint_of(hash: FingerprintHash, certificate: &[u8]) -> Fingerprint {
    let algorithm = match hash {
        FingerprintHash::Sha256 => &digest::SHA256,
        FingerprintHash::Sha384 => &digest::SHA384,
        FingerprintHash::Sha512 => &digest::SHA512,
    };
    let digest = digest::digest(algorithm, certificate);
    Fingerprint::new(hash, digest.as_ref()).expect("a digest has the length of its hash function")
}

impl std::fmt::Debug for DtlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DtlsIdentity")
    }
}

/// Settings of a WebRTC leg.
#[derive(Clone, Debug, Default)]
pub struct WebRtcConfig {
    /// Host candidates: the UDP addresses on which the leg's packets are sent and received, as the
    /// other side can reach them. 1 to [`MAX_LOCAL_ADDRESSES`].
    pub local: Vec<SocketAddr>,
    /// ICE-lite (RFC 8445 2.5): answers connectivity checks and makes none. For a gateway on a
    /// public address; such a leg also announces that it plays and captures 8 kHz audio only, for
    /// behind it is a telephone.
    pub ice_lite: bool,
    /// Whether G.711 is negotiated beside Opus: PCMU and PCMA with their static payload types, and
    /// telephone events on their clock.
    pub g711: bool,
    /// Whether redundant audio data (RFC 2198) is negotiated beside Opus: packets then may carry copies of the frames
    /// before their own.
    pub redundancy: bool,
}

/// Why a WebRTC leg is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegFailure {
    /// No candidate pair worked within [`ICE_LIMIT`].
    Unreachable,
    /// DTLS did not finish within [`DTLS_LIMIT`], or failed.
    Handshake,
    /// The certificate is not the one of the session description (RFC 8122 5).
    Fingerprint,
    /// ICE consent was lost and did not come back within [`RECONNECT_LIMIT`].
    Lost,
    /// The other side closed DTLS.
    Closed,
}

impl LegFailure {
    /// Returns the failure as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            LegFailure::Unreachable => "unreachable",
            LegFailure::Handshake => "handshake",
            LegFailure::Fingerprint => "fingerprint",
            LegFailure::Lost => "lost",
            LegFailure::Closed => "closed",
        }
    }
}

/// What a WebRTC leg reports.
#[derive(Clone, Debug)]
pub enum LegEvent {
    /// ICE is connected and SRTP keys are agreed.
    Connected,
    /// A packet passed SRTP authentication.
    Packet(LegPacket),
    /// The other side reported how much of what we sent it lost (RFC 3550 6.4.1).
    RemoteLoss {
        /// The loss since its last report, in per cent.
        percent: f32,
    },
    /// The leg is over. Comes once, and last.
    Failed(LegFailure),
}

/// Counts of datagrams of a WebRTC leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebRtcCounters {
    /// RTP packets accepted.
    pub received: u64,
    /// RTP packets sent.
    pub sent: u64,
    /// Datagrams that are neither STUN, DTLS, RTP nor RTCP (RFC 7983 7), or are cut short.
    pub malformed: u64,
    /// Datagrams from an address that ICE has not validated, or STUN with a wrong password.
    pub foreign: u64,
    /// DTLS records that were refused.
    pub dtls_refused: u64,
    /// RTP and RTCP packets that failed authentication or were replayed, or came before there were keys,
    /// and RTP packets with an unknown payload type.
    pub unauthentic: u64,
    /// Datagrams that came after the end.
    pub after_end: u64,
    pub(super) redundancy: [u64; RedundancyError::OF_RECEIVED.len()],
}

impl WebRtcCounters {
    /// Returns the number of refused datagrams for any reason.
    pub fn refused(&self) -> u64 {
        let redundancy: u64 = self.redundancy.iter().sum();
        self.malformed + self.foreign + self.dtls_refused + self.unauthentic + self.after_end + redundancy
    }

    /// Returns the number of RTP packets that were refused because they are not the redundant audio data (RFC 2198)
    /// that their payload type says; 0 for what only a sender meets.
    pub fn refused_redundancy(&self, reason: RedundancyError) -> u64 {
        self.redundancy.get(reason as usize).copied().unwrap_or(0)
    }
}
