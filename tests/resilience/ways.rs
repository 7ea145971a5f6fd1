//! Every way of joining: as it works, and as it is blocked.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use p2p_edge::bootstrap::Invite;
use p2p_edge::identity::{BootstrapList, Validity};
use p2p_edge::testing::{Pki, key};
use serde_json::{Value, json};

use crate::hosts::{Mirror, name_server, silent};
use crate::seat::Seat;

/// The six ways.
pub(crate) const WAYS: [&str; 6] = ["list", "dns", "mirror", "disk", "lan", "invite"];

/// The files, hosts and links by which nodes join.
pub(crate) struct Ways {
    folder: PathBuf,
    list: [PathBuf; 2],
    dns: [SocketAddr; 2],
    mirror: [String; 2],
    mirror_ca: PathBuf,
    disk: [String; 2],
    invite: [String; 2],
}

/// A node that is not there: what is sent to it is lost.
fn dead() -> String {
    format!("/ip4/10.99.0.1/tcp/4001/p2p/{}", key(250).peer_id())
}

impl Ways {
    /// Makes all ways, to these nodes.
    pub(crate) fn new(folder: &Path, unix: u64, nodes: &[String]) -> Result<Self> {
        let pki = Pki::new(unix)?;
        let dead = [dead()];
        let list = |name: &str, nodes: &[String]| -> Result<(PathBuf, String)> {
            let list = BootstrapList::new(unix, Validity::days_from(unix - 60, 30), nodes, &[], &[])?;
            let (file, text) = (folder.join(name), pki.root.sign_bootstrap(list)?.to_pem());
            fs::write(&file, &text)?;
            Ok((file, text))
        };
        let (good_list, text) = list("list.pem", nodes)?;
        let (dead_list, _) = list("dead-list.pem", &dead)?;
        let mirror = Mirror::start(folder, text)?;
        let (quiet_dns, quiet_mirror) = silent()?;
        let disk = |nodes: &[String]| {
            let line = |node: &String| {
                let (host, peer) = node.split_once("/p2p/").unwrap_or((node, ""));
                format!("{peer}\t{unix}\t1\t0\t{host}\n")
            };
            "causeway-peers 1\n".to_owned() + &nodes.iter().map(line).collect::<String>()
        };
        Ok(Self {
            folder: folder.to_owned(),
            list: [good_list, dead_list],
            dns: [name_server(nodes.iter().map(|node| format!("dnsaddr={node}")).collect())?, quiet_dns],
            mirror: [mirror.url, quiet_mirror],
            mirror_ca: mirror.ca,
            disk: [disk(nodes), disk(&dead)],
            invite: [Invite::new(None, nodes)?.to_string(), Invite::new(None, &dead)?.to_string()],
        })
    }

    /// The command by which a fresh node joins, with every way blocked but these.
    pub(crate) fn join(&self, mut seat: Seat, open: &[&str]) -> Result<Value> {
        let at = |way: &str| usize::from(!open.contains(&way));
        let peers = self.folder.join(format!("peers-{}", seat.number));
        fs::write(&peers, &self.disk[at("disk")])?;
        seat.peers_file = Some(peers);
        Ok(json!({
            "do": "join",
            "seat": seat.to_json(),
            "list_file": self.list[at("list")],
            "dns": ["boot.example.org"],
            "dns_servers": [self.dns[at("dns")].to_string()],
            "mirrors": [self.mirror[at("mirror")]],
            "mirror_ca_file": self.mirror_ca,
            "lan": at("lan") == 0,
            "invites": [self.invite[at("invite")]],
        }))
    }
}
