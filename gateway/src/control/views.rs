//! From what the switch remembers to what the API shows.

use std::time::{Duration, Instant};

use admin_api::{
    CallFilter, CallList, CallState, CallView, CauseView, Cursor, DecisionView, ExchangeView, LadderView,
    LegView, OverlayView, RatingView, RemoteView, RouteTest, TargetView, TrunkView, WayView, WhyView,
};
use call_model::{Address, Codec, Decision, LegQuality, Rating, TrunkName, Verdict};
use p2p_edge::identity::Utc;
use p2p_edge::node::{NodeStatus, WayReport};
use sip_trunk::{TargetStatus, TrunkStatus};

use crate::config::Trunk;
use crate::switch::{CallRecord, Origin, Phase, RouteDirection, Switch, Target};

pub(crate) fn overlay(status: NodeStatus) -> OverlayView {
    let way = |report: &WayReport| WayView {
        way: report.way.to_owned(),
        nodes: report.nodes,
        asked: report.asked,
        failed: report.failed,
        joined: report.joined,
        worked_s_ago: report.since.map(|since| since.as_secs_f64()),
    };
    let health = status.health;
    OverlayView {
        ways: health.ways.iter().map(way).collect(),
        peer_id: status.peer_id,
        online: status.online,
        addresses: status.announced,
        peers: status.peers,
        servers: status.certified.len(),
        routing_table: status.routing_table,
        round_trips: health.round_trips,
        round_trips_failed: health.round_trips_failed,
        since_round_trip_s: health.since_round_trip.map(|since| since.as_secs_f64()),
        round_trip_ms: health.round_trip.map(|took| took.as_secs_f64() * 1000.0),
        dials: health.dials,
        dials_failed: health.dials_failed,
        dial_success: health.dials_per_mille.map(|share| f64::from(share) / 1000.0),
        reservations: status.reservations_served,
        good_peers: health.good_peers,
        known_servers: status.known_servers,
    }
}

pub(crate) fn calls(switch: &Switch, filter: &CallFilter, now: Instant) -> CallList {
    // The live part goes on below the id, whether or not that call still lives. The finished part
    // goes on behind the call: where that is gone from the history, so are all that ended before it.
    let live = switch.live_records().into_iter().filter(|record| match filter.after {
        None => true,
        Some(Cursor::Live(after)) => record.id < after,
        Some(Cursor::Finished(_)) => false,
    });
    let behind = match filter.after {
        Some(Cursor::Finished(after)) => Some(after),
        _ => None,
    };
    let finished = switch.finished_records().take(if filter.live { 0 } else { usize::MAX });
    let finished = finished.skip_while(|record| behind.is_some_and(|behind| behind != record.id));
    let finished = finished.skip(usize::from(behind.is_some()));
    let rows = live.map(|record| (Cursor::Live(record.id), record));
    let mut rows = rows.chain(finished.map(|record| (Cursor::Finished(record.id), record)));
    let page: Vec<(Cursor, &CallRecord)> = rows.by_ref().take(filter.limit).collect();
    let next = page.last().filter(|_| rows.next().is_some()).map(|(cursor, _)| cursor.to_string());
    CallList { next, calls: page.into_iter().map(|(_, record)| call(record, now)).collect() }
}

