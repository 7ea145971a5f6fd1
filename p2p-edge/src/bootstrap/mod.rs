//! Joining the network by several independent ways, so that no few addresses are its off switch.
//!
//! Pure: [`Plan`] says whom to ask and whom to dial when, [`GoodPeers`] remembers who was of use,
//! [`Invite`] is what one user hands to another. What comes by any way is a hint: a node counts
//! once it has proved its certificate, and not before.

mod good;
mod invite;
mod plan;

pub use good::{GoodPeer, GoodPeers, MAX_GOOD};
pub use invite::{Invite, InviteError, MAX_INVITE_ADDRESSES, MAX_INVITE_BYTES};
pub use plan::{Demand, Plan, WayStatus};

/// One way of learning whom to join by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// Addresses of the configuration.
    Configured,
    /// Servers that were of use before, from disk.
    Disk,
    /// The signed list of the package.
    List,
    /// An invite link.
    Invite,
    /// The local network.
    Lan,
    /// TXT records in DNS.
    Dns,
    /// The signed list by HTTPS.
    Mirror,
}

impl Way {
    /// Every way, in the order of their codes.
    pub const ALL: [Way; 7] =
        [Way::Configured, Way::Disk, Way::List, Way::Invite, Way::Lan, Way::Dns, Way::Mirror];

    /// Returns the name used as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Way::Configured => "configured",
            Way::Disk => "disk",
            Way::List => "list",
            Way::Invite => "invite",
            Way::Lan => "lan",
            Way::Dns => "dns",
            Way::Mirror => "mirror",
        }
    }
}
