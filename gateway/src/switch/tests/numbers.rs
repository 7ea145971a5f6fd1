//! Numbers that belong to overlay users, by the configuration or by the overlay's own word.

use super::*;

#[test]
fn a_number_that_is_not_configured_is_looked_for_in_the_overlay_where_that_is_wished() {
    for wished in [false, true] {
        let mut bench = Bench::new(|config| config.policy.find_numbers = wished);
        let call = bench.trunk_calls("+15552000");
        bench.opened(call);
        let invited = bench.actions.iter().find_map(|action| match action {
            Action::Overlay(NodeCommand::Invite { to, .. }) => Some(to.to_string()),
            _ => None,
        });
        assert_eq!(invited, wished.then(|| "+15552000".to_owned()));
        let released = |bench: &Bench| {
            bench
                .actions
                .iter()
                .any(|action| matches!(action, Action::Sip(Command::Release { .. } | Command::Reject { .. })))
        };
        assert_eq!(released(&bench), !wished);
        if wished {
            // Nobody has it.
            let (cause, by) = (Cause::NO_ROUTE_TO_DESTINATION, EndedBy::Far);
            let text = String::new();
            bench.overlay(call, SessionEvent::Ended { cause, sip_status: Some(404), text, by });
            assert!(released(&bench));
        }
    }
}
