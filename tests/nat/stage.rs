//! What the cases run on.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::audio::Audio;
use tests::lab::{
    Asterisk, AsteriskOptions, Authority, Credential, Daemon, DaemonOptions, Folder, NatLab, Phone,
    PhoneOptions, Process, Speech, TlsAuthority, TrunkOptions,
};

use crate::sites::{CORP2, SITES, Site, TOPOLOGY};

/// Seconds of each voice.
pub(crate) const VOICE: f64 = 4.0;
/// The number the PBXs call from.
pub(crate) const PBX: &str = "+15550199";
const ONLINE: Duration = Duration::from_secs(40);

/// Everything that runs.
pub(crate) struct Stage {
    pub(crate) phones: BTreeMap<&'static str, Phone>,
    /// The PBX behind the gateway of IPv4, and the one behind that of IPv6.
    pub(crate) pbx: [Asterisk; 2],
    /// What the PBXs say.
    pub(crate) speech: Audio,
    /// What callers and called users say.
    pub(crate) voices: [(Audio, PathBuf); 2],
    pub(crate) lab: NatLab,
    _coturn: Option<Process>,
    _supernodes: Vec<Daemon>,
    _folder: Folder,
}

/// The telephone number of a user.
pub(crate) fn number(user: &str) -> String {
    let at = SITES.iter().position(|site| site.user == user).unwrap_or(SITES.len());
    format!("+1555000{:04}", 1_000 + at)
}

impl Stage {
    /// Sets up the network, three supernodes, two PBXs, and those of the users whose names are given; all where none is.
    pub(crate) fn set(users: &[String], coturn: bool) -> Result<Self> {
        println!("Setting the stage; all of it in network namespaces");
        let folder = Folder::new("nat")?;
        let at = folder.path().to_owned();
        let lab = tests::lab::step("the network, and NATs of every kind", || NatLab::up(TOPOLOGY))?;
        let speech = tests::lab::speech(Speech::English)?;
        let voice = |name: &str, language, from| {
            let audio = tests::lab::speech(language)?.slice(from, from + VOICE);
            let path = at.join(format!("{name}.wav"));
            audio.write_wav(&path)?;
            anyhow::Ok((audio, path))
        };
        let voices = [voice("caller", Speech::French, 0.0)?, voice("called", Speech::Italian, 0.0)?];
        let authority = tests::lab::step("a root, and an enrolment authority under it", || {
            Authority::init(&at.join("authority"))
        })?;
        let tls = Tls::make(&at)?;
        let sites: Vec<Site> = SITES
            .into_iter()
            .chain([CORP2])
            .filter(|site| users.is_empty() || users.iter().any(|user| user == site.user))
            .collect();
        ensure!(!sites.is_empty(), "none of these is a user: {users:?}");
        let (mut supernodes, pbx) =
            tests::lab::step("three supernodes, two of them gateways, each with its PBX", || {
                Servers {
                    lab: &lab,
                    folder: &at,
                    authority: &authority,
                    tls: &tls,
                    sites: &sites,
                    turn: !coturn,
                }
                .start()
            })?;
        let relay =
            if coturn { Some(tests::lab::step("coturn", || start_coturn(&lab, &at, &tls))?) } else { None };
        let mut phones = BTreeMap::new();
        tests::lab::step(&format!("{} users", sites.len()), || {
            for site in &sites {
                let user = authority.user(site.user, &[&number(site.user)])?;
                phones.insert(site.user, start_phone(&lab, &at, site, &user, &supernodes, coturn)?);
            }
            for (user, phone) in &mut phones {
                phone.wait_until_online(ONLINE).with_context(|| format!("{user} does not come online"))?;
            }
            Ok(())
        })?;
        supernodes.shrink_to_fit();
        Ok(Self {
            phones,
            pbx,
            speech,
            voices,
            lab,
            _coturn: relay,
            _supernodes: supernodes,
            _folder: folder,
        })
    }
}

impl Stage {
    /// Says whether both users are there.
    pub(crate) fn has(&self, one: &str, other: &str) -> bool {
        self.phones.contains_key(one) && self.phones.contains_key(other)
    }
}

/// A certificate for TURN over TLS.
struct Tls {
    certificate: PathBuf,
    key: PathBuf,
}

impl Tls {
    fn make(folder: &Path) -> Result<Self> {
        let (certificate, key) = TlsAuthority::new(&folder.join("tls"))?.issue("turn", &["turn.example"])?;
        Ok(Self { certificate, key })
    }
}

struct Servers<'a> {
    lab: &'a NatLab,
    folder: &'a Path,
    authority: &'a Authority,
    tls: &'a Tls,
    sites: &'a [Site],
    /// Whether supernodes relay.
    turn: bool,
}

