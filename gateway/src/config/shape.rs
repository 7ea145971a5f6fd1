//! The file as it is written, before it is checked. Every default stands here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) overlay: Overlay,
    pub(super) sip: Option<Sip>,
    #[serde(default)]
    pub(super) dns: Dns,
    #[serde(default)]
    pub(super) media: Media,
    #[serde(default)]
    pub(super) trunks: Vec<Trunk>,
    #[serde(default)]
    pub(super) routes: Vec<Route>,
    /// Number to handle.
    #[serde(default)]
    pub(super) numbers: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) policy: Policy,
    pub(super) emergency: Option<Emergency>,
    #[serde(default)]
    pub(super) limits: Limits,
    pub(super) admin: Option<Admin>,
    #[serde(default)]
    pub(super) log: Log,
    #[serde(default)]
    pub(super) telemetry: Telemetry,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Overlay {
    pub(super) role: String,
    pub(super) identity_file: PathBuf,
    pub(super) trust_file: PathBuf,
    pub(super) revocation_file: Option<PathBuf>,
    pub(super) listen: Vec<String>,
    #[serde(default)]
    pub(super) external: Vec<String>,
    #[serde(default)]
    pub(super) bootstrap: Vec<String>,
    #[serde(default)]
    pub(super) join: Join,
    #[serde(default)]
    pub(super) offer: Vec<String>,
    #[serde(default)]
    pub(super) price_per_minute_micros: u64,
    pub(super) currency: Option<String>,
    pub(super) turn: Option<Turn>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Turn {
    #[serde(default)]
    pub(super) udp: Vec<String>,
    #[serde(default)]
    pub(super) tcp: Vec<String>,
    #[serde(default)]
    pub(super) tls: Vec<String>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) name: Option<String>,
    pub(super) external: Option<Vec<String>>,
    #[serde(default)]
    pub(super) relay: Vec<String>,
    pub(super) relay_ports: Option<String>,
    #[serde(default)]
    pub(super) allow: Vec<String>,
    pub(super) allocations: Option<i64>,
    pub(super) allocations_per_user: Option<i64>,
    pub(super) kbit_s: Option<i64>,
    pub(super) lifetime_s: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Join {
    pub(super) list_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) dns: Vec<String>,
    #[serde(default)]
    pub(super) mirrors: Vec<String>,
    pub(super) mirror_ca_file: Option<PathBuf>,
    pub(super) peers_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) lan: bool,
    #[serde(default)]
    pub(super) invites: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sip {
    pub(super) listen: Vec<String>,
    pub(super) unknown_source: Option<String>,
    #[serde(default)]
    pub(super) allow: Vec<String>,
    #[serde(default)]
    pub(super) deny: Vec<String>,
    pub(super) ban_after: Option<i64>,
    pub(super) ban_s: Option<i64>,
    pub(super) user_agent: Option<String>,
    pub(super) tls: Option<Tls>,
    pub(super) websocket_origins: Option<Vec<String>>,
    pub(super) dscp: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: Option<PathBuf>,
    pub(super) require_client_certificate: Option<bool>,
    pub(super) minimum: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrunkTls {
    pub(super) ca: Option<PathBuf>,
    pub(super) server_name: Option<String>,
    pub(super) client_certificate: Option<PathBuf>,
    pub(super) client_key: Option<PathBuf>,
    pub(super) names: Option<Vec<String>>,
    pub(super) allow_common_name: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dns {
    pub(super) servers: Option<Vec<String>>,
    pub(super) timeout_ms: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Media {
    pub(super) trunk_address: Option<String>,
    pub(super) trunk_ports: Option<String>,
    pub(super) overlay_address: Option<String>,
    pub(super) overlay_ports: Option<String>,
    pub(super) threads: Option<i64>,
    pub(super) thread_niceness: Option<i64>,
    pub(super) receive: Option<String>,
    pub(super) opus_complexity: Option<i64>,
    pub(super) opus_bitrate: Option<i64>,
    pub(super) suppress_silence: Option<bool>,
    pub(super) edge_codec: Option<String>,
    pub(super) silence_timeout_s: Option<i64>,
    pub(super) port_quarantine_s: Option<i64>,
    pub(super) dscp: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trunk {
    pub(super) name: String,
    pub(super) target: Option<String>,
    pub(super) account: Option<Account>,
    pub(super) backup_targets: Option<Vec<String>>,
    pub(super) target_timeout_s: Option<i64>,
    pub(super) failover_limit_s: Option<i64>,
    pub(super) max_calls_per_second: Option<i64>,
    pub(super) overload_control: Option<bool>,
    pub(super) profile: Option<String>,
    pub(super) retry_statuses: Option<Vec<i64>>,
    pub(super) reliable_provisional: Option<String>,
    pub(super) delayed_offer: Option<bool>,
    pub(super) sources: Option<Vec<String>>,
    pub(super) username: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) realm: Option<String>,
    pub(super) codecs: Option<Vec<String>>,
    pub(super) packet_time_ms: Option<i64>,
    pub(super) options_interval_s: Option<i64>,
    pub(super) max_calls: Option<i64>,
    pub(super) ring_timeout_s: Option<i64>,
    pub(super) number_format: Option<String>,
    pub(super) country_code: Option<String>,
    pub(super) national_prefix: Option<String>,
    pub(super) international_prefix: Option<String>,
    pub(super) user_phone: Option<bool>,
    pub(super) trusted: Option<bool>,
    pub(super) identity: Option<String>,
    pub(super) tolerance: Option<String>,
    pub(super) large_requests: Option<String>,
    pub(super) listener: Option<String>,
    pub(super) contact_host: Option<String>,
    pub(super) default_caller: Option<String>,
    pub(super) register: Option<Register>,
    pub(super) auth: Option<String>,
    pub(super) tls: Option<TrunkTls>,
    pub(super) hairpin: Option<bool>,
    pub(super) portability: Option<bool>,
    pub(super) trunk_group: Option<TrunkGroup>,
    pub(super) interconnect: Option<Interconnect>,
    pub(super) srtp: Option<String>,
    pub(super) srtp_suites: Option<Vec<String>>,
    pub(super) session_expires: Option<i64>,
    pub(super) refresher: Option<String>,
    pub(super) session_change: Option<String>,
    pub(super) p_early_media: Option<bool>,
    pub(super) dtmf: Option<String>,
    pub(super) emergency: Option<String>,
    pub(super) transfers: Option<String>,
    pub(super) replaces: Option<String>,
    pub(super) redirects: Option<String>,
    pub(super) redirect_hosts: Option<Vec<String>>,
    pub(super) redirect_hops: Option<i64>,
    pub(super) quality_reports: Option<String>,
    /// Any value: the error is to name the key.
    pub(super) nat: Option<toml::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrunkGroup {
    pub(super) label: String,
    pub(super) context: String,
    pub(super) form: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Interconnect {
    pub(super) operator: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Account {
    pub(super) user: String,
    pub(super) realm: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) ha1_file: Option<PathBuf>,
    pub(super) transports: Option<Vec<String>>,
    pub(super) max_contacts: Option<i64>,
    pub(super) when_full: Option<String>,
    pub(super) min_expires_s: Option<i64>,
    pub(super) max_expires_s: Option<i64>,
    pub(super) symmetric: Option<bool>,
    pub(super) keep_alive_s: Option<i64>,
    pub(super) many_users: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Register {
    pub(super) user: String,
    pub(super) domain: Option<String>,
    pub(super) registrar: Option<String>,
    pub(super) expires_s: Option<i64>,
    pub(super) contact_user: Option<String>,
    pub(super) bulk: Option<bool>,
    pub(super) instance: Option<String>,
    pub(super) keep_alive_s: Option<i64>,
    pub(super) required: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    pub(super) prefix: String,
    pub(super) trunks: Vec<String>,
    #[serde(default)]
    pub(super) from: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Emergency {
    pub(super) numbers: Option<Vec<String>>,
    pub(super) trunk: Option<String>,
    #[serde(default)]
    pub(super) refuse: bool,
    /// Number to service.
    #[serde(default)]
    pub(super) services: BTreeMap<String, String>,
    pub(super) location: Option<Location>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Location {
    /// Elements of RFC 5139, `country` and `language`.
    pub(super) civic: Option<BTreeMap<String, String>>,
    pub(super) point: Option<Point>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Point {
    pub(super) latitude: f64,
    pub(super) longitude: f64,
    pub(super) radius_m: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    #[serde(default)]
    pub(super) allow_prefixes: Vec<String>,
    #[serde(default)]
    pub(super) deny_prefixes: Vec<String>,
    #[serde(default)]
    pub(super) find_numbers: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) calls: Option<i64>,
    pub(super) calls_per_user: Option<i64>,
    pub(super) history: Option<i64>,
    pub(super) drain_s: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    pub(super) listen: String,
    pub(super) tokens: Vec<Token>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    pub(super) sha256: String,
    pub(super) scope: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Telemetry {
    pub(super) hep: Option<Hep>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hep {
    pub(super) collector: String,
    pub(super) capture_id: Option<i64>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) messages: Option<bool>,
    pub(super) quality: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) filter: Option<String>,
    pub(super) format: Option<String>,
    pub(super) redact: Option<bool>,
}
