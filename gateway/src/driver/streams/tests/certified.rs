//! TLS over real sockets: rows A14, A18, A19 and A20, and reload.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::config::{Config, Sip, Tls};

/// An authority with a folder for what it issues.
struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

fn days(from_now: i64) -> SystemTime {
    let day = Duration::from_secs(86_400);
    match u32::try_from(from_now) {
        Ok(ahead) => SystemTime::now() + day * ahead,
        Err(_) => SystemTime::now() - day * from_now.unsigned_abs() as u32,
    }
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Authority");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Issues `NAME.pem` with `NAME.key`; valid now for 30 days unless changed.
    fn issue(&self, name: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) {
        let mut params =
            CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        (params.not_before, params.not_after) = (days(-1).into(), days(30).into());
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn chain(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_file_iter(self.path(&format!("{name}.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
        (chain.collect::<Result<_, _>>().unwrap(), key)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::pem_file_iter(self.path("ca.pem")).unwrap();
        roots.add_parsable_certificates(ca.map(Result::unwrap));
        roots
    }

    /// A PBX that shows the certificate `name`, and asks for ours where `mutual`.
    async fn pbx(&self, name: &str, mutual: bool) -> (SocketAddr, tokio::task::JoinHandle<Option<String>>) {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match mutual {
            false => builder.with_no_client_auth(),
            true => {
                let roots = Arc::new(self.roots());
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                builder.with_client_cert_verifier(verifier.unwrap())
            }
        };
        let (chain, key) = self.chain(name);
        let config = builder.with_single_cert(chain, key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let heard = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.ok()?;
            let mut buffer = vec![0; 16];
            let length = stream.read(&mut buffer).await.ok()?;
            stream.write_all(b"pong").await.ok()?;
            stream.flush().await.ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        });
        (at, heard)
    }

    /// The configuration of a trunk with TLS; `extra` goes into its `tls` table.
    fn config(&self, extra: &str) -> Config {
        let text = format!(
            r#"
            [overlay]
            role = "gateway"
            identity_file = "a"
            trust_file = "b"
            listen = ["/ip4/127.0.0.1/udp/4001/quic-v1"]
            [sip]
            listen = ["udp:127.0.0.1:5060", "tls:127.0.0.1:5061"]
            [sip.tls]
            certificate = "gateway.pem"
            key = "gateway.key"
            client_ca = "ca.pem"
            [[trunks]]
            name = "pbx"
            target = "tls:127.0.0.1:5071"
            tls = {{ ca = "ca.pem"{extra} }}
            "#
        );
        Config::parse(&self.path("causeway.toml"), &text).unwrap()
    }

    fn store(&self, extra: &str) -> Arc<TlsStore> {
        if !self.path("gateway.pem").exists() {
            self.issue("gateway", &["gw.example.com"], |_| {});
        }
        Arc::new(TlsStore::load(&self.config(extra)).unwrap())
    }

    fn streams(&self, extra: &str) -> (Streams, mpsc::Receiver<StreamReport>) {
        Streams::new(StreamSettings { tls: self.store(extra), ..settings(&[]) })
    }

    /// Connects the trunk to a PBX with the certificate `name`.
    async fn call(&self, name: &str, extra: &str) -> Result<PeerIdentity, ConnectFailure> {
        let (at, _pbx) = self.pbx(name, false).await;
        let (mut streams, mut inbox) = self.streams(extra);
        streams.connect(ConnectionId(1), Transport::Tls, at, Some("pbx".parse().unwrap()));
        match next(&mut inbox).await {
            StreamReport::Opened { identity, transport: Transport::Tls, .. } => Ok(identity.unwrap()),
            StreamReport::ConnectFailed { failure, trunk: Some(_), .. } => Err(failure),
            other => panic!("{other:?}"),
        }
    }
}

// RFC 5922 7, RFC 9325.
#[tokio::test]
async fn a19_a_server_is_believed_only_with_a_good_certificate_for_its_name() {
    let authority = Authority::new();
    let name = ", server_name = \"pbx.example.com\"";
    authority.issue("good", &["other.example.com", "PBX.example.com"], |_| {});
    authority.call("good", name).await.unwrap();

    authority.issue("wrong", &["other.example.com"], |_| {});
    let failure = authority.call("wrong", name).await.unwrap_err();
    assert_eq!(failure.as_str(), "wrong_name");
    assert_eq!(
        failure.to_string(),
        "certificate of the peer is for other.example.com, expected pbx.example.com; have it issued for that name, or write the right one as tls.server_name"
    );
    // RFC 5922 7.2: no wildcard.
    authority.issue("wild", &["*.example.com"], |_| {});
    assert_eq!(authority.call("wild", name).await.unwrap_err().as_str(), "wrong_name");
    // RFC 5922 7.1: a SIP URI is looked at alone.
    let uri = |uri: &str| SanType::URI(uri.try_into().unwrap());
    authority.issue("uri", &["other.example.com"], |p| {
        p.subject_alt_names.push(uri("sip:pbx.example.com"));
    });
    authority.call("uri", name).await.unwrap();
    authority.issue("beside", &["pbx.example.com"], |p| {
        p.subject_alt_names.push(uri("sip:other.example.com"));
    });
    assert_eq!(authority.call("beside", name).await.unwrap_err().as_str(), "wrong_name");

    authority.issue("expired", &["pbx.example.com"], |p| {
        (p.not_before, p.not_after) = (days(-30).into(), days(-1).into());
    });
    assert_eq!(authority.call("expired", name).await.unwrap_err(), ConnectFailure::Expired);
    authority.issue("early", &["pbx.example.com"], |p| p.not_before = days(1).into());
    assert_eq!(authority.call("early", name).await.unwrap_err(), ConnectFailure::NotYetValid);

    let other = Authority::new();
    other.issue("stranger", &["pbx.example.com"], |_| {});
    for file in ["stranger.pem", "stranger.key"] {
        std::fs::copy(other.path(file), authority.path(file)).unwrap();
    }
    assert_eq!(authority.call("stranger", name).await.unwrap_err(), ConnectFailure::UnknownIssuer);
}

// RFC 5922 7.1: the common name is not looked at unless that is allowed, nor beside a subjectAltName.
#[tokio::test]
async fn a19_a_common_name_counts_only_where_it_is_allowed() {
    let authority = Authority::new();
    let name = |p: &mut CertificateParams| p.distinguished_name.push(DnType::CommonName, "pbx.example.com");
    authority.issue("cn", &[], name);
    authority.issue("beside", &["other.example.com"], name);
    let strict = ", server_name = \"pbx.example.com\"";
    let lenient = ", server_name = \"pbx.example.com\", allow_common_name = true";
    assert_eq!(authority.call("cn", strict).await.unwrap_err().as_str(), "wrong_name");
    authority.call("cn", lenient).await.unwrap();
    assert_eq!(authority.call("beside", lenient).await.unwrap_err().as_str(), "wrong_name");
}

#[tokio::test]
async fn a19_a_target_without_a_name_is_known_by_its_address() {
    let authority = Authority::new();
    authority.issue("address", &["127.0.0.1"], |_| {});
    authority.call("address", "").await.unwrap();
    authority.issue("another", &["127.0.0.2"], |_| {});
    assert_eq!(authority.call("another", "").await.unwrap_err().as_str(), "wrong_name");
}

// A14: on TLS the size of a message does not matter; A18: nor that there is another connection.
#[tokio::test]
async fn a14_messages_cross_tls_both_ways() {
    let authority = Authority::new();
    authority.issue("pbx", &["127.0.0.1"], |_| {});
    let (at, heard) = authority.pbx("pbx", false).await;
    let (mut streams, mut inbox) = authority.streams("");
    streams.connect(ConnectionId(1), Transport::Tls, at, Some("pbx".parse().unwrap()));
    assert!(matches!(next(&mut inbox).await, StreamReport::Opened { .. }));
    assert!(streams.send(ConnectionId(1), Bytes::from_static(b"ping")));
    assert_eq!(heard.await.unwrap().as_deref(), Some("ping"));
    let StreamReport::Data { bytes, .. } = next(&mut inbox).await else { panic!() };
    assert_eq!(bytes, b"pong");
    // The PBX is gone; the loop hears of it, and may open another.
    assert!(matches!(next(&mut inbox).await, StreamReport::Closed { .. }));
    let (again, _pbx) = authority.pbx("pbx", false).await;
    streams.connect(ConnectionId(2), Transport::Tls, again, Some("pbx".parse().unwrap()));
    assert!(matches!(next(&mut inbox).await, StreamReport::Opened { .. }));
}

/// A PBX that comes to us and shows the certificate `name`, if any.
async fn comes(
    authority: &Authority,
    at: SocketAddr,
    name: Option<&str>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(authority.roots());
    let config = match name.map(|name| authority.chain(name)) {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(at).await?;
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("gw.example.com").unwrap(), stream)
        .await
}

async fn listening(streams: &Streams, transport: Transport) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), streams.listen(transport, listener))
}

