//! The identity of a node, where its key is: requests, renewal, backup. Only files travel.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use p2p_edge::files;
use p2p_edge::identity::{
    BackupCost, Credential, NodeBundle, NodeChain, NodeKey, Renewal, Request, RevocationList, Trust,
    UserBundle, Utc,
};

/// A certificate that ends within so many seconds is to be renewed.
const SOON: u64 = 30 * 86_400;

#[derive(Debug, Subcommand)]
pub(super) enum IdentityCommand {
    /// Make a key and a request for its certificate. The key stays here.
    Request {
        /// Name of the node.
        name: String,
        /// Where the key goes; must not exist.
        #[arg(long)]
        key: PathBuf,
        /// Where the request goes: to be carried to the authority.
        #[arg(long)]
        out: PathBuf,
    },
    /// Put a key and the certificates that came back together into the identity file of a node.
    Accept {
        /// The key that `request` made, or the identity file whose certificate was renewed.
        #[arg(long)]
        key: PathBuf,
        /// The certificates from the authority (PEM).
        #[arg(long)]
        certificates: PathBuf,
        /// The root certificate.
        #[arg(long)]
        root: PathBuf,
        /// The identity file (overlay.identity_file). One of the same node is replaced.
        #[arg(long)]
        out: PathBuf,
    },
    /// Ask for the certificate that follows the one in use; `causeway authority renew` issues it.
    Renew {
        /// The identity file.
        #[arg(long)]
        identity: PathBuf,
        /// Where the request goes.
        #[arg(long)]
        out: PathBuf,
        /// Change over to a new key, which goes here; must not exist.
        #[arg(long)]
        new_key: Option<PathBuf>,
    },
    /// Show whom an identity file is for, and how long it is good.
    Show {
        /// The identity file.
        identity: PathBuf,
        /// The root certificate, to verify against.
        #[arg(long)]
        root: Option<PathBuf>,
    },
    /// Encrypt an identity file, or all files of a folder such as that of an authority, with a passphrase.
    Backup {
        /// The file or folder.
        what: PathBuf,
        /// Where the backup goes; must not exist.
        #[arg(long)]
        out: PathBuf,
        /// File whose first line is the passphrase; it is asked for where this is left out.
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
    },
    /// Open a backup into a new folder.
    Restore {
        /// The backup.
        backup: PathBuf,
        /// The folder; must not exist, or be empty.
        #[arg(long)]
        into: PathBuf,
        /// File whose first line is the passphrase; it is asked for where this is left out.
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
    },
}

pub(super) fn run(command: IdentityCommand) -> Result<String> {
    match command {
        IdentityCommand::Request { name, key, out } => request(&name, &key, &out),
        IdentityCommand::Accept { key, certificates, root, out } => accept(&key, &certificates, &root, &out),
        IdentityCommand::Renew { identity, out, new_key } => renew(&identity, &out, new_key.as_deref()),
        IdentityCommand::Show { identity, root } => show(&identity, root.as_deref()),
        IdentityCommand::Backup { what, out, passphrase_file } => {
            let passphrase = files::passphrase(passphrase_file.as_deref(), true, ask)?;
            let names = files::back_up(&what, &out, &passphrase, BackupCost::RECOMMENDED)?;
            Ok(format!(
                "{}: {}\n  nobody can open it without the passphrase\n",
                out.display(),
                names.join(", ")
            ))
        }
        IdentityCommand::Restore { backup, into, passphrase_file } => {
            let passphrase = files::passphrase(passphrase_file.as_deref(), false, ask)?;
            let names = files::restore(&backup, &into, &passphrase)?;
            Ok(format!("{}: {}\n", into.display(), names.join(", ")))
        }
    }
}

/// Asks on the terminal, without showing what is typed.
fn ask(text: &str) -> std::io::Result<String> {
    rpassword::prompt_password(text)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| file.display().to_string())
}

fn new_key(file: &Path) -> Result<NodeKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("no random numbers")?;
    let key = NodeKey::from_seed(seed);
    super::authority::write_new(file, &key.to_pem(), true)?;
    Ok(key)
}

