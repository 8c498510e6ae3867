//! The resources of the Redfish tree and what can be done with them. Answers follow DSP0266 and DSP0268 as far as power
//! control, accounts and sessions go.

use std::time::Instant;

use serde_json::{Value, json};

use super::super::bmc::{Bmc, Identify, Privilege, Source, State};
use super::super::chassis::{Action, Taken};
use super::super::faults::{Request, Said};
use super::super::profile::Led;
use super::http::{HttpReply, HttpRequest};
use super::{Caller, Shown, WebSession, authenticate, body, error, error_with, extended_info, log_in};

const ROOT: &str = "/redfish/v1";

/// Which kind of request this is, for faults.
pub(super) fn kind(state: &State, request: &HttpRequest) -> Request {
    let path = request.path.as_str();
    let method = request.method.as_str();
    if path == reset_target(state) {
        return Request::Reset;
    }
    match path.strip_prefix(ROOT).map(|rest| rest.trim_start_matches('/')) {
        Some("") => Request::Root,
        Some("SessionService/Sessions") if method == "POST" => Request::Login,
        Some(rest) if rest.starts_with("SessionService/Sessions/") && method == "DELETE" => Request::Logout,
        Some(rest) if rest.starts_with("AccountService/Accounts/") && method == "PATCH" => Request::SetPassword,
        Some(rest) if rest.starts_with("Systems/") && method == "PATCH" => {
            if body(request).is_some_and(|body| body.get("Boot").is_some()) { Request::Boot } else { Request::Identify }
        }
        Some(rest) if rest == "Systems" || rest.starts_with("Systems/") => Request::System,
        Some(rest) if rest.starts_with("Chassis/") => Request::Chassis,
        None if path == "/redfish" => Request::Root,
        _ => Request::Other,
    }
}

fn reset_target(state: &State) -> String {
    if state.profile.reset_target.is_empty() {
        format!("{ROOT}/Systems/{}/Actions/ComputerSystem.Reset", state.profile.system_id)
    } else {
        state.profile.reset_target.clone()
    }
}

/// Answers a request.
pub(super) fn answer(bmc: &Bmc, state: &mut State, now: Instant, request: &HttpRequest) -> HttpReply {
    let method = request.method.as_str();
    if request.path == "/redfish" && method == "GET" {
        return HttpReply::json(200, &json!({"v1": "/redfish/v1/"}));
    }
    let resets = request.path == reset_target(state);
    let rest = request.path.strip_prefix(ROOT).map(|rest| rest.trim_start_matches('/'));
    if rest == Some("") && method == "GET" {
        return root(state);
    }
    let parts: Vec<&str> = rest.unwrap_or_default().split('/').collect();
    if let ["SessionService", ..] = parts.as_slice()
        && !state.profile.session_service
    {
        return missing();
    }
    if method == "POST" && parts == ["SessionService", "Sessions"] {
        return open_session(state, now, request);
    }
    let caller = match authenticate(state, now, request) {
        Ok(caller) => caller,
        Err(refusal) => return refusal,
    };
    if caller.must_change && !is_password_change(state, &caller, method, &parts) {
        return change_first(state, &caller);
    }
    if resets {
        return if method == "POST" { reset(state, now, &caller, request) } else { not_allowed() };
    }
    match method {
        "GET" | "HEAD" => read(bmc, state, now, &parts, &request.query),
        "DELETE" => match parts.as_slice() {
            ["SessionService", "Sessions", id] => close_session(state, &caller, id),
            _ => not_allowed(),
        },
        "PATCH" => match parts.as_slice() {
            ["Systems", id] if *id == state.profile.system_id => patch_system(bmc, state, now, &caller, request),
            ["AccountService", "Accounts", id] => patch_account(state, now, &caller, id, request),
            _ => not_allowed(),
        },
        _ => not_allowed(),
    }
}

/// What a user that must change its password may still do (DSP0266 §13.3.7): see and change its own account, and leave.
fn is_password_change(state: &State, caller: &Caller, method: &str, parts: &[&str]) -> bool {
    match parts {
        ["AccountService", "Accounts", id] if matches!(method, "GET" | "PATCH") => {
            state.users.iter().any(|user| user.name == caller.user && user.id.to_string() == *id)
        }
        ["SessionService", "Sessions", _] => method == "DELETE",
        _ => false,
    }
}

const CHANGE_FIRST: (&str, &str) = ("Base.1.8.PasswordChangeRequired", "The password must be changed first.");

