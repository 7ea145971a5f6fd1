//! SIP statuses and Q.850 causes, each into the other (RFC 3398 7.2.4.1 and 8.2.6.1), and the
//! `Reason` header that carries both (RFC 3326, RFC 6432).

use std::fmt;

use call_model::Cause;

/// Most values that are read out of the `Reason` headers of one message.
const REASONS_MAX: usize = 8;

/// Returns the cause that a final response means (RFC 3398 8.2.6.1).
///
/// Where the RFC leaves a gap: 487 is a call that its caller gave up; 488 and 606 are about the
/// bearer; an unknown status takes the meaning of its class (RFC 3261 8.1.3.2).
pub fn cause_of_status(status: u16) -> Cause {
    match status {
        433 => anonymity_disallowed(),
        401 | 402 | 403 | 407 | 603 | 607 | 608 => Cause::CALL_REJECTED,
        404 | 485 | 604 => Cause::UNALLOCATED_NUMBER,
        405 => Cause::SERVICE_NOT_AVAILABLE,
        406 | 415 | 501 => Cause::SERVICE_NOT_IMPLEMENTED,
        408 | 504 => Cause::RECOVERY_ON_TIMER_EXPIRY,
        410 => Cause::NUMBER_CHANGED,
        413 | 414 | 416 | 420 | 421 | 423 | 505 | 513 => Cause::INTERWORKING,
        480 => Cause::NO_USER_RESPONDING,
        482 | 483 => Cause::EXCHANGE_ROUTING_ERROR,
        484 => Cause::INVALID_NUMBER_FORMAT,
        486 | 600 => Cause::USER_BUSY,
        487 | 200..=299 => Cause::NORMAL_CALL_CLEARING,
        488 | 606 => Cause::BEARER_CAPABILITY_NOT_IMPLEMENTED,
        502 => Cause::NETWORK_OUT_OF_ORDER,
        300..=399 => Cause::REDIRECTION_TO_NEW_DESTINATION,
        600..=699 => Cause::CALL_REJECTED,
        400..=599 => Cause::TEMPORARY_FAILURE,
        _ => Cause::PROTOCOL_ERROR,
    }
}

/// Q.850 cause 24, call rejected due to a feature at the destination: the called user takes no
/// anonymous calls. Release a call with it and its caller gets 433 Anonymity Disallowed (RFC 5079).
pub fn anonymity_disallowed() -> Cause {
    Cause::new(24).unwrap_or(Cause::CALL_REJECTED)
}

/// Returns the final response that tells a caller of a cause before the call is answered
/// (RFC 3398 7.2.4.1).
///
/// Where the RFC leaves a gap: clearing without a fault before the answer is 480. Cause 58 is 488,
/// as PBXs have it, because a caller who cannot agree on media must not be told to try the next
/// trunk with the same offer.
pub fn status_of_cause(cause: Cause) -> u16 {
    match cause.value() {
        1..=3 | 26 => 404,
        16 | 19 | 20 | 31 => 480,
        17 => 486,
        18 => 408,
        21 | 55 | 57 | 87 => 403,
        22 | 23 => 410,
        // RFC 5079: an anonymous call was rejected, in the terms of 3GPP TS 29.163.
        24 => 433,
        25 => 483,
        27 => 502,
        28 => 484,
        29 | 63 | 69 | 79 => 501,
        34 | 38 | 41 | 42 | 44 | 47 | 50 | 88 => 503,
        58 | 65 | 70 => 488,
        102 => 504,
        // The default of RFC 3398 for each class of causes.
        32..=33 | 35..=37 | 39..=40 | 43 | 45..=46 => 503,
        _ => 500,
    }
}

/// Returns the cause of a failed call: the Q.850 value of a `Reason` header where there is one
/// (RFC 6432 3), the meaning of the status otherwise.
pub fn cause_of_response<'a>(status: u16, reasons: impl IntoIterator<Item = &'a str>) -> Cause {
    q850_of(reasons).unwrap_or_else(|| cause_of_status(status))
}

/// Returns the cause that a BYE or CANCEL gives: Q.850, then SIP, then normal clearing.
pub fn cause_of_release<'a>(reasons: impl IntoIterator<Item = &'a str>) -> Cause {
    let reasons = all(reasons);
    let sip = || {
        let status = reasons.iter().find(|r| r.protocol == ReasonProtocol::Sip)?.cause?;
        (200..700).contains(&status).then(|| cause_of_status(status))
    };
    q850(&reasons).or_else(sip).unwrap_or(Cause::NORMAL_CALL_CLEARING)
}

/// Says whether a CANCEL was sent because the call was answered somewhere else (RFC 3326 3.1).
pub fn answered_elsewhere<'a>(reasons: impl IntoIterator<Item = &'a str>) -> bool {
    all(reasons).iter().any(|r| r.protocol == ReasonProtocol::Sip && r.cause == Some(200))
}

