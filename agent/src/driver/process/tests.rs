//! With real processes: what they get, what is kept of them, and that nothing of them stays.

use std::time::Instant;

use super::*;
use crate::eventually::eventually_async;

const LONG: Duration = Duration::from_secs(20);

fn host(name: &str) -> HostId {
    name.parse().unwrap()
}

fn shell(script: &str) -> Program<'static> {
    Program {
        path: Path::new("/bin/sh"),
        arguments: vec!["-c".into(), script.into()],
        input: Secret::new(Vec::new()),
        files: Vec::new(),
        farewell: Signal::TERM,
    }
}

async fn run(program: Program<'_>, left: Duration) -> Result<Ended, Broken> {
    let runner = Runner::new(4);
    let place = runner.place(&host("h1"), false).await.unwrap();
    place.run(program, left).await
}

/// Gone, or dead and not yet collected by whoever is left as its parent.
fn is_gone(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.map_or(true, |stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

async fn ends(pid: &str, what: &str) {
    eventually_async(&format!("{what} ends"), || is_gone(pid)).await;
}

#[tokio::test]
async fn a_program_gets_its_words_its_input_and_nothing_else() {
    let env = Program { path: Path::new("env"), arguments: Vec::new(), ..shell("") };
    let mut said: Vec<String> = run(env, LONG).await.unwrap().out.lines().map(str::to_owned).collect();
    said.sort();
    assert_eq!(said, ["LANG=C", "LC_ALL=C", &format!("PATH={PATH}")]);

    let file = PrivateFile::new(b"in the file").unwrap();
    let path = file.path();
    let script = format!("cat; (cat {path}; cat {path}); ls -l /proc/self/fd; echo no > {path}; exit 7");
    let program = Program { input: Secret::new(b"typed ".to_vec()), files: vec![file], ..shell(&script) };
    let ended = run(program, LONG).await.unwrap();
    assert!(ended.out.starts_with("typed in the filein the file"), "{}", ended.out);
    assert!(!ended.out.contains("memfd"), "a descriptor was inherited: {}", ended.out);
    assert_eq!(ended.exit, Exit::Code(7), "{}", ended.err);
    assert!(!Path::new(&path).exists(), "the file ends with its program");
    let session = run(shell("echo $$; cut -d ' ' -f 6 /proc/self/stat"), LONG).await.unwrap();
    let (pid, session) = session.out.trim().split_once('\n').unwrap();
    assert_eq!(pid, session, "a session of its own: no terminal");
}

#[tokio::test]
async fn a_flood_is_read_away_and_its_beginning_kept() {
    let script = "echo first; head -c 3000000 /dev/zero | tr '\\0' x; head -c 3000000 /dev/zero | tr '\\0' y >&2; exit 0";
    let ended = run(shell(script), LONG).await.unwrap();
    assert_eq!((ended.exit, ended.out.len(), ended.err.len()), (Exit::Code(0), KEPT, KEPT));
    assert!(ended.out.starts_with("first\nxxx"));
}

#[tokio::test]
async fn input_that_nobody_reads_hangs_nothing() {
    let program = Program { input: Secret::new(vec![b'x'; 1 << 20]), ..shell("exit 3") };
    assert_eq!(run(program, LONG).await.unwrap().exit, Exit::Code(3));
}

/// Children that do not listen to SIGTERM, and their children, end at the deadline and not much later.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the deadline is measured from outside")]
async fn the_deadline_ends_a_program_and_all_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let script = format!(
        "trap '' TERM; echo $$ >{at}/1; sh -c \"trap '' TERM; echo \\$\\$ >{at}/2; sleep 300 & echo \\$! >{at}/3; wait\" & sleep 300"
    );
    let begun = Instant::now();
    let broken = run(shell(&script), Duration::from_millis(1500)).await.unwrap_err();
    assert!(matches!(broken, Broken::Deadline), "{broken}");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1000) && took < Duration::from_millis(2500), "{took:?}");
    for name in ["1", "2", "3"] {
        let pid = std::fs::read_to_string(folder.path().join(name)).unwrap();
        ends(&pid, &format!("process {name}")).await;
    }
}

/// A program that ends leaves nothing behind that holds its output open.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the end is measured from outside")]
async fn what_a_program_leaves_behind_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let begun = Instant::now();
    let ended = run(shell(&format!("sleep 300 & echo $! >{}; echo done", file.display())), LONG).await.unwrap();
    assert_eq!((ended.exit, ended.out.trim()), (Exit::Code(0), "done"));
    assert!(begun.elapsed() < Duration::from_secs(5));
    let pid = std::fs::read_to_string(file).unwrap();
    ends(&pid, "what is left").await;
}

#[tokio::test]
async fn a_program_that_is_given_up_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("echo $$ >{}; sleep 300", file.display());
    let running = tokio::spawn(async move { run(shell(&script), LONG).await });
    eventually_async("it runs", || std::fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n'))).await;
    running.abort();
    let pid = std::fs::read_to_string(file).unwrap();
    ends(&pid, "the program").await;
}

