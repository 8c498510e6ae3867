//! Every route against every role and against strangers; the routes are read from the source, so none can be forgotten.

use axum::http::StatusCode;
use picket_common::api::{NewToken, Token};

use super::*;

const ROLES: [(&str, &str); 5] = [
    ("viewer", "pkt_viewer"),
    ("operator", "pkt_operator"),
    ("fencer", "pkt_fencer"),
    ("auditor", "pkt_auditor"),
    ("admin", TOKEN),
];

/// Routes that need no token.
const OPEN: [(&str, &str); 3] = [("GET", "/livez"), ("GET", "/readyz"), ("POST", "/v1/agents/join")];

/// Every method and path of the router's source.
fn routes() -> Vec<(&'static str, String)> {
    let source = include_str!("../mod.rs");
    let mut routes = Vec::new();
    for route in source.split(".route(\"").skip(1) {
        let (path, rest) = route.split_once('"').unwrap();
        let methods = rest.split("fn ").next().unwrap();
        for (word, method) in [("get(", "GET"), ("put(", "PUT"), ("post(", "POST"), ("patch(", "PATCH"), ("delete(", "DELETE")] {
            let named =
                methods.match_indices(word).any(|(at, _)| !methods[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            if named {
                routes.push((method, path.to_owned()));
            }
        }
    }
    routes
}

/// The path with ids of things that there are.
fn example(path: &str) -> String {
    let id = |name: &str| match name {
        "zone" => "z1",
        "cluster" => "c1",
        "rack" => "r1",
        "host" => "h1",
        "agent" => "r1",
        "alert" => "bmc-lost.h1",
        "operation" => "0190b7a0-0000-7000-8000-000000000000",
        "token" => "0123456789abcdef",
        "receiver" => "true",
        "silence" => "0190b7a0-0000-7000-8000-000000000001",
        other => panic!("an example for {{{other}}} is missing here"),
    };
    path.split('/')
        .map(|part| part.strip_prefix('{').and_then(|part| part.strip_suffix('}')).map_or(part, id))
        .collect::<Vec<_>>()
        .join("/")
}

/// A body that passes for what it is.
fn body(method: &str, path: &str) -> &'static str {
    match (method, path) {
        ("PUT", "/v1/clusters/{cluster}" | "/v1/racks/{rack}") => r#"{"zone":"z1"}"#,
        ("PUT", "/v1/hosts/{host}") => r#"{"cluster":"c1","rack":"r1"}"#,
        ("POST", "/v1/hosts/{host}/power") => r#"{"operation":"off"}"#,
        ("POST", "/v1/hosts/{host}/bootdev") => r#"{"device":"pxe"}"#,
        ("POST", "/v1/hosts/{host}/bmc/resolve-password") => r#"{"in_force":"new"}"#,
        ("POST", "/v1/operations") => r#"{"select":"h1","operation":"off"}"#,
        ("POST", "/v1/racks/{rack}/secrets") => RESEAL,
        ("POST", "/v1/agents/tokens") => r#"{"rack":"r1"}"#,
        ("POST", "/v1/consumers") => r#"{"name":"nagios"}"#,
        ("POST", "/v1/hosts/{host}/pause" | "/v1/clusters/{cluster}/pause") => r#"{"minutes":10}"#,
        ("POST", path) if path.contains("/fence") || path.ends_with("-counters") || path.ends_with("-cliff") => {
            r#"{"reason":"it hangs"}"#
        }
        ("POST", "/v1/silences") => r#"{"matchers":["host=h1"],"duration":60}"#,
        ("POST", "/v1/alerts/{alert}/silence") => r#"{"duration":60}"#,
        ("POST", "/v1/tokens") => r#"{"name":"bob","role":"viewer"}"#,
        _ => "",
    }
}

const RESEAL: &str = r#"{"sealing_key":"0000000000000000000000000000000000000000000000000000000000000000","items":[]}"#;

#[tokio::test]
async fn every_route_is_closed_to_strangers() {
    let rig = Rig::new().await;
    let routes = routes();
    assert!(routes.len() > 35, "the routes were not found: {routes:?}");
    for (method, path) in &routes {
        if OPEN.contains(&(*method, path.as_str())) {
            continue;
        }
        for (token, code) in [
            (None, "unauthenticated"),
            (Some("pkt_unknown"), "token-refused"),
            (Some("pkt_old"), "token-refused"),
            (Some("x"), "unauthenticated"),
        ] {
            let mut request = rig.client.request(method.parse().unwrap(), format!("{}{}", rig.url, example(path)));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let response = request.body(body(method, path)).send().await.unwrap();
            assert_eq!(response.headers()["www-authenticate"], "Bearer", "{method} {path}");
            let problem = problem(response).await;
            assert_eq!((problem.status, problem.code.as_str()), (401, code), "{method} {path}");
        }
    }
    assert!(rig.asked.lock().unwrap().is_empty());
}

/// `yes` when the role may, `-` when it is told that it may not.
async fn may(rig: &Rig, method: &str, path: &str, token: &str) -> &'static str {
    let request = rig.client.request(method.parse().unwrap(), format!("{}{}", rig.url, example(path))).bearer_auth(token);
    let response = request.body(body(method, path)).send().await.unwrap();
    framed(response.headers());
    match response.status().as_u16() {
        401 => panic!("{method} {path}: a known token is not known"),
        403 => {
            assert_eq!(problem(response).await.code, "forbidden", "{method} {path}");
            "-"
        }
        400 => panic!("{method} {path}: {:?}", problem(response).await),
        _ => "yes",
    }
}

