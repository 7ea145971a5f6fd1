//! The gates in their order. The same code decides a real call and a test of the routes.

use call_model::{Address, Cause, Decision, Gate, Handle, Number, TrunkName, Verdict, printable};

use super::Switch;
use super::record::MAX_TEXT;

/// The rule by which a user has as many calls as one may have.
pub(super) const USER_LIMIT: &str = "limits.calls_per_user";

/// Where a call comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// From the overlay.
    Overlay {
        /// The caller's handle, proved by a certificate.
        handle: Option<Handle>,
    },
    /// From a trunk, identified by its source address.
    Trunk {
        /// The trunk.
        name: TrunkName,
    },
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a number, by these trunks in this order.
    Trunks(Vec<TrunkName>),
    /// To an overlay user.
    User(Handle),
}

/// What the gates said.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Every gate's word, in order, up to the first refusal.
    pub decisions: Vec<Decision>,
    /// Where the call goes, or the cause of refusal.
    pub target: Result<Target, Cause>,
}

impl Evaluation {
    fn step(&mut self, gate: Gate, verdict: Verdict, rule: impl Into<String>, detail: impl Into<String>) {
        self.decisions.push(Decision { gate, verdict, rule: rule.into(), detail: detail.into() });
    }

    fn pass(&mut self, gate: Gate, rule: impl Into<String>, detail: impl Into<String>) {
        self.step(gate, Verdict::Pass, rule, detail);
    }

    fn refuse(
        mut self,
        gate: Gate,
        cause: Cause,
        rule: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        self.step(gate, Verdict::Refuse, rule, detail);
        self.target = Err(cause);
        self
    }
}

impl Switch {
    /// Runs the gates over a call: identity, normalisation, policy, credit, admission, route.
    /// `dialled` is what was dialled, `to` what that means (`None`: nothing that could be called).
    pub fn evaluate(&self, origin: &Origin, dialled: &str, to: Option<&Address>) -> Evaluation {
        let mut evaluation =
            Evaluation { decisions: Vec::with_capacity(7), target: Err(Cause::NORMAL_UNSPECIFIED) };
        let dialled = printable(dialled, MAX_TEXT);
        match origin {
            Origin::Overlay { handle: Some(_) } => {
                evaluation.pass(
                    Gate::Identity,
                    "overlay.certificate",
                    "the caller's certificate was verified",
                );
            }
            Origin::Overlay { handle: None } => {
                let detail = "only users with a handle certificate may call numbers";
                return evaluation.refuse(
                    Gate::Identity,
                    Cause::CALL_REJECTED,
                    "overlay.certificate",
                    detail,
                );
            }
            Origin::Trunk { name } if self.trunk(name).is_none() => {
                let detail = format!("no trunk is called {name}");
                return evaluation.refuse(Gate::Identity, Cause::CALL_REJECTED, "trunks", detail);
            }
            Origin::Trunk { name } => {
                let rule = format!("trunks.{name}.sources");
                evaluation.pass(Gate::Identity, rule, "the source address belongs to the trunk");
            }
        }
        let Some(to) = to else {
            let detail = format!("\"{dialled}\" is neither a number nor a handle");
            return evaluation.refuse(Gate::Normalisation, Cause::INVALID_NUMBER_FORMAT, "numbers", detail);
        };
        evaluation.pass(Gate::Normalisation, "numbers", format!("{dialled} means {to}"));
        match (origin, to) {
            (Origin::Overlay { handle }, Address::Number(number)) => {
                self.towards_trunk(evaluation, handle.as_ref(), number)
            }
            (Origin::Overlay { .. }, Address::Handle(handle)) => {
                let detail = format!("{handle} is an overlay user: call it in the overlay");
                evaluation.refuse(Gate::Route, Cause::NO_ROUTE_TO_DESTINATION, "routes", detail)
            }
            (Origin::Trunk { name }, to) => self.towards_overlay(evaluation, name, to),
        }
    }

