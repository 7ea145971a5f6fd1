//! Commands as JSON lines, from standard input or a unix socket.
//!
//! A line is an object whose `command` is one of
//! `call`, `answer`, `progress`, `reject`, `hangup`, `hold`, `dtmf`, `message`, `transfer`, `play`, `echo`,
//! `record`, `policy`, `presence`, `contacts`, `rules`, `text`, `status`, `quit`. Where a softphone has one call, `call` may be left out.
//!
//! ```json
//! {"command":"call","to":"+442079460018","play":"hello.wav","dtmf":"123#","duration_s":10}
//! {"command":"answer","echo":true}
//! {"command":"hold","on":true}
//! {"command":"policy","mode":"early:2s","early":"please-wait.wav","echo":true}
//! {"command":"policy","mode":"manual","reject_anonymous":true,"follow_transfers":true}
//! {"command":"call","to":"carol","replaces":"0192..."}
//! {"command":"transfer","to":"carol"}
//! {"command":"presence","availability":"busy","note":"until three"}
//! {"command":"contacts","handles":["bob","carol"]}
//! {"command":"rules","allowed":["bob","carol"]}
//! {"command":"text","to":"bob","text":"hello"}
//! ```
//! `message` is text to the other side of a call, `text` to a user who need not be there. Nobody sees a user,
//! or sends it text, before `rules` lets them. A call with `replaces` ends that other call once it is
//! answered; `transfer` asks the other side to do so, by itself where its policy has `follow_transfers`.

mod presence;

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use call_model::{CallId, Cause, DtmfDigit};
use serde_json::{Map, Value};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;

use crate::audio::{AudioError, Clip};
use crate::event::Event;
use crate::softphone::{AnswerMode, AnswerPolicy, CallOptions, Command, Softphone};

/// Longest command line in bytes.
pub const MAX_LINE: usize = 64 * 1024;
/// Control connections at one time.
pub const MAX_CONNECTIONS: usize = 16;
/// Most digits in one command.
pub const MAX_DIGITS: usize = 100;
/// How long a call rings where nothing is said, in seconds.
pub const DEFAULT_RING_S: u64 = 60;

/// Says what is wrong with a command: where, what, and what would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The field, where one is at fault.
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What would help.
    pub remedy: String,
}

impl Complaint {
    fn new(field: &str, message: impl ToString, remedy: impl ToString) -> Self {
        Self { field: Some(field.to_owned()), message: message.to_string(), remedy: remedy.to_string() }
    }
}

impl From<Complaint> for Event {
    fn from(complaint: Complaint) -> Self {
        Event::error(complaint.field.as_deref(), complaint.message, complaint.remedy)
    }
}

const COMMANDS: &str = "call, answer, progress, reject, hangup, hold, dtmf, message, transfer, play, echo, record, \
    policy, presence, contacts, rules, text, status, quit";

