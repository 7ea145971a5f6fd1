use libp2p::PeerId;
use minicbor::{Decode, Encode};

use super::envelope::{self, Envelope, Rank, check_expiry, check_sequence};
use super::error::RecordError;
use crate::defence::{Defence, holds};
use crate::identity::{Domain, Kind, NodeChain, NodeKey, RevocationList, Trust, VerifiedNode};

/// The longest a probe may last, in seconds.
pub const PROBE_LIFE: u64 = 300;

/// What a supernode puts into the overlay and gets from another node again, to see that the overlay
/// does what it is for. It says nothing; there is one of each node, under the node's own key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRecord {
    /// Counts up with every probe. Unix milliseconds: one that is ahead of the clock of whoever reads
    /// it is refused.
    pub sequence: u64,
    /// When the record ends, in Unix seconds: at most [`PROBE_LIFE`] ahead.
    pub expires_unix: u64,
}

/// A probe that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidProbe {
    /// The record.
    pub record: ProbeRecord,
    /// Who wrote it.
    pub writer: VerifiedNode,
    pub(super) rank: Rank,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    sequence: u64,
    #[n(1)]
    expires_unix: u64,
}

impl ProbeRecord {
    /// Signs the record. Returns the value to publish.
    ///
    /// # Errors
    /// `WrongKey` if the chain is for another key; `Oversize` if the chain is too long.
    pub fn sign(&self, chain: &NodeChain, key: &NodeKey) -> Result<Vec<u8>, RecordError> {
        super::check_own_key(chain, key)?;
        let body = Body { sequence: self.sequence, expires_unix: self.expires_unix };
        envelope::seal((Kind::Probe, Domain::Probe), chain.encode(), body, key)
    }
}

/// Verifies a probe for its slot.
pub(super) fn validate(
    slot: &PeerId,
    value: &[u8],
    trust: &Trust,
    revocations: &RevocationList,
    unix: u64,
) -> Result<ValidProbe, RecordError> {
    let envelope = Envelope::decode(Kind::Probe, value)?;
    let body: Body = envelope.body()?;
    check_expiry(body.expires_unix, PROBE_LIFE, unix)?;
    check_sequence(body.sequence, unix)?;
    let writer = NodeChain::decode(&envelope.credential)?.verify(trust, revocations, unix)?;
    if writer.peer_id != *slot && holds(Defence::RecordSlot) {
        return Err(RecordError::WrongSlot);
    }
    envelope.check_signature(&writer.key, Domain::Probe)?;
    let rank = Rank {
        sequence: body.sequence,
        expires_unix: body.expires_unix.min(writer.not_after),
        signature: envelope.signed.signature,
    };
    let record = ProbeRecord { sequence: body.sequence, expires_unix: body.expires_unix };
    Ok(ValidProbe { record, writer, rank })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{MAX_KEY_BYTES, RecordKey, Source, Store, StoreLimits, ValidRecord, validate};
    use super::*;
    use crate::identity::{Credential, NodeBundle, RevocationReason};
    use crate::testing::{Pki, key};

    const NOW: u64 = 1_790_000_000;

    fn probe(sequence: u64, life: u64) -> ProbeRecord {
        ProbeRecord { sequence, expires_unix: NOW + life }
    }

    fn slot(number: u8) -> Vec<u8> {
        RecordKey::Probe(key(number).peer_id()).to_bytes()
    }

    #[test]
    fn a_probe_is_its_writers_alone_and_does_not_last() {
        let pki = Pki::new(NOW).unwrap();
        let (trust, none) = (pki.trust().unwrap(), RevocationList::default());
        let NodeBundle { key: own, chain } = pki.supernode(3).unwrap();
        let read = |number, value: &[u8], unix| {
            validate(&slot(number), value, &trust, &none, unix).map_err(|error| error.as_str())
        };
        let good = probe(NOW * 1000, PROBE_LIFE).sign(&chain, &own).unwrap();
        let Ok(ValidRecord::Probe(valid)) = read(3, &good, NOW) else { panic!() };
        assert_eq!((valid.record.sequence, valid.writer.peer_id), (NOW * 1000, own.peer_id()));
        assert!(slot(3).len() <= MAX_KEY_BYTES && good.len() < 700, "{} bytes", good.len());
        assert_eq!(RecordKey::parse(&slot(3)), Ok(RecordKey::Probe(own.peer_id())));
        assert_eq!(read(4, &good, NOW), Err("wrong_slot"));
        assert_eq!(read(3, &good, NOW + PROBE_LIFE), Err("record_expired"));
        let long = probe(1, PROBE_LIFE + 100).sign(&chain, &own).unwrap();
        assert_eq!(read(3, &long, NOW), Err("too_far_ahead"));
        let ahead = probe(u64::MAX, 60).sign(&chain, &own).unwrap();
        assert_eq!(read(3, &ahead, NOW), Err("sequence_ahead"));
        assert!(probe(1, 60).sign(&chain, &key(4)).is_err(), "not its key");
        for at in 0..good.len() {
            let mut altered = good.clone();
            altered[at] ^= 1;
            assert!(read(3, &altered, NOW).is_err(), "byte {at} may be changed");
        }
        // A user has no probe: its location is one.
        let alice = pki.user(&"alice".parse().unwrap(), 1).unwrap();
        let credential = Credential::Handle(alice.certificate).encode();
        let body = Body { sequence: 1, expires_unix: NOW + 60 };
        let forged = envelope::seal((Kind::Probe, Domain::Probe), credential, body, &alice.key).unwrap();
        assert!(read(1, &forged, NOW).is_err());
    }

    #[test]
    fn probes_are_stored_and_revoked_as_other_records_and_not_counted_among_them() {
        let pki = Pki::new(NOW).unwrap();
        let trust = pki.trust().unwrap();
        let NodeBundle { key: own, chain } = pki.supernode(3).unwrap();
        let mut store = Store::new(StoreLimits::default());
        let mut list = RevocationList::default();
        for sequence in 1..=3 {
            let value = probe(sequence, 60).sign(&chain, &own).unwrap();
            store.put(&slot(3), value, Source::Local, &trust, &list, NOW).unwrap();
        }
        assert_eq!((store.len(), store.probes()), (1, 1));
        let revoked = pki.enrolment.revoke(None, 1003, RevocationReason::KeyCompromise, NOW).unwrap();
        list.apply(revoked, &trust, NOW).unwrap();
        store.drop_revoked(&list, NOW);
        assert_eq!((store.len(), store.probes()), (0, 0));
    }
}
