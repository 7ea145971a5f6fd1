//! Figures of the STUN and TURN server.

use p2p_edge::node::TurnStatus;
use p2p_edge::turn::TurnRefusal;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::ReasonLabel;

/// The metrics of the server; all stay 0 where there is none.
#[derive(Debug, Default)]
pub(super) struct TurnMetrics {
    allocations: Gauge,
    connections: Gauge,
    allocated: Counter,
    bindings: Counter,
    packets: Counter,
    bytes: Counter,
    refused: Family<ReasonLabel, Counter>,
}

impl TurnMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("turn_allocations", "Relayed addresses in use", self.allocations.clone());
        r.register("turn_connections", "Clients of TURN over TCP and TLS", self.connections.clone());
        r.register("turn_allocated", "Relayed addresses given out", self.allocated.clone());
        r.register("stun_bindings", "STUN binding requests answered", self.bindings.clone());
        r.register("turn_packets", "Packets relayed, both ways", self.packets.clone());
        r.register_with_unit("turn_relayed", "Data relayed, both ways", Unit::Bytes, self.bytes.clone());
        r.register("turn_refused", "Input of TURN refused, by reason", self.refused.clone());
    }

    pub(super) fn set(&self, status: &TurnStatus) {
        let raise = |counter: &Counter, total: u64| counter.inc_by(total.saturating_sub(counter.get()));
        let counts = &status.counts;
        self.allocations.set(counts.allocations as i64);
        self.connections.set(status.connections as i64);
        raise(&self.allocated, counts.allocated);
        raise(&self.bindings, counts.bindings);
        raise(&self.packets, counts.packets);
        raise(&self.bytes, counts.bytes);
        for reason in TurnRefusal::ALL {
            let label = ReasonLabel { reason: reason.as_str() };
            raise(&self.refused.get_or_create(&label).clone(), counts.refused(reason));
        }
    }
}
