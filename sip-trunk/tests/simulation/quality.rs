//! Row F25: the body of a quality report (RFC 6035 4.6), and a reader of it that shares nothing with its writer.

use std::collections::BTreeMap;

use call_model::{Codec, LegQuality, LossBursts, Rating, RemoteQuality};
use sip_trunk::Reported;
use sip_trunk::quality::{MediaAddress, SessionReport, StreamDescription};

use crate::net::address;

/// 2023-11-14T22:13:20Z, with GNU date.
pub const FROM: u64 = 1_700_000_000_000;

/// Lines by name, in blocks: of the session, what was measured here, what there.
#[derive(Debug, Default)]
pub struct Body {
    names: Vec<String>,
    pub session: BTreeMap<String, String>,
    local: BTreeMap<String, BTreeMap<String, String>>,
    remote: Option<BTreeMap<String, BTreeMap<String, String>>>,
}

/// Reads a body as RFC 6035 4.6.1 has it, knowing nothing of how it was written.
fn parse(text: &str) -> Body {
    let mut body = Body::default();
    let text = text.strip_suffix("\r\n").unwrap_or_else(|| panic!("no CRLF at the end of {text:?}"));
    let mut lines = text.split("\r\n");
    let kind = lines.next().unwrap();
    let (name, value) = kind.split_once(": ").unwrap_or((kind, ""));
    body.session.insert(name.to_owned(), value.to_owned());
    let metrics =
        ["Timestamps", "SessionDesc", "JitterBuffer", "PacketLoss", "BurstGapLoss", "Delay", "Signal"];
    let mut local = false;
    for line in lines {
        assert!(!line.is_empty() && !line.starts_with([' ', '\t']), "{line:?}");
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no colon in {line:?}"));
        body.names.push(name.to_owned());
        match name {
            "LocalMetrics" => local = true,
            "RemoteMetrics" => body.remote = Some(BTreeMap::new()),
            _ if metrics.contains(&name) || name == "QualityEst" => {
                let pairs = value.strip_prefix(' ').unwrap().split(' ').map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or_else(|| panic!("{pair:?} in {line:?}"));
                    assert!(!key.is_empty() && !value.is_empty(), "{line:?}");
                    (key.to_owned(), value.to_owned())
                });
                assert!(local, "metrics before LocalMetrics");
                body.remote.as_mut().unwrap_or(&mut body.local).insert(name.to_owned(), pairs.collect());
            }
            _ => {
                let twice = body.session.insert(name.to_owned(), value.trim_start().to_owned());
                assert_eq!(twice, None, "{name} stands twice");
            }
        }
    }
    body
}

impl Body {
    pub fn of(publish: &str) -> Self {
        parse(publish.split_once("\r\n\r\n").unwrap().1)
    }

    pub fn local(&self, line: &str, key: &str) -> Option<&str> {
        self.local.get(line)?.get(key).map(String::as_str)
    }

    fn remote(&self, line: &str, key: &str) -> Option<&str> {
        self.remote.as_ref()?.get(line)?.get(key).map(String::as_str)
    }
}

pub fn measured() -> LegQuality {
    LegQuality {
        packets_received: 9_400,
        packets_sent: 10_000,
        packets_lost: 600,
        frames_recovered: 100,
        packets_late: 60,
        packets_discarded: 40,
        frames_played: 9_990,
        frames_concealed: 540,
        jitter_ms: 7.4,
        packet_ms: 20.0,
        playout_delay_ms: 41.0,
        playout_delay_max_ms: 80.0,
        playout_delay_limit_ms: 200.0,
        round_trip_ms: Some(84.6),
        bursts: LossBursts {
            count: 3,
            burst_loss_percent: 33.333,
            gap_loss_percent: 1.25,
            burst_ms: 180.0,
            gap_ms: 20_000.4,
        },
        source: Some(0x2468_abcd),
        own_source: Some(0x1a3b_5c7d),
        listening: Some(Rating { r_factor: 88.4, mos: 4.25, cause: None }),
        rating: Some(Rating { r_factor: 84.6, mos: 4.1, cause: None }),
        voice_dbov: Some(-27.0),
        noise_dbov: Some(-66.0),
        remote: Some(RemoteQuality {
            loss_percent: 2.5,
            discard_percent: 0.5,
            jitter_ms: 4.0,
            rating: Some(Rating { r_factor: 80.0, mos: 4.0, cause: None }),
            voip_metrics: true,
            end_system_ms: Some(60.0),
        }),
        ..LegQuality::default()
    }
}

