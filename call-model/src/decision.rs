use std::fmt;

/// A gate through which a call goes on its way, in the order in which they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gate {
    /// Who is calling: the certificate of an overlay user, the identification of a trunk.
    Identity,
    /// The number as dialled, brought to its canonical form.
    Normalisation,
    /// What the operator permits.
    Policy,
    /// What the caller can pay.
    Credit,
    /// Whether there is room for the call.
    Admission,
    /// Where the call goes.
    Route,
    /// Which codecs the two legs speak.
    Codec,
    /// What the far side said.
    FarAnswer,
}

impl Gate {
    /// Returns the name used in metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Gate::Identity => "identity",
            Gate::Normalisation => "normalisation",
            Gate::Policy => "policy",
            Gate::Credit => "credit",
            Gate::Admission => "admission",
            Gate::Route => "route",
            Gate::Codec => "codec",
            Gate::FarAnswer => "far_answer",
        }
    }
}

/// What a gate said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The call goes on.
    Pass,
    /// The call ends here.
    Refuse,
    /// The gate had nothing to decide, for the reason in the rule.
    Skip,
}

impl Verdict {
    /// Returns the name used by the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Refuse => "refuse",
            Verdict::Skip => "skip",
        }
    }
}

/// One typed step of why a call went as it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The gate that decided.
    pub gate: Gate,
    /// What it said.
    pub verdict: Verdict,
    /// The rule that decided, by the name the operator knows it by (`routes[2]`, `numbers.+15551000`).
    pub rule: Box<str>,
    /// One sentence for a person.
    pub detail: Box<str>,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} by {}: {}", self.gate.as_str(), self.verdict.as_str(), self.rule, self.detail)
    }
}

/// The class of result of a call: whose doing it was that it ended as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was answered.
    Success,
    /// The caller ended or spoilt it: cancelled, wrong number, not allowed.
    Client,
    /// This gateway could not: no room, no port, a fault of its own.
    Server,
    /// The called side refused, was busy, or failed.
    Upstream,
    /// Nothing answered, so nobody can tell.
    Indeterminate,
}

impl Outcome {
    /// All classes, for metrics that pre-register their series.
    pub const ALL: [Outcome; 5] =
        [Outcome::Success, Outcome::Client, Outcome::Server, Outcome::Upstream, Outcome::Indeterminate];

    /// Returns the name used in metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Client => "client",
            Outcome::Server => "server",
            Outcome::Upstream => "upstream",
            Outcome::Indeterminate => "indeterminate",
        }
    }
}
