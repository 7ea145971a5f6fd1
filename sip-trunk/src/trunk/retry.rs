//! After which answers a call may be tried on another trunk.

/// What says "elsewhere, perhaps": no answer in time, overload, a broken path (RFC 3263 4.3,
/// RFC 3261 21.5.4).
pub const DEFAULT_RETRY: &[u16] = &[408, 503, 504];

/// What the called user or the numbering plan said. Asking again on another trunk would ring a
/// second time whoever declined, or look once more for a number that does not exist: 607 and 608
/// say so themselves (RFC 8197, RFC 8688).
const FINAL: [u16; 11] = [404, 410, 433, 484, 486, 487, 600, 603, 604, 607, 608];

/// Says whether another trunk may be tried after a call ended with `status`; `None`: nobody
/// answered. `chosen` are the statuses the trunk's owner wants to try again after. They never
/// reach those that are the last word.
pub fn may_try_elsewhere(status: Option<u16>, chosen: &[u16]) -> bool {
    status.is_none_or(|status| chosen.contains(&status) && !is_last_word(status))
}

/// Says whether a final status is the last word on a call, whatever a configuration says.
pub fn is_last_word(status: u16) -> bool {
    FINAL.contains(&status) || status < 300
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8197, RFC 8688, RFC 3261 21.6.
    #[test]
    fn the_word_of_the_callee_is_the_last() {
        for status in [486, 600, 603, 604, 607, 608, 404, 484, 433, 200] {
            assert!(!may_try_elsewhere(Some(status), &[status]), "{status}");
        }
        for status in [408, 503, 504] {
            assert!(may_try_elsewhere(Some(status), DEFAULT_RETRY), "{status}");
        }
        assert!(!may_try_elsewhere(Some(480), DEFAULT_RETRY));
        assert!(may_try_elsewhere(Some(480), &[480]), "480 is a matter of policy");
        assert!(may_try_elsewhere(None, &[]));
    }
}
