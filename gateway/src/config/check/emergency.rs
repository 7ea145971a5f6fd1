//! The `[emergency]` table, and what calls between trunks carry.

use std::sync::Arc;

use sip_trunk::trunk::GroupForm;
use sip_trunk::trunk::details::Interconnect;
use sip_trunk::trunk::emergency::EmergencyService;
use sip_trunk::trunk::location::{CivicAddress, Location, LocationError, Point};
use sip_trunk::trunk::parameters::TrunkGroup;

use super::{Check, Checked};
use crate::config::{Emergency, Trunk, shape};

impl Check<'_> {
    pub(super) fn emergency(&self, raw: Option<shape::Emergency>, trunks: &[Trunk]) -> Checked<Emergency> {
        let Some(raw) = raw else { return Ok(Emergency::default()) };
        let trunk = raw.trunk.as_deref();
        let trunk = trunk.map(|text| self.trunk_called("emergency.trunk", text, trunks)).transpose()?;
        if trunk.is_some() == raw.refuse {
            let problem = "calls are either sent to a trunk or refused";
            let remedy = "write trunk = \"NAME\", or refuse = true";
            return self.error::<Emergency>("emergency", problem, remedy);
        }
        let numbers = raw.numbers.unwrap_or_else(|| Emergency::default().numbers);
        for text in &numbers {
            // No number of a subscriber is as short as that (ITU-T E.164 6).
            if !(2..=6).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                let problem = format!("\"{text}\" is no emergency number");
                return self.error("emergency.numbers", problem, "write 2 to 6 digits, such as \"112\"");
            }
        }
        if trunk.is_none() && (raw.location.is_some() || !raw.services.is_empty()) {
            let remedy = "name the trunk that gets them, or leave location and services out";
            return self.error("emergency", "where calls are refused, nobody is told where from", remedy);
        }
        let services = raw.services.into_iter().map(|(number, text)| {
            if !numbers.contains(&number) {
                let problem = format!("\"{number}\" is not among emergency.numbers");
                return self.error("emergency.services", problem, "add it there, or leave it out");
            }
            match EmergencyService::parse(&text) {
                Some(service) => Ok((number, service)),
                None => {
                    let problem = format!("\"{text}\" is no emergency service");
                    self.error("emergency.services", problem, "write one such as \"sos.police\" (RFC 5031)")
                }
            }
        });
        let services = services.collect::<Checked<_>>()?;
        let location = raw.location.map(|raw| self.location(raw)).transpose()?;
        Ok(Emergency { numbers, trunk, services, location: location.map(Arc::new) })
    }

    fn location(&self, raw: shape::Location) -> Checked<Location> {
        let radius = raw.point.as_ref().and_then(|point| point.radius_m);
        let radius = self.within("emergency.location.point.radius_m", radius, 0, 0..=100_000)?;
        match read_location(raw, radius as u32) {
            Ok(location) => Ok(location),
            Err(error) => {
                let civic =
                    "civic = { country = \"DE\", A1 = \"Berlin\", RD = \"Invalidenstraße\", HNO = \"1\" }";
                let remedy =
                    format!("write {civic}, point = {{ latitude = 52.53, longitude = 13.38 }}, or both");
                self.error("emergency.location", error.to_string(), remedy)
            }
        }
    }

    pub(super) fn trunk_group(
        &self,
        key: &str,
        raw: Option<shape::TrunkGroup>,
    ) -> Checked<Option<(TrunkGroup, GroupForm)>> {
        let Some(raw) = raw else { return Ok(None) };
        let form = match raw.form.as_deref() {
            None | Some("contact") => GroupForm::Contact,
            Some("otg") => GroupForm::Otg,
            Some(other) => {
                let remedy = "write \"contact\" (tgrp and trunk-context) or \"otg\"";
                return self.error(format!("{key}.form"), format!("\"{other}\" is no form"), remedy);
            }
        };
        match TrunkGroup::new(&raw.label, &raw.context) {
            Some(group) => Ok(Some((group, form))),
            None => {
                let remedy = "write label = \"tg-1\", context = \"example.com\", or yours";
                self.error(key, "the label or the context cannot stand in a URI", remedy)
            }
        }
    }

    pub(super) fn interconnect(
        &self,
        key: &str,
        raw: Option<shape::Interconnect>,
    ) -> Checked<Option<Interconnect>> {
        let Some(shape::Interconnect { operator }) = raw else { return Ok(None) };
        let plain =
            |name: &String| (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        if !operator.as_ref().is_none_or(plain) {
            let remedy = "write the name this network has there, such as \"example.net\"";
            return self.error(format!("{key}.operator"), "no name of a network", remedy);
        }
        Ok(Some(Interconnect { operator }))
    }
}

fn read_location(raw: shape::Location, radius_m: u32) -> Result<Location, LocationError> {
    let civic = raw.civic.map(|mut elements| {
        let country = elements.remove("country").unwrap_or_default();
        let language = elements.remove("language");
        let elements = elements.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        CivicAddress::new(&country, language.as_deref(), elements)
    });
    let point = raw.point.map(|point| Point::new(point.latitude, point.longitude, radius_m));
    Location::new(civic.transpose()?, point.transpose()?)
}
