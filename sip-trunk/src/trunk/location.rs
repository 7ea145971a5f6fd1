//! Where a caller in an emergency is: a civic address, a point, or both, as a PIDF-LO document
//! (RFC 4119, RFC 5139, RFC 5491).

use std::fmt::Write as _;

/// The elements of a civic address, in the order of the schema (RFC 5139 3.4), but `country`.
const CIVIC: [&str; 29] = [
    "A1", "A2", "A3", "A4", "A5", "A6", "PRM", "PRD", "RD", "STS", "POD", "POM", "RDSEC", "RDBR", "RDSUBBR",
    "HNO", "HNS", "LMK", "LOC", "FLR", "NAM", "PC", "BLD", "UNIT", "ROOM", "SEAT", "PLC", "PCN", "POBOX",
];

/// The most characters of one element.
const VALUE_MAX: usize = 128;

/// Parts of a degree that a point counts in.
const PER_DEGREE: f64 = 1e7;

/// What is wrong with a location.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// The country is not two letters.
    #[error("\"{0}\" is no country: two letters of ISO 3166-1 are, such as \"DE\"")]
    Country(String),
    /// There is no such element (RFC 5139 3.4).
    #[error("\"{0}\" is no element of a civic address")]
    Element(String),
    /// An element is empty, too long or has control characters.
    #[error("the value of {0} cannot be used: 1 to {VALUE_MAX} characters can")]
    Value(&'static str),
    /// Latitudes go from -90 to 90 degrees, longitudes from -180 to 180.
    #[error("no point of the earth has the latitude {latitude} and the longitude {longitude}")]
    Point {
        /// As it was given, in degrees.
        latitude: String,
        /// As it was given, in degrees.
        longitude: String,
    },
    /// The language is no tag (RFC 5646 2.1).
    #[error("\"{0}\" is no tag of a language, such as \"de\"")]
    Language(String),
    /// Neither an address nor a point was given.
    #[error("a location is a civic address, a point, or both")]
    Nowhere,
}

/// A civic address (RFC 5139).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CivicAddress {
    country: String,
    language: Option<String>,
    /// Known elements with their values, in the order of the schema.
    elements: Vec<(&'static str, String)>,
}

impl CivicAddress {
    /// Builds an address. `country` is a code of ISO 3166-1 in either case, `language` the tag of the
    /// language that it is written in (RFC 5646), `elements` are names of RFC 5139 3.4 with values of up to 128
    /// characters.
    ///
    /// # Errors
    /// Whatever of it cannot stand in a document.
    pub fn new<'a>(
        country: &str,
        language: Option<&str>,
        elements: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, LocationError> {
        if country.len() != 2 || !country.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(LocationError::Country(country.to_owned()));
        }
        if let Some(tag) = language.filter(|tag| !is_language(tag)) {
            return Err(LocationError::Language(tag.to_owned()));
        }
        let mut given = elements
            .into_iter()
            .map(|(name, value)| {
                let place = CIVIC.iter().position(|known| *known == name);
                let place = place.ok_or_else(|| LocationError::Element(name.to_owned()))?;
                let value = value.trim();
                let fits = (1..=VALUE_MAX).contains(&value.chars().count());
                if fits && value.chars().all(stands_in_xml) {
                    Ok((place, value.to_owned()))
                } else {
                    Err(LocationError::Value(CIVIC[place]))
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        given.sort_by_key(|(place, _)| *place);
        given.dedup_by_key(|(place, _)| *place);
        let elements = given.into_iter().map(|(place, value)| (CIVIC[place], value)).collect();
        Ok(Self { country: country.to_ascii_uppercase(), language: language.map(str::to_owned), elements })
    }

    fn write(&self, out: &mut String) {
        let language = self.language.as_ref().map(|tag| format!(" xml:lang=\"{tag}\"")).unwrap_or_default();
        let _ = write!(out, "<ca:civicAddress{language}>\r\n<ca:country>{}</ca:country>\r\n", self.country);
        for (name, value) in &self.elements {
            let _ = write!(out, "<ca:{name}>{}</ca:{name}>\r\n", escaped(value));
        }
        out.push_str("</ca:civicAddress>\r\n");
    }
}

/// A point of WGS 84, or a circle round it (RFC 5491 5.2.1, 5.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// In parts of a degree.
    latitude: i32,
    longitude: i32,
    radius_m: u32,
}

impl Point {
    /// Builds a point from degrees; `radius_m` says how many metres away one may be, 0 that none are meant.
    ///
    /// # Errors
    /// [`LocationError::Point`] beyond ±90 and ±180 degrees.
    pub fn new(latitude: f64, longitude: f64, radius_m: u32) -> Result<Self, LocationError> {
        let fits = |degrees: f64, most: f64| degrees.is_finite() && degrees.abs() <= most;
        if !fits(latitude, 90.0) || !fits(longitude, 180.0) {
            let (latitude, longitude) = (latitude.to_string(), longitude.to_string());
            return Err(LocationError::Point { latitude, longitude });
        }
        // Within ±1.8e9, which an i32 holds.
        let parts = |degrees: f64| (degrees * PER_DEGREE).round() as i32;
        Ok(Self { latitude: parts(latitude), longitude: parts(longitude), radius_m })
    }

