//! From the file as written to the configuration as used.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use admin_api::{Scope, TokenDigest};
use call_model::{Codec, Handle, Number, TrunkName};
use sip_trunk::auth::{Credentials, Secret};
use sip_trunk::trunk::numbers::{NumberFormat, NumberRules};
use sip_trunk::{Transport, UnknownSource};
use toml::de::{DeTable, DeValue};

use super::{
    Admin, Config, ConfigError, Limits, Log, Media, Overlay, Policy, Role, Route, Sip, Trunk, shape,
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
        let media = self.media(file.media)?;
        let trunks = self.trunks(file.trunks, sip.as_ref())?;
        let routes = self.routes(file.routes, &trunks)?;
        let numbers = self.numbers(file.numbers)?;
        if overlay.role == Role::Supernode {
            for (key, present) in [("trunks", !trunks.is_empty()), ("numbers", !numbers.is_empty())] {
                if present {
                    return self.error(
                        key,
                        "a supernode has no trunks and numbers",
                        "set overlay.role = \"gateway\"",
                    );
                }
            }
        } else if sip.is_none() {
            return self.error(
                "overlay.role",
                "a gateway needs SIP listeners",
                "add a [sip] table with listen = [...]",
            );
        }
        Ok(Config {
            file: self.path.to_owned(),
            overlay,
            sip,
            media,
            trunks,
            routes,
            numbers,
            policy: self.policy(file.policy)?,
            limits: self.limits(&file.limits)?,
            admin: file.admin.map(|admin| self.admin(admin)).transpose()?,
            log: self.log(file.log)?,
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
        Ok(Overlay {
            role,
            identity_file: self.beside(raw.identity_file),
            trust_file: self.beside(raw.trust_file),
            revocation_file: raw.revocation_file.map(|file| self.beside(file)),
            listen: raw.listen,
            external: raw.external,
            bootstrap: raw.bootstrap,
            offer: raw
                .offer
                .iter()
                .enumerate()
                .map(|(index, text)| self.prefix(&format!("overlay.offer[{index}]"), text))
                .collect::<Checked<Vec<String>>>()?,
            price_per_minute_micros: raw.price_per_minute_micros,
            currency,
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
        Ok(Sip { listen, unknown_source, user_agent })
    }

    fn transport<'t>(&self, key: &str, text: &'t str) -> Checked<(Transport, &'t str)> {
        match text.split_once(':') {
            Some(("udp", rest)) => Ok((Transport::Udp, rest)),
            Some(("tcp", rest)) => Ok((Transport::Tcp, rest)),
            _ => {
                let remedy = "begin with udp: or tcp:, such as \"udp:192.0.2.1:5060\"";
                self.error(key, format!("\"{text}\" names no transport"), remedy)
            }
        }
    }

    fn media(&self, raw: shape::Media) -> Checked<Media> {
        let address = |key: &str, text: Option<String>| -> Checked<IpAddr> {
            let text = text.unwrap_or_else(|| "127.0.0.1".into());
            match text.parse::<IpAddr>() {
                Ok(ip) if !ip.is_unspecified() => Ok(ip),
                _ => self.error(
                    key,
                    format!("\"{text}\" is no address of this host"),
                    "write one, such as \"192.0.2.1\"",
                ),
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as i64;
        let trunk_ports =
            self.ports("media.trunk_ports", raw.trunk_ports.as_deref().unwrap_or("20000-27999"))?;
        let overlay_ports =
            self.ports("media.overlay_ports", raw.overlay_ports.as_deref().unwrap_or("28000-31999"))?;
        let trunk_address = address("media.trunk_address", raw.trunk_address)?;
        let overlay_address = address("media.overlay_address", raw.overlay_address)?;
        let overlap =
            trunk_ports.start() <= overlay_ports.end() && overlay_ports.start() <= trunk_ports.end();
        if trunk_address == overlay_address && overlap {
            let remedy = "give the two legs ranges apart, or addresses of their own";
            return self.error("media.overlay_ports", "overlaps with media.trunk_ports", remedy);
        }
        Ok(Media {
            trunk_address,
            trunk_ports,
            overlay_address,
            overlay_ports,
            threads: self.within("media.threads", raw.threads, cores.min(64), 1..=64)? as usize,
            opus_complexity: self.within("media.opus_complexity", raw.opus_complexity, 5, 0..=10)? as u8,
            opus_bitrate: self.within("media.opus_bitrate", raw.opus_bitrate, 24_000, 6_000..=64_000)? as u32,
            suppress_silence: raw.suppress_silence.unwrap_or(true),
            silence_timeout: self.seconds("media.silence_timeout_s", raw.silence_timeout_s, 60, 5..=3600)?,
            port_quarantine: self.seconds("media.port_quarantine_s", raw.port_quarantine_s, 30, 1..=600)?,
        })
    }

    fn ports(&self, key: &str, text: &str) -> Checked<RangeInclusive<u16>> {
        let parsed = text.split_once('-').and_then(|(first, last)| {
            Some((first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?))
        });
        match parsed {
            Some((first, last)) if first >= 1024 && last > first => Ok(first..=last),
            _ => {
                let remedy = "write FIRST-LAST with 1024 or more, such as \"20000-27999\"";
                self.error(key, format!("\"{text}\" is no range of ports"), remedy)
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

    fn trunks(&self, raw: Vec<shape::Trunk>, sip: Option<&Sip>) -> Checked<Vec<Trunk>> {
        let mut trunks: Vec<Trunk> = Vec::new();
        let mut sources: HashMap<IpAddr, TrunkName> = HashMap::new();
        for (index, raw) in raw.into_iter().enumerate() {
            let at = format!("trunks[{index}]");
            let trunk = self.trunk(&at, raw)?;
            if trunks.iter().any(|known| known.name == trunk.name) {
                let problem = format!("\"{}\" is the name of an earlier trunk", trunk.name);
                return self.error(format!("{at}.name"), problem, "give each trunk a name of its own");
            }
            let reachable =
                sip.is_some_and(|sip| sip.listen.iter().any(|(transport, _)| *transport == trunk.transport));
            if !reachable {
                let problem = "no listener of sip.listen has this transport";
                return self.error(
                    format!("{at}.target"),
                    problem,
                    "add one, or change the target's transport",
                );
            }
            for source in &trunk.sources {
                if let Some(other) = sources.insert(*source, trunk.name.clone()) {
                    let problem = format!("{source} is a source of trunk \"{other}\" already");
                    let remedy = "a source address must tell one trunk from another";
                    return self.error(format!("{at}.sources"), problem, remedy);
                }
            }
            trunks.push(trunk);
        }
        Ok(trunks)
    }

    fn trunk(&self, at: &str, raw: shape::Trunk) -> Checked<Trunk> {
        let key = |name: &str| format!("{at}.{name}");
        let name: TrunkName =
            self.parsed(&key("name"), &raw.name, "write a short name such as \"carrier-1\"")?;
        let (transport, host_port) = self.transport(&key("target"), &raw.target)?;
        let with_port = if host_port.parse::<IpAddr>().is_ok() || !host_port.contains(':') {
            format!("{host_port}:5060")
        } else {
            host_port.to_owned()
        };
        let resolved = with_port.to_socket_addrs().ok().and_then(|mut found| found.next());
        let Some(target) = resolved else {
            let remedy =
                "write TRANSPORT:HOST:PORT with a host that resolves, such as \"udp:192.0.2.10:5060\"";
            return self.error(key("target"), format!("\"{host_port}\" is no reachable host"), remedy);
        };
        let host = with_port.rsplit_once(':').map_or(with_port.as_str(), |(host, _)| host).to_owned();
        let sources = match raw.sources {
            None => vec![target.ip()],
            Some(list) => list
                .iter()
                .map(|text| self.parsed(&key("sources"), text, "write IP addresses"))
                .collect::<Checked<Vec<IpAddr>>>()?,
        };
        let mut codecs = Vec::new();
        for text in raw.codecs.unwrap_or_else(|| vec!["PCMA".into(), "PCMU".into()]) {
            match text.as_str() {
                "PCMA" => codecs.push(Codec::Pcma),
                "PCMU" => codecs.push(Codec::Pcmu),
                other => {
                    return self.error(
                        key("codecs"),
                        format!("\"{other}\" is no codec of a trunk"),
                        "write \"PCMA\", \"PCMU\"",
                    );
                }
            }
        }
        if codecs.is_empty() {
            return self.error(key("codecs"), "no codec", "write \"PCMA\", \"PCMU\" or both");
        }
        let packet_time_ms = self.within(&key("packet_time_ms"), raw.packet_time_ms, 20, 10..=60)?;
        if packet_time_ms % 10 != 0 {
            return self.error(
                key("packet_time_ms"),
                format!("{packet_time_ms} is no multiple of 10"),
                "write 10 to 60 in tens",
            );
        }
        let options = self.within(&key("options_interval_s"), raw.options_interval_s, 60, 0..=86_400)?;
        let numbers = self.number_rules(at, raw.number_format.as_deref(), raw.country_code)?;
        let remedy = "write a number in E.164 form, such as \"+442079460018\"";
        let default_caller = raw
            .default_caller
            .as_deref()
            .map(|text| self.parsed::<Number>(&key("default_caller"), text, remedy))
            .transpose()?;
        Ok(Trunk {
            credentials: self.credentials(at, raw.username, raw.password_file, raw.realm)?,
            name,
            transport,
            target,
            host,
            sources,
            codecs,
            packet_time_ms: packet_time_ms as u16,
            options_interval: (options > 0).then(|| Duration::from_secs(options as u64)),
            max_calls: self.within(&key("max_calls"), raw.max_calls, 1000, 1..=100_000)? as usize,
            ring_timeout: self.seconds(&key("ring_timeout_s"), raw.ring_timeout_s, 120, 5..=600)?,
            numbers,
            default_caller,
        })
    }

    fn number_rules(
        &self,
        at: &str,
        format: Option<&str>,
        country_code: Option<String>,
    ) -> Checked<NumberRules> {
        let format = match format {
            None | Some("e164_plus") => NumberFormat::E164Plus,
            Some("e164") => NumberFormat::E164NoPlus,
            Some("national") => NumberFormat::National,
            Some(other) => {
                let remedy = "write \"e164_plus\", \"e164\" or \"national\"";
                return self.error(format!("{at}.number_format"), format!("\"{other}\" is no form"), remedy);
            }
        };
        let rules = NumberRules { country_code, format, ..NumberRules::default() };
        match rules.check() {
            Ok(()) => Ok(rules),
            Err(error) => {
                self.error(format!("{at}.country_code"), error.to_string(), "write digits such as \"44\"")
            }
        }
    }

    fn credentials(
        &self,
        at: &str,
        username: Option<String>,
        password_file: Option<PathBuf>,
        realm: Option<String>,
    ) -> Checked<Option<Credentials>> {
        let (username, file) = match (username, password_file) {
            (None, None) => return Ok(None),
            (Some(username), Some(file)) => (username, self.beside(file)),
            (Some(_), None) => {
                return self.error(
                    format!("{at}.username"),
                    "no password beside it",
                    "add password_file = \"PATH\"",
                );
            }
            (None, Some(_)) => {
                return self.error(
                    format!("{at}.password_file"),
                    "no username beside it",
                    "add username = \"NAME\"",
                );
            }
        };
        match std::fs::read_to_string(&file) {
            Ok(text) if !text.trim().is_empty() => {
                Ok(Some(Credentials { username, password: Secret::new(text.trim().to_owned()), realm }))
            }
            Ok(_) => self.error(
                format!("{at}.password_file"),
                format!("{} is empty", file.display()),
                "write the password into it",
            ),
            Err(error) => {
                let problem = format!("{}: {error}", file.display());
                self.error(format!("{at}.password_file"), problem, "name a file that the daemon may read")
            }
        }
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
            let mut names = Vec::new();
            for text in &route.trunks {
                let Some(trunk) = trunks.iter().find(|trunk| trunk.name.as_str() == text) else {
                    let problem = format!("no trunk is called \"{text}\"");
                    return self.error(
                        format!("{at}.trunks"),
                        problem,
                        "name a [[trunks]] entry of this file",
                    );
                };
                names.push(trunk.name.clone());
            }
            routes.push(Route { index, prefix, trunks: names });
        }
        routes.sort_by_key(|route| (std::cmp::Reverse(route.prefix.len()), route.index));
        Ok(routes)
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
        })
    }

    fn limits(&self, raw: &shape::Limits) -> Checked<Limits> {
        Ok(Limits {
            calls: self.within("limits.calls", raw.calls, 2000, 1..=100_000)? as usize,
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
