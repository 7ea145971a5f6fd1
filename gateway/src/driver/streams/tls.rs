//! Certificates: read at start and again on SIGHUP, without a connection being dropped.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use call_model::TrunkName;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use sip_trunk::{PeerIdentity, Transport};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::verify::{ConnectFailure, DomainVerifier, PeerVerifier, identity_of};
use crate::config::{Config, Sip, Tls, Trunk, TrunkTls};

/// Where Debian and its like keep the authorities that the system trusts.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
const DAY: u64 = 86_400;
/// How long before its end a certificate of ours is warned of, in days.
const EXPIRES_SOON: u64 = 14;
/// RFC 9325 3.1.1.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// A file of TLS that cannot be used. The message names key, file and remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {}: {problem}; {remedy}", file.display())]
pub struct TlsFileError {
    /// Key of the configuration.
    key: String,
    /// The file.
    file: PathBuf,
    /// What is wrong.
    problem: String,
    /// What to do.
    remedy: &'static str,
}

/// One certificate of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnCertificate {
    /// The key of the configuration that names it.
    pub(crate) key: String,
    /// When it ends, in seconds since 1970.
    pub(crate) not_after: u64,
}

impl OwnCertificate {
    /// Returns the days left, if they are few; 0 when it has ended.
    pub(crate) fn ends_in_days(&self, unix: u64) -> Option<u64> {
        let left = self.not_after.saturating_sub(unix);
        (left <= EXPIRES_SOON * DAY).then_some(left / DAY)
    }
}

/// What the files said when they were last good.
#[derive(Debug, Default)]
struct Loaded {
    server: Option<Arc<ServerConfig>>,
    trunks: HashMap<TrunkName, Towards>,
    own: Vec<OwnCertificate>,
}

/// How a trunk is connected to.
#[derive(Clone, Debug)]
struct Towards {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// The certificates in use. A connection keeps those it began with.
#[derive(Debug)]
pub(crate) struct TlsStore {
    listener: Option<Tls>,
    trunks: Vec<(TrunkName, String, TrunkTls)>,
    loaded: RwLock<Arc<Loaded>>,
}

impl TlsStore {
    /// Reads every file that the configuration names.
    ///
    /// # Errors
    /// The first one that cannot be used.
    pub(crate) fn load(config: &Config) -> Result<Self, TlsFileError> {
        Self::of(config.sip.as_ref(), &config.trunks)
    }

    pub(super) fn of(sip: Option<&Sip>, trunks: &[Trunk]) -> Result<Self, TlsFileError> {
        let speaks = sip.is_some_and(|sip| sip.listen.iter().any(|(t, _)| *t == Transport::Tls));
        let towards = |(index, trunk): (usize, &Trunk)| {
            let open = trunk.destination.as_ref().is_some_and(|named| named.service.is_none());
            let called = trunk.transport == Transport::Tls || open && speaks;
            let tls = trunk.tls.clone().filter(|_| called)?;
            Some((trunk.name.clone(), format!("trunks[{index}].tls"), tls))
        };
        let listener = sip.and_then(|sip| sip.tls.clone());
        let trunks: Vec<_> = trunks.iter().enumerate().filter_map(towards).collect();
        let loaded = RwLock::new(Arc::new(read(listener.as_ref(), &trunks)?));
        Ok(Self { listener, trunks, loaded })
    }

