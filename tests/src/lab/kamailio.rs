//! Kamailio as a proxy and registrar between the gateway and a PBX.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{Process, scripts, until};

/// A running Kamailio. Its routing is in `tests/lab/kamailio/kamailio.cfg`.
#[derive(Debug)]
pub struct Kamailio {
    process: Process,
    address: Ipv4Addr,
}

impl Kamailio {
    /// Fetches Kamailio if need be and starts an instance on port 5060 of `address`. Numbers that nobody has
    /// registered go on to `next_hop`.
    ///
    /// # Errors
    /// When it cannot be had or does not start; tells why.
    pub fn start(folder: &Path, address: Ipv4Addr, next_hop: SocketAddrV4) -> Result<Self> {
        Self::start_as(folder, address, &[("NEXT_HOP", &next_hop.to_string())])
    }

    /// Starts an instance that is no proxy: a stateful user agent that answers every call with 200 and SDP, and
    /// calls to +99 with 404. Its routing is in `tests/lab/kamailio/answer.cfg`.
    ///
    /// # Errors
    /// As [`Kamailio::start`].
    pub fn start_answering(folder: &Path, address: Ipv4Addr) -> Result<Self> {
        Self::start_as(folder, address, &[("KAMAILIO_CONFIG", "answer"), ("KAMAILIO_MEMORY", "512")])
    }

    fn start_as(folder: &Path, address: Ipv4Addr, environment: &[(&str, &str)]) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let program = scripts().join("kamailio.sh");
        let install = Command::new(&program).arg("install").output().context("kamailio.sh")?;
        ensure!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
        let mut command = Command::new(&program);
        command.arg("run").arg(folder);
        command.env("PROXY_ADDRESS", address.to_string()).envs(environment.iter().copied());
        let mut process = Process::spawn("kamailio", folder, &command)?;
        let up = until("Kamailio is up", Duration::from_secs(15), || {
            if !process.is_running() {
                return Some(false);
            }
            answers(address).then_some(true)
        });
        ensure!(up.with_context(|| process.errors())?, "Kamailio ended: {}", process.errors());
        Ok(Self { process, address })
    }

    /// The id of its first process, whose children do the work.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where it speaks SIP.
    #[must_use]
    pub fn sip(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, 5060)
    }

    /// A line for each request it saw, and what it complained of.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.errors()
    }
}

fn answers(address: Ipv4Addr) -> bool {
    let ask = || -> std::io::Result<usize> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let own = socket.local_addr()?;
        let options = format!(
            "OPTIONS sip:{address} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKup\r\nMax-Forwards: 70\r\n\
             From: <sip:lab@{own}>;tag=1\r\nTo: <sip:{address}>\r\nCall-ID: up@{own}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        );
        socket.send_to(options.as_bytes(), (address, 5060))?;
        socket.recv(&mut [0; 2048])
    };
    ask().is_ok()
}
