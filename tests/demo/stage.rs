//! What the demonstration runs on.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::audio::Audio;
use tests::lab::{
    Asterisk, AsteriskOptions, Authority, Daemon, DaemonOptions, Folder, Phone, PhoneOptions, Speech,
    TrunkOptions, ports, speech, speech_file,
};

use crate::calls::Outcome;

/// The number of alice.
pub(crate) const ALICE: &str = "+15551000";
/// The number the PBX calls from.
pub(crate) const PBX: &str = "+15550199";

/// Everything that runs.
pub(crate) struct Stage {
    pub(crate) asterisk: Asterisk,
    pub(crate) gateway: Daemon,
    pub(crate) alice: Phone,
    pub(crate) speech: Audio,
    pub(crate) speech_file: PathBuf,
    supernode: Daemon,
    folder: Folder,
}

impl Stage {
    /// Starts an authority, a supernode, the PBX, the gateway and alice.
    pub(crate) fn set() -> Result<Self> {
        println!("Setting the stage; all of it on loopback");
        let folder = Folder::new("demo")?;
        let at = folder.path().to_owned();
        let (speech_file, speech) = tests::lab::step("recorded human speech (fetched once)", || {
            Ok((speech_file(Speech::English)?, speech(Speech::English)?))
        })?;
        let authority = tests::lab::step("a root, and an enrolment authority under it", || {
            Authority::init(&at.join("authority"))
        })?;
        let supernode = tests::lab::step("a supernode, by which the others find each other", || {
            let identity = authority.supernode("supernode1")?;
            let daemon =
                Daemon::start(&at, &authority, &identity, DaemonOptions::supernode("supernode1", &identity))?;
            Ok(daemon)
        })?;
        let identity = authority.gateway("gateway1", &["+44", "+1555"], &["+1555"])?;
        let mut options = DaemonOptions::gateway("gateway1", &identity);
        let asterisk = tests::lab::step("Asterisk, the PBX (fetched once, about 130 MB)", || {
            Asterisk::start(&at.join("asterisk"), &AsteriskOptions::new(options.sip()))
        })?;
        options.bootstrap = vec![supernode.multiaddress()];
        options.offers = vec!["+44".into(), "+1555".into()];
        let mut trunk = TrunkOptions::new("pbx", asterisk.sip());
        trunk.extra = format!("default_caller = {ALICE:?}");
        options.trunks = vec![trunk];
        options.numbers = vec![(ALICE.into(), "alice".into())];
        let gateway = tests::lab::step("causewayd, the gateway", || {
            let daemon = Daemon::start(&at, &authority, &identity, options)?;
            daemon.wait_until_ready()?;
            Ok(daemon)
        })?;
        let alice =
            tests::lab::step("alice, an overlay user, reachable through the supernode's relay only", || {
                let user = authority.user("alice", &[ALICE])?;
                let mut options = PhoneOptions::new("alice", &[supernode.multiaddress()]);
                options.listens = false;
                options.address = ports::address();
                let mut alice = Phone::start(&at, &user, &options)?;
                alice.wait_until_online(Duration::from_secs(20))?;
                Ok(alice)
            })?;
        Ok(Self { asterisk, gateway, alice, speech, speech_file, supernode, folder })
    }

    /// The call that the gateway took up last.
    pub(crate) fn last_call(&self) -> Result<Value> {
        let list = self.gateway.json("/v1/calls?limit=1")?;
        list["calls"].get(0).cloned().context("the gateway knows of no call")
    }

    /// Keeps everything running until Ctrl-C.
    pub(crate) fn stay_until_interrupted(&mut self, outcome: &Outcome) -> Result<()> {
        let sip = self.gateway.sip();
        let folder = self.folder.path().display();
        println!("\n{outcome}");
        println!("\nEverything keeps running until Ctrl-C. Files and logs: {folder}");
        println!("  PBX        sip:{}   gateway sip:{sip}", self.asterisk.sip());
        println!("  supernode  {}", self.supernode.multiaddress());
        println!("Things to try in another terminal:");
        println!(
            "  export CAUSEWAY_URL=http://{}:8085 CAUSEWAY_TOKEN_FILE={folder}/gateway1/token",
            sip.ip()
        );
        for command in ["health", "trunks", "calls", "call why ID", "route test +442079460600 --from alice"] {
            println!("  causeway {command}");
        }
        println!(
            "  curl -H \"Authorization: Bearer $(cat {folder}/gateway1/token)\" http://{}:8085/metrics",
            sip.ip()
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(tokio::signal::ctrl_c())?;
        println!();
        Ok(())
    }
}
