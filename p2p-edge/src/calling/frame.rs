//! The frames of the call protocol and their CBOR form.

use call_model::{Address, CallId, Caller, Cause, DtmfDigit};
use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};

use super::wire::with_length;
use super::{MAX_CERTIFICATE, MAX_DTMF_MS, MAX_MEDIA, MAX_SIGNATURE, MAX_TEXT};

/// Proves on a new stream that its sender took part in the call: 128 random bits chosen by the
/// caller. Never printed.
#[derive(Clone, Copy)]
pub struct ResumeToken([u8; 16]);

impl ResumeToken {
    /// Wraps 16 bytes from a cryptographic random source.
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Compares without an early exit, so that the time taken says nothing about the token.
    pub(super) fn matches(&self, other: &ResumeToken) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl std::fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResumeToken(..)")
    }
}

/// Asks a device to take a call. The signature is the caller's account assertion; who the caller
/// is gets verified by the node, not here.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// Identifies the call at both ends.
    pub call: CallId,
    /// Encoded handle certificate or node chain of the caller, at most 6 KiB.
    pub certificate: Vec<u8>,
    /// The caller as it wants to be shown. The display name must be clean
    /// ([`Caller::clean_display_name`]).
    pub from: Caller,
    /// Whom the call is for.
    pub to: Address,
    /// SDP offer, at most 8 KiB.
    pub media: String,
    /// Random, unique among the invites of this caller until `expires_unix`.
    pub nonce: [u8; 16],
    /// Unix time in seconds after which the assertion is void.
    pub expires_unix: u64,
    /// The caller's signature over its [`crate::identity::Assertion`] of this call, at most 256
    /// bytes.
    pub signature: Vec<u8>,
}

impl Invite {
    fn fill<'a>(&'a self, wire: &mut Wire<'a>, call: &'a [u8; 16], from: Option<&'a str>, to: &'a str) {
        wire.call = Some(call[..].into());
        wire.certificate = Some(self.certificate[..].into());
        wire.from = from;
        wire.display_name = self.from.display_name.as_deref();
        wire.private = self.from.private.then_some(true);
        wire.to = Some(to);
        wire.media = Some(&self.media);
        wire.nonce = Some(self.nonce[..].into());
        wire.expires = Some(self.expires_unix);
        wire.signature = Some(self.signature[..].into());
    }

    /// Checks the bounds of every field.
    ///
    /// # Errors
    /// Names the first field that is too long or not clean.
    pub(super) fn check(&self) -> Result<(), FrameError> {
        bounded("certificate", self.certificate.len(), MAX_CERTIFICATE)?;
        bounded("media", self.media.len(), MAX_MEDIA)?;
        bounded("signature", self.signature.len(), MAX_SIGNATURE)?;
        check_name(&self.from)
    }
}

/// Checks that a display name is clean ([`Caller::clean_display_name`]).
///
/// # Errors
/// `BadField` where it is not.
pub(super) fn check_name(party: &Caller) -> Result<(), FrameError> {
    match &party.display_name {
        Some(name) if Caller::clean_display_name(name).as_ref() != Some(name) => {
            Err(FrameError::BadField("display_name"))
        }
        _ => Ok(()),
    }
}

impl std::fmt::Debug for Invite {
    /// Prints the call and the sizes; who calls whom is personal data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invite")
            .field("call", &self.call)
            .field("certificate_bytes", &self.certificate.len())
            .field("media_bytes", &self.media.len())
            .finish_non_exhaustive()
    }
}

/// How a request was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckCode {
    /// Taken, or of an unknown type and skipped.
    Ok,
    /// Understood, but this end does not do it.
    NotSupported,
    /// Has no place in the present state and was skipped.
    Misplaced,
    /// The stream now carries the call; unacknowledged frames follow.
    Resumed,
    /// There is no such call to resume, or the token is not its token.
    ResumeRefused,
}

impl AckCode {
    fn to_wire(self) -> u16 {
        match self {
            AckCode::Ok => 0,
            AckCode::NotSupported => 1,
            AckCode::Misplaced => 2,
            AckCode::Resumed => 3,
            AckCode::ResumeRefused => 4,
        }
    }

