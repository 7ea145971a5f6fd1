//! `causeway`, the admin's command line: a client of the API, and the tool of the authority.

mod authority;
mod client;
mod identity;
mod ladder;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use admin_api::Cursor;
use anyhow::{Context, Result, bail};
use call_model::{Address, CallId, TrunkName};
use clap::{Args, Parser, Subcommand};
use p2p_edge::bootstrap::Invite;
use sip_trunk::trunk::profile::Profile;

use crate::config::Config;
use crate::lifecycle::Identity;

#[derive(Debug, Parser)]
#[command(
    name = "causeway",
    version,
    about = "Runs a Causeway gateway: calls, trunks, routes, and its authority"
)]
struct Cli {
    #[command(flatten)]
    access: Access,
    #[command(subcommand)]
    command: Command,
}

/// How the daemon is reached.
#[derive(Debug, Args)]
struct Access {
    /// Where the admin API listens.
    #[arg(long, global = true, env = "CAUSEWAY_URL", default_value = "http://127.0.0.1:8085")]
    url: String,
    /// File that holds the token; CAUSEWAY_TOKEN may hold the token itself.
    #[arg(long, global = true, env = "CAUSEWAY_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Print the API's JSON instead of text for people.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List calls, live ones first.
    Calls {
        /// Live calls only.
        #[arg(long)]
        live: bool,
        /// How many, 1 to 250.
        #[arg(long, default_value_t = 25)]
        limit: usize,
        /// Go on where the page before ended, as it said.
        #[arg(long)]
        after: Option<Cursor>,
    },
    /// Look at one call, or end it.
    #[command(subcommand)]
    Call(CallCommand),
    /// List the trunks and how they are.
    Trunks,
    /// What trunks can be told.
    #[command(subcommand)]
    Trunk(TrunkCommand),
    /// Routes.
    #[command(subcommand)]
    Route(RouteCommand),
    /// Say how the daemon is. Exits 1 unless it is ready.
    Health,
    /// Check a configuration and the identity it names, without starting anything.
    Check {
        /// The configuration file.
        #[arg(long, default_value = "/etc/causeway/causeway.toml")]
        config: PathBuf,
    },
    /// Have the daemon read its configuration again. Exits 78 when the file has a fault: then the
    /// configuration in force stays.
    Reload,
    /// Tokens for the admin API.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show how the overlay does, as the daemon's node has measured it, or make an invite link.
    Overlay {
        /// What to do; without, it is shown.
        #[command(subcommand)]
        command: Option<OverlayCommand>,
    },
    /// The authority that certifies supernodes, gateways and users.
    #[command(subcommand)]
    Authority(authority::AuthorityCommand),
    /// Identity files, where their keys are: requests, renewal, backup.
    #[command(subcommand)]
    Identity(identity::IdentityCommand),
}

#[derive(Debug, Subcommand)]
enum CallCommand {
    /// Show a call and the quality of its media.
    Show { id: CallId },
    /// Explain why a call went as it did.
    Why { id: CallId },
    /// Draw the messages of a call.
    Ladder { id: CallId },
    /// End a call.
    Hangup { id: CallId },
}

#[derive(Debug, Subcommand)]
enum RouteCommand {
    /// Decide a call without placing it.
    Test {
        /// Number or handle called.
        to: Address,
        /// Handle of the overlay user who calls.
        #[arg(long)]
        from: Option<Address>,
        /// Trunk by which the call comes in, instead of a user.
        #[arg(long, conflicts_with = "from")]
        trunk: Option<TrunkName>,
    },
}

