//! The program's identity: renewed while it runs, backed up and restored.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use p2p_edge::identity::{
    AssignmentClaims, Credential, HandleCertificate, Renewal, RevocationList, Validity,
};
use tokio::process::Command;

use crate::common::{Overlay, scratch};
use crate::program::{Program, text};

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Runs the program to its end. Returns its exit code and what it wrote.
async fn run(arguments: &[&str]) -> (i32, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_causeway-peer")).args(arguments).output().await.unwrap();
    (done.status.code().unwrap(), String::from_utf8(done.stdout).unwrap())
}

/// Answers a request for renewal as an authority does.
fn renewed(overlay: &Overlay, request: &Path, serial: u64) -> HandleCertificate {
    let request = Renewal::from_pem(&std::fs::read_to_string(request).unwrap()).unwrap();
    let known = (&overlay.pki.trust().unwrap(), &RevocationList::default());
    let validity = Validity::days_from(unix(), 60);
    match overlay.pki.enrolment.renew(&request, known, serial, validity).unwrap() {
        Credential::Handle(certificate) => certificate,
        Credential::Node(_) => panic!("a user"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_program_takes_over_a_renewed_certificate() {
    let directory = scratch();
    let overlay = Overlay::start().await;
    let alice = directory.join("alice");
    overlay.write_identity(&alice, "alice", 11);
    let (socket, request) = (directory.join("control"), directory.join("renewal.pem"));
    let mut program = Program::start(&[
        "run",
        "--identity",
        text(&alice),
        "--bootstrap",
        &overlay.bootstrap,
        "--media-address",
        "127.0.0.1",
        "--control",
        text(&socket),
    ]);
    program.wait("online").await;

    let (code, said) = run(&["renew", "--identity", text(&alice), "--out", text(&request)]).await;
    assert_eq!(code, 0, "{said}");
    let certificate = renewed(&overlay, &request, 777);
    let sent_back = directory.join("renewed.pem");
    std::fs::write(&sent_back, certificate.to_pem()).unwrap();
    let update = ["update", "--identity", text(&alice), "--certificate", text(&sent_back)];
    let (code, said) = run(&update).await;
    assert_eq!(code, 0, "{said}");
    program.signal("HUP").await;
    let event = program.wait("certificate").await;
    assert_eq!(event["not_after_unix"], certificate.claims().validity.not_after, "{event}");

    // What is not this identity's is refused, and the certificate in use stays.
    overlay.write_identity(&directory.join("bob"), "bob", 12);
    let other = directory.join("bob").join("certificate.pem");
    let (code, said) = run(&["update", "--identity", text(&alice), "--certificate", text(&other)]).await;
    assert!(code == 78 && said.contains("the certificate is for bob"), "{code} {said}");
    std::fs::write(alice.join("certificate.pem"), "damaged").unwrap();
    program.signal("HUP").await;
    let error = program.wait("error").await;
    assert!(error["remedy"].as_str().unwrap().contains("stays"), "{error}");
    program.signal("TERM").await;
    assert_eq!(program.exit_code().await, 0);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_changes_its_key_by_files() {
    let directory = scratch();
    let overlay = Overlay::start().await;
    let (old, new) = (directory.join("old"), directory.join("new"));
    overlay.write_identity(&old, "alice", 11);
    let (key, request) = (directory.join("new.key"), directory.join("renewal.pem"));
    let renew = ["renew", "--identity", text(&old), "--out", text(&request), "--new-key", text(&key)];
    assert_eq!(run(&renew).await.0, 0);
    let certificate = directory.join("renewed.pem");
    std::fs::write(&certificate, renewed(&overlay, &request, 778).to_pem()).unwrap();
    let (code, said) = run(&["update", "--identity", text(&old), "--certificate", text(&certificate)]).await;
    assert!(code == 78 && said.contains("does not name this key"), "{said}");
    let root = old.join("root.pem");
    let import = [
        "import",
        "--identity",
        text(&new),
        "--key",
        text(&key),
        "--certificate",
        text(&certificate),
        "--root",
        text(&root),
    ];
    let (code, said) = run(&import).await;
    assert!(code == 0 && said.contains("\"handle\":\"alice\""), "{said}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn an_identity_is_restored_from_its_backup() {
    use std::os::unix::fs::PermissionsExt;
    let directory = scratch();
    let overlay = Overlay::start().await;
    let alice = directory.join("alice");
    overlay.write_identity(&alice, "alice", 11);
    let (phrase, backup) = (directory.join("passphrase"), directory.join("alice.backup"));
    std::fs::write(&phrase, "correct horse battery staple\n").unwrap();
    std::fs::set_permissions(&phrase, PermissionsExt::from_mode(0o600)).unwrap();
    let secret = ["--passphrase-file", text(&phrase)];
    let (code, said) =
        run(&[&["backup", "--identity", text(&alice), "--out", text(&backup)][..], &secret].concat()).await;
    assert!(code == 0 && said.contains("key.pem"), "{said}");
    let restore = |to: &Path| {
        ["restore", "--backup", text(&backup), "--identity", text(to)].map(str::to_owned).to_vec()
    };
    let restored = directory.join("restored");
    let arguments = restore(&restored);
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.extend(secret);
    assert_eq!(run(&arguments).await.0, 0);
    let (code, said) = run(&["show", "--identity", text(&restored)]).await;
    assert!(code == 0 && said.contains("\"handle\":\"alice\""), "{said}");
    let (code, said) = run(&arguments).await;
    assert!(code == 78 && said.contains("move it away first"), "{said}");
    std::fs::write(&phrase, "a passphrase of another\n").unwrap();
    let elsewhere = restore(&directory.join("elsewhere"));
    let mut arguments: Vec<&str> = elsewhere.iter().map(String::as_str).collect();
    arguments.extend(secret);
    let (code, said) = run(&arguments).await;
    assert!(code == 78 && said.contains("does not fit"), "{said}");
    assert!(!directory.join("elsewhere").exists());
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assigned_number_is_imported_and_published_from_then_on() {
    let directory = scratch();
    let overlay = Overlay::start().await;
    let alice = directory.join("alice");
    overlay.write_identity(&alice, "alice", 11);
    let write = |handle: &str, name: &str| {
        let claims = AssignmentClaims {
            number: "+442079460018".parse().unwrap(),
            handle: handle.parse().unwrap(),
            serial: 70,
            sequence: unix() * 1000,
            expires_unix: unix() + 86_400,
        };
        let file = directory.join(name);
        let assignment = overlay.pki.enrolment.assign_number(claims).unwrap();
        std::fs::write(&file, assignment.to_pem()).unwrap();
        file
    };
    let (own, other) = (write("alice", "own.pem"), write("bob", "other.pem"));
    let import = |file: &Path| {
        ["import-number", "--identity", text(&alice), "--number", text(file)].map(str::to_owned).to_vec()
    };
    let refused = import(&other);
    let (code, said) = run(&refused.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(code == 78 && said.contains("assigned to bob"), "{code} {said}");
    assert!(!alice.join("numbers.pem").exists());
    for _ in 0..2 {
        let taken = import(&own);
        let (code, said) = run(&taken.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let shown: serde_json::Value = serde_json::from_str(&said).unwrap();
        let numbers = shown["assigned_numbers"].as_array().unwrap();
        assert_eq!((code, numbers.len()), (0, 1), "{said}");
        assert_eq!(numbers[0]["number"], "+442079460018");
    }
    let mut program = Program::start(&[
        "run",
        "--identity",
        text(&alice),
        "--bootstrap",
        &overlay.bootstrap,
        "--media-address",
        "127.0.0.1",
        "--control",
        text(&directory.join("control")),
    ]);
    assert_eq!(program.wait("numbers").await["numbers"][0], "+442079460018");
    // Taken out, and read again.
    std::fs::remove_file(alice.join("numbers.pem")).unwrap();
    program.signal("HUP").await;
    assert_eq!(program.wait("numbers").await["numbers"].as_array().unwrap().len(), 0);
    std::fs::remove_dir_all(&directory).unwrap();
}
