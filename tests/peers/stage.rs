//! One gateway, all its trunks, and two overlay users: alice, whose telephone does as it is told, and bob, who takes
//! every call and says back what he hears.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::audio::{generate, tone_share};
use tests::lab::{
    Authority, Daemon, DaemonOptions, Folder, Phone, PhoneOptions, TlsAuthority, TrunkOptions, peer::Peer,
    ports, until,
};

use crate::real::Real;

/// How long anything may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(15);
pub(crate) const ALICE: &str = "+15550009001";
/// The second number of alice: the range of a PBX.
pub(crate) const ALICE_TOO: &str = "+15550009003";
pub(crate) const BOB: &str = "+15550009002";
/// A number of the gateway's range that nobody has.
pub(crate) const NOBODY: &str = "+15550009099";
/// What alice says.
pub(crate) const HER_TONE: f64 = 1000.0;

/// Seconds between the OPTIONS to the Teams whose health is looked at. It is down after three without an answer.
pub(crate) const HEALTH_INTERVAL_S: u64 = 10;

/// Trunks, each with the beginning of the numbers that lead to it.
const TRUNKS: [(&str, &str); 15] = [
    ("asterisk", "1555000"),
    ("carrier", "155501"),
    ("pbx", "155502"),
    ("ibcf", "155503"),
    ("mgcf", "155504"),
    ("teams", "155505"),
    ("hostile", "155506"),
    ("asterisk-registered", "155507"),
    ("asterisk-tls", "155508"),
    ("baresip", "155509"),
    ("sipp", "155510"),
    ("kamailio", "155511"),
    ("pbx-timers", "155512"),
    ("telephone", "155513"),
    ("teams-health", "155514"),
];

/// The scripted peers.
pub(crate) struct Scripts {
    pub(crate) carrier: Peer,
    pub(crate) pbx: Peer,
    pub(crate) ibcf: Peer,
    pub(crate) mgcf: Peer,
    pub(crate) teams: Peer,
    pub(crate) hostile: Peer,
    /// A PBX that takes its time, in a thread of its own.
    pub(crate) timers: Option<Peer>,
    /// Another Teams, which is asked for its health, in a thread of its own.
    pub(crate) health: Option<Peer>,
}

impl Scripts {
    fn all(&mut self) -> [&mut Peer; 6] {
        [&mut self.carrier, &mut self.pbx, &mut self.ibcf, &mut self.mgcf, &mut self.teams, &mut self.hostile]
    }
}

/// Everything that runs.
pub(crate) struct Stage {
    pub(crate) scripts: Scripts,
    pub(crate) real: Option<Real>,
    pub(crate) gateway: Daemon,
    pub(crate) alice: Phone,
    pub(crate) tone: PathBuf,
    _bob: Phone,
    /// Calls that were judged.
    judged: HashSet<String>,
    _folder: Folder,
}

/// Where a trunk's peer is, and what its table says.
struct Place {
    target: SocketAddrV4,
    transport: &'static str,
    extra: String,
    credentials: Option<(String, String)>,
    account: Option<(String, String)>,
}

