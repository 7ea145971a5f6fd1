//! A whole network on loopback: an authority, supernodes, a gateway with trunks, and what identifies its users.
//!
//! This is the one place that knows the flags of the product's programs and the keys of its configuration.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use md5::{Digest as _, Md5};
use serde_json::Value;

use super::natlab::command_on;
use super::{Host, Process, binary, ports, until};

/// How long a daemon may take to be ready on a busy machine.
const START: Duration = Duration::from_secs(30);

/// A key authority in a folder, run through `causeway authority`.
#[derive(Debug, Clone)]
pub struct Authority {
    folder: PathBuf,
}

/// What the authority issued.
#[derive(Debug, Clone)]
pub struct Credential {
    /// A node's PEM file with key and certificates; a user's folder.
    pub identity: PathBuf,
    /// PeerId of the key in it.
    pub peer: String,
    /// Number of the certificate.
    pub serial: u64,
}

impl Authority {
    /// Makes a root and an enrolment authority in `folder`.
    ///
    /// # Errors
    /// When the program fails; tells what it printed.
    pub fn init(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let authority = Self { folder: folder.canonicalize()? };
        authority.run(&["init", "--name", "Lab"])?;
        Ok(authority)
    }

    /// The root certificate, which every node and user is given.
    #[must_use]
    pub fn trust_file(&self) -> PathBuf {
        self.folder.join("root.pem")
    }

    /// The list of revoked certificates; exists after the first [`Authority::revoke`].
    #[must_use]
    pub fn revocation_file(&self) -> PathBuf {
        self.folder.join("revoked.pem")
    }

    /// Issues a supernode's identity.
    ///
    /// # Errors
    /// As [`Authority::init`].
    pub fn supernode(&self, name: &str) -> Result<Credential> {
        self.issue_node(name, &["node", name, "--role", "supernode"])
    }

    /// Issues a gateway's identity that may offer calls to the prefixes `offers` and assign numbers of the prefixes
    /// `numbers`, both like `+1555`.
    ///
    /// # Errors
    /// As [`Authority::init`].
    pub fn gateway(&self, name: &str, offers: &[&str], numbers: &[&str]) -> Result<Credential> {
        let mut arguments = vec!["node", name, "--role", "gateway"];
        arguments.extend(offers.iter().flat_map(|prefix| ["--offer", prefix]));
        arguments.extend(numbers.iter().flat_map(|prefix| ["--numbers", prefix]));
        self.issue_node(name, &arguments)
    }

    /// Issues a user's identity in the way that keeps the key where it was made: `causeway-peer key` makes a key and a
    /// request, the authority certifies it, `causeway-peer import` puts all into a folder, the `identity` returned.
    ///
    /// # Errors
    /// As [`Authority::init`].
    pub fn user(&self, handle: &str, numbers: &[&str]) -> Result<Credential> {
        let at = |name: &str| self.folder.join(format!("{handle}.{name}"));
        let (key, request, certificate, identity) =
            (at("key"), at("request"), at("certificate"), at("identity"));
        let peer = |arguments: &[&Path], flags: &[&str]| {
            let mut command = Command::new(binary("causeway-peer")?);
            for (flag, value) in flags.iter().zip(arguments) {
                command.args(flag.split(' ')).arg(value);
            }
            run(&mut command)
        };
        peer(&[&key, &request, Path::new(handle)], &["key --out", "--request", "--handle"])?;
        let path = request.to_str().context("a path that is not UTF-8")?;
        let mut arguments = vec!["user", handle, "--request", path];
        arguments.extend(numbers.iter().flat_map(|number| ["--number", number]));
        let issued = self.issue(&certificate, &arguments)?;
        let root = self.trust_file();
        peer(
            &[&identity, &key, &certificate, &root],
            &["import --identity", "--key", "--certificate", "--root"],
        )?;
        Ok(Credential { identity, ..issued })
    }

    /// Revokes a certificate.
    ///
    /// # Errors
    /// As [`Authority::init`].
    pub fn revoke(&self, serial: u64) -> Result<()> {
        self.run(&["revoke", &serial.to_string(), "--reason", "key-compromise"]).map(|_| ())
    }

    fn issue_node(&self, name: &str, arguments: &[&str]) -> Result<Credential> {
        self.issue(&self.folder.join(format!("{name}.pem")), arguments)
    }

