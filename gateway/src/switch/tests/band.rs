//! The band that overlay users are asked to send in: as wide as the trunks of the call may carry.

use super::*;

/// The playback rate of each overlay leg that was opened.
fn rates(bench: &Bench) -> Vec<u32> {
    let opened = |action: &Action| match action {
        Action::Media(MediaCommand::Open { playback_rate, .. }) => Some(*playback_rate),
        _ => None,
    };
    bench.actions.iter().filter_map(opened).collect()
}

#[test]
fn an_overlay_user_is_asked_for_as_much_as_a_trunk_of_the_route_carries() {
    for (first, second, expected) in [
        (vec![Codec::Pcma], vec![Codec::Pcmu], 8_000),
        (vec![Codec::Pcma], vec![Codec::G722, Codec::Pcma], 16_000),
        (vec![Codec::Pcma, Codec::G722], vec![Codec::Pcma], 16_000),
        (vec![Codec::Opus, Codec::Pcma], vec![Codec::G722], 48_000),
    ] {
        let codecs = [first, second];
        let mut bench = Bench::new(|config| {
            for (trunk, codecs) in config.trunks.iter_mut().zip(&codecs) {
                trunk.codecs.clone_from(codecs);
            }
        });
        bench.overlay_calls(Some("alice"), NUMBER);
        assert_eq!(rates(&bench), [expected], "{codecs:?}");
    }
}

#[test]
fn an_overlay_user_who_is_called_is_asked_for_as_much_as_that_trunk_carries() {
    for (first, expected) in [(Codec::Pcma, 8_000), (Codec::G722, 16_000)] {
        let mut bench = Bench::new(|config| {
            config.trunks[0].codecs = vec![first];
            config.trunks[1].codecs = vec![Codec::Opus];
        });
        bench.trunk_calls("+15551000");
        assert_eq!(rates(&bench), [expected], "{first:?}");
    }
}
