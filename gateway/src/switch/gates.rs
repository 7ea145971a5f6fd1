//! The gates in their order. The same code decides a real call and a test of the routes.

use call_model::{Address, CallId, Cause, Decision, Gate, Handle, Number, TrunkName, Verdict, printable};

use sip_trunk::trunk::emergency::EmergencyCall;
use sip_trunk::{CallDetails, TransferRequest};

use super::Switch;
use super::call::{Call, State};
use super::record::MAX_TEXT;
use crate::config::{Route, Trunk};

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
    /// To whichever overlay user has this number.
    Number(Number),
}

/// What the gates said.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Every gate's word, in order, up to the first refusal.
    pub decisions: Vec<Decision>,
    /// Where the call goes, or the cause of refusal.
    pub target: Result<Target, Cause>,
    /// The SIP status that says a refusal better than its cause.
    pub sip_status: Option<u16>,
    /// What the caller is told beside the cause of a refusal.
    pub text: Option<String>,
    /// The call for help that it is.
    pub emergency: Option<Box<EmergencyCall>>,
}

impl Evaluation {
    fn new() -> Self {
        Self {
            decisions: Vec::with_capacity(7),
            target: Err(Cause::NORMAL_UNSPECIFIED),
            sip_status: None,
            text: None,
            emergency: None,
        }
    }

    fn step(&mut self, gate: Gate, verdict: Verdict, rule: impl Into<Box<str>>, detail: impl Into<Box<str>>) {
        self.decisions.push(Decision { gate, verdict, rule: rule.into(), detail: detail.into() });
    }

    fn pass(&mut self, gate: Gate, rule: impl Into<Box<str>>, detail: impl Into<Box<str>>) {
        self.step(gate, Verdict::Pass, rule, detail);
    }

    fn refuse(
        mut self,
        gate: Gate,
        cause: Cause,
        rule: impl Into<Box<str>>,
        detail: impl Into<Box<str>>,
    ) -> Self {
        self.step(gate, Verdict::Refuse, rule, detail);
        self.target = Err(cause);
        self
    }

    /// Refuses a call that has been here before: 482 (RFC 3261 21.4.20).
    fn refuse_loop(mut self, rule: impl Into<Box<str>>, detail: impl Into<Box<str>>) -> Self {
        self.sip_status = Some(482);
        self.refuse(Gate::Route, Cause::EXCHANGE_ROUTING_ERROR, rule, detail)
    }
}