#[tokio::test]
async fn programs_that_cannot_be_started() {
    let no = Program { path: Path::new("/nowhere/x"), ..shell("") };
    assert!(matches!(run(no, LONG).await, Err(Broken::Missing(path)) if path == Path::new("/nowhere/x")));
    let no = Program { path: Path::new("no-such-program-here"), ..shell("") };
    assert!(matches!(run(no, LONG).await, Err(Broken::Missing(_))));
    let no = Program { path: Path::new("/etc/passwd"), ..shell("") };
    assert!(matches!(run(no, LONG).await, Err(Broken::Start { .. })));
    assert_eq!(run(shell("kill -9 $$"), LONG).await.unwrap().exit, Exit::Signal(9));
    assert!(find(Path::new("sh")).is_some_and(|sh| sh.is_absolute()));
}

/// Whether a place is given at once.
async fn gets_a_place<'a>(runner: &'a Runner, name: &str, is_order: bool) -> Option<Place<'a>> {
    timeout(Duration::from_millis(50), runner.place(&host(name), is_order)).await.ok().map(Result::unwrap)
}

#[tokio::test]
async fn silent_bmcs_leave_room_for_the_others_and_orders_have_their_own() {
    let runner = Runner::new(8);
    let mut hanging = Vec::new();
    for n in 0..6 {
        hanging.extend(gets_a_place(&runner, &format!("new-{n}"), false).await);
    }
    assert_eq!(hanging.len(), 3, "half of the six places for polls");
    runner.set_answered(&host("good"), true);
    let mut good = vec![gets_a_place(&runner, "good", false).await.expect("room for one that answers")];
    good.extend(gets_a_place(&runner, "good", false).await);
    good.extend(gets_a_place(&runner, "good", false).await);
    assert!(gets_a_place(&runner, "good", false).await.is_none(), "six in all");
    let orders = [gets_a_place(&runner, "new-7", true).await, gets_a_place(&runner, "new-8", true).await];
    assert!(orders.iter().all(Option::is_some), "orders do not queue behind polls");
    assert!(gets_a_place(&runner, "new-9", true).await.is_none(), "eight in all");
    drop(orders);
    runner.set_answered(&host("good"), false);
    drop(good);
    assert!(gets_a_place(&runner, "good", false).await.is_none(), "it is silent now");
    drop(hanging);
    assert!(gets_a_place(&runner, "good", false).await.is_some());
}

#[tokio::test]
async fn at_the_agents_end_polls_end_at_once_and_orders_may_finish() {
    let runner = Runner::new(4);
    runner.set_answered(&host("h1"), true);
    let poll = runner.place(&host("h1"), false).await.unwrap();
    let order = runner.place(&host("h1"), true).await.unwrap();
    let hanging = runner.place(&host("h3"), true).await.unwrap();
    let waiting = async { runner.place(&host("h4"), true).await.map(drop) };
    let folder = tempfile::tempdir().unwrap();
    let script = |name: &str, rest: &str| format!("echo >{}/{name}; {rest}", folder.path().display());
    let (endless_poll, short_order, endless_order) =
        (script("1", "sleep 300"), script("2", "sleep 0.7; echo done"), script("3", "sleep 300"));
    let polling = async {
        let ended = poll.run(shell(&endless_poll), LONG).await;
        drop(poll);
        ended
    };
    let ordering = async {
        let ended = order.run(shell(&short_order), LONG).await;
        drop(order);
        ended
    };
    let endless = async {
        let ended = hanging.run(shell(&endless_order), LONG).await;
        drop(hanging);
        ended
    };
    let closing = async {
        eventually_async("all run", || ["1", "2", "3"].iter().all(|name| folder.path().join(name).exists())).await;
        runner.shutdown().await;
    };
    let (polled, ordered, ended, waited, ()) = tokio::join!(polling, ordering, endless, waiting, closing);
    assert!(matches!(polled, Err(Broken::Closing)));
    assert_eq!(ordered.unwrap().out.trim(), "done");
    assert!(matches!(ended, Err(Broken::Closing)));
    // It either had the fourth place or none; nothing waits for ever.
    assert!(waited.is_ok() || matches!(waited, Err(Broken::Closing)));
    assert!(matches!(runner.place(&host("h1"), true).await, Err(Broken::Closing)), "nothing is started any more");
}

#[test]
fn words_for_people_have_no_secrets() {
    let ended = |err: &str, out: &str| Ended { exit: Exit::Code(1), out: out.into(), err: err.into() };
    let said = ended("login admin hunter2 failed\n\n\u{7}bad\tcode hunter2", "on");
    assert_eq!(said.words(&["hunter2", ""]), "login admin (secret) failed; badcode (secret)");
    assert_eq!(ended(" \n", "out only").words(&[]), "out only");
    let long = ended(&format!("{}é the end", "x".repeat(400)), "").words(&[]);
    assert!(long.ends_with("é the end") && long.len() <= 300);
    // Cut at 64 KiB, in the middle of the secret: the end is not shown.
    let cut = ended(&format!("begin {}hunt", "x".repeat(KEPT)), "").words(&["hunter2"]);
    assert!(cut.starts_with("begin") && !cut.contains("hunt"));
}
