//! Calls for help: what is called, and where from (RFC 5031, RFC 6442, RFC 6881).

use std::sync::Arc;

use bytes::Bytes;

use super::location::Location;

/// The longest name of a service (RFC 5031 4.1: labels of up to 63 octets).
const SERVICE_MAX: usize = 128;

/// A service that is called in an emergency: `urn:service:sos`, or one below it such as
/// `urn:service:sos.police` (RFC 5031 4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmergencyService(String);

impl EmergencyService {
    /// Reads a name such as `sos` or `sos.fire`, with or without `urn:service:` ahead. `None` for all that is not
    /// below `sos` or is no name.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let name = text.strip_prefix("urn:service:").unwrap_or(&text);
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let sos = name.split('.').next() == Some("sos");
        (sos && name.len() <= SERVICE_MAX && name.split('.').all(label)).then(|| Self(name.to_owned()))
    }

    /// Returns the URN.
    pub fn urn(&self) -> String {
        format!("urn:service:{}", self.0)
    }
}

impl Default for EmergencyService {
    /// `sos`: whatever help there is.
    fn default() -> Self {
        Self("sos".to_owned())
    }
}

/// An emergency call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmergencyCall {
    /// The number as it was dialled, which has no global form. Digits and `*` alone can be called.
    pub dialled: String,
    /// What that number means, for trunks that call it by a URN.
    pub service: EmergencyService,
    /// Where the caller is to be sought.
    pub location: Option<Arc<Location>>,
}

impl EmergencyCall {
    /// Builds a call for whatever help there is, from nowhere known.
    pub fn new(dialled: impl Into<String>) -> Self {
        Self { dialled: dialled.into(), service: EmergencyService::default(), location: None }
    }
}

/// What an emergency call is written for in the Request-URI and in To.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmergencyForm {
    /// The number as it was dialled: `sip:112@host`.
    #[default]
    Dialled,
    /// The URN of the service (RFC 5031, RFC 6881 ED-62).
    Service,
}

impl EmergencyForm {
    /// Returns the name used in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            EmergencyForm::Dialled => "dialled",
            EmergencyForm::Service => "urn",
        }
    }
}

/// A location on its way in an INVITE (RFC 6442 3.1).
#[derive(Clone, Debug)]
pub(crate) struct Enclosure {
    id: String,
    document: String,
    boundary: String,
}

impl Enclosure {
    /// Encloses what is known of where the caller is. `from` is our From, `host` ours, `random` a source of words
    /// that nobody can guess.
    pub(crate) fn new(location: &Location, from: &str, host: &str, mut random: impl FnMut() -> u64) -> Self {
        let entity = from.split_once(':').map_or(from, |(_, rest)| rest);
        let entity = entity.split([';', '?']).next().unwrap_or_default();
        let document = location.document(&format!("pres:{entity}"), &uuid(random(), random()));
        // A message identifier takes no colon and no bracket as IPv6 has them (RFC 2392 2).
        let host: String =
            host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')).collect();
        let id = format!("{:016x}{:016x}@{host}", random(), random());
        Self { id, document, boundary: format!("{:016x}{:016x}", random(), random()) }
    }

    /// Writes the header lines that point to it. It may be used to find who helps (RFC 6442 4.2).
    pub(crate) fn lines(&self) -> [(&'static str, String); 2] {
        [("Geolocation", format!("<cid:{}>", self.id)), ("Geolocation-Routing", "yes".to_owned())]
    }

    /// Writes the body, with its type: the location beside the session description (RFC 5621 4), or alone where
    /// there is none.
    pub(crate) fn body(&self, sdp: Option<&[u8]>) -> (String, Bytes) {
        // RFC 2046 5.1.1: the boundary occurs in no part. Nobody who wrote one of them could know it.
        let mut boundary = self.boundary.clone();
        let within = |part: &[u8], boundary: &str| {
            part.windows(boundary.len()).any(|window| window == boundary.as_bytes())
        };
        while within(self.document.as_bytes(), &boundary) || sdp.is_some_and(|sdp| within(sdp, &boundary)) {
            boundary.push('x');
        }
        let mut out = Vec::with_capacity(self.document.len() + sdp.map_or(0, <[u8]>::len) + 400);
        if let Some(sdp) = sdp {
            out.extend_from_slice(
                format!("--{boundary}\r\nContent-Type: application/sdp\r\n\r\n").as_bytes(),
            );
            out.extend_from_slice(sdp);
            out.extend_from_slice(b"\r\n");
        }
        // RFC 5621 9.2: it is there for the header that points to it, and whoever does not know it takes the call
        // all the same.
        let head = format!(
            "--{boundary}\r\nContent-Type: {}\r\nContent-ID: <{}>\r\n\
             Content-Disposition: by-reference;handling=optional\r\n\r\n",
            Location::CONTENT_TYPE,
            self.id
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(self.document.as_bytes());
        out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        (format!("multipart/mixed;boundary={boundary}"), Bytes::from(out))
    }
}

/// A URN of two random words (RFC 9562 5.4).
fn uuid(high: u64, low: u64) -> String {
    let (high, low) = (high & !0xf000 | 0x4000, low & (u64::MAX >> 2) | 1 << 63);
    format!(
        "urn:uuid:{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::trunk::location::Point;

    /// RFC 5031 4.1.
    #[test]
    fn e17_services_are_below_sos() {
        for (text, urn) in [
            ("sos", "urn:service:sos"),
            ("SOS.Police", "urn:service:sos.police"),
            ("urn:service:sos.animal-control", "urn:service:sos.animal-control"),
        ] {
            assert_eq!(EmergencyService::parse(text).unwrap().urn(), urn);
        }
        for text in
            ["", "police", "sos.", "sos..a", "sos.-a", "sosx", "sos a", "sos>", "urn:service:counseling"]
        {
            assert_eq!(EmergencyService::parse(text), None, "{text:?}");
        }
    }

    /// RFC 2046 5.1.1: whatever the parts say, the boundary is none of it.
    #[test]
    fn e17_the_boundary_is_in_no_part() {
        let place = Location::new(None, Some(Point::new(1.0, 2.0, 0).unwrap())).unwrap();
        let enclosure = Enclosure::new(&place, "sip:a@b", "[2001:db8::1]:5060", || 7);
        let sdp = format!("v=0\r\ns=--{}\r\n", "00000000000000070000000000000007");
        let (kind, body) = enclosure.body(Some(sdp.as_bytes()));
        let boundary = kind.split_once("boundary=").unwrap().1;
        let body = std::str::from_utf8(&body).unwrap();
        assert_eq!(body.matches(&format!("--{boundary}")).count(), 3, "{body}");
        assert!(
            body.starts_with(&format!("--{boundary}\r\n"))
                && body.ends_with(&format!("\r\n--{boundary}--\r\n"))
        );
        assert!(body.contains(&sdp));
        let [(_, pointer), _] = enclosure.lines();
        let id = pointer.strip_prefix("<cid:").unwrap().strip_suffix('>').unwrap();
        assert!(id.ends_with("@2001db815060") && body.contains(&format!("Content-ID: <{id}>\r\n")), "{id}");
    }
}
