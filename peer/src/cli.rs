//! The command line of `causeway-peer`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use call_model::{Address, DtmfDigit, Handle};
use clap::{Args, Parser, Subcommand};

use crate::control::{parse_digits, parse_duration};
use crate::ice::{IceServer, MediaAddress};

/// The reference overlay user: a scriptable softphone.
#[derive(Debug, Parser)]
#[command(name = "causeway-peer", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

const EXIT_CODES: &str = "\
Exit codes: 0 answered and ended normally; 10 busy; 11 no answer; 12 rejected; 13 not found or not
reachable; 14 network or overlay failure; 15 media failed; 16 ended for another reason;
64 wrong usage; 74 a file or socket failed; 78 wrong configuration or identity.";

const RUN_HELP: &str = r#"Commands, one JSON object per line. Where there is one call, `call` may be left out; its id is in every event of it.
  {"command":"call","to":"bob","play":"hello.wav","dtmf":"12#","duration_s":10,"replaces":ID}
  {"command":"answer"}  {"command":"progress","play":"wait.wav"}  {"command":"reject"}  {"command":"hangup"}
  {"command":"hold","on":true}  {"command":"dtmf","digits":"1"}  {"command":"message","text":"to the other side"}
  {"command":"transfer","to":"carol"}  {"command":"transfer","call":ID,"consult":ID}
  {"command":"play","file":"a.wav"}  {"command":"echo","on":true}  {"command":"record","file":"b.wav"}
  {"command":"policy","mode":"after:2s","reject_anonymous":true,"follow_transfers":true}
  {"command":"presence","availability":"busy","note":"until three"}    available, away, busy or offline
  {"command":"contacts","handles":["bob","carol"]}                     whom to watch
  {"command":"rules","everybody":false,"allowed":["bob"],"refused":[]} who may watch, and send text; nobody before
  {"command":"text","to":"bob","text":"hello"}                         kept for a week where bob is not there
  {"command":"status"}  {"command":"quit"}
