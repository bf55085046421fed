//! Commands, terminals and attachments.

use std::time::Duration;

use runtime::{Error, ExecRequest, Output, Runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::{Rig, SOON, eventually};

crate::tests!(
    exec_output_and_code,
    exec_timeout,
    exec_streams,
    exec_terminal,
    exec_missing_program,
    attach_output_and_input,
    attach_terminal,
    stdin_once,
    long_lines_and_much_output,
    log_reopened,
);

async fn read_until(stream: &mut Output, want: &str) -> String {
    let mut text = String::new();
    let mut chunk = [0u8; 1024];
    let reading = async {
        while !text.contains(want) {
            let length = stream.read(&mut chunk).await.expect("read");
            if length == 0 {
                break;
            }
            text.push_str(&String::from_utf8_lossy(&chunk[..length]));
        }
    };
    let done = tokio::time::timeout(SOON, reading).await.is_ok();
    assert!(done && text.contains(want), "wanted {want:?}, got {text:?}");
    text
}

fn argv(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

async fn exec_output_and_code() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let id = rig.shell(&sandbox, "sleep 60").await;
    let out = rig.native.exec_sync(&id, argv("echo a; echo b >&2; exit 9"), SOON).await.unwrap();
    assert_eq!(
        (out.stdout.as_slice(), out.stderr.as_slice(), out.code),
        (b"a\n".as_slice(), b"b\n".as_slice(), 9)
    );
    let out = rig.native.exec_sync(&id, argv("kill -15 $$"), SOON).await.unwrap();
    assert_eq!(out.code, 143);
    assert_eq!(rig.exec(&id, "echo $FROM_IMAGE $HOME").await.0, "yes /root");
    // Many at once.
    let many = (0..8).map(|n| {
        let (native, id) = (rig.native.clone(), id.clone());
        tokio::spawn(async move { native.exec_sync(&id, argv(&format!("exit {n}")), SOON).await })
    });
    for (n, task) in many.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(task.await.unwrap().unwrap().code, n as i32);
    }
}

async fn exec_timeout() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let id = rig.shell(&sandbox, "sleep 60").await;
    let argv = vec!["sleep".to_owned(), "47".to_owned()];
    let error = rig.native.exec_sync(&id, argv, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    let deadline = tokio::time::Instant::now() + SOON;
    while rig.exec(&id, "ps | grep -c '[s]leep 47'").await.0 != "0" {
        assert!(tokio::time::Instant::now() < deadline, "the command lives on");
    }
}

async fn exec_streams() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let id = rig.shell(&sandbox, "sleep 60").await;
    let request = ExecRequest {
        argv: argv("cat; echo end >&2; exit 4"),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let mut session = rig.native.exec(&id, request).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"hello\n").await.unwrap();
    let mut stdout = session.stdout.take().unwrap();
    assert_eq!(read_until(&mut stdout, "\n").await, "hello\n");
    drop(stdin);
    let mut stderr = session.stderr.take().unwrap();
    assert_eq!(read_until(&mut stderr, "\n").await, "end\n");
    assert_eq!(session.control.wait().await.unwrap(), 4);
    assert_eq!(session.control.wait().await.unwrap(), 4);
}

async fn exec_terminal() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let id = rig.shell(&sandbox, "sleep 60").await;
    let request = ExecRequest {
        argv: argv("echo $TERM; while read line; do stty size; [ $line = q ] && exit 6; done"),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: true,
    };
    let mut session = rig.native.exec(&id, request).await.unwrap();
    assert!(session.stderr.is_none());
    let mut out = session.stdout.take().unwrap();
    let mut input = session.stdin.take().unwrap();
    read_until(&mut out, "xterm").await;
    session.control.resize(101, 33).await.unwrap();
    input.write_all(b"x\n").await.unwrap();
    read_until(&mut out, "33 101").await;
    session.control.resize(80, 24).await.unwrap();
    input.write_all(b"q\n").await.unwrap();
    read_until(&mut out, "24 80").await;
    assert_eq!(session.control.wait().await.unwrap(), 6);
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, out.read_to_end(&mut rest)).await.unwrap().unwrap();
}

async fn exec_missing_program() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let id = rig.shell(&sandbox, "sleep 60").await;
    let error = rig.native.exec_sync(&id, vec!["nothing-here".into()], SOON).await.unwrap_err();
    assert_eq!(error.to_string(), "exec: \"nothing-here\": executable file not found in $PATH");
    rig.native.stop_container(&id, Duration::ZERO).await.unwrap();
    let error = rig.native.exec_sync(&id, argv("true"), SOON).await.unwrap_err();
    assert!(matches!(error, Error::State { .. }), "{error:?}");
}

