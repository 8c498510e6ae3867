//! What can be made wrong with a BMC. Words only; the protocol modules act on them.

use serde::{Deserialize, Deserializer, Serialize};

/// The faults of one BMC; none by default. `PUT /bmcs/{select}/faults` replaces them, `DELETE` clears them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// No network: nothing is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unplug: Option<Unplug>,
    /// Every answer comes so much later, ms.
    pub slow_ms: u64,
    /// Fraction of datagrams lost, each way; of TCP requests whose connection is cut instead of answered.
    pub loss: f64,
    /// Fraction of IPMI answers sent twice.
    pub duplicate: f64,
    /// Fraction of IPMI answers held until after the next one (or 300 ms).
    pub reorder: f64,
    /// Some answers come late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late: Option<Late>,
    /// Answers that refuse.
    pub refuse: Vec<Refuse>,
    /// Untrue power readings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lie: Option<Lie>,
    /// Fraction of IPMI answers with some bytes flipped; of Redfish bodies that are not JSON.
    pub garble: f64,
    /// Fraction of answers cut short (Redfish: the connection closes in mid-body).
    pub truncate: f64,
    /// IPMI answers carry another session's id.
    pub wrong_session_id: bool,
    /// No session is free: Open Session 0x01, Redfish 503 on a new session.
    pub sessions_used_up: bool,
    /// The BMC restarts when it gets a power order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reboot: Option<Reboot>,
    /// From this step on, nothing is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hang_at: Option<Step>,
    /// The TCP connection is closed at this step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_at: Option<Cut>,
    /// Before each true answer in an IPMI session, an unauthenticated one in plain text with the opposite power state and code 0.
    pub forge: bool,
    /// Redfish bodies that are too long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Body>,
    /// Answers Open Session with this suite whatever was proposed (a downgrade).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_suite: Option<u8>,
    /// The status with which an unoffered suite is refused (default 0x11).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suite_refusal: Option<u8>,
    /// Refusals before the session is up are two bytes long.
    pub short_errors: bool,
    /// The RAKP 2 key exchange code is all zero.
    pub zero_rakp2: bool,
    /// Orders that are acknowledged and not done: `on`, `off`, `cycle`, `reset`, `diag`, `soft`.
    pub ignore: Vec<super::chassis::Action>,
    /// A password change is acknowledged and not done.
    pub ignore_password: bool,
    /// A password change is acknowledged at once and done so much later, ms.
    pub password_late_ms: u64,
    /// Boot flags are acknowledged and not kept.
    pub ignore_boot: bool,
}

/// How a BMC without network looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unplug {
    /// UDP silent, TCP connects and hangs.
    Silent,
    /// UDP silent, TCP refused.
    Refused,
}

/// Late answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Late {
    /// How late, ms.
    pub ms: u64,
    /// Every n-th answer; 1 is all of them.
    #[serde(default = "one")]
    pub nth: u64,
}

/// One kind of request that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refuse {
    /// Which request: see [`Request`]; `any` for all in its protocol.
    pub on: Request,
    /// IPMI: completion code, or RMCP+ status; a number or `"0xD5"`.
    #[serde(default, deserialize_with = "code", skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// Redfish: HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Redfish: Retry-After, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
    /// Redfish: MessageId of the error body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// How many times; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

/// Kinds of requests, in both protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// All.
    Any,
    /// IPMI Open Session (code is the RMCP+ status).
    OpenSession,
    /// IPMI RAKP 1 (code is RAKP 2's status).
    Rakp1,
    /// IPMI RAKP 3 (code is RAKP 4's status).
    Rakp3,
    /// IPMI Get Channel Authentication Capabilities.
    AuthCapabilities,
    /// IPMI Get Channel Cipher Suites.
    CipherSuites,
    /// IPMI Set Session Privilege Level.
    SetPrivilege,
    /// IPMI Close Session.
    CloseSession,
    /// IPMI Get Chassis Status.
    ChassisStatus,
    /// IPMI Chassis Control.
    ChassisControl,
    /// IPMI Get Device ID.
    DeviceId,
    /// IPMI Get System GUID.
    SystemGuid,
    /// Set User Password; Redfish PATCH of an account.
    SetPassword,
    /// IPMI Chassis Identify; Redfish PATCH of the LED.
    Identify,
    /// Boot options; Redfish PATCH of Boot.
    Boot,
    /// Any other request.
    Other,
    /// Redfish service root.
    Root,
    /// Redfish POST of a session.
    Login,
    /// Redfish DELETE of a session.
    Logout,
    /// Redfish GET of systems or a system.
    System,
    /// Redfish reset action.
    Reset,
    /// Redfish GET of a chassis.
    Chassis,
}

