//! From the file as written to the configuration as used.

mod accounts;
mod emergency;
mod join;
mod media;
mod register;
mod sessions;
mod telemetry;
mod tls;
mod trunks;
mod turn;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use admin_api::{Scope, TokenDigest};
use call_model::{Codec, Handle, Number, TrunkName};
use sip_trunk::{AccessList, Authentication, Network, Transport, UnknownSource};
use toml::de::{DeTable, DeValue};

use super::{
    Admin, Config, ConfigError, Dns, Limits, Log, Media, Overlay, Policy, Role, Route, Sip, Trunk, shape,
};

/// Reads, then checks from top to bottom.
pub(super) fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let file: shape::File = toml::from_str(text).map_err(|error| ConfigError {
        file: path.to_owned(),
        line: error.span().map(|span| line_of(text, span.start)),
        key: String::new(),
        problem: error.message().trim().replace('\n', " "),
        remedy: "see the example configuration for the keys there are".into(),
    })?;
    Check { path, text }.config(file)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

struct Check<'a> {
    path: &'a Path,
    text: &'a str,
}

type Checked<T> = Result<T, ConfigError>;

impl Check<'_> {
    fn error<T>(
        &self,
        key: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Checked<T> {
        let key = key.into();
        let line = self.line_of_key(&key);
        Err(ConfigError {
            file: self.path.to_owned(),
            line,
            key,
            problem: problem.into(),
            remedy: remedy.into(),
        })
    }

    /// Finds the line of `trunks[1].target`, or of the nearest table above it.
    fn line_of_key(&self, key: &str) -> Option<usize> {
        let document = DeTable::parse(self.text).ok()?;
        let mut table = document.get_ref();
        let mut found = None;
        for part in key.split('.') {
            let (name, index) = match part.split_once('[') {
                Some((name, rest)) => (name, rest.trim_end_matches(']').parse::<usize>().ok()),
                None => (part, None),
            };
            let name = name.trim_matches('"');
            let Some((written, value)) = table.iter().find(|(known, _)| known.get_ref() == name) else {
                break;
            };
            found = Some(written.span().start);
            let mut value = value;
            if let (Some(index), DeValue::Array(items)) = (index, value.get_ref())
                && let Some(item) = items.get(index)
            {
                found = Some(item.span().start);
                value = item;
            }
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                _ => break,
            }
        }
        found.map(|offset| line_of(self.text, offset))
    }

    fn config(&self, file: shape::File) -> Checked<Config> {
        let overlay = self.overlay(file.overlay)?;
        let sip = file.sip.map(|sip| self.sip(sip)).transpose()?;
        let dns = self.dns(&file.dns)?;
        let media = self.media(file.media, overlay.role, sip.as_ref())?;
        self.turn_fits(&overlay, &media)?;
        let trunks = self.trunks(file.trunks, sip.as_ref())?;
        let routes = self.routes(file.routes, &trunks)?;
        let numbers = self.numbers(file.numbers)?;
        let emergency = self.emergency(file.emergency, &trunks)?;
        if overlay.role == Role::Supernode {
            let gateways_own = [
                ("trunks", !trunks.is_empty()),
                ("numbers", !numbers.is_empty()),
                ("overlay.offer", !overlay.offer.is_empty()),
            ];
            if let Some((key, _)) = gateways_own.into_iter().find(|(_, present)| *present) {
                return self.error(
                    key,
                    "a supernode has no trunks, numbers and offers",
                    "set overlay.role = \"gateway\"",
                );
            }
        } else if sip.is_none() {
            return self.error(
                "overlay.role",
                "a gateway needs SIP listeners",
                "add a [sip] table with listen = [...]",
            );
        }
        let admin = file.admin.map(|admin| self.admin(admin)).transpose()?;
        let hep = file.telemetry.hep.map(|raw| self.hep(raw, sip.as_ref())).transpose()?;
        let warnings = admin.iter().filter_map(|admin| self.clear_text(admin)).collect();
        Ok(Config {
            file: self.path.to_owned(),
            warnings,
            limits: self.limits(&file.limits, overlay.role, &media)?,
            overlay,
            sip,
            dns,
            media,
            trunks,
            routes,
            numbers,
            policy: self.policy(file.policy)?,
            emergency,
            admin,
            log: self.log(file.log)?,
            hep,
        })
    }

    fn overlay(&self, raw: shape::Overlay) -> Checked<Overlay> {
        let role = match raw.role.as_str() {
            "supernode" => Role::Supernode,
            "gateway" => Role::Gateway,
            other => {
                let remedy = "write \"gateway\" or \"supernode\"";
                return self.error("overlay.role", format!("\"{other}\" is no role"), remedy);
            }
        };
        if raw.listen.is_empty() {
            let remedy = "write at least one, such as \"/ip4/0.0.0.0/udp/4001/quic-v1\"";
            return self.error("overlay.listen", "no address to listen on", remedy);
        }
        let lists = [("listen", &raw.listen), ("external", &raw.external), ("bootstrap", &raw.bootstrap)];
        for (key, list) in lists {
            for (index, address) in list.iter().enumerate() {
                if let Err(error) = p2p_edge::node::check_address(address, key == "bootstrap") {
                    let remedy = "write a multiaddress such as /ip4/192.0.2.1/udp/4001/quic-v1";
                    return self.error(format!("overlay.{key}[{index}]"), error.to_string(), remedy);
                }
            }
        }
        let currency = raw.currency.unwrap_or_else(|| "EUR".into());
        if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            let remedy = "write an ISO 4217 code such as \"EUR\"";
            return self.error("overlay.currency", format!("\"{currency}\" is no currency"), remedy);
        }
        let turn = raw.turn.map(|turn| self.turn(turn, &raw.external)).transpose()?;
        Ok(Overlay {
            role,
            identity_file: self.beside(raw.identity_file),
            trust_file: self.beside(raw.trust_file),
            revocation_file: raw.revocation_file.map(|file| self.beside(file)),
            listen: raw.listen,
            external: raw.external,
            bootstrap: raw.bootstrap,
            join: self.join(raw.join)?,
            offer: raw
                .offer
                .iter()
                .enumerate()
                .map(|(index, text)| self.prefix(&format!("overlay.offer[{index}]"), text))
                .collect::<Checked<Vec<String>>>()?,
            price_per_minute_micros: raw.price_per_minute_micros,
            currency,
            turn,
        })
    }

    /// A relative path is meant from the folder of the configuration file.
    fn beside(&self, file: PathBuf) -> PathBuf {
        match self.path.parent() {
            Some(folder) if file.is_relative() => folder.join(file),
            _ => file,
        }
    }

    fn sip(&self, raw: shape::Sip) -> Checked<Sip> {
        if raw.listen.is_empty() {
            return self.error(
                "sip.listen",
                "no SIP listener",
                "write at least one, such as \"udp:192.0.2.1:5060\"",
            );
        }
        let mut listen = Vec::new();
        for (index, text) in raw.listen.iter().enumerate() {
            let key = format!("sip.listen[{index}]");
            let (transport, address) = self.transport(&key, text)?;
            let Ok(address) = address.parse::<SocketAddr>() else {
                let remedy = "write TRANSPORT:ADDRESS:PORT, such as \"udp:192.0.2.1:5060\"";
                return self.error(key, format!("\"{address}\" is no address and port"), remedy);
            };
            if address.ip().is_unspecified() {
                let remedy = "write the address that trunks reach this host by; it stands in Via and Contact";
                return self.error(key, "an unspecified address cannot be told to a trunk", remedy);
            }
            if address.port() == 0 {
                let remedy = "write the port that trunks send to, such as 5060";
                return self.error(key, "port 0 cannot be told to a trunk", remedy);
            }
            let stream = |t: Transport| t != Transport::Udp;
            let taken = |&(known, at): &(Transport, SocketAddr)| {
                at == address && (known == transport || stream(known) && stream(transport))
            };
            if listen.iter().any(taken) {
                return self.error(key, format!("{address} stands twice"), "keep one of them");
            }
            listen.push((transport, address));
        }
        let unknown_source = match raw.unknown_source.as_deref() {
            None | Some("forbid") => UnknownSource::Forbid,
            Some("silent") => UnknownSource::Silent,
            Some(other) => {
                let remedy = "write \"forbid\" (403) or \"silent\" (no answer)";
                return self.error("sip.unknown_source", format!("\"{other}\" is no choice"), remedy);
            }
        };
        let user_agent =
            raw.user_agent.unwrap_or_else(|| concat!("Causeway/", env!("CARGO_PKG_VERSION")).into());
        if user_agent.chars().any(|c| c.is_control() || !c.is_ascii()) {
            return self.error("sip.user_agent", "not printable ASCII", "leave it out or write plain text");
        }
        let access = AccessList {
            allow: self.networks("sip.allow", &raw.allow)?,
            deny: self.networks("sip.deny", &raw.deny)?,
        };
        let usual = Authentication::default();
        let authentication = Authentication {
            source_failures: self.within(
                "sip.ban_after",
                raw.ban_after,
                i64::from(usual.source_failures),
                1..=1000,
            )? as u32,
            ban: self.seconds("sip.ban_s", raw.ban_s, usual.ban.as_secs() as i64, 1..=86_400)?,
            ..usual
        };
        let tls = raw.tls.map(|tls| self.tls(tls)).transpose()?;
        let websocket_origins = raw.websocket_origins.unwrap_or_default();
        self.secure_listeners(&listen, tls.as_ref(), &websocket_origins)?;
        let dscp = self.dscp("sip.dscp", raw.dscp.as_deref(), "CS3")?;
        Ok(Sip { listen, unknown_source, access, authentication, user_agent, tls, websocket_origins, dscp })
    }

    fn networks(&self, key: &str, list: &[String]) -> Checked<Vec<Network>> {
        let network = |(index, text): (usize, &String)| {
            let remedy = "write networks such as \"192.0.2.0/24\" or \"2001:db8::/32\", or addresses";
            self.parsed(&format!("{key}[{index}]"), text, remedy)
        };
        list.iter().enumerate().map(network).collect()
    }

    fn dns(&self, raw: &shape::Dns) -> Checked<Dns> {
        let remedy = "write the address of a server, such as \"192.0.2.53\", with a port if it is not 53";
        let server = |text: &String| match text.parse::<IpAddr>() {
            Ok(address) => Ok(SocketAddr::new(address, 53)),
            Err(_) => self.parsed::<SocketAddr>("dns.servers", text, remedy),
        };
        let servers = raw.servers.iter().flatten().map(server).collect::<Checked<_>>()?;
        let timeout = self.within("dns.timeout_ms", raw.timeout_ms, 2000, 100..=10_000)?;
        Ok(Dns { servers, timeout: Duration::from_millis(timeout as u64) })
    }

    fn transport<'t>(&self, key: &str, text: &'t str) -> Checked<(Transport, &'t str)> {
        match text.split_once(':') {
            Some(("udp", rest)) => Ok((Transport::Udp, rest)),
            Some(("tcp", rest)) => Ok((Transport::Tcp, rest)),
            Some(("tls", rest)) => Ok((Transport::Tls, rest)),
            Some(("ws", rest)) => Ok((Transport::Ws, rest)),
            Some(("wss", rest)) => Ok((Transport::Wss, rest)),
            _ => {
                let remedy = "begin with udp:, tcp:, tls:, ws: or wss:, such as \"udp:192.0.2.1:5060\"";
                self.error(key, format!("\"{text}\" names no transport"), remedy)
            }
        }
    }

    fn within(
        &self,
        key: &str,
        value: Option<i64>,
        default: i64,
        range: RangeInclusive<i64>,
    ) -> Checked<i64> {
        match value.unwrap_or(default) {
            value if range.contains(&value) => Ok(value),
            value => {
                let remedy = format!("write a number from {} to {}", range.start(), range.end());
                self.error(key, format!("{value} is out of range"), remedy)
            }
        }
    }

    fn seconds(
        &self,
        key: &str,
        value: Option<i64>,
        default: i64,
        range: RangeInclusive<i64>,
    ) -> Checked<Duration> {
        Ok(Duration::from_secs(self.within(key, value, default, range)? as u64))
    }

    fn parsed<T>(&self, key: &str, text: &str, remedy: &str) -> Checked<T>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        text.parse().or_else(|error: T::Err| self.error(key, format!("\"{text}\": {error}"), remedy))
    }

    fn prefix(&self, key: &str, text: &str) -> Checked<String> {
        let digits = text.strip_prefix('+').unwrap_or(text);
        if digits.len() <= 15 && digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0')
        {
            Ok(digits.to_owned())
        } else {
            self.error(
                key,
                format!("\"{text}\" is no E.164 prefix"),
                "write a prefix such as \"+44\", or \"\" for all numbers",
            )
        }
    }

    fn routes(&self, raw: Vec<shape::Route>, trunks: &[Trunk]) -> Checked<Vec<Route>> {
        let mut routes = Vec::new();
        let mut seen = HashSet::new();
        for (index, route) in raw.into_iter().enumerate() {
            let at = format!("routes[{index}]");
            let prefix = self.prefix(&format!("{at}.prefix"), &route.prefix)?;
            if !seen.insert(prefix.clone()) {
                let problem = format!("an earlier route has the prefix \"{}\"", route.prefix);
                return self.error(
                    format!("{at}.prefix"),
                    problem,
                    "list several trunks in one route instead",
                );
            }
            if route.trunks.is_empty() {
                return self.error(format!("{at}.trunks"), "no trunk", "name at least one");
            }
            let named = |key: &str, texts: &[String]| {
                texts
                    .iter()
                    .map(|text| self.trunk_called(&format!("{at}.{key}"), text, trunks))
                    .collect::<Checked<Vec<TrunkName>>>()
            };
            let (names, from) = (named("trunks", &route.trunks)?, named("from", &route.from)?);
            // Media between trunks is passed on in G.711 and G.722 alone.
            let opus = |name: &&TrunkName| {
                trunks.iter().any(|trunk| trunk.name == **name && trunk.codecs.contains(&Codec::Opus))
            };
            if let Some(name) = names.iter().chain(&from).find(opus).filter(|_| !from.is_empty()) {
                let problem = format!("trunk \"{name}\" speaks Opus, which calls between trunks do not");
                let remedy = "take \"opus\" out of its codecs, or leave from out";
                return self.error(format!("{at}.from"), problem, remedy);
            }
            routes.push(Route { index, prefix, trunks: names, from });
        }
        routes.sort_by_key(|route| (std::cmp::Reverse(route.prefix.len()), route.index));
        Ok(routes)
    }

    fn trunk_called(&self, key: &str, text: &str, trunks: &[Trunk]) -> Checked<TrunkName> {
        match trunks.iter().find(|trunk| trunk.name.as_str() == text) {
            Some(trunk) => Ok(trunk.name.clone()),
            None => {
                let problem = format!("no trunk is called \"{text}\"");
                self.error(key, problem, "name a [[trunks]] entry of this file")
            }
        }
    }

    fn numbers(&self, raw: std::collections::BTreeMap<String, String>) -> Checked<HashMap<Number, Handle>> {
        let mut numbers = HashMap::new();
        for (number, handle) in raw {
            let key = format!("numbers.{number}");
            let parsed: Number = self.parsed(&key, &number, "write \"+442079460018\" = \"alice\"")?;
            let handle: Handle = self.parsed(&key, &handle, "write the handle of an overlay user")?;
            if numbers.insert(parsed, handle).is_some() {
                return self.error(key, "the same number stands twice", "keep one of them");
            }
        }
        Ok(numbers)
    }

    fn policy(&self, raw: shape::Policy) -> Checked<Policy> {
        let all = |key: &str, list: Vec<String>| {
            list.iter().map(|text| self.prefix(key, text)).collect::<Checked<Vec<String>>>()
        };
        Ok(Policy {
            allow_prefixes: all("policy.allow_prefixes", raw.allow_prefixes)?,
            deny_prefixes: all("policy.deny_prefixes", raw.deny_prefixes)?,
            find_numbers: raw.find_numbers,
        })
    }

    fn limits(&self, raw: &shape::Limits, role: Role, media: &Media) -> Checked<Limits> {
        // Only a gateway opens ports for calls.
        let room = if role == Role::Gateway { Self::room(media) } else { usize::MAX };
        let default = i64::try_from(room).unwrap_or(i64::MAX).min(2000);
        let calls = self.within("limits.calls", raw.calls, default, 1..=100_000)? as usize;
        if calls > room {
            let problem = format!("the media ports are enough for {room} calls");
            let remedy = "widen media.trunk_ports (two to a call) and media.overlay_ports (one), or lower it";
            return self.error("limits.calls", problem, remedy);
        }
        Ok(Limits {
            calls,
            calls_per_user: self.within("limits.calls_per_user", raw.calls_per_user, 4, 1..=10_000)? as usize,
            history: self.within("limits.history", raw.history, 1000, 0..=100_000)? as usize,
            drain: self.seconds("limits.drain_s", raw.drain_s, 0, 0..=86_400)?,
        })
    }

    fn admin(&self, raw: shape::Admin) -> Checked<Admin> {
        let remedy = "write ADDRESS:PORT, such as \"127.0.0.1:8085\"";
        let listen: SocketAddr = self.parsed("admin.listen", &raw.listen, remedy)?;
        let mut tokens = Vec::new();
        for (index, token) in raw.tokens.into_iter().enumerate() {
            let key = format!("admin.tokens[{index}]");
            let digest: TokenDigest =
                self.parsed(&format!("{key}.sha256"), &token.sha256, "make one with `causeway token new`")?;
            // What `sha256sum` says of a file that could not be read.
            if digest == TokenDigest::of("") {
                let remedy = "make one with `causeway token new`";
                return self.error(format!("{key}.sha256"), "this is the digest of no token at all", remedy);
            }
            let scope = match token.scope.as_str() {
                "read" => Scope::Read,
                "operate" => Scope::Operate,
                other => {
                    let remedy = "write \"read\" or \"operate\"";
                    return self.error(format!("{key}.scope"), format!("\"{other}\" is no scope"), remedy);
                }
            };
            tokens.push((digest, scope));
        }
        if tokens.is_empty() {
            return self.error(
                "admin.tokens",
                "nobody could use the API",
                "make a token with `causeway token new`",
            );
        }
        Ok(Admin { listen, tokens })
    }

    /// A token that goes over a network unencrypted is anybody's.
    fn clear_text(&self, admin: &Admin) -> Option<ConfigError> {
        let problem = "the API speaks clear HTTP, and this is no loopback address";
        let remedy = "write \"127.0.0.1:8085\" and put a proxy with TLS before it";
        let warning = self.error::<()>("admin.listen", problem, remedy).err();
        warning.filter(|_| !admin.listen.ip().is_loopback())
    }

    fn log(&self, raw: shape::Log) -> Checked<Log> {
        let filter = raw.filter.unwrap_or_else(|| "info".into());
        if let Err(error) = filter.parse::<tracing_subscriber::filter::Targets>() {
            return self.error(
                "log.filter",
                format!("\"{filter}\": {error}"),
                "write a level such as \"info\"",
            );
        }
        let json = match raw.format.as_deref() {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => {
                return self.error(
                    "log.format",
                    format!("\"{other}\" is no format"),
                    "write \"text\" or \"json\"",
                );
            }
        };
        Ok(Log { filter, json, redact: raw.redact.unwrap_or(true) })
    }
}
