/// One who takes part in the signalling of a call, as a ladder diagram shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The overlay user.
    Overlay,
    /// This gateway.
    Gateway,
    /// The PBX or carrier; of a call between two trunks, the one it came by.
    Trunk,
    /// The trunk by which a call from another trunk goes on.
    Onward,
}

impl Actor {
    /// Returns the name used by the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Actor::Overlay => "overlay",
            Actor::Gateway => "gateway",
            Actor::Trunk => "trunk",
            Actor::Onward => "onward",
        }
    }
}

/// The protocol in which an exchange was spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The overlay's call signalling.
    Overlay,
    /// SIP.
    Sip,
}

/// One message that passed between two actors of a call. Holds no secret and no body: a label
/// such as `INVITE`, `183 Session Progress (SDP)` or `answer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Who sent it.
    pub from: Actor,
    /// Who received it.
    pub to: Actor,
    /// In which protocol.
    pub protocol: Protocol,
    /// What it was, in at most 64 characters.
    pub label: Box<str>,
}
