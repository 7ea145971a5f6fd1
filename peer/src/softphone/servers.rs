//! The servers of STUN and TURN that supernodes offer, kept up to date.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use p2p_edge::node::{self, NodeHandle};
use tokio::sync::{mpsc, watch};

use crate::ice::{IceServer, IceTransport};

/// How soon supernodes are asked again where none has offered anything.
const RETRY: Duration = Duration::from_secs(20);
/// How often the list is looked at: supernodes come and go.
const LONGEST: Duration = Duration::from_secs(600);
const SHORTEST: Duration = Duration::from_secs(10);

/// Keeps the list for as long as the node runs: the servers of the user first, then those of the supernodes. They are
/// asked again whenever `joined` says that the overlay was joined; each time that they have answered is told.
pub(super) async fn keep(
    node: NodeHandle,
    own: Vec<IceServer>,
    servers: watch::Sender<Vec<IceServer>>,
    mut joined: mpsc::Receiver<()>,
    answered: mpsc::Sender<()>,
) {
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            asked = joined.recv() => if asked.is_none() { return },
            // Before that there is nobody to ask.
            () = tokio::time::sleep(wait), if !wait.is_zero() => {}
        }
        let Ok(offered) = node.ice_servers().await else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let until = offered.iter().map(|server| server.expires_unix.saturating_sub(now)).min();
        wait = until.map_or(RETRY, |left| Duration::from_secs(left / 2).clamp(SHORTEST, LONGEST));
        servers.send_replace(own.iter().cloned().chain(offered.iter().flat_map(addresses)).collect());
        // One notice that waits is as good as two.
        let _ = answered.try_send(());
    }
}

/// The addresses of one server.
fn addresses(server: &node::IceServer) -> impl Iterator<Item = IceServer> + '_ {
    server.endpoints.iter().map(|endpoint| {
        let transport = match endpoint.transport {
            node::IceTransport::Udp => IceTransport::Udp,
            node::IceTransport::Tcp => IceTransport::Tcp,
            node::IceTransport::Tls => IceTransport::Tls(endpoint.name.clone().unwrap_or_default()),
        };
        let (username, password) = (server.username.clone(), server.password.expose().to_owned());
        IceServer::turn(transport, endpoint.address, username, password)
    })
}
