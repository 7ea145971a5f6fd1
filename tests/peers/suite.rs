//! What `make interop` shows, as a test: every scenario of the scripted peers, which nobody need install.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn every_scripted_peer_and_the_gateway_understand_each_other() {
    let output = Command::new(env!("CARGO_BIN_EXE_causeway-interop")).arg("--scripted").output().unwrap();
    let (said, complaints) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("RESULT interop peers=") && last.ends_with(" failed=0"), "{said}\n{complaints}");
    assert!(output.status.success(), "{said}\n{complaints}");
}
