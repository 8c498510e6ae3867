//! Hosts in files: `hosts import`, `hosts export`. A file goes to the aggregator as it is; what is wrong in it comes back by line.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use picket_common::api::{ImportLine, ImportResult, LineError, MAX_IMPORT, Problem};
use picket_common::hostset::fold;
use reqwest::Method;
use serde_json::Value;

use crate::Ended;
use crate::cli::{ExportArgs, ExportFormat, ImportArgs, ImportFormat};
use crate::client::{Call, Client, escaped, problem};
use crate::failure::{Failure, NONE_SUCCEEDED, SOME_FAILED};
use crate::hosts;
use crate::output::{Column, Output, column, maybe, print};
use crate::select;

const LINES: &[Column<ImportLine>] = &[
    column("LINE", |l, _| l.line.into()),
    column("HOST", |l, _| maybe(l.id.as_ref())),
    column("RESULT", |l, _| l.result.as_str().into()),
    column("DETAIL", |l, _| maybe(l.problem.as_ref().map(|problem| format!("{} ({})", problem.detail, problem.code)))),
];

const ERRORS: &[Column<LineError>] = &[
    column("LINE", |e, _| e.line.into()),
    column("HOST", |e, _| maybe(e.id.as_ref())),
    column("CODE", |e, _| (&e.code).into()),
    column("DETAIL", |e, _| (&e.detail).into()),
    column("HINT", |e, _| maybe(e.hint.as_ref())),
];

const CSV: &str = "text/csv";
const NDJSON: &str = "application/x-ndjson";

/// Thousands of passwords are sealed, and all is made durable at once.
const TIMEOUT: Duration = Duration::from_secs(600);

/// `hosts import`.
pub async fn import(client: &Client, out: &Output, args: &ImportArgs) -> Ended {
    let text = read(&args.file)?;
    let media = match args.format.or_else(|| format_of(&args.file)) {
        Some(ImportFormat::Csv) => CSV,
        Some(ImportFormat::Ndjson | ImportFormat::Obm) => NDJSON,
        // The aggregator looks at the first character.
        None => "application/octet-stream",
    };
    let query = [
        ("dry_run", args.dry_run.then(|| "true".to_owned())),
        ("partial", args.partial.then(|| "true".to_owned())),
        ("cluster", args.cluster.as_ref().map(ToString::to_string)),
        ("rack", args.rack.as_ref().map(ToString::to_string)),
    ];
    let path = with_query("/v1/import/hosts", &query);
    let headers = [("content-type", media.to_owned())];
    let call = Call { body: Some(text), headers: &headers, timeout: Some(TIMEOUT), ..Call::new(Method::POST, &path) };
    let answer = client.send(call).await?;
    if !answer.status().is_success() {
        return match problem(answer).await {
            Failure::Problem(problem) if !problem.errors.is_empty() => refused(out, &args.file, &problem),
            failure => Err(failure),
        };
    }
    done(out, args, &answer.text().await.map_err(|error| Failure::NoAnswer(error.to_string()))?)
}

/// The file, as far as it can be imported at once.
fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |error: std::io::Error| Failure::Usage(format!("{}: {error}", file.display()));
    let mut text = Vec::new();
    let most = MAX_IMPORT as u64 + 1;
    if file == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_end(&mut text).map_err(wrong)?;
    } else {
        std::fs::File::open(file).map_err(wrong)?.take(most).read_to_end(&mut text).map_err(wrong)?;
    }
    if text.len() > MAX_IMPORT {
        return Err(Failure::Usage(format!("{} is larger than {MAX_IMPORT} bytes: split it up", file.display())));
    }
    Ok(text)
}

fn format_of(file: &Path) -> Option<ImportFormat> {
    match file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "csv" => Some(ImportFormat::Csv),
        "json" | "jsonl" | "ndjson" => Some(ImportFormat::Ndjson),
        _ => None,
    }
}

