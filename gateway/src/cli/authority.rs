//! The authority: a folder with the keys of the root and of an enrolment authority, the number of
//! the next certificate, and a list of what was issued.
//!
//! The root key may be moved to another machine once the enrolment authority is certified, or be made
//! there in the first place; only `enrol` and the revocation of an authority need it again.

mod bootstrap;
mod number;
mod renew;

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use call_model::{Handle, Number};
use clap::{Args, Subcommand};
use p2p_edge::identity::{
    Abilities, Authority, EnrolmentLimits, HandleClaims, NodeBundle, NodeClaims, NodeKey, Prefix, Price,
    PublicKey, Request, RevocationReason, Role, SignedRevocations, UserBundle, Utc, Validity,
};

const ROOT_KEY: &str = "root.key.pem";
const ROOT: &str = "root.pem";
const KEY: &str = "enrolment.key.pem";
const CERTIFICATE: &str = "enrolment.pem";
const SERIAL: &str = "serial";
const ISSUED: &str = "issued.tsv";
const REVOKED: &str = "revoked.pem";
/// How the list of what was issued calls an enrolment authority.
const ENROLMENT: &str = "enrolment";
/// How it calls a user.
const USER: &str = "user";

/// Where the authority lives.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// Folder of the authority.
    #[arg(long, default_value = "authority")]
    dir: PathBuf,
}

/// The numbers that an enrolment authority may give away.
#[derive(Debug, Args)]
#[group(id = "limits")]
pub(super) struct Limits {
    /// E.164 prefix that the authority may let gateways offer; may be given several times. Without
    /// any of these, and of --may-number, it may certify all numbers.
    #[arg(long = "may-offer")]
    may_offer: Vec<Prefix>,
    /// E.164 prefix of numbers that the authority may assign or certify as a user's; likewise.
    #[arg(long = "may-number")]
    may_number: Vec<Prefix>,
    /// The authority assigns numbers, those of --may-number, and certifies neither users nor nodes.
    #[arg(long, requires = "may_number", conflicts_with = "may_offer")]
    only_numbers: bool,
}

impl Limits {
    fn read(self) -> Option<EnrolmentLimits> {
        let limited = !self.may_offer.is_empty() || !self.may_number.is_empty();
        let limits = EnrolmentLimits {
            prefixes: self.may_offer,
            number_prefixes: self.may_number,
            only_numbers: self.only_numbers,
        };
        limited.then_some(limits)
    }
}

/// What `init` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Both,
    Root,
    Request,
}

