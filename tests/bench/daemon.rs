//! The daemon under test in its network, and a round of calls through it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use call_model::{Address, CallId};
use p2p_edge::calling::SessionCommand;
use tests::lab::overlay::{Issuer, User};
use tests::lab::{Authority, Daemon, DaemonOptions, TrunkOptions, ports, until};
use tokio::runtime::Runtime;

use crate::generator::{End, Generator};
use crate::pbx::Pbx;
use crate::speech::Speech;
use crate::usage::{Round, measure, resident_megabytes};

const SUPERNODES: usize = 3;
const SOON: Duration = Duration::from_secs(20);
/// The number that the first user of the rounds has in the seeds of keys; callees of look-ups have smaller ones.
const CALLER: u8 = 250;
/// Calls that one user makes: a gateway grants each peer 256 streams, and a search takes some beside those of calls.
const CALLS_OF_ONE: usize = 150;

/// How the gateway is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Lines of its `[media]` table.
    pub(crate) media: &'static str,
    /// Codecs of its trunk.
    pub(crate) codecs: &'static str,
    /// Whether overlay users speak G.711.
    pub(crate) edge: bool,
}

impl Settings {
    /// Silence too goes through the encoder.
    pub(crate) const ALWAYS: Self =
        Self { media: "opus_complexity = 5\nsuppress_silence = false", codecs: "[\"PCMA\"]", edge: false };
}

/// Three supernodes and a gateway, each a process.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Certifies users.
    pub(crate) issuer: Issuer,
    /// Where the PBX is expected.
    pub(crate) pbx: Ipv4Addr,
    supernodes: Vec<Daemon>,
    gateway: Daemon,
    edge: bool,
}

impl Stage {
    /// Starts everything below `folder`.
    pub(crate) fn set(folder: &Path, settings: Settings) -> Result<Self> {
        let authority = Authority::init(&folder.join("authority"))?;
        let mut supernodes: Vec<Daemon> = Vec::new();
        for number in 1..=SUPERNODES {
            let name = format!("supernode{number}");
            let identity = authority.supernode(&name)?;
            let mut options = DaemonOptions::supernode(&name, &identity);
            options.bootstrap = supernodes.iter().map(Daemon::multiaddress).collect();
            supernodes.push(Daemon::start(folder, &authority, &identity, options)?);
        }
        let identity = authority.gateway("gateway", &["+1555"], &["+1555"])?;
        let pbx = ports::address();
        let mut options = DaemonOptions::gateway("gateway", &identity);
        options.bootstrap = supernodes.iter().map(Daemon::multiaddress).collect();
        options.offers = vec!["+1555".to_owned()];
        let mut trunk = TrunkOptions::new("pbx", SocketAddrV4::new(pbx, 5060));
        trunk.extra = format!("default_caller = \"+15550009000\"\ncodecs = {}\n", settings.codecs);
        options.trunks = vec![trunk];
        options.media = settings.media.to_owned();
        // One user makes all calls.
        options.extra = "[limits]\ncalls = 2000\ncalls_per_user = 2000\n".to_owned();
        let gateway = Daemon::start(folder, &authority, &identity, options)?;
        gateway.wait_until_ready()?;
        let issuer = Issuer::open(&folder.join("authority"))?;
        Ok(Self { issuer, pbx, supernodes, gateway, edge: settings.edge })
    }

    /// The gateway's SIP socket.
    pub(crate) fn gateway_sip(&self) -> SocketAddrV4 {
        self.gateway.sip()
    }

    /// Where users join.
    pub(crate) fn bootstrap(&self) -> Vec<String> {
        self.supernodes.iter().map(Daemon::multiaddress).collect()
    }

    /// The resident memory of the gateway when it has done nothing for 10 s.
    pub(crate) fn idle_megabytes(&mut self) -> Result<f64> {
        thread::sleep(Duration::from_secs(10));
        resident_megabytes(self.gateway.process().pid())
    }