    fn issue(&self, out: &Path, arguments: &[&str]) -> Result<Credential> {
        let path = out.to_str().context("a path that is not UTF-8")?;
        let said = self.run(&[&["issue"], arguments, &["--out", path]].concat())?;
        let after = |word: &str| {
            let rest = said.split_once(word).with_context(|| format!("no {word:?} in {said}"))?.1;
            anyhow::Ok(rest.split([',', '\n', ' ']).next().unwrap_or_default().to_owned())
        };
        Ok(Credential {
            peer: after(" peer ")?,
            serial: after(", certificate ")?.parse()?,
            identity: out.to_path_buf(),
        })
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new(binary("causeway")?).arg("authority").args(arguments).arg("--dir").arg(&self.folder))
    }
}

/// Runs a command to its end and returns what it printed; the error tells what it complained of.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The protection domain of accounts.
const REALM: &str = "lab.example";

/// One trunk of a gateway.
#[derive(Debug, Clone)]
pub struct TrunkOptions {
    /// Its name.
    pub name: String,
    /// `udp`, `tcp` or `tls`.
    pub transport: &'static str,
    /// The PBX's SIP socket.
    pub target: SocketAddrV4,
    /// Digest credentials: user name and password.
    pub credentials: Option<(String, String)>,
    /// The account by which it registers here: user name and password, by MD5 alone. The target counts for nothing
    /// then.
    pub account: Option<(String, String)>,
    /// Seconds between OPTIONS; 0 for none.
    pub options_interval_s: u32,
    /// More lines of its table.
    pub extra: String,
}

impl TrunkOptions {
    /// A trunk over UDP without authentication, asked for its health every 30 s.
    #[must_use]
    pub fn new(name: &str, target: SocketAddrV4) -> Self {
        let (name, extra) = (name.to_owned(), String::new());
        let (credentials, account) = (None, None);
        Self { name, transport: "udp", target, credentials, account, options_interval_s: 30, extra }
    }
}

/// What a daemon is to be.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// Name of its files and log.
    pub name: String,
    /// All its sockets are here: overlay 4001 over QUIC and TCP, SIP 5060, API 8085.
    pub address: Ipv4Addr,
    /// Its key and certificates.
    pub identity: PathBuf,
    /// Whether it is a gateway; otherwise it is a supernode only.
    pub gateway: bool,
    /// Multiaddresses of nodes it joins the overlay by.
    pub bootstrap: Vec<String>,
    /// Prefixes it offers to the overlay.
    pub offers: Vec<String>,
    /// Trunks; the first is the route for all numbers.
    pub trunks: Vec<TrunkOptions>,
    /// Numbers of overlay users: number and handle.
    pub numbers: Vec<(String, String)>,
    /// More listeners of SIP.
    pub listen: Vec<String>,
    /// More lines of its `[sip]` table.
    pub sip_table: String,
    /// More lines of its `[media]` table.
    pub media: String,
    /// More lines of the configuration, placed at its end.
    pub extra: String,
    /// `log.filter`.
    pub log: String,
    /// The only processor it may run on; any, where there is none.
    pub cpu: Option<usize>,
    /// The host of a laboratory that it runs on; its API can be asked by [`Daemon::causeway`] alone then.
    pub host: Option<Host>,
    /// More multiaddresses that the overlay listens on.
    pub overlay_listen: Vec<String>,
    /// Where the media of overlay calls is; the address above where there is none.
    pub overlay_media: Option<IpAddr>,
}

impl DaemonOptions {
    /// A supernode.
    #[must_use]
    pub fn supernode(name: &str, identity: &Credential) -> Self {
        Self {
            name: name.to_owned(),
            address: ports::address(),
            identity: identity.identity.clone(),
            gateway: false,
            bootstrap: Vec::new(),
            offers: Vec::new(),
            trunks: Vec::new(),
            numbers: Vec::new(),
            listen: Vec::new(),
            sip_table: String::new(),
            media: String::new(),
            extra: String::new(),
            log: "info".to_owned(),
            cpu: None,
            host: None,
            overlay_listen: Vec::new(),
            overlay_media: None,
        }
    }

