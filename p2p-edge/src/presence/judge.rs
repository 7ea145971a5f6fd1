//! Who decides whether a signature holds.

use call_model::Handle;

use super::Refused;
use super::rules::SignedRules;
use super::state::SignedAnnouncement;
use super::text::SignedText;
use crate::identity::{HandleCertificate, PublicKey, RevocationList, Standing, Trust};

/// What presence has to know of a verified user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// The user.
    pub handle: Handle,
    /// The keys of its devices, in the order of the certificate.
    pub keys: Vec<PublicKey>,
    /// The number of the certificate.
    pub serial: u64,
    /// Whether the user may send text.
    pub may_text: bool,
    /// What may void the certificate later. `None` where a judge looks at none.
    pub standing: Option<Standing>,
}

/// Verifies what devices have signed. The one judge outside of simulations is [`Verifier`].
pub trait Judge {
    /// Verifies a handle certificate.
    ///
    /// # Errors
    /// `Certificate` for whatever is wrong with it.
    fn certificate(&self, bytes: &[u8]) -> Result<Certified, Refused>;

    /// Says whether a certificate that was verified is neither revoked nor over.
    fn is_good(&self, certified: &Certified) -> bool;

    /// Says whether a device of these keys has signed the announcement.
    fn announcement(&self, announced: &SignedAnnouncement, keys: &[PublicKey]) -> bool {
        announced.is_by(keys)
    }

    /// Says whether a device of these keys has signed the rules.
    fn rules(&self, rules: &SignedRules, keys: &[PublicKey]) -> bool {
        rules.is_by(keys)
    }

    /// Says whether a device of these keys has signed the text.
    fn text(&self, text: &SignedText, keys: &[PublicKey]) -> bool {
        text.is_by(keys)
    }
}

/// Verifies by the roots of the overlay and its revocation lists.
#[derive(Clone, Copy, Debug)]
pub struct Verifier<'a> {
    /// The roots.
    pub trust: &'a Trust,
    /// What is revoked.
    pub revocations: &'a RevocationList,
    /// The moment, in Unix seconds.
    pub unix: u64,
}

impl Judge for Verifier<'_> {
    fn certificate(&self, bytes: &[u8]) -> Result<Certified, Refused> {
        let refused = |_| Refused::Certificate;
        let certificate = HandleCertificate::decode(bytes).map_err(refused)?;
        let holder = certificate.verify(self.trust, self.revocations, self.unix).map_err(refused)?;
        Ok(Certified {
            may_text: holder.abilities.contains(crate::identity::Abilities::TEXT),
            handle: holder.handle,
            keys: holder.keys,
            serial: holder.serial,
            standing: Some(holder.standing),
        })
    }

    fn is_good(&self, certified: &Certified) -> bool {
        certified.standing.as_ref().is_some_and(|standing| standing.is_good(self.revocations, self.unix))
    }
}
