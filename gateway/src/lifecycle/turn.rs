//! What the overlay node is told of its STUN and TURN server.

use std::path::Path;

use p2p_edge::node::{TurnCertificate, TurnConfig};
use p2p_edge::turn::TurnLimits;

use super::StartError;
use crate::config::{Config, Role};

/// Returns the configuration of the server, its certificate read from the files.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn config(config: &Config) -> Result<Option<TurnConfig>, StartError> {
    let Some(turn) = &config.overlay.turn else { return Ok(None) };
    let certificate = match &turn.certificate {
        None => None,
        Some((chain, key)) => Some(TurnCertificate {
            chain: read("overlay.turn.certificate", chain)?,
            key: read("overlay.turn.key", key)?,
        }),
    };
    let usual = TurnLimits::default();
    Ok(Some(TurnConfig {
        udp: turn.udp.clone(),
        tcp: turn.tcp.clone(),
        tls: turn.tls.clone(),
        certificate,
        tls_name: turn.name.clone(),
        external: turn.external.clone(),
        relay: turn.relay.clone(),
        relay_ports: turn.relay_ports.clone(),
        allow: turn.allow.clone(),
        // Media of calls with users whose network lets no datagrams out.
        own_ports: match config.overlay.role {
            Role::Gateway => vec![config.media.overlay_ports.clone()],
            Role::Supernode => Vec::new(),
        },
        lifetime: turn.lifetime,
        limits: TurnLimits {
            allocations: turn.allocations,
            allocations_per_peer: turn.allocations_per_user,
            bytes_per_second: turn.kbit_s * 1000 / 8,
            connections: turn.allocations,
            ..usual
        },
    }))
}

fn read(key: &'static str, file: &Path) -> Result<String, StartError> {
    std::fs::read_to_string(file).map_err(|error| StartError::Identity {
        key,
        file: file.display().to_string(),
        problem: error.to_string(),
        remedy: "name a file that the daemon may read",
    })
}