/// Untrue readings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lie {
    /// What successive readings say; the truth comes after the last.
    pub readings: Vec<Said>,
    /// Begin again after the last instead.
    #[serde(default)]
    pub repeat: bool,
}

/// A reading, as said. What only Redfish can say is Off in IPMI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// On.
    On,
    /// Off.
    Off,
    /// `PoweringOn`.
    PoweringOn,
    /// `PoweringOff`.
    PoweringOff,
    /// `Paused`.
    Paused,
    /// `null`.
    Null,
    /// No `PowerState` at all.
    Absent,
    /// The truth.
    Truth,
}

/// A restart of the BMC in mid-command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reboot {
    /// How long it is silent afterwards, ms; all sessions are gone.
    pub silence_ms: u64,
    /// Whether the order that met it is still carried out.
    #[serde(default)]
    pub executes: bool,
}

/// Steps at which a BMC can stop answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// ASF ping.
    Ping,
    /// Get Channel Authentication Capabilities.
    AuthCapabilities,
    /// Get Channel Cipher Suites.
    CipherSuites,
    /// Open Session.
    OpenSession,
    /// RAKP 1.
    Rakp1,
    /// RAKP 3: dropped after RAKP 2.
    Rakp3,
    /// Set Session Privilege Level.
    SetPrivilege,
    /// Every command in a session but Set Session Privilege and Close; every Redfish request that is logged in.
    Command,
    /// Orders only (Chassis Control, reset): carried out, not answered.
    Order,
    /// Password changes only: done, not answered.
    Password,
    /// Close Session, session DELETE.
    Close,
    /// TLS handshake.
    Tls,
    /// Redfish session POST.
    Login,
}

/// Steps at which a TCP connection can be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// After accept, before TLS.
    Accept,
    /// After the TLS handshake.
    Tls,
    /// After a request was read and before it is carried out.
    Request,
    /// After a request was carried out, instead of the answer.
    Answer,
}

/// Bodies that are too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// So many bytes, announced.
    Huge(u64),
    /// Chunked, without end.
    Endless,
}

const fn one() -> u64 {
    1
}

fn code<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u8>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Code {
        Number(u8),
        Text(String),
    }
    Option::<Code>::deserialize(from)?
        .map(|code| match code {
            Code::Number(number) => Ok(number),
            Code::Text(text) => u8::from_str_radix(text.trim_start_matches("0x").trim_start_matches("0X"), 16)
                .map_err(|_| serde::de::Error::custom(format!("not a code like \"0xD5\": {text:?}"))),
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_read_from_what_people_write() {
        let text = r#"{"unplug":"refused","refuse":[{"on":"chassis-control","code":"0xD5","times":1},{"on":"reset","status":503,"retry_after":3}],
            "lie":{"readings":["off","truth"],"repeat":true},"body":{"huge":9},"hang_at":"rakp3","ignore":["off"]}"#;
        let faults: Faults = serde_json::from_str(text).unwrap();
        assert_eq!(faults.refuse.first().unwrap().code, Some(0xD5));
        let again: Faults = serde_json::from_str(&serde_json::to_string(&faults).unwrap()).unwrap();
        assert_eq!(again, faults);
        assert!(serde_json::from_str::<Faults>(r#"{"unplugged":true}"#).is_err());
        assert!(serde_json::from_str::<Faults>(r#"{"refuse":[{"on":"reset","code":"0xZZ"}]}"#).is_err());
    }
}
