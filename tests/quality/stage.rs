//! Who takes part: a gateway as a process of its own, an overlay user and telephones in this one.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use call_model::{Address, CallId};
use p2p_edge::calling::SessionCommand;
use serde_json::Value;
use tests::lab::overlay::{Issuer, User};
use tests::lab::peer::{Call, Describe, Peer, rtp_of};
use tests::lab::{Daemon, Plan, TrunkOptions, ports, until};
use tokio::runtime::Runtime;

use crate::ends::Ends;
use crate::impairment::{Impairment, Pattern, Random, Transit};
use crate::passage::Passage;
use crate::script::Script;

const SOON: Duration = Duration::from_secs(20);
/// Lines of the gateway's log that tell why something went wrong.
const LAST_WORDS: usize = 40;
/// Where telephones have their media; each has an address of its own.
const RTP_PORT: u16 = 30_000;
/// The number of the user among those that the laboratory certifies.
const CALLER: u8 = 7;

/// Everything that stays from call to call.
pub(crate) struct Stage {
    runtime: Runtime,
    user: User,
    carrier: Peer,
    gateway: Daemon,
    /// Keeps the files as long as there is somebody who uses them.
    _plan: tests::lab::Folder,
}

/// A call that is up.
pub(crate) struct Open {
    call: CallId,
    dialog: Call,
    pub(crate) ends: Ends,
    pub(crate) passage: Passage,
    /// Nobody reads it, but the gateway may send RTCP there.
    _rtcp: UdpSocket,
}

impl Stage {
    /// Starts the gateway with more lines in its `[media]` table, and the user.
    pub(crate) fn set(media: &str) -> Result<Self> {
        let mut plan = Plan::new("quality")?;
        let carrier = SocketAddrV4::new(ports::address(), 5060);
        let mut trunk = TrunkOptions::new("carrier", carrier);
        trunk.options_interval_s = 0;
        trunk.extra = "default_caller = \"+15550009000\"\ncodecs = [\"PCMA\"]\n".to_owned();
        plan.options.trunks = vec![trunk];
        plan.options.media = media.to_owned();
        plan.options.extra = "[limits]\ncalls = 200\ncalls_per_user = 200\n".to_owned();
        let gateway = Daemon::start(plan.folder.path(), &plan.authority, &plan.credential, plan.options)?;
        gateway.wait_until_ready()?;
        let carrier = Peer::udp("carrier", carrier, gateway.sip())?;
        let issuer = Issuer::open(&plan.folder.path().join("authority"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let bootstrap = [gateway.multiaddress()];
        let user = runtime.block_on(User::join(&issuer, CALLER, &bootstrap, ports::address()))?;
        Ok(Self { runtime, user, carrier, gateway, _plan: plan.folder })
    }

    /// Calls a telephone through a network of its own, and waits until media is up.
    pub(crate) fn call(
        &mut self,
        index: usize,
        pattern: Pattern,
        transit: Transit,
        script: Arc<Script>,
        seeds: &mut Random,
    ) -> Result<Open> {
        let (socket, mut leg) = self.user.open_media()?;
        let impairments = [seeds.next(), seeds.next()].map(|seed| Impairment::new(pattern, transit, seed));
        let [towards_gateway, towards_user] = impairments;
        let passage = Passage::open(socket.local_addr()?, towards_gateway, towards_user)?;
        let offer = passage.offer(&leg.create_offer()?)?;
        let (telephone, rtcp, local) = open_telephone(ports::address())?;
        let to: Address = Address::Number(format!("+1555{:06}", 100 + index).parse()?);
        let (carrier, runtime, user) = (&mut self.carrier, &self.runtime, &self.user);
        let (answered, picked_up) = thread::scope(|scope| {
            let far = scope.spawn(|| pick_up(carrier, local));
            (runtime.block_on(user.invite(to, offer)), far.join())
        });
        let Ok(picked_up) = picked_up else { bail!("the telephone panicked") };
        let (dialog, remote) = picked_up?;
        let (call, answer) = answered?;
        leg.accept_answer(&passage.answer(&answer)?)?;
        let ends = Ends::start(socket, leg, telephone, remote, script, seeds.next())?;
        until("media is up", SOON, || ends.is_connected().then_some(()))?;
        // The session wants to hear that media is up.
        self.runtime.block_on(self.user.command(call, SessionCommand::MediaUp))?;
        Ok(Open { call, dialog, ends, passage, _rtcp: rtcp })
    }

    /// What the gateway knows of a call.
    pub(crate) fn record(&self, call: CallId) -> Result<Value> {
        self.gateway.json(&format!("/v1/calls/{call}"))
    }

    /// Prints what the gateway logged last.
    pub(crate) fn tell_last_words(&self) {
        let log = self.gateway.log();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("The gateway logged last:\n{}", lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n"));
    }

    /// Hangs up.
    pub(crate) fn end(&mut self, call: CallId, dialog: &Call) -> Result<()> {
        self.runtime.block_on(self.user.bye(call))?;
        dialog.is_ended(&mut self.carrier)?;
        Ok(())
    }
}

impl Open {
    /// The call, its dialog at the telephone, its ends and its network.
    pub(crate) fn into_parts(self) -> (CallId, Call, Ends, Passage) {
        (self.call, self.dialog, self.ends, self.passage)
    }
}

/// The sockets of RTP and RTCP of a telephone (RFC 3550 11).
fn open_telephone(address: Ipv4Addr) -> Result<(UdpSocket, UdpSocket, SocketAddrV4)> {
    let local = SocketAddrV4::new(address, RTP_PORT);
    let rtcp = UdpSocket::bind((address, RTP_PORT + 1))?;
    Ok((UdpSocket::bind(local)?, rtcp, local))
}

/// Answers the next call in A-law. Returns where the gateway awaits RTP.
fn pick_up(carrier: &mut Peer, local: SocketAddrV4) -> Result<(Call, SocketAddrV4)> {
    let dialog = Call::comes_in(carrier)?;
    let remote = rtp_of(&dialog.invite.media()?).context("the gateway's description")?;
    let description = Describe::at(local).events(None);
    dialog.pick_up(carrier, "", &description.to_string())?;
    Ok((dialog, remote))
}
