//! The `[telemetry]` table.

use super::*;

fn with(lines: &str) -> Result<Config, ConfigError> {
    parse(&format!("{GOOD}\n[telemetry.hep]\n{lines}"))
}

#[test]
fn f25_the_collector_of_hep_is_read_with_its_defaults() {
    assert_eq!(parse(GOOD).unwrap().hep, None);
    for (written, meant) in [
        ("192.0.2.60", "192.0.2.60:9060"),
        ("192.0.2.60:9061", "192.0.2.60:9061"),
        ("2001:db8::60", "[2001:db8::60]:9060"),
        ("[2001:db8::60]", "[2001:db8::60]:9060"),
        ("[2001:db8::60]:9061", "[2001:db8::60]:9061"),
    ] {
        let hep = with(&format!("collector = \"{written}\"")).unwrap().hep.unwrap();
        assert_eq!(hep.collector, meant.parse().unwrap());
        assert_eq!((hep.capture_id, hep.key, hep.messages, hep.quality), (1, None, false, true));
    }
    let hep = with("collector = \"192.0.2.60\"\ncapture_id = 4294967295\nmessages = true\nquality = false");
    let hep = hep.unwrap().hep.unwrap();
    assert_eq!((hep.capture_id, hep.messages, hep.quality), (u32::MAX, true, false));
}

#[test]
fn f25_the_key_of_the_collector_is_in_a_file_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let key = |text: &str| {
        std::fs::write(folder.path().join("hep.key"), text).unwrap();
        let text = format!("{GOOD}\n[telemetry.hep]\ncollector = \"192.0.2.60\"\nkey_file = \"hep.key\"");
        Config::parse(&folder.path().join("causeway.toml"), &text)
    };
    let config = key("open sesame\n").unwrap();
    assert_eq!(config.hep.as_ref().unwrap().key.as_ref().unwrap().expose(), "open sesame");
    assert!(!format!("{config:?}").contains("sesame"));
    assert!(key(" \n").unwrap_err().to_string().contains("hep.key is empty; write the key into it"));
    let said = key(&"k".repeat(256)).unwrap_err().to_string();
    assert!(said.contains("has 256 octets; agree on one of 255 at most"), "{said}");
    let said = with("collector = \"192.0.2.60\"\nkey_file = \"/nowhere/key\"").unwrap_err().to_string();
    assert!(said.contains("telemetry.hep.key_file: /nowhere/key: "), "{said}");
}

#[test]
fn f25_mistakes_about_the_collector_are_named() {
    for (lines, said) in [
        (
            "collector = \"homer.example.com\"",
            ": telemetry.hep.collector: \"homer.example.com\" is no address of a collector; write ADDRESS or ADDRESS:PORT, such as \"192.0.2.60:9060\"; it is sent to by UDP",
        ),
        (
            "collector = \"0.0.0.0:9060\"",
            ": telemetry.hep.collector: \"0.0.0.0:9060\" is no address of a collector",
        ),
        (
            "collector = \"192.0.2.60:0\"",
            ": telemetry.hep.collector: \"192.0.2.60:0\" is no address of a collector",
        ),
        (
            "collector = \"192.0.2.60\"\ncapture_id = -1",
            ": telemetry.hep.capture_id: -1 is out of range; write a number from 0 to 4294967295",
        ),
        (
            "collector = \"192.0.2.60\"\nquality = false",
            ": telemetry.hep.quality: nothing is left to send; set messages = true or leave quality out, or take [telemetry.hep] out",
        ),
        ("", "missing field `collector`"),
        ("collector = \"192.0.2.60\"\nkey = \"x\"", "unknown field `key`"),
    ] {
        let error = with(lines).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