fn account_of(state: &State, user: &str) -> String {
    let id = state.users.iter().find(|found| found.name == user).map_or(0, |user| user.id);
    format!("{ROOT}/AccountService/Accounts/{id}")
}

fn change_first(state: &State, caller: &Caller) -> HttpReply {
    error_with(403, CHANGE_FIRST.0, CHANGE_FIRST.1, &[&account_of(state, &caller.user)])
}

fn missing() -> HttpReply {
    error(404, "Base.1.8.ResourceMissingAtURI", "There is no such resource.")
}

fn not_allowed() -> HttpReply {
    error(405, "Base.1.8.OperationNotAllowed", "The method is not allowed here.")
}

fn forbidden() -> HttpReply {
    error(403, "Base.1.8.InsufficientPrivilege", "The account does not have the privilege.")
}

fn ok(value: &Value) -> HttpReply {
    HttpReply::json(200, value)
}

fn link(path: &str) -> Value {
    json!({"@odata.id": format!("{ROOT}/{path}")})
}

fn collection(path: &str, kind: &str, members: impl Iterator<Item = String>) -> HttpReply {
    let members: Vec<Value> = members.map(|member| link(&format!("{path}/{member}"))).collect();
    ok(&json!({
        "@odata.id": format!("{ROOT}/{path}"), "@odata.type": format!("#{kind}Collection.{kind}Collection"), "Name": kind,
        "Members@odata.count": members.len(), "Members": members,
    }))
}

fn root(state: &State) -> HttpReply {
    let mut root = json!({
        "@odata.id": "/redfish/v1/", "@odata.type": "#ServiceRoot.v1_9_0.ServiceRoot", "Id": "RootService", "Name": "Root Service",
        "RedfishVersion": "1.11.0", "UUID": state.guid, "Vendor": state.profile.manufacturer, "Product": state.profile.model,
        "Systems": link("Systems"), "Chassis": link("Chassis"), "Managers": link("Managers"),
        "AccountService": link("AccountService"),
    });
    if state.profile.session_service
        && let Some(root) = root.as_object_mut()
    {
        root.insert("SessionService".into(), link("SessionService"));
        root.insert("Links".into(), json!({"Sessions": link("SessionService/Sessions")}));
    }
    ok(&root)
}

fn read(bmc: &Bmc, state: &mut State, now: Instant, parts: &[&str], query: &str) -> HttpReply {
    match parts {
        ["Systems"] => {
            let ids = std::iter::once(state.profile.system_id.clone()).chain(state.profile.other_systems.clone());
            collection("Systems", "ComputerSystem", ids)
        }
        ["Systems", id] if *id == state.profile.system_id => system(bmc, state, now),
        ["Systems", id] if state.profile.other_systems.iter().any(|other| other == id) => other_system(id),
        ["Systems", id, "ResetActionInfo"] if *id == state.profile.system_id && state.profile.action_info => action_info(state),
        ["Chassis"] => collection("Chassis", "Chassis", std::iter::once("1".into())),
        ["Chassis", "1"] => chassis(bmc, state, now),
        ["Managers"] => collection("Managers", "Manager", std::iter::once("1".into())),
        ["Managers", "1"] => ok(&json!({
            "@odata.id": "/redfish/v1/Managers/1", "@odata.type": "#Manager.v1_9_0.Manager", "Id": "1", "Name": "Manager",
            "ManagerType": "BMC", "FirmwareVersion": state.profile.firmware, "Status": {"State": "Enabled", "Health": "OK"},
            "PowerState": "On", "Model": state.profile.model,
        })),
        ["SessionService"] => ok(&json!({
            "@odata.id": "/redfish/v1/SessionService", "@odata.type": "#SessionService.v1_1_8.SessionService", "Id": "SessionService",
            "Name": "Session Service", "ServiceEnabled": true, "SessionTimeout": state.profile.redfish_idle_ms / 1000,
            "Sessions": link("SessionService/Sessions"),
        })),
        ["SessionService", "Sessions"] => {
            collection("SessionService/Sessions", "Session", state.web.sessions.iter().map(|session| session.id.clone()))
        }
        ["SessionService", "Sessions", id] => match state.web.sessions.iter().find(|session| session.id == *id) {
            Some(session) => ok(&session_body(session)),
            None => missing(),
        },
        ["AccountService"] => ok(&json!({
            "@odata.id": "/redfish/v1/AccountService", "@odata.type": "#AccountService.v1_7_2.AccountService", "Id": "AccountService",
            "Name": "Account Service", "ServiceEnabled": true, "MinPasswordLength": state.profile.password_min,
            "MaxPasswordLength": MAX_PASSWORD,
            "AccountLockoutThreshold": state.profile.lockout_after,
            "AccountLockoutDuration": state.profile.lockout_ms / 1000, "Accounts": link("AccountService/Accounts"),
        })),
        ["AccountService", "Accounts"] => accounts(state, query),
        ["AccountService", "Accounts", id] => account(state, id),
        _ => missing(),
    }
}

