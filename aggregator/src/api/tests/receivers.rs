//! Receivers as the API shows them, and trying one.

use super::*;

#[tokio::test]
async fn receivers_are_shown_and_tried() {
    let rig = Rig::new().await;
    let shown = rig.get("/v1/receivers").await;
    let items = shown["items"].as_array().unwrap();
    assert_eq!(items.iter().map(|item| item["name"].as_str().unwrap()).collect::<Vec<_>>(), ["false", "true"]);
    assert_eq!((&items[0]["type"], &items[0]["target"]), (&json!("exec"), &json!("/bin/false")));
    assert_eq!(rig.get("/v1/receivers/true").await["delivered"], 0);
    let tried = async |name: &str| -> Value {
        let response = rig.send(Method::POST, &format!("/v1/receivers/{name}/test"), "").await;
        response.json().await.unwrap()
    };
    assert_eq!(tried("true").await, json!({ "receiver": "true", "delivered": true }));
    assert_eq!(tried("false").await, json!({ "receiver": "false", "delivered": false, "error": "the program ended with code 1" }));
    assert_eq!(rig.get("/v1/receivers/true").await["delivered"], 0, "a test is no delivery");
    for (method, path) in [(Method::GET, "/v1/receivers/none"), (Method::POST, "/v1/receivers/none/test")] {
        assert_eq!(rig.problem(method, path, "").await.code, "not-found");
    }
}
