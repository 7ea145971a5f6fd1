use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use call_model::{Address, Handle, TrunkName};

use super::record::CallRecord;

/// How far a leg has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leg {
    /// Not begun.
    Idle,
    /// Begun and not over.
    Open,
    /// Asked to end; its word is awaited.
    Releasing,
    /// Over.
    Done,
}

/// One live call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) record: CallRecord,
    pub(super) overlay: Leg,
    pub(super) trunk: Leg,
    /// Set once the media legs stand: where the trunk sends RTP.
    pub(super) trunk_rtp: Option<SocketAddr>,
    /// SDP for the overlay.
    pub(super) overlay_sdp: Option<String>,
    pub(super) media_open: bool,
    /// Overlay to trunk: the called number, and the trunks that may still be tried.
    pub(super) called: Option<Address>,
    pub(super) trunks_left: VecDeque<TrunkName>,
    /// Trunk to overlay: the overlay's answer has gone to the media worker.
    pub(super) overlay_answer_applied: bool,
    /// The overlay user that counts against the limit per user.
    pub(super) user: Option<Handle>,
    /// The trunk holds.
    pub(super) held_by_trunk: bool,
    /// When it is dropped although a leg has not confirmed its end; stands in the switch's queue.
    pub(super) drop_at: Option<Instant>,
}

impl Call {
    pub(super) fn new(record: CallRecord) -> Self {
        Self {
            record,
            overlay: Leg::Idle,
            trunk: Leg::Idle,
            trunk_rtp: None,
            overlay_sdp: None,
            media_open: false,
            called: None,
            trunks_left: VecDeque::new(),
            overlay_answer_applied: false,
            user: None,
            held_by_trunk: false,
            drop_at: None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        let over = |leg: Leg| matches!(leg, Leg::Idle | Leg::Done);
        over(self.overlay) && over(self.trunk)
    }
}
