//! A connection to a TURN server, over TCP or TLS, by which datagrams go as frames (RFC 8656 12.5).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::turn::frame_length;

/// How long connecting may take, TLS included.
const PATIENCE: Duration = Duration::from_secs(5);
/// Octets that may wait to be sent; a voice that waits for more is too old to be heard.
const MAX_OUTPUT: usize = 16 * 1024;
/// Octets of the longest frame: a full UDP datagram of media and its headers fit.
const MAX_FRAME: usize = 4 * 1024;

trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

/// A connection that is being made.
pub(super) type Connecting = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

/// A connection.
pub(super) struct Stream {
    /// The address of this side.
    pub(super) local: SocketAddr,
    transport: Box<dyn Transport>,
    input: Box<[u8]>,
    /// Octets of `input` that are there.
    filled: usize,
    /// Octets of `input` that were the last frame.
    taken: usize,
    output: Vec<u8>,
}

/// Connects to a server; by TLS where a name is given, which is shown to the server (RFC 6066 3).
pub(super) fn connect(server: SocketAddr, tls: Option<String>) -> Connecting {
    Box::pin(async move {
        let connecting = async {
            let tcp = TcpStream::connect(server).await?;
            tcp.set_nodelay(true)?;
            let local = tcp.local_addr()?;
            let transport: Box<dyn Transport> = match tls {
                None => Box::new(tcp),
                Some(name) => {
                    let name = ServerName::try_from(name).unwrap_or_else(|_| server.ip().into());
                    Box::new(TlsConnector::from(client_config()?).connect(name, tcp).await?)
                }
            };
            Ok(Stream::new(local, transport))
        };
        tokio::time::timeout(PATIENCE, connecting).await?
    })
}

impl Stream {
    fn new(local: SocketAddr, transport: Box<dyn Transport>) -> Self {
        let input = vec![0; MAX_FRAME].into_boxed_slice();
        Self { local, transport, input, filled: 0, taken: 0, output: Vec::new() }
    }

    /// Queues a frame; drops it where too much waits.
    pub(super) fn write(&mut self, frame: &[u8]) {
        if self.output.len() + frame.len() <= MAX_OUTPUT {
            self.output.extend_from_slice(frame);
        }
    }

    /// Sends what is queued, as far as the connection takes it.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let written = ready!(Pin::new(&mut self.transport).poll_write(context, &self.output))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.drain(..written);
        }
        // TLS keeps records back.
        Pin::new(&mut self.transport).poll_flush(context)
    }

    /// Returns the next frame.
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.input.copy_within(self.taken..self.filled, 0);
        self.filled -= std::mem::take(&mut self.taken);
        loop {
            let wrong = io::ErrorKind::InvalidData;
            let length = frame_length(&self.input[..self.filled]).map_err(|()| wrong)?;
            match length {
                Some(length) if length > self.input.len() => return Poll::Ready(Err(wrong.into())),
                Some(length) if length <= self.filled => {
                    self.taken = length;
                    return Poll::Ready(Ok(&self.input[..length]));
                }
                _ => {}
            }
            let mut room = ReadBuf::new(&mut self.input[self.filled..]);
            ready!(Pin::new(&mut self.transport).poll_read(context, &mut room))?;
            match room.filled().len() {
                0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                more => self.filled += more,
            }
        }
    }
}

fn client_config() -> io::Result<Arc<ClientConfig>> {
    static CONFIG: OnceLock<Option<Arc<ClientConfig>>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let algorithms = provider.signature_verification_algorithms.supported_schemes();
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .ok()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(algorithms)))
            .with_no_client_auth();
        Some(Arc::new(config))
    });
    config.clone().ok_or_else(|| io::Error::other("no TLS"))
}

/// Takes whatever certificate the server shows. TLS is here for firewalls that let nothing else pass: what goes through
/// it protects itself, media by DTLS-SRTP from end to end and TURN by its credentials, which never travel. Supernodes
/// need no certificate of a public authority that way.
#[derive(Debug)]
struct AnyCertificate(Vec<SignatureScheme>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
