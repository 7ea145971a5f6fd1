//! The `[overlay.join]` table.

use p2p_edge::bootstrap::Invite;
use p2p_edge::identity::{is_mirror, is_name};
use p2p_edge::node::BootstrapWays;

use super::{Check, Checked};
use crate::config::shape;

impl Check<'_> {
    /// Checks the ways of joining.
    pub(super) fn join(&self, raw: shape::Join) -> Checked<BootstrapWays> {
        let sources = [
            (
                "dns",
                &raw.dns,
                is_name as fn(&str) -> bool,
                "write a domain name such as \"boot.example.org\"",
            ),
            ("mirrors", &raw.mirrors, is_mirror, "write an address that begins with https://"),
        ];
        for (key, list, is_good, remedy) in sources {
            if list.len() > p2p_edge::identity::MAX_BOOTSTRAP_SOURCES {
                let problem = format!("{} are more than 8", list.len());
                return self.error(format!("overlay.join.{key}"), problem, "leave some out");
            }
            if let Some((index, text)) = list.iter().enumerate().find(|(_, text)| !is_good(text)) {
                let key = format!("overlay.join.{key}[{index}]");
                return self.error(key, format!("\"{text}\" cannot be asked"), remedy);
            }
        }
        let invite = |(index, link): (usize, &String)| {
            Invite::parse(link).or_else(|error| {
                let remedy = "paste the link as it was sent, or make one with `causeway overlay invite`";
                self.error(format!("overlay.join.invites[{index}]"), error.to_string(), remedy)
            })
        };
        Ok(BootstrapWays {
            invites: raw.invites.iter().enumerate().map(invite).collect::<Checked<_>>()?,
            list_file: raw.list_file.map(|file| self.beside(file)),
            dns_names: raw.dns,
            mirrors: raw.mirrors,
            mirror_ca_file: raw.mirror_ca_file.map(|file| self.beside(file)),
            peers_file: raw.peers_file.map(|file| self.beside(file)),
            lan: raw.lan,
            // Those of `[dns]`, which the daemon knows.
            dns_servers: Vec::new(),
        })
    }
}
