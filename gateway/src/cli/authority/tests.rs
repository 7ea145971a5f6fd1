#![allow(clippy::unwrap_used)]
use p2p_edge::identity::{IdentityError, RevocationList, SignedBootstrap, Trust};

use super::*;

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("causeway-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        init(&folder, "Test", 1, None, Start::Both).unwrap();
        Self(folder)
    }

    fn node(&self, name: &str) -> NodeBundle {
        let out = self.0.join(name);
        issue_node(&self.0, name, &NodeClaims::supernode(), 30, None, &out).unwrap();
        NodeBundle::from_pem(&fs::read_to_string(out).unwrap()).unwrap()
    }

    fn verify(&self, node: &NodeBundle) -> Result<(), IdentityError> {
        let read = |name: &str| fs::read_to_string(self.0.join(name)).unwrap();
        let trust = Trust::from_pem(&read(ROOT)).unwrap();
        let revoked = RevocationList::from_pem(&read(REVOKED), &trust, now()).unwrap();
        node.chain.verify(&trust, &revoked, now()).map(drop)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn an_enrolment_authority_is_revoked_by_the_root() {
    let folder = Folder::new("revoke-enrolment");
    let (first, second) = (folder.node("first"), folder.node("second"));
    revoke(&folder.0, first.chain.serial(), RevocationReason::Unspecified).unwrap();
    assert!(folder.verify(&first).is_err() && folder.verify(&second).is_ok());
    // The first certificate of a folder is that of its enrolment authority.
    let said = revoke(&folder.0, 1, RevocationReason::KeyCompromise).unwrap();
    assert!(said.contains("of Test root, 1 revoked, now Test enrolment"), "{said}");
    assert!(matches!(folder.verify(&second), Err(IdentityError::Revoked { .. })));
    assert_eq!(list(&folder.0).unwrap().matches("revoked").count(), 2);
}

#[test]
fn a_list_to_join_by_is_signed_by_the_root_and_follows_the_one_before() {
    let folder = Folder::new("bootstrap-list");
    let node = format!("/ip4/192.0.2.1/udp/4001/quic-v1/p2p/{}", folder.node("first").key.peer_id());
    let out = folder.0.join("bootstrap.pem");
    let sign = |nodes: &[String], mirrors: &[String]| {
        let names = ["boot.example.org".to_owned()];
        bootstrap::sign(&folder.0, (nodes, &names, mirrors), 90, &out).map_err(|error| format!("{error:#}"))
    };
    let trust = Trust::from_pem(&fs::read_to_string(folder.0.join(ROOT)).unwrap()).unwrap();
    let mut sequences = Vec::new();
    for _ in 0..3 {
        let said = sign(std::slice::from_ref(&node), &["https://example.net/list".into()]).unwrap();
        assert!(said.contains("1 nodes"), "{said}");
        let signed = SignedBootstrap::from_pem(&fs::read_to_string(&out).unwrap()).unwrap();
        let list = signed.verify(&trust, now()).unwrap();
        assert!(list.addresses().eq([node.as_str()]), "{list:?}");
        sequences.push(list.sequence);
    }
    assert!(sequences.is_sorted_by(|first, second| first < second), "{sequences:?}");
    assert!(sign(&["/ip4/192.0.2.1/tcp/1".into()], &[]).unwrap_err().contains("/p2p/ID"));
    assert!(
        sign(std::slice::from_ref(&node), &["http://example.net/".into()]).unwrap_err().contains("https://")
    );
    fs::write(&out, "something else").unwrap();
    assert!(sign(std::slice::from_ref(&node), &[]).unwrap_err().contains("move it away"));
    fs::remove_file(folder.0.join(ROOT_KEY)).unwrap();
    fs::remove_file(&out).unwrap();
    assert!(sign(std::slice::from_ref(&node), &[]).unwrap_err().contains(ROOT_KEY));
}

#[test]
fn without_the_root_key_nothing_is_pretended() {
    let folder = Folder::new("revoke-without-root");
    fs::remove_file(folder.0.join(ROOT_KEY)).unwrap();
    let error = format!("{:#}", revoke(&folder.0, 1, RevocationReason::Unspecified).unwrap_err());
    assert!(error.contains("only the root revokes") && error.contains(ROOT_KEY), "{error}");
    assert!(!folder.0.join(REVOKED).exists());
}

#[test]
fn a_list_that_cannot_be_read_is_not_an_empty_one() {
    let folder = Folder::new("revoke-unreadable");
    let node = folder.node("node");
    fs::create_dir(folder.0.join(REVOKED)).unwrap();
    let error = revoke(&folder.0, node.chain.serial(), RevocationReason::Unspecified).unwrap_err();
    assert!(format!("{error:#}").contains(REVOKED), "{error:#}");
    assert!(list(&folder.0).is_err());
}

#[test]
fn a_number_is_assigned_listed_and_taken_back() {
    use p2p_edge::identity::NumberAssignment;

    let folder = Folder::new("assign-number");
    let out = folder.0.join("number.pem");
    let (number, bob): (Number, Handle) = ("+442079460018".parse().unwrap(), "bob".parse().unwrap());
    let said = number::assign(&folder.0, number.clone(), bob.clone(), 365, &out).unwrap();
    assert!(said.contains("+442079460018 of bob, assignment 2"), "{said}");
    let [assignment] = &NumberAssignment::all_from_pem(&fs::read_to_string(&out).unwrap()).unwrap()[..]
    else {
        panic!("one assignment");
    };
    let trust = Trust::from_pem(&fs::read_to_string(folder.0.join(ROOT)).unwrap()).unwrap();
    let verified = assignment.verify(&trust, &RevocationList::default(), now()).unwrap();
    assert_eq!((verified.claims.number, verified.claims.handle), (number.clone(), bob.clone()));
    // The list is read by people: the second row is this one.
    let listed = list(&folder.0).unwrap();
    let row = listed.lines().find(|line| line.contains("+442079460018 of bob")).unwrap();
    assert!(row.contains("number") && row.contains("good"), "{row}");
    revoke(&folder.0, 2, RevocationReason::Withdrawn).unwrap();
    let text = fs::read_to_string(folder.0.join(REVOKED)).unwrap();
    let revoked = RevocationList::from_pem(&text, &trust, now()).unwrap();
    assert!(matches!(assignment.verify(&trust, &revoked, now()), Err(IdentityError::Revoked { .. })));
    assert!(number::assign(&folder.0, number, bob, 399, &folder.0.join("long.pem")).is_err());
}

#[test]
fn an_authority_for_numbers_certifies_nobody() {
    let folder = Folder::new("only-numbers");
    let (root, other) = (folder.0.clone(), folder.0.join("numbers"));
    init(&other, "Numbers", 1, None, Start::Request).unwrap();
    let limits = EnrolmentLimits {
        prefixes: Vec::new(),
        number_prefixes: vec!["+4420".parse().unwrap()],
        only_numbers: true,
    };
    let certificate = other.join(CERTIFICATE);
    enrol(&root, &other.join("enrolment.request.pem"), &certificate, Some(&limits)).unwrap();
    let assign = |number: &str, name: &str| {
        let handle = "bob".parse().unwrap();
        number::assign(&other, number.parse().unwrap(), handle, 30, &other.join(name))
    };
    assert!(assign("+442079460018", "mine.pem").is_ok());
    let error = format!("{:#}", assign("+441632960018", "other.pem").unwrap_err());
    assert!(error.contains("have the root permit it"), "{error}");
    let claims = NodeClaims::supernode();
    let error = issue_node(&other, "node", &claims, 30, None, &other.join("node.pem")).unwrap_err();
    assert!(format!("{error:#}").contains("have the root permit it"), "{error:#}");
}
