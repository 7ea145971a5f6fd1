//! A dialog of a scripted peer, from either end (RFC 3261 12).

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Message, PATIENCE, Peer, finish, message::uri_of};

/// A call of a peer: the dialog and, in it, the transaction that opened it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The INVITE, the gateway's or ours.
    pub invite: Message,
    id: String,
    tag: String,
    /// From of requests that the peer sends.
    local: String,
    remote: String,
    target: String,
    routes: Vec<String>,
    cseq: u32,
}

/// The final answer of an INVITE that is no 2xx.
#[derive(Debug, thiserror::Error)]
#[error("refused: {}", .0.start)]
pub struct DidNotAnswer(pub Message);

impl Call {
    /// Takes up a call of the gateway with 100.
    ///
    /// # Errors
    /// When no INVITE comes.
    pub fn comes_in(peer: &mut Peer) -> Result<Self> {
        let invite = peer.request("INVITE")?;
        ensure!(invite.tag("to").is_none(), "a re-INVITE came: {}", invite.text);
        peer.respond(&invite, 100, "Trying", "", "", "")?;
        let tag = peer.word();
        Ok(Self {
            id: invite.need("call-id")?.to_owned(),
            local: format!("{};tag={tag}", invite.need("to")?),
            remote: invite.need("from")?.to_owned(),
            target: invite.contact().context("no Contact")?,
            routes: invite.all("record-route"),
            cseq: 1000,
            tag,
            invite,
        })
    }