    fn write(self, out: &mut String) {
        let degrees = |parts: i32| {
            let text = format!("{:.7}", f64::from(parts) / PER_DEGREE);
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        let at = format!("<gml:pos>{} {}</gml:pos>\r\n", degrees(self.latitude), degrees(self.longitude));
        let _ = match self.radius_m {
            0 => write!(out, "<gml:Point srsName=\"{WGS_84}\">\r\n{at}</gml:Point>\r\n"),
            radius => write!(
                out,
                "<gs:Circle srsName=\"{WGS_84}\">\r\n{at}<gs:radius uom=\"{METRE}\">{radius}</gs:radius>\r\n</gs:Circle>\r\n"
            ),
        };
    }
}

/// Latitude and longitude in WGS 84 (RFC 5491 5.1).
const WGS_84: &str = "urn:ogc:def:crs:EPSG::4326";
/// The metre (RFC 5491 5.2.3).
const METRE: &str = "urn:ogc:def:uom:EPSG::9001";

/// A location. It has an address, a point or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    civic: Option<CivicAddress>,
    point: Option<Point>,
}

impl Location {
    /// The type of the document (RFC 3863 6).
    pub(crate) const CONTENT_TYPE: &str = "application/pidf+xml";

    /// Builds a location.
    ///
    /// # Errors
    /// [`LocationError::Nowhere`] if neither is given.
    pub fn new(civic: Option<CivicAddress>, point: Option<Point>) -> Result<Self, LocationError> {
        if civic.is_none() && point.is_none() {
            return Err(LocationError::Nowhere);
        }
        Ok(Self { civic, point })
    }

