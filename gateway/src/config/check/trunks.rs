//! The `[[trunks]]` entries.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use call_model::{Codec, Number, TrunkName};
use sip_trunk::auth::{Credentials, Secret};
use sip_trunk::trunk::LargeRequests;
use sip_trunk::trunk::identity::IdentityHeader;
use sip_trunk::trunk::numbers::{NumberFormat, NumberRules, NumberRulesError};
use sip_trunk::trunk::profile::Profile;
use sip_trunk::trunk::resolve::{Destination, Domain, Host, Service};
use sip_trunk::trunk::retry::{DEFAULT_RETRY, is_last_word};
use sip_trunk::wire::tolerance::Tolerance;
use sip_trunk::{Collector, Reliable, Transport};

use super::{Check, Checked};
use crate::config::{Sip, Trunk, shape};

/// The longest a call may ring: the overlay's sessions and the SIP side's incoming calls give up
/// after that themselves.
const LONGEST_RING_S: i64 = 180;

/// What `target` says.
struct Target {
    transport: Transport,
    target: SocketAddr,
    destination: Option<Destination>,
    host: String,
}

impl Check<'_> {
    pub(super) fn trunks(&self, raw: Vec<shape::Trunk>, sip: Option<&Sip>) -> Checked<Vec<Trunk>> {
        let mut trunks: Vec<Trunk> = Vec::new();
        let mut sources: HashMap<IpAddr, TrunkName> = HashMap::new();
        for (index, raw) in raw.into_iter().enumerate() {
            let at = format!("trunks[{index}]");
            let trunk = self.trunk(&at, raw)?;
            if trunks.iter().any(|known| known.name == trunk.name) {
                let problem = format!("\"{}\" is the name of an earlier trunk", trunk.name);
                return self.error(format!("{at}.name"), problem, "give each trunk a name of its own");
            }
            let listeners = sip.map_or(&[][..], |sip| sip.listen.as_slice());
            self.account_fits(&format!("{at}.account"), &trunk, &trunks, sip)?;
            let targets = || [trunk.target].into_iter().chain(trunk.backups.iter().copied());
            let reachable = match &trunk.destination {
                _ if trunk.account.is_some() => true,
                Some(name) => {
                    let service = name.service;
                    listeners.iter().any(|(transport, _)| match service {
                        Some(_) => Service::of(*transport) == service,
                        None => !transport.is_web(),
                    })
                }
                None => targets().all(|target| {
                    let fits = |(transport, listener): &(Transport, SocketAddr)| {
                        *transport == trunk.transport && listener.is_ipv4() == target.is_ipv4()
                    };
                    listeners.iter().any(fits)
                }),
            };
            if !reachable {
                let family = if trunk.target.is_ipv4() { "IPv4" } else { "IPv6" };
                let problem =
                    format!("no listener of sip.listen is for {} over {family}", trunk.transport.as_str());
                let remedy = "add one, or change the target's transport or address";
                return self.error(format!("{at}.target"), problem, remedy);
            }
            if let Some(listener) = trunk.listener
                && !listeners.contains(&(trunk.transport, listener))
            {
                let problem = format!("{}:{listener} is not in sip.listen", trunk.transport.as_str());
                let remedy = "write the address of one of sip.listen with the transport of the target";
                return self.error(format!("{at}.listener"), problem, remedy);
            }
            let knows_clients =
                sip.and_then(|sip| sip.tls.as_ref()).is_some_and(|tls| tls.client_ca.is_some());
            if trunk.tls.as_ref().is_some_and(|tls| !tls.names.is_empty()) && !knows_clients {
                let remedy = "add client_ca = \"PATH\" to [sip.tls]: who may have issued its certificate";
                return self.error(format!("{at}.auth"), "no certificate of a peer is believed", remedy);
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
        let profile = raw.profile.as_deref().map(|text| self.profile(&key("profile"), text)).transpose()?;
        let sessions = self.sessions(at, &raw, profile.as_ref())?;
        let account = raw.account.map(|raw| self.account(&key("account"), raw, &name)).transpose()?;
        let Target { transport, target, destination, host } = match (&account, &raw.target) {
            (None, Some(text)) => self.target(&key("target"), text)?,
            // Where it registers from is not known before.
            (Some(account), None) => Target {
                transport: account.transports.first().copied().unwrap_or(Transport::Udp),
                target: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                destination: None,
                host: account.realm.clone(),
            },
            (None, None) => {
                let remedy =
                    "add target = \"udp:HOST:PORT\", or account = { ... } for one that registers here";
                return self.error(key("name"), "no target", remedy);
            }
            (Some(_), Some(_)) => {
                let remedy = "leave it out: the trunk is where it registered from";
                return self.error(key("target"), "an account beside it", remedy);
            }
        };
        if transport.is_web() && account.is_none() {
            let remedy = "only its client opens a WebSocket: write udp:, tcp: or tls:";
            return self.error(key("target"), "a trunk cannot be called by WebSocket", remedy);
        }
        let written = [
            ("sources", raw.sources.is_some()),
            ("register", raw.register.is_some()),
            ("listener", raw.listener.is_some()),
            ("contact_host", raw.contact_host.is_some()),
            ("backup_targets", raw.backup_targets.is_some()),
            ("auth", raw.auth.is_some()),
            ("tls", raw.tls.is_some()),
        ];
        if let Some((name, _)) = written.into_iter().find(|(_, written)| account.is_some() && *written) {
            let remedy = "leave it out: the trunk is where it registered from";
            return self.error(key(name), "an account beside it", remedy);
        }
        let backups = self.backups(&key("backup_targets"), raw.backup_targets, destination.is_some())?;
        // What a name leads to without saying how may be TLS (RFC 3263 4.1).
        let calls_by_tls =
            transport == Transport::Tls || destination.as_ref().is_some_and(|d| d.service.is_none());
        let tls = match &account {
            None => self.trunk_tls(at, raw.auth.as_deref(), raw.tls, calls_by_tls, &host)?,
            Some(_) => None,
        };
        let by_certificate = tls.as_ref().is_some_and(|tls| !tls.names.is_empty());
        let sources = match raw.sources {
            // Where a name leads, or who registers, is known later; the endpoint takes it for a source then.
            None if by_certificate || destination.is_some() || account.is_some() => Vec::new(),
            None => [target].iter().chain(&backups).map(SocketAddr::ip).fold(Vec::new(), |mut known, ip| {
                if !known.contains(&ip) {
                    known.push(ip);
                }
                known
            }),
            Some(list) => list
                .iter()
                .map(|text| self.parsed(&key("sources"), text, "write IP addresses"))
                .collect::<Checked<Vec<IpAddr>>>()?,
        };
        let usual = profile.as_ref().map_or(&[Codec::Pcma, Codec::Pcmu][..], |profile| profile.codecs);
        let written = raw.codecs.is_some();
        let mut codecs = if written { Vec::new() } else { usual.to_vec() };
        for text in raw.codecs.unwrap_or_default() {
            match text.as_str() {
                "PCMA" => codecs.push(Codec::Pcma),
                "PCMU" => codecs.push(Codec::Pcmu),
                "G722" => codecs.push(Codec::G722),
                "opus" => codecs.push(Codec::Opus),
                other => {
                    return self.error(
                        key("codecs"),
                        format!("\"{other}\" is no codec of a trunk"),
                        "write \"PCMA\", \"PCMU\", \"G722\", \"opus\"",
                    );
                }
            }
        }
        if codecs.is_empty() {
            return self.error(
                key("codecs"),
                "no codec",
                "write \"PCMA\", \"PCMU\", \"G722\", \"opus\", or several",
            );
        }
        let packet_time_ms = self.within(
            &key("packet_time_ms"),
            raw.packet_time_ms,
            profile.as_ref().map_or(20, |profile| i64::from(profile.packet_time_ms)),
            10..=60,
        )?;
        if packet_time_ms % 10 != 0 {
            return self.error(
                key("packet_time_ms"),
                format!("{packet_time_ms} is no multiple of 10"),
                "write 10 to 60 in tens",
            );
        }
        let seconds = |interval: Option<Duration>| interval.map_or(0, |interval| interval.as_secs() as i64);
        let usual = profile.as_ref().map_or(60, |profile| seconds(profile.options_interval));
        let options = self.within(&key("options_interval_s"), raw.options_interval_s, usual, 0..=86_400)?;
        let rules = NumberRules {
            format: profile.as_ref().map_or_else(NumberFormat::default, |profile| profile.numbers),
            country_code: raw.country_code,
            national_prefix: raw.national_prefix,
            international_prefix: raw.international_prefix,
            user_phone: raw
                .user_phone
                .unwrap_or_else(|| profile.as_ref().is_some_and(|profile| profile.user_phone)),
        };
        let numbers = self.number_rules(at, raw.number_format.as_deref(), rules)?;
        let trusted = raw.trusted.unwrap_or(false);
        let remedy = "write a number in E.164 form, such as \"+442079460018\"";
        let default_caller = raw
            .default_caller
            .as_deref()
            .map(|text| self.parsed::<Number>(&key("default_caller"), text, remedy))
            .transpose()?;
        Ok(Trunk {
            credentials: self.credentials(at, raw.username, raw.password_file, raw.realm)?,
            name,
            account,
            transport,
            target,
            destination,
            backups,
            target_timeout: self.seconds(
                &key("target_timeout_s"),
                raw.target_timeout_s,
                seconds(
                    profile.as_ref().map(|profile| profile.target_timeout).or(Some(Duration::from_secs(8))),
                ),
                1..=32,
            )?,
            failover_limit: self.seconds(&key("failover_limit_s"), raw.failover_limit_s, 40, 1..=120)?,
            max_call_rate: raw
                .max_calls_per_second
                .map(|rate| self.within(&key("max_calls_per_second"), Some(rate), rate, 1..=10_000))
                .transpose()?
                .map(|rate| rate as u32),
            overload_control: raw
                .overload_control
                .unwrap_or_else(|| profile.as_ref().is_some_and(|profile| profile.overload_control)),
            sources,
            codecs,
            packet_time_ms: packet_time_ms as u16,
            options_interval: (options > 0).then(|| Duration::from_secs(options as u64)),
            max_calls: self.within(&key("max_calls"), raw.max_calls, 1000, 1..=100_000)? as usize,
            ring_timeout: self.seconds(
                &key("ring_timeout_s"),
                raw.ring_timeout_s,
                120,
                5..=LONGEST_RING_S,
            )?,
            numbers,
            trusted,
            identity: match (&profile, &raw.identity) {
                (Some(profile), None) => profile.identity,
                _ => self.identity(&key("identity"), raw.identity.as_deref(), trusted)?,
            },
            reliable_provisional: match raw.reliable_provisional.as_deref() {
                None => None,
                Some("off") => Some(Reliable::Off),
                Some("supported") => Some(Reliable::Supported),
                Some("required") => Some(Reliable::Required),
                Some(other) => {
                    let remedy = "write \"off\", \"supported\" or \"required\"";
                    return self.error(
                        key("reliable_provisional"),
                        format!("\"{other}\" is no choice"),
                        remedy,
                    );
                }
            },
            delayed_offer: raw.delayed_offer.unwrap_or(false),
            retry_statuses: self.retry_statuses(
                &key("retry_statuses"),
                raw.retry_statuses,
                profile.as_ref().map_or(DEFAULT_RETRY, |profile| profile.retry),
            )?,
            profile,
            tolerance: match raw.tolerance.as_deref() {
                None | Some("lenient") => Tolerance::default(),
                Some("strict") => Tolerance::STRICT,
                Some(other) => {
                    let remedy = "write \"lenient\" or \"strict\"";
                    return self.error(key("tolerance"), format!("\"{other}\" is no choice"), remedy);
                }
            },
            large_requests: match raw.large_requests.as_deref() {
                None | Some("tcp") => LargeRequests::PreferTcp,
                Some("udp") => LargeRequests::AllowUdp,
                Some(other) => {
                    let remedy = "write \"tcp\", or \"udp\" for a trunk without TCP";
                    return self.error(key("large_requests"), format!("\"{other}\" is no choice"), remedy);
                }
            },
            listener: raw
                .listener
                .as_deref()
                .map(|text| {
                    let remedy = "write an address and port of sip.listen, such as \"192.0.2.1:5060\"";
                    self.parsed::<SocketAddr>(&key("listener"), text, remedy)
                })
                .transpose()?,
            contact_host: raw
                .contact_host
                .map(|name| {
                    let remedy = "write a name without a port, such as \"sbc.example.com\"";
                    let name: Domain = self.parsed(&key("contact_host"), &name, remedy)?;
                    Ok(name.to_string())
                })
                .transpose()?,
            default_caller,
            tls,
            hairpin: raw.hairpin.unwrap_or(false),
            portability: raw.portability,
            sessions,
            nat: match raw.nat {
                None => false,
                Some(toml::Value::Boolean(on)) => on,
                Some(_) => {
                    let remedy = "write true if the trunk is behind an address translator, or leave it out";
                    return self.error(key("nat"), "neither true nor false", remedy);
                }
            },
            quality_reports: raw
                .quality_reports
                .as_deref()
                .map(|text| {
                    let remedy = "write the URI of a collector, such as \"sip:collector@example.com\"";
                    self.parsed::<Collector>(&key("quality_reports"), text, remedy)
                })
                .transpose()?,
            trunk_group: self.trunk_group(&key("trunk_group"), raw.trunk_group)?,
            interconnect: self.interconnect(&key("interconnect"), raw.interconnect)?,
            registration: raw
                .register
                .map(|register| self.registration(&key("register"), register, &host))
                .transpose()?,
            host,
        })
    }

    fn profile(&self, key: &str, text: &str) -> Checked<Profile> {
        match Profile::by_name(text) {
            Some(profile) => Ok(profile),
            None => {
                let names: Vec<_> =
                    Profile::all().iter().map(|profile| format!("\"{}\"", profile.name)).collect();
                let remedy =
                    format!("write one of {}; `causeway trunk profiles` explains them", names.join(", "));
                self.error(key, format!("\"{text}\" is no profile"), remedy)
            }
        }
    }

    fn retry_statuses(&self, key: &str, raw: Option<Vec<i64>>, usual: &[u16]) -> Checked<Vec<u16>> {
        let Some(raw) = raw else { return Ok(usual.to_vec()) };
        raw.into_iter()
            .map(|status| match u16::try_from(status) {
                Ok(status) if (300..700).contains(&status) && !is_last_word(status) => Ok(status),
                _ => self.error(
                    key,
                    format!("a call is not tried again after {status}"),
                    "write statuses that say \"elsewhere, perhaps\", such as 408, 503, 504",
                ),
            })
            .collect()
    }

    /// Reads `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`. Returns the address, and the host as
    /// it stands in a request URI.
    /// An address, or a name: with a port it is looked up as a host, without one by SRV, and without a
    /// transport (`sip:`) by NAPTR first (RFC 3263 4).
    fn target(&self, key: &str, text: &str) -> Checked<Target> {
        let (transport, text) = match text.strip_prefix("sip:") {
            Some(rest) => (None, rest),
            None => self.transport(key, text).map(|(transport, rest)| (Some(transport), rest))?,
        };
        if text.matches(':').count() > 1 && !text.starts_with('[') {
            let remedy = "write an IPv6 address in brackets, such as \"udp:[2001:db8::10]:5060\"";
            return self.error(key, format!("\"{text}\" does not tell address and port apart"), remedy);
        }
        let bare = text.ends_with(']') || !text.contains(':');
        let usual = transport.unwrap_or(Transport::Udp).default_port();
        let with_port = if bare { format!("{text}:{usual}") } else { text.to_owned() };
        let (host, port) = with_port.rsplit_once(':').unwrap_or((&with_port, ""));
        let (address, port) = (with_port.parse::<SocketAddr>(), port.parse::<u16>().unwrap_or(0));
        match (address, host.parse::<Domain>()) {
            (Ok(target), _) if port != 0 => {
                let transport = transport.unwrap_or(Transport::Udp);
                Ok(Target { transport, target, destination: None, host: host.to_owned() })
            }
            (Err(_), Ok(name)) if port != 0 => {
                let service = transport.and_then(Service::of);
                let named = Destination { host: Host::Name(name), port: (!bare).then_some(port), service };
                let target = SocketAddr::from(([0, 0, 0, 0], port));
                let transport = transport.unwrap_or(Transport::Udp);
                Ok(Target { transport, target, destination: Some(named), host: host.to_owned() })
            }
            _ => {
                let remedy = "write TRANSPORT:HOST:PORT with an address or a name, such as \"udp:192.0.2.10:5060\", or \"udp:sip.example.com\" for a name with SRV records";
                self.error(key, format!("\"{text}\" is no reachable host"), remedy)
            }
        }
    }

    fn backups(&self, key: &str, raw: Option<Vec<String>>, named: bool) -> Checked<Vec<SocketAddr>> {
        let raw = raw.unwrap_or_default();
        if named && !raw.is_empty() {
            let remedy = "leave it out, or write the target as an address";
            return self.error(key, "the target is a name: DNS says what is tried after it", remedy);
        }
        let remedy = "write addresses with ports, such as \"192.0.2.11:5060\"";
        raw.iter().map(|text| self.parsed(key, text, remedy)).collect()
    }

    // RFC 3325 7: what identity headers say counts between those who trust each other only.
    fn identity(&self, key: &str, text: Option<&str>, trusted: bool) -> Checked<IdentityHeader> {
        match text {
            None => Ok(IdentityHeader::default()),
            Some("from") => Ok(IdentityHeader::None),
            Some("pai" | "rpid") if !trusted => self.error(
                key,
                "an identity header is not told to a trunk that is not trusted",
                "add trusted = true, or write \"from\"",
            ),
            Some("pai") => Ok(IdentityHeader::PAssertedIdentity),
            Some("rpid") => Ok(IdentityHeader::RemotePartyId),
            Some(other) => self.error(
                key,
                format!("\"{other}\" is no choice"),
                "write \"from\", \"pai\" (P-Asserted-Identity) or \"rpid\" (Remote-Party-ID)",
            ),
        }
    }

    fn number_rules(&self, at: &str, format: Option<&str>, rules: NumberRules) -> Checked<NumberRules> {
        let key = |name: &str| format!("{at}.{name}");
        let format = match format {
            None => rules.format,
            Some("e164_plus") => NumberFormat::E164Plus,
            Some("e164") => NumberFormat::E164NoPlus,
            Some("national") => NumberFormat::National,
            Some(other) => {
                let remedy = "write \"e164_plus\", \"e164\" or \"national\"";
                return self.error(key("number_format"), format!("\"{other}\" is no form"), remedy);
            }
        };
        let rules = NumberRules { format, ..rules };
        if let Err(error) = rules.check() {
            let plain = |prefix: &Option<String>| {
                let alone = NumberRules { international_prefix: prefix.clone(), ..NumberRules::default() };
                alone.check().is_ok()
            };
            let (name, remedy) = match error {
                NumberRulesError::CountryCode => ("country_code", "write digits such as \"44\""),
                NumberRulesError::Prefix if !plain(&rules.national_prefix) => {
                    ("national_prefix", "write what is dialled before a national number, such as \"0\"")
                }
                NumberRulesError::Prefix => {
                    ("international_prefix", "write what is dialled before a country code, such as \"00\"")
                }
                NumberRulesError::NationalFormat => {
                    ("number_format", "add country_code = \"44\" and international_prefix = \"00\", or yours")
                }
            };
            return self.error(key(name), error.to_string(), remedy);
        }
        if rules.national_prefix.is_some() && rules.country_code.is_none() {
            let problem = "nobody can tell which country a national number is in";
            return self.error(key("national_prefix"), problem, "add country_code = \"44\", or yours");
        }
        Ok(rules)
    }

    fn credentials(
        &self,
        at: &str,
        username: Option<String>,
        password_file: Option<PathBuf>,
        realm: Option<String>,
    ) -> Checked<Option<Credentials>> {
        let (username, file) = match (username, password_file) {
            (None, None) if realm.is_some() => {
                let remedy = "add username = \"NAME\" and password_file = \"PATH\"";
                return self.error(format!("{at}.realm"), "no username beside it", remedy);
            }
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
}
