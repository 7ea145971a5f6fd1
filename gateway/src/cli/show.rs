//! Text for people.

use std::fmt::Write;

use admin_api::{
    CallList, CallView, DecisionView, Health, LegView, OverlayView, RatingView, Reloaded, RouteTest,
    TargetView, TrunkView, WayView, WhyView,
};
use serde::Deserialize;

/// Lays rows out in columns as wide as their widest cell.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        format!("{}\n", line.trim_end())
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

fn state(call: &CallView) -> String {
    let state = serde_json::to_value(call.state).ok();
    state.as_ref().and_then(|value| value.as_str()).unwrap_or("unknown").to_owned()
}

fn milliseconds(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"))
}

pub(super) fn calls(list: &CallList) -> String {
    if list.calls.is_empty() {
        return "no calls\n".into();
    }
    let row = |call: &CallView| {
        vec![
            call.id.clone(),
            call.started.clone(),
            state(call),
            call.from.clone().unwrap_or_else(|| "anonymous".into()),
            call.to.clone(),
            call.trunk.clone().unwrap_or_else(|| "-".into()),
            milliseconds(call.setup_ms),
            call.duration_ms.map_or_else(|| "-".into(), |ms| format!("{:.1} s", ms as f64 / 1000.0)),
            call.cause.as_ref().map_or_else(String::new, |cause| format!("{} {}", cause.q850, cause.text)),
        ]
    };
    let rows: Vec<Vec<String>> = list.calls.iter().map(row).collect();
    let head = ["CALL", "STARTED", "STATE", "FROM", "TO", "TRUNK", "SET-UP", "LENGTH", "CAUSE"];
    let mut text = table(&head, &rows);
    if let Some(next) = &list.next {
        let _ = writeln!(text, "more calls follow: --after {next}");
    }
    text
}

fn leg(name: &str, leg: &LegView) -> String {
    let total = leg.packets_received + leg.packets_lost;
    let loss = if total == 0 { 0.0 } else { leg.packets_lost as f64 * 100.0 / total as f64 };
    format!(
        "  from the {name} ({}): {} packets received, {loss:.1} % lost, {} late, {} refused, {} frames concealed, jitter {:.1} ms; {} packets sent to it\n",
        leg.codec.as_deref().unwrap_or("no codec"),
        leg.packets_received,
        leg.packets_late,
        leg.packets_refused,
        leg.frames_concealed,
        leg.jitter_ms,
        leg.packets_sent,
    ) + &leg.rating.as_ref().map_or_else(String::new, |whole| judged(whole, leg))
}

fn judged(whole: &RatingView, leg: &LegView) -> String {
    let mut text = format!("    mean opinion score {:.2}{}", whole.mos, because(whole));
    if let Some(worst) = &leg.worst {
        let _ = write!(text, "; in the worst five seconds {:.2}{}", worst.mos, because(worst));
    }
    if leg.echo_ms > 0 || leg.clipped_ms > 0 {
        let _ = write!(text, "; {} ms of echo, {} ms clipped", leg.echo_ms, leg.clipped_ms);
    }
    text + "\n"
}

fn because(rating: &RatingView) -> String {
    rating.cause.as_ref().map_or_else(String::new, |cause| format!(" ({})", cause.replace('_', " ")))
}

pub(super) fn call(call: &CallView) -> String {
    let mut text = format!(
        "call {}\n  {}, {}: {} -> {}",
        call.id,
        call.direction.replace('_', " "),
        state(call),
        call.from.as_deref().unwrap_or("anonymous"),
        call.to
    );
    if let Some(trunk) = &call.trunk {
        let _ = write!(text, " by trunk {trunk}");
    }
    if let Some(onward) = &call.onward {
        let _ = write!(text, " and trunk {onward}");
    }
    if let Some(connected) = &call.connected {
        let _ = write!(text, ", connected to {connected}");
    }
    let _ = write!(
        text,
        "\n  started {}; ringing or early media after {}; answered after {}; {} DTMF digits\n",
        call.started,
        milliseconds(call.post_dial_delay_ms),
        milliseconds(call.setup_ms),
        call.dtmf_digits
    );
    match &call.onward_leg {
        Some(onward) => {
            text += &leg("trunk it came by", &call.trunk_leg);
            text += &leg("trunk it went on by", onward);
        }
        None => {
            text += &leg("overlay", &call.overlay);
            text += &leg("trunk", &call.trunk_leg);
        }
    }
    if let Some(cause) = &call.cause {
        let by = call.released_by.as_deref().unwrap_or("nobody known");
        let _ = writeln!(text, "  ended by {by}: {} (Q.850 {})", cause.text, cause.q850);
    }
    text
}

fn decisions(list: &[DecisionView]) -> String {
    let rows: Vec<Vec<String>> = list
        .iter()
        .map(|step| vec![step.gate.clone(), step.verdict.clone(), step.rule.clone(), step.detail.clone()])
        .collect();
    table(&["GATE", "VERDICT", "RULE", "WHY"], &rows)
}

