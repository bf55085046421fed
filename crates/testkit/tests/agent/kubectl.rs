//! Streams driven by kubectl, over WebSocket and over SPDY, where there is one.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::rig::{BUSYBOX, Rig};

/// Longer than any of these commands takes.
const LIMIT: Duration = Duration::from_secs(30);

/// Which transport kubectl is told to use.
#[derive(Clone, Copy, Debug)]
enum Transport {
    WebSocket,
    Spdy,
}

fn kubectl(rig: &Rig, transport: Transport, args: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    let websockets = matches!(transport, Transport::WebSocket).to_string();
    command
        .arg("--kubeconfig")
        .arg(rig.kubeconfig())
        .args(args)
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", &websockets)
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", &websockets)
        .env_remove("KUBECONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs kubectl with some input: output, errors, exit code.
async fn run(
    rig: &Rig,
    transport: Transport,
    args: &[&str],
    input: &[u8],
) -> (String, String, i32) {
    let mut child = kubectl(rig, transport, args).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feed = tokio::spawn(async move {
        let _ = stdin.write_all(&input).await;
    });
    let output = tokio::time::timeout(LIMIT, child.wait_with_output())
        .await
        .expect("kubectl in time")
        .unwrap();
    feed.abort();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap_or(-1))
}

pub async fn streams(rig: &Rig) {
    if std::process::Command::new("kubectl").arg("--help").output().is_err() {
        println!("streams are not tested: there is no kubectl");
        return;
    }
    let script = "echo page > /tmp/index.html; httpd -p 127.0.0.1:8080 -h /tmp; while read line; do echo got $line; done; sleep 1000";
    rig.create("streams", json!({"containers": [{"name": "main", "image": BUSYBOX, "stdin": true, "command": ["sh", "-c", script]}]})).await;
    rig.phase("streams", "Running").await;
    for transport in [Transport::WebSocket, Transport::Spdy] {
        commands(rig, transport).await;
        terminal(rig, transport).await;
        forwarded(rig, transport).await;
        attached(rig, transport).await;
        println!("streams over {transport:?} work");
    }
    rig.delete("streams").await;
}

async fn commands(rig: &Rig, transport: Transport) {
    let exec = async |args: &[&str], input: &[u8]| {
        let args = [&["exec", "streams"], args].concat();
        run(rig, transport, &args, input).await
    };
    let (out, err, code) = exec(&["--", "sh", "-c", "echo out; echo err >&2; exit 7"], b"").await;
    assert_eq!((out.as_str(), code), ("out\n", 7), "{transport:?}: {err}");
    assert!(err.starts_with("err\n") && err.contains("exit code 7"), "{transport:?}: {err}");
    let big = vec![b'x'; 3 << 20];
    let (out, err, code) = exec(&["-i", "--", "cat"], &big).await;
    assert_eq!((out.len(), code), (big.len(), 0), "{transport:?}: {err}");
    let (_, err, code) = exec(&["--", "/nope"], b"").await;
    assert!(code != 0 && err.contains("nope"), "{transport:?}: {err}");
    let (_, err, code) = exec(&["-c", "none", "--", "true"], b"").await;
    assert!(code != 0 && err.contains("none"), "{transport:?}: {err}");
}

/// A terminal on both sides; `script` gives kubectl one.
async fn terminal(rig: &Rig, transport: Transport) {
    let inner = format!(
        "kubectl --kubeconfig {} exec -it streams -- sh -c 'test -t 0 && echo a terminal; exit 5'",
        rig.kubeconfig().display()
    );
    let websockets = matches!(transport, Transport::WebSocket).to_string();
    let output = Command::new("script")
        .args(["-qec", &inner, "/dev/null"])
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
        .stdin(Stdio::null())
        .output();
    let output = tokio::time::timeout(LIMIT, output).await.expect("script in time");
    let Ok(output) = output else { return };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("a terminal"), "{transport:?}: {text}");
    assert_eq!(output.status.code(), Some(5), "{transport:?}: {text}");
}

async fn forwarded(rig: &Rig, transport: Transport) {
    let mut child =
        kubectl(rig, transport, &["port-forward", "pod/streams", ":8080"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line =
        tokio::time::timeout(LIMIT, lines.next_line()).await.expect("a line in time").unwrap();
    let Some(line) = line else {
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
        panic!("{transport:?}: {err}");
    };
    let port: u16 = line
        .split([':', ' '])
        .nth(3)
        .and_then(|p| p.parse().ok())
        .unwrap_or_else(|| panic!("{line}"));
    for _ in 0..3 {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer))
            .await
            .expect("an answer in time")
            .unwrap();
        assert!(answer.ends_with("page\n"), "{transport:?}: {answer}");
    }
    child.kill().await.unwrap();
}

async fn attached(rig: &Rig, transport: Transport) {
    let mut child = kubectl(rig, transport, &["attach", "-i", "streams"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    stdin.write_all(b"hello\n").await.unwrap();
    loop {
        let line =
            tokio::time::timeout(LIMIT, lines.next_line()).await.expect("a line in time").unwrap();
        match line.as_deref() {
            Some("got hello") => break,
            Some(_) => {}
            None => panic!("{transport:?}: attach ended"),
        }
    }
    child.kill().await.unwrap();
}