fn power_state(state: &State, said: Said) -> Option<Value> {
    let transitional = state.profile.transitional_states;
    Some(match said {
        Said::On | Said::Truth => json!("On"),
        Said::Off => json!("Off"),
        Said::PoweringOn => json!(if transitional { "PoweringOn" } else { "Off" }),
        Said::PoweringOff => json!(if transitional { "PoweringOff" } else { "On" }),
        Said::Paused => json!("Paused"),
        Said::Null => Value::Null,
        Said::Absent => return None,
    })
}

fn system(bmc: &Bmc, state: &mut State, now: Instant) -> HttpReply {
    let (said, lit) = (state.reading(now), state.identify.is_lit(now));
    // The ETag tells of the light, the boot override and the real power.
    let (etag, restore_policy) = (system_etag(state, now), state.profile.restore_policy);
    let body = match &state.web.shown {
        Some(shown) if shown.said == said && shown.etag == etag && shown.restore_policy == restore_policy => shown.body.clone(),
        _ => {
            let body = serde_json::to_vec(&system_body(bmc, state, said, lit, &etag)).unwrap_or_default();
            state.web.shown = Some(Shown { said, restore_policy, etag: etag.clone(), body: body.clone() });
            body
        }
    };
    HttpReply { status: 200, headers: Vec::new(), body }.header("ETag", shown_etag(state, &etag))
}

fn system_body(bmc: &Bmc, state: &State, said: Said, lit: bool, etag: &str) -> Value {
    let power = power_state(state, said);
    let profile = &state.profile;
    let path = format!("{ROOT}/Systems/{}", profile.system_id);
    let mut reset = json!({"target": reset_target(state)});
    if profile.action_info {
        reset["@Redfish.ActionInfo"] = json!(format!("{path}/ResetActionInfo"));
    } else {
        reset["ResetType@Redfish.AllowableValues"] = json!(profile.reset_types);
    }
    let mut system = json!({
        "@odata.id": path, "@odata.type": "#ComputerSystem.v1_13_0.ComputerSystem", "@odata.etag": etag,
        "Id": profile.system_id, "Name": bmc.name, "HostName": bmc.name, "SystemType": "Physical", "UUID": state.guid,
        "SerialNumber": bmc.serial(), "Manufacturer": profile.manufacturer, "Model": profile.model, "SKU": "",
        "PowerRestorePolicy": match profile.restore_policy { 1 => "LastState", 2 => "AlwaysOn", _ => "AlwaysOff" },
        "Status": {"State": "Enabled", "Health": "OK"},
        "Boot": {
            "BootSourceOverrideEnabled": state.boot.enabled, "BootSourceOverrideTarget": state.boot.target,
            "BootSourceOverrideMode": "UEFI",
            "BootSourceOverrideTarget@Redfish.AllowableValues": profile.boot_targets,
            "BootSourceOverrideEnabled@Redfish.AllowableValues": OVERRIDES,
        },
        "Actions": {"#ComputerSystem.Reset": reset},
        "Links": {"Chassis": [link("Chassis/1")], "ManagedBy": [link("Managers/1")]},
    });
    if let Some(system) = system.as_object_mut() {
        system.extend(power.map(|power| ("PowerState".into(), power)));
        if matches!(profile.led, Led::Both | Led::Location) {
            system.insert("LocationIndicatorActive".into(), json!(lit));
        }
        if matches!(profile.led, Led::Both | Led::Indicator) {
            system.insert("IndicatorLED".into(), json!(if lit { "Lit" } else { "Off" }));
        }
    }
    system
}

fn other_system(id: &str) -> HttpReply {
    ok(&json!({
        "@odata.id": format!("{ROOT}/Systems/{id}"), "@odata.type": "#ComputerSystem.v1_13_0.ComputerSystem", "Id": id, "Name": id,
        "SystemType": "Physical", "PowerState": "On", "UUID": uuid::Uuid::nil(), "Status": {"State": "Enabled"},
    }))
}