impl Stage {
    /// Starts all there is: the scripted peers, and the real ones if it is wished.
    pub(crate) fn set(with_real: bool) -> Result<Self> {
        let folder = Folder::new("peers")?;
        let at = folder.path().to_owned();
        let authority = Authority::init(&at.join("authority"))?;
        let identity = authority.gateway("gateway", &["+1555"], &["+1555"])?;
        let mut options = DaemonOptions::gateway("gateway", &identity);
        let tls = TlsAuthority::new(&at.join("tls"))?;
        let own = tls.issue("gateway", &[&options.address.to_string()])?;
        let sip = options.sip();
        let secure = SocketAddrV4::new(options.address, 5061);
        let here = |_: &str| SocketAddrV4::new(ports::address(), 5060);
        let teams_at = SocketAddrV4::new(ports::address(), 5061);
        let teams = |name: &str, host: &str, at: SocketAddrV4| -> Result<Peer> {
            let shown = tls.issue(name, &[host, &at.ip().to_string()])?;
            Peer::tls(name, at, secure, (&shown.0, &shown.1), &tls.ca())
        };
        let health_at = SocketAddrV4::new(ports::address(), 5061);
        let scripts = Scripts {
            carrier: Peer::udp("carrier", here("carrier"), sip)?,
            pbx: Peer::tcp("pbx", here("pbx"), sip)?,
            ibcf: Peer::udp("ibcf", here("ibcf"), sip)?,
            mgcf: Peer::udp("mgcf", here("mgcf"), sip)?,
            teams: teams("teams", "teams.example.com", teams_at)?,
            hostile: Peer::udp("hostile", here("hostile"), sip)?,
            timers: Some(Peer::udp("timers", here("timers"), sip)?),
            health: Some(teams("health", "health.example.com", health_at)?),
        };
        let real = with_real.then(|| Real::start(&at, sip, secure, &tls)).transpose()?;
        let client =
            format!("ca = {:?}, client_certificate = {:?}, client_key = {:?}", tls.ca(), own.0, own.1);
        options.listen = vec![format!("tls:{secure}")];
        options.sip_table =
            format!("tls = {{ certificate = {:?}, key = {:?}, client_ca = {:?} }}", own.0, own.1, tls.ca());
        options.offers = vec!["+1555".to_owned()];
        options.numbers = [(ALICE, "alice"), (ALICE_TOO, "alice"), (BOB, "bob")]
            .map(|(number, handle)| (number.to_owned(), handle.to_owned()))
            .to_vec();
        // SIPp calls bob more often at once than people do.
        options.extra = "[limits]\ncalls_per_user = 32\n".to_owned();
        for (name, prefix) in TRUNKS {
            let Some(place) = place(name, &scripts, real.as_ref(), &client) else { continue };
            options.trunks.push(TrunkOptions {
                transport: place.transport,
                options_interval_s: if name == "teams-health" { HEALTH_INTERVAL_S as u32 } else { 0 },
                credentials: place.credentials,
                account: place.account,
                extra: place.extra,
                ..TrunkOptions::new(name, place.target)
            });
            options.extra += &format!("[[routes]]\nprefix = {prefix:?}\ntrunks = [{name:?}]\n");
        }
        let gateway = Daemon::start(&at, &authority, &identity, options)?;
        let user = |handle: &str, numbers: &[&str], arguments: &[&str]| -> Result<Phone> {
            let user = authority.user(handle, numbers)?;
            let mut options = PhoneOptions::new(handle, &[gateway.multiaddress()]);
            options.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
            let mut phone = Phone::start(&at, &user, &options)?;
            phone.wait_until_online(SOON)?;
            Ok(phone)
        };
        let alice = user("alice", &[ALICE, ALICE_TOO], &[])?;
        let bob = user("bob", &[BOB], &["--mode", "now", "--echo"])?;
        gateway.wait_until_ready()?;
        let tone = at.join("tone.wav");
        generate::tone(8000, HER_TONE, 60.0).write_wav(&tone)?;
        Ok(Self { scripts, real, gateway, alice, tone, _bob: bob, judged: HashSet::new(), _folder: folder })
    }

    /// alice calls a number and says her tone.
    pub(crate) fn alice_calls(&mut self, number: &str) -> Result<()> {
        let tone = self.tone.clone();
        self.alice.call(number, Some(&tone))
    }

    /// alice calls and does not want to be shown.
    pub(crate) fn alice_calls_hidden(&mut self, number: &str) -> Result<()> {
        self.alice.command(&json!({ "command": "call", "to": number, "private": true, "play": self.tone }))
    }

    /// alice answers the call that rings and says her tone.
    pub(crate) fn alice_answers(&mut self) -> Result<()> {
        let tone = self.tone.clone();
        self.alice.answer(Some(&tone))
    }

    /// The next event of alice by this name.
    pub(crate) fn alice_gets(&mut self, event: &str) -> Result<Value> {
        self.alice.wait_for(event, SOON)
    }

    /// What the API says of the call that ended last on this trunk, once it has ended.
    pub(crate) fn record(&mut self, trunk: &str) -> Result<Value> {
        let record = until(&format!("a call on {trunk} has ended"), SOON, || {
            let list = self.gateway.json("/v1/calls?limit=50").ok()?;
            let ended = |call: &&Value| {
                call["trunk"] == trunk
                    && call["outcome"].is_string()
                    && call["id"].as_str().is_some_and(|id| !self.judged.contains(id))
            };
            list["calls"].as_array()?.iter().find(ended).cloned()
        })?;
        self.judged.insert(record["id"].as_str().context("a call without id")?.to_owned());
        Ok(record)
    }

    /// What `causeway call why` says of a call.
    pub(crate) fn why(&self, record: &Value) -> Result<String> {
        self.gateway.causeway(&["call", "why", record["id"].as_str().context("a call without id")?])
    }

    /// The calls the gateway knows of.
    pub(crate) fn calls(&self) -> Result<usize> {
        let (mut count, mut path) = (0, "/v1/calls?limit=250".to_owned());
        loop {
            let list = self.gateway.json(&path)?;
            count += list["calls"].as_array().map_or(0, Vec::len);
            match list["next"].as_str() {
                Some(next) => path = format!("/v1/calls?limit=250&after={next}"),
                None => return Ok(count),
            }
        }
    }

    /// How much of what alice heard is this tone, in those `seconds` in a row in which it is most.
    pub(crate) fn alice_heard(&self, hz: f64, seconds: f64) -> Result<f64> {
        let heard = self.alice.recording()?;
        ensure!(heard.seconds() >= seconds, "alice recorded {:.1} s", heard.seconds());
        let length = (seconds * f64::from(heard.rate)) as usize;
        let stretches = heard.samples.windows(length).step_by(heard.rate as usize / 10);
        Ok(stretches.map(|stretch| usual_share(stretch, heard.rate, hz)).fold(0.0, f64::max))
    }