fn whole() -> SessionReport {
    let stream = |payload_type| StreamDescription { payload_type, codec: Codec::Pcma, packet_ms: Some(20.0) };
    SessionReport {
        reported: Reported::Session,
        call_id: "6dg37f1890463@192.0.2.1".to_owned(),
        local: Some("sip:+12025550100@192.0.2.1".to_owned()),
        remote: Some("sip:+442079460018@carrier.example".to_owned()),
        incoming: false,
        local_address: MediaAddress { address: address("192.0.2.1:20000"), ssrc: Some(0x1a3b_5c7d) },
        remote_address: MediaAddress { address: address("[2001:db8::7]:30000"), ssrc: Some(0x468_abcd) },
        local_group: "192.0.2.1".to_owned(),
        remote_group: "carrier".to_owned(),
        from_unix_ms: FROM,
        until_unix_ms: FROM + 199_999,
        received: stream(8),
        sent: stream(8),
        quality: measured(),
        tags: Some(("8472761".to_owned(), "9123dh311".to_owned())),
    }
}

const GOLDEN: &str = "VQSessionReport: CallTerm\r\n\
CallID: 6dg37f1890463@192.0.2.1\r\n\
LocalID: <sip:+12025550100@192.0.2.1>\r\n\
RemoteID: <sip:+442079460018@carrier.example>\r\n\
OrigID: <sip:+12025550100@192.0.2.1>\r\n\
LocalAddr: IP=192.0.2.1 PORT=20000 SSRC=0x1a3b5c7d\r\n\
RemoteAddr: IP=2001:db8::7 PORT=30000 SSRC=0x0468abcd\r\n\
LocalGroup: 192.0.2.1\r\n\
RemoteGroup: carrier\r\n\
LocalMetrics:\r\n\
Timestamps: START=2023-11-14T22:13:20Z STOP=2023-11-14T22:16:39Z\r\n\
SessionDesc: PT=8 PD=PCMA SR=8000 PPS=50 FD=20 FO=160 FPP=1 PLC=2\r\n\
JitterBuffer: JBA=3 JBN=41 JBM=80 JBX=200\r\n\
PacketLoss: NLR=5.00 JDR=1.00\r\n\
BurstGapLoss: BLD=33.33 BD=180 GLD=1.25 GD=20000 GMIN=16\r\n\
Delay: RTD=85 ESD=61 SOWD=103 IAJ=7\r\n\
Signal: SL=-21 NL=-60\r\n\
QualityEst: RLQ=88 RCQ=85 MOSLQ=4.25 MOSCQ=4.10 QoEEstAlg=G.107\r\n\
RemoteMetrics:\r\n\
Timestamps: START=2023-11-14T22:13:20Z STOP=2023-11-14T22:16:39Z\r\n\
SessionDesc: PT=8 PD=PCMA SR=8000 PPS=50 FD=20 FO=160 FPP=1\r\n\
PacketLoss: NLR=2.50 JDR=0.50\r\n\
Delay: ESD=60 IAJ=4\r\n\
QualityEst: RCQ=80 MOSCQ=4.00\r\n\
DialogID: 6dg37f1890463@192.0.2.1;to-tag=8472761;from-tag=9123dh311\r\n";

// RFC 6035 4.6.2.3, RFC 3551 4.5.2: the rate of the samples, not that of the clock, of which an octet is a tick.
#[test]
fn a_report_of_g722_tells_its_sampling_rate() {
    let stream = StreamDescription { payload_type: 9, codec: Codec::G722, packet_ms: Some(30.0) };
    let text = SessionReport { received: stream, sent: stream, ..whole() }.write();
    assert_eq!(
        text.matches("SessionDesc: PT=9 PD=G722 SR=16000 PPS=33 FD=30 FO=240 FPP=1").count(),
        2,
        "{text}"
    );
}

// RFC 6035 4.6.1: names, order and forms.
#[test]
fn f25_a_whole_report_reads_as_the_rfc_has_it() {
    let text = whole().write();
    assert_eq!(text, GOLDEN);
    let body = parse(&text);
    let order = [
        "CallID",
        "LocalID",
        "RemoteID",
        "OrigID",
        "LocalAddr",
        "RemoteAddr",
        "LocalGroup",
        "RemoteGroup",
        "LocalMetrics",
        "Timestamps",
        "SessionDesc",
        "JitterBuffer",
        "PacketLoss",
        "BurstGapLoss",
        "Delay",
        "Signal",
        "QualityEst",
        "RemoteMetrics",
        "Timestamps",
        "SessionDesc",
        "PacketLoss",
        "Delay",
        "QualityEst",
        "DialogID",
    ];
    assert_eq!(body.names, order);
    let number = |line: &str, key: &str| body.local(line, key).unwrap().parse::<f64>().unwrap();
    let quality = measured();
    let near = |told: f64, measured: f32| (told - f64::from(measured)).abs() <= 0.5;
    assert!(near(number("Delay", "RTD"), quality.round_trip_ms.unwrap()));
    assert!(near(number("Delay", "IAJ"), quality.jitter_ms));
    assert!(near(number("JitterBuffer", "JBN"), quality.playout_delay_ms));
    assert!(near(number("BurstGapLoss", "GD"), quality.bursts.gap_ms));
    assert!(near(number("QualityEst", "RCQ"), quality.rating.unwrap().r_factor));
    // Half of there and back, from mouth to ear.
    assert!(near(number("Delay", "SOWD"), (84.6 + 61.0 + 60.0) / 2.0));
    // RFC 3611 4.7.1: lost of expected, in per cent.
    assert_eq!(number("PacketLoss", "NLR"), 500.0 * 100.0 / 10_000.0);
    assert_eq!(number("PacketLoss", "JDR"), 100.0 * 100.0 / 10_000.0);
    // A sine at the end of the range has -3.01 dBov and 3.14 dBm0 (ITU-T G.711 2): 6.15 dB between them.
    assert!(near(number("Signal", "SL"), -27.0 + 6.15));
    assert_eq!(body.remote("PacketLoss", "NLR"), Some("2.50"));
}