/// Reads one command. `load` reads a clip and may block.
///
/// # Errors
/// Names the field that is wrong, missing or unknown, and what would be right.
pub fn parse(line: &str, load: &dyn Fn(&Path) -> Result<Clip, AudioError>) -> Result<Command, Complaint> {
    let object = match serde_json::from_str(line) {
        Ok(Value::Object(object)) => object,
        Ok(_) => {
            let message = "a command is a JSON object";
            return Err(Complaint { field: None, message: message.into(), remedy: example() });
        }
        Err(error) => {
            return Err(Complaint { field: None, message: format!("not JSON: {error}"), remedy: example() });
        }
    };
    let mut fields = Fields { object, load };
    let name = fields.required_text("command")?;
    let command = match name.as_str() {
        "call" => Command::Call {
            to: fields.parsed("to")?,
            display_name: fields.text("display_name")?,
            private: fields.flag("private")?.unwrap_or(false),
            ring_timeout: fields.seconds("ring_timeout_s")?.unwrap_or(Duration::from_secs(DEFAULT_RING_S)),
            options: fields.options()?,
        },
        "answer" => {
            let call = fields.call()?;
            // Options of its own, or those of the policy.
            let options = if fields.object.is_empty() { None } else { Some(fields.options()?) };
            Command::Answer { call, options }
        }
        "progress" => Command::Progress { call: fields.call()?, clip: fields.clip("play")? },
        "reject" => Command::Reject {
            call: fields.call()?,
            cause: fields.cause()?.unwrap_or(Cause::CALL_REJECTED),
            sip_status: fields.sip_status()?,
        },
        "hangup" => Command::HangUp {
            call: fields.call()?,
            cause: fields.cause()?.unwrap_or(Cause::NORMAL_CALL_CLEARING),
        },
        "hold" => Command::Hold { call: fields.call()?, on: fields.required_flag("on")? },
        "dtmf" => Command::Dtmf {
            call: fields.call()?,
            digits: parse_digits(&fields.required_text("digits")?)
                .map_err(|message| Complaint::new("digits", message, DIGITS_REMEDY))?,
        },
        "message" => Command::Message { call: fields.call()?, text: fields.required_text("text")? },
        "play" => Command::Play {
            call: fields.call()?,
            clip: fields.clip("file")?.ok_or_else(|| missing("file", "the path of a wav file"))?,
        },
        "echo" => Command::Echo { call: fields.call()?, on: fields.required_flag("on")? },
        "record" => Command::Record { call: fields.call()?, path: fields.required_text("file")?.into() },
        "policy" => {
            let mode = fields.required_text("mode")?;
            let early = fields.clip("early")?;
            let mode =
                parse_mode(&mode, early).map_err(|message| Complaint::new("mode", message, MODE_REMEDY))?;
            let reject_anonymous = fields.flag("reject_anonymous")?.unwrap_or(false);
            let follow_transfers = fields.flag("follow_transfers")?.unwrap_or(false);
            let options = fields.options()?;
            Command::Policy(AnswerPolicy { mode, options, reject_anonymous, follow_transfers })
        }
        "status" => Command::Status,
        "quit" => Command::Quit,
        other => match presence::parse(other, &mut fields)? {
            Some(command) => command,
            None => {
                let remedy = format!("use one of {COMMANDS}");
                return Err(Complaint::new("command", format!("unknown command `{other}`"), remedy));
            }
        },
    };
    match fields.object.keys().next() {
        Some(unknown) => {
            let message = format!("`{name}` has no field `{unknown}`");
            Err(Complaint::new(unknown, message, "leave it out, or check its spelling"))
        }
        None => Ok(command),
    }
}

const DIGITS_REMEDY: &str = "use at most 100 of 0-9 * # A-D";
const MODE_REMEDY: &str = "use manual, now, after:2s, early:2s, never, busy or reject";

/// Reads digits such as `123#`.
///
/// # Errors
/// Names the character that is no digit, or the length.
pub fn parse_digits(text: &str) -> Result<Vec<DtmfDigit>, String> {
    if text.is_empty() || text.len() > MAX_DIGITS {
        return Err(format!("{} digits: wanted 1 to {MAX_DIGITS}", text.len()));
    }
    text.chars().map(|c| DtmfDigit::from_char(c).ok_or_else(|| format!("`{c}` is no DTMF digit"))).collect()
}

/// Reads an answering mode such as `after:2s`. `early` is the clip of the early mode.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse_mode(text: &str, early: Option<Clip>) -> Result<AnswerMode, String> {
    let (name, wait) = match text.split_once(':') {
        Some((name, wait)) => (name, Some(parse_duration(wait)?)),
        None => (text, None),
    };
    match (name, wait) {
        ("manual", None) => Ok(AnswerMode::Manual),
        ("now", None) => Ok(AnswerMode::After(Duration::ZERO)),
        ("after", Some(wait)) => Ok(AnswerMode::After(wait)),
        ("early", Some(wait)) => Ok(AnswerMode::Early { wait, clip: early }),
        ("never", None) => Ok(AnswerMode::Never),
        ("busy", None) => Ok(AnswerMode::Busy),
        ("reject", None) => Ok(AnswerMode::Reject),
        ("after" | "early", None) => Err(format!("`{name}` needs a time, as in `{name}:2s`")),
        _ => Err(format!("unknown mode `{text}`")),
    }
}

/// Reads a time such as `2s`, `500ms` or `1m`, at most a day.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    let count: u64 = digits.parse().map_err(|_| format!("`{text}` is no time: write 2s, 500ms or 1m"))?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        _ => return Err(format!("`{unit}` is no unit of time: use ms, s or m")),
    };
    match count.checked_mul(unit_ms) {
        Some(ms) if ms <= 86_400_000 => Ok(Duration::from_millis(ms)),
        _ => Err(format!("`{text}` is longer than a day")),
    }
}