pub(crate) fn call(record: &CallRecord, now: Instant) -> CallView {
    let end = record.ended.unwrap_or_else(|| now.saturating_duration_since(record.started));
    let between_trunks = record.direction == RouteDirection::TrunkToTrunk;
    let heard = record.answered.or(record.alerted).filter(|_| !between_trunks);
    let overlay_codec = heard.map(|_| record.whole.overlay_codec.unwrap_or(Codec::Opus));
    CallView {
        id: record.id.to_string(),
        direction: record.direction.as_str().to_owned(),
        state: match record.phase {
            Phase::Setup => CallState::Setup,
            Phase::Ringing => CallState::Ringing,
            Phase::Early => CallState::Early,
            Phase::Active => CallState::Active,
            Phase::Releasing => CallState::Releasing,
            Phase::Ended => CallState::Ended,
        },
        from: record.from.address.as_ref().map(ToString::to_string),
        to: record.to.clone(),
        trunk: record.trunk.as_ref().map(ToString::to_string),
        onward: record.onward.as_ref().map(ToString::to_string),
        connected: record
            .connected
            .as_ref()
            .and_then(|party| party.address.as_ref())
            .map(ToString::to_string),
        started: rfc3339(record.started_unix_ms),
        post_dial_delay_ms: record.alerted.or(record.answered).map(millis),
        setup_ms: record.answered.map(millis),
        duration_ms: record.answered.map(|answered| millis(end.saturating_sub(answered))),
        outcome: record.outcome.map(|outcome| outcome.as_str().to_owned()),
        cause: record.cause.map(|cause| CauseView {
            q850: cause.value(),
            text: cause.to_string(),
            sip_status: record.sip_status,
        }),
        released_by: record.released_by.map(|by| by.as_str().to_owned()),
        dtmf_digits: record.dtmf_digits,
        overlay: leg(overlay_codec, &record.overlay_quality),
        trunk_leg: leg(record.trunk_codec, &record.trunk_quality),
        onward_leg: between_trunks.then(|| leg(record.onward_codec, &record.onward_quality)),
        heard_by_trunk: record.whole.to_trunk.map(rating),
        heard_by_overlay: record.whole.to_overlay.map(rating),
        talk_over_ms: record.whole.audio.talk_over_ms,
        one_way: record.whole.audio.one_way.map(|side| side.as_str().to_owned()),
    }
}

fn leg(codec: Option<Codec>, quality: &LegQuality) -> LegView {
    LegView {
        codec: codec.map(|codec| codec.encoding_name().to_owned()),
        packets_received: quality.packets_received,
        packets_sent: quality.packets_sent,
        packets_lost: quality.packets_lost,
        packets_late: quality.packets_late,
        packets_refused: quality.packets_refused,
        frames_concealed: quality.frames_concealed,
        jitter_ms: quality.jitter_ms,
        packets_discarded: quality.packets_discarded,
        packets_duplicate: quality.packets_duplicate,
        frames_recovered: quality.frames_recovered,
        frames_redundant: quality.frames_redundant,
        playout_delay_ms: quality.playout_delay_ms,
        round_trip_ms: quality.round_trip_ms,
        bursts: quality.bursts.count,
        burst_loss_percent: quality.bursts.burst_loss_percent,
        rating: quality.rating.map(rating),
        recent: quality.recent.map(rating),
        worst: quality.worst.map(rating),
        remote: quality.remote.map(|remote| RemoteView {
            loss_percent: remote.loss_percent,
            discard_percent: remote.discard_percent,
            jitter_ms: remote.jitter_ms,
            rating: remote.rating.map(rating),
        }),
        voice_ms: quality.voice_ms,
        clipped_ms: quality.clipped_ms,
        echo_ms: quality.echo_ms,
        voice_dbov: quality.voice_dbov,
        noise_dbov: quality.noise_dbov,
    }
}

