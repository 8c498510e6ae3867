//! E-mail: one message for each delivery, readable by people; its Message-ID is the delivery's, so that one sent twice is known,
//! and all messages of a matter are one thread.
//!
//! Each recipient stands for itself: a mailbox that is refused for good keeps no other from being told, and who has got a
//! message does not get it again because another has to wait.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use picket_common::alert::Severity;
use picket_common::api::{Alert, Change, News};

use super::{Letter, Progress, again, files, never};
use crate::config::notify::{Email, MailTls};
use crate::fleet::Undelivered;

const CONNECT: Duration = Duration::from_secs(20);
/// Most alerts that are written out; the rest are counted.
const WRITTEN: usize = 100;

pub(super) async fn send(way: &Email, letter: &Letter<'_>, progress: &mut Progress) -> Result<(), Undelivered> {
    let message = message(way, letter).map_err(|error| never(error.to_string()))?;
    let open: Vec<&Mailbox> = way.to.iter().filter(|to| !progress.is_done(to.email.as_ref())).collect();
    if open.is_empty() {
        return Ok(());
    }
    let mut connection = connect(way, letter).await?;
    let sent = transaction(&mut connection, way, &open, &message).await;
    if let Ok(outcome) = &sent {
        outcome.accepted.iter().for_each(|to| progress.done(to));
    }
    connection.abort().await;
    sent?.verdict(&letter.delivery.receiver)
}

/// Connects, protects the connection and logs in. Whatever fails here says nothing about the message: it is tried again.
async fn connect(way: &Email, letter: &Letter<'_>) -> Result<AsyncSmtpConnection, Undelivered> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: SmtpError| again(format!("{what}: {}", words(&error)))
    };
    let hello = hello(&letter.around.name);
    let tls = match way.tls {
        MailTls::None => None,
        MailTls::Starttls | MailTls::Tls => Some(tls(way)?),
    };
    let (first, later) = if way.tls == MailTls::Tls { (tls, None) } else { (None, tls) };
    let server = (way.server.as_str(), way.port);
    let mut connection =
        AsyncSmtpConnection::connect_tokio1(server, Some(CONNECT), &hello, first, None).await.map_err(failed("connecting"))?;
    if let Some(tls) = later {
        connection.starttls(tls, &hello).await.map_err(failed("STARTTLS"))?;
    }
    if let Some((name, file)) = &way.login {
        let password = files::secret("password_file", file)?;
        let credentials = Credentials::new(name.clone(), password.expose().clone());
        let mechanisms = [Mechanism::Plain, Mechanism::Login];
        connection.auth(&mechanisms, &credentials).await.map_err(failed("logging in"))?;
    }
    Ok(connection)
}

fn tls(way: &Email) -> Result<TlsParameters, Undelivered> {
    let mut builder = TlsParameters::builder(way.server.clone());
    if let Some(file) = &way.ca_file {
        let failed = |error: SmtpError| again(format!("ca_file: {}", words(&error)));
        let pem = files::text("ca_file", file)?;
        let authorities = Certificate::from_pem(pem.as_bytes()).map_err(failed)?;
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(authorities);
    }
    builder.build_rustls().map_err(|error| again(words(&error)))
}

fn hello(name: &str) -> ClientId {
    match name.parse() {
        Ok(std::net::IpAddr::V4(address)) => ClientId::Ipv4(address),
        Ok(std::net::IpAddr::V6(address)) => ClientId::Ipv6(address),
        Err(_) => ClientId::Domain(name.to_owned()),
    }
}

/// What became of a message's recipients.
#[derive(Debug, Default)]
struct Outcome {
    accepted: Vec<String>,
    /// Refused for good, with the server's words.
    refused: Vec<String>,
    /// To be tried again.
    put_off: Vec<String>,
}

impl Outcome {
    fn verdict(self, receiver: &impl std::fmt::Display) -> Result<(), Undelivered> {
        if !self.put_off.is_empty() {
            return Err(again(self.put_off.join("; ")));
        }
        let refused = self.refused.join("; ");
        match (self.accepted.is_empty(), refused.is_empty()) {
            (true, _) => Err(never(refused)),
            (false, true) => Ok(()),
            (false, false) => {
                tracing::error!(%receiver, refused, "the mail server refuses recipients of alerts");
                Ok(())
            }
        }
    }
}