#[tokio::test]
async fn every_route_and_every_role() {
    let rig = Rig::new().await;
    let mut grid = String::new();
    let mut changing = routes();
    changing.retain(|(method, path)| !OPEN.contains(&(*method, path.as_str())) && path != "/v1/import/hosts");
    for (method, path) in changing {
        let mut cells = Vec::new();
        for (_, token) in ROLES {
            cells.push(may(&rig, method, &path, token).await);
        }
        if *method == *"GET" && cells == ["yes"; 5] {
            continue;
        }
        grid += &format!("{method:<6} {path:<36} {}\n", cells.join(" "));
    }
    // viewer, operator, fencer, auditor, admin; what everybody may read is left out.
    let wanted = "\
PUT    /v1/zones/{zone}                     - - - - yes
DELETE /v1/zones/{zone}                     - - - - yes
PUT    /v1/clusters/{cluster}               - - - - yes
PATCH  /v1/clusters/{cluster}               - - - - yes
DELETE /v1/clusters/{cluster}               - - - - yes
GET    /v1/racks/{rack}/secrets             - - - - yes
POST   /v1/racks/{rack}/secrets             - - - - yes
POST   /v1/hosts/{host}/identify            - yes yes - yes
POST   /v1/hosts/{host}/bootdev             - yes yes - yes
POST   /v1/hosts/{host}/bmc/test            - yes yes - yes
POST   /v1/hosts/{host}/bmc/change-password - - - - yes
POST   /v1/hosts/{host}/bmc/resolve-password - - - - yes
POST   /v1/operations                       - yes yes - yes
PATCH  /v1/settings                         - - - - yes
PUT    /v1/racks/{rack}                     - - - - yes
DELETE /v1/racks/{rack}                     - - - - yes
PUT    /v1/hosts/{host}                     - - - - yes
PATCH  /v1/hosts/{host}                     - - - - yes
DELETE /v1/hosts/{host}                     - - - - yes
POST   /v1/hosts/{host}/oobm/enable         - - - - yes
POST   /v1/hosts/{host}/oobm/disable        - - - - yes
POST   /v1/clusters/{cluster}/oobm/enable   - - - - yes
POST   /v1/clusters/{cluster}/oobm/disable  - - - - yes
POST   /v1/zones/{zone}/oobm/enable         - - - - yes
POST   /v1/zones/{zone}/oobm/disable        - - - - yes
POST   /v1/hosts/{host}/ha/enable           - - - - yes
POST   /v1/hosts/{host}/ha/disable          - - - - yes
POST   /v1/clusters/{cluster}/ha/enable     - - - - yes
POST   /v1/clusters/{cluster}/ha/disable    - - - - yes
POST   /v1/zones/{zone}/ha/enable           - - - - yes
POST   /v1/zones/{zone}/ha/disable          - - - - yes
POST   /v1/hosts/{host}/ha/reset-counters   - - yes - yes
POST   /v1/hosts/{host}/ha/end-cliff        - - yes - yes
POST   /v1/hosts/{host}/fence               - - yes - yes
POST   /v1/hosts/{host}/fence/plan          - yes yes - yes
POST   /v1/hosts/{host}/fence/confirm       - - yes - yes
POST   /v1/hosts/{host}/fence/abort         - - yes - yes
POST   /v1/hosts/{host}/fence/ack           - - yes - yes
POST   /v1/hosts/{host}/fence/release       - - yes - yes
POST   /v1/hosts/{host}/pause               - yes yes - yes
DELETE /v1/hosts/{host}/pause               - yes yes - yes
POST   /v1/clusters/{cluster}/pause         - yes yes - yes
DELETE /v1/clusters/{cluster}/pause         - yes yes - yes
POST   /v1/hosts/{host}/power               - yes yes - yes
DELETE /v1/operations/{operation}           - yes yes - yes
POST   /v1/agents/tokens                    - - - - yes
POST   /v1/consumers                        - - - - yes
GET    /v1/audit                            - - - yes yes
GET    /v1/audit/verify                     - - - yes yes
GET    /v1/tokens                           - - - - yes
POST   /v1/tokens                           - - - - yes
GET    /v1/tokens/{token}                   - - - - yes
DELETE /v1/tokens/{token}                   - - - - yes
POST   /v1/alerts/{alert}/ack               - yes yes - yes
POST   /v1/alerts/{alert}/silence           - yes yes - yes
POST   /v1/receivers/{receiver}/test        - - - - yes
POST   /v1/silences                         - yes yes - yes
DELETE /v1/silences/{silence}               - yes yes - yes
";
    let (mut grid, mut wanted): (Vec<_>, Vec<_>) = (grid.lines().collect(), wanted.lines().collect());
    grid.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(grid, wanted, "\n{}", grid.join("\n"));
    let line = r#"{"id":"h9","cluster":"c1","rack":"r1"}"#;
    for (role, token) in ROLES {
        if role == "admin" {
            rig.will_answer(Ok(Answer::Imported(vec![Ok(crate::fleet::request::Put::Created)])));
        }
        let import = rig.client.post(format!("{}/v1/import/hosts", rig.url)).bearer_auth(token).body(line).send().await.unwrap();
        assert_eq!(import.status().as_u16(), if role == "admin" { 200 } else { 403 }, "{role}");
    }
}

