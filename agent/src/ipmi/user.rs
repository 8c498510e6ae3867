//! Users of a BMC: which id has a name, what it may do, and its password.

use ipmi_rs_core::connection::{IpmiCommand, Message, NetFn, NotEnoughData};

use super::request::Reply;
use super::script::Turn;
use super::settings::{NewPassword, Settings};
use super::unusable::Unusable;
use crate::bmc::{Answer, Ask};

/// Ids there can be (six bits, 0 is reserved).
const MOST_USERS: u8 = 63;
/// Ids that are looked at where a BMC does not say how many it has.
const USUAL_USERS: u8 = 16;
/// CC 0xC7: wrong length; what a BMC that keeps 16 bytes says to the long form.
const CC_LENGTH: u8 = 0xC7;

/// Get User Name (§22.29).
#[derive(Debug, Clone, Copy)]
pub struct GetUserName(pub u8);

impl From<GetUserName> for Message {
    fn from(get: GetUserName) -> Self {
        Self::new_request(NetFn::App, 0x46, vec![get.0 & 0x3F])
    }
}

impl IpmiCommand for GetUserName {
    type Output = Vec<u8>;
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<Vec<u8>, NotEnoughData> {
        let name = data.first_chunk::<16>().ok_or(NotEnoughData)?;
        Ok(name.iter().copied().take_while(|byte| *byte != 0).collect())
    }
}

/// Get User Access (§22.27) on this channel.
#[derive(Debug, Clone, Copy)]
pub struct GetUserAccess(pub u8);

/// The answer to [`GetUserAccess`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserAccess {
    /// How many user ids the channel has.
    pub max_users: u8,
    /// The user's privilege limit as sent; 0x0F is no access.
    pub privilege_limit: u8,
}

impl From<GetUserAccess> for Message {
    fn from(get: GetUserAccess) -> Self {
        Self::new_request(NetFn::App, 0x44, vec![0x0E, get.0 & 0x3F])
    }
}

impl IpmiCommand for GetUserAccess {
    type Output = UserAccess;
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<UserAccess, NotEnoughData> {
        let [max_users, _, _, access, ..] = *data else { return Err(NotEnoughData) };
        Ok(UserAccess { max_users: max_users & 0x3F, privilege_limit: access & 0x0F })
    }
}

/// Set User Password (§22.30), operation 2, in the 16-byte or the 20-byte form. The message holds the password: it is made
/// when it is sent and lives no longer than its request.
pub struct SetUserPassword<'a> {
    /// User id, 1–63.
    pub user: u8,
    /// What to set.
    pub password: &'a NewPassword,
}

impl From<SetUserPassword<'_>> for Message {
    fn from(set: SetUserPassword<'_>) -> Self {
        let NewPassword { bytes, long } = set.password;
        let len = if *long { 20 } else { 16 };
        let user = (set.user & 0x3F) | if *long { 0x80 } else { 0 };
        let padded = bytes.expose().iter().copied().chain(std::iter::repeat(0)).take(len);
        Self::new_request(NetFn::App, 0x47, [user, 2].into_iter().chain(padded).collect())
    }
}

/// Looking for the id of a name: Get User Access tells how many there are, Get User Name of each who it is.
#[derive(Debug)]
pub struct Lookup {
    name: Vec<u8>,
    most: u8,
    /// 0 while the count is asked for.
    at: u8,
    last: u8,
    found: Vec<u8>,
}

/// How far a [`Lookup`] is.
pub enum Looked {
    /// Ask this next.
    Send(Message),
    /// The ids that have the name; a BMC should have one at most.
    Found(Vec<u8>),
}

impl Lookup {
    /// For the id of `name`.
    #[must_use]
    pub const fn new(name: Vec<u8>) -> Self {
        Self { name, most: MOST_USERS, at: 0, last: USUAL_USERS, found: Vec::new() }
    }

    /// Not further than what BMCs usually have.
    #[must_use]
    pub const fn short(mut self) -> Self {
        self.most = USUAL_USERS;
        self
    }

    /// The first request.
    #[must_use]
    pub fn first(&self) -> Message {
        GetUserAccess(1).into()
    }

    /// Takes the answer to the request before; `None` for one that did not come.
    pub fn next(&mut self, reply: Option<&Reply>) -> Looked {
        let data = reply.filter(|reply| reply.completion_code == 0).map(Reply::data).unwrap_or_default();
        if self.at == 0 {
            if let Ok(access) = GetUserAccess::parse_success_response(data)
                && access.max_users > 0
            {
                self.last = access.max_users.min(self.most);
            }
        } else if GetUserName::parse_success_response(data).is_ok_and(|name| name == self.name) {
            self.found.push(self.at);
        }
        if self.at >= self.last {
            return Looked::Found(std::mem::take(&mut self.found));
        }
        self.at += 1;
        Looked::Send(GetUserName(self.at).into())
    }
}

/// Changing a password: look the user's id up, then Set User Password, once.
pub struct Change {
    lookup: Lookup,
    password: NewPassword,
    /// The password is on its way.
    setting: bool,
}

impl Change {
    /// Of the settings' user.
    #[must_use]
    pub fn new(password: NewPassword, settings: &Settings) -> Self {
        Self { lookup: Lookup::new(settings.username.clone()), password, setting: false }
    }

    /// The first request.
    #[must_use]
    pub fn first(&self) -> Message {
        self.lookup.first()
    }

    /// Whether the password is on its way.
    #[must_use]
    pub const fn is_order_out(&self) -> bool {
        self.setting
    }

