//! What is written down of each request, that it can be verified, and that no secret is in it.

use picket_common::api::{AuditVerdict, NewToken};
use picket_common::audit::{Chain, genesis};

use super::*;

async fn log(rig: &Rig, query: &str) -> Vec<Value> {
    rig.get(&format!("/v1/audit?limit=1000{query}")).await["items"].as_array().unwrap().clone()
}

/// The fields that tell one line from another, `-` for what is not there.
fn brief(line: &Value) -> String {
    let field = |name: &str| match &line[name] {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    };
    ["principal", "method", "path", "resource", "summary", "reason", "result", "status", "code"].map(field).join(" | ")
}

#[tokio::test]
async fn every_changing_request_leaves_a_line() {
    let rig = Rig::new().await;
    let id = picket_common::id::OperationId(uuid_now());
    rig.send(Method::GET, "/v1/hosts", "").await;
    rig.send(Method::PUT, "/v1/zones/z9", "").await;
    rig.will_answer(Ok(Answer::Done { created: false }));
    rig.request(Method::PATCH, "/v1/hosts/h1").header("x-reason", "fan swap").body(r#"{"maintenance":true}"#).send().await.unwrap();
    rig.will_answer(Ok(Answer::Done { created: false }));
    rig.send(Method::DELETE, "/v1/racks/r2", "").await;
    rig.will_answer(Ok(Answer::Accepted(id)));
    rig.send(Method::POST, "/v1/hosts/h1/power", r#"{"operation":"off","reason":"too hot","timeout":9}"#).await;
    rig.send(Method::POST, "/v1/hosts/h1/power", r#"{"operation":"off","dry_run":true}"#).await;
    rig.will_answer(Err(Rejection::Refused(Refusal::ZoneDisabled)));
    rig.send(Method::POST, "/v1/hosts/h1/power", r#"{"operation":"off","reason":"again"}"#).await;
    rig.will_answer(Err(Rejection::Store("full".into())));
    rig.send(Method::POST, "/v1/hosts/h1/oobm/disable", "").await;
    rig.send(Method::PUT, "/v1/hosts/h1", "{").await;
    rig.send(Method::POST, "/v1/consumers", r#"{"name":"nagios"}"#).await;
    rig.send(Method::POST, "/v1/nothing", "").await;
    rig.client
        .post(format!("{}/v1/hosts/h1/power", rig.url))
        .bearer_auth("pkt_viewer")
        .body(r#"{"operation":"off"}"#)
        .send()
        .await
        .unwrap();
    rig.client.get(format!("{}/v1/hosts", rig.url)).bearer_auth("pkt_old").send().await.unwrap();
    rig.client.get(format!("{}/v1/hosts", rig.url)).send().await.unwrap();
    let body = r#"{"token_id":"aa","csr":"","sealing_key":"","proof":""}"#;
    rig.client.post(format!("{}/v1/agents/join", rig.url)).body(body).send().await.unwrap();

    let lines = log(&rig, "").await;
    let told: Vec<_> = lines.iter().map(brief).collect();
    let wanted = [
        "ann | PUT | /v1/zones/z9 | zone/z9 | - | - | granted | 201 | -",
        "ann | PATCH | /v1/hosts/h1 | host/h1 | maintenance=true | fan swap | granted | 200 | -",
        "ann | DELETE | /v1/racks/r2 | rack/r2 | - | - | granted | 204 | -",
        "ann | POST | /v1/hosts/h1/power | host/h1 | operation=off timeout=9 | too hot | granted | 202 | -",
        "ann | POST | /v1/hosts/h1/power | host/h1 | dry run: operation=off | - | granted | 200 | -",
        "ann | POST | /v1/hosts/h1/power | host/h1 | operation=off | again | refused | 409 | zone-disabled",
        "ann | POST | /v1/hosts/h1/oobm/disable | host/h1 | oobm=disabled | - | failed | 503 | store-unavailable",
        "ann | PUT | /v1/hosts/h1 | - | - | - | refused | 400 | malformed-json",
        "ann | POST | /v1/consumers | consumer/nagios | days=90 | - | granted | 201 | -",
        "ann | POST | /v1/hosts/h1/power | host/h1 | operation=off | - | refused | 403 | forbidden",
        "- | GET | /v1/hosts | - | - | - | refused | 401 | token-refused",
        "- | GET | /v1/hosts | - | - | - | refused | 401 | unauthenticated",
        "- | POST | /v1/agents/join | - | - | - | refused | 403 | join-refused",
    ];
    assert_eq!(told, wanted, "{told:#?}");
    assert_eq!(lines[3]["operation_id"], id.to_string());
    for line in &lines {
        assert_eq!(line["from"], "127.0.0.1", "{line}");
        assert!(line["request_id"].as_str().unwrap().len() == 36 && line["at"].is_string(), "{line}");
        assert_eq!(line["token"].is_string(), line["principal"] == "ann", "{line}");
    }
    let newest = rig.get("/v1/audit?limit=2&order=newest").await;
    assert_eq!((newest["items"][0]["sequence"].as_u64(), newest["items"][1]["sequence"].as_u64()), (Some(13), Some(12)));
    let token = newest["next_page_token"].as_str().unwrap();
    assert_eq!(rig.get(&format!("/v1/audit?limit=2&order=newest&page_token={token}")).await["items"][0]["sequence"], 11);
    assert_eq!(log(&rig, "&principal=-").await.len(), 3);
    assert_eq!(log(&rig, "&until=2026-01-01T00:00:00Z").await.len(), 0);
    assert_eq!(log(&rig, "&since=2026-01-01T00:00:00Z").await.len(), 13);
}

#[tokio::test]
async fn the_log_verifies_here_and_there() {
    let rig = Rig::new().await;
    for zone in ["a", "b", "c"] {
        rig.send(Method::PUT, &format!("/v1/zones/{zone}"), "").await;
    }
    let verdict: AuditVerdict = serde_json::from_value(rig.get("/v1/audit/verify").await).unwrap();
    assert!(verdict.intact && verdict.fault.is_none());
    assert_eq!((verdict.records, verdict.sequence), (3, 3));
    let mut chain = Chain::new(verdict.genesis.clone());
    for line in log(&rig, "").await {
        chain.take(line.as_object().unwrap()).unwrap();
    }
    assert_eq!(chain.end(Some((verdict.sequence, &verdict.hash))), Ok(()));
    assert_ne!(verdict.genesis, genesis(&uuid::Uuid::nil()));
}

#[tokio::test]
async fn no_secret_is_in_the_log() {
    let rig = Rig::new().await;
    let made: NewToken = rig.send(Method::POST, "/v1/tokens", r#"{"name":"bob","role":"viewer"}"#).await.json().await.unwrap();
    let join: Value = rig.send(Method::POST, "/v1/agents/tokens", r#"{"rack":"r1"}"#).await.json().await.unwrap();
    let body = json!({"cluster": "c1", "rack": "r1", "bmc": {"driver": "ipmi", "address": "10.0.0.9", "username": "root", "password": CANARY}});
    rig.send(Method::PUT, "/v1/hosts/h1", body.to_string()).await;
    rig.send(Method::PATCH, "/v1/hosts/h1", json!({"bmc": {"pasword": CANARY}}).to_string()).await;
    rig.send(Method::PATCH, "/v1/hosts/h1", json!({"bmc": {"password": [CANARY]}}).to_string()).await;
    rig.request(Method::PUT, &format!("/v1/zones/z1?{CANARY}")).send().await.unwrap();
    let text = serde_json::to_string(&log(&rig, "").await).unwrap();
    let join_secret = join["token"].as_str().unwrap().rsplit_once('@').unwrap().0.rsplit_once('.').unwrap().1.to_owned();
    assert!(text.contains("bmc.password=set") && text.contains("name=bob role=viewer"), "{text}");
    for secret in [CANARY, TOKEN, &made.secret, &join_secret] {
        assert!(!text.contains(secret), "{text}");
    }
}