fn scoped(name: &str, role: Role, scope: Scope) -> ApiTokenRow {
    ApiTokenRow { scope, ..token(name, role, None) }
}

#[tokio::test]
async fn what_lies_outside_a_scope_is_not_there() {
    let rig = Rig::new().await;
    rig.change_view(|view| {
        let scope = Scope { clusters: vec!["c2".parse().unwrap()], ..Scope::default() };
        let row = scoped("pkt_narrow", Role::Admin, scope);
        view.api_tokens.insert(row.hash.as_str().into(), Arc::new(row));
        for host in ["h1", "h3"] {
            let id = picket_common::id::OperationId(uuid_now());
            view.operations.insert(id, Arc::new(operation_row(id, host, false)));
        }
    });
    let narrow = async |method: Method, path: &str, body: &'static str| {
        let request = rig.client.request(method, format!("{}{path}", rig.url)).bearer_auth("pkt_narrow");
        request.header("if-match", "*").body(body).send().await.unwrap()
    };
    let ids = async |path: &str| {
        let page: Value = narrow(Method::GET, path, "").await.json().await.unwrap();
        let id = |item: &Value| item.get("id").or(item.get("hosts")).map(ToString::to_string).unwrap_or_default();
        page["items"].as_array().unwrap().iter().map(id).collect::<Vec<_>>()
    };
    assert_eq!(ids("/v1/hosts").await, ["\"h3\""]);
    assert_eq!(ids("/v1/clusters").await, ["\"c2\""]);
    assert_eq!(ids("/v1/racks").await, ["\"r2\""]);
    assert_eq!(ids("/v1/zones").await, ["\"z1\""]);
    assert_eq!(ids("/v1/agents").await, Vec::<String>::new());
    assert_eq!(ids("/v1/operations").await.len(), 1);
    let summary: Value = narrow(Method::GET, "/v1/summary", "").await.json().await.unwrap();
    assert_eq!((&summary["hosts"]["disabled"], summary["clusters"].as_object().unwrap().len()), (&json!(1), 1));
    for (method, path, body) in [
        (Method::GET, "/v1/hosts/h1", ""),
        (Method::GET, "/v1/hosts/h1/history", ""),
        (Method::GET, "/v1/clusters/c1", ""),
        (Method::GET, "/v1/racks/r1", ""),
        (Method::GET, "/v1/agents/r1", ""),
        (Method::PATCH, "/v1/hosts/h1", "{}"),
        (Method::DELETE, "/v1/hosts/h1", ""),
        (Method::PUT, "/v1/hosts/h1", r#"{"cluster":"c2","rack":"r2"}"#),
        (Method::POST, "/v1/hosts/h1/power", r#"{"operation":"off"}"#),
        (Method::POST, "/v1/hosts/h1/power", r#"{"operation":"off","dry_run":true}"#),
        (Method::POST, "/v1/hosts/h1/oobm/enable", ""),
    ] {
        let told = problem(narrow(method.clone(), path, body).await).await;
        assert_eq!((told.status, told.code.as_str()), (404, "not-found"), "{method} {path}");
        // What is not there at all is told in the very same words; a PUT would make it.
        if method != Method::PUT {
            let other = |text: &str| text.replace("h1", "h0").replace("c1", "c0").replace("r1", "r0");
            let unknown = problem(narrow(method.clone(), &other(path), body).await).await;
            let told = (other(&told.detail), told.title, told.hint);
            assert_eq!(told, (unknown.detail, unknown.title, unknown.hint), "{method} {path}");
        }
    }
    // What others may know of, but not change, is told from what is not there neither.
    for (method, path) in [
        (Method::DELETE, "/v1/clusters/c1"),
        (Method::POST, "/v1/clusters/c1/oobm/disable"),
        (Method::DELETE, "/v1/racks/r1"),
        (Method::GET, "/v1/racks/r1/secrets"),
        (Method::DELETE, "/v1/zones/z1"),
    ] {
        let unknown = path.replace("c1", "c0").replace("r1", "r0").replace("z1", "z0");
        let (told, unknown) = (narrow(method.clone(), path, "").await, narrow(method.clone(), &unknown, "").await);
        assert_eq!((told.status(), unknown.status()), (StatusCode::FORBIDDEN, StatusCode::FORBIDDEN), "{method} {path}");
    }
    assert!(rig.asked.lock().unwrap().is_empty());
    assert_eq!(narrow(Method::GET, "/v1/hosts/h3", "").await.status(), 200);
    assert_eq!(narrow(Method::POST, "/v1/hosts/h3/oobm/disable", "").await.status(), 200);
    for (path, body) in [("/v1/agents/tokens", r#"{"rack":"r2"}"#), ("/v1/consumers", r#"{"name":"n"}"#)] {
        assert_eq!(problem(narrow(Method::POST, path, body).await).await.code, "forbidden");
    }

    let narrow_hash = hex::encode(Sha256::digest(b"pkt_narrow"));
    // Events of others are not heard, and an import cannot reach them.
    let stream = narrow(Method::GET, "/v1/events", "").await;
    rig.context.events.publish(event(1, "h1", "power.changed"));
    rig.context.events.publish(event(2, "h3", "power.changed"));
    let mut stream = stream.bytes_stream();
    let heard = stream.next().await.unwrap().unwrap();
    assert!(heard.starts_with(b"id: 2-"));
    let line = r#"{"id":"h1","cluster":"c1","rack":"r1"}"#;
    let refused = problem(narrow(Method::POST, "/v1/import/hosts", line).await).await;
    assert_eq!((refused.code.as_str(), refused.errors[0].code.as_str()), ("import-refused", "not-found"));
    assert_eq!(narrow(Method::GET, "/v1/export/hosts", "").await.text().await.unwrap().lines().count(), 1);

    // Revoked: the open stream ends, with whatever it would have heard next.
    rig.change_view(|view| drop(view.api_tokens.remove(narrow_hash.as_str())));
    rig.context.events.publish(event(3, "h3", "power.changed"));
    let rest = tokio::time::timeout(Duration::from_secs(10), stream.collect::<Vec<_>>()).await.unwrap();
    assert!(rest.iter().all(|chunk| chunk.as_ref().is_ok_and(|bytes| bytes.starts_with(b":"))), "{rest:?}");
}

#[tokio::test]
async fn tokens_are_made_shown_once_and_revoked() {
    let rig = Rig::new().await;
    let body = r#"{"name":"bob","role":"operator","scope":{"clusters":["c1"]},"ttl":600}"#;
    let response = rig.send(Method::POST, "/v1/tokens", body).await;
    assert_eq!(response.status(), 201);
    let tag = response.headers()["etag"].clone();
    let made: NewToken = response.json().await.unwrap();
    assert!(made.secret.starts_with("pkt_") && made.secret.len() > 40);
    let (_, Asked::AddApiToken(row)) = rig.last_asked() else { panic!("not a token") };
    assert_eq!(row.hash, hex::encode(Sha256::digest(made.secret.as_bytes())));
    assert_eq!((row.name.as_str(), row.role, made.token.id.as_str()), ("bob", Role::Operator, &row.hash[..16]));
    rig.change_view(|view| drop(view.api_tokens.insert(row.hash.as_str().into(), Arc::new(row.clone()))));

    let path = format!("/v1/tokens/{}", made.token.id);
    let shown = rig.send(Method::GET, &path, "").await;
    assert_eq!(shown.headers()["etag"], tag);
    let text = shown.text().await.unwrap();
    assert!(!text.contains(&made.secret) && !text.contains(&row.hash));
    assert_eq!(serde_json::from_str::<Token>(&text).unwrap().last_used_at, None);
    let bob = async |path: &str| rig.client.get(format!("{}{path}", rig.url)).bearer_auth(&made.secret).send().await.unwrap();
    assert_eq!(
        (bob("/v1/hosts/h1").await.status(), bob("/v1/hosts/h3").await.status()),
        (reqwest::StatusCode::OK, reqwest::StatusCode::NOT_FOUND)
    );
    let used: Token = rig.send(Method::GET, &path, "").await.json().await.unwrap();
    assert!(used.last_used_at.is_some());
    assert_eq!(rig.get("/v1/tokens").await["items"].as_array().unwrap().len(), 7);

    assert_eq!(rig.send(Method::DELETE, &path, "").await.status(), 204);
    assert!(matches!(rig.last_asked(), (_, Asked::RemoveApiToken(id)) if id == made.token.id));
    rig.change_view(|view| drop(view.api_tokens.remove(row.hash.as_str())));
    assert_eq!(problem(bob("/v1/hosts").await).await.code, "token-refused");
    assert_eq!(rig.problem(Method::GET, &path, "").await.code, "not-found");
    for (body, field) in [
        (r#"{"name":"","role":"viewer"}"#, "name:"),
        (r#"{"name":"join:x","role":"viewer"}"#, "name:"),
        (r#"{"name":" a","role":"viewer"}"#, "name:"),
        (r#"{"name":"a","role":"king"}"#, "role:"),
        (r#"{"name":"a","role":"viewer","ttl":59}"#, "ttl:"),
        (r#"{"name":"a","role":"viewer","scope":{"zones":["Z"]}}"#, "scope.zones"),
        (r#"{"name":"a","role":"viewer","scopes":{}}"#, "unknown field"),
    ] {
        let problem = rig.problem(Method::POST, "/v1/tokens", body).await;
        assert!(problem.status == 400 && problem.detail.starts_with(field), "{body}: {}", problem.detail);
    }
}

#[tokio::test]
async fn what_is_edited_has_a_tag_and_a_change_hands_it_on() {
    let rig = Rig::new().await;
    for (path, body) in [
        ("/v1/zones/z1", "{}"),
        ("/v1/clusters/c1", r#"{"zone":"z1"}"#),
        ("/v1/racks/r1", r#"{"zone":"z1"}"#),
        ("/v1/hosts/h1", r#"{"cluster":"c1","rack":"r1"}"#),
    ] {
        let read = rig.send(Method::GET, path, "").await;
        let tag = read.headers()["etag"].to_str().unwrap().to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() == 34, "{tag}");
        for (name, value) in [("if-match", Some(tag.as_str())), ("if-none-match", Some("*")), ("if-match", None)] {
            let mut request = rig.request(Method::PUT, path).body(body);
            if let Some(value) = value {
                request = request.header(name, value);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.headers()["etag"], tag.as_str(), "{path}");
            let terms = rig.terms.lock().unwrap().clone();
            let told = format!("{:?}", terms.precondition);
            let wanted = match (name, value) {
                ("if-match", Some(tag)) => format!("matches: Some(These([ETag({tag:?})])), none_matches: None"),
                ("if-none-match", _) => "matches: None, none_matches: Some(Any)".into(),
                _ => "matches: None, none_matches: None".into(),
            };
            assert!(told.contains(&wanted), "{told}");
        }
    }
    rig.will_answer(Err(Rejection::PreconditionRequired("zone/z1".into())));
    assert_eq!(rig.problem(Method::PUT, "/v1/zones/z1", "").await.status, 428);
    rig.will_answer(Err(Rejection::PreconditionFailed("zone/z1 was changed".into())));
    let stale = rig.problem(Method::DELETE, "/v1/zones/z1", "").await;
    assert_eq!((stale.status, stale.code.as_str()), (412, "precondition-failed"));
    let bad = rig.request(Method::DELETE, "/v1/zones/z1").header("if-match", "z1").send().await.unwrap();
    assert!(problem(bad).await.detail.starts_with("if-match: expected `*`"));
}
