//! One call of each kind behind NATs, in network namespaces: to a telephone and from it without a relay, and between two
//! users whose NATs only a relay gets over. `make nat` plays all the others.
#![allow(dead_code, reason = "the program uses the rest")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod cases;
mod sites;
mod stage;

use cases::Kind;
use stage::Stage;

#[test]
fn users_behind_nats_call_and_are_called() {
    let mut stage = Stage::set(&["sym".to_owned(), "prest".to_owned()], false).unwrap();
    let wanted = [
        (Kind::ToNumber, "sym", "telephone"),
        (Kind::FromNumber, "telephone", "sym"),
        (Kind::Users, "prest", "sym"),
    ];
    let outcomes =
        cases::play(&mut stage, |kind, caller, called| wanted.contains(&(kind, caller, called))).unwrap();
    assert_eq!(outcomes.len(), wanted.len());
    for outcome in &outcomes {
        assert!(outcome.wrong.is_none() && outcome.heard(), "{outcome:?}");
        assert_eq!(outcome.relayed, outcome.kind == Kind::Users, "{outcome:?}");
    }
}
