//! What the root lets an enrolment authority certify.
use super::*;

/// The root says which numbers an enrolment authority may give away. One that is taken over gives
/// away no others, whatever it signs.
#[test]
fn an_authority_certifies_the_numbers_that_the_root_permits() {
    let pki = pki();
    let trust = pki.trust().unwrap();
    let prefixes =
        |texts: &[&str]| -> Vec<Prefix> { texts.iter().map(|text| text.parse().unwrap()).collect() };
    let limits = EnrolmentLimits {
        prefixes: prefixes(&["+44", "+1"]),
        number_prefixes: prefixes(&["+4420"]),
        only_numbers: false,
    };
    let seed = [0xa9; 32];
    let make =
        |limits| pki.root.init_limited_enrolment("North", seed, 9, pki.enrolment.validity(), limits).unwrap();
    let (limited, unlimited) = (make(Some(&limits)), make(None));
    assert_eq!((limited.limits(), unlimited.limits()), (Some(&limits), None));
    let read = Authority::from_pem(&limited.key_pem(), &limited.certificate_pem()).unwrap();
    assert_eq!(read.limits(), Some(&limits));

    let node = |offers: &[&str], numbers: &[&str]| NodeClaims {
        role: Role::Gateway,
        prefixes: prefixes(offers),
        number_prefixes: prefixes(numbers),
        rate: None,
    };
    let key = testing::key(4).public();
    for (claims, permitted) in [
        (node(&["+44", "+1212"], &["+442079"]), true),
        (node(&[], &[]), true),
        (node(&["+4"], &[]), false),
        (node(&["+"], &[]), false),
        (node(&["+44", "+49"], &[]), false),
        // What it may offer it may not assign.
        (node(&[], &["+44"]), false),
        (node(&[], &["+1"]), false),
    ] {
        let issued = limited.issue_node("gw", &key, &claims, 5, pki.validity());
        assert_eq!(issued.is_ok(), permitted, "{claims:?}");
        // Signed all the same, with the limited certificate above it.
        let subject = Subject {
            name: "gw",
            key: &key,
            serial: 5,
            validity: pki.validity(),
            authority: None,
            claims: Some(&claims),
            limits: None,
        };
        for (by, expected) in [(&limited, permitted), (&unlimited, true)] {
            let issuer = certificate(by);
            let leaf = x509::write(&subject, Some(&issuer), &NodeKey::from_seed(seed)).unwrap();
            let verified = NodeChain::new(leaf, issuer).verify(&trust, &none(), NOW);
            assert_eq!(verified.map(drop).map_err(|e| e.as_str()).is_ok(), expected, "{claims:?}");
        }
    }
    let mut user = pki.user(&handle("alice"), 1).unwrap().certificate.claims().clone();
    for (number, permitted) in [("+442079460018", true), ("+441632960018", false)] {
        user.numbers = vec![number.parse().unwrap()];
        assert_eq!(limited.issue_handle(user.clone()).is_ok(), permitted, "{number}");
        for (by, expected) in [(&limited, permitted), (&unlimited, true)] {
            let forged = HandleCertificate::issue(user.clone(), &certificate(by), &NodeKey::from_seed(seed));
            let verified = forged.verify(&trust, &none(), NOW).map(drop).map_err(|e| e.as_str());
            assert_eq!(verified, if expected { Ok(()) } else { Err("outside_issuer_limits") }, "{number}");
        }
    }
}