#[derive(Debug, Subcommand)]
enum TrunkCommand {
    /// Explain the interop profiles, switch by switch. No daemon is asked.
    Profiles {
        /// One of them; all where it is left out.
        name: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum OverlayCommand {
    /// Make a link by which others join: to this node, and to supernodes that have worked.
    Invite {
        /// Put the invite behind the `#` of this page of the web, for who has no program for it yet.
        #[arg(long)]
        page: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token: the token goes to standard output, its digest belongs into the configuration.
    New,
}

fn profiles(name: Option<&str>) -> Result<String> {
    let all = Profile::all();
    let chosen: Vec<String> = all
        .iter()
        .filter(|profile| name.is_none_or(|name| profile.name == name))
        .map(|profile| profile.explain().to_string())
        .collect();
    if chosen.is_empty() {
        let names: Vec<_> = all.iter().map(|profile| profile.name).collect();
        bail!("no profile has that name; there are {}", names.join(", "));
    }
    Ok(chosen.join("\n"))
}

/// What the daemon says where it does not do what was asked.
#[derive(serde::Deserialize)]
struct Problem {
    detail: String,
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("causeway: {error:#}"), true);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let client = || client::Client::new(&cli.access.url, cli.access.token_file.as_deref());
    let json = cli.access.json;
    let text = match cli.command {
        Command::Calls { live, limit, after } => {
            let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
            let list = client()?.get(&format!("/v1/calls?limit={limit}&live={live}{after}"))?;
            if json { list.pretty() } else { show::calls(&list.read()?) }
        }
        Command::Call(CallCommand::Show { id }) => {
            let call = client()?.get(&format!("/v1/calls/{id}"))?;
            if json { call.pretty() } else { show::call(&call.read()?) }
        }
        Command::Call(CallCommand::Why { id }) => {
            let why = client()?.get(&format!("/v1/calls/{id}/why"))?;
            if json { why.pretty() } else { show::why(&why.read()?) }
        }
        Command::Call(CallCommand::Ladder { id }) => {
            let ladder = client()?.get(&format!("/v1/calls/{id}/ladder"))?;
            if json { ladder.pretty() } else { ladder::draw(&ladder.read()?) }
        }
        Command::Call(CallCommand::Hangup { id }) => {
            client()?.delete(&format!("/v1/calls/{id}"))?;
            format!("call {id} is being ended\n")
        }
        Command::Trunks => {
            let trunks = client()?.get("/v1/trunks")?;
            if json { trunks.pretty() } else { show::trunks(&trunks.read()?) }
        }
        Command::Trunk(TrunkCommand::Profiles { name }) => profiles(name.as_deref())?,
        Command::Route(RouteCommand::Test { to, from, trunk }) => {
            let mut path = format!("/v1/routes/test?to={}", client::escape(&to.to_string()));
            if let Some(from) = from {
                path += &format!("&from={}", client::escape(&from.to_string()));
            }
            if let Some(trunk) = trunk {
                path += &format!("&trunk={trunk}");
            }
            let test = client()?.get(&path)?;
            if json { test.pretty() } else { show::route(&test.read()?) }
        }
        Command::Health => {
            let health = client()?.get_any_status("/v1/health")?;
            let report: admin_api::Health = health.read()?;
            let text = if json { health.pretty() } else { show::health(&report) };
            say(&text, false);
            let ready = report.state == admin_api::HealthState::Ready;
            return Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Reload => {
            let (answer, refused) = client()?.post("/v1/reload")?;
            if refused {
                let problem: Problem = answer.read()?;
                say(&if json { answer.pretty() } else { problem.detail }, true);
                return Ok(ExitCode::from(78));
            }
            if json { answer.pretty() } else { show::reloaded(&answer.read()?) }
        }
        Command::Overlay { command } => {
            let overlay = client()?.get("/v1/overlay")?;
            match command {
                Some(OverlayCommand::Invite { page }) => invite(&overlay.read()?, page.as_deref())?,
                None if json => overlay.pretty(),
                None => show::overlay(&overlay.read()?),
            }
        }
        Command::Check { config } => return Ok(check(&config)),
        Command::Token(TokenCommand::New) => new_token()?,
        Command::Authority(command) => authority::run(command)?,
        Command::Identity(command) => identity::run(command)?,
    };
    say(&text, false);
    Ok(ExitCode::SUCCESS)
}

/// Makes an invite to a node itself, by one address, and to servers that have worked.
fn invite(overlay: &admin_api::OverlayView, page: Option<&str>) -> Result<String> {
    let own = overlay.addresses.iter().take(2);
    let addresses: Vec<String> = own.chain(&overlay.known_servers).cloned().collect();
    let invite = Invite::new(None, &addresses)?;
    Ok(page.map_or_else(|| invite.to_string(), |page| invite.to_web(page)) + "\n")
}

/// Checks a configuration and the identity files it names. Exits 78 (`EX_CONFIG`) when either is
/// not good.
pub fn check(file: &std::path::Path) -> ExitCode {
    let checked = Config::load(file).map_err(anyhow::Error::from).and_then(|config| {
        Identity::load(&config)?;
        Ok(config)
    });
    match checked {
        Ok(config) => {
            let (trunks, routes, numbers) = (config.trunks.len(), config.routes.len(), config.numbers.len());
            let file = file.display();
            for warning in &config.warnings {
                say(&format!("warning: {warning}"), true);
            }
            say(&format!("{file}: good: {trunks} trunks, {routes} routes, {numbers} numbers\n"), false);
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("{error:#}"), true);
            ExitCode::from(78)
        }
    }
}

fn new_token() -> Result<String> {
    use std::fmt::Write;
    let mut random = [0; 32];
    getrandom::fill(&mut random).context("no random numbers")?;
    let token = random.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let digest = admin_api::TokenDigest::of(&token);
    let hint = format!(
        "keep the token; put this into the configuration:\n\n[[admin.tokens]]\nsha256 = \"{digest}\"\nscope = \"operate\"\n"
    );
    say(&hint, true);
    Ok(format!("{token}\n"))
}

/// Prints to standard output or standard error; a reader that has gone away is no failure.
fn say(text: &str, aside: bool) {
    use std::io::Write;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let _ = if aside { writeln!(std::io::stderr(), "{text}") } else { writeln!(std::io::stdout(), "{text}") };
}
