//! What goes into and comes out of an [`Endpoint`](super::Endpoint).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use call_model::{
    Address, CallId, Caller, Cause, DtmfDigit, Exchange, ImageAttributes, ImageMedia, LegMedia, TrunkName,
};

use crate::quality::{QualityReport, SessionReport};
use crate::referral::{RedirectContact, TransferOutcome, TransferRequest, TransferTarget};
use crate::trunk::TargetState;
use crate::trunk::certificate::PeerIdentity;
use crate::trunk::details::CallDetails;
use crate::trunk::resolve::Service;

/// A transport of SIP (RFC 3261 18, RFC 7118).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// UDP: unreliable, one message per datagram.
    Udp,
    /// TCP: reliable, a stream of messages.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// WebSocket: one message per WebSocket message (RFC 7118 4). Peers open these, never we.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Transport {
    /// Returns the transport of a service.
    pub(crate) fn of(service: Service) -> Self {
        match service {
            Service::Udp => Transport::Udp,
            Service::Tcp => Transport::Tcp,
            Service::Tls => Transport::Tls,
        }
    }

    /// Returns the name as a Via spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
            Transport::Ws => "WS",
            Transport::Wss => "WSS",
        }
    }

    /// Returns the value of the `transport` parameter of a URI. A secure WebSocket is `ws` too
    /// (RFC 7118 5.2.4).
    pub fn parameter(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Ws | Transport::Wss => "ws",
        }
    }

    /// Returns the port where none is written (RFC 3261 19.1.2, RFC 7118 8).
    pub fn default_port(self) -> u16 {
        match self {
            Transport::Udp | Transport::Tcp => 5060,
            Transport::Tls => 5061,
            Transport::Ws => 80,
            Transport::Wss => 443,
        }
    }

    /// Says whether messages go over a connection, which loses none while it lives.
    pub fn is_reliable(self) -> bool {
        self != Transport::Udp
    }

    /// Says whether TLS protects it: `sips` URIs may be reached by it (RFC 5630 3.1.1).
    pub fn is_secure(self) -> bool {
        matches!(self, Transport::Tls | Transport::Wss)
    }

    /// Says whether it is a WebSocket.
    pub fn is_web(self) -> bool {
        matches!(self, Transport::Ws | Transport::Wss)
    }
}

/// Names one connection: TCP, TLS or WebSocket. The driver chooses the ids of accepted connections with the top bit
/// set; the endpoint chooses those of the connections it asks for, with the top bit clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// The bit that tells accepted connections from those asked for.
    pub const INBOUND: u64 = 1 << 63;

    /// Says whether the far side opened it.
    pub(crate) fn is_inbound(self) -> bool {
        self.0 & Self::INBOUND != 0
    }
}

/// What happened to a connection.
#[derive(Clone, Copy, Debug)]
pub enum StreamEvent<'a> {
    /// It is open: accepted (`inbound`) or as asked for by [`Transmit::Connect`].
    Opened {
        /// The address on this side.
        local: SocketAddr,
        /// The address on the far side.
        remote: SocketAddr,
        /// The far side opened it.
        inbound: bool,
        /// TCP, TLS or WebSocket, handshakes done.
        transport: Transport,
        /// Whom the peer's certificate is for, if it showed one and its chain was verified.
        identity: Option<&'a PeerIdentity>,
    },
    /// Bytes came; on a WebSocket, one message.
    Data(&'a [u8]),
    /// It is gone, whoever closed it.
    Closed,
    /// What [`Transmit::Connect`] asked for failed.
    ConnectFailed,
}

/// What the driver must do on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// Send a datagram from a listener's socket.
    Datagram {
        /// The listener's address.
        local: SocketAddr,
        /// The destination.
        remote: SocketAddr,
        /// One message.
        bytes: Bytes,
    },
    /// Open a connection and report [`StreamEvent::Opened`] or [`StreamEvent::ConnectFailed`].
    Connect {
        /// The id to report under.
        connection: ConnectionId,
        /// TCP or TLS.
        transport: Transport,
        /// The trunk the destination belongs to, which says whose certificate is expected there.
        trunk: Option<TrunkName>,
        /// The destination.
        remote: SocketAddr,
    },
    /// Write to an open connection.
    Stream {
        /// Which.
        connection: ConnectionId,
        /// What to write.
        bytes: Bytes,
    },
    /// Close a connection after what was written before. No [`StreamEvent::Closed`] need follow.
    Close {
        /// Which.
        connection: ConnectionId,
    },
}

