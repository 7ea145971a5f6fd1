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
