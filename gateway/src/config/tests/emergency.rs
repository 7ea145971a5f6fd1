//! Row E17: the `[emergency]` table.

use sip_trunk::trunk::emergency::EmergencyForm;
use sip_trunk::trunk::location::{CivicAddress, Location, Point};

use super::*;

#[test]
fn e17_emergency_calls_go_to_a_trunk_or_are_refused() {
    let with =
        |lines: &str| parse(&GOOD.replacen("[numbers]", &format!("[emergency]\n{lines}\n[numbers]"), 1));
    assert_eq!(parse(GOOD).unwrap().emergency.numbers, ["112", "911"], "refused where nothing is written");
    let emergency = with("numbers = [\"999\"]\ntrunk = \"pbx\"").unwrap().emergency;
    assert_eq!((emergency.numbers, emergency.trunk.unwrap().as_str()), (vec!["999".to_owned()], "pbx"));
    assert_eq!(with("refuse = true").unwrap().emergency.trunk, None);
    for (lines, expected) in [
        (
            "numbers = []",
            "emergency: calls are either sent to a trunk or refused; write trunk = \"NAME\", or refuse = true",
        ),
        ("refuse = true\ntrunk = \"pbx\"", "emergency: calls are either sent to a trunk or refused"),
        ("trunk = \"x\"", "emergency.trunk: no trunk is called \"x\""),
        ("refuse = true\nnumbers = [\"+112\"]", "emergency.numbers: \"+112\" is no emergency number"),
        (
            "trunk = \"pbx\"\nservices = { \"110\" = \"sos\" }",
            "emergency.services: \"110\" is not among emergency.numbers",
        ),
        (
            "trunk = \"pbx\"\nservices = { \"112\" = \"fire\" }",
            "emergency.services: \"fire\" is no emergency service",
        ),
        (
            "refuse = true\nlocation = { point = { latitude = 1.0, longitude = 2.0 } }",
            "emergency: where calls are refused, nobody is told where from",
        ),
    ] {
        let said = with(lines).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
}

// RFC 5031, RFC 5139, RFC 5491.
#[test]
fn e17_emergency_calls_have_a_service_and_a_location() {
    let with = |lines: &str| {
        let table = format!("[emergency]\ntrunk = \"pbx\"\n{lines}\n[numbers]");
        parse(&GOOD.replacen("[numbers]", &table, 1)).map(|config| config.emergency)
    };
    let place = "location = { civic = { country = \"DE\", language = \"de\", A1 = \"Berlin\" }, \
                 point = { latitude = 52.53, longitude = 13.38, radius_m = 25 } }";
    let emergency = with(&format!("services = {{ \"112\" = \"sos.fire\" }}\n{place}")).unwrap();
    let call = emergency.call("112").unwrap();
    assert_eq!((call.dialled.as_str(), call.service.urn().as_str()), ("112", "urn:service:sos.fire"));
    let civic = CivicAddress::new("DE", Some("de"), [("A1", "Berlin")]).unwrap();
    let point = Point::new(52.53, 13.38, 25).unwrap();
    assert_eq!(call.location.as_deref(), Some(&Location::new(Some(civic), Some(point)).unwrap()));
    assert_eq!(emergency.call("911").unwrap().service.urn(), "urn:service:sos");
    assert_eq!(emergency.call("113"), None);
    for (location, expected) in [
        ("{}", "emergency.location: a location is a civic address, a point, or both; write civic ="),
        ("{ civic = { A1 = \"Berlin\" } }", "emergency.location: \"\" is no country"),
        ("{ civic = { country = \"DE\", city = \"x\" } }", "\"city\" is no element of a civic address"),
        ("{ point = { latitude = 91.0, longitude = 0.0 } }", "no point of the earth has the latitude 91"),
        (
            "{ point = { latitude = 1.0, longitude = 0.0, radius_m = -1 } }",
            "emergency.location.point.radius_m",
        ),
    ] {
        let said = with(&format!("location = {location}")).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
    let trunk =
        |text: &str| parse(&GOOD.replacen("[[trunks]]", &format!("[[trunks]]\nemergency = {text}"), 1));
    let form = trunk("\"urn\"").unwrap().trunks[0].sessions.emergency;
    assert_eq!(form, Some(EmergencyForm::Service));
    let said = trunk("\"sos\"").unwrap_err().to_string();
    assert!(
        said.contains("trunks[0].emergency: \"sos\" is no choice; write \"dialled\" or \"urn\""),
        "{said}"
    );
}