async fn transaction(
    connection: &mut AsyncSmtpConnection,
    way: &Email,
    to: &[&Mailbox],
    message: &[u8],
) -> Result<Outcome, Undelivered> {
    connection.command(Mail::new(Some(way.from.email.clone()), Vec::new())).await.map_err(|error| judge("MAIL", &error))?;
    let mut outcome = Outcome::default();
    for mailbox in to {
        let address: &str = mailbox.email.as_ref();
        match connection.command(Rcpt::new(mailbox.email.clone(), Vec::new())).await {
            Ok(_) => outcome.accepted.push(address.to_owned()),
            Err(error) if error.is_permanent() && !is_login(&error) => {
                outcome.refused.push(format!("{address}: {}", words(&error)));
            }
            Err(error) => outcome.put_off.push(format!("{address}: {}", words(&error))),
        }
    }
    if !outcome.accepted.is_empty() {
        connection.command(Data).await.map_err(|error| judge("DATA", &error))?;
        connection.message(message).await.map_err(|error| judge("the message", &error))?;
    }
    Ok(outcome)
}

/// 5xx is final (RFC 5321 §4.2.1), but for a login that is missing or wrong, which people can put right (RFC 4954 §6).
fn judge(what: &str, error: &SmtpError) -> Undelivered {
    Undelivered { is_final: error.is_permanent() && !is_login(error), why: format!("{what}: {}", words(error)) }
}

fn is_login(error: &SmtpError) -> bool {
    error.status().is_some_and(|code| (530..=538).contains(&u16::from(code)))
}

fn words(error: &SmtpError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if !text.contains(&error.to_string()) {
            text = format!("{text}: {error}");
        }
        cause = error.source();
    }
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

fn message(way: &Email, letter: &Letter<'_>) -> Result<Vec<u8>, lettre::error::Error> {
    let delivery = letter.delivery;
    let id = |id: &str| format!("<{id}@{}>", way.from.email.domain());
    let mut builder = Message::builder()
        .from(way.from.clone())
        .header(ContentType::TEXT_PLAIN)
        .subject(subject(letter))
        .message_id(Some(id(&delivery.id)))
        .date(SystemTime::from(delivery.made_at))
        // RFC 3834: nobody's absence is to answer it.
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".into()));
    for to in &way.to {
        builder = builder.to(to.clone());
    }
    if delivery.thread != delivery.id {
        builder = builder.in_reply_to(id(&delivery.thread)).references(id(&delivery.thread));
    }
    Ok(builder.body(body(letter))?.formatted())
}

fn subject(letter: &Letter<'_>) -> String {
    let site = &letter.around.site;
    if letter.is_test {
        return format!("[{site}] test of receiver {}", letter.delivery.receiver);
    }
    match &*letter.delivery.news {
        [news] => format!("[{site}] {}: {} {}", said(news.change), news.alert.kind, whose(&news.alert)),
        news => format!("[{site}] {}: {}", counts(news), matter(letter)),
    }
}

const fn said(change: Change) -> &'static str {
    match change {
        Change::Firing => "firing",
        Change::Repeated => "still firing",
        Change::Resolved => "resolved",
    }
}

