//! Who may see a user's presence and send it text, as the user has signed it.

use std::collections::BTreeSet;

use call_model::Handle;
use minicbor::{Decode, Encode};

use super::{MAX_RULED, Refused};
use crate::cbor;
use crate::identity::{Domain, NodeKey, PublicKey, Signed};

/// Longest encoded rules, in bytes: the most handles of the longest form.
pub(super) const MAX_RULES: usize = MAX_RULED * 35 + 256;

/// Who may see a user's presence and send it text. Whoever is refused sees a user who is offline,
/// and its texts vanish: it learns nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The user.
    pub handle: Handle,
    /// Counts up with every change: Unix milliseconds.
    pub sequence: u64,
    /// Whether everybody may who is not refused by name.
    pub everybody: bool,
    /// Who may: the contacts of the user.
    pub allowed: BTreeSet<Handle>,
    /// Who may not, whatever else is said.
    pub refused: BTreeSet<Handle>,
}

impl Rules {
    /// Says whether a user may see the presence of the owner of these rules. Its owner may.
    pub fn allow(&self, watcher: &Handle) -> bool {
        *watcher == self.handle
            || (!self.refused.contains(watcher) && (self.everybody || self.allowed.contains(watcher)))
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    handle: String,
    /// The place of the writer's key in the certificate.
    #[n(1)]
    device: u8,
    #[n(2)]
    sequence: u64,
    #[n(3)]
    everybody: bool,
    #[n(4)]
    allowed: Vec<String>,
    #[n(5)]
    refused: Vec<String>,
}

/// Rules and the signature over exactly their bytes. Reading them verifies nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRules {
    /// What they say.
    pub rules: Rules,
    /// The device that signed them: the place of its key in the certificate.
    pub device: u8,
    /// The bytes.
    pub signed: Signed,
}

impl SignedRules {
    /// Signs rules with the key of a device.
    ///
    /// # Errors
    /// `Oversize` for more than [`MAX_RULED`] handles.
    pub fn seal(rules: Rules, device: u8, key: &NodeKey) -> Result<Self, Refused> {
        if rules.allowed.len() + rules.refused.len() > MAX_RULED {
            return Err(Refused::Oversize);
        }
        let names = |handles: &BTreeSet<Handle>| handles.iter().map(Handle::to_string).collect();
        let body = Body {
            handle: rules.handle.to_string(),
            device,
            sequence: rules.sequence,
            everybody: rules.everybody,
            allowed: names(&rules.allowed),
            refused: names(&rules.refused),
        };
        let signed = Signed::seal(key, Domain::PresenceRules, cbor::encode(body));
        Ok(Self { rules, device, signed })
    }

    /// Reads rules.
    ///
    /// # Errors
    /// `Malformed`, or `Oversize` for more handles than there may be.
    pub(super) fn read(signed: Signed) -> Result<Self, Refused> {
        let body: Body =
            cbor::decode("the rules", &signed.body, MAX_RULES).map_err(|_| Refused::Malformed)?;
        if body.allowed.len() + body.refused.len() > MAX_RULED {
            return Err(Refused::Oversize);
        }
        let read =
            |names: &[String]| names.iter().map(|name| name.parse::<Handle>()).collect::<Result<_, _>>();
        let malformed = |_| Refused::Malformed;
        let rules = Rules {
            handle: body.handle.parse().map_err(malformed)?,
            sequence: body.sequence,
            everybody: body.everybody,
            allowed: read(&body.allowed).map_err(malformed)?,
            refused: read(&body.refused).map_err(malformed)?,
        };
        Ok(Self { rules, device: body.device, signed })
    }

    /// Says whether the device that they name has signed them. `keys` are those of the certificate.
    pub(super) fn is_by(&self, keys: &[PublicKey]) -> bool {
        keys.get(usize::from(self.device)).is_some_and(|key| self.signed.is_by(key, Domain::PresenceRules))
    }
}
