//! Joining by what others hand over, and by what is left of the last time.

use p2p_edge::identity::{BootstrapList, Validity};
use serde_json::Value;
use tokio::process::Command;

use crate::common::{Overlay, scratch};
use crate::program::text;

/// Asks the program for an invite. Returns its exit code and the link, or what it complains of.
async fn invite(identity: &std::path::Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway-peer"));
    command.args(["invite", "--identity", text(identity), "--online-timeout", "20s"]).args(arguments);
    let done = command.output().await.unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    let last: Value = serde_json::from_str(said.lines().last().unwrap_or("null")).unwrap();
    let told = last["invite"].as_str().or(last["message"].as_str()).unwrap_or(&said);
    (done.status.code().unwrap(), told.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_join_by_an_invite_by_a_signed_list_and_by_what_they_remember() {
    let directory = scratch();
    let overlay = Overlay::start().await;
    let identity = |name: &str, number| {
        let at = directory.join(name);
        overlay.write_identity(&at, name, number);
        at
    };
    let (alice, bob, carol) = (identity("alice", 11), identity("bob", 12), identity("carol", 13));
    let (code, link) = invite(&alice, &["--bootstrap", &overlay.bootstrap]).await;
    assert_eq!(code, 0, "{link}");
    assert!(link.starts_with("causeway:invite?v=1&from=alice&a=/ip4/127.0.0.1/udp/"), "{link}");

    // Bob has nothing but the link, and hands it on by a page of the web.
    let (code, page) = invite(&bob, &["--invite", &link, "--page", "https://example.org/join"]).await;
    assert!(code == 0 && page.starts_with("https://example.org/join#v=1&from=bob&a="), "{code} {page}");
    // He is known to nobody the next time, and needs nobody.
    let (code, again) = invite(&bob, &[]).await;
    assert!(code == 0 && again.contains("from=bob"), "{code} {again}");

    // Carol has the list of the package.
    let (code, none) = invite(&carol, &[]).await;
    assert!(code == 64 && none.contains("no way to join: give --bootstrap"), "{code} {none}");
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let nodes = [overlay.bootstrap.clone()];
    let list = BootstrapList::new(1, Validity::days_from(unix - 60, 30), &nodes, &[], &[]).unwrap();
    let signed = overlay.pki.root.sign_bootstrap(list).unwrap();
    std::fs::write(carol.join("bootstrap.pem"), signed.to_pem()).unwrap();
    let (code, link) = invite(&carol, &[]).await;
    assert!(code == 0 && link.contains("from=carol"), "{code} {link}");

    for (arguments, problem) in [
        (["--invite", "hello"], "--invite: this is no invite"),
        (["--bootstrap-dns", "a b"], "--bootstrap-dns: `a b` is no domain name"),
        (["--bootstrap-mirror", "http://example.org/"], "does not begin with https://"),
    ] {
        let (code, said) = invite(&alice, &arguments).await;
        assert!(code == 64 && said.contains(problem), "{code} {said}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
