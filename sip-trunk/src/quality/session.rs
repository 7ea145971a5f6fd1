//! What the endpoint knows of a call that a report tells, and for how long after the end of the call.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{CallId, Codec, LegMedia};

use super::QualityReport;
use super::body::{MediaAddress, SessionReport, StreamDescription};
use crate::dialog::Dialog;
use crate::wire::message::addr_uri;

/// How long an ended call can be reported on: the last figures of its media come after its end.
const KEPT: Duration = Duration::from_secs(60);
/// The most ended calls that are kept: 250 a second end.
const KEPT_MAX: usize = 15_000;

/// One call, as far as a report tells of it.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(super) trunk: usize,
    call_id: String,
    local: Option<String>,
    remote: Option<String>,
    incoming: bool,
    local_rtp: SocketAddr,
    remote_rtp: SocketAddr,
    codec: Codec,
    receive_payload_type: u8,
    send_payload_type: u8,
    packet_time_ms: u16,
    /// Of To and From in the INVITE.
    tags: (String, String),
}

impl Session {
    /// Takes it from a call whose media is agreed on. `private`: the other side called and is not to be shown
    /// (RFC 3323 4.2, RFC 3325 7). Where we called for somebody private, our own From is anonymous already.
    pub(crate) fn new(
        dialog: &Dialog,
        (incoming, private): (bool, bool),
        own_tag: String,
        local_rtp: SocketAddr,
        media: &LegMedia,
    ) -> Self {
        let uri = |value: &str| addr_uri(value).map(str::to_owned);
        let other_tag = dialog.remote_tag.clone();
        Self {
            trunk: dialog.trunk,
            call_id: dialog.call_id.clone(),
            local: uri(&dialog.local),
            remote: uri(&dialog.remote).filter(|_| !private),
            incoming,
            local_rtp,
            remote_rtp: media.remote_rtp,
            codec: media.codec,
            receive_payload_type: media.receive_payload_type,
            send_payload_type: media.send_payload_type,
            packet_time_ms: media.packet_time_ms,
            tags: if incoming { (own_tag, other_tag) } else { (other_tag, own_tag) },
        }
    }

    /// Returns the index of its trunk.
    pub(crate) fn trunk(&self) -> usize {
        self.trunk
    }

    /// Makes a report of it, with what was measured.
    pub(super) fn report(
        self,
        report: QualityReport,
        local_group: String,
        remote_group: String,
    ) -> SessionReport {
        let QualityReport { reported, from_unix_ms, until_unix_ms, quality } = report;
        let stream =
            |payload_type, packet_ms| StreamDescription { payload_type, codec: self.codec, packet_ms };
        SessionReport {
            reported,
            call_id: self.call_id,
            local: self.local,
            remote: self.remote,
            incoming: self.incoming,
            local_address: MediaAddress { address: self.local_rtp, ssrc: quality.own_source },
            remote_address: MediaAddress { address: self.remote_rtp, ssrc: quality.source },
            local_group,
            remote_group,
            from_unix_ms,
            until_unix_ms,
            received: stream(self.receive_payload_type, Some(quality.packet_ms).filter(|ms| *ms > 0.0)),
            sent: stream(self.send_payload_type, Some(f32::from(self.packet_time_ms))),
            quality,
            tags: Some(self.tags),
        }
    }
}

/// The calls that ended of late, of trunks that have a collector.
#[derive(Debug, Default)]
pub(crate) struct EndedCalls(VecDeque<(Instant, CallId, Session)>);

impl EndedCalls {
    pub(crate) fn keep(&mut self, now: Instant, call: CallId, session: Session) {
        self.forget(now);
        if self.0.len() >= KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back((now + KEPT, call, session));
    }

    /// Takes one out: of an ended call there is one report.
    pub(crate) fn take(&mut self, now: Instant, call: CallId) -> Option<Session> {
        self.forget(now);
        let at = self.0.iter().rposition(|(_, kept, _)| *kept == call)?;
        self.0.remove(at).map(|(_, _, session)| session)
    }

    fn forget(&mut self, now: Instant) {
        while self.0.front().is_some_and(|(until, ..)| *until <= now) {
            self.0.pop_front();
        }
    }
}