/// Where the gateway's own media of a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalMedia {
    /// The RTP address; RTCP is on the next port.
    pub rtp: SocketAddr,
}

/// What the user of the endpoint asks for.
#[derive(Clone, Debug)]
pub enum Command {
    /// Places a call on a trunk: INVITE with an SDP offer.
    Invite {
        /// The id under which events come; not in use.
        call: CallId,
        /// The trunk.
        trunk: TrunkName,
        /// Whom to call.
        called: Address,
        /// Who calls.
        caller: Caller,
        /// Our media.
        media: LocalMedia,
    },
    /// Places a call as [`Command::Invite`] does, with what else is known of it. A trunk is told of
    /// the details it may hear by its configuration.
    InviteWith {
        /// The id under which events come; not in use.
        call: CallId,
        /// The trunk.
        trunk: TrunkName,
        /// Whom to call.
        called: Address,
        /// Who calls.
        caller: Caller,
        /// Our media.
        media: LocalMedia,
        /// Diversions, portability, priority, charging. Most of a call that came from another trunk
        /// is in [`Endpoint::call_details`](crate::Endpoint::call_details).
        details: Arc<CallDetails>,
    },
    /// Tells the caller that the called user is alerted: 180.
    Ringing {
        /// An incoming call.
        call: CallId,
    },
    /// Opens early media: 183 with the SDP answer. For a call without an offer, 183 without SDP:
    /// the offer must be in a reliable response (RFC 3261 13.2.1).
    Progress {
        /// An incoming call.
        call: CallId,
        /// Our media.
        media: LocalMedia,
    },
    /// Answers: 200 with the SDP answer (the one of the 183, if any) or, for a call without an
    /// offer, with our offer.
    Answer {
        /// An incoming call.
        call: CallId,
        /// Our media.
        media: LocalMedia,
    },
    /// Refuses a call with a status that says it better than its cause does: 400 to 699. A call that
    /// cannot be refused any more is released.
    Reject {
        /// An incoming call.
        call: CallId,
        /// The status; any other becomes the one of the cause.
        status: u16,
        /// Why; goes out in a Reason header (RFC 3326).
        cause: Cause,
    },
    /// Asks the far side of an answered call for a sign of life: OPTIONS within the dialog
    /// (RFC 3261 11, 12.2). [`Event::Alive`] follows, or the end of the call by BYE where the far
    /// side does not know it, or does not answer at all.
    Probe {
        /// An answered call.
        call: CallId,
    },
    /// Ends the call: CANCEL, final error response or BYE, whichever its state asks for.
    Release {
        /// Any call.
        call: CallId,
        /// Why; goes out in a Reason header (RFC 3326).
        cause: Cause,
    },
    /// Holds or resumes: re-INVITE, or UPDATE where the trunk is configured so, with `sendonly` or
    /// `sendrecv`. Waits for one under way, and for the answer; where offer and answer have passed
    /// reliably and the far side takes UPDATE, it does not wait for the answer (RFC 3311 5.1). [`Event::Media`] follows, with the old direction if the far side refuses.
    Hold {
        /// Any call.
        call: CallId,
        /// Hold, or resume.
        on: bool,
    },
    /// Sends a digit by INFO, after those before it. For trunks that take digits so
    /// ([`TrunkConfig::info_digits`](crate::TrunkConfig)) and answered calls; else
    /// [`CommandError::WrongState`], as over 32 digits that wait.
    Dtmf {
        /// An answered call.
        call: CallId,
        /// The digit.
        digit: DtmfDigit,
        /// How long, in milliseconds.
        duration_ms: u16,
    },
    /// Says whether an offer of T.38 may be put to the other side of the call ([`Event::ImageOffered`]). Without, it is
    /// refused at once: 488, or the image line alone where audio is beside it.
    TakeImages {
        /// Any call.
        call: CallId,
        /// May be, or may not (as every call begins).
        on: bool,
    },
    /// Offers T.38 in place of audio by re-INVITE (ITU-T T.38 annex D), with UDPTL where RTP was, or audio again.
    /// [`Event::Image`] or [`Event::Media`] follows. A trunk that requires SRTP is offered none. While T.38 is carried,
    /// [`Command::Hold`] waits for audio.
    OfferImage {
        /// An answered call.
        call: CallId,
        /// What the other side says of its facsimile; `None`: audio.
        attributes: Option<Box<ImageAttributes>>,
    },
    /// Answers the offer of T.38 that [`Event::ImageOffered`] told of. [`Event::Image`] follows where it is accepted;
    /// with no such offer open, [`CommandError::WrongState`].
    AnswerImage {
        /// The call whose far side offers.
        call: CallId,
        /// What the other side says of its facsimile; `None` refuses: 488, or the image line alone where audio is
        /// beside it.
        attributes: Option<Box<ImageAttributes>>,
    },
    /// Takes the transfer that [`Event::TransferRequested`] asked for: 202, and a first NOTIFY
    /// (RFC 3515 2.4.4). Then the target is called, and [`Command::ReportTransfer`] tells of it.
    AcceptTransfer {
        /// The call whose far side asked.
        call: CallId,
    },
    /// Refuses the transfer that [`Event::TransferRequested`] asked for. The call goes on.
    RefuseTransfer {
        /// The call whose far side asked.
        call: CallId,
        /// 400 to 699: 603 or 403 for a matter of policy; anything else becomes 603.
        status: u16,
    },
    /// Tells the far side what the target of its transfer answers: NOTIFY with `message/sipfrag`
    /// (RFC 3515 2.4.5). Possible after the call has ended too: the far side may leave early
    /// (RFC 5589 6.1).
    ReportTransfer {
        /// The call whose far side asked.
        call: CallId,
        /// 100 to 699. From 200 on it is the last report.
        status: u16,
    },
    /// Asks the far side of an answered call to call somebody else: REFER (RFC 3515 2.4.1).
    /// [`Event::TransferEnded`] follows. The call goes on until one side ends it.
    Transfer {
        /// An answered call.
        call: CallId,
        /// Whom it is to call.
        to: TransferTarget,
        /// Who asks, for Referred-By (RFC 3892); `None`: our side of the call.
        referred_by: Option<Address>,
    },
    /// Calls one of the contacts of [`Event::Redirected`], with the diversion added
    /// (RFC 3261 8.1.3.4, RFC 7544). Not to follow is [`Command::Release`].
    FollowRedirect {
        /// The redirected call.
        call: CallId,
        /// Which contact, from 0.
        contact: usize,
    },
    /// Tells the collector of the call's trunk how good the call is: PUBLISH with `Event: vq-rtcpxr`
    /// (RFC 6035). Possible while the call lives, and once within a minute after it has ended. Numbers and
    /// handles of callers who are private are not told. What becomes of it is counted in
    /// [`Counters::quality_reports`](crate::Counters); [`Event::QualityReport`] follows where
    /// [`EndpointConfig::tell_quality`](crate::EndpointConfig) is set.
    ReportQuality {
        /// A call whose media was agreed on.
        call: CallId,
        /// What was measured.
        report: Box<QualityReport>,
    },
    /// Refuses (or accepts again) new work: INVITE and OPTIONS get 503. Calls go on. A trunk that
    /// registers ends its registration after its last call.
    Drain {
        /// Refuse, or accept again.
        on: bool,
    },
}

