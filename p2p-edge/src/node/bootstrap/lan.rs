//! The local network: multicast DNS (RFC 6762), as all libp2p nodes speak it.

use libp2p::PeerId;
use libp2p::mdns::{Config, tokio::Behaviour};
use libp2p::swarm::behaviour::toggle::Toggle;

/// Addresses in the local network that are remembered; where more are named nobody is believed.
pub(super) const MAX_DISCOVERED: usize = 1024;

/// Builds the search. Off where it is not wanted, or where the system does not let it be.
pub(in super::super) fn build(me: PeerId, wanted: bool) -> Toggle<Behaviour> {
    if !wanted {
        return None.into();
    }
    match Behaviour::new(Config::default(), me) {
        Ok(behaviour) => Some(behaviour).into(),
        Err(error) => {
            tracing::warn!(%error, "the local network is not searched");
            None.into()
        }
    }
}