fn request(name: &str, key: &Path, out: &Path) -> Result<String> {
    // A name that no certificate can hold leaves no key behind.
    Request::write(name, &NodeKey::from_seed([0; 32]))?;
    let key = new_key(key)?;
    super::authority::write_new(out, &Request::write(name, &key)?, false)?;
    let peer = key.peer_id();
    Ok(format!(
        "{}\n  {name}, peer {peer}: `causeway authority issue node {name} --request`\n",
        out.display()
    ))
}

fn accept(key: &Path, certificates: &Path, root: &Path, out: &Path) -> Result<String> {
    let own = NodeKey::from_pem(&read(key)?).with_context(|| key.display().to_string())?;
    let named = || certificates.display().to_string();
    let chain = NodeChain::from_pem(&read(certificates)?).with_context(named)?;
    if *chain.key() != own.public() {
        bail!("{}: the certificate is for another key than that of {}", named(), key.display());
    }
    let trust = Trust::from_pem(&read(root)?).with_context(|| root.display().to_string())?;
    let node = chain.verify(&trust, &RevocationList::default(), now()).with_context(named)?;
    let text = NodeBundle { key: own, chain }.to_pem();
    if out.exists() {
        // Only what is surely the same node's is overwritten.
        let old = NodeBundle::from_pem(&read(out)?).ok();
        if old.is_none_or(|old| old.chain.name() != node.name) {
            bail!("{}: exists and is no identity of {}: move it away first", out.display(), node.name);
        }
        files::replace(out, text.as_bytes())?;
    } else {
        super::authority::write_new(out, &text, true)?;
    }
    Ok(format!(
        "{}\n  {} {}, certificate {}, good until {}; a running daemon takes it over on `causeway reload`\n",
        out.display(),
        node.role,
        node.name,
        node.serial,
        Utc(node.not_after)
    ))
}

/// Reads an identity file of a node or of a user.
fn identity(file: &Path) -> Result<(NodeKey, Credential)> {
    let text = read(file)?;
    if let Ok(user) = UserBundle::from_pem(&text) {
        return Ok((user.key, Credential::Handle(user.certificate)));
    }
    let node = NodeBundle::from_pem(&text).with_context(|| file.display().to_string())?;
    Ok((node.key, Credential::Node(node.chain)))
}

fn renew(file: &Path, out: &Path, key: Option<&Path>) -> Result<String> {
    let (own, credential) = identity(file)?;
    let fresh = key.map(new_key).transpose()?;
    let request = Renewal::new(&credential, &own, fresh.as_ref(), now())?;
    super::authority::write_new(out, &request.to_pem(), false)?;
    Ok(format!("{}: have it answered with `causeway authority renew` within 14 days\n", out.display()))
}

fn show(file: &Path, root: Option<&Path>) -> Result<String> {
    let (key, credential) = identity(file)?;
    let (mut said, validity) = match &credential {
        Credential::Handle(certificate) => {
            let claims = certificate.claims();
            let numbers = claims.numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let text = format!(
                "user {}, certificate {}, {} devices, numbers: {numbers}\n",
                claims.handle,
                claims.serial,
                claims.keys.len()
            );
            (text, claims.validity)
        }
        Credential::Node(chain) => {
            let role = chain.claims().map_or("node", |claims| claims.role.as_str());
            (format!("{role} {}, certificate {}\n", chain.name(), chain.serial()), chain.validity())
        }
    };
    let unix = now();
    said += &format!("  peer {}\n  good until {}", key.peer_id(), Utc(validity.not_after));
    said += match validity.not_after.saturating_sub(unix) {
        0 => ": it has ended, and must be issued anew\n",
        left if left < SOON => ": renew it with `causeway identity renew`\n",
        _ => "\n",
    };
    if let Some(root) = root {
        let trust = Trust::from_pem(&read(root)?).with_context(|| root.display().to_string())?;
        credential.verify(&trust, &RevocationList::default(), unix)?;
        said += "  certified under the root\n";
    }
    Ok(said)
}

#[cfg(test)]
mod tests;
