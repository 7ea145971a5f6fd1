//! Start and end of a whole daemon on loopback, with an authority of its own.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use p2p_edge::identity::{Authority, NodeClaims, NodeKey, RevocationReason, Role as Certified, Validity};
use rustix::process::{Signal as Kind, getpid, kill_process};

use super::*;

mod hep;

/// A folder with the files of a gateway that may offer +44 for at most 1 EUR and assign +1555.
struct Site(PathBuf);

impl Site {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("causeway-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let site = Self(folder);
        let root = Authority::init_root("Root", [1; 32], Self::validity()).unwrap();
        std::fs::write(site.0.join("root.pem"), root.certificate_pem()).unwrap();
        site.issue(NodeKey::from_seed(random().unwrap()), 2);
        site
    }

    fn validity() -> Validity {
        Validity::days_from(unix_ms() / 1000, 30)
    }

    fn enrolment() -> Authority {
        let root = Authority::init_root("Root", [1; 32], Self::validity()).unwrap();
        root.init_enrolment("Enrolment", [2; 32], 1, Self::validity()).unwrap()
    }

    /// Writes the identity file of a key, valid for so many days.
    fn issue(&self, key: NodeKey, days: u64) {
        let rate = Price { micros_per_minute: 1_000_000, currency: "EUR".parse().unwrap() };
        let claims = NodeClaims {
            role: Certified::Gateway,
            prefixes: vec!["+44".parse().unwrap()],
            number_prefixes: vec!["+1555".parse().unwrap()],
            rate: Some(rate),
        };
        let validity = Validity::days_from(unix_ms() / 1000, days);
        let chain = Self::enrolment().issue_node("gateway", &key.public(), &claims, days, validity).unwrap();
        std::fs::write(self.0.join("gateway.pem"), NodeBundle { key, chain }.to_pem()).unwrap();
    }

    /// `overlay` are more lines of `[overlay]`, `rest` what comes after the last table.
    fn config(&self, overlay: &str, rest: &str) -> Config {
        Config::parse(&self.0.join("causeway.toml"), &Self::text(overlay, rest)).unwrap()
    }

    fn text(overlay: &str, rest: &str) -> String {
        let sip = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        format!(
            r#"
            [overlay]
            role = "gateway"
            identity_file = "gateway.pem"
            trust_file = "root.pem"
            listen = ["/ip4/127.0.0.1/udp/0/quic-v1"]
            {overlay}
            [sip]
            listen = ["udp:{sip}"]
            [media]
            threads = 1
            {rest}
            "#
        )
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn signals_are_heeded_and_hanging_up_is_no_end() {
    let site = Site::new("signals");
    let config = site.config("", "");
    let store = Arc::new(TlsStore::load(&config).unwrap());
    let certificates = Certificates::new(store, Arc::new(Metrics::new(Vec::new(), &[])));
    let mut signals = Signals::new(Reloader::new(config, mpsc::channel(1).0, certificates, None)).unwrap();
    let raise = |kind| kill_process(getpid(), kind).unwrap();
    for (kind, wish) in [(Kind::TERM, Wish::Drain), (Kind::QUIT, Wish::Stop), (Kind::INT, Wish::Stop)] {
        raise(Kind::HUP);
        raise(kind);
        assert_eq!(signals.next().await, wish, "{kind:?}");
    }
}

#[test]
fn promises_beyond_the_certificate_are_refused_before_the_start() {
    let site = Site::new("promises");
    let numbers = "[numbers]\n\"+15551000\" = \"alice\"";
    let good = site.config("offer = [\"+44\", \"+4420\"]\nprice_per_minute_micros = 1000000", numbers);
    Identity::load(&good).unwrap();
    let cases = [
        (
            site.config("offer = [\"+4420\", \"+1\"]", ""),
            "overlay.offer[1]: +1 is not certified; the certificate permits +44; offer those, or have a certificate issued with --offer",
        ),
        (
            site.config("offer = [\"+44\"]\nprice_per_minute_micros = 1000001", ""),
            "overlay.price_per_minute_micros: the certificate permits 1000000 at most; ask less, or have a certificate issued with --max-price",
        ),
        (
            site.config("offer = [\"+44\"]\ncurrency = \"USD\"", ""),
            "overlay.currency: the certificate permits a price in EUR only; write that currency",
        ),
        (
            site.config("", "[numbers]\n\"+15551000\" = \"alice\"\n\"+442079460018\" = \"bob\""),
            "numbers.+442079460018: the number is not certified; the certificate permits +1555; take it out, or have a certificate issued with --numbers",
        ),
    ];
    for (config, expected) in cases {
        let error = Identity::load(&config).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_status()), (expected, 78));
    }
}

