//! Assigning a telephone number to a user.

use std::path::Path;

use anyhow::{Result, ensure};
use call_model::{Handle, Number};
use p2p_edge::identity::{AssignmentClaims, MAX_ASSIGNMENT_DAYS, Utc, Validity};

use super::{enrolment, next_serial, note, now, write_new};

/// How the list of what was issued calls the assignment of a number.
const NUMBER: &str = "number";

/// Says that a number belongs to a user.
pub(super) fn assign(dir: &Path, number: Number, handle: Handle, days: u64, out: &Path) -> Result<String> {
    ensure!(
        days <= MAX_ASSIGNMENT_DAYS,
        "--days {days}: a number is assigned for at most {MAX_ASSIGNMENT_DAYS} days; assign it again before they are over"
    );
    let authority = enrolment(dir)?;
    let unix = now();
    // No longer than the authority itself.
    let end = Validity::days_from(unix, days).not_after.min(authority.validity().not_after);
    let serial = next_serial(dir)?;
    let claims = AssignmentClaims {
        number: number.clone(),
        handle: handle.clone(),
        serial,
        sequence: unix * 1000,
        expires_unix: end,
    };
    let assignment = authority.assign_number(claims)?;
    write_new(out, &assignment.to_pem(), false)?;
    let validity = Validity { not_before: unix, not_after: end };
    note(dir, serial, NUMBER, &format!("{number} of {handle}"), validity)?;
    let mut said = format!("{}\n  {number} of {handle}, assignment {serial}", out.display());
    said += &format!(", good until {}\n", Utc(end));
    said += "  give it to the user, who publishes it with causeway-peer\n";
    Ok(said)
}
