//! `causeway-peer` as processes: JSON lines, exit codes, files.
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::common::{Overlay, scratch, share_of, tone};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStdout, Command};

pub(crate) struct Program {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Program {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_causeway-peer"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, output }
    }

    pub(crate) async fn wait(&mut self, name: &str) -> Value {
        let mut seen = Vec::new();
        let waiting = async {
            while let Some(line) = self.output.next_line().await.unwrap() {
                let event: Value = serde_json::from_str(&line).unwrap();
                if event["event"] == name {
                    return Some(event);
                }
                seen.push(line);
            }
            None
        };
        let found = tokio::time::timeout(Duration::from_secs(40), waiting).await;
        found.ok().flatten().unwrap_or_else(|| panic!("no `{name}`; seen: {seen:#?}"))
    }

    /// Sends a signal, such as `HUP`.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().await.unwrap();
        assert!(sent.success());
    }

    pub(crate) async fn exit_code(mut self) -> i32 {
        let rest = async {
            while self.output.next_line().await.unwrap().is_some() {}
            self.child.wait().await.unwrap()
        };
        tokio::time::timeout(Duration::from_secs(20), rest).await.expect("it ends").code().unwrap()
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_shot_call_and_answer_leave_recordings_and_exit_codes() {
    let directory = scratch();
    let overlay = Overlay::start().await;
    let (alice, bob) = (directory.join("alice"), directory.join("bob"));
    overlay.write_identity(&alice, "alice", 11);
    overlay.write_identity(&bob, "bob", 12);
    let (speech, heard) = (directory.join("speech.wav"), directory.join("heard.wav"));
    crate::common::write_wav(&speech, &tone(1_200.0, 2.0));

    let node = |identity: &Path| -> Vec<String> {
        ["--identity", text(identity), "--bootstrap", &overlay.bootstrap, "--media-address", "127.0.0.1"]
            .map(str::to_owned)
            .to_vec()
    };
    let run = |action: &[&str], identity: &Path| {
        let node = node(identity);
        let all: Vec<&str> = action.iter().copied().chain(node.iter().map(String::as_str)).collect();
        Program::start(&all)
    };

    let mut callee = run(&["answer", "--mode", "now", "--echo", "--calls", "1"], &bob);
    callee.wait("online").await;
    let call =
        ["call", "bob", "--play", text(&speech), "--record", text(&heard), "--duration", "3s", "--dtmf", "5"];
    let mut caller = run(&call, &alice);
    let ended = caller.wait("ended").await;
    assert_eq!((ended["cause"].as_u64(), ended["answered"].as_bool()), (Some(16), Some(true)), "{ended}");
    assert!(ended["quality"]["packets_received"].as_u64() > Some(50), "{ended}");
    assert_eq!(caller.exit_code().await, 0);
    assert_eq!(callee.wait("ended").await["digits"], "5");
    assert_eq!(callee.exit_code().await, 0);
    assert!(share_of(&crate::common::read_wav(&heard), 1_200.0) > 0.4, "the echo came back");

    let mut callee = run(&["answer", "--mode", "busy"], &bob);
    callee.wait("online").await;
    let mut caller = run(&["call", "bob"], &alice);
    let ended = caller.wait("ended").await;
    assert_eq!((ended["cause"].as_u64(), ended["sip_status"].as_u64()), (Some(17), Some(486)), "{ended}");
    assert_eq!(caller.exit_code().await, 10);
    assert_eq!(callee.exit_code().await, 0);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_socket_takes_commands_and_shows_events() {
    let directory = scratch();
    let overlay = Overlay::start().await;
    let identity = directory.join("alice");
    overlay.write_identity(&identity, "alice", 11);
    let socket = directory.join("control");
    let mut program = Program::start(&[
        "run",
        "--identity",
        text(&identity),
        "--bootstrap",
        &overlay.bootstrap,
        "--media-address",
        "127.0.0.1",
        "--control",
        text(&socket),
    ]);
    program.wait("online").await;
    let (input, mut output) = UnixStream::connect(&socket).await.unwrap().into_split();
    let mut shown = BufReader::new(input).lines();
    output
        .write_all(b"{\"command\":\"call\",\"to\":\"bob\",\"tone\":1}\n{\"command\":\"status\"}\n")
        .await
        .unwrap();
    let error: Value = serde_json::from_str(&shown.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!((error["event"].as_str(), error["field"].as_str()), (Some("error"), Some("tone")), "{error}");
    let status: Value = serde_json::from_str(&shown.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!(
        (status["event"].as_str(), status["online"].as_bool()),
        (Some("status"), Some(true)),
        "{status}"
    );
    output.write_all(b"{\"command\":\"quit\"}\n").await.unwrap();
    assert_eq!(program.exit_code().await, 0);
    assert!(!socket.exists());
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn identity_files_are_made_checked_and_explained() {
    let directory = scratch();
    let key = directory.join("alice.key");
    let made = Command::new(env!("CARGO_BIN_EXE_causeway-peer"))
        .args([
            "key",
            "--out",
            text(&key),
            "--handle",
            "alice",
            "--request",
            text(&directory.join("alice.csr")),
        ])
        .output()
        .await
        .unwrap();
    assert!(made.status.success());
    let shown: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(shown["public_key"].as_str().map(str::len), Some(64));

    let again = Program::start(&["key", "--out", text(&key)]);
    assert_eq!(again.exit_code().await, 78, "a key is never overwritten");

    let overlay = Overlay::start().await;
    let bob = directory.join("bob");
    overlay.write_identity(&bob, "bob", 12);
    let import = |key: &Path, to: &str| {
        let to = directory.join(to);
        let mut child = Program::start(&[
            "import",
            "--identity",
            text(&to),
            "--key",
            text(key),
            "--certificate",
            text(&bob.join("certificate.pem")),
            "--root",
            text(&bob.join("root.pem")),
        ]);
        async move {
            let line = child.output.next_line().await.unwrap().unwrap();
            (line, child.exit_code().await)
        }
    };
    let (line, code) = import(&bob.join("key.pem"), "copy").await;
    assert!(line.contains("\"handle\":\"bob\""), "{line}");
    assert_eq!(code, 0);
    let (line, code) = import(&key, "wrong").await;
    assert!(line.contains(shown["public_key"].as_str().unwrap()), "names the key to certify: {line}");
    assert_eq!(code, 78);

    // One file with key and certificate, as the authority issues it.
    let issued = bob.join("issued.pem");
    let parts = ["key.pem", "certificate.pem"].map(|part| std::fs::read_to_string(bob.join(part)).unwrap());
    std::fs::write(&issued, parts.concat()).unwrap();
    assert_eq!(
        Program::start(&["show", "--identity", text(&issued)]).exit_code().await,
        78,
        "others can read it"
    );
    std::fs::set_permissions(&issued, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(Program::start(&["show", "--identity", text(&issued)]).exit_code().await, 0);

    let arguments = |identity: &str| {
        let identity = directory.join(identity);
        [
            "call",
            "bob",
            "--bootstrap",
            "/ip4/127.0.0.1/udp/9/quic-v1",
            "--media-address",
            "127.0.0.1",
            "--identity",
            text(&identity),
        ]
        .map(str::to_owned)
    };
    let missing = Program::start(&arguments("missing").each_ref().map(String::as_str));
    assert_eq!(missing.exit_code().await, 78);
    assert_eq!(Program::start(&["dance"]).exit_code().await, 64);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_revocation_list_of_an_identity_is_read() {
    let directory = scratch();
    let overlay = Overlay::start().await;
    overlay.write_identity(&directory, "alice", 11);
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let reason = p2p_edge::identity::RevocationReason::Withdrawn;
    let lists = [(&overlay.pki.root, 77), (&overlay.pki.enrolment, 2099)]
        .map(|(authority, serial)| authority.revoke(None, serial, reason, unix).unwrap().to_pem());
    std::fs::write(directory.join("revoked.pem"), lists.concat()).unwrap();
    let identity = peer::identity_files::Identity::read(&directory, None, unix).unwrap();
    assert_eq!((identity.revocations.len(), identity.revocations.lists().count()), (2, 2));
    std::fs::remove_dir_all(&directory).unwrap();
}
