//! How long it takes from `invite` to `answer`.
//!
//! The node says in its log when it opens the stream on which the `invite` goes: that is the beginning, however long the
//! callee was looked for before. So the negotiation of the stream counts, and finding does not.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use call_model::{Address, CallId, Caller, Cause};
use p2p_edge::calling::{SessionCommand, SessionEvent};
use p2p_edge::node::{NodeCommand, NodeEvent};
use tests::lab::nodes::Running;
use tokio::time::timeout;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// What the node logs when it opens a stream for an `invite`.
const OPENS: &str = "stream for a call opened on a connection that is up";
/// How long a step of a call may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// One call, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    /// From the command of the caller, whom it has to find first.
    pub(crate) from_command: f64,
    /// From the stream of the `invite`.
    pub(crate) from_invite: f64,
}

/// When each call was first sent somewhere.
#[derive(Debug, Clone, Default)]
struct Opened(Arc<Mutex<HashMap<String, Instant>>>);

#[derive(Default)]
struct Line {
    call: String,
    message: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "call" => self.call = format!("{value:?}"),
            "message" => self.message = format!("{value:?}"),
            _ => {}
        }
    }
}

impl<S: tracing::Subscriber> Layer<S> for Opened {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let now = Instant::now();
        let mut line = Line::default();
        event.record(&mut line);
        if line.message == OPENS {
            let mut opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            opened.entry(line.call).or_insert(now);
        }
    }
}

/// The log of all nodes of this process, from now on.
fn opened() -> &'static Opened {
    static OPENED: OnceLock<Opened> = OnceLock::new();
    OPENED.get_or_init(|| {
        let opened = Opened::default();
        let of_calls = tracing_subscriber::filter::Targets::new()
            .with_target("p2p_edge::node::calls", tracing::Level::DEBUG);
        // Errs where another log was there first; then no call is found in this one.
        let _ = tracing_subscriber::registry().with(opened.clone().with_filter(of_calls)).try_init();
        opened
    })
}

/// Calls, waits for the answer, and hangs up.
pub(crate) async fn call(caller: &mut Running, serial: u128, to: Address) -> Result<Took> {
    let opened = opened();
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let call = CallId::new(unix_ms, serial);
    let invite = NodeCommand::Invite {
        call,
        from: Caller::default(),
        to,
        media: "v=0\r\n".into(),
        ring_timeout: PATIENCE,
    };
    let began = Instant::now();
    caller.handle.send(invite).await?;
    let mut answered = None;
    let over = async {
        while let Some(event) = caller.events.recv().await {
            match event {
                NodeEvent::Call { call: of, event: SessionEvent::Answered { .. } } if of == call => {
                    answered = Some(Instant::now());
                    let command =
                        SessionCommand::Bye { cause: Cause::NORMAL_CALL_CLEARING, text: String::new() };
                    caller.handle.send(NodeCommand::Call { call, command }).await?;
                }
                NodeEvent::Call { call: of, event: SessionEvent::Ended { text, .. } } if of == call => {
                    return Ok(text);
                }
                _ => {}
            }
        }
        bail!("the caller's node has stopped")
    };
    let text = timeout(PATIENCE, over).await.context("a call does not end")??;
    let answered = answered.with_context(|| format!("a call was not answered: {text}"))?;
    let sent = opened.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&call.to_string());
    let sent = sent.context("the node did not log when it sent the invite")?;
    let ms = |since: Instant| answered.saturating_duration_since(since).as_secs_f64() * 1e3;
    Ok(Took { from_command: ms(began), from_invite: ms(sent) })
}