    /// A gateway without trunks yet.
    #[must_use]
    pub fn gateway(name: &str, identity: &Credential) -> Self {
        Self { gateway: true, ..Self::supernode(name, identity) }
    }

    /// Its SIP socket.
    #[must_use]
    pub fn sip(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, 5060)
    }
}

/// A running `causewayd`.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    options: DaemonOptions,
    config: PathBuf,
    token: PathBuf,
    peer: String,
}

impl Daemon {
    /// Writes the configuration below `folder`, starts the daemon and waits until it is started.
    ///
    /// # Errors
    /// When it does not come up; tells what it printed.
    pub fn start(
        folder: &Path,
        authority: &Authority,
        peer: &Credential,
        options: DaemonOptions,
    ) -> Result<Self> {
        let folder = folder.join(&options.name);
        fs::create_dir_all(&folder)?;
        let token = new_token(&folder)?;
        let config = folder.join("causeway.toml");
        fs::write(&config, options.toml(authority, &folder, &token.digest)?)?;
        let program = binary("causewayd")?;
        let first = if options.cpu.is_some() { Path::new("taskset") } else { &program };
        let mut command = command_on(options.host.as_ref(), first);
        if let Some(cpu) = options.cpu {
            command.args(["-c", &cpu.to_string()]).arg(&program);
        }
        command.arg("--config").arg(&config);
        let mut process = Process::spawn(&options.name, &folder, &command)?;
        process.wait_for_line("started", START)?;
        Ok(Self { process, options, config, token: token.file, peer: peer.peer.clone() })
    }

    /// Where users and nodes bootstrap from, over QUIC.
    #[must_use]
    pub fn multiaddress(&self) -> String {
        format!("/ip4/{}/udp/4001/quic-v1/p2p/{}", self.options.address, self.peer)
    }

    /// The PeerId of its key.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Its SIP socket.
    #[must_use]
    pub fn sip(&self) -> SocketAddrV4 {
        self.options.sip()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its configuration file, to be changed before a reload.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The file with the token of its API.
    #[must_use]
    pub fn token_file(&self) -> &Path {
        &self.token
    }

    /// All it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.output() + &self.process.errors()
    }

    /// Runs `causeway` against its API and returns what it printed.
    ///
    /// # Errors
    /// When the command fails; tells what it printed.
    pub fn causeway(&self, arguments: &[&str]) -> Result<String> {
        let url = format!("http://{}:8085", self.options.address);
        let mut command = command_on(self.options.host.as_ref(), binary("causeway")?);
        run(command.args(["--url", &url, "--token-file"]).arg(&self.token).args(arguments))
    }

    /// How an administrator would run `causeway` against it.
    #[must_use]
    pub fn command_line(&self) -> String {
        let program = binary("causeway").unwrap_or_else(|_| PathBuf::from("causeway"));
        let address = self.options.address;
        format!("{} --url http://{address}:8085 --token-file {}", program.display(), self.token.display())
    }

