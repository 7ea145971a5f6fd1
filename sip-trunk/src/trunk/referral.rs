//! What a trunk may do with calls that are sent elsewhere: transfer, replacement, redirection.

/// What becomes of the transfers a trunk asks for by REFER (RFC 3515).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transfers {
    /// Each is refused with 603, and the call goes on.
    #[default]
    Refuse,
    /// Each is put before the user of the endpoint, who decides. Allow says REFER.
    Accept,
}

impl Transfers {
    /// Returns the name used in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Transfers::Refuse => "refuse",
            Transfers::Accept => "accept",
        }
    }
}

/// What is done with Replaces (RFC 3891).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replacing {
    /// An INVITE with Replaces is taken as one without (RFC 3261 8.2.2), or refused with 420 if it
    /// requires the extension; none is sent.
    #[default]
    Off,
    /// The trunk may take its calls over; it is sent no INVITE with Replaces.
    Accept,
    /// It is sent INVITEs with Replaces; what it sends is treated as with `Off`.
    Send,
    /// Both.
    Both,
}

impl Replacing {
    /// Returns the name used in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Replacing::Off => "off",
            Replacing::Accept => "accept",
            Replacing::Send => "send",
            Replacing::Both => "both",
        }
    }

    /// Says whether the trunk may take calls over.
    pub(crate) fn accepts(self) -> bool {
        matches!(self, Replacing::Accept | Replacing::Both)
    }

    /// Says whether the trunk may be sent Replaces.
    pub(crate) fn sends(self) -> bool {
        matches!(self, Replacing::Send | Replacing::Both)
    }
}

/// Whose contacts in a 3xx are looked at (RFC 3261 8.1.3.4). A `tel:` URI names no host; it is
/// looked at unless nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirectPolicy {
    /// Nobody's: a 3xx ends the call.
    #[default]
    Never,
    /// Those at the trunk itself: its host, its target or its sources.
    SameHost,
    /// Those at the trunk itself and at the hosts listed.
    Listed,
}

impl RedirectPolicy {
    /// Returns the name used in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            RedirectPolicy::Never => "never",
            RedirectPolicy::SameHost => "same-host",
            RedirectPolicy::Listed => "listed",
        }
    }
}

/// Which redirections of a trunk are put before the user of the endpoint. Whatever is followed goes by
/// way of the trunk's target: a contact is a request URI, not a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirects {
    /// Whose contacts count.
    pub policy: RedirectPolicy,
    /// The hosts of [`RedirectPolicy::Listed`]: names or addresses, without port.
    pub hosts: Vec<String>,
    /// How many contacts one call may follow, 1 to 10.
    pub hops: u8,
}

impl Default for Redirects {
    /// Never; 3 hops where a policy is set.
    fn default() -> Self {
        Self { policy: RedirectPolicy::Never, hosts: Vec::new(), hops: 3 }
    }
}