Events: ready, listening, online, offline, incoming, calling, trying, ringing, early, answered, media_up, heard, silent,
  played, dtmf, hold, connected, message, transfer, ended, presence, text, text_sent, text_taken, presence_refused,
  numbers, certificate, status, error."#;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Make a key and print its public key and PeerId.
    Key {
        /// Where to write the key; must not exist.
        #[arg(long)]
        out: PathBuf,
        /// Also write a certificate request here.
        #[arg(long, requires = "handle")]
        request: Option<PathBuf>,
        /// The handle that the request is for.
        #[arg(long)]
        handle: Option<Handle>,
    },
    /// Put key, certificate and root together into an identity directory, after checking them.
    Import {
        /// The directory to write.
        #[arg(long)]
        identity: PathBuf,
        /// The key that `key` made.
        #[arg(long)]
        key: PathBuf,
        /// The handle certificate that the authority issued for it.
        #[arg(long)]
        certificate: PathBuf,
        /// The authority's root certificate.
        #[arg(long)]
        root: PathBuf,
    },
    /// Print whom an identity directory is for.
    Show {
        /// The directory.
        #[arg(long, env = "CAUSEWAY_PEER_IDENTITY")]
        identity: PathBuf,
    },
    /// Ask for the certificate that follows the one in use; `causeway authority renew` issues it.
    Renew {
        /// The identity, directory or file.
        #[arg(long, env = "CAUSEWAY_PEER_IDENTITY")]
        identity: PathBuf,
        /// Where the request goes.
        #[arg(long)]
        out: PathBuf,
        /// Change over to a new key, which goes here; must not exist. Use `import` afterwards.
        #[arg(long)]
        new_key: Option<PathBuf>,
    },
    /// Put a renewed certificate for the same key in the place of the old one, after checking it. A
    /// running softphone takes it over on SIGHUP.
    Update {
        /// The identity, directory or file.
        #[arg(long, env = "CAUSEWAY_PEER_IDENTITY")]
        identity: PathBuf,
        /// The certificate from the authority.
        #[arg(long)]
        certificate: PathBuf,
        /// Root certificate, instead of root.pem.
        #[arg(long)]
        root: Option<PathBuf>,
    },
    /// Put the assignment of a number into an identity directory, after checking it; `causeway authority
    /// issue number` makes it. `run`, `call` and `answer` publish it from then on, so that calls to the
    /// number lead here.
    ImportNumber {
        /// The identity, directory or file.
        #[arg(long, env = "CAUSEWAY_PEER_IDENTITY")]
        identity: PathBuf,
        /// The assignment from the authority.
        #[arg(long)]
        number: PathBuf,
        /// Root certificate, instead of root.pem.
        #[arg(long)]
        root: Option<PathBuf>,
    },
    /// Encrypt an identity, directory or file, with a passphrase.
    Backup {
        /// The identity.
        #[arg(long, env = "CAUSEWAY_PEER_IDENTITY")]
        identity: PathBuf,
        /// Where the backup goes; must not exist.
        #[arg(long)]
        out: PathBuf,
        /// File whose first line is the passphrase; it is asked for where this is left out.
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
    },
    /// Open a backup into a new identity directory.
    Restore {
        /// The backup.
        #[arg(long)]
        backup: PathBuf,
        /// The directory; must not exist, or be empty.
        #[arg(long)]
        identity: PathBuf,
        /// File whose first line is the passphrase; it is asked for where this is left out.
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
    },
    /// Run: commands as JSON lines in, events as JSON lines out; `run --help` lists them.
    #[command(after_long_help = RUN_HELP)]
    Run {
        /// The node.
        #[command(flatten)]
        node: NodeArguments,
        /// Take commands on this unix socket instead of standard input.
        #[arg(long)]
        control: Option<PathBuf>,
        /// What to do with calls that come in.
        #[command(flatten)]
        answer: AnswerArguments,
    },
    /// Call someone, and end when the call does.
    Call {
        /// Number (+442079460018) or handle (bob).
        target: Address,
        /// The node.
        #[command(flatten)]
        node: NodeArguments,
        /// What to do in the call.
        #[command(flatten)]
        script: ScriptArguments,
        /// The name to show.
        #[arg(long)]
        display_name: Option<String>,
        /// Ask not to be shown.
        #[arg(long)]
        private: bool,
        /// How long to ring.
        #[arg(long, default_value = "60s", value_parser = parse_duration)]
        ring_timeout: Duration,
    },
    /// Join the overlay and print an invite link with addresses of supernodes that work.
    Invite {
        /// How to join.
        #[command(flatten)]
        node: InviteArguments,
        /// Put the invite behind the `#` of this page of the web, for who has no program for it yet.
        #[arg(long)]
        page: Option<String>,
    },
    /// Take calls.
    Answer {
        /// The node.
        #[command(flatten)]
        node: NodeArguments,
        /// When to answer and what to do then.
        #[command(flatten)]
        answer: AnswerArguments,
        /// End after so many calls; 0: never.
        #[arg(long, default_value_t = 1)]
        calls: u32,
    },
}

/// The node of the user.
#[derive(Debug, Args)]
pub struct NodeArguments {
    /// Directory with key.pem, certificate.pem and root.pem; or the file that the authority has
    /// issued, with root.pem beside it.
    #[arg(long, env = "CAUSEWAY_PEER_IDENTITY")]
    pub identity: PathBuf,
    /// Root certificate, instead of root.pem.
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// Multiaddr of a supernode, ending in `/p2p/PEER`. Repeat for more.
    #[arg(long, env = "CAUSEWAY_PEER_BOOTSTRAP", value_delimiter = ',')]
    pub bootstrap: Vec<String>,
    /// Other ways of joining.
    #[command(flatten)]
    pub join: JoinArguments,
    /// Multiaddr to listen on. Repeat for more; none: reachable through relays only.
    #[arg(long, value_delimiter = ',')]
    pub listen: Vec<String>,
    /// Multiaddr under which others reach this node.
    #[arg(long, value_delimiter = ',')]
    pub external: Vec<String>,
    /// Where media is sent and received: `auto`, all addresses of this machine that others may reach, or the address of
    /// one interface.
    #[arg(long, env = "CAUSEWAY_PEER_MEDIA_ADDRESS", default_value = "auto")]
    pub media_address: MediaAddress,
    /// Server of STUN or TURN beside those of the supernodes: `stun:ADDRESS:PORT`,
    /// `turn:ADDRESS:PORT?transport=udp,USER,PASSWORD` (udp or tcp) or `turns:ADDRESS:PORT,USER,PASSWORD`. Repeat for more.
    #[arg(long, env = "CAUSEWAY_PEER_ICE_SERVERS", value_delimiter = ' ', hide_env_values = true)]
    pub ice_server: Vec<IceServer>,
    /// Sampling rate in Hz of recordings and the codec: 8000, 16000 or 48000.
    #[arg(long, default_value_t = 16_000)]
    pub sample_rate: u32,
    /// How long to wait for the overlay before giving up (call and answer).
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub online_timeout: Duration,
}