/// The fields of a command, taken out one by one; what is left is unknown.
struct Fields<'a> {
    object: Map<String, Value>,
    load: &'a dyn Fn(&Path) -> Result<Clip, AudioError>,
}

impl Fields<'_> {
    fn text(&mut self, field: &str) -> Result<Option<String>, Complaint> {
        match self.object.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => {
                Err(Complaint::new(field, format!("`{field}` is {}", kind(&other)), "use a string"))
            }
        }
    }

    fn required_text(&mut self, field: &str) -> Result<String, Complaint> {
        self.text(field)?.ok_or_else(|| missing(field, "a string"))
    }

    fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, field: &str) -> Result<T, Complaint> {
        let text = self.required_text(field)?;
        text.parse().map_err(|error: T::Err| {
            Complaint::new(field, error, "use a number such as +442079460018 or a handle such as alice")
        })
    }

    fn call(&mut self) -> Result<Option<CallId>, Complaint> {
        self.call_named("call")
    }

    fn call_named(&mut self, field: &str) -> Result<Option<CallId>, Complaint> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        let call = text.parse();
        call.map(Some).map_err(|error| Complaint::new(field, error, "copy it from an event of the call"))
    }

    fn flag(&mut self, field: &str) -> Result<Option<bool>, Complaint> {
        match self.object.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => {
                Err(Complaint::new(field, format!("`{field}` is {}", kind(&other)), "use true or false"))
            }
        }
    }

    fn required_flag(&mut self, field: &str) -> Result<bool, Complaint> {
        self.flag(field)?.ok_or_else(|| missing(field, "true or false"))
    }

    fn seconds(&mut self, field: &str) -> Result<Option<Duration>, Complaint> {
        let remedy = "use seconds from 0 to 86400";
        match self.object.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(seconds) if (0.0..=86_400.0).contains(&seconds) => {
                    Ok(Some(Duration::from_secs_f64(seconds)))
                }
                _ => Err(Complaint::new(field, format!("`{field}` is no such time"), remedy)),
            },
        }
    }

    fn integer(&mut self, field: &str, low: u64, high: u64) -> Result<Option<u64>, Complaint> {
        match self.object.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().filter(|value| (low..=high).contains(value)) {
                Some(value) => Ok(Some(value)),
                None => {
                    let remedy = format!("use an integer from {low} to {high}");
                    Err(Complaint::new(field, format!("`{field}` is out of range"), remedy))
                }
            },
        }
    }

    fn cause(&mut self) -> Result<Option<Cause>, Complaint> {
        let value = self.integer("cause", 1, 127)?;
        Ok(value.and_then(|value| u8::try_from(value).ok()).and_then(Cause::new))
    }

    fn sip_status(&mut self) -> Result<Option<u16>, Complaint> {
        Ok(self.integer("sip_status", 300, 699)?.and_then(|status| u16::try_from(status).ok()))
    }

    fn clip(&mut self, field: &str) -> Result<Option<Clip>, Complaint> {
        let Some(path) = self.text(field)? else { return Ok(None) };
        let clip = (self.load)(&PathBuf::from(path));
        clip.map(Some)
            .map_err(|error| Complaint::new(field, error, "name a wav file that this program can read"))
    }

    fn options(&mut self) -> Result<CallOptions, Complaint> {
        let dtmf = match self.text("dtmf")? {
            Some(text) => {
                parse_digits(&text).map_err(|message| Complaint::new("dtmf", message, DIGITS_REMEDY))?
            }
            None => Vec::new(),
        };
        Ok(CallOptions {
            play: self.clip("play")?,
            record: self.text("record")?.map(PathBuf::from),
            echo: self.flag("echo")?.unwrap_or(false),
            dtmf,
            duration: self.seconds("duration_s")?,
            replaces: self.call_named("replaces")?,
        })
    }
}