    /// Takes the answer to the request before. `short` says that this BMC was seen to keep 16 bytes.
    pub fn next(&mut self, reply: &Reply, settings: &Settings, short: bool) -> Turn {
        if self.setting {
            return Turn::End(self.set(reply.completion_code));
        }
        let ids = match self.lookup.next(Some(reply)) {
            Looked::Send(message) => return Turn::Send(message),
            Looked::Found(ids) => ids,
        };
        let name = String::from_utf8_lossy(&settings.username).into_owned();
        match ids.as_slice() {
            [] => Turn::End(Err(Unusable::NoUser { name })),
            [_] if short && self.password.long => Turn::End(Err(Unusable::KeepsSixteen)),
            [id] => {
                self.setting = true;
                Turn::SendOnce(SetUserPassword { user: *id, password: &self.password }.into())
            }
            _ => Turn::End(Err(Unusable::SeveralUsers { name, ids })),
        }
    }

    const fn set(&self, code: u8) -> Result<Answer, Unusable> {
        match code {
            0 => Ok(Answer::Done),
            CC_LENGTH if self.password.long => Err(Unusable::KeepsSixteen),
            _ => Err(Unusable::Code { ask: Ask::SetPassword, code }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    fn settings(name: &str) -> Settings {
        Settings::parse(name, "old", &BTreeMap::new()).unwrap()
    }

    /// A BMC with users 1, 2, … of these names; what was sent to set a password, and how it ended.
    fn change(name: &str, new: &str, users: &[&str], code: u8, short: bool) -> (Option<Vec<u8>>, Result<Answer, Unusable>) {
        let settings = settings(name);
        let mut change = Change::new(settings.new_password(new).unwrap(), &settings);
        let mut message = change.first();
        let mut set = None;
        for _ in 0..100 {
            let data = message.data().to_vec();
            let (code, answer) = match (message.cmd(), data.as_slice()) {
                (0x44, [0x0E, 1]) => (0, vec![u8::try_from(users.len()).unwrap(), 1, 1, 0x14]),
                (0x46, [id]) => match users[usize::from(*id) - 1] {
                    "" => (0xCC, Vec::new()),
                    user => (0, user.bytes().chain(std::iter::repeat(0)).take(16).collect()),
                },
                (0x47, _) => {
                    assert_eq!(set.replace(data), None, "sent once");
                    (code, Vec::new())
                }
                other => panic!("{other:02x?}"),
            };
            match change.next(&Reply::new(Duration::ZERO, code, &answer), &settings, short) {
                Turn::Send(next) => message = next,
                Turn::SendOnce(next) => {
                    assert!(change.is_order_out());
                    message = next;
                }
                Turn::End(result) => return (set, result),
                Turn::Try(_) => panic!("all of it must be answered"),
            }
        }
        panic!("no end");
    }

    #[test]
    fn the_id_is_found_by_name_and_the_form_by_length() {
        let users = ["", "root", "", "operator", "Root", "sixteen-bytes-ab"];
        let (sent, result) = change("root", "new", &users, 0, false);
        assert_eq!((sent, result), (Some([&[2, 2, b'n', b'e', b'w'][..], &[0; 13]].concat()), Ok(Answer::Done)));
        let (sent, result) = change("sixteen-bytes-ab", "0123456789abcdefg", &users, 0, false);
        let long = [&[0x86, 2][..], b"0123456789abcdefg", &[0; 3]].concat();
        assert_eq!((sent, result), (Some(long), Ok(Answer::Done)));
    }

    #[test]
    fn without_exactly_one_user_nothing_is_set() {
        let (sent, result) = change("nobody", "new", &["", "root"], 0, false);
        assert_eq!((sent, result), (None, Err(Unusable::NoUser { name: "nobody".into() })));
        let (sent, result) = change("root", "new", &["root", "x", "root"], 0, false);
        assert_eq!((sent, result), (None, Err(Unusable::SeveralUsers { name: "root".into(), ids: vec![1, 3] })));
    }

    #[test]
    fn a_bmc_that_keeps_16_bytes_gets_no_more() {
        let (sent, result) = change("root", "0123456789abcdefg", &["root"], 0, true);
        assert_eq!((sent, result), (None, Err(Unusable::KeepsSixteen)));
        let (_, result) = change("root", "0123456789abcdefg", &["root"], 0xC7, false);
        assert_eq!(result, Err(Unusable::KeepsSixteen));
        for (code, maybe_sent) in [(0xC7, false), (0xCC, false), (0xFF, true), (0xC3, true)] {
            let (_, result) = change("root", "new", &["root"], code, true);
            let error = result.unwrap_err();
            assert_eq!(error, Unusable::Code { ask: Ask::SetPassword, code });
            assert_eq!(error.maybe_sent(), maybe_sent, "{code:#x}");
        }
    }

    #[test]
    fn a_lookup_ends_whatever_comes() {
        for count in [0, 1, 63, 200] {
            let mut lookup = Lookup::new(b"x".to_vec());
            let mut asked = 0;
            let access = Reply::new(Duration::ZERO, 0, &[count, 0, 0, 0]);
            let mut looked = lookup.next(Some(&access));
            while let Looked::Send(_) = looked {
                asked += 1;
                looked = lookup.next(None);
            }
            assert_eq!(
                asked,
                match count & 0x3F {
                    0 => 16,
                    count => count,
                },
                "{count}"
            );
        }
    }
}
