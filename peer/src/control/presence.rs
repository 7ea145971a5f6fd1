//! Commands of presence and text, and of transfers.
//!
//! ```json
//! {"command":"presence","availability":"busy","note":"until three"}
//! {"command":"contacts","handles":["bob","carol"]}
//! {"command":"rules","allowed":["bob","carol"]}
//! {"command":"text","to":"bob","text":"hello"}
//! {"command":"transfer","to":"carol"}
//! {"command":"transfer","call":"...","consult":"..."}
//! ```

use std::collections::BTreeSet;

use call_model::{Availability, Handle};
use serde_json::Value;

use super::{Complaint, Fields, kind, missing};
use crate::softphone::{Command, TransferTarget};

const AVAILABILITIES: &str = "use available, away, busy or offline";

/// Reads one of these commands; `None` where it is another.
pub(super) fn parse(name: &str, fields: &mut Fields<'_>) -> Result<Option<Command>, Complaint> {
    Ok(Some(match name {
        "presence" => Command::Presence {
            availability: availability(fields)?,
            note: fields.text("note")?.unwrap_or_default(),
        },
        "contacts" => Command::Contacts(
            handles(fields, "handles")?.ok_or_else(|| missing("handles", "a list of handles"))?,
        ),
        "rules" => Command::Rules {
            everybody: fields.flag("everybody")?.unwrap_or(false),
            allowed: handles(fields, "allowed")?.unwrap_or_default(),
            refused: handles(fields, "refused")?.unwrap_or_default(),
        },
        "text" => Command::Text { to: fields.parsed("to")?, text: fields.required_text("text")? },
        "transfer" => {
            let (call, consult) = (fields.call()?, fields.call_named("consult")?);
            let target = match consult {
                Some(consult) => TransferTarget::PartyOf(consult),
                None => TransferTarget::Address(fields.parsed("to")?),
            };
            Command::Transfer { call, target }
        }
        _ => return Ok(None),
    }))
}

fn availability(fields: &mut Fields<'_>) -> Result<Availability, Complaint> {
    let text = fields.required_text("availability")?;
    let all = Availability::SHOWN.into_iter().chain([Availability::Offline]);
    let found = all.into_iter().find(|availability| availability.as_str() == text);
    found
        .ok_or_else(|| Complaint::new("availability", format!("`{text}` is no availability"), AVAILABILITIES))
}

fn handles(fields: &mut Fields<'_>, field: &str) -> Result<Option<BTreeSet<Handle>>, Complaint> {
    let list = match fields.object.remove(field) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(other) => {
            let message = format!("`{field}` is {}", kind(&other));
            return Err(Complaint::new(field, message, "use a list of handles, such as [\"bob\"]"));
        }
    };
    let one = |value: Value| match &value {
        Value::String(text) => text
            .parse::<Handle>()
            .map_err(|error| Complaint::new(field, format!("`{text}`: {error}"), "use handles such as bob")),
        other => {
            Err(Complaint::new(field, format!("`{field}` holds {}", kind(other)), "use handles such as bob"))
        }
    };
    list.into_iter().map(one).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::control::parse as read_line;

    use super::*;

    fn read(line: &str) -> Result<Command, Complaint> {
        read_line(line, &|_| panic!("no clip is named"))
    }

    #[test]
    fn presence_and_text_carry_their_fields() {
        let line = r#"{"command":"presence","availability":"busy","note":"until three"}"#;
        let Ok(Command::Presence { availability, note }) = read(line) else { panic!() };
        assert_eq!((availability, note.as_str()), (Availability::Busy, "until three"));
        let Ok(Command::Contacts(handles)) = read(r#"{"command":"contacts","handles":["bob","carol"]}"#)
        else {
            panic!()
        };
        assert_eq!(handles.len(), 2);
        let Ok(Command::Rules { everybody, allowed, refused }) =
            read(r#"{"command":"rules","everybody":true,"refused":["mallory"]}"#)
        else {
            panic!()
        };
        assert_eq!((everybody, allowed.len(), refused.len()), (true, 0, 1));
        let Ok(Command::Text { to, text }) = read(r#"{"command":"text","to":"bob","text":"hello"}"#) else {
            panic!()
        };
        assert_eq!((to.as_str(), text.as_str()), ("bob", "hello"));
        let Ok(Command::Transfer { call: None, target: TransferTarget::Address(to) }) =
            read(r#"{"command":"transfer","to":"carol"}"#)
        else {
            panic!()
        };
        assert_eq!(to.to_string(), "carol");
        let line = r#"{"command":"transfer","consult":"000000000000000000000000000000ff"}"#;
        assert!(matches!(read(line), Ok(Command::Transfer { target: TransferTarget::PartyOf(_), .. })));
    }

    #[test]
    fn what_is_wrong_with_them_is_named_with_its_field() {
        let cases = [
            (r#"{"command":"presence"}"#, "availability", "missing"),
            (r#"{"command":"presence","availability":"asleep"}"#, "availability", "`asleep`"),
            (r#"{"command":"contacts"}"#, "handles", "missing"),
            (r#"{"command":"contacts","handles":"bob"}"#, "handles", "a string"),
            (r#"{"command":"contacts","handles":[5]}"#, "handles", "a number"),
            (r#"{"command":"rules","allowed":["no handle"]}"#, "allowed", "no handle"),
            (r#"{"command":"text","to":"+4420"}"#, "to", ""),
            (r#"{"command":"transfer"}"#, "to", "missing"),
            (r#"{"command":"transfer","to":"bob","with":1}"#, "with", "no field"),
        ];
        for (line, field, part) in cases {
            let complaint = read(line).unwrap_err();
            assert_eq!(complaint.field.as_deref(), Some(field), "{line}");
            assert!(complaint.message.contains(part), "{line}: {}", complaint.message);
        }
    }
}