/// "3 firing, 1 resolved".
fn counts(news: &[News]) -> String {
    let counted = [Change::Firing, Change::Repeated, Change::Resolved].map(|change| {
        let count = news.iter().filter(|news| news.change == change).count();
        (count > 0).then(|| format!("{count} {}", said(change)))
    });
    counted.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn whose(alert: &Alert) -> &str {
    let host = alert.host.as_ref().map(picket_common::id::HostId::as_str);
    host.or(alert.agent.as_ref().map(picket_common::id::AgentId::as_str)).unwrap_or(&alert.id)
}

/// "bmc-lost in z1/c1".
fn matter(letter: &Letter<'_>) -> String {
    let group = &letter.delivery.group;
    let cluster = group.cluster.as_ref().map(|cluster| format!("/{cluster}")).unwrap_or_default();
    format!("{} in {}{cluster}", group.kind, group.zone)
}

fn body(letter: &Letter<'_>) -> String {
    let news = &letter.delivery.news;
    let mut text = format!("{}: {}\n", counts(news), matter(letter));
    if letter.is_test {
        text = news.iter().map(|news| format!("{}\n", news.alert.summary)).collect();
    }
    for news in news.iter().take(if letter.is_test { 0 } else { WRITTEN }) {
        text.push('\n');
        text.push_str(&paragraph(letter, news));
    }
    if !letter.is_test && news.len() > WRITTEN {
        write(&mut text, format_args!("\nand {} more: picketctl alerts\n", news.len() - WRITTEN));
    }
    write(
        &mut text,
        format_args!("\n-- \nPicket, site {}; receiver {}; {}\n", letter.around.site, letter.delivery.receiver, letter.delivery.id),
    );
    text
}

fn paragraph(letter: &Letter<'_>, news: &News) -> String {
    let alert = &news.alert;
    let mut text = format!("{} {} {}", said(news.change).to_uppercase(), alert.kind, whose(alert));
    if alert.severity != Severity::Info {
        write(&mut text, format_args!(" ({})", alert.severity));
    }
    write(&mut text, format_args!("\n  {}\n  since {:.0}", alert.summary, alert.starts_at));
    if let Some(ended) = alert.ends_at {
        write(&mut text, format_args!(" until {ended:.0}"));
    }
    if let Some(rack) = &alert.rack {
        write(&mut text, format_args!(", rack {rack}"));
    }
    if alert.count > 1 {
        write(&mut text, format_args!(", reported {} times", alert.count));
    }
    write(&mut text, format_args!("\n  {}\n", letter.link(alert)));
    text
}

fn write(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a text cannot fail.
    text.write_fmt(what).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::{around, delivery};

    fn way() -> Email {
        Email {
            server: "mail.example".into(),
            port: 25,
            tls: MailTls::Starttls,
            ca_file: None,
            login: None,
            from: "Picket <picket@example.org>".parse().unwrap(),
            to: vec!["ops@example.org".parse().unwrap()],
        }
    }

    #[test]
    fn a_message_is_readable_and_threaded() {
        let around = around();
        let mut news = delivery(&[(Change::Firing, "h1"), (Change::Firing, "h2"), (Change::Resolved, "h3")]);
        let letter = Letter { delivery: &news, around: &around, is_test: false };
        let first = String::from_utf8(message(&way(), &letter).unwrap()).unwrap();
        for line in [
            "From: Picket <picket@example.org>",
            "To: ops@example.org",
            "Subject: [test] 2 firing, 1 resolved: bmc-lost in z1/c1",
            "Message-ID: <d1@example.org>",
            "Date: Fri, 15 Jan 2027 08:06:00 +0000",
            "Auto-Submitted: auto-generated",
            "Content-Type: text/plain; charset=utf-8",
            "2 firing, 1 resolved: bmc-lost in z1/c1",
            "FIRING bmc-lost h1 (warning)",
            "  the BMC of h1 does not answer",
            "  since 2027-01-15T08:00:00Z, rack r1",
            "  https://picket.example:8443/v1/alerts/bmc-lost.h1",
            "RESOLVED bmc-lost h3 (warning)",
            "  since 2027-01-15T08:00:00Z until 2027-01-15T08:05:00Z, rack r1",
            "Picket, site test; receiver ops; d1",
        ] {
            assert!(first.lines().any(|found| found == line), "{line}\nis not in\n{first}");
        }
        assert!(!first.contains("In-Reply-To"), "{first}");
        news.thread = "d0".into();
        let letter = Letter { delivery: &news, around: &around, is_test: false };
        let reply = String::from_utf8(message(&way(), &letter).unwrap()).unwrap();
        assert!(
            reply.contains("In-Reply-To: <d0@example.org>\r\n") && reply.contains("References: <d0@example.org>\r\n"),
            "{reply}"
        );
    }

    #[test]
    fn one_alert_is_the_subject() {
        let around = around();
        let news = delivery(&[(Change::Repeated, "h1")]);
        assert_eq!(subject(&Letter { delivery: &news, around: &around, is_test: false }), "[test] still firing: bmc-lost h1");
    }

    #[test]
    fn recipients_stand_for_themselves() {
        let outcome = |accepted: &[&str], refused: &[&str], put_off: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
            Outcome { accepted: owned(accepted), refused: owned(refused), put_off: owned(put_off) }.verdict(&"ops")
        };
        assert_eq!(outcome(&["a"], &[], &[]), Ok(()));
        assert_eq!(outcome(&["a"], &["b"], &[]), Ok(()));
        assert_eq!(outcome(&["a"], &["b"], &["c"]), Err(again("c")));
        assert_eq!(outcome(&[], &["b"], &["c"]), Err(again("c")));
        assert_eq!(outcome(&[], &["b"], &[]), Err(never("b")));
    }
}