    /// Reads a code. A code of a later version says at least that the frame has arrived.
    fn from_wire(code: u16) -> Self {
        match code {
            1 => AckCode::NotSupported,
            2 => AckCode::Misplaced,
            3 => AckCode::Resumed,
            4 => AckCode::ResumeRefused,
            _ => AckCode::Ok,
        }
    }
}

/// What a frame says.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are those of the events and commands of a session")]
pub enum Body {
    /// Offers the call.
    Invite { invite: Box<Invite>, token: ResumeToken },
    /// The callee's node works on it.
    Trying,
    /// The user is being alerted.
    Ringing,
    /// Early media.
    Progress { media: String },
    /// The user has answered.
    Answer { media: String },
    /// One more ICE candidate, as an SDP attribute value.
    Candidate { candidate: String },
    /// Holds or takes back.
    Update { hold: bool },
    /// A digit that could not go in media.
    Dtmf { digit: DtmfDigit, duration_ms: u16 },
    /// Asks for a transfer.
    Refer { target: Address },
    /// Text to the user.
    Message { text: String },
    /// Ends an answered call.
    Bye { cause: Cause, text: String },
    /// Gives up a call that is not answered.
    Cancel { answered_elsewhere: bool },
    /// Says who is connected now: another than before. Unknown to earlier versions, which acknowledge
    /// and skip it.
    Connected { party: Caller },
    /// Refuses a call.
    Reject { cause: Cause, sip_status: Option<u16>, text: String },
    /// Asks for a sign of life.
    Ping,
    /// Acknowledges every request up to `acknowledged`; `code` speaks of that one.
    Ack { acknowledged: u32, code: AckCode, token: Option<ResumeToken> },
    /// Puts a call on this stream. `received` is the last request that came before the loss.
    Resume { call: CallId, token: ResumeToken, received: u32 },
    /// A type that this version does not know.
    Unknown { kind: u16 },
}

impl Body {
    /// Returns the name used in ladders and counters.
    pub fn name(&self) -> &'static str {
        match self {
            Body::Invite { .. } => "invite",
            Body::Trying => "trying",
            Body::Ringing => "ringing",
            Body::Progress { .. } => "progress",
            Body::Answer { .. } => "answer",
            Body::Candidate { .. } => "candidate",
            Body::Update { hold: true } => "update (hold)",
            Body::Update { hold: false } => "update (resume)",
            Body::Dtmf { .. } => "dtmf",
            Body::Refer { .. } => "refer",
            Body::Message { .. } => "message",
            Body::Connected { .. } => "connected",
            Body::Bye { .. } => "bye",
            Body::Cancel { .. } => "cancel",
            Body::Reject { .. } => "reject",
            Body::Ping => "ping",
            Body::Ack { .. } => "ack",
            Body::Resume { .. } => "resume",
            Body::Unknown { .. } => "unknown",
        }
    }
}

/// One frame. Requests are numbered from 1 by each side; `ack` and `resume` carry 0.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Number of the request, 0 for `ack` and `resume`.
    pub sequence: u32,
    /// What it says.
    pub body: Body,
}

/// Says why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than 16 KiB.
    #[error("the frame is longer than 16 KiB")]
    TooLong,
    /// The length is not the shortest form of a number below 16 KiB.
    #[error("the length of the frame is malformed")]
    BadVarint,
    /// The body is not one CBOR map with the keys and types of the protocol.
    #[error("the frame is not a well-formed CBOR map")]
    BadCbor,
    /// A field that this frame type needs is missing.
    #[error("the field {0} is missing")]
    MissingField(&'static str),
    /// A field is longer than allowed.
    #[error("the field {0} is too long")]
    FieldTooLong(&'static str),
    /// A field has a value outside its range.
    #[error("the field {0} has no valid value")]
    BadField(&'static str),
    /// The first frame of a stream is neither `invite` nor `resume`, or one of them came later.
    #[error("an invite is expected at the beginning of a call and nowhere else")]
    NotAnInvite,
    /// A request number was left out.
    #[error("a frame of the sequence is missing")]
    SequenceGap,
    /// The other side sends more frames than any call needs.
    #[error("too many frames in too short a time")]
    Flood,
}

impl FrameError {
    /// Returns the name used as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            FrameError::TooLong => "too_long",
            FrameError::BadVarint => "bad_varint",
            FrameError::BadCbor => "bad_cbor",
            FrameError::MissingField(_) => "missing_field",
            FrameError::FieldTooLong(_) => "field_too_long",
            FrameError::BadField(_) => "bad_field",
            FrameError::NotAnInvite => "not_an_invite",
            FrameError::SequenceGap => "sequence_gap",
            FrameError::Flood => "flood",
        }
    }
}