    fn towards_trunk(
        &self,
        mut evaluation: Evaluation,
        user: Option<&Handle>,
        number: &Number,
    ) -> Evaluation {
        let policy = &self.config.policy;
        if let Some(prefix) = policy.deny_prefixes.iter().find(|prefix| number.has_prefix(prefix)) {
            let detail = format!("+{prefix} is denied");
            return evaluation.refuse(Gate::Policy, Cause::CALL_REJECTED, "policy.deny_prefixes", detail);
        }
        match policy.allow_prefixes.iter().find(|prefix| number.has_prefix(prefix)) {
            Some(prefix) => {
                evaluation.pass(Gate::Policy, "policy.allow_prefixes", format!("+{prefix} is allowed"))
            }
            None if policy.allow_prefixes.is_empty() => {
                evaluation.pass(Gate::Policy, "policy", "no prefix is denied");
            }
            None => {
                let detail = format!("no allowed prefix matches {number}");
                return evaluation.refuse(
                    Gate::Policy,
                    Cause::CALL_REJECTED,
                    "policy.allow_prefixes",
                    detail,
                );
            }
        }
        evaluation.step(Gate::Credit, Verdict::Skip, "none", "calls are not charged on this gateway");
        let mut evaluation = match self.admit(evaluation, user, Cause::RESOURCE_UNAVAILABLE) {
            Ok(evaluation) => evaluation,
            Err(refused) => return refused,
        };
        let Some(route) = self.config.routes.iter().find(|route| number.has_prefix(&route.prefix)) else {
            let detail = format!("no route has a prefix of {number}");
            return evaluation.refuse(Gate::Route, Cause::NO_ROUTE_TO_DESTINATION, "routes", detail);
        };
        let rule = format!("routes[{}]", route.index);
        // A trunk that failed its health check is tried last, not never: the check may be wrong.
        let (up, down): (Vec<&TrunkName>, Vec<&TrunkName>) =
            route.trunks.iter().partition(|trunk| !self.trunks_down.contains(*trunk));
        let free = |trunk: &&&TrunkName| {
            let limit = self.trunk(trunk).map_or(0, |known| known.max_calls);
            self.calls_on(trunk) < limit
        };
        let targets: Vec<TrunkName> =
            up.iter().chain(down.iter()).filter(free).map(|trunk| (*trunk).clone()).collect();
        if targets.is_empty() {
            let detail = "every trunk of the route carries as many calls as it may";
            return evaluation.refuse(Gate::Route, Cause::NO_CIRCUIT_AVAILABLE, rule, detail);
        }
        let names: Vec<&str> = targets.iter().map(TrunkName::as_str).collect();
        let detail = format!("prefix +{} goes to {}", route.prefix, names.join(", then "));
        evaluation.pass(Gate::Route, rule, detail);
        evaluation.target = Ok(Target::Trunks(targets));
        evaluation
    }

    fn towards_overlay(&self, mut evaluation: Evaluation, trunk: &TrunkName, to: &Address) -> Evaluation {
        evaluation.pass(Gate::Policy, format!("trunks.{trunk}"), "a configured trunk may call overlay users");
        evaluation.step(Gate::Credit, Verdict::Skip, "none", "calls are not charged on this gateway");
        let handle = match to {
            Address::Handle(handle) => Some((handle, "handle".to_owned())),
            Address::Number(number) => {
                self.config.numbers.get(number).map(|handle| (handle, format!("numbers.{number}")))
            }
        };
        let user = handle.as_ref().map(|(handle, _)| *handle);
        let mut evaluation = match self.admit(evaluation, user, Cause::USER_BUSY) {
            Ok(evaluation) => evaluation,
            Err(refused) => return refused,
        };
        match handle {
            Some((handle, rule)) => {
                evaluation.pass(Gate::Route, rule, format!("{to} is overlay user {handle}"));
                evaluation.target = Ok(Target::User(handle.clone()));
                evaluation
            }
            None => {
                let detail = format!("no overlay user has the number {to}");
                evaluation.refuse(Gate::Route, Cause::UNALLOCATED_NUMBER, "numbers", detail)
            }
        }
    }

    /// `busy` is what a caller hears while the user has as many calls as allowed.
    fn admit(
        &self,
        mut evaluation: Evaluation,
        user: Option<&Handle>,
        busy: Cause,
    ) -> Result<Evaluation, Evaluation> {
        let limits = &self.config.limits;
        if self.draining {
            let detail = "this gateway is finishing its calls and takes no new ones";
            let cause = Cause::SWITCHING_EQUIPMENT_CONGESTION;
            return Err(evaluation.refuse(Gate::Admission, cause, "drain", detail));
        }
        if self.calls.len() >= limits.calls {
            let detail = format!("{} calls are live, and no more are allowed", limits.calls);
            let cause = Cause::SWITCHING_EQUIPMENT_CONGESTION;
            return Err(evaluation.refuse(Gate::Admission, cause, "limits.calls", detail));
        }
        let own = user.and_then(|user| self.calls_of_user.get(user)).copied().unwrap_or(0);
        if own >= limits.calls_per_user {
            let detail = format!("this user has {own} calls, and no more are allowed");
            return Err(evaluation.refuse(Gate::Admission, busy, USER_LIMIT, detail));
        }
        evaluation.pass(
            Gate::Admission,
            "limits",
            format!("{} of {} calls are live", self.calls.len(), limits.calls),
        );
        Ok(evaluation)
    }
}
