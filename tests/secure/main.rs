//! Trunks over TLS, with the whole daemon and a real Asterisk: rows A19 and A20, and reload.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    time::Duration,
};

use tests::lab::{
    self, Asterisk, AsteriskOptions, AsteriskTls, Daemon, Folder, Originate, Phone, Plan, Signal,
    TlsAuthority, TrunkOptions, ports,
};

const SOON: Duration = Duration::from_secs(20);
const ALICE: &str = Plan::ALICE;
const PBX: &str = "+15550000199";

struct Network {
    alice: Phone,
    pbx: Asterisk,
    gateway: Daemon,
    tls: TlsAuthority,
    /// Where the gateway's certificate and key are.
    own: (PathBuf, PathBuf),
    folder: Folder,
}

/// A network whose PBX shows a certificate for `pbx_name` (the address where empty) and, where `mutual`, asks for ours
/// and is known by its own. `interval` is that of the health check.
fn network(pbx_name: &str, mutual: bool, interval: u32) -> Network {
    let mut plan = Plan::new("secure").unwrap();
    let tls = TlsAuthority::new(&plan.folder.path().join("tls")).unwrap();
    let options = &mut plan.options;
    let (here, there) = (options.address, ports::address());
    let own = tls.issue("gateway", &["gw.example.com", &here.to_string()]).unwrap();
    let at = there.to_string();
    let names = if pbx_name.is_empty() { at.as_str() } else { pbx_name };
    let (certificate, key) = tls.issue("pbx", &[names]).unwrap();
    let secure = |address: Ipv4Addr| SocketAddrV4::new(address, 5061);
    let pbx = AsteriskOptions {
        address: there,
        transport: "tls",
        tls: Some(AsteriskTls { certificate, key, ca: tls.ca(), mutual }),
        ..AsteriskOptions::new(secure(here))
    };
    let pbx = Asterisk::start(&plan.folder.path().join("asterisk"), &pbx).unwrap();
    pbx.trace_sip().unwrap();
    options.listen = vec![format!("tls:{here}:5061")];
    options.sip_table = format!(
        "tls = {{ certificate = {:?}, key = {:?}, client_ca = {:?}, require_client_certificate = {mutual} }}",
        own.0,
        own.1,
        tls.ca()
    );
    let server_name = if pbx_name.is_empty() { at.clone() } else { "pbx.example.com".to_owned() };
    let extra = match mutual {
        false => format!("tls = {{ ca = {:?}, server_name = {server_name:?} }}", tls.ca()),
        true => format!(
            "auth = \"mtls\"\ntls = {{ ca = {:?}, server_name = {server_name:?}, client_certificate = {:?}, client_key = {:?} }}",
            tls.ca(),
            own.0,
            own.1
        ),
    };
    let (transport, target) = ("tls", secure(there));
    options.trunks = vec![TrunkOptions {
        transport,
        options_interval_s: interval,
        extra,
        ..TrunkOptions::new("pbx", target)
    }];
    let lab::Network { alice, gateway, folder, .. } = plan.start().unwrap();
    Network { alice, pbx, gateway, tls, own, folder }
}

impl Network {
    fn out(&mut self) {
        self.alice.call(&Asterisk::number("604"), None).unwrap();
        self.alice.wait_for("answered", SOON).unwrap();
        self.alice.wait_for("media_up", SOON).unwrap();
    }

    fn hang_up(&mut self) {
        self.alice.hang_up().unwrap();
        self.alice.wait_for("ended", SOON).unwrap();
        lab::until("no channel is left", SOON, || {
            self.pbx.channels().is_ok_and(|count| count == 0).then_some(())
        })
        .unwrap();
    }

    fn comes_in(&mut self) {
        self.pbx.originate(&Originate { to: ALICE, caller: PBX, extension: "608", ring: SOON }).unwrap();
        self.alice.wait_for("incoming", SOON).unwrap();
        self.alice.answer(None).unwrap();
        self.alice.wait_for("media_up", SOON).unwrap();
    }

    fn both_ways(&mut self) {
        self.out();
        self.hang_up();
        self.comes_in();
        self.hang_up();
        let log = self.pbx.log();
        assert!(log.contains("TLS:") && !log.contains("UDP:") && !log.contains("TCP:"), "{log}");
        assert!(log.contains(";transport=tls"), "{log}");
    }
}

