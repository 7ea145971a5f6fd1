//! Hosts of neither half: a name server and mirrors.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tests::lab::TlsAuthority;

use crate::net::MIDDLE;

/// Answers every question for TXT records with these.
pub(crate) fn name_server(texts: Vec<String>) -> Result<SocketAddr> {
    let socket = UdpSocket::bind((MIDDLE, 0))?;
    let address = socket.local_addr()?;
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            if let Some(answer) = query.get(..length).and_then(|query| answer(query, &texts)) {
                // Errs when the asker is gone.
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    Ok(address)
}

/// Writes an answer of TXT records (RFC 1035 4.1) to a query for one name.
fn answer(query: &[u8], texts: &[String]) -> Option<Vec<u8>> {
    let end = query.get(12..)?.iter().position(|byte| *byte == 0)? + 12 + 5;
    let count = u8::try_from(texts.len()).ok()?;
    let mut answer = vec![*query.first()?, *query.get(1)?, 0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0];
    answer.extend_from_slice(query.get(12..end)?);
    for text in texts {
        let mut strings = Vec::new();
        for part in text.as_bytes().chunks(255) {
            strings.push(u8::try_from(part.len()).ok()?);
            strings.extend_from_slice(part);
        }
        // The name of the question, TXT, IN, a minute.
        answer.extend_from_slice(&[0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
        answer.extend_from_slice(&u16::try_from(strings.len()).ok()?.to_be_bytes());
        answer.extend_from_slice(&strings);
    }
    Some(answer)
}

/// A host that hands out one text by HTTPS.
pub(crate) struct Mirror {
    pub(crate) url: String,
    pub(crate) ca: PathBuf,
}

impl Mirror {
    pub(crate) fn start(folder: &Path, text: String) -> Result<Self> {
        let authority = TlsAuthority::new(&folder.join("mirror"))?;
        let (certificate, key) = authority.issue("mirror", &[MIDDLE])?;
        let chain = vec![CertificateDer::from_pem_file(&certificate)?];
        let key = PrivateKeyDer::from_pem_file(&key)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let config = Arc::new(config);
        let listener = TcpListener::bind((MIDDLE, 0))?;
        let url = format!("https://{}/bootstrap.pem", listener.local_addr()?);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, text) = (Arc::clone(&config), text.clone());
                // Errs when the client is gone.
                std::thread::spawn(move || drop(serve(stream, config, &text)));
            }
        });
        Ok(Self { url, ca: authority.ca() })
    }
}

fn serve(stream: std::net::TcpStream, config: Arc<rustls::ServerConfig>, text: &str) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(config)?, stream);
    let read = stream.read(&mut [0; 4096])?;
    (read > 0).then_some(()).context("nothing was asked")?;
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len())?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}

/// Takes connections and datagrams, and never says a word.
pub(crate) fn silent() -> Result<(SocketAddr, String)> {
    let socket = UdpSocket::bind((MIDDLE, 0))?;
    let listener = TcpListener::bind((MIDDLE, 0))?;
    let addresses = (socket.local_addr()?, format!("https://{}/", listener.local_addr()?));
    std::thread::spawn(move || {
        let _socket = socket;
        let _held: Vec<_> = listener.incoming().map_while(Result::ok).collect();
    });
    Ok(addresses)
}
