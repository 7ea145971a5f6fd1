//! The STUN and TURN server of a running supernode, held against clients of another hand: coturn's.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, Instant},
};

use p2p_edge::node::IceServer;
use tests::lab::{
    self, Authority, Daemon, DaemonOptions, Folder, Process, TlsAuthority,
    overlay::{Issuer, User},
    ports,
};

/// Messages that each client sends, and clients at one time.
const MESSAGES: u32 = 50;
const CLIENTS: u32 = 4;

fn coturn() -> PathBuf {
    lab::scripts().join("coturn.sh")
}

/// A supernode with a relay, and the credential that it has given to a user.
struct Site {
    daemon: Daemon,
    server: IceServer,
    address: Ipv4Addr,
    /// An echo that takes the part of the peer.
    echo: Ipv4Addr,
    _echo: Process,
    ca: PathBuf,
    folder: Folder,
}

/// Starts all. The user may have so many allocations.
async fn site(allocations: u32) -> Site {
    let install = Command::new(coturn()).arg("install").output().unwrap();
    assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
    let folder = Folder::new("turn").unwrap();
    let authority = Authority::init(&folder.path().join("authority")).unwrap();
    let credential = authority.supernode("super").unwrap();
    let mut options = DaemonOptions::supernode("super", &credential);
    let address = options.address;
    let telephone = TlsAuthority::new(&folder.path().join("tls")).unwrap();
    let (certificate, key) = telephone.issue("turn", &[&address.to_string()]).unwrap();
    options.extra = format!(
        "\n[overlay.turn]\nudp = [\"{address}:3478\"]\ntcp = [\"{address}:3478\"]\ntls = [\"{address}:5349\"]\n\
         certificate = \"{}\"\nkey = \"{}\"\nallow = [\"127.0.0.0/8\"]\nallocations_per_user = {allocations}\n",
        certificate.display(),
        key.display()
    );
    let daemon = Daemon::start(folder.path(), &authority, &credential, options).unwrap();
    let issuer = Issuer::open(&folder.path().join("authority")).unwrap();
    let user = User::join(&issuer, 1, &[daemon.multiaddress()], ports::address()).await.unwrap();
    let server = user.ice_servers().await.unwrap().pop().expect("the supernode has a relay");
    let echo = ports::address();
    let mut peer = Command::new(coturn());
    peer.args(["peer", "-L", &echo.to_string(), "-p", "3480"]);
    let peer = Process::spawn("echo", folder.path(), &peer).unwrap();
    Site { daemon, server, address, echo, _echo: peer, ca: telephone.ca(), folder }
}

impl Site {
    /// Runs coturn's client; of an option that is there twice the last one counts.
    fn client(&self, password: &str, options: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.arg("60").arg(coturn()).arg("client");
        command.args(["-u", &self.server.username, "-w", password, "-c", "-l", "172"]);
        command.args(["-n", &MESSAGES.to_string(), "-m", &CLIENTS.to_string()]);
        command.args(["-L", &ports::address().to_string(), "-e", &self.echo.to_string(), "-r", "3480"]);
        command.args(options).arg(self.address.to_string()).current_dir(self.folder.path()).output().unwrap()
    }

    /// All messages go through the relay and come back.
    fn succeeds(&self, options: &[&str]) {
        let before = self.metric("causeway_turn_packets_total");
        let output = self.client(self.server.password.expose(), options);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{options:?}: {}\n{said}", output.status);
        assert!(said.contains("Total lost packets 0 (0.000000%)"), "{options:?}: {said}");
        let each = f64::from(MESSAGES * CLIENTS);
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.metric("causeway_turn_packets_total") < before + 2.0 * each {
            assert!(Instant::now() < deadline, "{options:?}: they did not go through the relay: {said}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn metric(&self, series: &str) -> f64 {
        self.daemon.metric(series).unwrap().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_coturn_speak_through_the_relay_by_every_transport() {
    let site = site(1_000).await;
    tokio::task::spawn_blocking(move || {
        let stun = Command::new(coturn()).args(["stun", "-p", "3478", &site.address.to_string()]).output();
        let said = String::from_utf8_lossy(&stun.unwrap().stdout).into_owned();
        assert!(said.contains("UDP reflexive addr: 127.0.0.1:"), "{said}");

        let ca = site.ca.to_str().unwrap().to_owned();
        let (tcp, tls) = (["-t", "-p", "3478"], ["-t", "-S", "-p", "5349", "-E", &ca]);
        site.succeeds(&["-p", "3478"]);
        site.succeeds(&["-p", "3478", "-s"]);
        site.succeeds(&["-p", "3478", "-G"]);
        site.succeeds(&tcp);
        site.succeeds(&[&tcp[..], &["-s"]].concat());
        site.succeeds(&tls);
        site.succeeds(&[&tls[..], &["-s"]].concat());
        // Each of its clients is the peer of another: relayed address to relayed address.
        site.succeeds(&["-p", "3478", "-y"]);
        site.succeeds(&[&tls[..], &["-y"]].concat());

        assert!(site.metric("causeway_turn_allocated_total") >= f64::from(9 * CLIENTS));
        assert_eq!(site.metric("causeway_turn_refused_total{reason=\"unauthorized\"}"), 0.0);
        let health = site.daemon.json("/v1/health").unwrap();
        assert!(health["turn_allocations"].is_u64(), "{health}");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn coturns_client_is_refused_without_the_password_and_beyond_its_share() {
    let site = site(8).await;
    tokio::task::spawn_blocking(move || {
        let output = site.client("guessed", &["-p", "3478"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!said.contains("Total lost packets 0 "), "{said}");
        let deadline = Instant::now() + Duration::from_secs(5);
        while site.metric("causeway_turn_refused_total{reason=\"unauthorized\"}") < 1.0 {
            assert!(Instant::now() < deadline, "{said}");
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(site.metric("causeway_turn_allocated_total"), 0.0);

        // Nine clients of one user, who may have eight allocations.
        let output = site.client(site.server.password.expose(), &["-p", "3478", "-m", "9"]);
        drop(output);
        let deadline = Instant::now() + Duration::from_secs(5);
        while site.metric("causeway_turn_refused_total{reason=\"peer_quota\"}") < 1.0 {
            assert!(Instant::now() < deadline, "{}", site.daemon.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(site.metric("causeway_turn_allocations") <= 8.0);
        // It hammers the server with what breaks the protocol; whoever comes after is served.
        for options in [["-N", "-p", "3478"], ["-R", "-p", "3478"]] {
            let _ = site.client(site.server.password.expose(), &options);
        }
        let stun = Command::new(coturn()).args(["stun", "-p", "3478", &site.address.to_string()]).output();
        let said = String::from_utf8_lossy(&stun.unwrap().stdout).into_owned();
        assert!(said.contains("UDP reflexive addr: 127.0.0.1:"), "{said}");
    })
    .await
    .unwrap();
}