/// Why a command could not be carried out. Nothing has changed and no event follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No call with this id, or it has ended.
    #[error("unknown call")]
    UnknownCall,
    /// A call with this id exists.
    #[error("call id in use")]
    DuplicateCall,
    /// No trunk with this name.
    #[error("unknown trunk")]
    UnknownTrunk,
    /// The trunk or the endpoint carries as many calls as it may.
    #[error("no free channel")]
    NoChannel,
    /// The trunk may carry no more new calls this second.
    #[error("call rate of the trunk exceeded")]
    TooFast,
    /// Every target asked to be left alone for now: by Retry-After (RFC 3261 21.5.4), or by overload
    /// control (RFC 7339).
    #[error("the far side is overloaded")]
    Overloaded,
    /// The endpoint refuses new calls.
    #[error("draining")]
    Draining,
    /// The call is not in a state for this.
    #[error("not possible in this state of the call")]
    WrongState,
    /// The trunk wants no quality reports: its configuration names no collector.
    #[error("the trunk has no collector of quality reports")]
    NoCollector,
    /// The trunk is an account, and nobody is registered for it.
    #[error("nobody is registered")]
    NotRegistered,
    /// No listener can reach the trunk, no offer could be made for it, or it is not registered and
    /// insists on that.
    #[error("the trunk cannot be used as configured")]
    Unusable,
}

