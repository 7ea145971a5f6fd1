//! What SIP and XMPP send for the same behaviour, in their shortest form.
//!
//! XMPP: the stanzas of RFC 6121 4.2 to 4.5 with the attributes that it makes servers add, without
//! entity capabilities (XEP-0115) and avatars, which real clients send with each. SIP: SUBSCRIBE and
//! NOTIFY of RFC 6665 and RFC 3856 with PIDF (RFC 3863), each with its 200, the headers those of the
//! example in RFC 3856 7 with the Max-Forwards and Supported lines left out where they may be.
//! Transport below (TCP, TLS, UDP) is counted on neither side.

use super::world::Tally;

/// Sizes of the messages, for handles and domains of a given form.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// XMPP: a device tells its server.
    pub xmpp_own: u64,
    /// XMPP: a server tells a contact, by its full address, of an availability.
    pub xmpp_presence: u64,
    /// XMPP: a server tells another server, for the bare address of a contact.
    pub xmpp_between: u64,
    /// XMPP: that somebody is gone, to a contact and between servers.
    pub xmpp_gone: u64,
    /// XMPP: a server asks another for the presence of a contact.
    pub xmpp_probe: u64,
    /// XMPP: a stream is resumed (XEP-0198 5): request and answer.
    pub xmpp_resume: u64,
    /// SIP: SUBSCRIBE and its 200.
    pub sip_subscribe: u64,
    /// SIP: NOTIFY with PIDF and its 200.
    pub sip_notify: u64,
    /// SIP: PUBLISH with PIDF and its 200 (RFC 3903).
    pub sip_publish: u64,
}

impl Sizes {
    /// Writes one message of each kind between two users of supernodes as domains, and measures it.
    pub fn of(handle: &str, contact: &str) -> Self {
        let (domain, other) = ("s042.example.net", "s007.example.net");
        let length = |text: String| text.len() as u64;
        let full = format!("{handle}@{domain}/tZ4kq");
        let presence =
            |to: String| length(format!("<presence from='{full}' to='{to}'><show>away</show></presence>"));
        let gone = |to: String| length(format!("<presence from='{full}' to='{to}' type='unavailable'/>"));
        let resume = "<resume xmlns='urn:xmpp:sm:3' h='42' previd='a1b2c3d4'/>\
                      <resumed xmlns='urn:xmpp:sm:3' h='42' previd='a1b2c3d4'/>";
        let head = |first: &str, event: &str, extra: &str| {
            format!(
                "{first} SIP/2.0\r\nVia: SIP/2.0/TCP {domain};branch=z9hG4bKnashds7\r\nMax-Forwards: 70\r\n\
                 From: <sip:{handle}@{domain}>;tag=31451098\r\nTo: <sip:{contact}@{other}>;tag=12341111\r\n\
                 Call-ID: 32432udfidfjmk342@{domain}\r\nCSeq: 1 {event}\r\n\
                 Contact: <sip:{domain};transport=tcp>\r\n{extra}"
            )
        };
        let ok = |event: &str, extra: &str| {
            format!(
                "SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP {domain};branch=z9hG4bKnashds7\r\n\
                 From: <sip:{handle}@{domain}>;tag=31451098\r\nTo: <sip:{contact}@{other}>;tag=12341111\r\n\
                 Call-ID: 32432udfidfjmk342@{domain}\r\nCSeq: 1 {event}\r\n{extra}Content-Length: 0\r\n\r\n"
            )
        };
        let pidf = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" \
             entity=\"pres:{handle}@{domain}\">\r\n<tuple id=\"t1\"><status><basic>open</basic></status>\
             <contact>sip:{handle}@{domain}</contact></tuple>\r\n</presence>\r\n"
        );
        let with_body = |request: String| {
            let kind = "Content-Type: application/pidf+xml\r\n";
            length(request)
                + length(format!("{kind}Content-Length: {}\r\n\r\n", pidf.len()))
                + pidf.len() as u64
        };
        let contact_uri = format!("sip:{contact}@{other}");
        let subscribe = head(
            &format!("SUBSCRIBE {contact_uri}"),
            "SUBSCRIBE",
            "Event: presence\r\nExpires: 3600\r\nContent-Length: 0\r\n\r\n",
        );
        let notify = head(
            &format!("NOTIFY {contact_uri}"),
            "NOTIFY",
            "Event: presence\r\nSubscription-State: active;expires=3599\r\n",
        );
        let publish = head(
            &format!("PUBLISH sip:{handle}@{domain}"),
            "PUBLISH",
            "Event: presence\r\nExpires: 3600\r\n",
        );
        Self {
            xmpp_own: length("<presence><show>away</show></presence>".to_owned()),
            xmpp_presence: presence(format!("{contact}@{other}/Qm2xv")),
            xmpp_between: presence(format!("{contact}@{other}")),
            xmpp_gone: gone(format!("{contact}@{other}")),
            xmpp_probe: length(format!("<presence from='{full}' to='{contact}@{other}' type='probe'/>")),
            xmpp_resume: resume.len() as u64,
            sip_subscribe: length(subscribe) + length(ok("SUBSCRIBE", "Expires: 3600\r\n")),
            sip_notify: with_body(notify) + length(ok("NOTIFY", "")),
            sip_publish: with_body(publish)
                + length(ok("PUBLISH", "SIP-ETag: dx200xyz\r\nExpires: 3600\r\n")),
        }
    }
}