/// A path with the parameters that are given.
fn with_query(path: &str, query: &[(&str, Option<String>)]) -> String {
    let given = query.iter().filter_map(|(name, value)| Some(format!("{name}={}", escaped(value.as_deref()?))));
    let query = given.collect::<Vec<_>>().join("&");
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// Nothing was done: each wrong line is told as compilers tell theirs.
fn refused(out: &Output, file: &Path, problem: &Problem) -> Ended {
    if out.is_table() {
        for LineError { line, id, code, detail, hint } in &problem.errors {
            let host = id.as_ref().map(|id| format!("{id}: ")).unwrap_or_default();
            let hint = hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
            eprintln!("{}:{line}: {host}{detail} [{code}]{hint}", file.display());
        }
    } else {
        let errors: Result<Vec<Value>, _> = problem.errors.iter().map(serde_json::to_value).collect();
        out.list(&errors.map_err(|error| Failure::Local(error.to_string()))?, ERRORS, "id")?;
    }
    eprintln!("picketctl: {}", problem.detail);
    Ok(NONE_SUCCEEDED)
}

fn done(out: &Output, args: &ImportArgs, answer: &str) -> Ended {
    let not_understood = |error: serde_json::Error| Failure::NoAnswer(format!("its answer is not understood ({error})"));
    let lines: Vec<ImportLine> = answer.lines().map(serde_json::from_str).collect::<Result<_, _>>().map_err(not_understood)?;
    let count = |result: ImportResult| lines.iter().filter(|line| line.result == result).count();
    let refused = count(ImportResult::Refused);
    let wanted = |line: &&str| !out.is_table() || line.contains("\"result\":\"refused\"");
    let shown =
        answer.lines().filter(wanted).map(serde_json::from_str).collect::<Result<Vec<Value>, _>>().map_err(not_understood)?;
    if !shown.is_empty() {
        out.list(&shown, LINES, "id")?;
    }
    let (created, changed, same) = (count(ImportResult::Created), count(ImportResult::Changed), count(ImportResult::Unchanged));
    let dry = if args.dry_run { "dry run: " } else { "" };
    eprintln!("{dry}{created} created, {changed} changed, {same} unchanged, {refused} refused");
    Ok(match (lines.len() - refused, refused) {
        (_, 0) => 0,
        (0, _) => NONE_SUCCEEDED,
        _ => SOME_FAILED,
    })
}

/// `hosts export`: the aggregator's own text, as it comes.
pub async fn export(client: &Client, args: ExportArgs) -> Ended {
    let ExportArgs { hosts: words, filter, format } = args;
    let select = if words.is_empty() { None } else { Some(selection(client, &words).await?) };
    let query: Vec<_> = std::iter::once(("select", select)).chain(hosts::query(filter)).collect();
    let path = with_query("/v1/export/hosts", &query);
    let media = match format {
        ExportFormat::Csv => CSV,
        ExportFormat::Ndjson => NDJSON,
    };
    let headers = [("accept", media.to_owned())];
    let call = Call { headers: &headers, timeout: Some(TIMEOUT), ..Call::new(Method::GET, &path) };
    let answer = client.ask(call).await?.text().await.map_err(|error| Failure::NoAnswer(error.to_string()))?;
    print(&answer)?;
    Ok(0)
}

/// The hosts that are named, as one set of names.
async fn selection(client: &Client, words: &[String]) -> Result<String, Failure> {
    let named = select::named(client, words).await?;
    let set = fold(&named.into_iter().collect());
    if set.len() > select::MAX_QUERY {
        return Err(Failure::Usage("these names do not fit into one request: name a zone, cluster or rack, or export all".into()));
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_say_their_form() {
        for (name, wanted) in [
            ("hosts.csv", Some(ImportFormat::Csv)),
            ("HOSTS.CSV", Some(ImportFormat::Csv)),
            ("a/b.ndjson", Some(ImportFormat::Ndjson)),
            ("b.json", Some(ImportFormat::Ndjson)),
            ("-", None),
            ("hosts.txt", None),
        ] {
            assert_eq!(format_of(Path::new(name)), wanted, "{name}");
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_not_sent() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts.csv");
        std::fs::File::create(&file).unwrap().set_len(100 << 20).unwrap();
        let told = read(&file).unwrap_err().to_string();
        assert!(told.contains("hosts.csv is larger than 8388608 bytes: split it up"), "{told}");
        std::fs::write(&file, "id\n").unwrap();
        assert_eq!(read(&file).unwrap(), b"id\n");
        assert!(read(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
