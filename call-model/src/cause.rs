use std::fmt;

/// Why a call ended: a cause value of ITU-T Q.850, 1 to 127. The only cause that the middle of the
/// gateway speaks; each edge maps it to its own protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cause(u8);

macro_rules! causes {
    ($($value:literal $name:ident $text:literal)*) => {
        impl Cause {
            $(#[doc = concat!("Cause ", $value, ": ", $text, ".")]
            pub const $name: Cause = Cause($value);)*

            /// Returns the name that Q.850 gives the cause, or `cause N` where it gives none.
            fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

// ITU-T Q.850 table 1.
causes! {
    1 UNALLOCATED_NUMBER "unallocated number"
    2 NO_ROUTE_TO_TRANSIT_NETWORK "no route to specified transit network"
    3 NO_ROUTE_TO_DESTINATION "no route to destination"
    16 NORMAL_CALL_CLEARING "normal call clearing"
    17 USER_BUSY "user busy"
    18 NO_USER_RESPONDING "no user responding"
    19 NO_ANSWER_FROM_USER "no answer from user"
    20 SUBSCRIBER_ABSENT "subscriber absent"
    21 CALL_REJECTED "call rejected"
    22 NUMBER_CHANGED "number changed"
    23 REDIRECTION_TO_NEW_DESTINATION "redirection to new destination"
    24 ANONYMOUS_CALL_REJECTED "call rejected due to feature at the destination"
    25 EXCHANGE_ROUTING_ERROR "exchange routing error"
    26 NON_SELECTED_USER_CLEARING "non-selected user clearing"
    27 DESTINATION_OUT_OF_ORDER "destination out of order"
    28 INVALID_NUMBER_FORMAT "invalid number format"
    29 FACILITY_REJECTED "facility rejected"
    31 NORMAL_UNSPECIFIED "normal, unspecified"
    34 NO_CIRCUIT_AVAILABLE "no circuit/channel available"
    38 NETWORK_OUT_OF_ORDER "network out of order"
    41 TEMPORARY_FAILURE "temporary failure"
    42 SWITCHING_EQUIPMENT_CONGESTION "switching equipment congestion"
    44 REQUESTED_CIRCUIT_NOT_AVAILABLE "requested circuit/channel not available"
    47 RESOURCE_UNAVAILABLE "resource unavailable, unspecified"
    50 FACILITY_NOT_SUBSCRIBED "requested facility not subscribed"
    55 INCOMING_CALLS_BARRED_WITHIN_CUG "incoming calls barred within CUG"
    57 BEARER_CAPABILITY_NOT_AUTHORIZED "bearer capability not authorized"
    58 BEARER_CAPABILITY_NOT_AVAILABLE "bearer capability not presently available"
    63 SERVICE_NOT_AVAILABLE "service or option not available, unspecified"
    65 BEARER_CAPABILITY_NOT_IMPLEMENTED "bearer capability not implemented"
    69 FACILITY_NOT_IMPLEMENTED "requested facility not implemented"
    79 SERVICE_NOT_IMPLEMENTED "service or option not implemented, unspecified"
    87 USER_NOT_MEMBER_OF_CUG "user not member of CUG"
    88 INCOMPATIBLE_DESTINATION "incompatible destination"
    95 INVALID_MESSAGE "invalid message, unspecified"
    102 RECOVERY_ON_TIMER_EXPIRY "recovery on timer expiry"
    111 PROTOCOL_ERROR "protocol error, unspecified"
    127 INTERWORKING "interworking, unspecified"
}

impl Cause {
    /// Builds a cause from its value. Returns `None` outside 1 to 127.
    pub fn new(value: u8) -> Option<Self> {
        (1..=127).contains(&value).then_some(Self(value))
    }

    /// Returns the value, 1 to 127.
    pub fn value(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "cause {}", self.0),
        }
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cause({} {self})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_q850() {
        assert_eq!(Cause::new(17), Some(Cause::USER_BUSY));
        assert_eq!(Cause::USER_BUSY.to_string(), "user busy");
        assert_eq!(Cause::new(99).map(|c| c.to_string()), Some("cause 99".into()));
        assert_eq!(Cause::new(0), None);
        assert_eq!(Cause::new(128), None);
    }
}