    /// How late calls were served so far, in classes: upper bound in seconds, and how many took no longer.
    pub(crate) fn lateness(&self) -> Result<Vec<(f64, f64)>> {
        let (status, body) = self.gateway.get("/metrics")?;
        ensure!(status == 200, "/metrics: {status}");
        let of_line = |line: &str| {
            let (bound, count) =
                line.strip_prefix("causeway_media_lateness_seconds_bucket{le=\"")?.split_once("\"} ")?;
            Some((if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? }, count.parse().ok()?))
        };
        let classes: Vec<_> = body.lines().filter_map(of_line).collect();
        ensure!(!classes.is_empty(), "the daemon does not say how late it is");
        Ok(classes)
    }

    /// How often a media thread changed the effort of Opus for its load.
    fn changes_of_effort(&self) -> Result<u64> {
        let (status, body) = self.gateway.get("/metrics")?;
        ensure!(status == 200, "/metrics: {status}");
        let name = "causeway_media_opus_complexity_changes_total ";
        let count = body.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
        count.context("the daemon does not say how often it changed the effort of Opus")
    }

    /// The users who make so many calls.
    pub(crate) async fn callers(&self, calls: usize) -> Result<Vec<User>> {
        let mut users = Vec::new();
        for seed in (CALLER..=u8::MAX).take(calls.div_ceil(CALLS_OF_ONE)) {
            let user = User::join(&self.issuer, seed, &self.bootstrap(), ports::address()).await?;
            users.push(user.speaking_g711(self.edge));
        }
        ensure!(users.len() * CALLS_OF_ONE >= calls, "there are no users for {calls} calls");
        Ok(users)
    }

    /// Makes calls, measures while all of them talk, and hangs up.
    #[allow(clippy::too_many_arguments, reason = "everything that takes part")]
    pub(crate) fn round(
        &mut self,
        runtime: &Runtime,
        callers: &[User],
        pbx: &Pbx,
        generator: &Generator,
        speech: &Speech,
        count: usize,
        seconds: u64,
    ) -> Result<Round> {
        let calls = runtime.block_on(place(callers, generator, speech, count))?;
        until("all calls have media", SOON, || (pbx.calls() == count).then_some(()))?;
        let changes = self.changes_of_effort()?;
        let outcome = measure("causewayd", self.gateway.process(), generator, count, seconds);
        runtime.block_on(async {
            for (index, call) in calls.into_iter().enumerate() {
                callers[index % callers.len()].bye(call).await?;
            }
            anyhow::Ok(())
        })?;
        let changed = self.changes_of_effort()? - changes;
        until("all calls have ended", SOON, || (pbx.calls() == 0).then_some(()))?;
        generator.clear()?;
        ensure!(
            changed == 0,
            "with less effort, {changed} times, the round measures something else: fewer calls"
        );
        outcome
    }
}

/// Makes calls, each user in turn.
async fn place(
    callers: &[User],
    generator: &Generator,
    speech: &Speech,
    count: usize,
) -> Result<Vec<CallId>> {
    let mut calls = Vec::new();
    for (index, caller) in callers.iter().cycle().take(count).enumerate() {
        let to: Address = Address::Number(format!("+1555{:06}", 100 + index).parse()?);
        let answered = caller.call(to).await.with_context(|| format!("call {index}"))?;
        let (socket, leg) = (answered.socket, answered.leg);
        generator.add(if caller.speaks_g711 {
            End::g711(socket, leg, speech.alaw.clone(), speech.hearing.1)?
        } else {
            End::web_rtc(socket, leg, speech.opus.clone(), speech.hearing.1)?
        })?;
        calls.push(answered.call);
        // The session wants to hear that media is up.
        let mut patience = SOON.as_millis() / 10;
        while generator.flows()?.iter().any(|flow| !flow.connected) {
            ensure!(patience > 0, "call {index}: media does not come up");
            patience -= 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        caller.command(answered.call, SessionCommand::MediaUp).await?;
    }
    Ok(calls)
}
