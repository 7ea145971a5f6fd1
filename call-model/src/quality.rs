use crate::Side;

/// What costs a call most of its quality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Impairment {
    /// Packets that never came.
    NetworkLoss,
    /// Packets that came too late to be played, or were given up to catch up.
    JitterDiscard,
    /// The codec by itself.
    Codec,
    /// The time from mouth to ear.
    Delay,
}

impl Impairment {
    /// Every impairment.
    pub const ALL: [Impairment; 4] =
        [Impairment::NetworkLoss, Impairment::JitterDiscard, Impairment::Codec, Impairment::Delay];

    /// Returns the impairment as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Impairment::NetworkLoss => "network_loss",
            Impairment::JitterDiscard => "jitter_discard",
            Impairment::Codec => "codec",
            Impairment::Delay => "delay",
        }
    }
}

/// How media would be judged by those who hear it, as the E-model has it (ITU-T G.107). The scale is that of narrow
/// band for every codec, so that calls may be compared: wide band is not rated above it (as ITU-T G.107.1 would).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rating {
    /// Transmission rating R, 0 to 100.
    pub r_factor: f32,
    /// Mean opinion score, 1 to 4.5 (G.107 annex B).
    pub mos: f32,
    /// What costs most; `None` where nothing costs anything.
    pub cause: Option<Impairment>,
}

/// How losses lie in a stream (RFC 3611 4.7.2). All 0 before the first packet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossBursts {
    /// Bursts so far.
    pub count: u64,
    /// Packets not heard within bursts, in per cent.
    pub burst_loss_percent: f32,
    /// Packets not heard within the gaps between, in per cent.
    pub gap_loss_percent: f32,
    /// Mean length of a burst in milliseconds.
    pub burst_ms: f32,
    /// Mean length of a gap in milliseconds.
    pub gap_ms: f32,
}

impl LossBursts {
    /// Packets in a row that must be heard to part two bursts: the Gmin by which these figures are counted, 16 as
    /// RFC 3611 4.7.2 recommends.
    pub const MIN_GAP: u8 = 16;
}

/// What the other side has said of the media it received from us (RFC 3550 6.4.1, RFC 3611 4.7).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RemoteQuality {
    /// Packets lost on the way since its report before, in per cent; since the call began where it sends VoIP
    /// metrics.
    pub loss_percent: f32,
    /// Packets it could not play, in per cent; 0 where it sends no VoIP metrics.
    pub discard_percent: f32,
    /// Interarrival jitter in milliseconds.
    pub jitter_ms: f32,
    /// Transmission rating by its own count, or by ours of its figures.
    pub rating: Option<Rating>,
    /// It sends VoIP metrics: the figures are of the whole call.
    pub voip_metrics: bool,
    /// The delay within its system in milliseconds, where its VoIP metrics say so.
    pub end_system_ms: Option<f32>,
}

/// What a leg has measured of the media it received.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LegQuality {
    /// Packets received and usable.
    pub packets_received: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets that never came.
    pub packets_lost: u64,
    /// Packets that came too late to be played.
    pub packets_late: u64,
    /// Packets dropped because of their source, shape, payload type or authentication.
    pub packets_refused: u64,
    /// Frames played that were made up by concealment.
    pub frames_concealed: u64,
    /// Interarrival jitter in milliseconds (RFC 3550 6.4.1).
    pub jitter_ms: f32,
    /// Packets that came in time and were given up by the jitter buffer.
    pub packets_discarded: u64,
    /// Packets that came more than once.
    pub packets_duplicate: u64,
    /// Frames played while the other side sent, made up or not.
    pub frames_played: u64,
    /// Frames lost that in-band FEC or redundancy (RFC 2198) brought back.
    pub frames_recovered: u64,
    /// Those of them that redundancy did.
    pub frames_redundant: u64,
    /// How losses and discards lie in the stream.
    pub bursts: LossBursts,
    /// Mean length of a run of losses by that of random loss, 1 at least; 0 if not measured (ITU-T G.107 7.4.2).
    pub burst_ratio: f32,
    /// Latest round trip to the other side in milliseconds, once RTCP has shown it.
    pub round_trip_ms: Option<f32>,
    /// What the jitter buffer holds the fastest packets back at present, in milliseconds.
    pub playout_delay_ms: f32,
    /// The most the jitter buffer held the fastest packets back, in milliseconds; 0 if there was none.
    pub playout_delay_max_ms: f32,
    /// The most the jitter buffer may hold packets back, in milliseconds; 0 if there was none.
    pub playout_delay_limit_ms: f32,
    /// Milliseconds of audio in a packet that came; 0 if not known.
    pub packet_ms: f32,
    /// The synchronisation source that was heard last (RFC 3550 3).
    pub source: Option<u32>,
    /// The synchronisation source of what was sent.
    pub own_source: Option<u32>,
    /// How what came is judged, over all of the call.
    pub rating: Option<Rating>,
    /// The same by listening alone: without the delay.
    pub listening: Option<Rating>,
    /// The same of the last full five seconds.
    pub recent: Option<Rating>,
    /// The worst five seconds of the call.
    pub worst: Option<Rating>,
    /// What the other side says of what was sent to it.
    pub remote: Option<RemoteQuality>,
    /// Milliseconds of voice heard from this leg.
    pub voice_ms: u64,
    /// Milliseconds of frames in which the signal stood at the end of its range.
    pub clipped_ms: u64,
    /// Milliseconds in which what this leg sent followed what it was sent, as an echo does.
    pub echo_ms: u64,
    /// Mean level of the voice in dBov, once there was any.
    pub voice_dbov: Option<f32>,
    /// Level of the background in dBov.
    pub noise_dbov: Option<f32>,
}

impl LegQuality {
    /// Returns the share of frames that were made up, 0 to 1.
    pub fn concealment_ratio(&self) -> f32 {
        if self.frames_played == 0 {
            return 0.0;
        }
        (self.frames_concealed as f64 / self.frames_played as f64).min(1.0) as f32
    }
}

/// What the audio of a call shows of both sides together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallAudio {
    /// Milliseconds in which both sides spoke.
    pub talk_over_ms: u64,
    /// A side that gives no sound at all though the other has spoken for five seconds since it last did.
    pub one_way: Option<Side>,
}
