//! `Idempotency-Key`: the same answer for the same request, over restarts and lost answers, and never a second deed.

use picket_common::id::OperationId;

use super::*;

const POWER: &str = "/v1/hosts/h1/power";
const OFF: &str = r#"{"operation":"off"}"#;

impl Rig {
    async fn keyed(&self, token: &str, path: &str, key: &str, body: &str) -> reqwest::Response {
        let request = self.client.post(format!("{}{path}", self.url)).bearer_auth(token);
        request.header("idempotency-key", key).body(body.to_owned()).send().await.unwrap()
    }

    fn with_operation(&self) -> OperationId {
        let id = OperationId(uuid_now());
        self.change_view(|view| drop(view.operations.insert(id, Arc::new(operation_row(id, "h1", false)))));
        self.will_answer(Ok(Answer::Accepted(id)));
        id
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// Status, what marks a repeated answer, and the body.
async fn parts(response: reqwest::Response) -> (u16, bool, Option<String>, Value) {
    let replayed = response.headers().get("idempotent-replayed").is_some_and(|value| value == "true");
    let location = response.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
    (response.status().as_u16(), replayed, location, response.json().await.unwrap_or(Value::Null))
}

#[tokio::test]
async fn the_same_key_and_body_is_answered_again() {
    let rig = Rig::new().await;
    let id = rig.with_operation();
    let first = parts(rig.keyed(TOKEN, POWER, "k1", OFF).await).await;
    assert_eq!((first.0, first.1, first.2.as_deref()), (202, false, Some(&*format!("/v1/operations/{id}"))));
    let again = rig.keyed(TOKEN, POWER, "k1", OFF).await;
    framed(again.headers());
    let again = parts(again).await;
    assert_eq!((again.0, again.1, &again.2, &again.3), (202, true, &first.2, &first.3));
    assert_eq!(rig.count(), 1);

    let other = rig.keyed(TOKEN, POWER, "k1", r#"{"operation":"on"}"#).await;
    assert_eq!((other.status().as_u16(), problem(other).await.code.as_str()), (422, "idempotency-key-used"));
    assert_eq!(rig.count(), 1);

    // A key belongs to its token, and to its path.
    rig.with_operation();
    assert!(!parts(rig.keyed("pkt_operator", POWER, "k1", OFF).await).await.1);
    rig.with_operation();
    assert!(!parts(rig.keyed(TOKEN, "/v1/hosts/h3/power", "k1", OFF).await).await.1);
    rig.with_operation();
    assert!(!parts(rig.keyed(TOKEN, POWER, "k2", OFF).await).await.1);
    assert_eq!(rig.count(), 4);
}

#[tokio::test]
async fn refusals_are_answered_again_but_what_may_pass_is_tried_again() {
    let rig = Rig::new().await;
    rig.will_answer(Err(Rejection::Refused(Refusal::ZoneDisabled)));
    let first = rig.keyed(TOKEN, POWER, "k", OFF).await;
    let first = problem(first).await;
    assert_eq!((first.status, first.code.as_str()), (409, "zone-disabled"));
    let again = rig.keyed(TOKEN, POWER, "k", OFF).await;
    assert_eq!(again.headers()["content-type"], "application/problem+json");
    let again = parts(again).await;
    assert_eq!((again.0, again.1, again.3), (409, true, serde_json::to_value(&first).unwrap()));
    assert_eq!(rig.count(), 1);

    rig.will_answer(Err(Rejection::Store("full".into())));
    assert_eq!(problem(rig.keyed(TOKEN, POWER, "k3", OFF).await).await.status, 503);
    rig.with_operation();
    assert_eq!(parts(rig.keyed(TOKEN, POWER, "k3", OFF).await).await.0, 202);
    assert_eq!(rig.count(), 3);

    for bad in ["", " ", "ü", &"x".repeat(256)] {
        let refused = problem(rig.keyed(TOKEN, POWER, bad, OFF).await).await;
        assert!(refused.status == 400 && refused.detail.starts_with("idempotency-key:"), "{bad:?}: {}", refused.detail);
    }
    assert_eq!(problem(rig.keyed("pkt_unknown", POWER, "k", OFF).await).await.status, 401);
    assert_eq!(rig.count(), 3);
}

#[tokio::test]
async fn a_request_under_way_is_not_begun_again() {
    let rig = Rig::new().await;
    // The core answers when it is let; until then the first request is under way.
    let (held, gate) = (Arc::clone(&rig.gate), Arc::clone(&rig.gate).lock_owned().await);
    let id = rig.with_operation();
    let first = tokio::spawn(
        rig.client.post(format!("{}{POWER}", rig.url)).bearer_auth(TOKEN).header("idempotency-key", "k").body(OFF).send(),
    );
    while rig.count() < 1 {
        tokio::task::yield_now().await;
    }
    let second = problem(rig.keyed(TOKEN, POWER, "k", OFF).await).await;
    assert_eq!((second.status, second.code.as_str(), second.retryable), (409, "idempotency-key-under-way", true));
    // Its asker goes away: it is still under way, and what comes of it is kept.
    first.abort();
    assert_eq!(problem(rig.keyed(TOKEN, POWER, "k", OFF).await).await.code, "idempotency-key-under-way");
    drop(gate);
    drop(held);
    let answered = async {
        loop {
            let answer = parts(rig.keyed(TOKEN, POWER, "k", OFF).await).await;
            if answer.0 != 409 {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), answered).await.unwrap();
    assert_eq!((answer.0, answer.1, answer.2), (202, true, Some(format!("/v1/operations/{id}"))));
    assert_eq!(rig.count(), 1);
}

/// What is kept when the aggregator ends between the change and the answer: the promise alone.
#[tokio::test]
async fn a_promise_leads_to_its_operation() {
    let rig = Rig::new().await;
    let id = rig.with_operation();
    let promised = parts(rig.keyed(TOKEN, POWER, "k", OFF).await).await;
    let Some(once) = rig.terms.lock().unwrap().once.clone() else { panic!("no promise was made") };
    let promise = crate::fleet::KeptAnswer {
        key: once.key,
        fingerprint: once.fingerprint,
        at: clock::now().wall,
        operation: Some(id),
        answer: None,
    };
    rig.context.asker.note(crate::fleet::Note::Answer(promise)).await.unwrap();
    let again = parts(rig.keyed(TOKEN, POWER, "k", OFF).await).await;
    assert_eq!((again.0, again.1, again.2, again.3), (202, true, promised.2, promised.3));
    assert_eq!(rig.count(), 1);
}

#[tokio::test]
async fn secrets_are_given_once_and_nothing_is_made_twice() {
    let rig = Rig::new().await;
    for (path, body) in [
        ("/v1/tokens", r#"{"name":"bob","role":"viewer"}"#),
        ("/v1/agents/tokens", r#"{"rack":"r1"}"#),
        ("/v1/consumers", r#"{"name":"nagios"}"#),
    ] {
        let made = parts(rig.keyed(TOKEN, path, "k", body).await).await;
        assert_eq!(made.0, 201, "{path}");
        let before = rig.count();
        let again = problem(rig.keyed(TOKEN, path, "k", body).await).await;
        assert_eq!((again.status, again.code.as_str()), (409, "idempotency-answer-lost"), "{path}");
        assert_eq!(rig.count(), before, "{path}");
    }
    let stored = std::fs::read(rig.dir().join("store.redb")).unwrap();
    let made: Value = rig.keyed(TOKEN, "/v1/tokens", "k9", r#"{"name":"eve","role":"viewer"}"#).await.json().await.unwrap();
    let secret = made["secret"].as_str().unwrap().as_bytes();
    let stored_after = std::fs::read(rig.dir().join("store.redb")).unwrap();
    assert!(stored.len() <= stored_after.len() && !stored_after.windows(secret.len()).any(|bytes| bytes == secret));
}

#[tokio::test]
async fn an_answer_given_again_is_no_second_deed_in_the_log() {
    let rig = Rig::new().await;
    rig.with_operation();
    rig.will_answer(Err(Rejection::Refused(Refusal::ZoneDisabled)));
    for key in ["granted", "granted", "refused", "refused", "refused"] {
        rig.keyed(TOKEN, POWER, key, OFF).await;
    }
    rig.keyed(TOKEN, POWER, "granted", r#"{"operation":"on"}"#).await;
    let log = rig.get("/v1/audit").await;
    let told: Vec<_> = log["items"].as_array().unwrap().iter().map(|line| (&line["result"], &line["status"])).collect();
    assert_eq!(told, [(&json!("granted"), &json!(202)), (&json!("refused"), &json!(409)), (&json!("refused"), &json!(422))]);
}

#[tokio::test]
async fn an_operation_of_many_hosts_goes_under_a_key() {
    let rig = Rig::new().await;
    let id = rig.with_operation();
    rig.answers.lock().unwrap().clear();
    let names: Vec<String> = (0..2_000).map(|n| format!("h{n}-{}", "x".repeat(50))).collect();
    rig.change_view(|view| {
        let (row, part) = (view.operations[&id].row.clone(), view.operations[&id].parts.values().next().unwrap().clone());
        let part = |name: &String| PartRow { host: name.parse().unwrap(), ..PartRow::clone(&part) };
        view.operations.insert(id, Arc::new(Operation::new(row, names.iter().map(part))));
    });
    let body = json!({"operation": "off", "hosts": names}).to_string();
    assert!(body.len() > 64 * 1024);
    let large = parts(rig.keyed(TOKEN, "/v1/operations", "k", &body).await).await;
    assert_eq!((large.0, large.1), (202, false), "{:?}", large.3["detail"]);
    rig.will_answer(Ok(Answer::Accepted(id)));
    let first = parts(rig.keyed(TOKEN, POWER, "k", OFF).await).await;
    assert_eq!((first.0, first.1, first.3["hosts"].as_array().map(Vec::len)), (202, false, Some(2_000)), "{:?}", first.3["detail"]);
    let again = parts(rig.keyed(TOKEN, POWER, "k", OFF).await).await;
    assert_eq!((again.0, again.1, again.2, again.3), (202, true, first.2, first.3));
    assert_eq!(rig.count(), 2);
}