    /// Asks the API with GET: the status, and the body as it came.
    ///
    /// # Errors
    /// When the listener cannot be reached or the answer is not HTTP.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        self.request("GET", path)
    }

    /// Asks the API: the status, and the body as it came.
    ///
    /// # Errors
    /// As [`Daemon::get`].
    pub fn request(&self, method: &str, path: &str) -> Result<(u16, String)> {
        let address = SocketAddrV4::new(self.options.address, 8085);
        let token = fs::read_to_string(&self.token)?;
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(START))?;
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nContent-Length: 0\r\n\r\n",
            token.trim()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        Ok((head.split(' ').nth(1).context("no status")?.parse()?, body.to_owned()))
    }

    /// The JSON of a path of the API that must answer 200.
    ///
    /// # Errors
    /// As [`Daemon::get`], or when the status is another.
    pub fn json(&self, path: &str) -> Result<Value> {
        let (status, body) = self.get(path)?;
        ensure!(status == 200, "{path}: {status} {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// The value of one series of `/metrics`, given as it stands there with all labels; `None` when there is none.
    ///
    /// # Errors
    /// As [`Daemon::json`].
    pub fn metric(&self, series: &str) -> Result<Option<f64>> {
        let (status, body) = self.get("/metrics")?;
        ensure!(status == 200, "/metrics: {status}");
        let line = body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Ok(line.and_then(|value| value.split(' ').next()?.parse().ok()))
    }

    /// Waits until the API says it is ready.
    ///
    /// # Errors
    /// When it does not within 30 s.
    pub fn wait_until_ready(&self) -> Result<()> {
        until("the daemon is ready", START, || {
            self.get("/v1/health").is_ok_and(|(status, _)| status == 200).then_some(())
        })
        .with_context(|| self.log())
    }
}

impl DaemonOptions {
    fn toml(&self, authority: &Authority, folder: &Path, digest: &str) -> Result<String> {
        let mut text = String::new();
        let address = self.address;
        let quoted =
            |list: &[String]| list.iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(", ");
        let role = if self.gateway { "gateway" } else { "supernode" };
        writeln!(text, "[overlay]\nrole = {role:?}\nidentity_file = {:?}", self.identity)?;
        writeln!(text, "trust_file = {:?}", authority.trust_file())?;
        if authority.revocation_file().exists() {
            writeln!(text, "revocation_file = {:?}", authority.revocation_file())?;
        }
        let plain = [format!("/ip4/{address}/udp/4001/quic-v1"), format!("/ip4/{address}/tcp/4001")];
        writeln!(text, "listen = [{}]", quoted(&[&plain[..], &self.overlay_listen].concat()))?;
        writeln!(text, "bootstrap = [{}]\noffer = [{}]", quoted(&self.bootstrap), quoted(&self.offers))?;
        let media = self.overlay_media.unwrap_or(address.into());
        writeln!(
            text,
            "\n[media]\ntrunk_address = \"{address}\"\noverlay_address = \"{media}\"\n{}",
            self.media
        )?;
        writeln!(text, "\n[admin]\nlisten = \"{address}:8085\"")?;
        writeln!(text, "[[admin.tokens]]\nsha256 = {digest:?}\nscope = \"operate\"")?;
        writeln!(text, "\n[log]\nfilter = {:?}", self.log)?;
        if self.gateway {
            let plain = [format!("udp:{address}:5060"), format!("tcp:{address}:5060")];
            let listen = quoted(&[&plain[..], &self.listen].concat());
            writeln!(text, "\n[sip]\nlisten = [{listen}]\n{}", self.sip_table)?;
            writeln!(text, "\n[numbers]")?;
            for (number, handle) in &self.numbers {
                writeln!(text, "{number:?} = {handle:?}")?;
            }
        }
        for trunk in &self.trunks {
            writeln!(text, "\n[[trunks]]\nname = {:?}", trunk.name)?;
            match &trunk.account {
                Some((user, password)) => {
                    let file = folder.join(format!("{}.ha1", trunk.name));
                    // baresip registers nowhere that offers SHA-256, not even beside MD5.
                    let hash = Md5::digest(format!("{user}:{REALM}:{password}"));
                    fs::write(&file, hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())?;
                    writeln!(
                        text,
                        "account = {{ user = {user:?}, realm = {REALM:?}, ha1_file = {file:?} }}"
                    )?;
                }
                None => writeln!(text, "target = \"{}:{}\"", trunk.transport, trunk.target)?,
            }
            writeln!(text, "options_interval_s = {}", trunk.options_interval_s)?;
            if let Some((user, password)) = &trunk.credentials {
                let file = folder.join(format!("{}.password", trunk.name));
                fs::write(&file, password)?;
                writeln!(text, "username = {user:?}\npassword_file = {file:?}")?;
            }
            writeln!(text, "{}", trunk.extra)?;
        }
        if let Some(first) = self.trunks.first() {
            writeln!(text, "[[routes]]\nprefix = \"\"\ntrunks = [{:?}]", first.name)?;
        }
        writeln!(text, "{}", self.extra)?;
        Ok(text)
    }
}

struct Token {
    file: PathBuf,
    digest: String,
}

/// Makes an API token: the file the command line reads, and the digest for the configuration.
fn new_token(folder: &Path) -> Result<Token> {
    let output = Command::new(binary("causeway")?).args(["token", "new"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = folder.join("token");
    fs::write(&file, &output.stdout)?;
    let hint = String::from_utf8_lossy(&output.stderr).into_owned();
    let digest = hint.split_once("sha256 = \"").context("no digest")?.1;
    Ok(Token { file, digest: digest.split('"').next().unwrap_or_default().to_owned() })
}