    /// Writes the document about `entity`, a URI, whose device is `device`, a URN (RFC 4479 3.3).
    pub(crate) fn document(&self, entity: &str, device: &str) -> String {
        let mut out = String::with_capacity(1500);
        out.push_str(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\"",
        );
        for (prefix, namespace) in NAMESPACES {
            let _ = write!(out, "\r\n xmlns:{prefix}=\"{namespace}\"");
        }
        let _ = write!(out, "\r\n entity=\"{}\">\r\n", escaped(entity));
        // RFC 5491 3.4: descriptions that differ in kind stand in elements of their own, and the first device
        // goes before all others. Help is sent to an address.
        if let Some(civic) = &self.civic {
            device_of("address", device, &mut out, |out| civic.write(out));
        }
        if let Some(point) = self.point {
            device_of("position", device, &mut out, |out| point.write(out));
        }
        out.push_str("</presence>\r\n");
        out
    }
}

const NAMESPACES: [(&str, &str); 6] = [
    ("dm", "urn:ietf:params:xml:ns:pidf:data-model"),
    ("gp", "urn:ietf:params:xml:ns:pidf:geopriv10"),
    ("gbp", "urn:ietf:params:xml:ns:pidf:geopriv10:basicPolicy"),
    ("ca", "urn:ietf:params:xml:ns:pidf:geopriv10:civicAddr"),
    ("gml", "http://www.opengis.net/gml"),
    ("gs", "http://www.opengis.net/pidflo/1.0"),
];

fn device_of(id: &str, device: &str, out: &mut String, location: impl FnOnce(&mut String)) {
    let _ = write!(out, "<dm:device id=\"{id}\">\r\n<gp:geopriv>\r\n<gp:location-info>\r\n");
    location(out);
    // RFC 4119 2.2.2: without leave it ends at whom it is sent to; a call for help goes on from there. Its operator
    // has entered it.
    let _ = write!(
        out,
        "</gp:location-info>\r\n<gp:usage-rules>\r\n\
         <gbp:retransmission-allowed>true</gbp:retransmission-allowed>\r\n</gp:usage-rules>\r\n\
         <gp:method>Manual</gp:method>\r\n</gp:geopriv>\r\n<dm:deviceID>{}</dm:deviceID>\r\n</dm:device>\r\n",
        escaped(device)
    );
}

/// Letters, and after a hyphen letters and digits, eight of them at most (RFC 5646 2.1).
fn is_language(tag: &str) -> bool {
    let mut parts = tag.split('-');
    let part = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
    tag.len() <= 35
        && parts.next().is_some_and(|first| part(first) && first.bytes().all(|b| b.is_ascii_alphabetic()))
        && parts.all(part)
}

/// What may stand in a document at all (XML 1.0 2.2) and is no control character.
fn stands_in_xml(character: char) -> bool {
    !character.is_control() && !matches!(character, '\u{fffe}' | '\u{ffff}')
}

/// Writes text so that it cannot end an element or an attribute (XML 1.0 2.4).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars().filter(|c| stands_in_xml(*c)) {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// RFC 5139 3.4: the schema is a sequence.
    #[test]
    fn e17_elements_of_an_address_stand_in_the_order_of_the_schema() {
        let given = [("PC", "10115"), ("HNO", "1"), ("A1", "Berlin"), ("RD", "Invalidenstraße")];
        let civic = CivicAddress::new("de", Some("de-DE"), given).unwrap();
        let text = Location::new(Some(civic), None).unwrap().document("pres:a@b", "urn:uuid:x");
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what} in {text}"));
        let order = [
            "xml:lang=\"de-DE\"",
            "<ca:country>DE<",
            "<ca:A1>Berlin<",
            "<ca:RD>",
            "<ca:HNO>1<",
            "<ca:PC>10115<",
        ];
        assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{text}");
    }

    /// RFC 5491 5.2.
    #[test]
    fn e17_points_and_circles_are_in_degrees() {
        let text =
            |point: Point| Location::new(None, Some(point)).unwrap().document("pres:a@b", "urn:uuid:x");
        let exact = text(Point::new(-33.8568, 151.2153, 0).unwrap());
        assert!(
            exact.contains("<gml:pos>-33.8568 151.2153</gml:pos>") && exact.contains("</gml:Point>"),
            "{exact}"
        );
        let vague = text(Point::new(90.0, -180.0, 25).unwrap());
        assert!(vague.contains("<gml:pos>90 -180</gml:pos>"), "{vague}");
        assert!(vague.contains("<gs:radius uom=\"urn:ogc:def:uom:EPSG::9001\">25</gs:radius>"), "{vague}");
        for (latitude, longitude) in [(90.1, 0.0), (0.0, -180.1), (f64::NAN, 0.0), (0.0, f64::INFINITY)] {
            assert!(matches!(Point::new(latitude, longitude, 0), Err(LocationError::Point { .. })));
        }
    }

    #[test]
    fn e17_what_is_no_location_is_refused() {
        assert_eq!(Location::new(None, None), Err(LocationError::Nowhere));
        let civic = |country: &str, language, name: &'static str, value: &str| {
            CivicAddress::new(country, language, [(name, value)]).unwrap_err()
        };
        assert_eq!(civic("DEU", None, "A1", "x"), LocationError::Country("DEU".into()));
        assert_eq!(civic("DE", None, "A7", "x"), LocationError::Element("A7".into()));
        for value in ["", " ", "a\u{7}b", &"x".repeat(129)] {
            assert_eq!(civic("DE", None, "A1", value), LocationError::Value("A1"));
        }
        for tag in ["", "d\"e", "de-", "-de", "d3", "deutsches-Recht"] {
            assert_eq!(civic("DE", Some(tag), "A1", "x"), LocationError::Language(tag.into()));
        }
    }

    proptest! {
        /// Whatever an address says, it ends no element.
        #[test]
        fn e17_text_is_escaped(value in "\\PC{1,60}", entity in "\\PC{0,40}") {
            prop_assume!(!value.trim().is_empty());
            let civic = CivicAddress::new("DE", None, [("NAM", value.as_str())]).unwrap();
            let text = Location::new(Some(civic), None).unwrap().document(&entity, "urn:uuid:x");
            let inside = text.split_once("<ca:NAM>").unwrap().1.split_once("</ca:NAM>").unwrap().0;
            prop_assert!(!inside.contains(['<', '>', '"', '\'']));
            let plain = inside.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
            prop_assert_eq!(plain.replace("&apos;", "'").replace("&amp;", "&"), value.trim());
            prop_assert_eq!(text.matches('<').count(), text.matches('>').count());
        }
    }
}