mod kind {
    pub(super) const INVITE: u16 = 1;
    pub(super) const TRYING: u16 = 2;
    pub(super) const RINGING: u16 = 3;
    pub(super) const PROGRESS: u16 = 4;
    pub(super) const ANSWER: u16 = 5;
    pub(super) const CANDIDATE: u16 = 6;
    pub(super) const UPDATE: u16 = 7;
    pub(super) const DTMF: u16 = 8;
    pub(super) const REFER: u16 = 9;
    pub(super) const MESSAGE: u16 = 10;
    pub(super) const BYE: u16 = 11;
    pub(super) const CANCEL: u16 = 12;
    pub(super) const REJECT: u16 = 13;
    pub(super) const PING: u16 = 14;
    pub(super) const ACK: u16 = 15;
    pub(super) const RESUME: u16 = 16;
    pub(super) const CONNECTED: u16 = 17;
}

/// The map on the wire. Absent fields are left out; unknown keys are skipped when read. Keys in
/// ascending order and definite lengths make it deterministic (RFC 8949 4.2.1).
#[derive(Default, Encode, Decode)]
#[cbor(map)]
struct Wire<'a> {
    #[n(0)]
    kind: u16,
    #[n(1)]
    sequence: Option<u32>,
    #[b(2)]
    call: Option<&'a ByteSlice>,
    #[b(3)]
    certificate: Option<&'a ByteSlice>,
    #[b(4)]
    from: Option<&'a str>,
    #[b(5)]
    display_name: Option<&'a str>,
    #[n(6)]
    private: Option<bool>,
    #[b(7)]
    to: Option<&'a str>,
    #[b(8)]
    media: Option<&'a str>,
    #[b(9)]
    nonce: Option<&'a ByteSlice>,
    #[n(10)]
    expires: Option<u64>,
    #[b(11)]
    signature: Option<&'a ByteSlice>,
    #[b(12)]
    token: Option<&'a ByteSlice>,
    #[n(13)]
    cause: Option<u8>,
    #[n(14)]
    sip_status: Option<u16>,
    #[b(15)]
    text: Option<&'a str>,
    #[n(16)]
    hold: Option<bool>,
    #[n(17)]
    digit: Option<u8>,
    #[n(18)]
    duration_ms: Option<u16>,
    #[n(19)]
    answered_elsewhere: Option<bool>,
    #[n(20)]
    code: Option<u16>,
    #[n(21)]
    received: Option<u32>,
    #[b(22)]
    candidate: Option<&'a str>,
}

impl<'a> Wire<'a> {
    fn new(kind: u16, sequence: u32) -> Self {
        Wire { kind, sequence: (sequence != 0).then_some(sequence), ..Wire::default() }
    }

    fn to_cbor(&self) -> Vec<u8> {
        // Writing to a vector cannot fail: its error type has no value.
        minicbor::to_vec(self).unwrap_or_default()
    }

    fn sixteen(field: &'static str, value: Option<&ByteSlice>) -> Result<[u8; 16], FrameError> {
        let bytes: &[u8] = value.ok_or(FrameError::MissingField(field))?;
        bytes.try_into().map_err(|_| FrameError::BadField(field))
    }

    fn address(field: &'static str, value: Option<&str>) -> Result<Address, FrameError> {
        let text = value.ok_or(FrameError::MissingField(field))?;
        text.parse().map_err(|_| FrameError::BadField(field))
    }

    fn required<T>(field: &'static str, value: Option<T>) -> Result<T, FrameError> {
        value.ok_or(FrameError::MissingField(field))
    }

    fn text(&self) -> Result<String, FrameError> {
        let text = self.text.unwrap_or_default();
        bounded("text", text.len(), MAX_TEXT)?;
        Ok(text.to_owned())
    }

