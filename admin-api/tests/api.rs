//! The API over a real socket, against a daemon that answers from memory.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use admin_api::{
    AdminServer, CallFilter, CallList, CallView, Control, Health, HealthState, LadderView, OverlayView,
    ReloadFailure, Reloaded, RouteTest, Scope, TokenDigest, Tokens, TrunkView, Unavailable, WhyView, serve,
};
use call_model::{Address, CallId, TrunkName};

#[derive(Clone, Copy)]
struct Memory {
    answers: bool,
}

impl Control for Memory {
    async fn calls(&self, filter: CallFilter) -> Result<CallList, Unavailable> {
        if !self.answers {
            return Err(Unavailable);
        }
        Ok(CallList { calls: Vec::new(), next: Some(format!("{}-{}", filter.limit, filter.live)) })
    }
    async fn call(&self, _: CallId) -> Result<Option<CallView>, Unavailable> {
        Ok(None)
    }
    async fn why(&self, _: CallId) -> Result<Option<WhyView>, Unavailable> {
        Ok(None)
    }
    async fn ladder(&self, _: CallId) -> Result<Option<LadderView>, Unavailable> {
        Ok(None)
    }
    async fn hang_up(&self, id: CallId) -> Result<bool, Unavailable> {
        Ok(id == CallId::new(1, 1))
    }
    async fn route_test(
        &self,
        to: Address,
        _: Option<Address>,
        _: Option<TrunkName>,
    ) -> Result<RouteTest, Unavailable> {
        Ok(RouteTest { placed: true, targets: vec![to.to_string()], decisions: Vec::new() })
    }
    async fn trunks(&self) -> Result<Vec<TrunkView>, Unavailable> {
        let (name, target) = ("pbx".to_owned(), "udp:127.0.0.1:5060".to_owned());
        let (state, detail) = ("up".to_owned(), "200 OK".to_owned());
        Ok(vec![TrunkView {
            name,
            target,
            state,
            detail,
            calls: 1,
            max_calls: 30,
            nat: false,
            targets: Vec::new(),
        }])
    }
    async fn overlay(&self) -> Result<OverlayView, Unavailable> {
        match self.answers {
            true => Ok(OverlayView { round_trips: 7, ..OverlayView::default() }),
            false => Err(Unavailable),
        }
    }
    async fn health(&self) -> Health {
        Health {
            state: if self.answers { HealthState::Ready } else { HealthState::Unresponsive },
            version: "0".into(),
            uptime_s: 1,
            calls: 0,
            role: "gateway".into(),
            peer_id: String::new(),
            overlay_addresses: Vec::new(),
            overlay_peers: 0,
            reservations: 0,
            turn_allocations: None,
            records: 0,
            presence: Default::default(),
        }
    }
    async fn reload(&self) -> Result<Reloaded, ReloadFailure> {
        match self.answers {
            true => Ok(Reloaded { applied: vec!["routes".into()], restart: Vec::new() }),
            false => Err(ReloadFailure::Broken("causeway.toml:7: routes".into())),
        }
    }
    fn metrics(&self) -> String {
        "# EOF\n".into()
    }
}

fn start(answers: bool) -> AdminServer {
    let tokens = Tokens::new(vec![
        (TokenDigest::of("reader"), Scope::Read),
        (TokenDigest::of("operator"), Scope::Operate),
    ]);
    serve("127.0.0.1:0".parse().unwrap(), tokens, Memory { answers }).unwrap()
}

fn ask(address: SocketAddr, method: &str, path: &str, token: Option<&str>) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\n{authorization}Connection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

#[test]
fn nothing_is_told_without_a_token() {
    let server = start(true);
    for path in ["/v1/calls", "/v1/trunks", "/v1/health", "/v1/overlay", "/metrics", "/v1/nothing", "/"] {
        for token in [None, Some("wrong"), Some("")] {
            let (status, answer) = ask(server.address(), "GET", path, token);
            assert_eq!(status, 401, "{path} {token:?}");
            assert!(answer.contains("application/problem+json") && answer.contains("causeway token new"));
        }
    }
    assert_eq!(ask(server.address(), "GET", "/healthz", None).0, 200);
}

