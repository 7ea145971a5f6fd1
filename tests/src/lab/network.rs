//! The usual network: one gateway, with whatever trunks a test gives it, and one user, alice.

use std::time::Duration;

use anyhow::Result;

use super::{Authority, Credential, Daemon, DaemonOptions, Folder, Phone, PhoneOptions};

/// How long alice may take to be online on a busy machine.
const ONLINE: Duration = Duration::from_secs(20);

/// What the network will be. The gateway offers calls to `+1555`, and [`Plan::ALICE`] is alice's number; the trunks
/// are for the test to add.
#[derive(Debug)]
pub struct Plan {
    /// What the gateway will be.
    pub options: DaemonOptions,
    /// Who certifies the gateway and alice.
    pub authority: Authority,
    /// The gateway's.
    pub credential: Credential,
    /// Where all files are.
    pub folder: Folder,
}

/// The network once it runs.
#[derive(Debug)]
pub struct Network {
    /// The user: online.
    pub alice: Phone,
    /// The gateway: ready.
    pub gateway: Daemon,
    /// As in [`Plan`].
    pub authority: Authority,
    /// As in [`Plan`].
    pub credential: Credential,
    /// As in [`Plan`].
    pub folder: Folder,
}

impl Plan {
    /// The number of alice.
    pub const ALICE: &str = "+15550009001";

    /// Makes the authority and the gateway's identity, in a folder called after the test `name`.
    ///
    /// # Errors
    /// When a program of the product fails; tells what it printed.
    pub fn new(name: &str) -> Result<Self> {
        let folder = Folder::new(name)?;
        let authority = Authority::init(&folder.path().join("authority"))?;
        let credential = authority.gateway("gateway", &["+1555"], &["+1555"])?;
        let mut options = DaemonOptions::gateway("gateway", &credential);
        options.offers = vec!["+1555".to_owned()];
        options.numbers = vec![(Self::ALICE.to_owned(), "alice".to_owned())];
        Ok(Self { options, authority, credential, folder })
    }

    /// Starts the gateway, then alice, and waits until both can call.
    ///
    /// # Errors
    /// When one of them does not come up; tells what it printed.
    pub fn start(self) -> Result<Network> {
        let Self { options, authority, credential, folder } = self;
        let gateway = Daemon::start(folder.path(), &authority, &credential, options)?;
        let user = authority.user("alice", &[Self::ALICE])?;
        let phone = PhoneOptions::new("alice", &[gateway.multiaddress()]);
        let mut alice = Phone::start(folder.path(), &user, &phone)?;
        alice.wait_until_online(ONLINE)?;
        gateway.wait_until_ready()?;
        Ok(Network { alice, gateway, authority, credential, folder })
    }
}
