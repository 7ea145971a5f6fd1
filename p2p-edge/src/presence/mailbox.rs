//! Texts that wait at a home for devices that are not there.

use std::collections::VecDeque;

use super::Refused;
use super::text::{SignedText, TextId};

/// The part of a mailbox that one sender may fill: one in this many.
const SHARE: usize = 4;

/// The texts of one user.
#[derive(Clone, Debug, Default)]
pub(super) struct Mailbox {
    letters: VecDeque<Letter>,
}

#[derive(Clone, Debug)]
struct Letter {
    text: SignedText,
    size: usize,
    /// One bit for each device that has it.
    had_by: u8,
}

impl Mailbox {
    pub(super) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.letters.len()
    }

    /// Keeps a text. Returns how many bytes it takes: none where it is there already.
    ///
    /// # Errors
    /// `Mailbox` when it is full, or when its sender has its share of it.
    pub(super) fn keep(&mut self, text: SignedText, limit: usize, room: usize) -> Result<usize, Refused> {
        if self.letters.iter().any(|letter| letter.text.text.id == text.text.id) {
            return Ok(0);
        }
        let of_sender = self.letters.iter().filter(|letter| letter.text.text.from == text.text.from).count();
        let size = text.encode().len();
        if self.letters.len() >= limit || of_sender >= (limit / SHARE).max(1) || size > room {
            return Err(Refused::Mailbox);
        }
        self.letters.push_back(Letter { text, size, had_by: 0 });
        Ok(size)
    }

    /// Returns the texts that a device does not have.
    pub(super) fn waiting_for(&self, device: u8) -> impl Iterator<Item = &SignedText> {
        self.letters.iter().filter(move |letter| letter.had_by & bit(device) == 0).map(|letter| &letter.text)
    }

    /// A device has a text. Returns how many bytes that frees: it goes when all `devices` have it.
    pub(super) fn had(&mut self, id: &TextId, device: u8, devices: usize) -> usize {
        let Some(at) = self.letters.iter().position(|letter| letter.text.text.id == *id) else { return 0 };
        let Some(letter) = self.letters.get_mut(at) else { return 0 };
        letter.had_by |= bit(device);
        let all = (0..devices).all(|device| letter.had_by & bit(device as u8) != 0);
        if !all {
            return 0;
        }
        self.letters.remove(at).map_or(0, |letter| letter.size)
    }

    /// Drops what is over. Returns how many texts and bytes went.
    pub(super) fn expire(&mut self, unix: u64) -> (usize, usize) {
        let (mut texts, mut bytes) = (0, 0);
        self.letters.retain(|letter| {
            let stays = letter.text.expires_unix() > unix;
            if !stays {
                (texts, bytes) = (texts + 1, bytes + letter.size);
            }
            stays
        });
        (texts, bytes)
    }

    /// Takes everything out. Returns the texts and their bytes.
    pub(super) fn empty(&mut self) -> (Vec<SignedText>, usize) {
        let bytes = self.letters.iter().map(|letter| letter.size).sum();
        (self.letters.drain(..).map(|letter| letter.text).collect(), bytes)
    }
}

fn bit(device: u8) -> u8 {
    1u8.checked_shl(u32::from(device)).unwrap_or(0)
}