fn rating(rating: Rating) -> RatingView {
    RatingView {
        r_factor: rating.r_factor,
        mos: rating.mos,
        cause: rating.cause.map(|cause| cause.as_str().to_owned()),
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

pub(crate) fn why(record: &CallRecord, now: Instant) -> WhyView {
    WhyView { call: call(record, now), summary: record.summary(), decisions: decisions(&record.decisions) }
}

fn decisions(list: &[Decision]) -> Vec<DecisionView> {
    list.iter()
        .map(|decision| DecisionView {
            gate: decision.gate.as_str().to_owned(),
            verdict: decision.verdict.as_str().to_owned(),
            rule: decision.rule.to_string(),
            detail: decision.detail.to_string(),
        })
        .collect()
}

pub(crate) fn ladder(record: &CallRecord, now: Instant) -> LadderView {
    let exchanges = record.exchanges.iter().map(|(at, exchange)| ExchangeView {
        at_ms: (at.as_secs_f64() * 1e4).round() / 10.0,
        from: exchange.from.as_str().to_owned(),
        to: exchange.to.as_str().to_owned(),
        label: exchange.label.to_string(),
    });
    LadderView { call: call(record, now), exchanges: exchanges.collect(), dropped: record.exchanges_dropped }
}

pub(crate) fn route_test(
    switch: &Switch,
    to: &Address,
    from: Option<Address>,
    trunk: Option<TrunkName>,
) -> RouteTest {
    let origin = match trunk {
        Some(name) => Origin::Trunk { name },
        None => Origin::Overlay {
            handle: match from {
                Some(Address::Handle(handle)) => Some(handle),
                _ => None,
            },
        },
    };
    let evaluation = switch.evaluate(&origin, &to.to_string(), Some(to));
    let decisions = decisions(&evaluation.decisions);
    let placed = !evaluation.decisions.iter().any(|decision| decision.verdict == Verdict::Refuse);
    let targets = match evaluation.target {
        Ok(Target::Trunks(trunks)) => trunks.iter().map(ToString::to_string).collect(),
        Ok(Target::User(handle)) => vec![handle.to_string()],
        Ok(Target::Number(number)) => vec![number.to_string()],
        Err(_) => Vec::new(),
    };
    RouteTest { placed, targets, decisions }
}

/// `unreachable` says why the last connection to a trunk could not be had, where that is so.
pub(crate) fn trunks(
    switch: &Switch,
    configured: &[Trunk],
    status: &[TrunkStatus],
    unreachable: impl Fn(&TrunkName) -> Option<String>,
) -> Vec<TrunkView> {
    let row = |trunk: &Trunk| {
        let health = switch.trunk_health(&trunk.name);
        let failure = unreachable(&trunk.name);
        TrunkView {
            name: trunk.name.to_string(),
            target: match (&trunk.account, &trunk.destination) {
                (Some(account), _) => format!("account {}", account.user),
                (None, Some(name)) if name.service.is_none() => format!("sip:{}", trunk.host),
                (None, Some(_)) => {
                    format!("{}:{}", trunk.transport.as_str().to_ascii_lowercase(), trunk.host)
                }
                (None, None) => format!("{}:{}", trunk.transport.as_str().to_ascii_lowercase(), trunk.target),
            },
            state: match health {
                _ if failure.is_some() => "down",
                None => "unknown",
                Some((true, _)) => "up",
                Some((false, _)) => "down",
            }
            .to_owned(),
            detail: failure
                .unwrap_or_else(|| health.map_or("not asked yet", |(_, detail)| detail).to_owned()),
            calls: switch.calls_on(&trunk.name),
            max_calls: trunk.max_calls,
            nat: trunk.nat,
            targets: status
                .iter()
                .find(|status| status.name == trunk.name)
                .map(|status| status.targets.iter().map(target).collect())
                .unwrap_or_default(),
        }
    };
    configured.iter().map(row).collect()
}

fn target(status: &TargetStatus) -> TargetView {
    TargetView {
        address: format!("{}:{}", status.transport.as_str().to_ascii_lowercase(), status.address),
        state: status.state.as_str().to_owned(),
        last_status: status.last_status,
        barred: status.barred_until.is_some(),
        reduction_percent: status.reduction_percent,
    }
}

/// Writes a time as RFC 3339 in UTC with milliseconds.
fn rfc3339(unix_ms: u64) -> String {
    let seconds = Utc(unix_ms / 1000).to_string();
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), unix_ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_795_305_600_123), "2026-11-22T00:00:00.123Z");
    }
}