    /// Reads the files again. Connections from now on use them; open ones go on with the old.
    ///
    /// # Errors
    /// The first file that cannot be used; then nothing has changed.
    pub(crate) fn reload(&self) -> Result<(), TlsFileError> {
        let fresh = Arc::new(read(self.listener.as_ref(), &self.trunks)?);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Says whether there is anything to read.
    pub(crate) fn is_empty(&self) -> bool {
        self.listener.is_none() && self.trunks.is_empty()
    }

    /// Returns our certificates.
    pub(crate) fn own(&self) -> Vec<OwnCertificate> {
        self.loaded().own.clone()
    }

    fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Does the handshake of a connection that a peer opened. Returns whom its certificate is for, if it
/// showed one.
pub(super) async fn accept(
    store: &TlsStore,
    stream: TcpStream,
) -> Result<(server::TlsStream<TcpStream>, Option<PeerIdentity>), ConnectFailure> {
    let config = store.loaded().server.clone().ok_or(ConnectFailure::NotConfigured)?;
    let accepted = TlsAcceptor::from(config).accept(stream).await;
    let stream = accepted.map_err(|error| ConnectFailure::of_handshake(&error))?;
    let identity = peer_of(stream.get_ref().1.peer_certificates());
    Ok((stream, identity))
}

/// Does the handshake of a connection that we opened to a trunk.
pub(super) async fn connect(
    store: &TlsStore,
    trunk: Option<&TrunkName>,
    stream: TcpStream,
) -> Result<(client::TlsStream<TcpStream>, Option<PeerIdentity>), ConnectFailure> {
    let loaded = store.loaded();
    let towards = trunk.and_then(|trunk| loaded.trunks.get(trunk)).ok_or(ConnectFailure::NotConfigured)?;
    let connector = TlsConnector::from(Arc::clone(&towards.config));
    let connected = connector.connect(towards.name.clone(), stream).await;
    let stream = connected.map_err(|error| ConnectFailure::of_handshake(&error))?;
    let identity = peer_of(stream.get_ref().1.peer_certificates());
    Ok((stream, identity))
}

fn peer_of(chain: Option<&[CertificateDer<'_>]>) -> Option<PeerIdentity> {
    identity_of(chain?.first()?)
}

fn read(listener: Option<&Tls>, trunks: &[(TrunkName, String, TrunkTls)]) -> Result<Loaded, TlsFileError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut loaded = Loaded::default();
    if let Some(tls) = listener {
        loaded.server = Some(Arc::new(server_config(tls, &provider, &mut loaded.own)?));
    }
    for (name, at, tls) in trunks {
        let towards = towards(at, tls, &provider, &mut loaded.own)?;
        loaded.trunks.insert(name.clone(), towards);
    }
    Ok(loaded)
}

fn server_config(
    tls: &Tls,
    provider: &Arc<CryptoProvider>,
    own: &mut Vec<OwnCertificate>,
) -> Result<ServerConfig, TlsFileError> {
    let versions = if tls.only_1_3 { &VERSIONS[..1] } else { VERSIONS };
    let (chain, key) = own_certificate("sip.tls.certificate", &tls.certificate, &tls.key, own)?;
    let fault = |problem: String| TlsFileError {
        key: "sip.tls.certificate".into(),
        file: tls.certificate.clone(),
        problem,
        remedy: "name the certificate and the key that belongs to it",
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(|error| fault(error.to_string()))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let roots = Arc::new(roots("sip.tls.client_ca", file)?);
            let clients =
                WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
            let clients = match tls.require_client_certificate {
                true => clients,
                false => clients.allow_unauthenticated(),
            };
            let clients = clients.build().map_err(|error| fault(error.to_string()))?;
            let provider = Arc::clone(provider);
            builder.with_client_cert_verifier(Arc::new(PeerVerifier { clients, roots, provider }))
        }
    };
    builder.with_single_cert(chain, key).map_err(|error| fault(error.to_string()))
}

fn towards(
    at: &str,
    tls: &TrunkTls,
    provider: &Arc<CryptoProvider>,
    own: &mut Vec<OwnCertificate>,
) -> Result<Towards, TlsFileError> {
    let roots_file = tls.ca.as_deref().unwrap_or(Path::new(SYSTEM_ROOTS));
    let fault = |name: &str, file: &Path, problem: String, remedy: &'static str| TlsFileError {
        key: format!("{at}.{name}"),
        file: file.to_owned(),
        problem,
        remedy,
    };
    let verifier = DomainVerifier {
        roots: Arc::new(roots(&format!("{at}.ca"), roots_file)?),
        provider: Arc::clone(provider),
        expected: tls.server_name.clone(),
        allow_common_name: tls.allow_common_name,
    };
    let name = ServerName::try_from(tls.server_name.clone()).map_err(|error| {
        let remedy = "write a domain or an address";
        fault("server_name", Path::new(&tls.server_name), error.to_string(), remedy)
    })?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(VERSIONS)
        .map_err(|error| fault("ca", roots_file, error.to_string(), "report this"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match &tls.client_certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key_file)) => {
            let key = format!("{at}.client_certificate");
            let (chain, private) = own_certificate(&key, certificate, key_file, own)?;
            builder.with_client_auth_cert(chain, private).map_err(|error| {
                let remedy = "name the certificate and the key that belongs to it";
                fault("client_certificate", certificate, error.to_string(), remedy)
            })?
        }
    };
    Ok(Towards { config: Arc::new(config), name })
}

/// Reads a certificate of ours with those above it, and its key.
fn own_certificate(
    key: &str,
    certificate: &Path,
    key_file: &Path,
    own: &mut Vec<OwnCertificate>,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsFileError> {
    let fault = |file: &Path, problem: String, remedy| TlsFileError {
        key: key.to_owned(),
        file: file.to_owned(),
        problem,
        remedy,
    };
    let chain = certificates(key, certificate)?;
    let end_entity = chain.first().and_then(|first| x509_parser::parse_x509_certificate(first).ok());
    let Some((_, parsed)) = end_entity else {
        return Err(fault(certificate, "the first certificate cannot be read".into(), "make it anew"));
    };
    let not_after = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
    own.push(OwnCertificate { key: key.to_owned(), not_after });
    // What went wrong with a key must not be told with its bytes.
    let private = PrivateKeyDer::from_pem_file(key_file).map_err(|error| match error {
        rustls::pki_types::pem::Error::Io(error) => {
            fault(key_file, error.to_string(), "name a file that the daemon may read")
        }
        _ => fault(key_file, "no private key in PEM form".into(), "write the key of the certificate there"),
    })?;
    Ok((chain, private))
}

fn roots(key: &str, file: &Path) -> Result<RootCertStore, TlsFileError> {
    let mut store = RootCertStore::empty();
    let (taken, _) = store.add_parsable_certificates(certificates(key, file)?);
    if taken == 0 {
        return Err(TlsFileError {
            key: key.to_owned(),
            file: file.to_owned(),
            problem: "no certificate of an authority".into(),
            remedy: "write the PEM certificates of those who may issue",
        });
    }
    Ok(store)
}

fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let fault = |problem: String, remedy| TlsFileError {
        key: key.to_owned(),
        file: file.to_owned(),
        problem,
        remedy,
    };
    let bytes = std::fs::read(file)
        .map_err(|error| fault(error.to_string(), "name a file that the daemon may read"))?;
    let read = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let read = read.map_err(|error| fault(format!("no PEM: {error}"), "make it anew"))?;
    match read.is_empty() {
        true => Err(fault("no certificate in PEM form".into(), "write one there, begin with the own one")),
        false => Ok(read),
    }
}