    fn media(&self) -> Result<String, FrameError> {
        let media = Self::required("media", self.media)?;
        bounded("media", media.len(), MAX_MEDIA)?;
        Ok(media.to_owned())
    }

    fn cause(&self) -> Result<Cause, FrameError> {
        Cause::new(Self::required("cause", self.cause)?).ok_or(FrameError::BadField("cause"))
    }

    fn sip_status(&self) -> Result<Option<u16>, FrameError> {
        match self.sip_status {
            Some(status) if !(300..700).contains(&status) => Err(FrameError::BadField("sip_status")),
            status => Ok(status),
        }
    }

    fn token(&self) -> Result<ResumeToken, FrameError> {
        Self::sixteen("token", self.token).map(ResumeToken)
    }

    fn call(&self) -> Result<CallId, FrameError> {
        Self::sixteen("call", self.call).map(CallId::from_bytes)
    }

    fn caller(&self) -> Result<Caller, FrameError> {
        Ok(Caller {
            address: self.from.map(|from| Self::address("from", Some(from))).transpose()?,
            display_name: self.display_name.map(str::to_owned),
            private: self.private.unwrap_or(false),
        })
    }

    fn invite(&self) -> Result<Invite, FrameError> {
        let invite = Invite {
            call: self.call()?,
            certificate: Self::required("certificate", self.certificate)?.to_vec(),
            from: self.caller()?,
            to: Self::address("to", self.to)?,
            media: self.media()?,
            nonce: Self::sixteen("nonce", self.nonce)?,
            expires_unix: Self::required("expires", self.expires)?,
            signature: Self::required("signature", self.signature)?.to_vec(),
        };
        invite.check().map(|()| invite)
    }

    fn body(&self) -> Result<Body, FrameError> {
        Ok(match self.kind {
            kind::INVITE => Body::Invite { invite: Box::new(self.invite()?), token: self.token()? },
            kind::TRYING => Body::Trying,
            kind::RINGING => Body::Ringing,
            kind::PROGRESS => Body::Progress { media: self.media()? },
            kind::ANSWER => Body::Answer { media: self.media()? },
            kind::CANDIDATE => {
                let candidate = Self::required("candidate", self.candidate)?;
                bounded("candidate", candidate.len(), MAX_TEXT)?;
                Body::Candidate { candidate: candidate.to_owned() }
            }
            kind::UPDATE => Body::Update { hold: Self::required("hold", self.hold)? },
            kind::DTMF => {
                let digit = DtmfDigit::from_event(Self::required("digit", self.digit)?);
                let duration_ms = Self::required("duration_ms", self.duration_ms)?;
                if duration_ms > MAX_DTMF_MS {
                    return Err(FrameError::BadField("duration_ms"));
                }
                Body::Dtmf { digit: digit.ok_or(FrameError::BadField("digit"))?, duration_ms }
            }
            kind::REFER => Body::Refer { target: Self::address("to", self.to)? },
            kind::MESSAGE => Body::Message { text: self.text()? },
            kind::CONNECTED => {
                let party = self.caller()?;
                check_name(&party)?;
                Body::Connected { party }
            }
            kind::BYE => Body::Bye { cause: self.cause()?, text: self.text()? },
            kind::CANCEL => Body::Cancel { answered_elsewhere: self.answered_elsewhere.unwrap_or(false) },
            kind::REJECT => {
                Body::Reject { cause: self.cause()?, sip_status: self.sip_status()?, text: self.text()? }
            }
            kind::PING => Body::Ping,
            kind::ACK => Body::Ack {
                acknowledged: Self::required("received", self.received)?,
                code: AckCode::from_wire(self.code.unwrap_or(0)),
                token: self.token.map(|_| self.token()).transpose()?,
            },
            kind::RESUME => Body::Resume {
                call: self.call()?,
                token: self.token()?,
                received: Self::required("received", self.received)?,
            },
            unknown => Body::Unknown { kind: unknown },
        })
    }
}

impl Frame {
    /// Builds the answer to a `resume` that belongs to no call here.
    pub fn resume_refused() -> Frame {
        let body = Body::Ack { acknowledged: 0, code: AckCode::ResumeRefused, token: None };
        Frame { sequence: 0, body }
    }

