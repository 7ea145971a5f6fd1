#![allow(clippy::unwrap_used)]
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn credentials(username: &str, password: &str) -> Credentials {
    Credentials { username: username.into(), password: Secret::new(password), realm: None }
}

fn response_of(value: &str) -> String {
    parse_schemes(value)[0].get("response").unwrap()
}

const MD5: &str = "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=MD5, \
    nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";

/// RFC 7616 3.9.1.
#[test]
fn vectors_of_rfc_7616() {
    let sha = MD5.replace("MD5", "SHA-256");
    let challenges = parse_challenges([MD5, sha.as_str()]);
    assert_eq!(
        challenges.iter().map(|c| c.algorithm).collect::<Vec<_>>(),
        [Algorithm::Sha256, Algorithm::Md5]
    );
    let expected = [
        "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
        "8ca523f5e9506fed4657c9700eebdbec",
    ];
    for (challenge, expected) in challenges.iter().zip(expected) {
        let value = respond(
            &credentials("Mufasa", "Circle of Life"),
            challenge,
            "GET",
            "/dir/index.html",
            b"",
            1,
            "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
        );
        assert_eq!(response_of(&value), expected);
        assert!(value.contains("qop=auth, nc=00000001") && value.contains("opaque=\"FQhe"), "{value}");
    }
}

/// RFC 2617 3.5.
#[test]
fn vector_of_rfc_2617() {
    let challenge = parse_challenges([concat!(
        "Digest realm=\"testrealm@host.com\",qop=\"auth,auth-int\",",
        "nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\",opaque=\"5ccc069c403ebaf9f0171e9517f40e41\""
    )]);
    let user = credentials("Mufasa", "Circle Of Life");
    let value = respond(&user, &challenge[0], "GET", "/dir/index.html", b"", 1, "0a4f113b");
    assert_eq!(response_of(&value), "6629fae49393a05397450978507c4ef1");
}