// RFC 3261 26.3.1, RFC 5922.
#[test]
fn a19_calls_cross_a_trunk_whose_certificate_is_verified() {
    network("", false, 0).both_ways();
}

#[test]
fn a20_calls_cross_a_trunk_where_both_ends_show_certificates() {
    network("pbx.example.com", true, 0).both_ways();
}

// RFC 5922 7.2: somebody else's certificate carries no call, and whoever operates the gateway reads why.
#[test]
fn a19_a_wrong_name_carries_no_call_and_is_told() {
    let mut network = network("other.example.com", false, 0);
    network.alice.call(&Asterisk::number("604"), None).unwrap();
    network.alice.wait_for("ended", SOON).unwrap();
    let trunk = network.gateway.json("/v1/trunks").unwrap()["trunks"][0].clone();
    let detail = trunk["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("certificate of the peer is for other.example.com, expected pbx.example.com; "),
        "{trunk}"
    );
    assert_eq!(trunk["state"], "down");
    let log = network.gateway.log();
    assert!(log.contains("trunk pbx: certificate of the peer is for other.example.com"), "{log}");
    let series = "causeway_trunk_connect_failed_total{trunk=\"pbx\",reason=\"wrong_name\"}";
    assert!(network.gateway.metric(series).unwrap().is_some_and(|count| count >= 1.0));
    assert!(!network.pbx.log().contains("INVITE sip:"), "nothing was said to whoever that is");
}

// A peer whose certificate is for nobody we know is not heard.
#[test]
fn a20_a_peer_with_the_wrong_certificate_is_not_heard() {
    let mut network = network("pbx.example.com", true, 0);
    network.both_ways();
    // The same PBX comes back with the certificate of somebody else.
    let (certificate, key) = network.tls.issue("other", &["other.example.com"]).unwrap();
    let options = AsteriskOptions {
        address: *network.pbx.sip().ip(),
        transport: "tls",
        tls: Some(AsteriskTls { certificate, key, ca: network.tls.ca(), mutual: true }),
        ..AsteriskOptions::new(SocketAddrV4::new(*network.gateway.sip().ip(), 5061))
    };
    let folder = network.folder.path().join("impostor");
    let Network { pbx, gateway, mut alice, folder: _kept, .. } = network;
    drop(pbx);
    let pbx = Asterisk::start(&folder, &options).unwrap();
    pbx.originate(&Originate { to: ALICE, caller: PBX, extension: "608", ring: SOON }).unwrap();
    let series = "causeway_sip_refused_total{reason=\"certificate\"}";
    lab::until("it is refused", SOON, || {
        gateway.metric(series).is_ok_and(|count| count.is_some_and(|count| count >= 1.0)).then_some(())
    })
    .unwrap();
    assert!(alice.wait_for("incoming", Duration::from_secs(1)).is_err());
}

// As row G05 for certificates; a call goes on meanwhile.
#[test]
fn g05_a_call_goes_on_while_certificates_are_read_again() {
    let mut network = network("", false, 0);
    network.out();
    let good = fs::read(&network.own.0).unwrap();
    fs::write(&network.own.0, "rubbish").unwrap();
    let said = |network: &Network, text: &str| {
        lab::until(text, SOON, || network.gateway.log().contains(text).then_some(()))
            .unwrap_or_else(|error| panic!("{error}: {}", network.gateway.log()));
    };
    network.gateway.process().signal(Signal::Hup);
    said(&network, "the certificates in use stay: sip.tls.certificate: ");
    assert!(network.gateway.log().contains("gateway.pem: no certificate in PEM form; "));
    fs::write(&network.own.0, good).unwrap();
    network.gateway.process().signal(Signal::Hup);
    said(&network, "the files of TLS were read again");
    let reloads =
        |result| network.gateway.metric(&format!("causeway_tls_reloads_total{{result={result:?}}}"));
    assert_eq!((reloads("ok").unwrap(), reloads("failed").unwrap()), (Some(1.0), Some(1.0)));
    assert_eq!(network.pbx.channels().unwrap(), 1);
    network.hang_up();
    network.comes_in();
    network.hang_up();
}
