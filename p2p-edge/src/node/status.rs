//! What a node says about itself, and what it counts.

use super::health::HealthStatus;
use super::turn::TurnStatus;

/// Why something from the network was refused. The names are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "as_str says what each is")]
pub enum Refusal {
    NodeCertificate,
    NodeKeyMismatch,
    UserCertificate,
    UserKeyMismatch,
    RoutingDiversity,
    RecordInvalid,
    RecordNotNewer,
    RecordQuota,
    ProviderUncertified,
    ProviderQuota,
    AnswerInvalid,
    OfferInvalid,
    MessageMalformed,
    LookupOverload,
    LookupRate,
    PublishUnproven,
    StreamQuota,
    FrameInvalid,
    CallLimit,
    CallCertificate,
    CallSignature,
    CallExpired,
    CallReplayed,
    CallKeyMismatch,
    CallCallerMismatch,
    ResumeUnknown,
    TurnUnproven,
    TurnRate,
}

impl Refusal {
    /// Every reason, in the order of the counters.
    pub const ALL: [Refusal; 28] = [
        Refusal::NodeCertificate,
        Refusal::NodeKeyMismatch,
        Refusal::UserCertificate,
        Refusal::UserKeyMismatch,
        Refusal::RoutingDiversity,
        Refusal::RecordInvalid,
        Refusal::RecordNotNewer,
        Refusal::RecordQuota,
        Refusal::ProviderUncertified,
        Refusal::ProviderQuota,
        Refusal::AnswerInvalid,
        Refusal::OfferInvalid,
        Refusal::MessageMalformed,
        Refusal::LookupOverload,
        Refusal::LookupRate,
        Refusal::PublishUnproven,
        Refusal::StreamQuota,
        Refusal::FrameInvalid,
        Refusal::CallLimit,
        Refusal::CallCertificate,
        Refusal::CallSignature,
        Refusal::CallExpired,
        Refusal::CallReplayed,
        Refusal::CallKeyMismatch,
        Refusal::CallCallerMismatch,
        Refusal::ResumeUnknown,
        Refusal::TurnUnproven,
        Refusal::TurnRate,
    ];

    /// Returns the name used as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::NodeCertificate => "node_certificate",
            Refusal::NodeKeyMismatch => "node_key_mismatch",
            Refusal::UserCertificate => "user_certificate",
            Refusal::UserKeyMismatch => "user_key_mismatch",
            Refusal::RoutingDiversity => "routing_diversity",
            Refusal::RecordInvalid => "record_invalid",
            Refusal::RecordNotNewer => "record_not_newer",
            Refusal::RecordQuota => "record_quota",
            Refusal::ProviderUncertified => "provider_uncertified",
            Refusal::ProviderQuota => "provider_quota",
            Refusal::AnswerInvalid => "answer_invalid",
            Refusal::OfferInvalid => "offer_invalid",
            Refusal::MessageMalformed => "message_malformed",
            Refusal::LookupOverload => "lookup_overload",
            Refusal::LookupRate => "lookup_rate",
            Refusal::PublishUnproven => "publish_unproven",
            Refusal::StreamQuota => "stream_quota",
            Refusal::FrameInvalid => "frame_invalid",
            Refusal::CallLimit => "call_limit",
            Refusal::CallCertificate => "call_certificate",
            Refusal::CallSignature => "call_signature",
            Refusal::CallExpired => "call_expired",
            Refusal::CallReplayed => "call_replayed",
            Refusal::CallKeyMismatch => "call_key_mismatch",
            Refusal::CallCallerMismatch => "call_caller_mismatch",
            Refusal::ResumeUnknown => "resume_unknown",
            Refusal::TurnUnproven => "turn_unproven",
            Refusal::TurnRate => "turn_rate",
        }
    }
}

/// Counts refusals by reason.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals([u64; Refusal::ALL.len()]);

impl Refusals {
    pub(super) fn add(&mut self, reason: Refusal) {
        self.0[reason as usize] += 1;
    }