#[derive(Debug, Subcommand)]
pub(super) enum AuthorityCommand {
    /// Make a root and, under it, an enrolment authority.
    Init {
        #[command(flatten)]
        place: Place,
        /// Name of the network, for people.
        #[arg(long, default_value = "Causeway")]
        name: String,
        /// Years the root is valid, 1 to 25.
        #[arg(long, default_value_t = 10)]
        years: u64,
        /// Make the enrolment authority's key and request only; certify it with `enrol` where the
        /// root key is.
        #[arg(long, conflicts_with_all = ["root_only", "limits"])]
        request_only: bool,
        /// Make the root only, on a machine that is off the network.
        #[arg(long, conflicts_with = "limits")]
        root_only: bool,
        #[command(flatten)]
        limits: Limits,
    },
    /// Certify an enrolment authority with the root key: request in, certificate out.
    Enrol {
        #[command(flatten)]
        place: Place,
        /// The request (PEM).
        #[arg(long)]
        request: PathBuf,
        /// Where the certificate goes.
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        limits: Limits,
    },
    /// Issue certificates.
    #[command(subcommand)]
    Issue(IssueCommand),
    /// Issue the certificate that follows one of before: its holder asks with the key that it
    /// certifies. The claims stay as they are, and the old certificate good until its end.
    Renew {
        #[command(flatten)]
        place: Place,
        /// The request (PEM) that `causeway identity renew` or `causeway-peer renew` wrote.
        #[arg(long)]
        request: PathBuf,
        /// Days the certificate is valid; as many as the one before where it is left out.
        #[arg(long)]
        days: Option<u64>,
        /// Where the certificate goes.
        #[arg(long)]
        out: PathBuf,
    },
    /// Revoke a certificate or the assignment of a number by its serial number; writes revoked.pem, which every node is given.
    Revoke {
        #[command(flatten)]
        place: Place,
        /// Number of the certificate, as `list` shows it.
        serial: u64,
        /// unspecified, key-compromise, superseded or withdrawn.
        #[arg(long, default_value = "unspecified")]
        reason: RevocationReason,
    },
    /// Sign a list of supernodes to join by, with the root key: for the package, and for mirrors.
    BootstrapList {
        #[command(flatten)]
        place: Place,
        /// Multiaddress of a supernode, ending in /p2p/ID; may be given several times.
        #[arg(long = "node", required = true)]
        nodes: Vec<String>,
        /// Domain name whose `_dnsaddr` TXT records name supernodes; may be given several times.
        #[arg(long = "dns")]
        names: Vec<String>,
        /// HTTPS address where newer lists are; may be given several times.
        #[arg(long = "mirror")]
        mirrors: Vec<String>,
        /// Days the list is valid, 1 to 398.
        #[arg(long, default_value_t = 180)]
        days: u64,
        /// Where the list (PEM) goes; one of before is replaced.
        #[arg(long)]
        out: PathBuf,
    },
    /// List what was issued.
    List {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum IssueCommand {
    /// For a supernode or gateway.
    Node {
        #[command(flatten)]
        place: Place,
        /// Name of the node.
        name: String,
        /// supernode or gateway.
        #[arg(long)]
        role: String,
        /// E.164 prefix that a gateway may offer; may be given several times.
        #[arg(long = "offer")]
        offers: Vec<Prefix>,
        /// E.164 prefix of numbers that a gateway may assign to users; several times likewise.
        #[arg(long = "numbers")]
        numbers: Vec<Prefix>,
        /// Dearest price per minute that a gateway may offer, in micro-units of --currency.
        #[arg(long)]
        max_price: Option<u64>,
        /// ISO 4217 code.
        #[arg(long, default_value = "EUR")]
        currency: String,
        /// Days the certificate is valid, 1 to 398.
        #[arg(long, default_value_t = 365)]
        days: u64,
        /// A request (PEM) made where the key stays; without, a key is made here.
        #[arg(long)]
        request: Option<PathBuf>,
        /// Where the identity file (key and certificates, or certificates only) goes.
        #[arg(long)]
        out: PathBuf,
    },
    /// For an overlay user.
    User {
        #[command(flatten)]
        place: Place,
        /// The handle.
        handle: Handle,
        /// A number proved to be the user's; may be given several times.
        #[arg(long = "number")]
        numbers: Vec<Number>,
        /// Days the certificate is valid, 1 to 90.
        #[arg(long, default_value_t = 90)]
        days: u64,
        /// A request (PEM) made where the key stays, one of each device of the user, at most 8;
        /// without, a key is made here.
        #[arg(long = "request")]
        requests: Vec<PathBuf>,
        /// What the user may do: call-users, call-numbers, be-called or text; may be given several
        /// times. All of it where it is left out.
        #[arg(long = "ability")]
        abilities: Vec<Abilities>,
        /// Where the identity file (key and certificate, or certificate only) goes.
        #[arg(long)]
        out: PathBuf,
    },
    /// That a number belongs to a user: calls to it reach the user, through any gateway or none. The
    /// user publishes it (`causeway-peer import-number`); this authority may stay offline.
    Number {
        #[command(flatten)]
        place: Place,
        /// The number, E.164.
        number: Number,
        /// Whose it is.
        handle: Handle,
        /// Days the assignment is valid, 1 to 398.
        #[arg(long, default_value_t = 365)]
        days: u64,
        /// Where the assignment goes.
        #[arg(long)]
        out: PathBuf,
    },
}

pub(super) fn run(command: AuthorityCommand) -> Result<String> {
    match command {
        AuthorityCommand::Init { place, name, years, request_only, root_only, limits } => {
            let start = match (root_only, request_only) {
                (true, _) => Start::Root,
                (_, true) => Start::Request,
                _ => Start::Both,
            };
            init(&place.dir, &name, years, limits.read().as_ref(), start)
        }
        AuthorityCommand::Enrol { place, request, out, limits } => {
            enrol(&place.dir, &request, &out, limits.read().as_ref())
        }
        AuthorityCommand::Renew { place, request, days, out } => {
            renew::renew(&place.dir, &request, days, &out)
        }
        AuthorityCommand::Issue(IssueCommand::Node {
            place,
            name,
            role,
            offers,
            numbers,
            max_price,
            currency,
            days,
            request,
            out,
        }) => {
            let claims = match role.as_str() {
                "supernode" => NodeClaims::supernode(),
                "gateway" => {
                    let currency = currency.parse()?;
                    let rate = max_price.map(|micros_per_minute| Price { micros_per_minute, currency });
                    NodeClaims { role: Role::Gateway, prefixes: offers, number_prefixes: numbers, rate }
                }
                other => bail!("--role {other}: write supernode or gateway"),
            };
            issue_node(&place.dir, &name, &claims, days, request.as_deref(), &out)
        }
        AuthorityCommand::Issue(IssueCommand::User {
            place,
            handle,
            numbers,
            days,
            requests,
            abilities,
            out,
        }) => {
            let all = Abilities::CALLS.with(Abilities::TEXT);
            let abilities = abilities.into_iter().reduce(Abilities::with).unwrap_or(all);
            issue_user(&place.dir, User { handle, numbers, abilities }, days, &requests, &out)
        }
        AuthorityCommand::Issue(IssueCommand::Number { place, number, handle, days, out }) => {
            number::assign(&place.dir, number, handle, days, &out)
        }
        AuthorityCommand::Revoke { place, serial, reason } => revoke(&place.dir, serial, reason),
        AuthorityCommand::BootstrapList { place, nodes, names, mirrors, days, out } => {
            bootstrap::sign(&place.dir, (&nodes, &names, &mirrors), days, &out)
        }
        AuthorityCommand::List { place } => list(&place.dir),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

fn seed() -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("no random numbers")?;
    Ok(seed)
}

fn read(dir: &Path, name: &str) -> Result<String> {
    let file = dir.join(name);
    fs::read_to_string(&file).with_context(|| {
        format!("{}: is this the folder of an authority? `causeway authority init` makes one", file.display())
    })
}

/// Writes a file that did not exist, readable by its owner only where it holds a key.
pub(super) fn write_new(file: &Path, text: &str, secret: bool) -> Result<()> {
    let mode = if secret { 0o600 } else { 0o644 };
    let mut options = fs::OpenOptions::new();
    let mut opened = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(file)
        .with_context(|| format!("{}: move it away first, or write elsewhere", file.display()))?;
    opened.write_all(text.as_bytes()).with_context(|| file.display().to_string())
}

/// Takes the next certificate number, and keeps it taken even if what follows fails.
fn next_serial(dir: &Path) -> Result<u64> {
    let file = dir.join(SERIAL);
    let last: u64 = match fs::read_to_string(&file) {
        Ok(text) => text.trim().parse().with_context(|| format!("{}: holds no number", file.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error).context(file.display().to_string()),
    };
    let next = last + 1;
    let part = dir.join("serial.part");
    fs::write(&part, format!("{next}\n")).with_context(|| part.display().to_string())?;
    fs::rename(&part, &file).with_context(|| file.display().to_string())?;
    Ok(next)
}

fn note(dir: &Path, serial: u64, kind: &str, name: &str, validity: Validity) -> Result<()> {
    let file = dir.join(ISSUED);
    let mut list = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&file)
        .with_context(|| file.display().to_string())?;
    writeln!(list, "{serial}\t{kind}\t{name}\t{}\t{}", Utc(validity.not_before), Utc(validity.not_after))
        .with_context(|| file.display().to_string())
}

fn init(
    dir: &Path,
    name: &str,
    years: u64,
    limits: Option<&EnrolmentLimits>,
    start: Start,
) -> Result<String> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    if start == Start::Request {
        let key = NodeKey::from_seed(seed()?);
        write_new(&dir.join(KEY), &key.to_pem(), true)?;
        let request = dir.join("enrolment.request.pem");
        write_new(&request, &Request::write(&format!("{name} enrolment"), &key)?, false)?;
        return Ok(format!("{}: have it certified with `causeway authority enrol`\n", request.display()));
    }
    let unix = now();
    let root =
        Authority::init_root(&format!("{name} root"), seed()?, Validity::days_from(unix, years * 365))?;
    let mut said = format!("authority of {name} in {}\n", dir.display());
    let enrolment = match start {
        Start::Both => {
            let serial = next_serial(dir)?;
            let validity = Validity::days_from(unix, (years * 365).min(5 * 365));
            let name = format!("{name} enrolment");
            Some((root.init_limited_enrolment(&name, seed()?, serial, validity, limits)?, serial))
        }
        _ => None,
    };
    write_new(&dir.join(ROOT_KEY), &root.key_pem(), true)?;
    write_new(&dir.join(ROOT), &root.certificate_pem(), false)?;
    if let Some((enrolment, serial)) = enrolment {
        write_new(&dir.join(KEY), &enrolment.key_pem(), true)?;
        write_new(&dir.join(CERTIFICATE), &enrolment.certificate_pem(), false)?;
        note(dir, serial, ENROLMENT, enrolment.name(), enrolment.validity())?;
    }
    said += &format!("  {ROOT}: give it to every node and user (overlay.trust_file)\n");
    said += &format!("  {ROOT_KEY}: keep it offline\n");
    Ok(said)
}

fn enrol(dir: &Path, request: &Path, out: &Path, limits: Option<&EnrolmentLimits>) -> Result<String> {
    let root = root(dir)?;
    let text = fs::read_to_string(request).with_context(|| request.display().to_string())?;
    let serial = next_serial(dir)?;
    let unix = now();
    // No longer than the root itself.
    let end = root.validity().not_after.min(Validity::days_from(unix, 5 * 365).not_after);
    let validity = Validity { not_before: unix, not_after: end };
    write_new(out, &root.sign_enrolment(&text, serial, validity, limits)?, false)?;
    note(dir, serial, ENROLMENT, &Request::read(&text)?.name, validity)?;
    Ok(format!(
        "{}: put it beside the request as {CERTIFICATE}, and {ROOT} with it; certificate {serial}\n",
        out.display()
    ))
}

fn root(dir: &Path) -> Result<Authority> {
    Ok(Authority::from_pem(&read(dir, ROOT_KEY)?, &read(dir, ROOT)?)?)
}

fn enrolment(dir: &Path) -> Result<Authority> {
    Ok(Authority::from_pem(&read(dir, KEY)?, &read(dir, CERTIFICATE)?)?)
}

fn issue_node(
    dir: &Path,
    name: &str,
    claims: &NodeClaims,
    days: u64,
    request: Option<&Path>,
    out: &Path,
) -> Result<String> {
    let authority = enrolment(dir)?;
    let validity = Validity::days_from(now(), days);
    let serial = next_serial(dir)?;
    let peer = match request {
        Some(request) => {
            let key = requested(request, name)?;
            let chain = authority.issue_node(name, &key, claims, serial, validity)?;
            write_new(out, &chain.to_pem(), false)?;
            chain.key().peer_id()
        }
        None => {
            let key = NodeKey::from_seed(seed()?);
            let chain = authority.issue_node(name, &key.public(), claims, serial, validity)?;
            let peer = key.peer_id();
            write_new(out, &NodeBundle { key, chain }.to_pem(), true)?;
            peer
        }
    };
    note(dir, serial, claims.role.as_str(), name, validity)?;
    Ok(format!("{}\n  {} {name}, certificate {serial}, peer {peer}\n", out.display(), claims.role.as_str()))
}

/// Reads the key of a request, which must be for this name.
fn requested(request: &Path, name: &str) -> Result<PublicKey> {
    let text = fs::read_to_string(request).with_context(|| request.display().to_string())?;
    let read = Request::read(&text).with_context(|| request.display().to_string())?;
    if read.name != name {
        bail!("{}: the request is for {}, not for {name}", request.display(), read.name);
    }
    Ok(read.key)
}

/// Whom a handle certificate is for.
struct User {
    handle: Handle,
    numbers: Vec<Number>,
    abilities: Abilities,
}

fn issue_user(dir: &Path, user: User, days: u64, requests: &[PathBuf], out: &Path) -> Result<String> {
    let authority = enrolment(dir)?;
    let handle = user.handle;
    let own = if requests.is_empty() { Some(NodeKey::from_seed(seed()?)) } else { None };
    let mut keys: Vec<PublicKey> = own.iter().map(NodeKey::public).collect();
    for request in requests {
        let key = requested(request, handle.as_str())?;
        if keys.contains(&key) {
            bail!("{}: another request is for the same key", request.display());
        }
        keys.push(key);
    }
    let peers = keys.iter().map(|key| key.peer_id().to_string()).collect::<Vec<_>>().join(", ");
    let validity = Validity::days_from(now(), days);
    let serial = next_serial(dir)?;
    let claims = HandleClaims {
        handle: handle.clone(),
        keys,
        serial,
        validity,
        abilities: user.abilities,
        numbers: user.numbers,
    };
    let certificate = authority.issue_handle(claims)?;
    match own {
        Some(key) => write_new(out, &UserBundle { key, certificate }.to_pem(), true)?,
        None => write_new(out, &certificate.to_pem(), false)?,
    }
    note(dir, serial, USER, handle.as_str(), validity)?;
    Ok(format!("{}\n  user {handle}, certificate {serial}, peer {peers}\n", out.display()))
}

/// Reads the lists of revoked certificates, one of each authority that revoked any.
fn revocations(dir: &Path) -> Result<Vec<SignedRevocations>> {
    let file = dir.join(REVOKED);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        // Taken for an empty list, it would take back every revocation so far.
        Err(error) => return Err(error).context(file.display().to_string()),
    };
    SignedRevocations::all_from_pem(&text).with_context(|| file.display().to_string())
}

fn revoke(dir: &Path, serial: u64, reason: RevocationReason) -> Result<String> {
    let issued = read(dir, ISSUED)?;
    let rows = issued.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let known = rows.into_iter().find(|cells| cells.first() == Some(&serial.to_string().as_str()));
    let Some(known) = known else {
        bail!("{serial}: no certificate of that number was issued here: see `causeway authority list`");
    };
    // A certificate is revoked by who issued it: that of an enrolment authority by the root.
    let authority = if known.get(1) == Some(&ENROLMENT) {
        root(dir).with_context(|| {
            format!(
                "{serial} is an enrolment authority, which only the root revokes: do it where {ROOT_KEY} is"
            )
        })?
    } else {
        enrolment(dir)?
    };
    let mut lists = revocations(dir)?;
    let previous = lists.iter().position(|list| list.issuer() == authority.key());
    let previous = previous.map(|index| lists.remove(index));
    let list = authority.revoke(previous.as_ref(), serial, reason, now())?;
    let (version, count) = (list.version(), list.revoked().len());
    // The root's list comes last: it may revoke the authority that signed another.
    lists.insert(if authority.is_root() { lists.len() } else { 0 }, list);
    let (file, part) = (dir.join(REVOKED), dir.join("revoked.part"));
    let text: String = lists.iter().map(SignedRevocations::to_pem).collect();
    fs::write(&part, text).with_context(|| part.display().to_string())?;
    fs::rename(&part, &file).with_context(|| file.display().to_string())?;
    let name = known.get(2).unwrap_or(&"?");
    Ok(format!(
        "{}: version {version} of {}, {count} revoked, now {name}; give it to every node\n",
        file.display(),
        authority.name()
    ))
}

fn list(dir: &Path) -> Result<String> {
    let issued = read(dir, ISSUED)?;
    let lists = revocations(dir)?;
    // Numbers are given out once in a folder, whichever of its two authorities signs.
    let revoked: Vec<_> = lists.iter().flat_map(SignedRevocations::revoked).collect();
    let unix = now();
    let mut rows = Vec::new();
    for line in issued.lines() {
        let cells: Vec<&str> = line.split('\t').collect();
        let [serial, kind, name, from, until] = cells[..] else { continue };
        let revoked = revoked.iter().find(|entry| entry.serial.to_string() == serial);
        let state = match revoked {
            Some(entry) => format!("revoked {}: {}", Utc(entry.since), entry.reason),
            None if until < Utc(unix).to_string().as_str() => "expired".to_owned(),
            None => "good".to_owned(),
        };
        rows.push([serial, kind, name, from, until, &state].map(str::to_owned).to_vec());
    }
    Ok(super::show::table(&["NUMBER", "KIND", "NAME", "FROM", "UNTIL", "STATE"], &rows))
}

#[cfg(test)]
mod tests;