    /// Ends what a scenario left behind.
    pub(crate) fn rest(&mut self) -> Result<()> {
        let busy = |list: &Value| {
            list["calls"]
                .as_array()
                .is_some_and(|calls| calls.iter().any(|call| call["trunk"] != "pbx-timers"))
        };
        for attempt in 0..8 {
            let list = self.gateway.json("/v1/calls?live=true&limit=50")?;
            if !busy(&list) {
                break;
            }
            if attempt > 0 {
                // Either may have ended her call already.
                self.alice.hang_up()?;
                self.alice.command(&json!({ "command": "reject", "cause": 16 }))?;
            }
            for peer in self.scripts.all() {
                peer.settle(Duration::from_millis(150))?;
            }
        }
        for peer in self.scripts.all() {
            peer.answer_options(true);
            peer.settle(Duration::from_millis(5))?;
        }
        let list = self.gateway.json("/v1/calls?limit=250")?;
        let ended = |call: &&Value| call["outcome"].is_string() && call["trunk"] != "pbx-timers";
        let ids = list["calls"].as_array().into_iter().flatten().filter(ended);
        self.judged.extend(ids.filter_map(|call| call["id"].as_str().map(str::to_owned)));
        // What the gateway has ended is told to her a moment later.
        std::thread::sleep(Duration::from_millis(50));
        self.alice.forget();
        Ok(())
    }
}

/// How much of a tenth of a second is this tone, in the middle of all: a pause of the machine costs the pieces it falls
/// into, not what they are a part of.
pub(crate) fn usual_share(samples: &[f32], rate: u32, hz: f64) -> f64 {
    let pieces = samples.chunks_exact(rate as usize / 10);
    let mut shares: Vec<f64> = pieces.map(|piece| tone_share(piece, rate, hz)).collect();
    shares.sort_by(f64::total_cmp);
    shares.get(shares.len() / 2).copied().unwrap_or_default()
}

/// Where the peer of a trunk is; nothing where it does not run.
fn place(name: &str, scripts: &Scripts, real: Option<&Real>, client: &str) -> Option<Place> {
    let scripted = |peer: &Peer, extra: &str| {
        let transport = match peer.transport() {
            "UDP" => "udp",
            "TCP" => "tcp",
            _ => "tls",
        };
        Some(Place {
            target: peer.local(),
            transport,
            extra: extra.to_owned(),
            credentials: None,
            account: None,
        })
    };
    let found = |target: SocketAddrV4, extra: String| {
        Some(Place { target, transport: "udp", extra, credentials: None, account: None })
    };
    let mtls = |server: &Ipv4Addr, name: &str| {
        format!("auth = \"mtls\"\ntls = {{ {client}, server_name = \"{server}\", names = [{name:?}] }}\n")
    };
    match name {
        "carrier" => scripted(&scripts.carrier, ""),
        "pbx" => scripted(&scripts.pbx, ""),
        "ibcf" => scripted(
            &scripts.ibcf,
            "trusted = true\nreliable_provisional = \"required\"\ninterconnect = { operator = \"home.example\" }",
        ),
        "mgcf" => scripted(&scripts.mgcf, "number_format = \"e164\"\ntrusted = true"),
        "teams" => scripted(
            &scripts.teams,
            &(mtls(scripts.teams.local().ip(), "teams.example.com")
                + "profile = \"teams\"\ntrusted = true\ncontact_host = \"sbc.example.com\""),
        ),
        "hostile" => scripted(&scripts.hostile, "target_timeout_s = 2\nfailover_limit_s = 3\n"),
        "teams-health" => {
            let health = scripts.health.as_ref()?;
            scripted(
                health,
                &(mtls(health.local().ip(), "health.example.com")
                    + "profile = \"teams\"\ncontact_host = \"sbc.example.com\"\n"),
            )
        }
        "pbx-timers" => scripted(scripts.timers.as_ref()?, ""),
        "asterisk" => found(real?.asterisk.sip(), "profile = \"asterisk\"".to_owned()),
        "asterisk-registered" => Some(Place {
            credentials: Some(("trunk1".to_owned(), "open sesame".to_owned())),
            ..found(
                real?.registered.sip(),
                format!("register = {{ user = \"trunk1\", contact_user = {ALICE:?}, required = true }}"),
            )?
        }),
        "asterisk-tls" => {
            let at = *real?.secure.sip().ip();
            let extra = mtls(&at, "pbx.example.com");
            Some(Place { transport: "tls", ..found(SocketAddrV4::new(at, 5061), extra)? })
        }
        "baresip" => found(real?.baresip_at, String::new()),
        "telephone" => Some(Place {
            account: Some(("200".to_owned(), "barley".to_owned())),
            ..found(real?.baresip_at, String::new())?
        }),
        "sipp" => found(real?.sipp_at, String::new()),
        "kamailio" => found(
            real?.kamailio.sip(),
            format!(
                "profile = \"kamailio\"\nregister = {{ user = \"causeway\", contact_user = {ALICE:?}, expires_s = 60 }}"
            ),
        ),
        _ => None,
    }
}
