//! The other devices of the own handle, for which this one speaks too.

use std::collections::HashMap;

use libp2p::PeerId;

use crate::identity::MAX_DEVICES;
use crate::record::{Device, ValidLocation};

/// What is known of the other devices of a user.
#[derive(Default)]
pub(super) struct OtherDevices {
    /// Each as it was last described, and when it last spoke for itself, in Unix seconds. A device
    /// that was first heard of from another counts from then on.
    heard: HashMap<PeerId, (Device, u64)>,
}

impl OtherDevices {
    /// Learns from the record that is stored, written by this device or another.
    pub(super) fn learn(&mut self, held: &ValidLocation, me: &PeerId, life: u64) {
        let certified: Vec<PeerId> = held.holder.keys.iter().map(|key| key.peer_id()).collect();
        // One that is silent is kept: forgotten, it would be news again in the next record of a
        // device that still names it, and so for ever.
        self.heard.retain(|peer, _| certified.contains(peer));
        let written = held.record.expires_unix.saturating_sub(life);
        for device in held.record.devices.iter().filter(|device| device.peer != *me) {
            let itself = held.writer.peer_id() == device.peer;
            if itself || !self.heard.contains_key(&device.peer) {
                self.heard.insert(device.peer, (device.clone(), written));
            }
        }
    }

    /// Returns the devices that have spoken within `life` seconds.
    pub(super) fn alive(&self, unix: u64, life: u64) -> Vec<Device> {
        let alive = self.heard.values().filter(|(_, heard)| heard.saturating_add(life) > unix);
        let mut devices: Vec<Device> = alive.map(|(device, _)| device.clone()).collect();
        devices.sort_by_key(|device| device.peer);
        devices.truncate(MAX_DEVICES - 1);
        devices
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::identity::{NodeKey, RevocationList};
    use crate::record::{LocationRecord, RecordKey, ValidRecord, validate};
    use crate::testing::{Pki, key};

    const NOW: u64 = 1_790_000_000;
    const LIFE: u64 = 600;

    /// The record that one of three devices of a user writes, naming some of them.
    fn written(by: &NodeKey, naming: &[&NodeKey], at: u64) -> ValidLocation {
        let pki = Pki::new(NOW).unwrap();
        let handle = "bob".parse().unwrap();
        let certificate = pki.handle(&handle, &[&key(1), &key(2), &key(3)], 1).unwrap();
        let device =
            |key: &&NodeKey| Device { peer: key.peer_id(), addresses: Vec::new(), abilities: 0, priority: 0 };
        let devices = naming.iter().map(device).collect();
        let record = LocationRecord { handle: handle.clone(), sequence: 1, expires_unix: at + LIFE, devices };
        let value = record.sign(&certificate, by).unwrap();
        let slot = RecordKey::Location(handle).to_bytes();
        match validate(&slot, &value, &pki.trust().unwrap(), &RevocationList::default(), at) {
            Ok(ValidRecord::Location(valid)) => valid,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_device_that_is_silent_is_dropped_although_others_still_name_it() {
        let (me, alive, dead) = (key(1), key(2), key(3));
        let mut others = OtherDevices::default();
        let named = |others: &OtherDevices, at| -> Vec<PeerId> {
            others.alive(at, LIFE).into_iter().map(|device| device.peer).collect()
        };
        others.learn(&written(&dead, &[&me, &alive, &dead], NOW), &me.peer_id(), LIFE);
        assert_eq!(named(&others, NOW).len(), 2);
        // The other device goes on and has not noticed yet.
        for at in (NOW..NOW + 4 * LIFE).step_by(LIFE as usize / 2) {
            others.learn(&written(&alive, &[&me, &alive, &dead], at), &me.peer_id(), LIFE);
            let expected = if at < NOW + LIFE { 2 } else { 1 };
            assert_eq!(named(&others, at).len(), expected, "{} s later", at - NOW);
            assert!(named(&others, at).contains(&alive.peer_id()));
        }
        // It comes back by its own word.
        let back = NOW + 5 * LIFE;
        others.learn(&written(&dead, &[&dead], back), &me.peer_id(), LIFE);
        assert_eq!(named(&others, back), [dead.peer_id()]);
    }
}
