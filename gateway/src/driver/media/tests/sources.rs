//! Who is heard on a leg, and who is not.

use transcoder::leg::rtp::SourceRule;

use super::*;

// RFC 7362 4: who sends from elsewhere is not heard, but for a trunk behind an address translator from where it signals.
#[test]
fn f22_media_from_elsewhere_is_heard_by_the_rule_alone() {
    let (mut engine, mut reports) = small(21_700, 4, 1);
    let party = |address: &str| {
        let socket = std::net::UdpSocket::bind((address, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        socket
    };
    let said = |sequence: u16, code: u8| {
        let mut packet = vec![0x80, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8];
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet.extend([code; 160]);
        packet
    };
    for (number, nat) in [(1, false), (2, true)] {
        let (call, trunk_rtp, onward_rtp) = open_relay(&mut engine, number);
        // The description of the PBX names a port where nobody is: the translator has made another of it.
        let (described, pbx, carrier) = (party("127.0.0.1"), party("127.0.0.1"), party("127.0.0.1"));
        let injector = party("127.0.0.2");
        let signalling = SourceRule::Signalling(pbx.local_addr().unwrap().ip());
        let source_rule = if nat { signalling } else { SourceRule::Negotiated };
        for (side, socket, source_rule) in
            [(Side::Trunk, &described, source_rule), (Side::Onward, &carrier, SourceRule::Negotiated)]
        {
            let media = plain(Codec::Pcma, socket.local_addr().unwrap());
            let media = MediaCommand::TrunkMedia { call, side, media, in_band_digits: false, source_rule };
            engine.handle(Instant::now(), media);
        }
        let mut heard = [0; 512];
        // The order that brings the media may still be on its way to the thread.
        let there = (0..100).any(|_| {
            carrier.send_to(&said(1, 0xd5), onward_rtp).unwrap();
            described.recv_from(&mut heard).is_ok_and(|(length, _)| length == 172)
        });
        assert!(there);
        for sequence in 0..20 {
            injector.send_to(&said(500 + sequence, 0x11), trunk_rtp).unwrap();
            pbx.send_to(&said(sequence, 0x2a), trunk_rtp).unwrap();
            injector.send_to(&said(500 + sequence, 0x11), trunk_rtp).unwrap();
        }
        let mut codes = Vec::new();
        while let Ok((length, _)) = carrier.recv_from(&mut heard) {
            if length == 172 {
                codes.push(heard[100]);
            }
        }
        assert_eq!(codes, if nat { vec![0x2a; 20] } else { Vec::new() }, "nat {nat}");
        carrier.send_to(&said(2, 0x3b), onward_rtp).unwrap();
        let to = if nat { &pbx } else { &described };
        let came = (0..10).find_map(|_| to.recv_from(&mut heard).ok().filter(|(length, _)| *length == 172));
        assert_eq!(came.map(|(_, source)| (source, heard[100])), Some((trunk_rtp, 0x3b)), "nat {nat}");
        assert!((0..5).all(|_| injector.recv_from(&mut heard).is_err()), "nothing goes to a stranger");
        close(&mut engine, &mut reports, call);
    }
    let counters = engine.counters();
    let threads: Vec<_> = counters.iter().map(|counters| &counters.refusals).collect();
    let refused = PublishedRefusals::total(&threads);
    assert_eq!(refused.iter().find(|(reason, _)| *reason == "source"), Some(&("source", 100)), "{refused:?}");
    assert_eq!(PublishedRefusals::moves(&threads), 1);
}