/// Returns the value of a `Reason` header for a cause: `Q.850;cause=17;text="user busy"`.
pub fn reason_value(cause: Cause) -> String {
    Reason {
        protocol: ReasonProtocol::Q850,
        cause: Some(u16::from(cause.value())),
        text: Some(cause.to_string()),
    }
    .to_string()
}

/// The protocol that a reason speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReasonProtocol {
    /// `Q.850`: the cause is 1 to 127.
    Q850,
    /// `SIP`: the cause is a status.
    Sip,
    /// Another registered protocol.
    Other(String),
}

/// One value of a `Reason` header (RFC 3326 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The protocol.
    pub protocol: ReasonProtocol,
    /// The cause in terms of the protocol.
    pub cause: Option<u16>,
    /// The text, unquoted.
    pub text: Option<String>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.protocol {
            ReasonProtocol::Q850 => "Q.850",
            ReasonProtocol::Sip => "SIP",
            ReasonProtocol::Other(name) => name,
        })?;
        if let Some(cause) = self.cause {
            write!(f, ";cause={cause}")?;
        }
        if let Some(text) = &self.text {
            write!(f, ";text={}", crate::text::quote(text))?;
        }
        Ok(())
    }
}

/// Reads the values of one `Reason` header. Values without a readable protocol are left out, at
/// most 8 are read.
pub fn parse_reasons(value: &str) -> Vec<Reason> {
    crate::text::split(value, ',').filter_map(parse_reason).take(REASONS_MAX).collect()
}

fn parse_reason(value: &str) -> Option<Reason> {
    let mut parts = crate::text::split(value, ';');
    let name = parts.next()?;
    if name.is_empty() || !name.bytes().all(crate::text::is_token) {
        return None;
    }
    let protocol = if name.eq_ignore_ascii_case("Q.850") {
        ReasonProtocol::Q850
    } else if name.eq_ignore_ascii_case("SIP") {
        ReasonProtocol::Sip
    } else {
        ReasonProtocol::Other(name.to_owned())
    };
    let mut reason = Reason { protocol, cause: None, text: None };
    for part in parts {
        let Some((key, value)) = part.split_once('=') else { continue };
        let value = value.trim();
        match key.trim() {
            key if key.eq_ignore_ascii_case("cause") => reason.cause = value.parse().ok(),
            key if key.eq_ignore_ascii_case("text") => reason.text = Some(crate::text::unquote(value)),
            _ => {}
        }
    }
    Some(reason)
}

fn all<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Reason> {
    values.into_iter().flat_map(parse_reasons).take(REASONS_MAX).collect()
}

fn q850_of<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<Cause> {
    q850(&all(values))
}

fn q850(reasons: &[Reason]) -> Option<Cause> {
    let value = reasons.iter().filter(|r| r.protocol == ReasonProtocol::Q850).find_map(|r| r.cause)?;
    Cause::new(u8::try_from(value).ok()?)
}