    /// Calls a user of the gateway, with more header lines and a description.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn out(peer: &mut Peer, user: &str, caller: &str, extra: &str, body: &str) -> Result<Self> {
        let (gateway, own) = (peer.gateway(), peer.local());
        Self::out_to(peer, &format!("sip:{user}@{gateway}"), &format!("<sip:{caller}@{own}>"), extra, body)
    }

    /// Calls any URI as anybody.
    ///
    /// # Errors
    /// As [`Call::out`].
    pub fn out_to(peer: &mut Peer, uri: &str, from: &str, extra: &str, body: &str) -> Result<Self> {
        let (tag, id) = (peer.word(), peer.word());
        let (local, remote) = (format!("{from};tag={tag}"), format!("<{uri}>"));
        let contact = if extra.contains("Contact:") {
            String::new()
        } else {
            format!("Contact: <{}>\r\n", peer.contact())
        };
        let text = format!(
            "INVITE {uri} SIP/2.0\r\nVia: {}\r\nMax-Forwards: 70\r\nFrom: {local}\r\nTo: {remote}\r\nCall-ID: {id}\r\n\
             CSeq: 1 INVITE\r\n{contact}Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, PRACK, REFER, NOTIFY, INFO\r\n{extra}",
            peer.via()
        );
        let text = finish(&text, body);
        let target = uri.to_owned();
        let invite = Message::read(&text)?;
        peer.send(text)?;
        Ok(Self { invite, id, tag, local, remote, target, routes: Vec::new(), cseq: 1 })
    }

    /// Our tag.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Answers the INVITE.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn answer(&self, peer: &mut Peer, status: u16, extra: &str, body: &str) -> Result<()> {
        self.answer_as(peer, &self.tag, status, extra, body)
    }

    /// Answers the INVITE with another tag: another telephone behind a proxy that forks.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn answer_as(&self, peer: &mut Peer, tag: &str, status: u16, extra: &str, body: &str) -> Result<()> {
        let invite = self.invite.clone();
        let reason = match status {
            180 => "Ringing",
            183 => "Session Progress",
            200 => "OK",
            486 => "Busy Here",
            _ => "Other",
        };
        // RFC 3261 12.1.1: whoever opens a dialog gives the route back.
        let mut lines = String::new();
        for route in invite.all("record-route") {
            write!(lines, "Record-Route: {route}\r\n")?;
        }
        peer.respond(&invite, status, reason, tag, &(lines + extra), body)
    }

    /// Goes on with the dialog of this tag, as [`Call::answer_as`] opened it.
    pub fn continue_as(&mut self, tag: &str) {
        self.local = self.local.replace(&self.tag, tag);
        tag.clone_into(&mut self.tag);
    }

    /// Answers 200 and waits for the ACK.
    ///
    /// # Errors
    /// When none comes, or one for another dialog.
    pub fn pick_up(&self, peer: &mut Peer, extra: &str, body: &str) -> Result<Message> {
        self.answer(peer, 200, extra, body)?;
        self.acknowledged(peer)
    }

    /// Waits for the ACK of the 2xx.
    ///
    /// # Errors
    /// As [`Call::pick_up`].
    pub fn acknowledged(&self, peer: &mut Peer) -> Result<Message> {
        let ack = self.next(peer, "ACK")?;
        ensure!(ack.cseq().0 == self.invite.cseq().0, "ACK with CSeq {:?}", ack.cseq());
        ensure!(ack.tag("to").as_deref() == Some(&self.tag), "ACK for another dialog: {}", ack.text);
        // RFC 3261 17.1.1.3: that of a 2xx is a transaction of its own.
        ensure!(ack.branch() != self.invite.branch(), "ACK with the branch of the INVITE");
        Ok(ack)
    }

    /// Refuses the call and waits for the ACK.
    ///
    /// # Errors
    /// When none comes.
    pub fn refuse(&self, peer: &mut Peer, status: u16, extra: &str) -> Result<()> {
        self.answer(peer, status, extra, "")?;
        let ack = self.next(peer, "ACK")?;
        // RFC 3261 17.1.1.3: that of another final answer belongs to the transaction of the INVITE.
        ensure!(ack.branch() == self.invite.branch(), "ACK with another branch than the INVITE");
        Ok(())
    }

    /// Waits for a request of this call.
    ///
    /// # Errors
    /// When none comes.
    pub fn next(&self, peer: &mut Peer, method: &str) -> Result<Message> {
        self.next_within(peer, method, PATIENCE)
    }

    /// Waits for a request of this call for at most `limit`.
    ///
    /// # Errors
    /// When none comes.
    pub fn next_within(&self, peer: &mut Peer, method: &str, limit: Duration) -> Result<Message> {
        let ours = |message: &Message| {
            message.method() == Some(method) && message.header("call-id") == Some(self.id.as_str())
        };
        peer.receive(method, limit, ours)
    }

    /// Waits for the end of the call from the gateway, and agrees.
    ///
    /// # Errors
    /// When no BYE comes.
    pub fn is_ended(&self, peer: &mut Peer) -> Result<Message> {
        let bye = self.next(peer, "BYE")?;
        peer.respond(&bye, 200, "OK", "", "", "")?;
        Ok(bye)
    }

    /// Waits for CANCEL, agrees, and ends the INVITE with 487.
    ///
    /// # Errors
    /// When no CANCEL comes, or no ACK.
    pub fn is_cancelled(&self, peer: &mut Peer) -> Result<Message> {
        let cancel = self.next(peer, "CANCEL")?;
        // RFC 3261 9.1.
        ensure!(cancel.branch() == self.invite.branch(), "CANCEL with another branch than the INVITE");
        peer.respond(&cancel, 200, "OK", &self.tag, "", "")?;
        self.refuse(peer, 487, "")?;
        Ok(cancel)
    }

    /// Waits for a response to a request with this CSeq number.
    ///
    /// # Errors
    /// When none comes.
    pub fn response(
        &self,
        peer: &mut Peer,
        cseq: u32,
        method: &str,
        wanted: impl Fn(u16) -> bool,
    ) -> Result<Message> {
        let what = format!("answer to {method}");
        peer.receive(&what, PATIENCE, |message| {
            message.status().is_some_and(&wanted)
                && message.cseq() == (cseq, method.to_owned())
                && message.header("call-id") == Some(self.id.as_str())
        })
    }

    /// Waits until our call is answered: the provisional answers before, and the 2xx, which is acknowledged.
    ///
    /// # Errors
    /// When it is refused, which is acknowledged too, or nothing comes.
    pub fn is_answered(&mut self, peer: &mut Peer, answer: &str) -> Result<(Vec<Message>, Message)> {
        let mut before = Vec::new();
        loop {
            let response = self.response(peer, self.cseq, "INVITE", |_| true)?;
            self.heed(&response);
            match response.status() {
                Some(100..200) => before.push(response),
                Some(200..300) => {
                    self.acknowledge(peer, answer)?;
                    return Ok((before, response));
                }
                _ => {
                    self.acknowledge_refusal(peer, &response)?;
                    bail!(DidNotAnswer(response));
                }
            }
        }
    }

    /// Waits until our call is refused, and acknowledges it.
    ///
    /// # Errors
    /// When it is answered, or nothing comes.
    pub fn is_refused(&mut self, peer: &mut Peer) -> Result<Message> {
        match self.is_answered(peer, "") {
            Ok(_) => bail!("it was answered"),
            Err(error) => error.downcast::<DidNotAnswer>().map(|refused| refused.0),
        }
    }

    /// Learns from a response to our INVITE what later requests need.
    pub fn heed(&mut self, response: &Message) {
        if response.tag("to").is_some()
            && let (Some(to), Some(target)) = (response.header("to"), response.contact())
        {
            (self.remote, self.target) = (to.to_owned(), target);
            // RFC 3261 12.1.2: the caller goes the way back.
            self.routes = response.all("record-route").into_iter().rev().collect();
        }
    }

    /// Sends the ACK of a 2xx to our last INVITE.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn acknowledge(&self, peer: &mut Peer, body: &str) -> Result<()> {
        let text = self.text(peer, "ACK", self.cseq, "", body);
        peer.send(text)
    }

    /// Sends the ACK of a refusal of our last INVITE.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn acknowledge_refusal(&self, peer: &mut Peer, response: &Message) -> Result<()> {
        let (via, to) = (response.need("via")?, response.need("to")?);
        // RFC 3261 17.1.1.3: to where the INVITE went.
        let uri = if self.cseq == 1 { self.invite.uri() } else { &self.target };
        let text = format!(
            "ACK {uri} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {} ACK\r\n",
            self.local, self.id, self.cseq
        );
        peer.send(finish(&text, ""))
    }

    /// Sends a request in the dialog and returns its CSeq number.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn send(&mut self, peer: &mut Peer, method: &str, extra: &str, body: &str) -> Result<u32> {
        self.cseq += 1;
        let text = self.text(peer, method, self.cseq, extra, body);
        peer.send(text)?;
        Ok(self.cseq)
    }

    /// Sends a request in the dialog and waits for its final answer. That of a re-INVITE is acknowledged.
    ///
    /// # Errors
    /// When none comes.
    pub fn ask(&mut self, peer: &mut Peer, method: &str, extra: &str, body: &str) -> Result<Message> {
        let cseq = self.send(peer, method, extra, body)?;
        let answer = self.response(peer, cseq, method, |status| status >= 200)?;
        if method == "INVITE" {
            match answer.status() {
                Some(200..300) => self.acknowledge(peer, "")?,
                _ => self.acknowledge_refusal(peer, &answer)?,
            }
        }
        Ok(answer)
    }

    /// Ends the call and waits for the agreement.
    ///
    /// # Errors
    /// When none comes.
    pub fn hang_up(&mut self, peer: &mut Peer, extra: &str) -> Result<()> {
        let answer = self.ask(peer, "BYE", extra, "")?;
        ensure!(answer.status() == Some(200), "BYE was answered {}", answer.start);
        Ok(())
    }

    fn text(&self, peer: &mut Peer, method: &str, cseq: u32, extra: &str, body: &str) -> String {
        let routes: String = self.routes.iter().map(|route| format!("Route: {route}\r\n")).collect();
        let contact = match method {
            "ACK" | "BYE" => String::new(),
            _ => format!("Contact: <{}>\r\n", peer.contact()),
        };
        let head = format!(
            "{method} {} SIP/2.0\r\nVia: {}\r\n{routes}Max-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n{contact}{extra}",
            uri_of(&format!("<{}>", self.target)),
            peer.via(),
            self.local,
            self.remote,
            self.id,
        );
        finish(&head, body)
    }
}
