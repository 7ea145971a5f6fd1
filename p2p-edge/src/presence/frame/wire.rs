//! The CBOR form of frames.

use std::sync::Arc;

use call_model::{Availability, Handle};
use libp2p::PeerId;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use super::{DeviceUpdate, Frame, Need, SlotUpdate, Verdict, WatchItem};
use crate::identity::Signed;
use crate::presence::Refused;
use crate::presence::ring::HOMES;
use crate::presence::rules::SignedRules;
use crate::presence::state::{SignedAnnouncement, Statement, Step};
use crate::presence::text::SignedText;

mod kind {
    pub(super) const PUBLISH: u16 = 1;
    pub(super) const CHANGE: u16 = 2;
    pub(super) const WITHDRAW: u16 = 3;
    pub(super) const NEED: u16 = 4;
    pub(super) const REJECTED: u16 = 5;
    pub(super) const RULES: u16 = 6;
    pub(super) const WATCH: u16 = 7;
    pub(super) const UNWATCH: u16 = 8;
    pub(super) const STATES: u16 = 9;
    pub(super) const RESUME: u16 = 10;
    pub(super) const STILL: u16 = 11;
    pub(super) const FORGOTTEN: u16 = 12;
    pub(super) const TEXT: u16 = 13;
    pub(super) const GOT: u16 = 14;
    pub(super) const TAKEN: u16 = 15;
    pub(super) const ASK: u16 = 16;
    pub(super) const CERTIFICATE: u16 = 17;
    pub(super) const ELSEWHERE: u16 = 18;
}

/// The map on the wire. Absent fields are left out; unknown keys are skipped when read. Keys in
/// ascending order and definite lengths make it deterministic (RFC 8949 4.2.1).
#[derive(Default, Encode, Decode)]
#[cbor(map)]
pub(super) struct Wire {
    #[n(0)]
    kind: u16,
    #[n(1)]
    handle: Option<String>,
    #[n(2)]
    device: Option<u8>,
    #[n(3)]
    body: Option<ByteVec>,
    #[n(4)]
    signature: Option<ByteArray<64>>,
    #[n(5)]
    step: Option<WireStep>,
    #[n(6)]
    certificate: Option<ByteVec>,
    #[n(7)]
    delivers: Option<bool>,
    #[n(8)]
    sequence: Option<u64>,
    #[n(9)]
    session: Option<u64>,
    #[n(10)]
    version: Option<u64>,
    #[n(11)]
    watch: Option<Vec<WireWatch>>,
    #[n(12)]
    unwatch: Option<Vec<WireUnwatch>>,
    #[n(13)]
    states: Option<Vec<WireSlot>>,
    #[n(14)]
    text: Option<ByteVec>,
    #[n(15)]
    id: Option<ByteArray<16>>,
    #[n(16)]
    code: Option<u8>,
    #[n(17)]
    needs_certificate: Option<bool>,
    #[n(18)]
    needs_rules: Option<bool>,
    #[n(19)]
    homes: Option<Vec<ByteVec>>,
}