/// Who or what ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndedBy {
    /// The far side: BYE, CANCEL or a final error response.
    Far,
    /// [`Command::Release`].
    Local,
    /// Nobody answered in time.
    Timeout,
    /// The transport could not deliver.
    Transport,
}

impl EndedBy {
    /// Returns the name used in records.
    pub fn as_str(self) -> &'static str {
        match self {
            EndedBy::Far => "far",
            EndedBy::Local => "local",
            EndedBy::Timeout => "timeout",
            EndedBy::Transport => "transport",
        }
    }
}

/// What the endpoint tells its user.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A trunk calls. Answer with commands that carry `call`.
    Incoming {
        /// The id of the new call.
        call: CallId,
        /// The trunk, known by the source address.
        trunk: TrunkName,
        /// The user part of the request URI, decoded.
        called_user: String,
        /// Whom the trunk calls, by its number rules; a handle if it is no number.
        called: Option<Address>,
        /// Who calls.
        caller: Caller,
        /// Where the INVITE came from.
        source: SocketAddr,
        /// The INVITE carried an SDP offer.
        has_offer: bool,
        /// What else it said of the call.
        details: Arc<CallDetails>,
    },
    /// The trunk works on our INVITE: 100 or any other provisional response, once.
    Trying {
        /// An outgoing call.
        call: CallId,
    },
    /// The called user is alerted: 180, once.
    Ringing {
        /// An outgoing call.
        call: CallId,
    },
    /// Media was negotiated or changed. Hold shows in `media.direction`, as we see it.
    Media {
        /// Any call.
        call: CallId,
        /// What to do from now on.
        media: LegMedia,
        /// The call is not answered yet.
        early: bool,
        /// The address that the far side's messages come from, whatever they say of themselves: of the last response
        /// or request of the call.
        signalling: IpAddr,
    },
    /// The far side offers T.38 by re-INVITE, in place of audio or beside it, and
    /// [`Command::TakeImages`] let it. Nothing is answered before [`Command::AnswerImage`]; after 8 s (a quarter of
    /// 64 times T1) it is refused.
    ImageOffered {
        /// An answered call.
        call: CallId,
        /// What it offers.
        image: Box<ImageMedia>,
    },
    /// The offer that [`Event::ImageOffered`] told of is no longer open: it was not answered in time, or cancelled.
    ImageWithdrawn {
        /// The call.
        call: CallId,
    },
    /// The call carries T.38 instead of audio, or goes on with another address or other attributes; or the far side
    /// has refused what [`Command::OfferImage`] offered. [`Event::Media`] tells of audio again.
    Image {
        /// An answered call.
        call: CallId,
        /// What to do from now on; `None`: it was refused, and audio is as it was, or is being offered.
        image: Option<Box<ImageMedia>>,
    },
    /// The far side answered our INVITE. Not sent for incoming calls: those are answered by us.
    Answered {
        /// An outgoing call.
        call: CallId,
    },
    /// The far side is connected to another party than before, or says for the first time to whom
    /// (RFC 4916, RFC 5876). Trusted trunks only.
    Connected {
        /// Any call.
        call: CallId,
        /// The party.
        party: Caller,
    },
    /// The far side answered a [`Command::Probe`].
    Alive {
        /// An answered call.
        call: CallId,
    },
    /// The far side signalled a digit by INFO (`application/dtmf-relay` or `application/dtmf`).
    Dtmf {
        /// Any answered call.
        call: CallId,
        /// The digit.
        digit: DtmfDigit,
        /// How long, in milliseconds.
        duration_ms: u16,
    },
    /// The far side asks for the call to be transferred. Nothing happens before
    /// [`Command::AcceptTransfer`] or [`Command::RefuseTransfer`]; after 8 s (a quarter of 64 times
    /// T1) it is refused with 603.
    TransferRequested {
        /// An answered call.
        call: CallId,
        /// What is asked for.
        request: Box<TransferRequest>,
    },
    /// The far side tells how far the transfer is that [`Command::Transfer`] asked for.
    TransferProgress {
        /// The call.
        call: CallId,
        /// The provisional status of its call to the target.
        status: u16,
    },
    /// The transfer that [`Command::Transfer`] asked for is over, one way or the other. The call
    /// itself goes on.
    TransferEnded {
        /// The call.
        call: CallId,
        /// How it went.
        outcome: TransferOutcome,
    },
    /// A trunk calls to take the place of a call that there is (RFC 3891 3). Answer with commands
    /// that carry `call`: with the 2xx of [`Command::Answer`] the replaced call is ended, by BYE or
    /// CANCEL, and [`Event::Ended`] of it follows. Refused, it goes on.
    Replacing {
        /// The id of the new call.
        call: CallId,
        /// The call to be replaced.
        replaced: CallId,
        /// The replaced call is one of ours that still rings (call pickup).
        early: bool,
        /// The trunk of both.
        trunk: TrunkName,
        /// Who calls.
        caller: Caller,
        /// Where the INVITE came from.
        source: SocketAddr,
        /// The INVITE carried an SDP offer.
        has_offer: bool,
    },
    /// The far side says where else the called user may be reached, and the trunk's
    /// [`Redirects`](crate::Redirects) let it (RFC 3261 8.1.3.4). Nothing happens before
    /// [`Command::FollowRedirect`]; [`TrunkConfig::ring_timeout`](crate::TrunkConfig) goes on. Comes
    /// again, with what is left, when a contact that was followed refuses or redirects.
    Redirected {
        /// An outgoing call.
        call: CallId,
        /// The final status that led here.
        status: u16,
        /// The contacts that may be followed, the preferred one first; at most 8.
        contacts: Vec<RedirectContact>,
    },
    /// The call is over. The last event of a call, exactly once.
    Ended {
        /// Any call.
        call: CallId,
        /// Why: from a Reason header where there was one, else mapped from the status.
        cause: Cause,
        /// The final status that ended it, where one did.
        status: Option<u16>,
        /// The reason phrase, or the text of what happened.
        text: String,
        /// Who ended it.
        by: EndedBy,
    },
    /// What [`Command::ReportQuality`] brought, with what is known of the call; where
    /// [`EndpointConfig::tell_quality`](crate::EndpointConfig) is set. May come after [`Event::Ended`].
    QualityReport {
        /// The call.
        call: CallId,
        /// Its trunk.
        trunk: TrunkName,
        /// The report.
        report: Box<SessionReport>,
    },
    /// A SIP message of the call passed, retransmissions left out.
    Exchange {
        /// Any call.
        call: CallId,
        /// What passed.
        exchange: Exchange,
    },
    /// One of several targets of a trunk came into favour, or fell out of it.
    TargetHealth {
        /// The trunk.
        trunk: TrunkName,
        /// Which of its targets.
        target: SocketAddr,
        /// What is known of it now.
        state: TargetState,
        /// What decided.
        detail: String,
    },
    /// A trunk became reachable or ceased to be, or its registration changed.
    TrunkHealth {
        /// Which.
        trunk: TrunkName,
        /// Nothing speaks against placing calls on it: it answers OPTIONS, and is registered if it
        /// insists on that.
        up: bool,
        /// What decided.
        detail: String,
    },
}
