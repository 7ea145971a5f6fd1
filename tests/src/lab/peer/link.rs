//! What carries messages: a UDP socket, or one connection at a time over TCP or TLS.

use std::{
    fmt, fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use socket2::{Domain, Socket, Type};

/// How long one look at a socket lasts.
const LOOK: Duration = Duration::from_millis(10);
/// The most a message may be; more is nothing that the gateway sends.
const LONGEST: usize = 128 * 1024;

pub(super) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A way to the gateway and back.
pub(super) enum Link {
    Udp {
        socket: UdpSocket,
        gateway: SocketAddrV4,
    },
    Stream {
        listener: TcpListener,
        gateway: SocketAddrV4,
        tls: Option<Tls>,
        open: Option<Box<dyn Stream>>,
        read: Vec<u8>,
    },
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.transport())
    }
}

/// Certificates for both roles; those of the far side are asked for and verified in either.
pub(super) struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Tls {
    /// Reads the certificate and key that are shown, and the authority of those that are believed.
    pub(super) fn read(certificate: &Path, key: &Path, authority: &Path) -> Result<Self> {
        let chain = |path: &Path| -> Result<Vec<CertificateDer<'static>>> {
            Ok(CertificateDer::pem_slice_iter(&fs::read(path)?).collect::<Result<_, _>>()?)
        };
        let mut roots = RootCertStore::empty();
        for root in chain(authority)? {
            roots.add(root)?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let own_key = PrivateKeyDer::from_pem_slice(&fs::read(key)?)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build()?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain(certificate)?, own_key.clone_key())?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain(certificate)?, own_key)?;
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }
}

impl Link {
    pub(super) fn udp(local: SocketAddrV4, gateway: SocketAddrV4) -> Result<Self> {
        let socket = UdpSocket::bind(local).with_context(|| local.to_string())?;
        socket.set_read_timeout(Some(LOOK))?;
        Ok(Self::Udp { socket, gateway })
    }

    pub(super) fn stream(local: SocketAddrV4, gateway: SocketAddrV4, tls: Option<Tls>) -> Result<Self> {
        let listener = TcpListener::bind(local).with_context(|| local.to_string())?;
        listener.set_nonblocking(true)?;
        Ok(Self::Stream { listener, gateway, tls, open: None, read: Vec::new() })
    }

    pub(super) fn transport(&self) -> &'static str {
        match self {
            Self::Udp { .. } => "UDP",
            Self::Stream { tls: None, .. } => "TCP",
            Self::Stream { tls: Some(_), .. } => "TLS",
        }
    }

    pub(super) fn local(&self) -> Result<SocketAddrV4> {
        let local = match self {
            Self::Udp { socket, .. } => socket.local_addr()?,
            Self::Stream { listener, .. } => listener.local_addr()?,
        };
        match local {
            SocketAddr::V4(local) => Ok(local),
            SocketAddr::V6(_) => bail!("not IPv4"),
        }
    }

    /// Sends to the gateway, over a connection of its own if none is open.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Udp { socket, gateway } => {
                socket.send_to(bytes, *gateway)?;
            }
            Self::Stream { open, tls, gateway, listener, read } => {
                let stream = match open {
                    Some(stream) => stream,
                    None => {
                        read.clear();
                        let SocketAddr::V4(own) = listener.local_addr()? else { bail!("not IPv4") };
                        open.insert(connect(tls.as_ref(), *own.ip(), *gateway)?)
                    }
                };
                let mut left = bytes;
                while !left.is_empty() {
                    match stream.write(left) {
                        Ok(count) => left = &left[count..],
                        Err(error) if is_pause(&error) => {}
                        Err(error) => {
                            *open = None;
                            return Err(error.into());
                        }
                    }
                }
                if let Some(stream) = open {
                    stream.flush()?;
                }
            }
        }
        Ok(())
    }

    /// The next message, if one comes within `limit`.
    pub(super) fn receive(&mut self, limit: Duration) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(message) = self.look()? {
                return Ok(Some(message));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    /// Whether a connection is open.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Stream { open: Some(_), .. })
    }

    /// Closes the connection, if there is one.
    pub(super) fn close(&mut self) {
        if let Self::Stream { open, read, .. } = self {
            (*open, *read) = (None, Vec::new());
        }
    }

    fn look(&mut self) -> Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; 65_536];
        match self {
            Self::Udp { socket, .. } => match socket.recv_from(&mut buffer) {
                Ok((length, _)) => {
                    buffer.truncate(length);
                    Ok(Some(buffer))
                }
                Err(error) if is_pause(&error) => Ok(None),
                Err(error) => Err(error.into()),
            },
            Self::Stream { listener, tls, open, read, .. } => {
                if let Ok((accepted, _)) = listener.accept() {
                    (*open, *read) = (Some(accept(tls.as_ref(), accepted)?), Vec::new());
                }
                let Some(stream) = open else {
                    std::thread::sleep(LOOK);
                    return Ok(None);
                };
                match stream.read(&mut buffer) {
                    Ok(0) => *open = None,
                    Ok(length) => read.extend_from_slice(&buffer[..length]),
                    Err(error) if is_pause(&error) => {}
                    // The gateway has gone without a goodbye.
                    Err(_) => *open = None,
                }
                framed(read)
            }
        }
    }
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn connect(tls: Option<&Tls>, own: Ipv4Addr, gateway: SocketAddrV4) -> Result<Box<dyn Stream>> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // A gateway knows trunks by address; on loopback the kernel would choose another.
    socket.bind(&SocketAddr::from((own, 0)).into())?;
    socket.connect(&SocketAddr::V4(gateway).into()).with_context(|| gateway.to_string())?;
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(LOOK))?;
    socket.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(socket)) };
    let name = ServerName::IpAddress((*gateway.ip()).into());
    Ok(Box::new(StreamOwned::new(ClientConnection::new(Arc::clone(&tls.client), name)?, socket)))
}

fn accept(tls: Option<&Tls>, socket: TcpStream) -> Result<Box<dyn Stream>> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(LOOK))?;
    socket.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(socket)) };
    Ok(Box::new(StreamOwned::new(ServerConnection::new(Arc::clone(&tls.server))?, socket)))
}

/// Takes one whole message off what was read (RFC 3261 18.3). CRLF between messages keeps a connection alive.
fn framed(read: &mut Vec<u8>) -> Result<Option<Vec<u8>>> {
    while read.starts_with(b"\r\n") {
        read.drain(..2);
    }
    let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else {
        if read.len() > LONGEST {
            bail!("no message in {LONGEST} bytes");
        }
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| {
        line.strip_prefix("content-length:").or_else(|| line.strip_prefix("l:"))?.trim().parse::<usize>().ok()
    });
    let whole = end + 4 + length.context("a message on a stream without Content-Length")?;
    Ok((read.len() >= whole).then(|| read.drain(..whole).collect()))
}