    /// Encodes the frame with its length in front.
    pub fn encode(&self) -> Vec<u8> {
        let (mut call_bytes, mut from_text, mut to_text) = ([0; 16], None, String::new());
        match &self.body {
            Body::Invite { invite, .. } => {
                call_bytes = invite.call.to_bytes();
                from_text = invite.from.address.as_ref().map(ToString::to_string);
                to_text = invite.to.to_string();
            }
            Body::Connected { party } => from_text = party.address.as_ref().map(ToString::to_string),
            Body::Refer { target } => to_text = target.to_string(),
            Body::Resume { call, .. } => call_bytes = call.to_bytes(),
            _ => {}
        }
        let mut wire = Wire::new(0, self.sequence);
        wire.kind = match &self.body {
            Body::Invite { invite, token } => {
                invite.fill(&mut wire, &call_bytes, from_text.as_deref(), &to_text);
                wire.token = Some(token.0[..].into());
                kind::INVITE
            }
            Body::Trying => kind::TRYING,
            Body::Ringing => kind::RINGING,
            Body::Progress { media } => {
                wire.media = Some(media);
                kind::PROGRESS
            }
            Body::Answer { media } => {
                wire.media = Some(media);
                kind::ANSWER
            }
            Body::Candidate { candidate } => {
                wire.candidate = Some(candidate);
                kind::CANDIDATE
            }
            Body::Update { hold } => {
                wire.hold = Some(*hold);
                kind::UPDATE
            }
            Body::Dtmf { digit, duration_ms } => {
                (wire.digit, wire.duration_ms) = (Some(digit.event()), Some(*duration_ms));
                kind::DTMF
            }
            Body::Refer { .. } => {
                wire.to = Some(&to_text);
                kind::REFER
            }
            Body::Message { text } => {
                wire.text = Some(text);
                kind::MESSAGE
            }
            Body::Connected { party } => {
                (wire.from, wire.display_name) = (from_text.as_deref(), party.display_name.as_deref());
                wire.private = party.private.then_some(true);
                kind::CONNECTED
            }
            Body::Bye { cause, text } => {
                (wire.cause, wire.text) = (Some(cause.value()), non_empty(text));
                kind::BYE
            }
            Body::Cancel { answered_elsewhere } => {
                wire.answered_elsewhere = answered_elsewhere.then_some(true);
                kind::CANCEL
            }
            Body::Reject { cause, sip_status, text } => {
                (wire.cause, wire.sip_status) = (Some(cause.value()), *sip_status);
                wire.text = non_empty(text);
                kind::REJECT
            }
            Body::Ping => kind::PING,
            Body::Ack { acknowledged, code, token } => {
                wire.received = Some(*acknowledged);
                wire.code = (*code != AckCode::Ok).then_some(code.to_wire());
                wire.token = token.as_ref().map(|token| token.0[..].into());
                kind::ACK
            }
            Body::Resume { token, received, .. } => {
                wire.call = Some(call_bytes[..].into());
                wire.token = Some(token.0[..].into());
                wire.received = Some(*received);
                kind::RESUME
            }
            Body::Unknown { kind } => *kind,
        };
        with_length(&wire.to_cbor())
    }

    /// Reads the CBOR map of one frame, without its length.
    pub(super) fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
        let mut decoder = minicbor::Decoder::new(bytes);
        let wire: Wire<'_> = decoder.decode().map_err(|_| FrameError::BadCbor)?;
        if decoder.position() != bytes.len() {
            return Err(FrameError::BadCbor);
        }
        let body = wire.body()?;
        let sequence = wire.sequence.unwrap_or(0);
        let numbered = !matches!(body, Body::Ack { .. } | Body::Resume { .. });
        if numbered && sequence == 0 {
            return Err(FrameError::MissingField("sequence"));
        }
        Ok(Frame { sequence, body })
    }
}

fn bounded(field: &'static str, length: usize, limit: usize) -> Result<(), FrameError> {
    if length > limit { Err(FrameError::FieldTooLong(field)) } else { Ok(()) }
}

fn non_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
