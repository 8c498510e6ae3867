//! Webhooks by the Standard Webhooks convention (<https://www.standardwebhooks.com>, specification of 2023): the delivery's id,
//! the time of the attempt and the body, signed with HMAC-SHA256.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;
use zeroize::Zeroizing;

use super::http::Post;
use super::{Letter, again, files, never};
use crate::clock;
use crate::config::notify::Webhook;
use crate::fleet::Undelivered;

/// What a key's text begins with.
const PREFIX: &str = "whsec_";
/// How long a key is, in bytes.
const KEY: std::ops::RangeInclusive<usize> = 24..=64;
/// Most keys: the old and the new one while they change.
const MAX_KEYS: usize = 4;

pub(super) async fn send(way: &Webhook, letter: &Letter<'_>) -> Result<(), Undelivered> {
    let text = files::text("secret_file", &way.secret_file)?;
    let keys = keys(&text).map_err(|why| again(format!("secret_file {}: {why}", way.secret_file.display())))?;
    let body = letter.json().map_err(|error| never(error.to_string()))?;
    let headers = headers(&letter.delivery.id, clock::now().wall, &body, &keys).ok_or_else(|| never("no header"))?;
    let (token_file, ca_file) = (way.token_file.as_deref(), way.ca_file.as_deref());
    Post { url: way.url.clone(), headers, body, token_file, ca_file }.send().await
}

/// One key in each line, in base64 with or without `whsec_` before it.
fn keys(text: &str) -> Result<Vec<hmac::Key>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let keys: Vec<hmac::Key> = lines.map(key).collect::<Result<_, _>>()?;
    if (1..=MAX_KEYS).contains(&keys.len()) { Ok(keys) } else { Err(format!("it takes 1 to {MAX_KEYS} keys, one in each line")) }
}

fn key(line: &str) -> Result<hmac::Key, String> {
    let bytes = STANDARD.decode(line.strip_prefix(PREFIX).unwrap_or(line)).map(Zeroizing::new);
    let bytes = bytes.ok().filter(|bytes| KEY.contains(&bytes.len()));
    let hint = "a key is `whsec_` and 24 to 64 bytes in base64: openssl rand -base64 32";
    bytes.map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes)).ok_or_else(|| hint.to_owned())
}

fn headers(id: &str, at: Timestamp, body: &[u8], keys: &[hmac::Key]) -> Option<HeaderMap> {
    let timestamp = at.as_second().to_string();
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    let signatures: Vec<String> = keys.iter().map(|key| format!("v1,{}", STANDARD.encode(hmac::sign(key, &signed)))).collect();
    let named = [("webhook-id", id), ("webhook-timestamp", &timestamp), ("webhook-signature", &signatures.join(" "))];
    named.into_iter().map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn a_signature_is_the_known_one() {
        let keys = keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let at = Timestamp::from_second(1_614_265_330).unwrap();
        let headers = headers("msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#, &keys).unwrap();
        assert_eq!(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
    }

    #[test]
    fn keys_that_change_sign_both() {
        let new = format!("whsec_{}", STANDARD.encode([7; 32]));
        let both = keys(&format!("{new}\n\nMfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")).unwrap();
        let headers = headers("a", Timestamp::UNIX_EPOCH, b"", &both).unwrap();
        assert_eq!(headers["webhook-signature"].to_str().unwrap().matches("v1,").count(), 2);
        for bad in ["", "\n", "whsec_", "secret", &STANDARD.encode([7; 8]), &format!("{new}\n").repeat(5)] {
            assert!(keys(bad).is_err(), "{bad}");
        }
    }
}