#[derive(Clone, Copy, Encode, Decode)]
#[cbor(array)]
struct WireStep {
    #[n(0)]
    number: u8,
    #[n(1)]
    availability: u8,
    #[n(2)]
    link: ByteArray<16>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct WireWatch {
    #[n(0)]
    slot: u32,
    #[n(1)]
    handle: String,
    #[n(2)]
    mark: u32,
    #[n(3)]
    base: Option<u32>,
    #[n(4)]
    watcher: Option<String>,
    #[n(5)]
    granted: Option<bool>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct WireUnwatch {
    #[n(0)]
    slot: u32,
    #[n(1)]
    watcher: Option<String>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct WireSlot {
    #[n(0)]
    slot: u32,
    #[n(1)]
    snapshot: bool,
    #[n(2)]
    updates: Vec<WireUpdate>,
    #[n(3)]
    granted: Option<Vec<String>>,
    #[n(4)]
    revoked: Option<Vec<String>>,
}

/// One element means that the device is gone, two that there is a step, four that there is an
/// announcement, five that the device is back as it was.
#[derive(Encode, Decode)]
#[cbor(array)]
struct WireUpdate {
    #[n(0)]
    device: u8,
    #[n(1)]
    step: Option<WireStep>,
    #[n(2)]
    body: Option<ByteVec>,
    #[n(3)]
    signature: Option<ByteArray<64>>,
    #[n(4)]
    back: Option<bool>,
}

impl From<&Step> for WireStep {
    fn from(step: &Step) -> Self {
        Self { number: step.number, availability: step.availability.code(), link: step.link.into() }
    }
}

impl WireStep {
    fn read(self) -> Result<Step, Refused> {
        let availability = Availability::from_code(self.availability).ok_or(Refused::Malformed)?;
        if availability == Availability::Offline || self.number == 0 {
            return Err(Refused::Malformed);
        }
        Ok(Step { number: self.number, availability, link: self.link.into() })
    }
}

impl From<&DeviceUpdate> for WireUpdate {
    fn from(update: &DeviceUpdate) -> Self {
        let bare = |device| Self { device, step: None, body: None, signature: None, back: None };
        match update {
            DeviceUpdate::Gone { device } => bare(*device),
            DeviceUpdate::Back { device } => Self { back: Some(true), ..bare(*device) },
            DeviceUpdate::Step { device, step } => Self { step: Some(step.into()), ..bare(*device) },
            DeviceUpdate::Full(statement) => {
                let signed = &statement.announced.signed;
                Self {
                    step: statement.step.as_ref().map(WireStep::from),
                    body: Some(signed.body.clone().into()),
                    signature: Some(signed.signature.into()),
                    ..bare(statement.announced.announcement.device)
                }
            }
        }
    }
}

impl WireUpdate {
    fn read(self) -> Result<DeviceUpdate, Refused> {
        let step = self.step.map(WireStep::read).transpose()?;
        match (step, self.body, self.signature) {
            (None, None, None) if self.back == Some(true) => Ok(DeviceUpdate::Back { device: self.device }),
            (None, None, None) => Ok(DeviceUpdate::Gone { device: self.device }),
            (Some(step), None, None) => Ok(DeviceUpdate::Step { device: self.device, step }),
            (step, Some(body), Some(signature)) => {
                let statement = statement(body, signature, step)?;
                if statement.announced.announcement.device != self.device {
                    return Err(Refused::Malformed);
                }
                Ok(DeviceUpdate::Full(statement))
            }
            _ => Err(Refused::Malformed),
        }
    }
}

fn statement(body: ByteVec, signature: ByteArray<64>, step: Option<Step>) -> Result<Statement, Refused> {
    let signed = Signed { body: body.into(), signature: signature.into() };
    Ok(Statement { announced: Arc::new(SignedAnnouncement::read(signed)?), step })
}

/// Reads a handle, of which there is one spelling.
fn handle(text: String) -> Result<Handle, Refused> {
    let handle: Handle = text.parse().map_err(|_| Refused::Malformed)?;
    if handle.as_str() == text { Ok(handle) } else { Err(Refused::Malformed) }
}

fn handles(texts: Option<Vec<String>>) -> Result<Vec<Handle>, Refused> {
    texts.unwrap_or_default().into_iter().map(handle).collect()
}

fn names(handles: &[Handle]) -> Option<Vec<String>> {
    (!handles.is_empty()).then(|| handles.iter().map(Handle::to_string).collect())
}

fn required<T>(value: Option<T>) -> Result<T, Refused> {
    value.ok_or(Refused::Malformed)
}

impl Wire {
    pub(super) fn of(frame: &Frame) -> Self {
        let new = |kind| Wire { kind, ..Wire::default() };
        let of_device = |kind, handle: &Handle, device: u8| Wire {
            handle: Some(handle.to_string()),
            device: Some(device),
            ..new(kind)
        };
        match frame {
            Frame::Publish { statement, rules, delivers, certificate } => Wire {
                body: Some(statement.announced.signed.body.clone().into()),
                signature: Some(statement.announced.signed.signature.into()),
                step: statement.step.as_ref().map(WireStep::from),
                certificate: certificate.clone().map(ByteVec::from),
                delivers: delivers.then_some(true),
                sequence: (*rules != 0).then_some(*rules),
                ..new(kind::PUBLISH)
            },
            Frame::Change { handle, device, sequence, step } => Wire {
                step: Some(step.into()),
                sequence: Some(*sequence),
                ..of_device(kind::CHANGE, handle, *device)
            },
            Frame::Withdraw { handle, device } => of_device(kind::WITHDRAW, handle, *device),
            Frame::Need { handle, device, need } => Wire {
                needs_certificate: need.certificate.then_some(true),
                needs_rules: need.rules.then_some(true),
                ..of_device(kind::NEED, handle, *device)
            },
            Frame::Rejected { handle, device, reason } => {
                Wire { code: Some(reason.code()), ..of_device(kind::REJECTED, handle, *device) }
            }
            Frame::Elsewhere { handle, homes } => Wire {
                handle: Some(handle.to_string()),
                homes: Some(homes.iter().map(|home| home.to_bytes().into()).collect()),
                ..new(kind::ELSEWHERE)
            },
            Frame::Rules(rules) => Wire {
                body: Some(rules.signed.body.clone().into()),
                signature: Some(rules.signed.signature.into()),
                ..new(kind::RULES)
            },
            Frame::Watch { session, items } => Wire {
                session: Some(*session),
                watch: Some(items.iter().map(WireWatch::from).collect()),
                ..new(kind::WATCH)
            },
            Frame::Unwatch { items } => {
                let item = |(slot, watcher): &(u32, Option<Handle>)| WireUnwatch {
                    slot: *slot,
                    watcher: watcher.as_ref().map(Handle::to_string),
                };
                Wire { unwatch: Some(items.iter().map(item).collect()), ..new(kind::UNWATCH) }
            }
            Frame::States { version, items } => Wire {
                version: Some(*version),
                states: Some(items.iter().map(WireSlot::from).collect()),
                ..new(kind::STATES)
            },
            Frame::Resume { session, version } => {
                Wire { session: Some(*session), version: Some(*version), ..new(kind::RESUME) }
            }
            Frame::Still { version, received } => {
                Wire { sequence: Some(*received), version: Some(*version), ..new(kind::STILL) }
            }
            Frame::Forgotten => new(kind::FORGOTTEN),
            Frame::Text { text, device } => {
                Wire { text: Some(text.encode().into()), device: *device, ..new(kind::TEXT) }
            }
            Frame::Got { handle, device, id } => {
                Wire { id: Some((*id).into()), ..of_device(kind::GOT, handle, *device) }
            }
            Frame::Taken { id, verdict } => Wire {
                id: Some((*id).into()),
                code: match verdict {
                    Verdict::Kept => None,
                    Verdict::Refused(reason) => Some(reason.code()),
                },
                ..new(kind::TAKEN)
            },
            Frame::Ask { handle } => Wire { handle: Some(handle.to_string()), ..new(kind::ASK) },
            Frame::Certificate { handle, certificate } => Wire {
                handle: Some(handle.to_string()),
                certificate: certificate.clone().map(ByteVec::from),
                ..new(kind::CERTIFICATE)
            },
            Frame::Unknown { kind } => new(*kind),
        }
    }

    pub(super) fn read(self) -> Result<Frame, Refused> {
        let device = || required(self.device);
        Ok(match self.kind {
            kind::PUBLISH => Frame::Publish {
                statement: statement(
                    required(self.body)?,
                    required(self.signature)?,
                    self.step.map(WireStep::read).transpose()?,
                )?,
                rules: self.sequence.unwrap_or(0),
                delivers: self.delivers.unwrap_or(false),
                certificate: self.certificate.map(Vec::from),
            },
            kind::CHANGE => Frame::Change {
                device: device()?,
                handle: handle(required(self.handle)?)?,
                sequence: required(self.sequence)?,
                step: required(self.step)?.read()?,
            },
            kind::WITHDRAW => Frame::Withdraw { device: device()?, handle: handle(required(self.handle)?)? },
            kind::NEED => Frame::Need {
                device: device()?,
                handle: handle(required(self.handle)?)?,
                need: Need {
                    certificate: self.needs_certificate.unwrap_or(false),
                    rules: self.needs_rules.unwrap_or(false),
                },
            },
            kind::REJECTED => Frame::Rejected {
                device: device()?,
                handle: handle(required(self.handle)?)?,
                reason: Refused::from_code(required(self.code)?),
            },
            kind::ELSEWHERE => {
                let homes = required(self.homes)?;
                let home = |bytes: ByteVec| PeerId::from_bytes(&bytes).map_err(|_| Refused::Malformed);
                if homes.len() > HOMES {
                    return Err(Refused::Oversize);
                }
                Frame::Elsewhere {
                    handle: handle(required(self.handle)?)?,
                    homes: homes.into_iter().map(home).collect::<Result<_, _>>()?,
                }
            }
            kind::RULES => Frame::Rules(SignedRules::read(Signed {
                body: required(self.body)?.into(),
                signature: required(self.signature)?.into(),
            })?),
            kind::WATCH => Frame::Watch {
                session: required(self.session)?,
                items: required(self.watch)?.into_iter().map(WireWatch::read).collect::<Result<_, _>>()?,
            },
            kind::UNWATCH => {
                let item = |item: WireUnwatch| -> Result<(u32, Option<Handle>), Refused> {
                    Ok((item.slot, item.watcher.map(handle).transpose()?))
                };
                let items = required(self.unwatch)?;
                Frame::Unwatch { items: items.into_iter().map(item).collect::<Result<_, _>>()? }
            }
            kind::STATES => Frame::States {
                version: required(self.version)?,
                items: required(self.states)?.into_iter().map(WireSlot::read).collect::<Result<_, _>>()?,
            },
            kind::RESUME => {
                Frame::Resume { session: required(self.session)?, version: required(self.version)? }
            }
            kind::STILL => {
                Frame::Still { version: required(self.version)?, received: required(self.sequence)? }
            }
            kind::FORGOTTEN => Frame::Forgotten,
            kind::TEXT => {
                Frame::Text { text: SignedText::decode(&required(self.text)?)?, device: self.device }
            }
            kind::GOT => Frame::Got {
                device: device()?,
                handle: handle(required(self.handle)?)?,
                id: required(self.id)?.into(),
            },
            kind::TAKEN => Frame::Taken {
                id: required(self.id)?.into(),
                verdict: match self.code {
                    None => Verdict::Kept,
                    Some(code) => Verdict::Refused(Refused::from_code(code)),
                },
            },
            kind::ASK => Frame::Ask { handle: handle(required(self.handle)?)? },
            kind::CERTIFICATE => Frame::Certificate {
                handle: handle(required(self.handle)?)?,
                certificate: self.certificate.map(Vec::from),
            },
            kind => Frame::Unknown { kind },
        })
    }
}

impl From<&WatchItem> for WireWatch {
    fn from(item: &WatchItem) -> Self {
        Self {
            slot: item.slot,
            handle: item.handle.to_string(),
            mark: item.mark,
            watcher: item.watcher.as_ref().map(|(watcher, _)| watcher.to_string()),
            granted: item.watcher.as_ref().and_then(|(_, granted)| granted.then_some(true)),
            base: (item.base != 0).then_some(item.base),
        }
    }
}

impl WireWatch {
    fn read(self) -> Result<WatchItem, Refused> {
        let granted = self.granted.unwrap_or(false);
        let watcher = self.watcher.map(handle).transpose()?.map(|watcher| (watcher, granted));
        let (mark, base) = (self.mark, self.base.unwrap_or(0));
        Ok(WatchItem { slot: self.slot, handle: handle(self.handle)?, mark, base, watcher })
    }
}

impl From<&SlotUpdate> for WireSlot {
    fn from(update: &SlotUpdate) -> Self {
        Self {
            slot: update.slot,
            snapshot: update.snapshot,
            updates: update.updates.iter().map(WireUpdate::from).collect(),
            granted: names(&update.granted),
            revoked: names(&update.revoked),
        }
    }
}

impl WireSlot {
    fn read(self) -> Result<SlotUpdate, Refused> {
        Ok(SlotUpdate {
            slot: self.slot,
            snapshot: self.snapshot,
            updates: self.updates.into_iter().map(WireUpdate::read).collect::<Result<_, _>>()?,
            granted: handles(self.granted)?,
            revoked: handles(self.revoked)?,
        })
    }
}