/// Returns the reason phrase of a status (RFC 3261 21 and later documents), or the name of its
/// class.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        199 => "Early Dialog Terminated",
        200 => "OK",
        202 => "Accepted",
        302 => "Moved Temporarily",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        433 => "Anonymity Disallowed",
        439 => "First Hop Lacks Outbound Support",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        607 => "Unwanted",
        608 => "Rejected",
        _ => match status / 100 {
            0 | 1 => "Progress",
            2 => "Success",
            3 => "Redirection",
            4 => "Client Error",
            5 => "Server Error",
            _ => "Global Failure",
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 3398 8.2.6.1, row by row.
    #[test]
    fn statuses_become_causes() {
        let table = [
            ([400, 481, 500, 503, 499, 599].as_slice(), 41),
            ([401, 402, 403, 407, 603, 607, 608, 699].as_slice(), 21),
            ([404, 485, 604].as_slice(), 1),
            ([405].as_slice(), 63),
            ([406, 415, 501].as_slice(), 79),
            ([408, 504].as_slice(), 102),
            ([410].as_slice(), 22),
            ([433].as_slice(), 24),
            ([413, 414, 416, 420, 421, 423, 505, 513].as_slice(), 127),
            ([480].as_slice(), 18),
            ([482, 483].as_slice(), 25),
            ([484].as_slice(), 28),
            ([486, 600].as_slice(), 17),
            ([487].as_slice(), 16),
            ([488, 606].as_slice(), 65),
            ([502].as_slice(), 38),
            ([302].as_slice(), 23),
            ([99].as_slice(), 111),
        ];
        for (statuses, cause) in table {
            for &status in statuses {
                assert_eq!(cause_of_status(status).value(), cause, "{status}");
            }
        }
    }

    /// RFC 3398 7.2.4.1, row by row.
    #[test]
    fn causes_become_statuses() {
        let table = [
            ([1, 2, 3, 26].as_slice(), 404),
            ([16, 19, 20, 31].as_slice(), 480),
            ([17].as_slice(), 486),
            ([18].as_slice(), 408),
            ([21, 55, 57, 87].as_slice(), 403),
            ([22, 23].as_slice(), 410),
            ([24].as_slice(), 433),
            ([27].as_slice(), 502),
            ([28].as_slice(), 484),
            ([29, 79].as_slice(), 501),
            ([34, 38, 41, 42, 47, 88, 43].as_slice(), 503),
            ([58, 65, 70].as_slice(), 488),
            ([102].as_slice(), 504),
            ([111, 127, 99].as_slice(), 500),
        ];
        for (causes, status) in table {
            for &cause in causes {
                assert_eq!(Cause::new(cause).map(status_of_cause), Some(status), "{cause}");
            }
        }
    }

    /// What survives a crossing in both directions, and what Asterisk answers for the same causes
    /// maps back to a cause that says the same to a caller.
    #[test]
    fn crossing_twice_keeps_the_meaning() {
        for status in [403, 404, 410, 480, 483, 484, 486, 488, 501, 503, 504] {
            let there = status_of_cause(cause_of_status(status));
            let expected = if status == 480 { 408 } else { status };
            assert_eq!(there, expected, "{status}");
        }
        let asterisk = [(1, 404), (17, 486), (22, 410), (27, 502), (28, 484), (34, 503), (58, 488)];
        for (cause, status) in asterisk {
            assert_eq!(Cause::new(cause).map(status_of_cause), Some(status), "{cause}");
        }
        // Causes that Asterisk answers otherwise still reach us exactly, in its Reason header.
        for (cause, status) in [(16, 603), (38, 500), (19, 480), (127, 500), (102, 603)] {
            let header = format!("Q.850;cause={cause}");
            assert_eq!(Some(cause_of_response(status, [header.as_str()])), Cause::new(cause));
        }
    }

    /// RFC 3326 2, RFC 6432 3.
    #[test]
    fn reasons_are_read() {
        let value =
            "SIP ;cause=200 ;text=\"Call completed, elsewhere; \\\"x\\\"\" , Q.850;cause=16;Text=clearing";
        let reasons = parse_reasons(value);
        assert_eq!(
            reasons,
            [
                Reason {
                    protocol: ReasonProtocol::Sip,
                    cause: Some(200),
                    text: Some("Call completed, elsewhere; \"x\"".into())
                },
                Reason { protocol: ReasonProtocol::Q850, cause: Some(16), text: Some("clearing".into()) },
            ]
        );
        assert!(answered_elsewhere([value]));
        assert_eq!(cause_of_release([value]), Cause::NORMAL_CALL_CLEARING);
        assert_eq!(cause_of_release(["SIP;cause=486"]), Cause::USER_BUSY);
        assert_eq!(cause_of_release(["preemption;cause=1", "q.850;cause=31"]), Cause::NORMAL_UNSPECIFIED);
        assert_eq!(cause_of_release([]), Cause::NORMAL_CALL_CLEARING);
        assert_eq!(cause_of_response(503, ["Q.850;cause=34;text=\"x\""]), Cause::NO_CIRCUIT_AVAILABLE);
        for nonsense in
            ["Q.850;cause=0", "Q.850;cause=128", "Q.850;cause=", "Q.850", "", ";;", "Q.850;cause=99999"]
        {
            assert_eq!(cause_of_response(486, [nonsense]), Cause::USER_BUSY, "{nonsense:?}");
        }
    }

    #[test]
    fn reasons_are_written() {
        assert_eq!(reason_value(Cause::USER_BUSY), "Q.850;cause=17;text=\"user busy\"");
        let text = Reason { protocol: ReasonProtocol::Sip, cause: None, text: Some("a\"b\r\nX: y\\".into()) };
        assert_eq!(text.to_string(), "SIP;text=\"a\\\"bX: y\\\\\"");
    }

    proptest! {
        #[test]
        fn every_cause_survives_its_header(value in 1u8..=127) {
            let cause = Cause::new(value);
            let header = cause.map(reason_value).unwrap_or_default();
            prop_assert_eq!(Some(cause_of_release([header.as_str()])), cause);
            let status = cause.map(status_of_cause).unwrap_or_default();
            prop_assert!((400..700).contains(&status));
        }

        #[test]
        fn rubbish_is_survived(value in ".{0,200}") {
            prop_assert!(parse_reasons(&value).len() <= REASONS_MAX);
            cause_of_release([value.as_str()]);
        }
    }
}