#[test]
fn too_few_descriptors_are_warned_of() {
    let site = Site::new("descriptors");
    let config = site.config("", "[limits]\ncalls = 1000");
    assert_eq!(too_few_descriptors(&config, None), None);
    assert_eq!(too_few_descriptors(&config, Some(4256)), None);
    let warning = too_few_descriptors(&config, Some(1024)).unwrap();
    assert!(warning.contains("1000 calls need 4256 open files, and the system allows 1024"), "{warning}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_node_is_gone_ends_with_an_error() {
    let site = Site::new("node-gone");
    let daemon = Daemon::start(site.config("", "")).await.unwrap();
    daemon.node.shutdown(LAST_WORDS).await;
    let ended = tokio::time::timeout(Duration::from_secs(20), daemon.run()).await.unwrap();
    let error = ended.unwrap_err();
    assert_eq!(error.exit_status(), 71);
    assert!(error.to_string().contains("the overlay node has ended by itself"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_stopped_ends_in_order() {
    let site = Site::new("stopped");
    let daemon = Daemon::start(site.config("", "")).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), daemon.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_the_node_are_fresh_although_nobody_asks_for_health() {
    let site = Site::new("figures");
    let digest = admin_api::TokenDigest::of("reader");
    let admin = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\ntokens = [{{ sha256 = \"{digest}\", scope = \"read\" }}]"
    );
    let daemon = Daemon::start(site.config("", &admin)).await.unwrap();
    let url = format!("http://{}/metrics", daemon.admin_address().unwrap());
    let fresh = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            let mut answer = ureq::get(&url).header("Authorization", "Bearer reader").call().unwrap();
            let text = answer.body_mut().read_to_string().unwrap();
            if text.contains("causeway_queue_length{queue=\"node_commands\"}") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    });
    assert!(fresh.await.unwrap());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_and_newer_revocations_are_taken_over_without_a_restart() {
    let site = Site::new("renewed");
    let (file, revoked) = (site.0.join("causeway.toml"), site.0.join("revoked.pem"));
    let first = Site::enrolment().revoke(None, 900, RevocationReason::Withdrawn, 1).unwrap();
    std::fs::write(&revoked, first.to_pem()).unwrap();
    std::fs::write(&file, Site::text("revocation_file = \"revoked.pem\"", "")).unwrap();
    let daemon = Daemon::start(Config::load(&file).unwrap()).await.unwrap();
    let ends = async || daemon.node.status().await.certificate_ends;
    let before = ends().await;
    assert_eq!(daemon.reloader.reload().await.unwrap().applied, Vec::<String>::new(), "nothing is new");

    let own = std::fs::read_to_string(site.0.join("gateway.pem")).unwrap();
    site.issue(NodeBundle::from_pem(&own).unwrap().key, 20);
    let second = Site::enrolment().revoke(Some(&first), 901, RevocationReason::Withdrawn, 1).unwrap();
    std::fs::write(&revoked, second.to_pem()).unwrap();
    let reloaded = daemon.reloader.reload().await.unwrap();
    assert_eq!(reloaded.applied, ["overlay.revocation_file", "overlay.identity_file"]);
    let after = ends().await;
    assert!(after > before + 17 * 86_400, "{before} {after}");

    // Another key is another node.
    site.issue(NodeKey::from_seed(random().unwrap()), 25);
    let reloaded = daemon.reloader.reload().await.unwrap();
    assert_eq!(reloaded.restart, ["overlay.identity_file"]);
    assert_eq!(ends().await, after, "the certificate in use stays");
    daemon.stop().await;
}