impl Servers<'_> {
    /// The first is a gateway whose media is on IPv4, the second one whose media is on IPv6, the third none.
    fn start(&self) -> Result<(Vec<Daemon>, [Asterisk; 2])> {
        let third = self.authority.supernode("super3")?;
        let first = self.authority.gateway("super1", &["+44"], &["+1555"])?;
        let second = self.authority.gateway("super2", &["+1555"], &["+1555"])?;
        let mut daemons = Vec::new();
        let mut bootstrap = Vec::new();
        let pbx = |host: &str, gateway: &DaemonOptions| {
            let mut options = AsteriskOptions::new(gateway.sip());
            options.address = self.lab.address(host)?;
            options.host = Some(self.lab.host(host));
            Asterisk::start(&self.folder.join(host), &options)
        };
        let mut pbxs = Vec::new();
        for (name, credential) in [("super3", &third), ("super1", &first), ("super2", &second)] {
            let mut options = self.options(name, credential)?;
            options.bootstrap = bootstrap.clone();
            if name != "super3" {
                options.gateway = true;
                options.offers = vec![if name == "super1" { "+44" } else { "+1555" }.to_owned()];
                let here = self.sites.iter().filter(|site| site.ipv6 == (name == "super2"));
                options.numbers = here.map(|site| (number(site.user), site.user.to_owned())).collect();
                let pbx = pbx(if name == "super1" { "pbx1" } else { "pbx2" }, &options)?;
                let mut trunk = TrunkOptions::new("pbx", pbx.sip());
                trunk.extra = format!("default_caller = {PBX:?}");
                options.trunks = vec![trunk];
                pbxs.push(pbx);
            }
            if name == "super2" {
                options.overlay_media = Some(IpAddr::V6(self.lab.address6(name)?));
            }
            let daemon = Daemon::start(self.folder, self.authority, credential, options)?;
            bootstrap.push(daemon.multiaddress());
            daemons.push(daemon);
        }
        let pbxs = <[Asterisk; 2]>::try_from(pbxs).ok().context("two PBXs")?;
        for daemon in &daemons[1..] {
            tests::lab::until("the gateways are ready", ONLINE, || daemon.causeway(&["health"]).ok())
                .with_context(|| daemon.log())?;
        }
        Ok((daemons, pbxs))
    }

    fn options(&self, name: &str, credential: &Credential) -> Result<DaemonOptions> {
        let mut options = DaemonOptions::supernode(name, credential);
        let (address, address6) = (self.lab.address(name)?, self.lab.address6(name)?);
        options.address = address;
        options.host = Some(self.lab.host(name));
        options.overlay_listen = vec![
            format!("/ip4/{address}/tcp/80"),
            format!("/ip6/{address6}/udp/4001/quic-v1"),
            format!("/ip6/{address6}/tcp/4001"),
        ];
        if self.turn {
            let at = |port: u16| format!("[\"{address}:{port}\", \"[{address6}]:{port}\"]");
            let Tls { certificate, key } = self.tls;
            options.extra = format!(
                "[overlay.turn]\nudp = {0}\ntcp = {0}\ntls = {1}\ncertificate = {certificate:?}\nkey = {key:?}\n\
                 name = \"turn.example\"\n",
                at(3478),
                at(443)
            );
        }
        Ok(options)
    }
}

const TURN_USER: &str = "lab";
const TURN_PASSWORD: &str = "lab-secret";

fn start_coturn(lab: &NatLab, folder: &Path, tls: &Tls) -> Result<Process> {
    let folder = folder.join("coturn");
    fs::create_dir_all(&folder)?;
    let (address, address6) = (lab.address("coturn")?.to_string(), lab.address6("coturn")?.to_string());
    let mut command = lab.host("coturn").command("turnserver");
    command.args([
        "-n",
        "--listening-port=3478",
        "--tls-listening-port=443",
        "--realm=lab",
        "--lt-cred-mech",
    ]);
    command.args(["--fingerprint", "--no-dtls", "--no-cli", "--log-file=stdout", "--simple-log"]);
    for address in [&address, &address6] {
        command.arg(format!("--listening-ip={address}")).arg(format!("--relay-ip={address}"));
    }
    command.arg(format!("--user={TURN_USER}:{TURN_PASSWORD}"));
    command.arg(format!("--cert={}", tls.certificate.display())).arg(format!("--pkey={}", tls.key.display()));
    command.arg(format!("--userdb={}", folder.join("db").display()));
    command.arg(format!("--pidfile={}", folder.join("pid").display()));
    let mut process = Process::spawn("coturn", &folder, &command)?;
    process.wait_for_line("SQLite DB connection success", Duration::from_secs(20))?;
    Ok(process)
}

fn start_phone(
    lab: &NatLab,
    folder: &Path,
    site: &Site,
    user: &Credential,
    supernodes: &[Daemon],
    coturn: bool,
) -> Result<Phone> {
    let mut bootstrap = Vec::new();
    for (name, daemon) in ["super3", "super1", "super2"].into_iter().zip(supernodes) {
        let (address, address6, peer) = (lab.address(name)?, lab.address6(name)?, daemon.peer());
        if site.ipv6 {
            bootstrap.push(format!("/ip6/{address6}/udp/4001/quic-v1/p2p/{peer}"));
        } else {
            bootstrap.push(format!("/ip4/{address}/udp/4001/quic-v1/p2p/{peer}"));
            bootstrap.push(format!("/ip4/{address}/tcp/80/p2p/{peer}"));
        }
    }
    let mut options = PhoneOptions::new(site.user, &bootstrap);
    options.listens = false;
    options.media = Some("auto".to_owned());
    options.host = Some(lab.host(site.user));
    if site.ipv6 {
        let address = lab.address(site.user)?.to_string();
        lab.run(site.user, &["ip", "addr", "flush", "to", &address, "dev", "eth0"])?;
    }
    if coturn {
        let (address, address6) = (lab.address("coturn")?, lab.address6("coturn")?);
        for server in [
            format!("turn:{address}:3478,{TURN_USER},{TURN_PASSWORD}"),
            format!("turn:{address}:3478?transport=tcp,{TURN_USER},{TURN_PASSWORD}"),
            format!("turns:{address}:443,{TURN_USER},{TURN_PASSWORD}"),
            format!("turn:[{address6}]:3478,{TURN_USER},{TURN_PASSWORD}"),
        ] {
            options.arguments.extend(["--ice-server".to_owned(), server]);
        }
    }
    Phone::start(folder, user, &options)
}