fn missing(field: &str, wanted: &str) -> Complaint {
    Complaint::new(field, format!("`{field}` is missing"), format!("add it: {wanted}"))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn example() -> String {
    r#"write one object per line, such as {"command":"call","to":"bob"}"#.to_owned()
}

/// Carries commands to a softphone.
#[derive(Clone, Debug)]
pub struct Controller {
    /// Where commands go.
    pub softphone: Softphone,
    /// Sampling rate of the softphone, to which clips are brought.
    pub sample_rate: u32,
}

impl Controller {
    /// Reads commands until the end of the input or of the softphone.
    pub async fn read_commands(&self, input: impl AsyncBufRead + Unpin) {
        let mut input = input;
        loop {
            let line = match read_line(&mut input).await {
                Ok(Some(line)) => line,
                Ok(None) | Err(_) => return,
            };
            let outcome = match line {
                Line::Text(text) if text.trim().is_empty() => continue,
                Line::Text(text) => self.parse(text).await,
                Line::TooLong => Err(Complaint {
                    field: None,
                    message: format!("a line is longer than {MAX_LINE} bytes"),
                    remedy: "send one command per line".into(),
                }),
                Line::NotUtf8 => {
                    Err(Complaint { field: None, message: "a line is not UTF-8".into(), remedy: example() })
                }
            };
            let command = outcome.unwrap_or_else(|complaint| Command::Show(complaint.into()));
            if self.softphone.send(command).await.is_err() {
                return;
            }
        }
    }

    /// Clips are read from disk: not on the threads that carry media.
    async fn parse(&self, text: String) -> Result<Command, Complaint> {
        let rate = self.sample_rate;
        let parsed = tokio::task::spawn_blocking(move || parse(&text, &|path| Clip::read(path, rate))).await;
        parsed.unwrap_or_else(|_| {
            Err(Complaint { field: None, message: "the command could not be read".into(), remedy: example() })
        })
    }

    /// Serves a unix socket: each connection takes commands and shows every event from then on. A
    /// socket file that a former run has left is replaced; any other file is not.
    ///
    /// # Errors
    /// When the socket cannot be created.
    pub fn listen(&self, path: &Path, events: &broadcast::Sender<String>) -> io::Result<()> {
        if std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        let (controller, events) = (self.clone(), events.clone());
        let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
        tokio::spawn(async move {
            loop {
                let Ok(slot) = slots.clone().acquire_owned().await else { return };
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of file descriptors, most likely: they come back.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let (controller, events) = (controller.clone(), events.subscribe());
                tokio::spawn(async move {
                    controller.serve(stream, events).await;
                    drop(slot);
                });
            }
        });
        Ok(())
    }

    async fn serve(&self, stream: UnixStream, mut events: broadcast::Receiver<String>) {
        let (input, mut output) = stream.into_split();
        let show = async {
            loop {
                match events.recv().await {
                    Ok(line) if output.write_all(line.as_bytes()).await.is_ok() => {}
                    // A reader that lags loses the oldest events and goes on.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    _ => return,
                }
            }
        };
        tokio::select! {
            () = show => {}
            () = self.read_commands(BufReader::new(input)) => {}
        }
    }
}

enum Line {
    Text(String),
    TooLong,
    NotUtf8,
}

/// Reads one line and holds no more than the longest one.
async fn read_line(input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Line>> {
    let (mut line, mut too_long) = (Vec::new(), false);
    loop {
        let buffer = input.fill_buf().await?;
        if buffer.is_empty() && line.is_empty() && !too_long {
            return Ok(None);
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let take = end.unwrap_or(buffer.len());
        too_long |= line.len() + take > MAX_LINE;
        if !too_long {
            line.extend_from_slice(&buffer[..take]);
        }
        let last = end.is_some() || buffer.is_empty();
        let used = end.map_or(take, |at| at + 1);
        input.consume(used);
        if last {
            return Ok(Some(match String::from_utf8(line) {
                _ if too_long => Line::TooLong,
                Ok(text) => Line::Text(text),
                Err(_) => Line::NotUtf8,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(line: &str) -> Result<Command, Complaint> {
        parse(line, &|path| match path.to_str() {
            Some("good.wav") => Ok(Clip::new(&[1, 2, 3])),
            _ => Err(AudioError::TooLong { path: path.into() }),
        })
    }

    #[test]
    fn commands_carry_their_fields() {
        let line = r##"{"command":"call","to":"+44 20 7946 0018","display_name":"Al","private":true,"play":"good.wav",
            "record":"out.wav","dtmf":"12#","duration_s":1.5,"ring_timeout_s":5}"##;
        let Ok(Command::Call { to, display_name, private, ring_timeout, options }) = read(line) else {
            panic!()
        };
        assert_eq!(to.to_string(), "+442079460018");
        assert_eq!((display_name.as_deref(), private), (Some("Al"), true));
        assert_eq!(ring_timeout, Duration::from_secs(5));
        assert_eq!(options.dtmf.len(), 3);
        assert_eq!(options.duration, Some(Duration::from_millis(1_500)));
        assert_eq!(options.play.unwrap().samples(), [1, 2, 3]);
        assert!(matches!(read(r#"{"command":"answer"}"#), Ok(Command::Answer { call: None, options: None })));
        let line = r#"{"command":"answer","call":"000000000000000000000000000000ff","echo":true}"#;
        let Ok(Command::Answer { call: Some(_), options: Some(options) }) = read(line) else { panic!() };
        assert!(options.echo);
        assert!(matches!(read(r#"{"command":"hold","on":false}"#), Ok(Command::Hold { on: false, .. })));
        let policy = read(r#"{"command":"policy","mode":"manual","reject_anonymous":true}"#);
        assert!(matches!(policy, Ok(Command::Policy(AnswerPolicy { reject_anonymous: true, .. }))));
        let policy = read(r#"{"command":"policy","mode":"early:200ms","early":"good.wav"}"#);
        let Ok(Command::Policy(AnswerPolicy { mode: AnswerMode::Early { wait, clip: Some(_) }, .. })) =
            policy
        else {
            panic!()
        };
        assert_eq!(wait, Duration::from_millis(200));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        let cases = [
            ("hello", None, "not JSON"),
            ("[1]", None, "JSON object"),
            ("{}", Some("command"), "missing"),
            (r#"{"command":"dance"}"#, Some("command"), "unknown command `dance`"),
            (r#"{"command":"call"}"#, Some("to"), "missing"),
            (r#"{"command":"call","to":5}"#, Some("to"), "a number"),
            (r#"{"command":"call","to":"+0"}"#, Some("to"), "country code"),
            (r#"{"command":"call","to":"bob","tone":1}"#, Some("tone"), "no field `tone`"),
            (r#"{"command":"call","to":"bob","play":"bad.wav"}"#, Some("play"), "bad.wav"),
            (r#"{"command":"call","to":"bob","duration_s":-1}"#, Some("duration_s"), "time"),
            (r#"{"command":"dtmf","digits":"12x"}"#, Some("digits"), "`x` is no DTMF digit"),
            (r#"{"command":"dtmf","digits":""}"#, Some("digits"), "0 digits"),
            (r#"{"command":"hold","on":"yes"}"#, Some("on"), "a string"),
            (r#"{"command":"hangup","cause":0}"#, Some("cause"), "range"),
            (r#"{"command":"reject","sip_status":200}"#, Some("sip_status"), "range"),
            (r#"{"command":"hangup","call":"7"}"#, Some("call"), "32 hexadecimal"),
            (r#"{"command":"policy","mode":"after"}"#, Some("mode"), "needs a time"),
            (r#"{"command":"play"}"#, Some("file"), "missing"),
        ];
        for (line, field, part) in cases {
            let complaint = read(line).unwrap_err();
            assert_eq!(complaint.field.as_deref(), field, "{line}");
            assert!(complaint.message.contains(part), "{line}: {}", complaint.message);
            assert!(!complaint.remedy.is_empty(), "{line}");
        }
    }

    #[test]
    fn times_have_units_and_a_limit() {
        assert_eq!(parse_duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1m"), Ok(Duration::from_secs(60)));
        for bad in ["", "s", "2h", "-1s", "99999999999999999999s", "100000s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn lines_are_bounded_and_the_next_one_is_found() {
        let long = "x".repeat(MAX_LINE + 10);
        let text = format!("first\n{long}\nsecond\nlast");
        let mut input = BufReader::with_capacity(1_000, text.as_bytes());
        let mut seen = Vec::new();
        while let Some(line) = read_line(&mut input).await.unwrap() {
            seen.push(match line {
                Line::Text(text) => text,
                Line::TooLong => "(too long)".into(),
                Line::NotUtf8 => "(not text)".into(),
            });
        }
        assert_eq!(seen, ["first", "(too long)", "second", "last"]);
        let mut bytes = BufReader::new(&b"\xff\xfe\n"[..]);
        assert!(matches!(read_line(&mut bytes).await, Ok(Some(Line::NotUtf8))));
    }
}