/// Who wants to call a number.
#[derive(Clone, Copy)]
enum From<'a> {
    User(Option<&'a Handle>),
    Trunk(&'a TrunkName),
    /// By a transfer, for the far side of a call of its own.
    Transfer(&'a TrunkName),
}

impl Switch {
    /// Runs the gates over a call: identity, normalisation, policy, credit, admission, route.
    /// `dialled` is what was dialled, `to` what that means (`None`: nothing that could be called).
    pub fn evaluate(&self, origin: &Origin, dialled: &str, to: Option<&Address>) -> Evaluation {
        self.evaluate_with(origin, dialled, to, None)
    }

    /// As [`Switch::evaluate`], with what else a trunk said of the call.
    pub fn evaluate_with(
        &self,
        origin: &Origin,
        dialled: &str,
        to: Option<&Address>,
        details: Option<&CallDetails>,
    ) -> Evaluation {
        let mut evaluation = Evaluation::new();
        let dialled = printable(dialled, MAX_TEXT);
        if let (Origin::Overlay { .. }, Some(Address::Number(number))) = (origin, to)
            && let Some(call) = self.config.emergency.call(number.digits())
        {
            return self.emergency(evaluation, number, call);
        }
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
                self.towards_trunk(evaluation, From::User(handle.as_ref()), number, details)
            }
            (Origin::Overlay { .. }, Address::Handle(handle)) => {
                let detail = format!("{handle} is an overlay user: call it in the overlay");
                evaluation.refuse(Gate::Route, Cause::NO_ROUTE_TO_DESTINATION, "routes", detail)
            }
            (Origin::Trunk { name }, Address::Number(number)) if self.is_transit(name, number) => {
                self.towards_trunk(evaluation, From::Trunk(name), number, details)
            }
            (Origin::Trunk { name }, to) => self.towards_overlay(evaluation, name, to),
        }
    }

    /// An emergency call passes no gate that might stop it: it goes out by the trunk that is meant
    /// for it, or its caller learns at once that it cannot be made here (RFC 6881 ED-7).
    fn emergency(&self, mut evaluation: Evaluation, number: &Number, call: EmergencyCall) -> Evaluation {
        let unasked = "an emergency call is not asked";
        evaluation.step(Gate::Identity, Verdict::Skip, "emergency", unasked);
        let detail = format!("{} is an emergency number", number.digits());
        evaluation.pass(Gate::Normalisation, "emergency.numbers", detail);
        for gate in [Gate::Policy, Gate::Credit, Gate::Admission] {
            evaluation.step(gate, Verdict::Skip, "emergency", unasked);
        }
        let Some(trunk) = self.config.emergency.trunk.clone() else {
            let text = "emergency calls cannot be made here: use a telephone";
            evaluation.text = Some(text.to_owned());
            // 380 is what a network says that wants an emergency call made another way (3GPP TS 24.229 5.1.6).
            evaluation.sip_status = Some(380);
            return evaluation.refuse(Gate::Route, Cause::SERVICE_NOT_AVAILABLE, "emergency.refuse", text);
        };
        evaluation.pass(Gate::Route, "emergency.trunk", format!("emergency calls go to {trunk}"));
        evaluation.target = Ok(Target::Trunks(vec![trunk]));
        evaluation.emergency = Some(Box::new(call));
        evaluation
    }

    /// Runs the gates over the call that a trunk asks for by a transfer: those of a new call of that
    /// trunk (RFC 3515 2.4.2), but that it may name itself. What is no number is a name within the
    /// trunk, and so is the far side of a dialog that it wants taken over.
    pub(super) fn evaluate_transfer(&self, name: &TrunkName, request: &TransferRequest) -> Evaluation {
        let mut evaluation = Evaluation::new();
        let rule = format!("trunks.{name}");
        let Some(known) = self.trunk(name) else {
            let detail = format!("no trunk is called {name}");
            return evaluation.refuse(Gate::Identity, Cause::CALL_REJECTED, "trunks", detail);
        };
        evaluation.pass(Gate::Identity, format!("{rule}.transfers"), "the trunk asks for it in its own call");
        let whom = printable(&request.target_user, MAX_TEXT);
        let Some(target) = &request.target else {
            let detail = format!("\"{whom}\" is neither a number nor a handle");
            return evaluation.refuse(Gate::Normalisation, Cause::INVALID_NUMBER_FORMAT, "numbers", detail);
        };
        evaluation.pass(Gate::Normalisation, "numbers", format!("{whom} means {target}"));
        let number = match target {
            Address::Number(number) if request.replaces.is_none() => number,
            _ => return self.within_trunk(evaluation, known),
        };
        let open = |route: &Route| route.from.contains(name) || route.trunks.contains(name);
        if self.config.numbers.contains_key(number) || !self.route_of(number).is_some_and(open) {
            let detail = format!("no route of {number} leads to {name} or is open to calls from it");
            return evaluation.refuse(Gate::Route, Cause::NO_ROUTE_TO_DESTINATION, "routes", detail);
        }
        self.towards_trunk(evaluation, From::Transfer(name), number, None)
    }

    /// The gates of a call to a name that is the trunk's own.
    fn within_trunk(&self, mut evaluation: Evaluation, trunk: &Trunk) -> Evaluation {
        let name = &trunk.name;
        let rule = format!("trunks.{name}");
        evaluation.pass(Gate::Policy, rule.clone(), "a name within the trunk");
        evaluation.step(Gate::Credit, Verdict::Skip, "none", "calls are not charged on this gateway");
        let evaluation = self.admit(evaluation, None, Cause::SWITCHING_EQUIPMENT_CONGESTION);
        let mut evaluation = match evaluation {
            Ok(evaluation) => evaluation,
            Err(refused) => return refused,
        };
        if self.calls_on(name) >= trunk.max_calls {
            let detail = "the trunk carries as many calls as it may";
            return evaluation.refuse(Gate::Route, Cause::NO_CIRCUIT_AVAILABLE, rule, detail);
        }
        evaluation.pass(Gate::Route, rule, format!("names of {name} go to {name}"));
        evaluation.target = Ok(Target::Trunks(vec![name.clone()]));
        evaluation
    }

    /// Finds the route of a number.
    fn route_of(&self, number: &Number) -> Option<&Route> {
        self.config.routes.iter().find(|route| number.has_prefix(&route.prefix))
    }

    /// Says whether a trunk may call a number through to another trunk: its route says so, and the
    /// number is no overlay user's.
    fn is_transit(&self, trunk: &TrunkName, number: &Number) -> bool {
        let open = |route: &Route| route.from.contains(trunk);
        !self.config.numbers.contains_key(number) && self.route_of(number).is_some_and(open)
    }

    fn towards_trunk(
        &self,
        mut evaluation: Evaluation,
        from: From<'_>,
        number: &Number,
        details: Option<&CallDetails>,
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
        let (user, busy) = match from {
            From::User(user) => (user, Cause::RESOURCE_UNAVAILABLE),
            From::Trunk(_) | From::Transfer(_) => (None, Cause::SWITCHING_EQUIPMENT_CONGESTION),
        };
        let evaluation = match self.admit(evaluation, user, busy) {
            Ok(evaluation) => evaluation,
            Err(refused) => return refused,
        };
        let Some(route) = self.route_of(number) else {
            let detail = format!("no route has a prefix of {number}");
            return evaluation.refuse(Gate::Route, Cause::NO_ROUTE_TO_DESTINATION, "routes", detail);
        };
        self.choose_trunks(evaluation, route, from, number, details)
    }

    fn choose_trunks(
        &self,
        mut evaluation: Evaluation,
        route: &Route,
        from: From<'_>,
        number: &Number,
        details: Option<&CallDetails>,
    ) -> Evaluation {
        let rule = format!("routes[{}]", route.index);
        let mut wanted: Vec<&TrunkName> = route.trunks.iter().collect();
        // A trunk may always have its own call sent to a number of its own; elsewhere only where it may call.
        if let From::Transfer(origin) = from
            && !route.from.contains(origin)
        {
            wanted.retain(|trunk| *trunk == origin);
        }
        if let From::Trunk(origin) = from {
            let diverted = |details: &CallDetails| details.is_loop(&Address::Number(number.clone()));
            if details.is_some_and(diverted) {
                let detail = format!("the call was diverted from {number} before");
                return evaluation.refuse_loop("loop", detail);
            }
            if let Some(earlier) = self.sent_there(origin, number) {
                let detail = format!("{origin} sends back call {earlier}, which was sent to it for {number}");
                return evaluation.refuse_loop("loop", detail);
            }
            if !self.trunk(origin).is_some_and(|known| known.hairpin) {
                wanted.retain(|trunk| *trunk != origin);
            }
            if wanted.is_empty() {
                let detail = format!("the route leads back to {origin} only, by which the call came");
                return evaluation.refuse_loop(rule, detail);
            }
            // RFC 4904 5: a group in the request URI names the way out.
            let group = details.and_then(|details| details.parameters.trunk_group.as_ref());
            let of_group = |trunk: &&TrunkName| {
                let own = self.trunk(trunk).and_then(|known| known.trunk_group.as_ref());
                group.is_some() && own.map(|(own, _)| own) == group
            };
            if wanted.iter().any(of_group) {
                wanted.retain(of_group);
            }
        }
        // A trunk that failed its health check is tried last, not never: the check may be wrong.
        let (up, down): (Vec<&TrunkName>, Vec<&TrunkName>) =
            wanted.into_iter().partition(|trunk| !self.trunks_down.contains(*trunk));
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

    /// Finds a call that waits for its answer on a trunk, for a number: when the trunk calls that
    /// number here, it has found nobody but us for it.
    fn sent_there(&self, trunk: &TrunkName, number: &Number) -> Option<CallId> {
        let waits = |call: &&Call| {
            call.callee.state == State::Open
                && !call.is_answered()
                && call.callee.trunk.as_ref() == Some(trunk)
        };
        let asked = self.asked.0.get(number)?.iter().filter_map(|id| self.calls.get(id).map(|call| &**call));
        asked.into_iter().find(waits).map(|call| call.record.id)
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
                let mut detail = format!("no overlay user has the number {to}");
                let number = match to {
                    Address::Number(number) => Some(number),
                    Address::Handle(_) => None,
                };
                if let Some(earlier) = number.and_then(|number| self.sent_there(trunk, number)) {
                    detail += &format!(", and call {earlier} was sent to {trunk} for it");
                    return evaluation.refuse_loop("loop", detail);
                }
                if let Some(number) = number.filter(|_| self.config.policy.find_numbers) {
                    let detail = format!("no number here is {number}: it is looked for in the overlay");
                    evaluation.pass(Gate::Route, "policy.find_numbers", detail);
                    evaluation.target = Ok(Target::Number(number.clone()));
                    return evaluation;
                }
                if let Some(number) = number
                    && let Some(route) = self.route_of(number)
                {
                    let index = route.index;
                    detail += &format!(", and routes[{index}] is not open to calls from {trunk}");
                }
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
