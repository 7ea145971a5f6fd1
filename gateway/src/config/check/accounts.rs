//! Trunks that register here.

use std::net::SocketAddr;
use std::path::PathBuf;

use call_model::TrunkName;
use sip_trunk::auth::{Ha1, Secret};
use sip_trunk::{AccountConfig, AccountError, AccountSecret, Transport};

use super::{Check, Checked};
use crate::config::{Account, Sip, Trunk, shape};

/// The protection domain where none is written.
const REALM: &str = "causeway";
const TRANSPORTS: &str = "write some of \"udp\", \"tcp\", \"tls\", \"ws\", \"wss\"";

impl Check<'_> {
    /// Reads `account` of a trunk.
    pub(super) fn account(&self, at: &str, raw: shape::Account, name: &TrunkName) -> Checked<Account> {
        let key = |name: &str| format!("{at}.{name}");
        let realm = raw.realm.unwrap_or_else(|| REALM.to_owned());
        let secret = self.account_secret(at, raw.password_file, raw.ha1_file)?;
        let mut account = AccountConfig::new(raw.user, realm, secret, name.clone());
        if let Some(texts) = raw.transports {
            account.transports.clear();
            for text in texts {
                let transport = match text.as_str() {
                    "udp" => Transport::Udp,
                    "tcp" => Transport::Tcp,
                    "tls" => Transport::Tls,
                    "ws" => Transport::Ws,
                    "wss" => Transport::Wss,
                    other => {
                        let problem = format!("\"{other}\" is no transport");
                        return self.error(key("transports"), problem, TRANSPORTS);
                    }
                };
                account.transports.push(transport);
            }
        }
        let usual = account.max_contacts as i64;
        account.max_contacts = self.within(&key("max_contacts"), raw.max_contacts, usual, 1..=64)? as usize;
        account.replace_oldest = match raw.when_full.as_deref() {
            None | Some("replace") => true,
            Some("refuse") => false,
            Some(other) => {
                let remedy = "write \"replace\" (the oldest contact) or \"refuse\" (the new one)";
                return self.error(key("when_full"), format!("\"{other}\" is no choice"), remedy);
            }
        };
        account.min_expires = self.seconds(&key("min_expires_s"), raw.min_expires_s, 60, 1..=604_800)?;
        account.max_expires = self.seconds(&key("max_expires_s"), raw.max_expires_s, 3600, 1..=604_800)?;
        account.symmetric = raw.symmetric.unwrap_or(true);
        let usual = account.keep_alive.map_or(0, |every| every.as_secs() as i64);
        let every = self.within(&key("keep_alive_s"), raw.keep_alive_s, usual, 0..=3600)?;
        account.keep_alive = (every > 0).then(|| std::time::Duration::from_secs(every as u64));
        account.many_users = raw.many_users.unwrap_or(false);
        if let Err(error) = account.check() {
            let (name, remedy) = match error {
                AccountError::User => ("user", "write the user name, without the domain"),
                AccountError::Realm => {
                    ("realm", "write what the account's owner knows it by, or leave it out")
                }
                AccountError::Expires => ("min_expires_s", "write no more than max_expires_s"),
                AccountError::Transports => ("transports", TRANSPORTS),
                AccountError::KeepAlive => ("keep_alive_s", "write 0 (never), or 5 to 3600"),
                _ => ("max_contacts", "write 1 to 64"),
            };
            return self.error(key(name), error.to_string(), remedy);
        }
        let AccountConfig { user, realm, secret, transports, max_contacts, replace_oldest, .. } = account;
        let AccountConfig { min_expires, max_expires, symmetric, keep_alive, many_users, .. } = account;
        Ok(Account {
            user,
            realm,
            secret,
            transports,
            max_contacts,
            replace_oldest,
            min_expires,
            max_expires,
            symmetric,
            keep_alive,
            many_users,
        })
    }

    fn account_secret(
        &self,
        at: &str,
        password_file: Option<PathBuf>,
        ha1_file: Option<PathBuf>,
    ) -> Checked<AccountSecret> {
        let read = |key: &str, file: PathBuf| {
            let (key, file) = (format!("{at}.{key}"), self.beside(file));
            match std::fs::read_to_string(&file) {
                Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
                Ok(_) => self.error(key, format!("{} is empty", file.display()), "write the secret into it"),
                Err(error) => {
                    let problem = format!("{}: {error}", file.display());
                    self.error(key, problem, "name a file that the daemon may read")
                }
            }
        };
        match (password_file, ha1_file) {
            (Some(file), None) => Ok(AccountSecret::Password(Secret::new(read("password_file", file)?))),
            (None, Some(file)) => {
                let text = read("ha1_file", file)?;
                let hash =
                    |digits| text.split_whitespace().find(|word| word.len() == digits).map(Secret::new);
                let known = text.split_whitespace().all(|word| [32, 64].contains(&word.len()));
                match Ha1::new(hash(32).as_ref(), hash(64).as_ref()).filter(|_| known) {
                    Some(hashes) => Ok(AccountSecret::Hashed(hashes)),
                    None => self.error(
                        format!("{at}.ha1_file"),
                        "no hash in hexadecimal digits",
                        "write MD5 or SHA-256 of USER:REALM:PASSWORD into it, or one a line",
                    ),
                }
            }
            _ => self.error(
                at,
                "an account has one secret",
                "add password_file = \"PATH\" or ha1_file = \"PATH\"",
            ),
        }
    }

    /// Checks an account against the listeners and the accounts before it.
    pub(super) fn account_fits(
        &self,
        at: &str,
        trunk: &Trunk,
        before: &[Trunk],
        sip: Option<&Sip>,
    ) -> Checked<()> {
        let Some(account) = &trunk.account else { return Ok(()) };
        let listeners: &[(Transport, SocketAddr)] = sip.map_or(&[], |sip| sip.listen.as_slice());
        for transport in &account.transports {
            if !listeners.iter().any(|(listening, _)| listening == transport) {
                let problem = format!("no listener of sip.listen is for {}", transport.as_str());
                return self.error(
                    format!("{at}.transports"),
                    problem,
                    "add one, or leave the transport out",
                );
            }
        }
        let mut others = before.iter().filter_map(|other| Some((&other.name, other.account.as_ref()?)));
        let same = others.find(|(_, other)| other.user == account.user && other.realm == account.realm);
        if let Some((name, _)) = same {
            let problem = format!("\"{}\" is the user of trunk \"{name}\" already", account.user);
            return self.error(format!("{at}.user"), problem, "give each account a user of its own");
        }
        Ok(())
    }
}