async fn attach_output_and_input() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let script = "while read l; do echo got $l; echo err $l >&2; [ $l = q ] && exit 2; done";
    let id = rig.start(&sandbox, script, |c| c.stdin = true).await;
    let mut first = rig.native.attach(&id).await.unwrap();
    let mut second = rig.native.attach(&id).await.unwrap();
    let mut input = first.stdin.take().unwrap();
    input.write_all(b"one\n").await.unwrap();
    for session in [&mut first, &mut second] {
        let mut out = session.stdout.take().unwrap();
        read_until(&mut out, "got one\n").await;
        session.stdout = Some(out);
    }
    let mut err = first.stderr.take().unwrap();
    read_until(&mut err, "err one\n").await;
    drop(first);
    drop(input);
    // Without stdin_once another client goes on.
    let mut input = second.stdin.take().unwrap();
    input.write_all(b"q\n").await.unwrap();
    let mut out = second.stdout.take().unwrap();
    read_until(&mut out, "got q\n").await;
    assert_eq!(tokio::time::timeout(SOON, second.control.wait()).await.unwrap().unwrap(), 2);
    assert_eq!(rig.ended(&id).await.exit_code, Some(2));
}

async fn attach_terminal() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let script = "stty -echo; while read l; do stty size; [ $l = q ] && exit; done";
    let id = rig
        .start(&sandbox, script, |c| {
            c.tty = true;
            c.stdin = true;
        })
        .await;
    let mut session = rig.native.attach(&id).await.unwrap();
    session.control.resize(90, 20).await.unwrap();
    let mut input = session.stdin.take().unwrap();
    let mut out = session.stdout.take().unwrap();
    input.write_all(b"x\n").await.unwrap();
    read_until(&mut out, "20 90").await;
    input.write_all(b"q\n").await.unwrap();
    assert_eq!(rig.ended(&id).await.exit_code, Some(0));
    assert!(rig.log("main.log").iter().any(|l| l.starts_with("stdout F 20 90")));
}

async fn stdin_once() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let id = rig
        .start(&sandbox, "cat; echo closed", |c| {
            c.stdin = true;
            c.stdin_once = true;
        })
        .await;
    let mut session = rig.native.attach(&id).await.unwrap();
    let mut input = session.stdin.take().unwrap();
    input.write_all(b"data\n").await.unwrap();
    drop(input);
    let mut out = session.stdout.take().unwrap();
    read_until(&mut out, "data\nclosed\n").await;
    assert_eq!(rig.ended(&id).await.exit_code, Some(0));
}

async fn long_lines_and_much_output() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let id = rig.shell(&sandbox, "head -c 40000 /dev/zero | tr '\\0' x; echo; seq 20000").await;
    rig.ended(&id).await;
    // tr is no link in the image, so only busybox's own applets are certain.
    let log = rig.log("main.log");
    assert_eq!(log.last().unwrap(), "stdout F 20000");
    assert!(log.len() >= 20_000);
    let id = rig
        .start(&sandbox, "busybox head -c 40000 /dev/zero | busybox tr '\\0' x; echo", |c| {
            c.log_path = "long.log".into();
        })
        .await;
    rig.ended(&id).await;
    let log = rig.log("long.log");
    let tags: Vec<&str> = log.iter().map(|l| &l[7..8]).collect();
    assert_eq!(tags, ["P", "P", "F"]);
    assert_eq!(log.iter().map(|l| l.len() - 9).sum::<usize>(), 40_000);
}

async fn log_reopened() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let id = rig.start(&sandbox, "while read l; do echo $l; done", |c| c.stdin = true).await;
    let mut session = rig.native.attach(&id).await.unwrap();
    let mut input = session.stdin.take().unwrap();
    input.write_all(b"before\n").await.unwrap();
    eventually("first line", || rig.log("main.log") == ["stdout F before"]).await;
    let logs = rig.folder.join("logs");
    std::fs::rename(logs.join("main.log"), logs.join("old.log")).unwrap();
    rig.native.reopen_log(&id).await.unwrap();
    input.write_all(b"after\n").await.unwrap();
    eventually("second line", || rig.log("main.log") == ["stdout F after"]).await;
    assert_eq!(rig.log("old.log"), ["stdout F before"]);
}