pub(super) fn why(why: &WhyView) -> String {
    format!("{}\n\n{}", why.summary, decisions(&why.decisions))
}

pub(super) fn route(test: &RouteTest) -> String {
    let verdict = if test.placed {
        format!("would be placed: {}", test.targets.join(", then "))
    } else {
        "would be refused".into()
    };
    format!("{verdict}\n\n{}", decisions(&test.decisions))
}

/// The list of trunks as the API wraps it.
#[derive(Deserialize)]
pub(super) struct Trunks {
    trunks: Vec<TrunkView>,
}

pub(super) fn trunks(list: &Trunks) -> String {
    if list.trunks.is_empty() {
        return "no trunks\n".into();
    }
    let row = |trunk: &TrunkView| {
        vec![
            trunk.name.clone(),
            trunk.state.clone(),
            if trunk.nat { format!("{} (nat)", trunk.target) } else { trunk.target.clone() },
            format!("{}/{}", trunk.calls, trunk.max_calls),
            trunk.detail.clone(),
        ]
    };
    let target = |target: &TargetView| {
        let mut said: Vec<String> = target.last_status.iter().map(u16::to_string).collect();
        said.extend(target.barred.then(|| "asked to be left alone".to_owned()));
        let percent = target.reduction_percent;
        said.extend((percent > 0).then(|| format!("asks to be spared {percent} %")));
        vec![String::new(), target.state.clone(), target.address.clone(), String::new(), said.join(", ")]
    };
    // The single target of a trunk is the trunk's own line.
    let rows: Vec<Vec<String>> = (list.trunks.iter())
        .flat_map(|trunk| {
            let several = trunk.targets.len() > 1 || trunk.targets.iter().any(|t| t.address != trunk.target);
            let targets = trunk.targets.iter().filter(move |_| several).map(target);
            std::iter::once(row(trunk)).chain(targets)
        })
        .collect();
    table(&["TRUNK", "STATE", "TARGET", "CALLS", "LAST CHECK"], &rows)
}

pub(super) fn health(health: &Health) -> String {
    let state = serde_json::to_value(health.state).ok();
    let mut text = format!(
        "{}: {} {}, up {} s, {} calls\noverlay node {}: {} peers, {} reservations, {} records\n",
        state.as_ref().and_then(|value| value.as_str()).unwrap_or("unknown"),
        health.role,
        health.version,
        health.uptime_s,
        health.calls,
        health.peer_id,
        health.overlay_peers,
        health.reservations,
        health.records
    );
    if let Some(allocations) = health.turn_allocations {
        let _ = writeln!(text, "  TURN: {allocations} relayed addresses in use");
    }
    let presence = health.presence;
    let _ = writeln!(
        text,
        "presence: home of {} users, {} on, {} texts wait; {} devices attached, {} users watched",
        presence.handles, presence.on, presence.texts, presence.devices, presence.watched
    );
    for address in &health.overlay_addresses {
        let _ = writeln!(text, "  {address}");
    }
    text
}

pub(super) fn overlay(overlay: &OverlayView) -> String {
    let since = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), |s| format!("{s:.0} s ago"));
    let mut text = format!(
        "overlay node {}: {}, {} peers, {} servers, {} in the routing table, {} reservations served\n",
        overlay.peer_id,
        if overlay.online { "online" } else { "offline" },
        overlay.peers,
        overlay.servers,
        overlay.routing_table,
        overlay.reservations
    );
    let _ = match (overlay.since_round_trip_s, overlay.round_trip_ms) {
        (None, _) => writeln!(text, "round trips: no other node exists"),
        (Some(seconds), None) => {
            writeln!(text, "round trips: none in {seconds:.0} s, {} failed", overlay.round_trips_failed)
        }
        (at @ Some(_), Some(took)) => writeln!(
            text,
            "round trips: {}, {} failed; the last {}, in {took:.0} ms",
            overlay.round_trips,
            overlay.round_trips_failed,
            since(at)
        ),
    };
    let share =
        overlay.dial_success.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0));
    let _ = writeln!(text, "dials: {} reached, {} not; {share} of late", overlay.dials, overlay.dials_failed);
    let _ = writeln!(text, "{} servers remembered\n", overlay.good_peers);
    let row = |way: &WayView| {
        let number = |count: u64| count.to_string();
        let cells = [number(way.nodes as u64), number(way.asked), number(way.failed), number(way.joined)];
        [vec![way.way.clone()], cells.to_vec(), vec![since(way.worked_s_ago)]].concat()
    };
    let rows: Vec<Vec<String>> = overlay.ways.iter().map(row).collect();
    text + &table(&["WAY", "NODES", "ASKED", "FAILED", "JOINED", "WORKED"], &rows)
}

pub(super) fn reloaded(reloaded: &Reloaded) -> String {
    let listed = |keys: &[String]| if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
    let mut text = format!("applied: {}\n", listed(&reloaded.applied));
    if !reloaded.restart.is_empty() {
        let _ = writeln!(text, "needs a restart: {}", listed(&reloaded.restart));
    }
    text
}