#[test]
fn challenges_are_read_whatever_their_dress() {
    type Read = (&'static str, Algorithm, Qop, bool);
    let cases: [(&str, &[Read]); 9] = [
        ("Digest realm=\"a, b\", nonce=\"n\"", &[("a, b", Algorithm::Md5, Qop::None, false)]),
        ("DIGEST nonce=n,realm=x,stale=TRUE,qop=auth", &[("x", Algorithm::Md5, Qop::Auth, true)]),
        ("Digest realm=\"x\", nonce=\"n\", qop=\"auth-int\"", &[("x", Algorithm::Md5, Qop::AuthInt, false)]),
        (
            "Basic realm=\"x\", Digest realm=\"y\", nonce=\"n\", algorithm=md5, Digest realm=\"y\", nonce=\"m\", algorithm=SHA-512-256",
            &[("y", Algorithm::Sha512_256, Qop::None, false), ("y", Algorithm::Md5, Qop::None, false)],
        ),
        ("Digest realm=\"x\", nonce=\"n\", algorithm=AKAv1-MD5", &[]),
        ("Digest realm=\"x\", nonce=\"n\", qop=\"token\"", &[]),
        ("Digest realm=\"x\"", &[]),
        ("Basic realm=\"x\"", &[]),
        ("", &[]),
    ];
    for (value, expected) in cases {
        let read = parse_challenges([value]);
        let got: Vec<_> = read.iter().map(|c| (c.realm.as_str(), c.algorithm, c.qop, c.stale)).collect();
        assert_eq!(got, expected, "{value}");
    }
}

#[test]
fn nothing_secret_is_printed() {
    let user = credentials("user77", "hunter2");
    let client = ClientAuth::new(user.clone());
    let server = Authenticator::new("r".into(), [0x5a; 32], Duration::from_secs(60));
    let printed = format!("{user:?} {client:?} {server:?} {:?}", parse_challenges([MD5]));
    for secret in ["hunter2", "user77", "7ypf", "90, 90"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

/// RFC 3261 22.2 and 22.3: count the uses, renew a stale nonce, give up on a wrong password.
#[test]
fn a_client_answers_once_and_renews_stale_nonces() {
    let challenge =
        |nonce: &str, more: &str| format!("Digest realm=\"r\", nonce=\"{nonce}\", qop=\"auth\"{more}");
    let mut client = ClientAuth::new(credentials("u", "p"));
    assert!(client.headers("REGISTER", "sip:r", b"", "c").is_empty());
    let first = challenge("n1", "");
    let proxy = "Digest realm=\"proxy\", nonce=\"p1\"";
    client.challenged([first.as_str()], [proxy], 0).unwrap();
    let lines = client.headers("REGISTER", "sip:r", b"", "c");
    assert_eq!(lines.iter().map(|l| l.0).collect::<Vec<_>>(), ["Authorization", "Proxy-Authorization"]);
    assert!(lines[0].1.contains("nc=00000001") && !lines[1].1.contains("nc="), "{lines:?}");
    assert!(client.headers("BYE", "sip:r", b"", "c")[0].1.contains("nc=00000002"));
    // The same request again with our answer in it: only a stale nonce is a reason to go on.
    assert_eq!(client.challenged([first.as_str()], [], 1), Err(AuthError::Refused));
    let stale = challenge("n2", ", stale=true");
    client.challenged([stale.as_str()], [], 1).unwrap();
    let renewed = &client.headers("REGISTER", "sip:r", b"", "c")[0].1;
    assert!(renewed.contains("nonce=\"n2\"") && renewed.contains("nc=00000001"), "{renewed}");
    assert_eq!(client.challenged([stale.as_str()], [], 4), Err(AuthError::Refused));
    // A later request whose nonce has gone is challenged anew, with or without `stale`.
    let later = challenge("n3", "");
    client.challenged([later.as_str()], [], 0).unwrap();
    assert_eq!(client.challenged(["Basic realm=\"r\""], [], 0), Err(AuthError::NoSupportedChallenge));
    let mut bound = ClientAuth::new(Credentials { realm: Some("mine".into()), ..credentials("u", "p") });
    assert_eq!(bound.challenged([first.as_str()], [], 0), Err(AuthError::RealmMismatch));
    let many: Vec<String> = (0..5).map(|n| format!("Digest realm=\"r{n}\", nonce=\"n\"")).collect();
    let mut greedy = ClientAuth::new(credentials("u", "p"));
    assert_eq!(greedy.challenged(many.iter().map(String::as_str), [], 0), Err(AuthError::TooManyRealms));
}

/// RFC 7616 3.4.2, 3.9.1: hashes made elsewhere are as good as the password.
#[test]
fn a_server_needs_no_password() {
    let md5 = Secret::new("7EC2A8E2C4FF4A1DCF9ED5F0BFA9E1A0");
    let hashes = Ha1::new(Some(&md5), None).unwrap();
    assert_eq!((hashes.algorithms(), format!("{hashes:?}")), ((true, false), "[redacted]".to_owned()));
    assert_eq!(Ha1::new(Some(&Secret::new("7ec2")), None), None);
    assert_eq!(Ha1::new(None, None), None);
    let alice = Ha1::of_password("alice", "gw", &Secret::new("secret"));
    let mut server = Authenticator::new("gw".into(), [7; 32], Duration::from_secs(300)).offering(true, false);
    let source = IpAddr::from([192, 0, 2, 1]);
    let values = server.challenge(1000, source, false);
    let [value] = &values[..] else { panic!("MD5 alone: {values:?}") };
    let challenge = parse_challenges([value.as_str()]).remove(0);
    let value = answer(&challenge, "secret", 1);
    let request = Authenticated { method: "REGISTER", uri: "sip:gw", body: b"", unix: 1000, source };
    assert_eq!(server.verify(&value, &request, |_| Some(&alice)), Ok("alice".into()));
    assert_eq!(server.verify(&value, &request, |_| Some(&hashes)), Err(VerifyError::WrongPassword));
}

struct Scene {
    server: Authenticator,
    now: u64,
    source: IpAddr,
}

impl Scene {
    fn new() -> Self {
        Self {
            server: Authenticator::new("gw".into(), [7; 32], Duration::from_secs(300)),
            now: 1_800_000_000,
            source: [192, 0, 2, 1].into(),
        }
    }

    fn challenge(&mut self) -> Vec<Challenge> {
        let values = self.server.challenge(self.now, self.source, false);
        parse_challenges(values.iter().map(String::as_str))
    }

    fn verify(&mut self, value: &str) -> Result<String, VerifyError> {
        let alice = Ha1::of_password("alice", "gw", &Secret::new("secret"));
        let request = Authenticated {
            method: "REGISTER",
            uri: "sip:gw",
            body: b"",
            unix: self.now,
            source: self.source,
        };
        self.server.verify(value, &request, |user| (user == "alice").then_some(&alice))
    }
}

fn answer(challenge: &Challenge, password: &str, count: u32) -> String {
    respond(&credentials("alice", password), challenge, "REGISTER", "sip:gw", b"", count, "c0")
}

#[test]
fn a_server_accepts_what_its_client_answers() {
    let mut scene = Scene::new();
    let challenges = scene.challenge();
    assert_eq!(
        challenges.iter().map(|c| c.algorithm).collect::<Vec<_>>(),
        [Algorithm::Sha256, Algorithm::Md5]
    );
    for challenge in &challenges {
        let first = if challenge.algorithm == Algorithm::Md5 { 10 } else { 1 };
        assert_eq!(scene.verify(&answer(challenge, "secret", first)), Ok("alice".into()));
    }
}

/// RFC 7616 3.3, 3.4.5, 5.12.
#[test]
fn a_server_refuses_everything_else() {
    let mut scene = Scene::new();
    let challenge = scene.challenge().remove(0);
    let good = answer(&challenge, "secret", 3);
    assert_eq!(scene.verify(&answer(&challenge, "wrong", 1)), Err(VerifyError::WrongPassword));
    let bob = respond(&credentials("bob", "secret"), &challenge, "REGISTER", "sip:gw", b"", 1, "c");
    assert_eq!(scene.verify(&bob), Err(VerifyError::UnknownUser));
    let other_uri = respond(&credentials("alice", "secret"), &challenge, "REGISTER", "sip:x", b"", 1, "c");
    assert_eq!(scene.verify(&other_uri), Err(VerifyError::UriMismatch));
    let other_method = respond(&credentials("alice", "secret"), &challenge, "INVITE", "sip:gw", b"", 1, "c");
    assert_eq!(scene.verify(&other_method), Err(VerifyError::WrongPassword));
    assert_eq!(scene.verify(&good.replace("realm=\"gw\"", "realm=\"x\"")), Err(VerifyError::Realm));
    assert_eq!(scene.verify(&good.replace("SHA-256", "SHA-512-256")), Err(VerifyError::Algorithm));
    for broken in ["qop=auth, ", "nc=00000003", "cnonce=\"c0\", ", "Digest ", "response="] {
        assert_eq!(scene.verify(&good.replace(broken, "")), Err(VerifyError::Malformed), "{broken}");
    }
    assert_eq!(scene.verify(&good.replace("nc=00000003", "nc=+0000003")), Err(VerifyError::Malformed));
    assert_eq!(scene.verify(&good), Ok("alice".into()));
    assert_eq!(scene.verify(&good), Err(VerifyError::Replayed));
    // Overtaken on the way: late, but not seen yet.
    assert_eq!(scene.verify(&answer(&challenge, "secret", 2)), Ok("alice".into()));
    assert_eq!(scene.verify(&answer(&challenge, "secret", 2)), Err(VerifyError::Replayed));
    assert_eq!(scene.verify(&answer(&challenge, "secret", 1000)), Ok("alice".into()));
    assert_eq!(scene.verify(&answer(&challenge, "secret", 900)), Err(VerifyError::Replayed));
    scene.now += 301;
    assert_eq!(scene.verify(&answer(&challenge, "secret", 1001)), Err(VerifyError::Stale));
    // RFC 7616 5.4: a nonce may be bound to its client.
    let challenge = scene.challenge().remove(0);
    scene.source = [192, 0, 2, 2].into();
    assert_eq!(scene.verify(&answer(&challenge, "secret", 1)), Err(VerifyError::Stale));
    assert_eq!(scene.verify(&answer(&challenge, "wrong", 1)), Err(VerifyError::Stale), "nothing to guess by");
    scene.source = [192, 0, 2, 1].into();
    let forged = Challenge { nonce: "0".repeat(64), ..challenge };
    assert_eq!(scene.verify(&answer(&forged, "secret", 1)), Err(VerifyError::Stale));
    let short = Challenge { nonce: "x".into(), ..forged };
    assert_eq!(scene.verify(&answer(&short, "secret", 1)), Err(VerifyError::Stale));
}

/// More nonces in use than are remembered: the oldest turn stale and cannot be replayed.
#[test]
fn forgotten_nonces_are_stale() {
    let mut scene = Scene::new();
    let first = scene.challenge().remove(1);
    assert!(scene.verify(&answer(&first, "secret", 1)).is_ok());
    for _ in 0..4096 {
        let challenge = scene.challenge().remove(1);
        assert!(scene.verify(&answer(&challenge, "secret", 1)).is_ok());
    }
    assert_eq!(scene.verify(&answer(&first, "secret", 1)), Err(VerifyError::Stale));
    assert!(format!("{:?}", scene.server).contains("4096"));
}

proptest! {
    #[test]
    fn rubbish_is_survived(value in ".{0,200}", tail in "[a-z=\", \\\\]{0,80}") {
        let digest = format!("Digest {tail}");
        parse_challenges([value.as_str(), digest.as_str()]);
        prop_assert!(Scene::new().verify(&value).is_err());
        prop_assert!(Scene::new().verify(&digest).is_err());
    }
}
