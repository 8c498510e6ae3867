//! Accounts: where they are, whose one is, and what a new password must look like.

use serde_json::{Value, json};

use super::answer::{AnswerError, link, parse, text};
use super::link::{Origin, Path};

/// The `AccountService`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountService {
    /// The collection of accounts.
    pub accounts: Path,
    least: Option<usize>,
    most: Option<usize>,
}

/// A password that this BMC says it does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongLength {
    /// Too few characters.
    #[error("this BMC wants passwords of at least {0} characters")]
    Short(usize),
    /// Too many.
    #[error("this BMC takes passwords of at most {0} characters")]
    Long(usize),
}

impl AccountService {
    /// Reads an `AccountService`.
    ///
    /// # Errors
    /// No JSON, or no link to the accounts.
    pub fn read(body: &[u8], origin: &Origin) -> Result<Self, AnswerError> {
        let service: Value = parse("account service", body)?;
        let accounts = service.get("Accounts").and_then(|accounts| link(accounts, origin));
        let number = |key: &str| service.get(key).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
        Ok(Self {
            accounts: accounts.ok_or(AnswerError::Missing { what: "account service", member: "Accounts" })?,
            least: number("MinPasswordLength"),
            // 0 is how some say that there is no limit.
            most: number("MaxPasswordLength").filter(|most| *most > 0),
        })
    }

    /// Checks a password by the limits that the BMC tells, before it is sent.
    ///
    /// # Errors
    /// Too short or too long.
    pub fn check(&self, password: &str) -> Result<(), WrongLength> {
        let len = password.chars().count();
        match (self.least, self.most) {
            (Some(least), _) if len < least => Err(WrongLength::Short(least)),
            (_, Some(most)) if len > most => Err(WrongLength::Long(most)),
            _ => Ok(()),
        }
    }
}

/// A `ManagerAccount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// `UserName`; empty in the free slots that some makers show.
    pub user: String,
    /// `RoleId`.
    pub role: Option<String>,
    /// `@odata.etag`.
    pub etag: Option<String>,
}

impl Account {
    /// Reads a `ManagerAccount`.
    ///
    /// # Errors
    /// No JSON.
    pub fn read(body: &[u8]) -> Result<Self, AnswerError> {
        let account: Value = parse("account", body)?;
        let word = |key: &str| account.get(key).and_then(text).map(str::to_owned);
        Ok(Self { user: word("UserName").unwrap_or_default(), role: word("RoleId"), etag: word("@odata.etag") })
    }
}

/// What a PATCH of an account says to change its password.
#[must_use]
pub fn new_password(password: &str) -> Value {
    json!({ "Password": password })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_are_told_are_kept() {
        let origin = Origin::new("https", "10.0.0.9", 443);
        let service = |limits: &str| {
            let body = format!(r#"{{"Accounts":{{"@odata.id":"/a"}}{limits}}}"#);
            AccountService::read(body.as_bytes(), &origin).unwrap()
        };
        let strict = service(r#","MinPasswordLength":8,"MaxPasswordLength":16"#);
        for (password, expected) in [
            ("1234567", Err(WrongLength::Short(8))),
            ("12345678", Ok(())),
            ("äöüäöüäöüäöüäöüä", Ok(())),
            ("12345678901234567", Err(WrongLength::Long(16))),
        ] {
            assert_eq!(strict.check(password), expected, "{password}");
        }
        assert_eq!(service("").check(""), Ok(()));
        assert_eq!(service(r#","MinPasswordLength":"8","MaxPasswordLength":0"#).check("x"), Ok(()));
        assert!(AccountService::read(br#"{"Accounts":{"@odata.id":"https://evil/a"}}"#, &origin).is_err());
    }

    #[test]
    fn accounts_with_holes() {
        for (body, user, role) in [
            (r#"{"UserName":"root","RoleId":"Administrator"}"#, "root", Some("Administrator")),
            (r#"{"UserName":"","RoleId":null}"#, "", None),
            (r#"{"UserName":7}"#, "", None),
        ] {
            let account = Account::read(body.as_bytes()).unwrap();
            assert_eq!((account.user.as_str(), account.role.as_deref()), (user, role), "{body}");
        }
        assert!(Account::read(b"<html>").is_err());
        assert_eq!(new_password("a\"b").to_string(), r#"{"Password":"a\"b"}"#);
    }
}