// RFC 5922 7.3, RFC 3261 26.2.
#[tokio::test]
async fn a20_whom_a_peer_is_by_its_certificate_is_reported() {
    let authority = Authority::new();
    authority.issue("pbx", &["pbx.example.com"], |p| {
        // Public authorities issue no others any more.
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    authority.issue("expired", &["pbx.example.com"], |p| {
        (p.not_before, p.not_after) = (days(-30).into(), days(-1).into());
    });
    let (mut streams, mut inbox) = authority.streams("");
    let (at, accepting) = listening(&streams, Transport::Tls).await;
    for (shown, known) in [(Some("pbx"), true), (None, false)] {
        let (report, peer) = tokio::join!(accepted(&mut streams, &mut inbox), comes(&authority, at, shown));
        let StreamReport::Opened { identity, inbound: true, transport, .. } = report else {
            panic!("{report:?}")
        };
        assert_eq!(transport, Transport::Tls);
        assert_eq!(identity.is_some_and(|identity| identity.is("pbx.example.com", false)), known);
        peer.unwrap();
        assert!(matches!(next(&mut inbox).await, StreamReport::Closed { .. }));
    }
    let (report, _) =
        tokio::join!(accepted(&mut streams, &mut inbox), comes(&authority, at, Some("expired")));
    let StreamReport::Refused { failure, .. } = report else { panic!("{report:?}") };
    assert_eq!(failure, ConnectFailure::Expired);
    accepting.abort();
}

#[tokio::test]
async fn a20_a_peer_without_a_certificate_is_refused_where_one_is_required() {
    let authority = Authority::new();
    authority.issue("gateway", &["gw.example.com"], |_| {});
    let mut config = authority.config("");
    let tls: &mut Tls = config.sip.as_mut().and_then(|sip: &mut Sip| sip.tls.as_mut()).unwrap();
    tls.require_client_certificate = true;
    let tls = Arc::new(TlsStore::load(&config).unwrap());
    let (mut streams, mut inbox) = Streams::new(StreamSettings { tls, ..settings(&[]) });
    let (at, accepting) = listening(&streams, Transport::Tls).await;
    let (report, _) = tokio::join!(accepted(&mut streams, &mut inbox), comes(&authority, at, None));
    let StreamReport::Refused { failure, .. } = report else { panic!("{report:?}") };
    assert_eq!(failure, ConnectFailure::NoCertificate);
    accepting.abort();
}

// A20, the other way: we show ours where a PBX asks for it.
#[tokio::test]
async fn a20_our_certificate_is_shown_to_a_trunk_that_wants_one() {
    let authority = Authority::new();
    authority.issue("pbx", &["127.0.0.1"], |_| {});
    authority.issue("client", &["gw.example.com"], |_| {});
    let with = ", client_certificate = \"client.pem\", client_key = \"client.key\"";
    for (extra, heard_ping) in [(with, true), ("", false)] {
        let (at, heard) = authority.pbx("pbx", true).await;
        let (mut streams, mut inbox) = authority.streams(extra);
        streams.connect(ConnectionId(1), Transport::Tls, at, Some("pbx".parse().unwrap()));
        // In TLS 1.3 the refusal comes after our side is done (RFC 8446 4.4.2.4).
        let report = next(&mut inbox).await;
        if heard_ping {
            assert!(matches!(report, StreamReport::Opened { .. }), "{report:?}");
            assert!(streams.send(ConnectionId(1), Bytes::from_static(b"ping")));
        }
        assert_eq!(heard.await.unwrap().is_some(), heard_ping);
        if !heard_ping {
            let mut report = report;
            while let StreamReport::Opened { .. } = report {
                report = next(&mut inbox).await;
            }
            let StreamReport::ConnectFailed { failure, .. } = report else { panic!("{report:?}") };
            assert_eq!(failure.as_str(), "refused");
        }
    }
}

#[tokio::test]
async fn a_peer_that_does_not_shake_hands_is_not_waited_for() {
    let authority = Authority::new();
    let (mut streams, mut inbox) = authority.streams("");
    streams.shared.handshake_timeout = Duration::from_millis(100);
    let (at, accepting) = listening(&streams, Transport::Tls).await;
    let _silent = TcpStream::connect(at).await.unwrap();
    let report = accepted(&mut streams, &mut inbox).await;
    let StreamReport::Refused { failure, .. } = report else { panic!("{report:?}") };
    assert_eq!(failure, ConnectFailure::Timeout);
    let mut plain = TcpStream::connect(at).await.unwrap();
    plain.write_all(b"OPTIONS sip:a SIP/2.0\r\n").await.unwrap();
    let report = accepted(&mut streams, &mut inbox).await;
    let StreamReport::Refused { failure, .. } = report else { panic!("{report:?}") };
    assert_eq!(failure.as_str(), "handshake");
    accepting.abort();
}

/// The serial number of the certificate that is shown to whoever comes.
fn shown(stream: &tokio_rustls::client::TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

// As row G05 for certificates: what is read again is used from then on, open connections stay, and a broken file
// changes nothing.
#[tokio::test]
async fn g05_certificates_are_read_again_without_a_drop_and_a_broken_file_keeps_the_old() {
    let authority = Authority::new();
    let tls = authority.store("");
    let (mut streams, mut inbox) = Streams::new(StreamSettings { tls: Arc::clone(&tls), ..settings(&[]) });
    let (at, accepting) = listening(&streams, Transport::Tls).await;
    let (report, first) = tokio::join!(accepted(&mut streams, &mut inbox), comes(&authority, at, None));
    let StreamReport::Opened { connection, .. } = report else { panic!("{report:?}") };
    let mut first = first.unwrap();

    authority.issue("gateway", &["gw.example.com"], |p| p.not_after = days(10).into());
    tls.reload().unwrap();
    let (report, second) = tokio::join!(accepted(&mut streams, &mut inbox), comes(&authority, at, None));
    assert!(matches!(report, StreamReport::Opened { .. }));
    let second = second.unwrap();
    assert_ne!(shown(&first), shown(&second));
    assert!(streams.send(connection, Bytes::from_static(b"still here")));
    let mut buffer = [0; 10];
    first.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"still here");

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let ends: Vec<_> = tls.own().iter().map(|own| own.ends_in_days(now)).collect();
    assert!(matches!(ends[..], [Some(9 | 10)]), "{ends:?}");
    assert_eq!(tls.own()[0].ends_in_days(now - 30 * 86_400), None);

    for (file, text, said) in [
        ("gateway.pem", "rubbish", "gateway.pem: no certificate in PEM form; "),
        ("gateway.key", "-----BEGIN RUBBISH-----", "gateway.key: no private key in PEM form; "),
        ("ca.pem", "", "ca.pem: no certificate in PEM form; "),
    ] {
        let good = std::fs::read(authority.path(file)).unwrap();
        std::fs::write(authority.path(file), text).unwrap();
        let error = tls.reload().unwrap_err().to_string();
        assert!(error.starts_with("sip.tls.") && error.contains(said), "{error}");
        // Those who come believe what is in this file.
        if file == "ca.pem" {
            std::fs::write(authority.path(file), &good).unwrap();
        }
        let (report, third) = tokio::join!(accepted(&mut streams, &mut inbox), comes(&authority, at, None));
        assert!(matches!(report, StreamReport::Opened { .. }), "{report:?}");
        assert_eq!(shown(&third.unwrap()), shown(&second), "the old one stays");
        std::fs::write(authority.path(file), &good).unwrap();
    }
    // A key of another certificate.
    authority.issue("other", &["gw.example.com"], |_| {});
    std::fs::copy(authority.path("other.key"), authority.path("gateway.key")).unwrap();
    let error = tls.reload().unwrap_err().to_string();
    assert!(error.contains("name the certificate and the key that belongs to it"), "{error}");
    accepting.abort();
}