fn action_info(state: &State) -> HttpReply {
    ok(&json!({
        "@odata.id": format!("{ROOT}/Systems/{}/ResetActionInfo", state.profile.system_id),
        "@odata.type": "#ActionInfo.v1_1_2.ActionInfo", "Id": "ResetActionInfo", "Name": "Reset Action Info",
        "Parameters": [{"Name": "ResetType", "Required": true, "DataType": "String", "AllowableValues": state.profile.reset_types}],
    }))
}

fn chassis(bmc: &Bmc, state: &mut State, now: Instant) -> HttpReply {
    let said = state.reading(now);
    let power = power_state(state, said);
    let mut chassis = json!({
        "@odata.id": "/redfish/v1/Chassis/1", "@odata.type": "#Chassis.v1_14_0.Chassis", "Id": "1", "Name": bmc.name,
        "ChassisType": "RackMount", "SerialNumber": bmc.serial(), "Manufacturer": state.profile.manufacturer,
        "Model": state.profile.model, "Status": {"State": "Enabled", "Health": "OK"},
        "Links": {"ComputerSystems": [link(&format!("Systems/{}", state.profile.system_id))], "ManagedBy": [link("Managers/1")]},
    });
    if let (Some(power), Some(chassis)) = (power, chassis.as_object_mut()) {
        chassis.insert("PowerState".into(), power);
    }
    ok(&chassis)
}

fn session_body(session: &WebSession) -> Value {
    json!({
        "@odata.id": format!("{ROOT}/SessionService/Sessions/{}", session.id), "@odata.type": "#Session.v1_3_0.Session",
        "Id": session.id, "Name": "User Session", "UserName": session.user,
    })
}

fn open_session(state: &mut State, now: Instant, request: &HttpRequest) -> HttpReply {
    let body = body(request).unwrap_or_default();
    let (Some(name), Some(password)) = (body.get("UserName").and_then(Value::as_str), body.get("Password").and_then(Value::as_str))
    else {
        return error(400, "Base.1.8.PropertyMissing", "UserName and Password are needed.");
    };
    let Ok(caller) = log_in(state, now, name, password.as_bytes()) else {
        return error(401, "Base.1.8.ResourceAtUriUnauthorized", "The name or password is wrong.");
    };
    let idle = std::time::Duration::from_millis(state.profile.redfish_idle_ms);
    state.web.sessions.retain(|session| now.saturating_duration_since(session.used) < idle);
    let used_up = state.faults.as_ref().is_some_and(|faults| faults.sessions_used_up);
    if used_up || state.web.sessions.len() >= state.profile.redfish_sessions {
        return error(503, "Base.1.8.SessionLimitExceeded", "There are too many sessions.").header("Retry-After", "5");
    }
    state.web.number += 1;
    let token: String = hex::encode(state.rng.bytes16()) + &hex::encode(state.rng.bytes16());
    let session = WebSession { id: state.web.number.to_string(), token: token.clone(), user: caller.user.clone(), used: now };
    let mut shown = session_body(&session);
    if caller.must_change {
        let account = account_of(state, &caller.user);
        shown["@Message.ExtendedInfo"] = json!([extended_info(CHANGE_FIRST.0, CHANGE_FIRST.1, &[&account])]);
    }
    let reply = HttpReply::json(201, &shown)
        .header("X-Auth-Token", token)
        .header("Location", format!("{ROOT}/SessionService/Sessions/{}", session.id));
    state.web.sessions.push(session);
    state.login_succeeded(Source::Redfish, &caller.user, "session");
    reply
}

fn close_session(state: &mut State, caller: &Caller, id: &str) -> HttpReply {
    let Some(place) = state.web.sessions.iter().position(|session| session.id == id) else { return missing() };
    let own = state.web.sessions.get(place).is_some_and(|session| session.user == caller.user);
    if !own && caller.limit < Privilege::Administrator {
        return forbidden();
    }
    state.web.sessions.swap_remove(place);
    state.counters.logouts += 1;
    state.record(Source::Redfish, &caller.user, "logout", "done");
    HttpReply::empty(204)
}