/// How the node joins that only makes an invite.
#[derive(Debug, Args)]
pub struct InviteArguments {
    /// Directory with key.pem, certificate.pem and root.pem; or the file that the authority has
    /// issued, with root.pem beside it.
    #[arg(long, env = "CAUSEWAY_PEER_IDENTITY")]
    pub identity: PathBuf,
    /// Root certificate, instead of root.pem.
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// Multiaddr of a supernode, ending in `/p2p/PEER`. Repeat for more.
    #[arg(long, env = "CAUSEWAY_PEER_BOOTSTRAP", value_delimiter = ',')]
    pub bootstrap: Vec<String>,
    /// Other ways of joining.
    #[command(flatten)]
    pub join: JoinArguments,
    /// How long to wait for the overlay before giving up.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub online_timeout: Duration,
}

/// Ways of joining beside addresses of supernodes. What was of use before is remembered in any case:
/// in the file `.peers` of the identity directory.
#[derive(Debug, Args)]
pub struct JoinArguments {
    /// Signed list of supernodes; without, bootstrap.pem of the identity directory, if it is there.
    #[arg(long, env = "CAUSEWAY_PEER_BOOTSTRAP_LIST")]
    pub bootstrap_list: Option<PathBuf>,
    /// Domain name whose `_dnsaddr` TXT records name supernodes. Repeat for more.
    #[arg(long, env = "CAUSEWAY_PEER_BOOTSTRAP_DNS", value_delimiter = ',')]
    pub bootstrap_dns: Vec<String>,
    /// Name server to ask, with its port, instead of those of the system. Repeat for more.
    #[arg(long, value_delimiter = ',')]
    pub dns_server: Vec<SocketAddr>,
    /// HTTPS address of the signed list. Repeat for more.
    #[arg(long, env = "CAUSEWAY_PEER_BOOTSTRAP_MIRROR", value_delimiter = ',')]
    pub bootstrap_mirror: Vec<String>,
    /// Certificates (PEM) by which mirrors are known, instead of those that browsers know.
    #[arg(long)]
    pub mirror_ca: Option<PathBuf>,
    /// File in which supernodes that were of use are remembered.
    #[arg(long)]
    pub peers_file: Option<PathBuf>,
    /// Look for supernodes in the local network.
    #[arg(long)]
    pub lan: bool,
    /// Invite link. Repeat for more.
    #[arg(long, env = "CAUSEWAY_PEER_INVITE")]
    pub invite: Vec<String>,
}

/// What to do in a call.
#[derive(Debug, Args)]
pub struct ScriptArguments {
    /// Play this wav file: mono, 16 bit, 8000, 16000 or 48000 Hz.
    #[arg(long, conflicts_with = "echo")]
    pub play: Option<PathBuf>,
    /// Record what is heard to this wav file.
    #[arg(long)]
    pub record: Option<PathBuf>,
    /// Send back what is heard.
    #[arg(long)]
    pub echo: bool,
    /// Send these digits once media is up.
    #[arg(long, value_parser = Digits::parse)]
    pub dtmf: Option<Digits>,
    /// Hang up after this time: 10s, 500ms, 1m.
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
}

/// When to answer and what to do then.
#[derive(Debug, Args)]
pub struct AnswerArguments {
    /// manual, now, after:2s, early:2s, never, busy or reject.
    #[arg(long, default_value = "manual")]
    pub mode: String,
    /// Wav file to play as early media, with early:TIME.
    #[arg(long)]
    pub early: Option<PathBuf>,
    /// Refuse callers who ask not to be shown.
    #[arg(long)]
    pub reject_anonymous: bool,
    /// Call whomever the other side of a call asks to call in its place, at the cost of this user.
    #[arg(long)]
    pub follow_transfers: bool,
    /// What to do in the call.
    #[command(flatten)]
    pub script: ScriptArguments,
}

/// DTMF digits of the command line.
#[derive(Clone, Debug)]
pub struct Digits(pub Vec<DtmfDigit>);

impl Digits {
    fn parse(text: &str) -> Result<Self, String> {
        parse_digits(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