    pub(super) fn list(&self) -> Vec<(Refusal, u64)> {
        Refusal::ALL.iter().map(|reason| (*reason, self.0[*reason as usize])).collect()
    }
}

/// What a node keeps for the presence of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresenceStatus {
    /// Handles of which this node is a home.
    pub handles: usize,
    /// Of these, users who are on.
    pub on: usize,
    /// Texts that wait.
    pub texts: usize,
    /// Devices that this node publishes and watches for.
    pub devices: usize,
    /// Handles that it watches for them.
    pub watched: usize,
    /// The supernode that serves this user's device, by its PeerId.
    pub agent: Option<String>,
    /// What was refused, by [`crate::presence::Refused::as_str`].
    pub refused: Vec<(&'static str, u64)>,
}

/// The state of a node at one moment.
#[derive(Clone, Debug, Default)]
pub struct NodeStatus {
    /// The node's PeerId.
    pub peer_id: String,
    /// When the own certificate ends, in Unix seconds; 0 where the node has stopped.
    pub certificate_ends: u64,
    /// Revocation lists that were fetched whole.
    pub lists_fetched: u64,
    /// Revocation lists of which only what was added was fetched.
    pub list_changes_fetched: u64,
    /// Whether the node has joined: see [`super::NodeEvent::Online`].
    pub online: bool,
    /// Addresses listened on, relay circuits included.
    pub listening: Vec<String>,
    /// Addresses under which others are told to reach this node, with its PeerId.
    pub announced: Vec<String>,
    /// Connected peers.
    pub peers: usize,
    /// Connected peers that are reached through relays only.
    pub peers_relayed: usize,
    /// Connected peers whose certificate as supernode or gateway was verified.
    pub certified: Vec<String>,
    /// Addresses of verified supernodes, best first, at most 200: worth keeping for the next start.
    pub known_servers: Vec<String>,
    /// What the node has measured of the overlay.
    pub health: HealthStatus,
    /// Peers in the routing table.
    pub routing_table: usize,
    /// Relay reservations held by this node.
    pub reservations_held: usize,
    /// Relay reservations served to others.
    pub reservations_served: usize,
    /// Relay circuits served now.
    pub circuits_served: usize,
    /// Requests of the DHT that this node has sent, without those of queries still under way.
    pub dht_requests: u64,
    /// Requests for records that this node has sent to servers beside the DHT.
    pub servers_asked: u64,
    /// Records stored for the overlay.
    pub records: usize,
    /// Provider records stored for the overlay.
    pub providers: usize,
    /// Own records that were read back from another node.
    pub published: usize,
    /// Own records that are not stored elsewhere yet.
    pub unpublished: usize,
    /// Puts that another node acknowledged but that could not be read back.
    pub puts_lost: u64,
    /// Calls in progress.
    pub calls: usize,
    /// Look-ups in progress, own and for clients.
    pub lookups: usize,
    /// Look-ups answered for other nodes since the start.
    pub lookups_served: u64,
    /// Location records taken since the start from clients that run no DHT.
    pub published_for_clients: u64,
    /// Presence and text, as far as this node serves them.
    pub presence: PresenceStatus,
    /// The TURN server, where there is one.
    pub turn: Option<TurnStatus>,
    /// Commands waiting for the node.
    pub commands_queued: usize,
    /// Events waiting for the owner of the node.
    pub events_queued: usize,
    /// Events that had to wait because the owner's queue was full.
    pub events_delayed: u64,
    /// Refusals by reason.
    pub refused: Vec<(Refusal, u64)>,
}

impl NodeStatus {
    /// Returns how often something was refused for a reason.
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refused.iter().find(|(known, _)| *known == reason).map_or(0, |(_, count)| *count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        let mut refusals = Refusals::default();
        for (at, reason) in Refusal::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, at, "{reason:?}");
            refusals.add(*reason);
        }
        assert!(refusals.list().iter().all(|(_, count)| *count == 1));
    }
}