fn reset(state: &mut State, now: Instant, caller: &Caller, request: &HttpRequest) -> HttpReply {
    if caller.limit < Privilege::Operator {
        return forbidden();
    }
    let body = body(request).unwrap_or_default();
    let Some(kind) = body.get("ResetType").and_then(Value::as_str) else {
        return error(400, "Base.1.8.ActionParameterMissing", "ResetType is needed.");
    };
    state.chassis.advance(now);
    let action = match kind {
        "On" | "ForceOn" => Action::On,
        "ForceOff" => Action::Off,
        "GracefulShutdown" => Action::Soft,
        "PushPowerButton" if state.chassis.is_on() => Action::Soft,
        "PushPowerButton" => Action::On,
        "ForceRestart" | "GracefulRestart" => Action::Reset,
        "PowerCycle" => Action::Cycle,
        "Nmi" => Action::Diag,
        _ => return unknown_type(kind),
    };
    if !state.profile.reset_types.iter().any(|known| known == kind) {
        return unknown_type(kind);
    }
    let already = || error(409, "Base.1.8.ResourceInUse", "The system is in that state already.");
    let taken = state.order(Source::Redfish, &caller.user, action, now);
    let reply = match (taken, state.profile.redfish_already) {
        (Taken::Accepted, _) | (Taken::Unchanged, 204) => HttpReply::empty(204),
        (_, 400) => error(400, "iLO.2.14.InvalidOperationForSystemState", "The operation was not valid in the current state."),
        _ => already(),
    };
    if reply.status != 204
        && let Some(call) = state.calls.back_mut()
    {
        call.result = format!("refused-{}", reply.status);
    }
    reply
}

fn unknown_type(kind: &str) -> HttpReply {
    error(400, "Base.1.8.ActionParameterValueNotInList", &format!("{kind} is not an allowed ResetType."))
}

fn system_etag(state: &State, now: Instant) -> String {
    let lit = u8::from(state.identify.is_lit(now));
    format!("\"s{}-{}-{}-{lit}\"", u8::from(state.chassis.is_on()), state.boot.target, state.boot.enabled)
}

fn shown_etag(state: &State, etag: &str) -> String {
    if state.profile.weak_etags { format!("W/{etag}") } else { etag.into() }
}

/// Checks If-Match against the strong form.
fn precondition(state: &State, request: &HttpRequest, etag: &str) -> Result<(), HttpReply> {
    match request.if_match.as_deref() {
        Some(_) if state.profile.refuses_if_match => Err(error(412, "Base.1.8.PreconditionFailed", "If-Match is not known.")),
        None if state.profile.needs_if_match => Err(error(428, "Base.1.8.PreconditionRequired", "If-Match is needed.")),
        None | Some("*") => Ok(()),
        Some(given) if given == etag => Ok(()),
        Some(_) => Err(error(412, "Base.1.8.PreconditionFailed", "The ETag does not match.")),
    }
}

fn patch_system(bmc: &Bmc, state: &mut State, now: Instant, caller: &Caller, request: &HttpRequest) -> HttpReply {
    if caller.limit < Privilege::Operator {
        return forbidden();
    }
    if let Err(refusal) = precondition(state, request, &system_etag(state, now)) {
        return refusal;
    }
    let Some(body) = body(request) else { return error(400, "Base.1.8.MalformedJSON", "The body is not JSON.") };
    let known = match state.profile.led {
        Led::Both => &["LocationIndicatorActive", "IndicatorLED", "Boot"][..],
        Led::Location => &["LocationIndicatorActive", "Boot"],
        Led::Indicator => &["IndicatorLED", "Boot"],
        Led::None => &["Boot"],
    };
    if let Some(unknown) = body.as_object().into_iter().flatten().map(|(key, _)| key).find(|key| !known.contains(&key.as_str())) {
        return error(400, "Base.1.8.PropertyUnknown", &format!("There is no property {unknown}."));
    }
    let lit = match (body.get("LocationIndicatorActive"), body.get("IndicatorLED").and_then(Value::as_str)) {
        (Some(Value::Bool(lit)), _) => Some(*lit),
        (None, Some("Lit" | "Blinking")) => Some(true),
        (None, Some("Off")) => Some(false),
        (None, None) => None,
        _ => return error(400, "Base.1.8.PropertyValueNotInList", "The light can be Lit, Blinking or Off."),
    };
    if let Some(lit) = lit {
        state.identify = if lit { Identify::On } else { Identify::Off };
        state.record(Source::Redfish, &caller.user, "identify", if lit { "on" } else { "off" });
    }
    if let Some(boot) = body.get("Boot") {
        let word = |key: &str, or: &str| boot.get(key).and_then(Value::as_str).unwrap_or(or).to_owned();
        let target = word("BootSourceOverrideTarget", &state.boot.target);
        let enabled = word("BootSourceOverrideEnabled", &state.boot.enabled);
        if !state.profile.boot_targets.contains(&target) || !OVERRIDES.contains(&enabled.as_str()) {
            return error(400, "Base.1.8.PropertyValueNotInList", &format!("{target} {enabled} is not allowed."));
        }
        if state.faults.as_ref().is_some_and(|faults| faults.ignore_boot) {
            state.record(Source::Redfish, &caller.user, "boot", "ignored");
            return system(bmc, state, now);
        }
        (state.boot.target, state.boot.enabled) = (target, enabled);
        let result = format!("{} {}", state.boot.target, state.boot.enabled);
        state.record(Source::Redfish, &caller.user, "boot", result);
    }
    system(bmc, state, now)
}

