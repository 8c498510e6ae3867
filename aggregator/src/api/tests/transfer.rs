//! Files of hosts through the API: forms, wrong lines, what is asked of the core, what is never shown.

use super::*;
use crate::fleet::request::{Import, Put, Way};

impl Rig {
    async fn import(&self, query: &str, media: &str, text: impl Into<reqwest::Body>) -> reqwest::Response {
        let request = self.request(Method::POST, &format!("/v1/import/hosts{query}"));
        request.header("content-type", media).body(text).send().await.unwrap()
    }

    fn last_import(&self) -> Import {
        let (_, Asked::ImportHosts(import)) = self.last_asked() else { panic!("not an import") };
        import
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const MIXED: [&str; 6] = [
    r#"{"id":"h1","cluster":"c1","rack":"r1"}"#,
    "",
    "not json",
    r#"{"cluster":"c1","rack":"r1"}"#,
    r#"{"id":"h5","cluster":"c1","rack":"r1","colour":1}"#,
    r#"{"id":"h6","cluster":"c1","rack":"r1","bmc":{"driver":"null","address":"a"}}"#,
];

#[tokio::test]
async fn a_file_with_wrong_lines_is_refused_and_each_is_named() {
    let rig = Rig::new().await;
    // What else the fleet finds is told as well.
    let invalid = Rejection::Invalid { field: "bmc.address", text: "is no address".into() };
    rig.will_answer(Ok(Answer::Imported(vec![Ok(Put::Created), Err(invalid)])));
    let told = problem(rig.import("", "application/x-ndjson", MIXED.join("\n")).await).await;
    assert_eq!((told.status, told.code.as_str()), (422, "import-refused"));
    assert!(told.detail.starts_with("4 of 5 hosts are refused, so nothing was changed; line 3: "), "{}", told.detail);
    let brief: Vec<_> = told.errors.iter().map(|error| (error.line, error.code.as_str(), error.detail.as_str())).collect();
    let wanted = [
        (3, "malformed-json", "the body is not valid JSON: expected ident at column 2"),
        (4, "invalid-value", "id: is missing, or not a string"),
        (6, "invalid-value", "bmc.address: is no address"),
    ];
    assert_eq!([brief[0], brief[1], brief[3]], wanted);
    assert!(brief[2].0 == 5 && brief[2].1 == "unknown-field" && told.errors[2].hint.is_some());
    assert_eq!(rig.last_import().way, Way::Check, "nothing is asked for but what would come of it");
    assert!(rig.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn lines_for_themselves_are_answered_one_by_one() {
    let rig = Rig::new().await;
    rig.will_answer(Ok(Answer::Imported(vec![Ok(Put::Created), Ok(Put::Unchanged)])));
    let text = rig.import("?partial=true", "application/x-ndjson", MIXED.join("\n")).await.text().await.unwrap();
    let results = lines(&text);
    let brief: Vec<_> = results
        .iter()
        .map(|r| (r["line"].as_u64().unwrap(), r["result"].as_str().unwrap(), r["problem"]["code"].as_str().unwrap_or("")))
        .collect();
    let wanted = [
        (1, "created", ""),
        (3, "refused", "malformed-json"),
        (4, "refused", "invalid-value"),
        (5, "refused", "unknown-field"),
        (6, "unchanged", ""),
    ];
    assert_eq!(brief, wanted);
    let import = rig.last_import();
    assert_eq!((import.way, import.hosts.len()), (Way::Each, 2));
}

#[tokio::test]
async fn a_table_is_sealed_and_asked_for_in_one_request() {
    let rig = Rig::new().await;
    let text = "\u{feff}ID;Rack;Cluster;Driver;Address;Username;Password;OOBM enabled;labels\r\n\
                h1;r1;c1;ipmi;10.0.0.7;admin;\"hunter2-canary\";TRUE;\"os=linux; row=7\"\r\n\r\n\
                h2;r1;c1;;;;;;\r\n";
    rig.will_answer(Ok(Answer::Imported(vec![Ok(Put::Changed), Ok(Put::Created)])));
    let response = rig.import("", "text/csv; charset=utf-8", text.to_owned()).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let answered = response.text().await.unwrap();
    assert!(!answered.contains(CANARY), "{answered}");
    assert_eq!(lines(&answered)[1]["line"], 4);
    let Import { hosts, way } = rig.last_import();
    assert_eq!((way, hosts.len(), hosts[0].oobm, hosts[1].oobm), (Way::Whole, 2, Some(true), None));
    assert_eq!(hosts[0].spec.labels.len(), 2, "{:?}", hosts[0].spec.labels);
    assert!(hosts[1].spec.bmc.is_none(), "cells without a word are no BMC");
    let sealed = password_of(hosts[0].spec.bmc.clone().unwrap());
    let belongs = Belongs::Host { host: &hosts[0].id, address: "10.0.0.7", username: "admin" };
    assert_eq!(open(&rig.agent, belongs, &sealed.agent).unwrap().expose(), CANARY);
}

#[tokio::test]
async fn the_form_of_hil_is_taken() {
    let rig = Rig::new().await;
    let uri = "http://schema.massopencloud.org/haas/v0/obm";
    let seed = json!({"node": "n1", "obm": {"type": format!("{uri}/ipmi"), "host": "ipmi_node-01", "user": "ipmi_user-01",
        "password": "pass1234"}});
    let mock = json!({"node": "n2", "rack": "r2", "obm": {"type": format!("{uri}/mock"), "host": "x"}});
    rig.will_answer(Ok(Answer::Imported(vec![Ok(Put::Created), Ok(Put::Created)])));
    let answer = rig.import("?cluster=c1&rack=r1", "application/json", format!("[{seed},\n{mock}]")).await;
    assert_eq!(lines(&answer.text().await.unwrap())[1]["line"], 2);
    let hosts = rig.last_import().hosts;
    let bmc = |n: usize| hosts[n].spec.bmc.clone().unwrap();
    assert_eq!((bmc(0).driver, bmc(0).address), (Field::Set("ipmi".to_owned()), Field::Set("ipmi_node-01".to_owned())));
    assert_eq!((bmc(0).username, bmc(1).driver), (Field::Set("ipmi_user-01".to_owned()), Field::Set("null".to_owned())));
    assert_eq!((hosts[0].spec.rack.as_str(), hosts[1].spec.rack.as_str()), ("r1", "r2"));
    let sealed = password_of(bmc(0));
    let belongs = Belongs::Host { host: &hosts[0].id, address: "ipmi_node-01", username: "ipmi_user-01" };
    assert_eq!(open(&rig.agent, belongs, &sealed.agent).unwrap().expose(), "pass1234");
    for (node, wanted) in [
        (json!({"node": "n1", "bmc": {}, "obm": {"type": "ipmi"}}), "obm: stands in the place of `bmc`"),
        (json!({"node": "n1", "obm": {"type": "x/telnet"}}), "obm.type: has an ending that is no driver's"),
        (json!({"node": "n1", "obm": {"host": "a"}}), "obm.type: is missing"),
        (json!({"node": "n1", "obm": {"type": "ipmi", "pass": CANARY}}), "unknown field `pass`"),
        (json!({"node": "n1", "obm": {"type": "ipmi", "password": [CANARY]}}), "obm.password: invalid type"),
        (json!({"node": "n1"}), "id: is missing"),
    ] {
        let told = problem(rig.import("?cluster=c1&rack=r1", "", node.to_string()).await).await;
        assert!(told.errors[0].detail.starts_with(wanted), "{told:?}");
        assert!(!format!("{told:?}").contains(CANARY), "{told:?}");
    }
}

#[tokio::test]
async fn what_is_no_file_of_hosts_says_what_to_do() {
    let rig = Rig::new().await;
    let csv = "text/csv";
    let many: String =
        std::iter::once("id,cluster,rack\n".to_owned()).chain((0..20_001).map(|n| format!("a{n},c1,r1\n"))).collect();
    for (media, text, status, code, detail) in [
        ("application/xml", b"x".to_vec(), 415, "unsupported-media-type", "form"),
        ("text/csv; charset=latin1", b"id\n".to_vec(), 415, "unsupported-media-type", "form"),
        (csv, Vec::new(), 400, "invalid-value", "body: holds no host"),
        (csv, b"\xff\xfei\0d\0".to_vec(), 400, "invalid-value", "UTF-16"),
        (csv, b"id,cluster,rack\n".to_vec(), 400, "invalid-value", "holds no host"),
        (csv, b"id,cluster\nh1,c1\n".to_vec(), 400, "invalid-value", "line 1: the column rack is missing; add it, or name it"),
        (csv, b"cluster,rack\nc1,r1\n".to_vec(), 400, "invalid-value", "the column id is missing; add it"),
        (csv, b"id,cluster,rack,hunter2-canary\n".to_vec(), 400, "invalid-value", "line 1: cell 4 is not the name of a column"),
        (csv, b"id,cluster,rack,ID\n".to_vec(), 400, "invalid-value", "the column id is there twice"),
        (csv, many.into_bytes(), 400, "invalid-value", "holds 20001 hosts; split it up, 20000 at a time"),
        ("application/json", b"[{}".to_vec(), 400, "malformed-json", "line 1: expected `,` or `]`"),
        ("application/json", b"[{},\n{\"a\":}]".to_vec(), 400, "malformed-json", "line 2: expected value"),
        ("application/json", b"[] x".to_vec(), 400, "malformed-json", "line 1: something follows the array"),
    ] {
        let told = problem(rig.import("", media, text).await).await;
        assert_eq!((told.status, told.code.as_str()), (status, code), "{told:?}");
        assert!(told.detail.contains(detail) && !told.detail.contains(CANARY), "{told:?}");
    }
    for (row, wanted) in [
        ("h9,c1", "row: has 2 cells where the first line has 7"),
        ("h9,c1,r1,\"x", "row: has 4 cells where the first line has 7"),
        (",c1,r1,,,,", "id: is missing"),
        ("H 9,c1,r1,,,,", "id: \"H 9\" is not a valid host id"),
        ("h9,,r1,,,,", "cluster: is missing"),
        ("h9,c1,r1,port,,,", "port: expected a whole number that fits"),
        ("h9,c1,r1,70000,,,", "port: expected a whole number that fits"),
        ("h9,c1,r1,,maybe,,", "maintenance: expected true or false"),
        ("h9,c1,r1,,,word,", "options: has a word without `=`"),
        ("h9,c1,r9,,,,hunter2", "rack: there is no rack"),
        ("h9,c1,r2,,,,hunter2", "the host's rack has no agent"),
    ] {
        let text = format!("id,cluster,rack,port,maintenance,options,password\n\n{row}\n");
        let told = problem(rig.import("", csv, text).await).await;
        let error = &told.errors[0];
        assert!(error.line == 3 && error.detail.starts_with(wanted), "{row}: {told:?}");
        assert!(!format!("{told:?}").contains("hunter2"));
    }
    let twice = "id,cluster,rack\nh1,c1,r1\nh2,c1,r1\nh1,c1,r1\n";
    rig.will_answer(Ok(Answer::Imported(vec![Ok(Put::Created); 2])));
    let told = problem(rig.import("", csv, twice).await).await;
    assert_eq!((told.errors[0].line, told.errors[0].detail.as_str()), (4, "id: host h1 is in line 2 already"));
    let bad = b"id,cluster,rack,username\nh1,c1,r1,M\xfcller\n".to_vec();
    let told = problem(rig.import("", csv, bad).await).await;
    assert!(told.errors[0].detail.starts_with("username: is not UTF-8"), "{told:?}");
    assert!(rig.asked.lock().unwrap().iter().all(|(_, asked)| matches!(asked, Asked::ImportHosts(Import { way: Way::Check, .. }))));
}

#[tokio::test]
async fn a_dry_run_only_looks() {
    let rig = Rig::new().await;
    rig.will_answer(Ok(Answer::Imported(vec![Ok(Put::Unchanged)])));
    let text = rig.import("?dry_run=true", "", MIXED[0]).await.text().await.unwrap();
    assert_eq!(lines(&text)[0]["result"], "unchanged");
    assert_eq!(rig.last_import().way, Way::Check);
    assert_eq!(rig.terms.lock().unwrap().audit, None, "it is not written down as granted by the core");
    let told = rig.problem(Method::POST, "/v1/import/hosts?dry_run=yes", MIXED[0]).await;
    assert!(told.detail.starts_with("dry_run: use one of"), "{told:?}");
}

#[tokio::test]
async fn exports_have_the_form_that_is_wanted() {
    let rig = Rig::new().await;
    let export = async |query: &str, accept: &str| {
        let request = rig.request(Method::GET, &format!("/v1/export/hosts{query}"));
        request.header("accept", accept).send().await.unwrap()
    };
    let response = export("?cluster=c1", "text/csv").await;
    assert_eq!(response.headers()["content-type"], "text/csv; charset=utf-8");
    let wanted = "\
id,zone,cluster,rack,oobm_enabled,driver,address,port,username,password,options,maintenance,poll_interval,action_timeout,labels
h1,z1,c1,r1,true,ipmi,10.0.0.1,,admin,,,false,,,
h2,z1,c1,r1,false,ipmi,10.0.0.1,,admin,,,false,,,
";
    assert_eq!(response.text().await.unwrap(), wanted);
    let json = export("?select=h[2-3]", "*/*").await.text().await.unwrap();
    let wanted = r#"{"id":"h2","zone":"z1","cluster":"c1","rack":"r1","oobm_enabled":false,"bmc":{"driver":"ipmi","address":"10.0.0.1","username":"admin"},"maintenance":false}"#;
    assert_eq!(json.lines().next(), Some(wanted));
    assert_eq!(json.lines().count(), 2);
    assert_eq!(problem(export("", "application/json").await).await.code, "not-acceptable");
    assert_eq!(problem(export("?colour=red", "*/*").await).await.code, "invalid-value");
}