/// What a user's contacts are like at the moment of an event.
#[derive(Clone, Copy, Debug)]
pub struct Contacts {
    /// All of them.
    pub all: u64,
    /// Those on another server.
    pub elsewhere: u64,
    /// Devices of contacts that are on.
    pub on: u64,
    /// Of these, on another server.
    pub on_elsewhere: u64,
}

/// The traffic of the same behaviour under the other protocols.
#[derive(Clone, Copy, Debug, Default)]
pub struct Others {
    /// XMPP as RFC 6121 has it: who loses its connection comes back as new.
    pub xmpp: Tally,
    /// XMPP where every lost connection is resumed (XEP-0198) and costs nothing else.
    pub xmpp_resumed: Tally,
    /// SIP with a subscription for each contact, refreshed each hour (RFC 3856 6.4).
    pub sip: Tally,
}

fn add(tally: &mut Tally, messages: u64, bytes: u64) {
    tally.messages += messages;
    tally.bytes += messages * bytes;
}

impl Others {
    /// A user comes on.
    pub fn login(&mut self, sizes: &Sizes, contacts: Contacts) {
        for tally in [&mut self.xmpp, &mut self.xmpp_resumed] {
            xmpp_login(tally, sizes, contacts);
        }
        // PUBLISH; SUBSCRIBE to each contact and the NOTIFY that answers it (RFC 6665 4.1.2.2); NOTIFY
        // to those who watch.
        add(&mut self.sip, 2, sizes.sip_publish / 2);
        add(&mut self.sip, 2 * contacts.all, sizes.sip_subscribe / 2);
        add(&mut self.sip, 2 * (contacts.all + contacts.on), sizes.sip_notify / 2);
    }

    /// A user goes, or is lost.
    pub fn logout(&mut self, sizes: &Sizes, contacts: Contacts) {
        for tally in [&mut self.xmpp, &mut self.xmpp_resumed] {
            xmpp_logout(tally, sizes, contacts);
        }
        // Its subscriptions run out by themselves.
        add(&mut self.sip, 2 * contacts.on, sizes.sip_notify / 2);
    }

    /// A user's availability changes.
    pub fn change(&mut self, sizes: &Sizes, contacts: Contacts) {
        for tally in [&mut self.xmpp, &mut self.xmpp_resumed] {
            add(tally, 1, sizes.xmpp_own);
            // To every contact, on or not: the server does not know (RFC 6121 4.4.2).
            add(tally, contacts.elsewhere, sizes.xmpp_between);
            add(tally, contacts.on, sizes.xmpp_presence);
        }
        add(&mut self.sip, 2, sizes.sip_publish / 2);
        add(&mut self.sip, 2 * contacts.on, sizes.sip_notify / 2);
    }

    /// A user's connection is lost and made again from elsewhere.
    pub fn moved(&mut self, sizes: &Sizes, contacts: Contacts) {
        xmpp_logout(&mut self.xmpp, sizes, contacts);
        xmpp_login(&mut self.xmpp, sizes, contacts);
        add(&mut self.xmpp_resumed, 2, sizes.xmpp_resume / 2);
        // A new contact address: every subscription is refreshed with it.
        add(&mut self.sip, 2 * contacts.all, sizes.sip_subscribe / 2);
        add(&mut self.sip, 2 * contacts.all, sizes.sip_notify / 2);
    }

    /// An hour of a user who is on: SIP refreshes, and each refresh is answered by the whole state.
    pub fn hour(&mut self, sizes: &Sizes, contacts: Contacts) {
        add(&mut self.sip, 2, sizes.sip_publish / 2);
        add(&mut self.sip, 2 * contacts.all, sizes.sip_subscribe / 2);
        add(&mut self.sip, 2 * contacts.all, sizes.sip_notify / 2);
    }
}

fn xmpp_login(tally: &mut Tally, sizes: &Sizes, contacts: Contacts) {
    add(tally, 1, sizes.xmpp_own);
    add(tally, contacts.elsewhere, sizes.xmpp_between);
    add(tally, contacts.on, sizes.xmpp_presence);
    // Probes are answered for those who are on; that others are not need not be said (4.3.2).
    add(tally, contacts.elsewhere, sizes.xmpp_probe);
    add(tally, contacts.on_elsewhere, sizes.xmpp_presence);
    add(tally, contacts.on, sizes.xmpp_presence);
}

fn xmpp_logout(tally: &mut Tally, sizes: &Sizes, contacts: Contacts) {
    add(tally, contacts.elsewhere, sizes.xmpp_gone);
    add(tally, contacts.on, sizes.xmpp_gone);
}
