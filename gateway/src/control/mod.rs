//! What the admin API asks, answered by the signalling loop.

pub(crate) mod views;

use std::sync::Arc;
use std::time::{Duration, Instant};

use admin_api::{
    CallFilter, CallList, CallView, Control, Health, HealthState, LadderView, OverlayView, PresenceView,
    ReloadFailure, Reloaded, RouteTest, TrunkView, Unavailable, WhyView,
};
use call_model::{Address, CallId, TrunkName};
use p2p_edge::node::{NodeHandle, NodeStatus};
use tokio::sync::{mpsc, oneshot};

use crate::config::Role;
use crate::driver::Request;
use crate::reload::Reloader;
use crate::telemetry::Metrics;

/// How long an answer may take. The loop turns in well under a millisecond unless it is overloaded.
const PATIENCE: Duration = Duration::from_millis(800);

/// The daemon as the admin API sees it.
#[derive(Debug)]
pub(crate) struct GatewayControl {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) node: NodeHandle,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) online: tokio::sync::watch::Receiver<bool>,
    pub(crate) started: Instant,
    pub(crate) role: Role,
}

impl GatewayControl {
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.requests.send(request(reply)).await.map_err(|_| Unavailable)?;
            answer.await.map_err(|_| Unavailable)
        };
        tokio::time::timeout(PATIENCE, asked).await.map_err(|_| Unavailable)?
    }

    async fn node_status(&self) -> NodeStatus {
        tokio::time::timeout(PATIENCE, self.node.status()).await.unwrap_or_default()
    }
}

impl Control for GatewayControl {
    async fn calls(&self, filter: CallFilter) -> Result<CallList, Unavailable> {
        self.ask(|reply| Request::Calls(filter, reply)).await
    }

    async fn call(&self, id: CallId) -> Result<Option<CallView>, Unavailable> {
        self.ask(|reply| Request::Call(id, reply)).await
    }

    async fn why(&self, id: CallId) -> Result<Option<WhyView>, Unavailable> {
        self.ask(|reply| Request::Why(id, reply)).await
    }

    async fn ladder(&self, id: CallId) -> Result<Option<LadderView>, Unavailable> {
        self.ask(|reply| Request::Ladder(id, reply)).await
    }

    async fn hang_up(&self, id: CallId) -> Result<bool, Unavailable> {
        self.ask(|reply| Request::HangUp(id, reply)).await
    }

    async fn route_test(
        &self,
        to: Address,
        from: Option<Address>,
        trunk: Option<TrunkName>,
    ) -> Result<RouteTest, Unavailable> {
        self.ask(|reply| Request::RouteTest(to, from, trunk, reply)).await
    }

    async fn trunks(&self) -> Result<Vec<TrunkView>, Unavailable> {
        self.ask(Request::Trunks).await
    }

    async fn reload(&self) -> Result<Reloaded, ReloadFailure> {
        self.reloader.reload().await
    }

    async fn overlay(&self) -> Result<OverlayView, Unavailable> {
        let status = self.node_status().await;
        // The status of a node that does not answer is empty.
        if status.peer_id.is_empty() { Err(Unavailable) } else { Ok(views::overlay(status)) }
    }

    async fn health(&self) -> Health {
        let (load, status) = tokio::join!(self.ask(Request::Load), self.node_status());
        let state = match load {
            Err(Unavailable) => HealthState::Unresponsive,
            Ok((_, true)) => HealthState::Draining,
            Ok(_) if *self.online.borrow() => HealthState::Ready,
            Ok(_) => HealthState::Starting,
        };
        Health {
            state,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            calls: load.map_or(0, |(calls, _)| calls),
            role: self.role.as_str().to_owned(),
            peer_id: self.node.peer_id(),
            overlay_addresses: status.listening,
            overlay_peers: status.peers,
            reservations: status.reservations_served,
            turn_allocations: status.turn.map(|turn| turn.counts.allocations),
            records: status.records,
            presence: PresenceView {
                handles: status.presence.handles,
                on: status.presence.on,
                texts: status.presence.texts,
                devices: status.presence.devices,
                watched: status.presence.watched,
            },
        }
    }

    fn metrics(&self) -> String {
        self.metrics.encode()
    }
}
