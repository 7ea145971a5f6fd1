//! The checks that keep forged, replayed and stale credentials and records out, by name.
//!
//! Outside the tests of this crate each of them always holds, and the compiler knows. There one at a
//! time can be switched off, so that every attack shows that it is this check which stops it.

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Defence {
    /// Nothing longer than its kind may be is read.
    Size,
    /// A value fills its bytes.
    NothingLeftOver,
    /// A value has one encoding.
    OneEncoding,
    /// A signature is worth something in its own domain only.
    Domain,
    /// A record is signed by a key of its credential.
    RecordSignature,
    /// A record lies in its own slot.
    RecordSlot,
    /// A record has not ended.
    RecordEnd,
    /// A record does not last longer than its kind may.
    RecordLife,
    /// A sequence is no later than the clock.
    SequenceClock,
    /// A record does not take the place of a newer one.
    SequenceOrder,
    /// Nobody takes more room than its share.
    Quota,
    /// Who may not be called has no location.
    BeCalled,
    /// A number is assigned by whoever may assign it.
    NumberPrefix,
    /// A gateway offers what it may offer.
    OfferPrefix,
    /// A gateway asks no more than it may.
    PriceCeiling,
    /// A certificate has begun and not ended.
    CertificateTime,
    /// A certificate lasts no longer than its kind may.
    CertificateLength,
    /// A certificate is not revoked.
    Revocation,
    /// An X.509 certificate is signed by its issuer.
    ChainSignature,
    /// An issuer is an authority.
    ChainAuthority,
    /// A handle certificate is signed by its authority.
    HandleSignature,
    /// An authority certifies numbers that the root lets it certify.
    AuthorityLimits,
    /// A revocation list is signed by its authority.
    ListSignature,
    /// A revocation list does not take the place of a newer one.
    ListVersion,
    /// An invite is signed by the device that sent it.
    InviteSignature,
    /// An invite has not ended.
    InviteEnd,
    /// An invite is taken once.
    InviteOnce,
    /// A caller shows an address of its own.
    CallerAddress,
    /// A request for renewal is recent.
    RenewalAge,
    /// A request for renewal is signed by the old key and the new one.
    RenewalSignature,
    /// A request to a TURN server is made by whoever knows the password.
    TurnIntegrity,
    /// A TURN credential has not ended.
    TurnExpiry,
    /// Behind a TURN credential is no revoked certificate.
    TurnRevocation,
    /// A request to a TURN server is of this hour and this client.
    TurnNonce,
    /// An allocation is changed by whoever made it.
    TurnUser,
    /// A TURN server relays to nobody behind its firewall.
    TurnPeer,
    /// Nobody sends to a client who was not permitted to.
    TurnPermission,
    /// Nobody has more allocations, permissions and channels than its share.
    TurnQuota,
    /// Nobody relays more than a call needs.
    TurnBandwidth,
    /// Strangers are answered so often and no more.
    TurnAnswers,
}

#[cfg(test)]
impl Defence {
    /// Every check, in the order of their names above.
    pub(crate) const ALL: [Defence; 40] = [
        Defence::Size,
        Defence::NothingLeftOver,
        Defence::OneEncoding,
        Defence::Domain,
        Defence::RecordSignature,
        Defence::RecordSlot,
        Defence::RecordEnd,
        Defence::RecordLife,
        Defence::SequenceClock,
        Defence::SequenceOrder,
        Defence::Quota,
        Defence::BeCalled,
        Defence::NumberPrefix,
        Defence::OfferPrefix,
        Defence::PriceCeiling,
        Defence::CertificateTime,
        Defence::CertificateLength,
        Defence::Revocation,
        Defence::ChainSignature,
        Defence::ChainAuthority,
        Defence::HandleSignature,
        Defence::AuthorityLimits,
        Defence::ListSignature,
        Defence::ListVersion,
        Defence::InviteSignature,
        Defence::InviteEnd,
        Defence::InviteOnce,
        Defence::CallerAddress,
        Defence::RenewalAge,
        Defence::RenewalSignature,
        Defence::TurnIntegrity,
        Defence::TurnExpiry,
        Defence::TurnRevocation,
        Defence::TurnNonce,
        Defence::TurnUser,
        Defence::TurnPeer,
        Defence::TurnPermission,
        Defence::TurnQuota,
        Defence::TurnBandwidth,
        Defence::TurnAnswers,
    ];
}

/// Says whether a check is to be made.
#[cfg(not(test))]
pub(crate) const fn holds(_: Defence) -> bool {
    true
}

#[cfg(test)]
pub(crate) use switch::{holds, without};

#[cfg(test)]
mod switch {
    use std::cell::Cell;

    use super::Defence;

    thread_local! {
        static OFF: Cell<Option<Defence>> = const { Cell::new(None) };
    }

    pub(crate) fn holds(defence: Defence) -> bool {
        OFF.get() != Some(defence)
    }

    /// Runs something with one check switched off, on this thread alone.
    pub(crate) fn without<T>(defence: Defence, run: impl FnOnce() -> T) -> T {
        /// Switches it on again even where `run` panics.
        struct Restore;
        impl Drop for Restore {
            fn drop(&mut self) {
                OFF.set(None);
            }
        }
        OFF.set(Some(defence));
        let _restore = Restore;
        run()
    }
}
