use call_model::Handle;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::envelope::{self, Envelope, Rank, check_expiry, check_sequence};
use super::error::RecordError;
use crate::defence::{Defence, holds};
use crate::identity::{
    Abilities, Domain, HandleCertificate, Kind, MAX_DEVICES, NodeKey, PublicKey, RevocationList, Trust,
    VerifiedHandle,
};

/// The longest a location may last, in seconds. Its owner publishes again at half of that.
pub const LOCATION_LIFE: u64 = 600;
/// The most addresses of one device.
pub const MAX_ADDRESSES: usize = 8;
/// The longest address, in bytes.
pub const MAX_ADDRESS_BYTES: usize = 256;

/// Where the devices of a handle are. Written by one of the devices, for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocationRecord {
    /// The handle.
    pub handle: Handle,
    /// Counts up with every change; the highest valid one wins. Unix milliseconds: one that is
    /// ahead of the clock of whoever reads it is refused.
    pub sequence: u64,
    /// When the record ends, in Unix seconds: at most 10 minutes ahead.
    pub expires_unix: u64,
    /// The devices that are on, at most 8.
    pub devices: Vec<Device>,
}

/// A device in a location record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its peer id. The key must be in the handle's certificate.
    pub peer: PeerId,
    /// Addresses to reach it, direct and through relays, at most 8. When read each ends in the
    /// device's own `/p2p/`, whether or not it was written so.
    pub addresses: Vec<Multiaddr>,
    /// What the device can do: bits for the layers above.
    pub abilities: u32,
    /// Devices of the lowest value ring first.
    pub priority: u8,
}

/// A location record that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidLocation {
    /// The record.
    pub record: LocationRecord,
    /// The owner of the handle.
    pub holder: VerifiedHandle,
    /// The key of the device that wrote it.
    pub writer: PublicKey,
    pub(super) rank: Rank,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    handle: String,
    #[n(1)]
    sequence: u64,
    #[n(2)]
    expires_unix: u64,
    /// The place of the writer's key in the certificate.
    #[n(3)]
    writer: u8,
    #[n(4)]
    devices: Vec<WireDevice>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct WireDevice {
    /// The place of the device's key in the certificate.
    #[n(0)]
    key: u8,
    #[n(1)]
    abilities: u32,
    #[n(2)]
    priority: u8,
    /// Without the `/p2p/` of the device at the end.
    #[n(3)]
    addresses: Vec<ByteVec>,
}

impl LocationRecord {
    /// Signs the record with the key of a device. Returns the value to publish.
    ///
    /// # Errors
    /// `WrongSlot` if the certificate is for another handle, `UnknownDevice` for a device or a
    /// writer that it does not hold, `Oversize` above the limits.
    pub fn sign(&self, certificate: &HandleCertificate, key: &NodeKey) -> Result<Vec<u8>, RecordError> {
        let claims = certificate.claims();
        if claims.handle != self.handle {
            return Err(RecordError::WrongSlot);
        }
        if self.devices.len() > MAX_DEVICES {
            return Err(RecordError::Oversize { size: self.devices.len(), limit: MAX_DEVICES });
        }
        let place = |peer: PeerId| {
            let found = claims.keys.iter().position(|key| key.peer_id() == peer);
            found.and_then(|place| u8::try_from(place).ok()).ok_or(RecordError::UnknownDevice)
        };
        let mut devices = Vec::with_capacity(self.devices.len());
        for device in &self.devices {
            if device.addresses.len() > MAX_ADDRESSES {
                return Err(RecordError::Oversize { size: device.addresses.len(), limit: MAX_ADDRESSES });
            }
            devices.push(WireDevice {
                key: place(device.peer)?,
                abilities: device.abilities,
                priority: device.priority,
                addresses: device
                    .addresses
                    .iter()
                    .map(|a| without_peer(a, device.peer).to_vec().into())
                    .collect(),
            });
        }
        let body = Body {
            handle: self.handle.to_string(),
            sequence: self.sequence,
            expires_unix: self.expires_unix,
            writer: place(key.peer_id())?,
            devices,
        };
        envelope::seal((Kind::Location, Domain::Location), certificate.encode(), body, key)
    }
}

/// Verifies a location record for its slot.
pub(super) fn validate(
    slot: &Handle,
    value: &[u8],
    trust: &Trust,
    revocations: &RevocationList,
    unix: u64,
) -> Result<ValidLocation, RecordError> {
    let envelope = Envelope::decode(Kind::Location, value)?;
    let body: Body = envelope.body()?;
    if body.handle != slot.as_str() && holds(Defence::RecordSlot) {
        return Err(RecordError::WrongSlot);
    }
    check_expiry(body.expires_unix, LOCATION_LIFE, unix)?;
    check_sequence(body.sequence, unix)?;
    let certificate = HandleCertificate::decode(&envelope.credential)?;
    if certificate.claims().handle != *slot && holds(Defence::RecordSlot) {
        return Err(RecordError::WrongSlot);
    }
    let holder = certificate.verify(trust, revocations, unix)?;
    if !holder.abilities.contains(Abilities::BE_CALLED) && holds(Defence::BeCalled) {
        return Err(RecordError::NotCallable { subject: slot.to_string() });
    }
    let writer = holder.keys.get(usize::from(body.writer)).ok_or(RecordError::UnknownDevice)?.clone();
    envelope.check_signature(&writer, Domain::Location)?;
    if body.devices.len() > MAX_DEVICES {
        return Err(RecordError::Malformed);
    }
    let devices =
        body.devices.iter().map(|device| read_device(device, &holder.keys)).collect::<Result<_, _>>()?;
    let rank = Rank {
        sequence: body.sequence,
        expires_unix: body.expires_unix.min(holder.not_after),
        signature: envelope.signed.signature,
    };
    let record = LocationRecord {
        handle: slot.clone(),
        sequence: body.sequence,
        expires_unix: body.expires_unix,
        devices,
    };
    Ok(ValidLocation { record, holder, writer, rank })
}

fn read_device(wire: &WireDevice, keys: &[PublicKey]) -> Result<Device, RecordError> {
    let peer = keys.get(usize::from(wire.key)).ok_or(RecordError::UnknownDevice)?.peer_id();
    if wire.addresses.len() > MAX_ADDRESSES {
        return Err(RecordError::Malformed);
    }
    let address = |bytes: &ByteVec| {
        if bytes.len() > MAX_ADDRESS_BYTES {
            return Err(RecordError::Malformed);
        }
        let address = Multiaddr::try_from(bytes.to_vec()).map_err(|_| RecordError::Malformed)?;
        Ok(without_peer(&address, peer).with(Protocol::P2p(peer)))
    };
    Ok(Device {
        peer,
        addresses: wire.addresses.iter().map(address).collect::<Result<_, _>>()?,
        abilities: wire.abilities,
        priority: wire.priority,
    })
}

/// Takes the device's own `/p2p/` off the end: 40 bytes that the certificate's key says already.
fn without_peer(address: &Multiaddr, peer: PeerId) -> Multiaddr {
    let mut address = address.clone();
    if address.iter().last() == Some(Protocol::P2p(peer)) {
        address.pop();
    }
    address
}
