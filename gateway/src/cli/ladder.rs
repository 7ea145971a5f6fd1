//! Draws the messages of a call between three lifelines.

use admin_api::{ExchangeView, LadderView};

/// Columns between two lifelines.
const SPAN: usize = 32;
const TIME: usize = 11;

/// Draws a ladder for a terminal of at least 80 columns.
pub(super) fn draw(ladder: &LadderView) -> String {
    let call = &ladder.call;
    let from = call.from.as_deref().unwrap_or("anonymous");
    let (left, right) = match call.direction.as_str() {
        "overlay_to_trunk" => (from, call.to.as_str()),
        _ => (call.to.as_str(), from),
    };
    let trunk = call.trunk.as_deref().unwrap_or("trunk");
    let mut text = format!("call {} at {}\n\n", call.id, call.started);
    let heads = match &call.onward {
        Some(onward) => {
            [format!("{trunk} ({from})"), "causeway".to_owned(), format!("{onward} ({})", call.to)]
        }
        None => [format!("overlay ({left})"), "causeway".to_owned(), format!("{trunk} ({right})")],
    };
    text += &heading(&heads);
    for exchange in &ladder.exchanges {
        text += &rung(exchange, call.onward.is_some());
    }
    text += &format!("{:TIME$}│{:SPAN$}│{:SPAN$}│\n", "", "", "");
    if ladder.dropped > 0 {
        text += &format!("{} later messages were not kept\n", ladder.dropped);
    }
    if let (Some(cause), Some(by)) = (&call.cause, &call.released_by) {
        text += &format!("ended by the {by}: {} (Q.850 {})\n", cause.text, cause.q850);
    }
    text
}

fn heading(heads: &[String; 3]) -> String {
    let mut line = vec![' '; TIME + 2 * SPAN + 24];
    for (index, head) in heads.iter().enumerate() {
        let head: Vec<char> = head.chars().take(SPAN - 2).collect();
        let centre = TIME + index * (SPAN + 1);
        let start = centre.saturating_sub(head.len() / 2);
        for (offset, c) in head.into_iter().enumerate() {
            if let Some(cell) = line.get_mut(start + offset) {
                *cell = c;
            }
        }
    }
    format!("{}\n", line.into_iter().collect::<String>().trim_end())
}

fn column(actor: &str, between_trunks: bool) -> usize {
    match actor {
        "overlay" => 0,
        "gateway" => 1,
        "trunk" if between_trunks => 0,
        _ => 2,
    }
}

fn rung(exchange: &ExchangeView, between_trunks: bool) -> String {
    let (from, to) = (column(&exchange.from, between_trunks), column(&exchange.to, between_trunks));
    let label: String = exchange.label.chars().take(SPAN - 6).collect();
    let arrow = format!("─ {label} ─");
    let fill = SPAN.saturating_sub(1 + arrow.chars().count());
    let arrow = if from < to {
        format!("{arrow}{}▶", "─".repeat(fill))
    } else {
        format!("◀{}{arrow}", "─".repeat(fill))
    };
    let blank = " ".repeat(SPAN);
    let time = format!("{:>9.1} ", exchange.at_ms);
    let (first, second) =
        if from.min(to) == 0 { (arrow.as_str(), blank.as_str()) } else { (blank.as_str(), arrow.as_str()) };
    format!("{time:TIME$}│{first}│{second}│\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_point_at_who_receives() {
        let rung_of = |from: &str, to: &str| {
            rung(
                &ExchangeView { at_ms: 12.3, from: from.into(), to: to.into(), label: "INVITE (SDP)".into() },
                false,
            )
        };
        assert_eq!(rung_of("gateway", "trunk").trim_end().chars().nth_back(1), Some('▶'));
        assert!(rung_of("trunk", "gateway").contains("│◀"));
        let right = rung_of("overlay", "gateway");
        assert!(right.starts_with("     12.3  │─ INVITE (SDP) ─") && right.contains("▶│"), "{right}");
        let width = |line: String| line.trim_end().chars().count();
        assert_eq!(width(rung_of("gateway", "overlay")), width(rung_of("trunk", "gateway")));
        let long = "x".repeat(100);
        let long = rung(
            &ExchangeView { at_ms: 0.0, from: "trunk".into(), to: "gateway".into(), label: long },
            false,
        );
        assert_eq!(width(long), width(rung_of("gateway", "trunk")));
    }
}
