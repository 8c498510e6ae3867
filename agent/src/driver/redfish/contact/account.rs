//! The login's own account: finding it among the others, and changing its password, once.

use super::super::failure::{Failure, Progress};
use super::super::http::Reply;
use super::change::Tags;
use super::{Contact, MAX_PAGES, Trouble, bad_answer};
use crate::bmc::{Answer, ErrorClass};
use crate::redfish::account::{self, Account, AccountService};
use crate::redfish::answer::Collection;
use crate::redfish::fault::{Exchange, Fault, Verdict, verdict};
use crate::redfish::link::Path;

/// The most accounts that are looked at to change a password. BMCs have 12 to 32 places.
const MOST: usize = 64;

/// Where the login's account is.
pub(super) enum Found {
    /// There it is; `None` for the service where a forced change led straight to it.
    Account { path: Path, tags: Tags, service: Option<AccountService>, role: Option<String> },
    /// The BMC has no accounts to look at.
    NoService,
    /// None of those looked at has the login's name.
    Missing,
}

impl Contact {
    /// Sets the login's own password to the job's new one. The sessions of the old one are dropped: many BMCs end them anyhow.
    pub(super) async fn set_password(&mut self, progress: &Progress) -> Result<Answer, Trouble> {
        let new = self.new_password.clone().filter(|new| !new.expose().is_empty());
        let Some(new) = new else {
            return Err(Failure::setting("bad-new-password", "the new password is missing or empty").into());
        };
        let (path, tags) = match self.find_account(MOST, progress).await? {
            Found::Account { path, tags, service, .. } => {
                let checked = service.map_or(Ok(()), |service| service.check(new.expose()));
                checked.map_err(|wrong| Failure::setting("wrong-length", wrong.to_string()))?;
                (path, tags)
            }
            Found::NoService => return Err(Failure::not_supported("the BMC has no account service").into()),
            Found::Missing => {
                let text = format!("the BMC shows no account named {:?}, so no password was set", self.bmc.username);
                return Err(Failure::setting("no-such-account", text).into());
            }
        };
        let reply = self.patch(path, &account::new_password(new.expose()), tags, progress).await?;
        self.password_taken(&reply)?;
        self.leave().await;
        Ok(Answer::Done)
    }

    /// What the answer to a password means. Nothing here leads to another try.
    fn password_taken(&self, reply: &Reply) -> Result<(), Failure> {
        let fault = Fault::read_of(reply.status, &reply.body);
        let told = self.told("setting the password", reply.status, &fault);
        let code = format!("http-{}", reply.status);
        match verdict(Exchange::Change, reply.status, &fault, &self.quirks) {
            Verdict::Good => Ok(()),
            // The session was good a moment ago: it may have ended because the password was changed.
            Verdict::NotLoggedIn => Err(Failure { maybe_sent: true, ..Failure::new(ErrorClass::Refused, code, told) }),
            Verdict::NotHere if matches!(reply.status, 405 | 501) => Err(Failure::not_supported(told)),
            Verdict::Failed { class: ErrorClass::Refused, .. } if reply.status == 400 => {
                Err(Failure::new(ErrorClass::Refused, "password-refused", told))
            }
            Verdict::Failed { class, maybe_done } => Err(Failure { maybe_sent: maybe_done, ..Failure::new(class, code, told) }),
            Verdict::NotHere | Verdict::NotNow | Verdict::NotInThisState | Verdict::OtherTag => {
                Err(Failure::new(ErrorClass::Refused, code, told))
            }
        }
    }

    /// Looks for the account with the login's name among the first `most`.
    pub(super) async fn find_account(&mut self, most: usize, progress: &Progress) -> Result<Found, Trouble> {
        let Some(service) = self.root.as_ref().and_then(|root| root.accounts.clone()) else { return Ok(Found::NoService) };
        let step = "reading the account service";
        let (_, reply) = self.get(service, &self.who(), step, progress).await?;
        if let Some(account) = self.change_first(&reply) {
            return self.own_account(account, progress).await;
        }
        if matches!(reply.status, 404 | 501) {
            return Ok(Found::NoService);
        }
        self.expect_good(&reply, step)?;
        let service = AccountService::read(&reply.body, &self.line.origin).map_err(|error| bad_answer(&error))?;
        let mut looked_at = 0;
        let mut next = Some(service.accounts.clone());
        for _ in 0..MAX_PAGES {
            let Some(page) = next.take() else { break };
            let step = "listing the accounts";
            let (_, reply) = self.get(page, &self.who(), step, progress).await?;
            if let Some(account) = self.change_first(&reply) {
                return self.own_account(account, progress).await;
            }
            self.expect_good(&reply, step)?;
            let page = Collection::read(&reply.body, &self.line.origin).map_err(|error| bad_answer(&error))?;
            for member in page.members {
                if looked_at >= most {
                    return Ok(Found::Missing);
                }
                looked_at += 1;
                let (path, reply) = self.get(member, &self.who(), "reading an account", progress).await?;
                if reply.status == 401 {
                    self.expect_good(&reply, "reading an account")?;
                }
                // An account that cannot be read, or is none, is another's.
                let Ok(account) = Account::read(&reply.body) else { continue };
                if reply.status == 200 && account.user == self.bmc.username {
                    let tags = Tags { header: reply.etag, body: account.etag };
                    return Ok(Found::Account { path, tags, service: Some(service), role: account.role });
                }
            }
            next = page.next;
        }
        Ok(Found::Missing)
    }

    /// The account that a BMC names when it wants its password changed before anything else.
    fn change_first(&self, reply: &Reply) -> Option<Path> {
        let named = Fault::read_of(reply.status, &reply.body).change_first.filter(|_| reply.status == 403)?;
        Path::at(&self.line.origin, &named)
    }

    /// An account that is known to be the login's own, read for its ETag alone: some do not even show it.
    async fn own_account(&self, path: Path, progress: &Progress) -> Result<Found, Trouble> {
        let (path, reply) = self.get(path, &self.who(), "reading the account", progress).await?;
        let body = Account::read(&reply.body).ok().filter(|_| reply.status == 200).and_then(|account| account.etag);
        let header = reply.etag.filter(|_| reply.status == 200);
        Ok(Found::Account { path, tags: Tags { header, body }, service: None, role: None })
    }
}