/// Longest password that Redfish takes here.
const MAX_PASSWORD: usize = 64;
/// What `BootSourceOverrideEnabled` may be.
const OVERRIDES: [&str; 3] = ["Disabled", "Once", "Continuous"];

/// The accounts, in pages when told to; empty slots come first, as on BMCs that have them.
fn accounts(state: &State, query: &str) -> HttpReply {
    let path = "AccountService/Accounts";
    let empty = (0..state.profile.empty_accounts).map(|slot| (100 + u32::from(slot)).to_string());
    let ids: Vec<String> = empty.chain(state.users.iter().map(|user| user.id.to_string())).collect();
    let page = state.profile.account_page;
    if page == 0 {
        return collection(path, "ManagerAccount", ids.into_iter());
    }
    let skip = query.strip_prefix("$skip=").and_then(|skip| skip.parse().ok()).unwrap_or(0usize);
    let members: Vec<Value> = ids.iter().skip(skip).take(page).map(|id| link(&format!("{path}/{id}"))).collect();
    let mut shown = json!({"@odata.id": format!("{ROOT}/{path}"), "Members@odata.count": ids.len(), "Members": members});
    if skip + page < ids.len() {
        shown["Members@odata.nextLink"] = json!(format!("{ROOT}/{path}?$skip={}", skip + page));
    }
    ok(&shown)
}

fn account_etag(id: u8, revision: u32) -> String {
    format!("\"a{id}-{revision}\"")
}

fn account(state: &State, id: &str) -> HttpReply {
    if id.parse().is_ok_and(|id: u32| (100..100 + u32::from(state.profile.empty_accounts)).contains(&id)) {
        return ok(
            &json!({"@odata.id": format!("{ROOT}/AccountService/Accounts/{id}"), "Id": id, "UserName": "", "Enabled": false}),
        );
    }
    let Some(user) = state.users.iter().find(|user| user.id.to_string() == id) else { return missing() };
    let etag = account_etag(user.id, user.revision);
    ok(&json!({
        "@odata.id": format!("{ROOT}/AccountService/Accounts/{id}"), "@odata.type": "#ManagerAccount.v1_6_1.ManagerAccount",
        "@odata.etag": etag, "Id": id, "Name": "User Account", "UserName": user.name, "Password": null,
        "RoleId": user.limit.role(), "Enabled": user.enabled, "Locked": user.locked_until.is_some(),
    }))
    .header("ETag", shown_etag(state, &etag))
}

fn patch_account(state: &mut State, now: Instant, caller: &Caller, id: &str, request: &HttpRequest) -> HttpReply {
    let Some(user) = state.users.iter().find(|user| user.id.to_string() == id) else { return missing() };
    if caller.limit < Privilege::Administrator && user.name != caller.user {
        return forbidden();
    }
    let (name, etag) = (user.name.clone(), account_etag(user.id, user.revision));
    if let Err(refusal) = precondition(state, request, &etag) {
        return refusal;
    }
    let body = body(request).unwrap_or_default();
    match body.get("Password").and_then(Value::as_str) {
        Some(password) if (state.profile.password_min..=MAX_PASSWORD).contains(&password.len()) => {
            state.set_password(Source::Redfish, &caller.user, &name, password.as_bytes(), now);
            HttpReply::empty(204)
        }
        Some(_) => {
            state.record(Source::Redfish, &caller.user, "set-password", "refused-400");
            error(400, "Base.1.8.PropertyValueFormatError", "The password is too short or too long.")
        }
        None => error(400, "Base.1.8.PropertyMissing", "Only Password can be changed."),
    }
}