#[test]
fn resources_answer_their_holder() {
    let server = start(true);
    let get = |path: &str| ask(server.address(), "GET", path, Some("reader"));
    assert!(get("/v1/calls?limit=7&live=true").1.contains("7-true"));
    assert!(get("/v1/trunks").1.contains("\"pbx\""));
    assert_eq!(get("/v1/trunks/pbx").0, 200);
    assert_eq!(get("/v1/trunks/none").0, 404);
    assert_eq!(get("/v1/health").0, 200);
    let (status, overlay) = get("/v1/overlay");
    assert!(status == 200 && overlay.contains("\"round_trips\":7"), "{overlay}");
    assert!(get("/metrics").1.contains("application/openmetrics-text"));
    assert!(get("/v1/routes/test?to=%2B44123").1.contains("+44123"));
    assert_eq!(get("/v1/routes/test?to=%2B44123&trunk=pbx").0, 200);
    assert_eq!(get(&format!("/v1/calls?after=live-{}", CallId::new(1, 1))).0, 200);
}

#[test]
fn bad_requests_name_what_is_wrong() {
    let server = start(true);
    let get = |path: &str| ask(server.address(), "GET", path, Some("reader"));
    let cases = [
        ("/v1/calls?limit=0", 400, "limit is 1 to 250"),
        ("/v1/calls?limit=251", 400, "limit is 1 to 250"),
        ("/v1/calls?limit=x", 400, "\"pointer\":\"query\""),
        ("/v1/calls?colour=red", 400, "colour"),
        ("/v1/calls?after=zz", 400, "32 hexadecimal digits"),
        ("/v1/calls?after=live-zz", 400, "32 hexadecimal digits"),
        ("/v1/calls/zz", 400, "32 hexadecimal digits"),
        ("/v1/routes/test?to=%2B0", 400, "country code does not begin with 0"),
        ("/v1/routes/test?to=%2B44123&trunk=pbx2", 400, "no trunk is called pbx2; there are: pbx"),
        ("/v1/routes/test?to=%2B44123&trunk=pbx&from=alice", 400, "from or trunk, not both"),
        ("/v1/calls/00000000000000000000000000000000/why", 404, "no call"),
        ("/v1/nothing", 404, "no such resource"),
    ];
    for (path, status, text) in cases {
        let (got, answer) = get(path);
        assert_eq!(got, status, "{path}");
        assert!(answer.contains(text), "{path}: {answer}");
    }
}

#[test]
fn a_reader_cannot_hang_up() {
    let server = start(true);
    let path = format!("/v1/calls/{}", CallId::new(1, 1));
    assert_eq!(ask(server.address(), "DELETE", &path, Some("reader")).0, 403);
    assert_eq!(ask(server.address(), "DELETE", &path, Some("operator")).0, 202);
    let other = format!("/v1/calls/{}", CallId::new(2, 2));
    assert_eq!(ask(server.address(), "DELETE", &other, Some("operator")).0, 404);
}

#[test]
fn g05_a_reload_tells_what_came_of_it_to_operators_only() {
    let server = start(true);
    assert_eq!(ask(server.address(), "POST", "/v1/reload", Some("reader")).0, 403);
    let (status, answer) = ask(server.address(), "POST", "/v1/reload", Some("operator"));
    assert_eq!(status, 200);
    assert!(answer.contains(r#""applied":["routes"]"#), "{answer}");
    let server = start(false);
    let (status, answer) = ask(server.address(), "POST", "/v1/reload", Some("operator"));
    assert_eq!(status, 422);
    assert!(answer.contains("causeway.toml:7: routes"), "{answer}");
}

#[test]
fn a_busy_daemon_is_told_from_a_missing_thing() {
    let server = start(false);
    let (status, answer) = ask(server.address(), "GET", "/v1/calls", Some("reader"));
    assert_eq!(status, 503);
    assert!(answer.to_lowercase().contains("retry-after: 1"));
    let (status, answer) = ask(server.address(), "GET", "/v1/health", Some("reader"));
    assert_eq!(status, 503);
    assert!(answer.contains("unresponsive"));
}

#[test]
fn a_taken_port_is_named() {
    let first = start(true);
    let error = serve(first.address(), Tokens::default(), Memory { answers: true }).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&first.address().to_string()) && text.contains("admin.listen"), "{text}");
}
