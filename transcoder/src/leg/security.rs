//! SRTP of a trunk leg, keyed by session descriptions (RFC 4568).

use call_model::SrtpKeys;

use super::rtp::Refusal;
use crate::srtp::{MAX_PACKET, SrtpError, SrtpReceiver, SrtpSender};

/// The contexts of a leg. They outlive a time without SRTP, for to begin with the same key anew would
/// be to use its key stream twice.
pub(super) struct Security {
    keys: SrtpKeys,
    pub(super) outgoing: SrtpSender,
    incoming: SrtpReceiver,
    /// The packet being unprotected.
    scratch: Box<[u8]>,
}

impl Security {
    pub(super) fn new(keys: &SrtpKeys) -> Self {
        Self {
            outgoing: SrtpSender::new(&keys.send),
            incoming: SrtpReceiver::new(&keys.receive),
            scratch: vec![0; MAX_PACKET].into_boxed_slice(),
            keys: keys.clone(),
        }
    }

    /// Goes on with the keys of a new description. What is as before stays as it is (RFC 4568 7.1.4).
    pub(super) fn set_keys(&mut self, keys: &SrtpKeys) {
        if self.keys.send != keys.send {
            self.outgoing.rekey(&keys.send);
        }
        if self.keys.receive != keys.receive {
            self.incoming.rekey(&keys.receive);
        }
        self.keys = keys.clone();
    }

    /// Unprotects a datagram and returns its length; it is then in [`plain`](Self::plain).
    pub(super) fn unprotect(&mut self, datagram: &[u8], rtcp: bool) -> Result<usize, Refusal> {
        let copy = self.scratch.get_mut(..datagram.len()).ok_or(Refusal::Malformed)?;
        copy.copy_from_slice(datagram);
        let result =
            if rtcp { self.incoming.unprotect_rtcp(copy) } else { self.incoming.unprotect_rtp(copy) };
        let malformed = if rtcp { Refusal::MalformedRtcp } else { Refusal::Malformed };
        result.map(|plain| plain.len()).map_err(|error| match error {
            SrtpError::Malformed | SrtpError::TooLong => malformed,
            SrtpError::Replayed | SrtpError::TooOld => Refusal::Replayed,
            _ => Refusal::Unauthentic,
        })
    }

    /// Returns the first `length` octets of what was unprotected last.
    pub(super) fn plain(&self, length: usize) -> &[u8] {
        self.scratch.get(..length).unwrap_or_default()
    }
}