// What was not measured is left out, and what has no room in the grammar is bounded.
#[test]
fn f25_what_was_not_measured_is_left_out() {
    let mut report = whole();
    report.reported = Reported::Interval;
    (report.local, report.tags) = (None, None);
    report.incoming = true;
    report.received = StreamDescription { payload_type: 111, codec: Codec::Opus, packet_ms: None };
    report.quality = LegQuality::default();
    report.remote_address.ssrc = None;
    let body = parse(&report.write());
    assert_eq!(body.session["VQIntervalReport"], "");
    assert_eq!(body.session["LocalID"], "<sip:anonymous@anonymous.invalid>");
    assert_eq!(body.session["OrigID"], body.session["RemoteID"]);
    assert_eq!(body.session["RemoteAddr"], "IP=2001:db8::7 PORT=30000 SSRC=0x00000000");
    assert!(body.remote.is_none() && !body.session.contains_key("DialogID"));
    assert_eq!(body.local.keys().collect::<Vec<_>>(), ["SessionDesc", "Timestamps"]);
    let stream =
        BTreeMap::from([("PT", "111"), ("PD", "opus"), ("SR", "48000")].map(|(k, v)| (k.into(), v.into())));
    assert_eq!(body.local["SessionDesc"], stream);

    // Packets that passed as they are: counted, but played by nobody here. Without a round trip the conversation is
    // not rated; without VoIP metrics of the other side its loss alone is known.
    let remote =
        RemoteQuality { loss_percent: 1.0, jitter_ms: 3.0, rating: measured().rating, ..Default::default() };
    report.quality = LegQuality { frames_played: 0, round_trip_ms: None, remote: Some(remote), ..measured() };
    let body = parse(&report.write());
    assert!(!body.local.contains_key("JitterBuffer"));
    assert_eq!(body.local("SessionDesc", "PLC"), None);
    assert_eq!(body.local["Delay"].keys().collect::<Vec<_>>(), ["IAJ"]);
    assert_eq!(body.local["QualityEst"].keys().collect::<Vec<_>>(), ["MOSLQ", "QoEEstAlg", "RLQ"]);
    assert_eq!(body.remote("PacketLoss", "JDR"), None);
    assert!(!body.remote.as_ref().unwrap().contains_key("QualityEst"));

    let quality = &mut report.quality;
    (quality.jitter_ms, quality.bursts.gap_ms) = (1e9, f32::INFINITY);
    (quality.voice_dbov, quality.packets_lost) = (Some(f32::NAN), u64::MAX);
    report.call_id = format!("a\r\nLocalID: <sip:eve@x>\u{85} {}", "b".repeat(2000));
    (report.from_unix_ms, report.until_unix_ms) = (u64::MAX, 0);
    let body = parse(&report.write());
    assert_eq!(body.local("Delay", "IAJ"), Some("65535"));
    assert_eq!((body.local("BurstGapLoss", "GD"), body.local("Signal", "SL")), (None, None));
    assert_eq!(body.local("PacketLoss", "NLR"), Some("100.00"));
    assert_eq!(body.local("Timestamps", "STOP"), Some("9999-12-31T23:59:59Z"));
    assert!(body.session["CallID"].len() < 300 && !body.session["CallID"].contains(['<', ' ']));
}

// RFC 3339 5.6, against what GNU date says.
#[test]
fn f25_times_are_those_of_the_calendar() {
    let cases = [
        (0, "1970-01-01T00:00:00Z"),
        (951_868_799, "2000-02-29T23:59:59Z"),
        (951_868_800, "2000-03-01T00:00:00Z"),
        (1_735_689_599, "2024-12-31T23:59:59Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
        (13_574_563_199, "2400-02-28T23:59:59Z"),
    ];
    for (seconds, expected) in cases {
        let report = SessionReport { from_unix_ms: seconds * 1000 + 999, until_unix_ms: 0, ..whole() };
        assert_eq!(parse(&report.write()).local("Timestamps", "START"), Some(expected), "{seconds}");
    }
}
