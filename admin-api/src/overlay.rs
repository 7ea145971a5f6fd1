//! The node in the overlay, as the API shows it.

use serde::{Deserialize, Serialize};

/// How the overlay does what it is for, as this node has measured it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OverlayView {
    /// The node's id in the overlay.
    pub peer_id: String,
    /// Whether the node has joined.
    pub online: bool,
    /// Where others reach it, with its id.
    pub addresses: Vec<String>,
    /// Nodes connected to.
    pub peers: usize,
    /// Of these, supernodes and gateways that have proved their certificate.
    pub servers: usize,
    /// Nodes in the routing table.
    pub routing_table: usize,
    /// Records put into the overlay here and got from another node.
    pub round_trips: u64,
    /// Those that could not be put, or were not found afterwards.
    pub round_trips_failed: u64,
    /// Seconds since the last that succeeded, or since the start; absent where the node is alone.
    pub since_round_trip_s: Option<f64>,
    /// How long the last one took, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// Dials since the start that reached somebody.
    pub dials: u64,
    /// Dials since the start that did not.
    pub dials_failed: u64,
    /// Of the last 256 dials, the share that reached somebody, 0 to 1.
    pub dial_success: Option<f64>,
    /// Relay reservations served to users.
    pub reservations: usize,
    /// Servers remembered for the next start.
    pub good_peers: usize,
    /// What each way of joining has brought.
    pub ways: Vec<WayView>,
    /// Addresses of servers that have worked, the best first.
    pub known_servers: Vec<String>,
}

/// What one way of joining has brought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WayView {
    /// `configured`, `disk`, `list`, `invite`, `lan`, `dns` or `mirror`.
    pub way: String,
    /// Nodes that it names.
    pub nodes: usize,
    /// How often it was asked, where it is asked.
    pub asked: u64,
    /// How often it had no answer, or one that was refused.
    pub failed: u64,
    /// How often a node that it had named proved itself.
    pub joined: u64,
    /// Seconds since that was last.
    pub worked_s_ago: Option<f64>,
}
